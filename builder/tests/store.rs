// SPDX-License-Identifier: Apache-2.0
//! The store module on real containerds, and the behaviour of containerd that the engine's rules rest on.
//!
//! Needs root. Every trial runs on each of [`ContainerdBinaries::both`]; as a plain user, or without that containerd, it
//! is reported as ignored with the reason. Trials of one containerd run one after the other, for garbage collection
//! knows no namespaces.

#[path = "store_trials/mod.rs"]
mod store_trials;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use confine::Confinement;
use libtest_mimic::{Arguments, Failed};
use shakedown_node::{ContainerdBinaries, Node, NodeOptions, TestPlace};
use shakedown_testing::trial;
use store_trials::{Bench, Run, TRIALS};
use tokio::runtime::Runtime;

/// One version under test; started by its first trial.
#[derive(Default)]
struct Version(Mutex<Option<(Runtime, Node)>>);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let plain_user = shakedown_testing::root("run containerd");
    if plain_user.is_none() {
        confine::enter(Confinement { network: true, reap_orphans: true }).expect("namespaces");
    }
    let place = TestPlace::enter().expect("a place");
    let mut versions = Vec::new();
    let mut trials = Vec::new();
    for (label, binaries) in ContainerdBinaries::both() {
        let missing = plain_user.clone().or_else(|| binaries.as_ref().err().map(ToString::to_string));
        let version = Arc::new(Version::default());
        for (name, run, on_request) in TRIALS {
            let (version, name, run) = (Arc::clone(&version), *name, *run);
            let options = binaries.as_ref().ok().map(|binaries| NodeOptions {
                cni: false,
                ..NodeOptions::new(binaries.clone(), place.path().join("nodes"))
            });
            let body = move || {
                version.in_turn(options.expect("invariant: without it the trial is ignored"), name, run)
            };
            let trial = trial(format!("{label}/{name}"), missing.as_deref(), body);
            trials.push(trial.with_ignored_flag(*on_request));
        }
        versions.push(version);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for version in &versions {
        let started = version.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((runtime, node)) = started {
            runtime.block_on(node.stop()).expect("nothing is left");
        }
    }
    conclusion.exit_code()
}

impl Version {
    fn in_turn(&self, options: NodeOptions, name: &str, run: Run) -> Result<(), Failed> {
        let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (runtime, node) = match &mut *started {
            Some(started) => started,
            none => {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                let node = runtime.block_on(Node::start(options))?;
                none.insert((runtime, node))
            }
        };
        let second = node.binaries().version().major >= 2;
        let outcome = runtime.block_on(async {
            let bench = Bench::new(node.address(), second, name)?;
            tokio::time::timeout(Duration::from_secs(60), run(bench))
                .await
                .map_err(|_| anyhow::anyhow!("the trial took more than 60 s"))?
        });
        // The chain of causes, for the first of them names only the operation.
        outcome.map_err(|error| format!("{error:#}").into())
    }
}
