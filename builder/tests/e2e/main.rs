// SPDX-License-Identifier: Apache-2.0
//! `pushless` end to end on real private containerds: [`ContainerdBinaries::both`].
//!
//! Needs root; as a plain user, or without that containerd, a trial is reported as ignored with the reason. So are the
//! trials that pull, without the package `docker-registry`.

mod lab;
mod trials;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use confine::Confinement;
use lab::Lab;
use libtest_mimic::{Arguments, Trial};
use shakedown_node::{ContainerdBinaries, Registry, TestPlace};
use shakedown_testing::trial;

/// Starts with the first trial that runs.
type Started = Mutex<Option<Arc<Lab>>>;

/// The same trials, those of the two containerds in turn: trials of one wait for each other.
fn alternating(mut first: Vec<Trial>) -> Vec<Trial> {
    let second = first.split_off(first.len() / 2);
    first.into_iter().zip(second).flat_map(<[Trial; 2]>::from).collect()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let plain_user = shakedown_testing::root("run containerd");
    if plain_user.is_none() {
        confine::enter(Confinement { network: true, reap_orphans: true }).expect("private namespaces");
    }
    let place = Arc::new(TestPlace::enter().expect("a place"));
    // Two at a time: each trial has names of its own, and a machine with two cores gains nothing from more.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let registry = Registry::find().err().map(|error| format!("{error} (package docker-registry)"));
    let mut trials = Vec::new();
    let mut labs = Vec::new();
    for (name, binaries) in ContainerdBinaries::both() {
        let missing = plain_user.clone().or_else(|| binaries.as_ref().err().map(ToString::to_string));
        let started = Arc::new(Started::default());
        for (title, run) in trials::all() {
            let missing =
                missing.clone().or_else(|| registry.clone().filter(|_| trials::needs_registry(title)));
            let (binaries, started) = (binaries.as_ref().ok().cloned(), Arc::clone(&started));
            let place = Arc::clone(&place);
            trials.push(trial(format!("{name}::{title}"), missing.as_deref(), move || {
                let binaries = binaries.expect("invariant: without them the trial is ignored");
                let lab = {
                    let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
                    Arc::clone(started.get_or_insert_with(|| Arc::new(Lab::start(name, binaries, place))))
                };
                let _alone = lab.alone();
                run(&lab)
            }));
        }
        labs.push(started);
    }
    let conclusion = libtest_mimic::run(&arguments, alternating(trials));
    for started in labs {
        let lab = started.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lab) = lab.and_then(Arc::into_inner) {
            lab.stop();
        }
    }
    conclusion.exit_code()
}
