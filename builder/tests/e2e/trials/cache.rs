// SPDX-License-Identifier: Apache-2.0
//! What is executed again and what is not, and what a build may cost in calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use libtest_mimic::Failed;

use super::{Run, expect, require};
use crate::lab::{BASE, Context, Lab};

pub const ALL: &[(&str, Run)] = &[
    ("an_unchanged_rebuild_writes_nothing", noop),
    ("one_changed_file_costs_a_fixed_number_of_calls", budget),
    ("this_process_never_syncs", syncs),
    ("only_what_depends_on_a_change_is_executed", dependents),
    ("no_cache_executes_everything", no_cache),
    ("equal_files_from_another_recipe_hit", equal_content),
    ("after_cri_has_removed_every_image_all_steps_hit", removed_images),
    ("a_lost_index_is_rebuilt_from_labels", lost_index),
    ("results_that_vanished_are_built_again", vanished),
    ("layers_of_another_boot_are_hashed_before_they_are_used", other_boot),
    ("a_failed_build_keeps_its_finished_steps", failed_build),
];

fn two_steps(tag: &str) -> Context {
    let context = Context::new(&format!(
        "FROM {BASE}\nRUN echo {tag} > /first\nCOPY file /file\nRUN cat /file > /second\n"
    ));
    context.write("file", "one");
    context
}

fn noop(lab: &Lab) -> Result<(), Failed> {
    let (name, context) = ("shakedown.test/e2e/noop:1", two_steps("noop"));
    lab.build(name, &context, &[]).success()?;
    // The racy window of the stat cache: a file hashed within 2 s of its change is hashed once more.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    lab.build(name, &context, &[]).success()?;
    let before = (files(&lab.state_dir()), files(&lab.run_dir()));
    let id = lab.target(name)?;
    let ran = lab.build(name, &context, &[]).success()?;
    expect(ran.steps(), (0, 4))?;
    expect(ran.writes(), 0)?;
    require(ran.reads() <= 7, &format!("7 reads are enough: {:?}", ran.stats))?;
    expect(lab.target(name)?, id)?;
    expect((files(&lab.state_dir()), files(&lab.run_dir())) == before, true)
}

