// SPDX-License-Identifier: Apache-2.0
//! Layers on real overlay mounts, judged by the unpackers of [`ContainerdBinaries::both`]. Needs root; as a plain user, or
//! without that containerd, a trial is reported as ignored with the reason.
//!
//! Every directory is on a tmpfs in a private mount namespace, so nothing outlives the process, whatever ends it.

mod chain;
mod commands;
mod copies;
mod judge;
mod overlay;
mod properties;
mod readers;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use confine::{Confinement, enter};
use judge::Judge;
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::mount::{MountFlags, mount};
use shakedown_node::{ContainerdBinaries, TestPlace};
use shakedown_testing::trial;

type Alone = fn(&Path) -> Result<(), Failed>;
type Judged = fn(&Path, &Judge) -> Result<(), Failed>;

/// Trials without any containerd.
const ALONE: [(&str, Alone); 6] = [
    ("what_no_layer_can_say_is_refused", commands::refusals),
    ("normalising_leaves_nothing_that_no_layer_carries", commands::normalised),
    ("bare_marks_of_deletions_are_nothing", commands::bare_deletions),
    ("verifying_finds_a_change_and_makes_none", commands::verification),
    ("entries_that_no_layer_can_hold_are_refused", copies::refusals),
    ("gnu_tar_reads_a_layer", readers::gnu_tar),
];

/// Trials on each containerd.
const JUDGED: [(&str, Judged); 3] = [
    ("commands_give_the_members_they_should", commands::table),
    ("copies_replace_what_is_below", copies::replacing),
    ("random_chains_unpack_to_the_same_tree", properties::chains),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let plain_user = shakedown_testing::root("mount overlays");
    if plain_user.is_none() {
        enter(Confinement { network: true, reap_orphans: true }).expect("private namespaces");
    }
    let test_place = TestPlace::enter().expect("a place");
    let place: Arc<Path> = Arc::from(test_place.path().join("layers"));
    if plain_user.is_none() {
        std::fs::create_dir(&place).expect("a directory");
        // It goes with the place.
        mount("tmpfs", &*place, "tmpfs", MountFlags::empty(), Some(c"mode=0755")).expect("a tmpfs");
    }
    let mut trials: Vec<Trial> = ALONE
        .into_iter()
        .map(|(name, run)| {
            let place = Arc::clone(&place);
            trial(name, plain_user.as_deref(), move || run(&place))
        })
        .collect();
    let mut judges = Vec::new();
    for (containerd, binaries) in ContainerdBinaries::both() {
        let missing = plain_user.clone().or_else(|| binaries.as_ref().err().map(ToString::to_string));
        let judge = Arc::new(Mutex::new(None));
        for (name, run) in JUDGED {
            let (place, judge) = (Arc::clone(&place), Arc::clone(&judge));
            let binaries = binaries.as_ref().ok().cloned();
            trials.push(trial(format!("{name}::{containerd}"), missing.as_deref(), move || {
                let judge = {
                    let mut judge = judge.lock().unwrap_or_else(PoisonError::into_inner);
                    match &*judge {
                        Some(judge) => Arc::clone(judge),
                        None => {
                            let binaries = binaries.expect("invariant: without them the trial is ignored");
                            Arc::clone(judge.insert(Arc::new(Judge::start(binaries, &place)?)))
                        }
                    }
                };
                run(&place, &judge)
            }));
        }
        judges.push(judge);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for judge in judges {
        let judge = judge.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(judge) = judge.and_then(Arc::into_inner) {
            judge.stop();
        }
    }
    conclusion.exit_code()
}
