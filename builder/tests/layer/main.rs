// SPDX-License-Identifier: Apache-2.0
//! Layers on real overlay mounts, judged by containerd's own unpacker. Needs root; as a plain user the trials are
//! reported as ignored.
//!
//! Every directory is on a tmpfs in a private mount namespace, so nothing outlives the process, whatever ends it.
//! `PUSHLESS_TEST_CONTAINERD` names the containerd binaries to judge by, separated by colons; without it the one in
//! `PATH` does. Trials that need it are ignored when there is none.

mod chain;
mod commands;
mod containerd;
mod copies;
mod overlay;
mod properties;
mod readers;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use confine::{Confinement, enter};
use containerd::Containerd;
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

fn main() {
    let arguments = Arguments::from_args();
    let plain_user = !rustix::process::geteuid().is_root();
    if plain_user || arguments.list {
        if plain_user {
            eprintln!("these tests need root to mount overlays; they are reported as ignored, not as passed");
        }
        let trials = trials(Path::new("/nowhere"), &[]);
        let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect();
        libtest_mimic::run(&arguments, trials).exit();
    }
    enter(Confinement { network: true, reap_orphans: true }).expect("private namespaces");
    let place = tempfile::Builder::new().prefix("pl-layer-").tempdir().expect("a temporary directory");
    mount("tmpfs", place.path(), "tmpfs", MountFlags::empty(), Some(c"mode=0755")).expect("a tmpfs");
    let judges: Vec<_> = containerd_binaries()
        .into_iter()
        .enumerate()
        .map(|(number, binary)| {
            Arc::new(Containerd::start(&binary, &place.path().join(format!("c{number}"))))
        })
        .collect();
    let trials = trials(place.path(), &judges);
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(judges);
    unmount(place.path(), UnmountFlags::DETACH).expect("the tmpfs goes");
    drop(place);
    conclusion.exit();
}

fn containerd_binaries() -> Vec<PathBuf> {
    if let Some(list) = std::env::var_os("PUSHLESS_TEST_CONTAINERD") {
        return std::env::split_paths(&list).collect();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("containerd")).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("no containerd in PATH: the trials that need one are ignored");
    }
    found.into_iter().collect()
}

fn trials(place: &Path, judges: &[Arc<Containerd>]) -> Vec<Trial> {
    let place: Arc<Path> = Arc::from(place);
    let alone = |name: &str, test: fn(&Path) -> Result<(), Failed>| {
        let place = Arc::clone(&place);
        Trial::test(name, move || test(&place))
    };
    let mut trials = vec![
        alone("what_no_layer_can_say_is_refused", commands::refusals),
        alone("normalising_leaves_nothing_that_no_layer_carries", commands::normalised),
        alone("bare_marks_of_deletions_are_nothing", commands::bare_deletions),
        alone("verifying_finds_a_change_and_makes_none", commands::verification),
        alone("entries_that_no_layer_can_hold_are_refused", copies::refusals),
        alone("gnu_tar_reads_a_layer", readers::gnu_tar),
    ];
    type Judged = fn(&Path, &Containerd) -> Result<(), Failed>;
    let judged: [(&str, Judged); 3] = [
        ("commands_give_the_members_they_should", commands::table),
        ("copies_replace_what_is_below", copies::replacing),
        ("random_chains_unpack_to_the_same_tree", properties::chains),
    ];
    for (name, test) in judged {
        if judges.is_empty() {
            trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
        }
        for judge in judges {
            let (place, judge) = (Arc::clone(&place), Arc::clone(judge));
            trials.push(Trial::test(format!("{name}::{}", judge.version), move || test(&place, &judge)));
        }
    }
    trials
}