/// Every file below `root` with its change time.
fn files(root: &Path) -> BTreeMap<String, Option<SystemTime>> {
    let mut found = BTreeMap::new();
    let mut next = vec![root.to_owned()];
    while let Some(path) = next.pop() {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        found.insert(path.display().to_string(), metadata.modified().ok());
        if metadata.is_dir() {
            next.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found
}

fn budget(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/budget:1";
    let context = Context::new(&format!("FROM {BASE}\nCOPY file /file\nCMD [\"cat\", \"/file\"]\n"));
    context.write("file", "one");
    lab.build(name, &context, &[]).success()?;
    context.write("file", "two");
    let ran = lab.build(name, &context, &[]).success()?;
    let calls = &ran.stats.as_ref().ok_or("no figures")?.calls;
    let writes: BTreeMap<&str, u64> = calls
        .iter()
        .filter_map(|(method, count)| Some((method.rsplit('.').next()?.split_once('/')?.1, *count)))
        .filter(|(method, _)| {
            ["Prepare", "Commit", "Write", "Update", "Create", "Delete", "Remove"].contains(method)
        })
        .collect();
    // One snapshot, one layer, config and manifest; the name: a Create that finds it taken, then an Update.
    expect(
        writes,
        BTreeMap::from([("Commit", 1), ("Create", 1), ("Prepare", 1), ("Update", 1), ("Write", 3)]),
    )
}

/// A sync waits for the disk, some milliseconds each time. containerd makes those that its database needs; files of a
/// layer are hashed again after a reboot instead.
fn syncs(lab: &Lab) -> Result<(), Failed> {
    let (name, context) = ("shakedown.test/e2e/syncs:1", two_steps("syncs"));
    let traced = |lab: &Lab| -> Result<String, Failed> {
        let trace = context.path().with_extension("trace");
        let pushless = lab.command();
        let mut strace = std::process::Command::new("strace");
        strace
            .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync", "-o"])
            .arg(&trace);
        strace.arg(pushless.get_program());
        for (variable, value) in pushless.get_envs() {
            match value {
                Some(value) => strace.env(variable, value),
                None => strace.env_remove(variable),
            };
        }
        lab.build_by(strace, name, &context, &[]).success()?;
        Ok(std::fs::read_to_string(&trace)?)
    };
    let calls =
        |text: &str| text.lines().filter(|line| line.contains("sync")).map(str::to_owned).collect::<Vec<_>>();
    expect(calls(&traced(lab)?), Vec::new())?;
    expect(calls(&traced(lab)?), Vec::new())?;
    context.write("file", "two");
    expect(calls(&traced(lab)?), Vec::new())
}

fn dependents(lab: &Lab) -> Result<(), Failed> {
    let (name, context) = ("shakedown.test/e2e/dependents:1", two_steps("dependents"));
    lab.build(name, &context, &[]).success()?;
    context.write("file", "two");
    expect(lab.build(name, &context, &[]).success()?.steps(), (2, 2))?;
    expect(&*lab.look(name, &["cat", "/second"])?, "two")?;
    // Same size, same time: only ctime tells.
    let path = context.path().join("file");
    let modified = path.metadata()?.modified()?;
    std::fs::write(&path, "six")?;
    std::fs::File::options().write(true).open(&path)?.set_modified(modified)?;
    expect(lab.build(name, &context, &[]).success()?.steps(), (2, 2))?;
    // Back to an earlier state: everything is there.
    context.write("file", "one");
    expect(lab.build(name, &context, &[]).success()?.steps(), (0, 4))
}

fn no_cache(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/nocache:1";
    let context = Context::new(&format!("FROM {BASE}\nRUN cat /proc/sys/kernel/random/uuid > /stamp\n"));
    lab.build(name, &context, &[]).success()?;
    let first = lab.look(name, &["cat", "/stamp"])?;
    let ran = lab.build(name, &context, &["--no-cache"]).success()?;
    expect(ran.steps().0, 1)?;
    let second = lab.look(name, &["cat", "/stamp"])?;
    require(first != second, "the step was executed again")?;
    // The newer result is the one that counts from now on.
    lab.build(name, &context, &[]).success()?;
    expect(lab.look(name, &["cat", "/stamp"])?, second)
}

fn equal_content(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/equal:1";
    let tail = "\nFROM scratch\nCOPY --from=make /out /out\n";
    let context = Context::new(&format!("FROM {BASE} AS make\nRUN mkdir /out && echo same > /out/f{tail}"));
    lab.build(name, &context, &[]).success()?;
    context.write(
        "Dockerfile",
        &format!("FROM {BASE} AS make\nRUN mkdir /out && echo other > /x && echo same > /out/f{tail}"),
    );
    let ran = lab.build(name, &context, &[]).success()?;
    expect(ran.steps(), (1, 2))
}

fn removed_images(lab: &Lab) -> Result<(), Failed> {
    let (name, context) = ("shakedown.test/e2e/removed:1", two_steps("removed"));
    lab.build(name, &context, &[]).success()?;
    let id = lab.target(name)?;
    lab.cri_remove_all()?;
    lab.collect_garbage()?;
    expect(lab.ctr(&["images", "ls", "-q"])?.trim(), "")?;
    let ran = lab.build(name, &context, &[]).success();
    lab.seed()?;
    expect(ran?.steps(), (0, 4))?;
    expect(lab.target(name)?, id)?;
    expect(&*lab.look(name, &["cat", "/second"])?, "one")?;
    expect(lab.is_complete(name)?, true)
}

fn lost_index(lab: &Lab) -> Result<(), Failed> {
    let (name, context) = ("shakedown.test/e2e/lost:1", two_steps("lost"));
    lab.build(name, &context, &[]).success()?;
    std::fs::remove_dir_all(lab.state_dir())?;
    let ran = lab.build(name, &context, &[]).success()?;
    expect(ran.steps(), (0, 4))
}

fn vanished(lab: &Lab) -> Result<(), Failed> {
    let (name, context) = ("shakedown.test/e2e/vanished:1", two_steps("vanished"));
    lab.build(name, &context, &[]).success()?;
    let layers = lab.diff_ids(name)?;
    let top = layers.last().ok_or("no layers")?;
    // The blob alone: the image would not be complete.
    lab.ctr(&["images", "rm", "--sync", name])?;
    lab.ctr(&["content", "rm", top])?;
    lab.build(name, &context, &[]).success()?;
    expect(lab.is_complete(name)?, true)?;
    expect(&*lab.look(name, &["cat", "/second"])?, "one")?;
    // The snapshot too.
    let chain = lab.chain_id(name)?;
    lab.ctr(&["images", "rm", "--sync", name])?;
    lab.ctr(&["snapshots", "rm", &chain])?;
    lab.build(name, &context, &[]).success()?.says("gone from containerd")?;
    expect(&*lab.look(name, &["cat", "/second"])?, "one")
}

fn other_boot(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/boot:1";
    let context = Context::new(&format!("FROM {BASE}\nRUN cat /proc/sys/kernel/random/uuid > /stamp\n"));
    lab.build(name, &context, &[]).success()?;
    let stamp = lab.look(name, &["cat", "/stamp"])?;
    let chain = lab.chain_id(name)?;
    let another_boot = |lab: &Lab| {
        lab.forget_boots()?;
        lab.ctr(&["snapshots", "label", &chain, "pushless.dev/boot-id=0000000000000000"]).map(drop)
    };
    another_boot(lab)?;
    expect(lab.build(name, &context, &[]).success()?.steps(), (0, 2))?;
    expect(lab.build(name, &context, &[]).success()?.writes(), 0)?;
    expect(lab.look(name, &["cat", "/stamp"])?, stamp.clone())?;

    // What a power cut can do: the name is there, the bytes are not.
    let file = lab.find_in_snapshots("stamp", &stamp)?;
    std::fs::write(&file, "")?;
    another_boot(lab)?;
    lab.build(name, &context, &[]).success()?.says("damaged")?;
    let new = lab.look(name, &["cat", "/stamp"])?;
    require(!new.is_empty() && new != stamp, "the damaged layer was made again")
}

fn failed_build(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/failed:1";
    let context = Context::new(&format!("FROM {BASE}\nRUN echo kept > /kept\nRUN false\n"));
    lab.build(name, &context, &[]).exits(1)?;
    context.write("Dockerfile", &format!("FROM {BASE}\nRUN echo kept > /kept\nRUN true\n"));
    expect(lab.build(name, &context, &[]).success()?.steps(), (1, 2))
}
