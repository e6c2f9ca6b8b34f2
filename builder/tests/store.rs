// SPDX-License-Identifier: Apache-2.0
//! The store module on real containerds, and the behaviour of containerd that the engine's rules rest on.
//!
//! Needs root; as a plain user the trials are reported as ignored. Every trial runs against each containerd that is
//! there: Debian's, and a 2.x named by `PUSHLESS_TEST_CONTAINERD2` (else `target/containerd-2/containerd`). Trials of
//! one containerd run one after the other, for garbage collection knows no namespaces.

#[path = "support/containerd.rs"]
mod containerd;
#[path = "store_trials/mod.rs"]
mod store_trials;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use confine::Confinement;
use containerd::Containerd;
use libtest_mimic::{Arguments, Failed, Trial};
use store_trials::{Bench, TRIALS};

/// One version under test; started by its first trial.
struct Version {
    label: &'static str,
    binary: PathBuf,
    running: Mutex<Option<Containerd>>,
}

fn main() {
    let arguments = Arguments::from_args();
    let plain_user = !rustix::process::geteuid().is_root();
    if plain_user {
        eprintln!("these tests need root to run containerd; they are reported as ignored, not as passed");
    } else if !arguments.list {
        confine::enter(Confinement { network: true, reap_orphans: true }).expect("namespaces");
    }
    let second = std::env::var_os("PUSHLESS_TEST_CONTAINERD2").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/containerd-2/containerd"),
        PathBuf::from,
    );
    let versions = [("containerd-1.6", PathBuf::from("/usr/bin/containerd")), ("containerd-2", second)]
        .map(|(label, binary)| Arc::new(Version { label, binary, running: Mutex::new(None) }));
    let mut trials = Vec::new();
    for version in &versions {
        let absent = !version.binary.exists();
        if absent {
            eprintln!("{}: {} is not there; its trials are ignored", version.label, version.binary.display());
        }
        for (name, run, on_request) in TRIALS {
            let (version, name, run) = (version.clone(), *name, *run);
            trials.push(
                Trial::test(format!("{}/{name}", version.label), move || in_turn(&version, name, run))
                    .with_ignored_flag(plain_user || absent || *on_request),
            );
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for version in &versions {
        // Ends containerd and removes its directory: statics and `exit` would leave it.
        version.running.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
    conclusion.exit();
}

fn in_turn(version: &Version, name: &str, run: store_trials::Run) -> Result<(), Failed> {
    let mut running = version.running.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = match &*running {
        Some(containerd) => containerd.socket(),
        None => running.insert(Containerd::start(&version.binary)?).socket(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let bench = Bench::new(socket, version.label == "containerd-2", name).await?;
        tokio::time::timeout(std::time::Duration::from_secs(60), run(bench))
            .await
            .map_err(|_| anyhow::anyhow!("the trial took more than 60 s"))?
    });
    // The chain of causes, for the first of them names only the operation.
    outcome.map_err(|error| format!("{error:#}").into())
}
