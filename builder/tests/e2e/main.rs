// SPDX-License-Identifier: Apache-2.0
//! `pushless` end to end on a real private containerd, in both major versions.
//!
//! Needs root; as a plain user the trials are reported as ignored. containerd 2.x is taken from
//! `target/containerd-2` (`make containerd2`) or from `PUSHLESS_TEST_CONTAINERD2`; without it those trials are ignored.
//! So are the trials that pull, without the package `docker-registry`.

mod lab;
mod trials;

use std::path::PathBuf;
use std::sync::Arc;

use confine::Confinement;
use lab::Lab;
use libtest_mimic::{Arguments, Trial};
use shakedown_node::{ContainerdBinaries, Registry};

fn main() {
    let mut arguments = Arguments::from_args();
    let plain_user = !rustix::process::geteuid().is_root();
    let versions = [
        ("containerd-1", ContainerdBinaries::installed().ok()),
        ("containerd-2", ContainerdBinaries::at(&containerd2()).ok()),
    ];
    if plain_user {
        eprintln!("these tests need root; they are reported as ignored, not as passed");
    }
    let registry = Registry::find();
    if let Err(error) = &registry {
        eprintln!("trials with a registry are reported as ignored (package docker-registry): {error}");
    }
    let will_run = !plain_user && !arguments.list;
    if will_run {
        confine::enter(Confinement { network: true, reap_orphans: true }).expect("private namespaces");
    }
    // Two at a time: each trial has names of its own, and a machine with two cores gains nothing from more.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let mut trials = Vec::new();
    let mut labs = Vec::new();
    for (name, binaries) in versions {
        let absent = binaries.is_none();
        if absent && !plain_user {
            eprintln!("{name} is not here, its trials are reported as ignored (see `make containerd2`)");
        }
        let lab = match binaries {
            Some(binaries) if will_run => Some(Arc::new(Lab::start(name, binaries))),
            _ => None,
        };
        for (trial, run) in trials::all() {
            let ignored = plain_user || absent || (registry.is_err() && trials::needs_registry(trial));
            let lab = lab.clone();
            let trial = Trial::test(format!("{name}::{trial}"), move || {
                let lab = lab.as_deref().expect("invariant: an ignored trial does not run");
                let _alone = lab.alone();
                run(lab)
            });
            trials.push(trial.with_ignored_flag(ignored));
        }
        labs.extend(lab);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for lab in labs {
        if let Some(lab) = Arc::into_inner(lab) {
            lab.stop();
        }
    }
    conclusion.exit();
}

fn containerd2() -> PathBuf {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/containerd-2/containerd");
    std::env::var_os("PUSHLESS_TEST_CONTAINERD2").map_or(default, PathBuf::from)
}
