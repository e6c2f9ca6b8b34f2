// SPDX-License-Identifier: Apache-2.0
//! The promises of `confine` on a real kernel. Needs root; as a plain user the trials are reported as ignored.
//!
//! The binary starts itself with a role in its environment and watches what the role does from outside.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use confine::{Confinement, enter};
use libtest_mimic::{Arguments, Failed};
use shakedown_testing::{descendants, is_running, trial};

const ROLE: &str = "CONFINE_TEST_ROLE";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let missing = shakedown_testing::root("make namespaces");
    let trials = TRIALS.map(|(name, run)| trial(name, missing.as_deref(), run));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

type Body = fn() -> Result<(), Failed>;

const TRIALS: [(&str, Body); 7] = [
    ("the_rest_runs_as_pid_1_with_its_own_proc", pid_one),
    ("the_exit_code_comes_out", exit_code),
    ("a_death_by_signal_comes_out_as_128_plus_its_number", signal_code),
    ("a_forwarded_signal_reaches_the_inside", forwards),
    ("killing_the_supervisor_leaves_no_process_and_no_mount", sigkill),
    ("orphans_are_reaped_and_end_with_the_program", orphans),
    ("the_network_namespace_has_only_a_raised_loopback", network),
];

/// The inside of each trial.
fn play(role: &str) {
    let confinement =
        Confinement { network: role == "network", reap_orphans: matches!(role, "orphans" | "signal") };
    enter(confinement).expect("namespaces");
    match role {
        "pid" => {
            let own = std::fs::read_link("/proc/self").expect("a proc of the namespace");
            println!("{} {}", std::process::id(), own.display());
        }
        "exit" => std::process::exit(42),
        "signal" => {
            // SAFETY: raise takes no pointers.
            unsafe { libc::raise(libc::SIGABRT) };
        }
        "wait" => {
            rustix::mount::mount("tmpfs", "/mnt", "tmpfs", rustix::mount::MountFlags::empty(), None)
                .expect("a tmpfs");
            let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("sleep");
            println!("ready");
            sleeper.wait().expect("sleep ends");
        }
        "term" => {
            // With no handler installed, PID 1 would ignore a SIGTERM; so it is blocked before the other side is told.
            let mut set = std::mem::MaybeUninit::uninit();
            let mut signal = 0;
            // SAFETY: the set is initialised by sigemptyset, and both pointers outlive the calls.
            unsafe {
                libc::sigemptyset(set.as_mut_ptr());
                libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
                libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
                println!("ready");
                libc::sigwait(set.as_ptr(), &raw mut signal);
            }
            std::process::exit(signal);
        }
        "orphans" => {
            Command::new("sh").args(["-c", "sleep 0.05 & (sleep 1000 &)"]).status().expect("sh");
            std::thread::sleep(Duration::from_millis(300));
            let zombies = std::fs::read_dir("/proc")
                .expect("/proc")
                .flatten()
                .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
                .filter(|stat| stat.contains(") Z "))
                .count();
            println!("{} {zombies}", std::process::id());
        }
        "network" => {
            let devices = std::fs::read_to_string("/proc/net/dev").expect("devices");
            let names: Vec<_> =
                devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
            std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
            println!("{}", names.join(" "));
        }
        _ => unreachable!("no such role: {role}"),
    }
}

fn start(role: &str) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test's own binary")
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    line.trim().to_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "the callers compare temporaries")]
fn expect<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), Failed> {
    if found == wanted { Ok(()) } else { Err(format!("found {found:?}, wanted {wanted:?}").into()) }
}

fn pid_one() -> Result<(), Failed> {
    let mut child = start("pid");
    expect(first_line(&mut child).as_str(), "1 1")?;
    expect(child.wait()?.code(), Some(0))
}

fn exit_code() -> Result<(), Failed> {
    expect(start("exit").wait()?.code(), Some(42))
}

fn signal_code() -> Result<(), Failed> {
    expect(start("signal").wait()?.code(), Some(128 + libc::SIGABRT))
}

fn forwards() -> Result<(), Failed> {
    let mut child = start("term");
    expect(first_line(&mut child).as_str(), "ready")?;
    // SAFETY: kill takes no pointers; the child is ours and not yet reaped.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    expect(child.wait()?.code(), Some(libc::SIGTERM))
}

fn sigkill() -> Result<(), Failed> {
    let mut child = start("wait");
    expect(first_line(&mut child).as_str(), "ready")?;
    let inside = descendants(child.id());
    expect(inside.len(), 2)?;
    child.kill()?;
    child.wait()?;
    // The death signal is sent while the supervisor exits; give the kernel the time to tear the namespace down.
    let limit = Instant::now() + Duration::from_secs(2);
    while inside.iter().any(|pid| is_running(*pid)) {
        if Instant::now() > limit {
            return Err("a process of the namespace outlived its supervisor by 2 s".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    expect(mounts.lines().any(|line| line.split(' ').nth(1) == Some("/mnt")), false)
}

fn orphans() -> Result<(), Failed> {
    let mut child = start("orphans");
    expect(first_line(&mut child).as_str(), "2 0")?;
    expect(child.wait()?.code(), Some(0))
}

fn network() -> Result<(), Failed> {
    let mut child = start("network");
    let line = first_line(&mut child);
    expect(line.split(' ').next(), Some("lo"))?;
    expect(line.contains("eth"), false)?;
    expect(child.wait()?.code(), Some(0))
}
