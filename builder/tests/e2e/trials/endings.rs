// SPDX-License-Identifier: Apache-2.0
//! Builds that end early: what they tell, how soon, and what is kept of them.

use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use super::crash::clean;
use super::{Run, expect, require};
use crate::lab::{BASE, Context, Lab, Ran};

pub const ALL: &[(&str, Run)] = &[
    ("a_failing_stage_stops_the_others_and_is_the_one_told", failing_stage),
    ("a_step_that_finished_before_a_failing_copy_is_kept", finished_step),
    ("a_source_stage_that_vanished_is_built_again", vanished_source),
    ("a_signal_at_any_early_moment_counts", early_signals),
    ("a_signal_ends_a_pull", while_pulling),
    ("a_signal_ends_waiting_for_the_cache", while_locked),
    ("a_signal_ends_the_hashing_of_a_large_context", while_hashing),
    ("a_signal_ends_the_writing_of_a_large_layer", while_writing),
];

const NAME: &str = "shakedown.test/e2e/endings:1";

/// Far more than an orderly end takes, far less than what it interrupts.
const SOON: Duration = Duration::from_millis(2500);

fn failing_stage(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!(
        "FROM {BASE} AS slow\nRUN sleep 30\nFROM {BASE} AS bad\nRUN sleep 0.3; exit 7\n\
         FROM scratch\nCOPY --from=slow /bin /a\nCOPY --from=bad /bin /b\n"
    ));
    let begun = Instant::now();
    let ran = lab.build(NAME, &context, &[]).exits(1)?;
    require(begun.elapsed() < Duration::from_secs(10), "the slow stage was stopped")?;
    require(ran.last_line().contains("exit code 7"), &format!("the cause comes last: {}", ran.last_line()))?;
    let marks = |mark: &str| ran.stderr.lines().filter(|line| line.contains(mark)).count();
    // The sleeping RUN, and the COPY that waited for it.
    expect((marks("FAILED"), marks("CANCELLED")), (1, 2))?;
    clean(lab)
}

fn finished_step(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!(
        "FROM {BASE}\nRUN cat /proc/sys/kernel/random/uuid > /finished\nCOPY nothere /there\n"
    ));
    lab.build(NAME, &context, &[]).exits(1)?;
    clean(lab)?;
    context.write("nothere", "");
    expect(lab.build(NAME, &context, &[]).success()?.steps(), (1, 2))
}

fn vanished_source(lab: &Lab) -> Result<(), Failed> {
    let stages = |to: &str| {
        format!(
            "FROM {BASE} AS make\nRUN echo vanishing > /made\nFROM scratch\nCOPY --from=make /made {to}\n"
        )
    };
    let context = Context::new(&stages("/one"));
    let made = "shakedown.test/e2e/endings-made:1";
    lab.build(made, &context, &["--target", "make"]).success()?;
    let chain = lab.chain_id(made)?;
    lab.ctr(&["images", "rm", "--sync", made])?;
    lab.ctr(&["snapshots", "rm", &chain])?;
    // Nothing but the stage itself is missing, and the stage that needs it has no hit of its own.
    lab.build(NAME, &context, &[]).success()?;
    lab.find_in_snapshots("one", "vanishing\n").map(drop)
}

fn start(lab: &Lab, context: &Context) -> Result<Child, Failed> {
    let mut command = lab.command();
    command.args(["build", "--progress", "plain", "-t", NAME]).arg(context.path());
    Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

fn signal(child: &Child, number: i32) {
    // SAFETY: kill takes no pointers; the child is ours and not yet reaped.
    unsafe { libc::kill(child.id().cast_signed(), number) };
}

/// The build is told to end after `moment` and does so soon, with the code of the signal, leaving nothing.
fn ends(lab: &Lab, context: &Context, moment: Duration) -> Result<(), Failed> {
    for (number, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let child = start(lab, context)?;
        std::thread::sleep(moment);
        signal(&child, number);
        let signalled = Instant::now();
        let ran = Ran::of(child.wait_with_output()?).exits(code)?;
        let took = signalled.elapsed();
        require(took < SOON, &format!("it took {took:?} to end:\n{}", ran.stderr))?;
        require(ran.last_line().contains("cancelled"), &format!("it says so: {}", ran.stderr))?;
        clean(lab)?;
    }
    Ok(())
}

fn early_signals(lab: &Lab) -> Result<(), Failed> {
    use std::os::unix::process::ExitStatusExt as _;
    let context = Context::new(&format!("FROM {BASE}\nRUN sleep 5\n"));
    for moment_ms in 0..40 {
        let mut child = start(lab, &context)?;
        std::thread::sleep(Duration::from_millis(moment_ms));
        signal(&child, libc::SIGTERM);
        let status = child.wait()?;
        // Before it could look after signals at all, the signal ends it by itself.
        require(
            status.code() == Some(143) || status.signal() == Some(libc::SIGTERM),
            &format!("after {moment_ms} ms: {status}"),
        )?;
    }
    clean(lab)
}

fn while_pulling(lab: &Lab) -> Result<(), Failed> {
    // A registry that takes the connection and never answers.
    let registry = TcpListener::bind("127.0.0.1:0")?;
    let context = Context::new(&format!("FROM {}/never:1\nRUN true\n", registry.local_addr()?));
    ends(lab, &context, Duration::from_millis(500))
}

fn while_locked(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new("FROM scratch\nLABEL a=1\n");
    lab.build(NAME, &context, &[]).success()?;
    let mut locks = Vec::new();
    for store in std::fs::read_dir(lab.state_dir().join("stores"))? {
        let lock = std::fs::File::open(store?.path().join("lock"))?;
        lock.lock()?;
        locks.push(lock);
    }
    require(!locks.is_empty(), "there is a lock")?;
    ends(lab, &context, Duration::from_millis(300))?;
    drop(locks);
    lab.build(NAME, &context, &[]).success().map(drop)
}

fn while_hashing(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!("FROM {BASE}\nCOPY big /big\n"));
    std::fs::File::create(context.path().join("big"))?.set_len(64 << 30)?;
    ends(lab, &context, Duration::from_millis(700))
}

fn while_writing(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!("FROM {BASE}\nRUN truncate -s 16G /big\n"));
    ends(lab, &context, Duration::from_millis(1000))
}
