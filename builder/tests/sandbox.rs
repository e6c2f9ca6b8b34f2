// SPDX-License-Identifier: Apache-2.0
//! The sandbox on a real kernel with a real runc. Needs root; as a plain user the trials are reported as ignored.
//!
//! Every trial starts this binary again with a role in its environment; the role enters private namespaces, plays the
//! trial inside and reports by its exit status. What must hold after a death is watched from outside.

#[path = "sandbox/inside.rs"]
mod inside;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use confine::{Confinement, enter};
use libtest_mimic::{Arguments, Failed, Trial};
use shakedown_node::TestPlace;
use shakedown_testing::{descendants, is_running, trial};

const ROLE: &str = "PUSHLESS_TEST_ROLE";
const DIRECTORY: &str = "PUSHLESS_TEST_DIRECTORY";

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        let directory = std::env::var_os(DIRECTORY).expect("a directory for the role");
        inside::play(&role, Path::new(&directory));
        return ExitCode::SUCCESS;
    }
    let plain_user = shakedown_testing::root("run containers");
    if plain_user.is_none() {
        // A kill of this program then ends what it has started, too.
        enter(Confinement { network: false, reap_orphans: true }).expect("namespaces");
    }
    let place = Arc::new(TestPlace::enter().expect("a place"));
    let mut trials: Vec<Trial> = Vec::new();
    for (name, _) in inside::TRIALS {
        let place = Arc::clone(&place);
        trials.push(trial(*name, plain_user.as_deref(), move || passes_inside(name, &place)));
    }
    let body = {
        let place = Arc::clone(&place);
        move || sigkill(&place)
    };
    trials.push(trial("killing_the_supervisor_leaves_no_process_and_no_mount", plain_user.as_deref(), body));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn start(role: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .env(ROLE, role)
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test's own binary")
}

/// A directory for one trial, and its builds' cgroup.
fn directory(place: &TestPlace) -> Result<tempfile::TempDir, Failed> {
    let directory = tempfile::tempdir()?;
    place.claim_cgroup(&format!("/{}", inside::cgroup(directory.path())))?;
    Ok(directory)
}

fn passes_inside(role: &str, place: &TestPlace) -> Result<(), Failed> {
    let directory = directory(place)?;
    let output = start(role, directory.path()).wait_with_output()?;
    if std::env::var_os("PUSHLESS_TEST_VERBOSE").is_some() {
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
    }
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        return Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&text)).into());
    }
    nothing_left(directory.path())
}

/// No mount below the directory, no cgroup of its builds.
fn nothing_left(directory: &Path) -> Result<(), Failed> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if let Some(line) = mounts.lines().find(|line| line.contains(&directory.display().to_string())) {
        return Err(format!("a mount is left: {line}").into());
    }
    let left = inside::cgroups(directory);
    if left.is_empty() { Ok(()) } else { Err(format!("cgroups are left: {left:?}").into()) }
}

fn sigkill(place: &TestPlace) -> Result<(), Failed> {
    let directory = directory(place)?;
    let mut child = start("sleeps", directory.path());
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line);
    let inside = descendants(child.id());
    let made_cgroups = !inside::cgroups(directory.path()).is_empty();
    let killed = child.kill();
    child.wait()?;
    read.and(killed)?;
    let limit = Instant::now() + Duration::from_secs(2);
    while inside.iter().any(|pid| is_running(*pid)) {
        if Instant::now() > limit {
            return Err("a process outlived the supervisor by 2 s".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // The next build with the same run directory collects the cgroups, and forgets the dead build.
    let output = start("next build", directory.path()).wait_with_output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    // The build, runc, and the container's shell and sleep: without them nothing has been shown.
    if line.trim() != "asleep" || inside.len() < 4 || !made_cgroups {
        return Err(format!("no container to kill: {line} {inside:?}").into());
    }
    nothing_left(directory.path())
}
