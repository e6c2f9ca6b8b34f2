// SPDX-License-Identifier: Apache-2.0
//! Builds that die, and builds that meet.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use shakedown_testing::{descendants, is_running};

use super::{Run, expect, require};
use crate::lab::{BASE, Context, Lab, Ran};

pub const ALL: &[(&str, Run)] = &[
    ("sigkill_at_ten_moments_leaves_nothing", sigkill),
    ("signals_end_a_build_and_leave_nothing", signals),
    ("two_processes_build_the_same_ten_times", two_processes),
    ("two_processes_give_one_name_to_different_images", one_name),
    ("builds_with_different_run_directories_leave_each_other_alone", run_directories),
    ("a_half_made_network_of_a_dead_build_fails_nobody", half_made_network),
    ("an_import_of_the_same_layers_at_the_same_time", import_meanwhile),
    ("a_record_that_is_about_to_expire_becomes_a_lasting_one", passing_record),
];

fn slow_context(tag: &str) -> Context {
    let context = Context::new(&format!(
        "FROM {BASE}\nCOPY file /file\nRUN echo {tag} > /begun; for i in 1 2 3 4 5 6 7 8; do sleep 0.1; echo $i >> /log; done\n\
         RUN tail -n 1 /log > /last\n"
    ));
    context.write("file", tag);
    context
}

fn start(lab: &Lab, name: &str, context: &Context) -> Result<Child, Failed> {
    let mut command = lab.command();
    command.args(["build", "--progress", "plain", "-t", name]).arg(context.path());
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

fn sigkill(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/killed:1";
    for round in 0..10_u32 {
        let context = slow_context(&format!("killed {round}"));
        let mut child = start(lab, name, &context)?;
        while descendants(child.id()).is_empty() {
            require(child.try_wait()?.is_none(), "the build has ended by itself")?;
            std::thread::sleep(Duration::from_millis(1));
        }
        // From before the first step to the middle of the RUN.
        std::thread::sleep(Duration::from_millis(90 * u64::from(round)));
        let inside = descendants(child.id());
        child.kill()?;
        child.wait()?;
        let limit = Instant::now() + Duration::from_millis(500);
        while inside.iter().any(|pid| is_running(*pid)) {
            require(Instant::now() < limit, &format!("round {round}: a process lives on"))?;
            std::thread::sleep(Duration::from_millis(1));
        }
        require(!inside.is_empty(), "the build was over before it was killed")?;
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let run_dir = lab.run_dir().display().to_string();
        require(!mounts.contains(&run_dir), &format!("round {round}: a mount is left:\n{mounts}"))?;

        lab.build(name, &context, &[]).success()?;
        expect(
            &*lab.look(name, &["sh", "-c", "cat /begun /last /file"])?,
            &*format!("killed {round}\n8\nkilled {round}"),
        )?;
        clean(lab)?;
    }
    Ok(())
}

/// Nothing of any build is left but images and cache.
pub fn clean(lab: &Lab) -> Result<(), Failed> {
    let snapshots = lab.ctr(&["snapshots", "ls"])?;
    let active: Vec<_> = snapshots.lines().filter(|line| line.contains("pushless-")).collect();
    expect(active, Vec::<&str>::new())?;
    expect(cgroups(lab), Vec::<String>::new())?;
    for directory in ["builds", "scratch", "network/attached"] {
        let left: Vec<_> = std::fs::read_dir(lab.run_dir().join(directory))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        expect(left, Vec::new())?;
    }
    let leases = lab.ctr(&["leases", "ls", "-q"])?;
    expect(leases.trim(), "")?;
    let ingests = lab.ctr(&["content", "active"])?;
    require(!ingests.contains("pushless-"), &format!("an ingest is left:\n{ingests}"))
}

/// The cgroups of builds of this lab, in every hierarchy.
fn cgroups(lab: &Lab) -> Vec<String> {
    let name = lab.cgroup();
    let mut hierarchies = vec![Path::new("/sys/fs/cgroup").to_owned()];
    hierarchies.extend(
        std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()),
    );
    hierarchies
        .iter()
        .map(|hierarchy| hierarchy.join(name.trim_start_matches('/')))
        .filter(|path| path.is_dir())
        .map(|path| path.display().to_string())
        .collect()
}

fn signals(lab: &Lab) -> Result<(), Failed> {
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let name = "shakedown.test/e2e/signalled:1";
        let context = slow_context(&format!("signal {signal}"));
        let mut child = start(lab, name, &context)?;
        std::thread::sleep(Duration::from_millis(500));
        // SAFETY: kill takes no pointers; the child is ours and not yet reaped.
        unsafe { libc::kill(child.id().cast_signed(), signal) };
        let status = child.wait()?;
        expect(status.code(), Some(code))?;
        clean(lab)?;
    }
    Ok(())
}

fn two_processes(lab: &Lab) -> Result<(), Failed> {
    for round in 0..10 {
        let name = "shakedown.test/e2e/twice:1";
        // The steps are deterministic, so both processes make the very same layers.
        let context = Context::new(&format!(
            "FROM {BASE}\nCOPY file /file\nWORKDIR /w\nRUN cp /file copy && touch -d @1000000000 copy . /file\n"
        ));
        context.write("file", &format!("twice {round}"));
        let command = |_: usize| {
            let mut command = lab.command();
            command.args(["build", "--progress", "plain", "-t", name]).arg(context.path());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn()
        };
        let children = [command(0)?, command(1)?];
        for child in children {
            Ran::of(child.wait_with_output()?).success()?;
        }
        expect(&*lab.look(name, &["cat", "/w/copy"])?, &*format!("twice {round}"))?;
        expect(lab.is_complete(name)?, true)?;
        clean(lab)?;
    }
    Ok(())
}

fn import_meanwhile(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/meanwhile:1";
    let context = Context::new(&format!("FROM {BASE}\nCOPY big /big\n"));
    std::fs::write(context.path().join("big"), vec![7; 4 << 20])?;
    lab.build(name, &context, &[]).success()?;
    // Under another name: whoever moves a name last is right, and that is not what is tried here.
    let other = "shakedown.test/e2e/imported:1";
    lab.ctr(&["images", "tag", name, other])?;
    let archive = context.path().with_extension("tar");
    lab.ctr(&["images", "export", &archive.display().to_string(), other])?;
    for _ in 0..3 {
        lab.ctr(&["images", "rm", "--sync", other])?;
        lab.pushless(&["rmi", name]).success()?;
        lab.pushless(&["prune", "--all"]).success()?;
        lab.collect_garbage()?;
        let mut import = lab.node().ctr();
        import.args(["images", "import"]).arg(&archive);
        let import = import.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let built = lab.build(name, &context, &[]);
        let imported = import.wait_with_output()?;
        built.success()?;
        require(imported.status.success(), &String::from_utf8_lossy(&imported.stderr))?;
        for name in [name, other] {
            expect(&*lab.look(name, &["sh", "-c", "wc -c < /big"])?, "4194304\n")?;
            expect(lab.is_complete(name)?, true)?;
        }
        clean(lab)?;
    }
    Ok(())
}

/// A record that an import marks as passing must not pass once it is ours (containerd 2.x gives such marks).
fn passing_record(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/passing:1";
    lab.ctr(&["images", "tag", BASE, name])?;
    lab.ctr(&["images", "label", name, "containerd.io/gc.expire=2000-01-01T00:00:00Z"])?;
    let context = Context::new(&format!("FROM {BASE}\nRUN echo passing > /stamp\n"));
    lab.build(name, &context, &[]).success()?;
    lab.collect_garbage()?;
    expect(&*lab.look(name, &["cat", "/stamp"])?, "passing\n")
}

fn one_name(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/contended:1";
    for round in 0..8 {
        let children = (0..3)
            .map(|number| {
                let context = Context::new(&format!("FROM {BASE}\nLABEL round={round} number={number}\n"));
                let mut command = lab.command();
                command.args(["build", "--progress", "plain", "-t", name]).arg(context.path());
                Ok((context, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
            })
            .collect::<Result<Vec<_>, Failed>>()?;
        let begun = Instant::now();
        for (_context, child) in children {
            Ran::of(child.wait_with_output()?).success()?;
        }
        require(begun.elapsed() < Duration::from_secs(5), "nobody waits for a name that another has taken")?;
        expect(&lab.config(name)?["config"]["Labels"]["round"], &serde_json::json!(format!("{round}")))?;
        clean(lab)?;
    }
    Ok(())
}

fn run_directories(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!("FROM {BASE}\nRUN sleep 2; echo undisturbed > /file\n"));
    let name = "shakedown.test/e2e/undisturbed:1";
    let slow = start(lab, name, &context)?;
    std::thread::sleep(Duration::from_millis(700));
    let elsewhere = tempfile::tempdir()?;
    let mut command = lab.command();
    command.env("PUSHLESS_RUN_DIR", elsewhere.path());
    let other = Context::new("FROM scratch\nCOPY Dockerfile /elsewhere\n");
    lab.build_by(command, "shakedown.test/e2e/elsewhere:2", &other, &[]).success()?;
    Ran::of(slow.wait_with_output()?).success()?;
    expect(&*lab.look(name, &["cat", "/file"])?, "undisturbed\n")?;
    clean(lab)
}

fn half_made_network(lab: &Lab) -> Result<(), Failed> {
    // A build that died between the record of its subnet and the rules for it.
    let run = tempfile::tempdir()?;
    std::fs::create_dir_all(run.path().join("network/attached"))?;
    std::fs::write(run.path().join("network/subnet"), "10.213.9.0/24")?;
    std::fs::create_dir(run.path().join("builds"))?;
    std::fs::write(run.path().join("builds/0123456789ab"), "")?;
    let context = Context::new("FROM scratch\nLABEL network=half\n");
    for _ in 0..2 {
        let mut command = lab.command();
        command.env("PUSHLESS_RUN_DIR", run.path());
        lab.build_by(command, "shakedown.test/e2e/half:1", &context, &[]).success()?;
    }
    expect(std::fs::read_dir(run.path().join("builds"))?.count(), 0)
}
