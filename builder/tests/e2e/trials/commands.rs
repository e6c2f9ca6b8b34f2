// SPDX-License-Identifier: Apache-2.0
//! The other commands: images, rmi, prune, du, version, quiet builds.

use libtest_mimic::Failed;

use super::{Run, expect, require};
use crate::lab::{BASE, Context, Lab};

pub const ALL: &[(&str, Run)] = &[
    ("images_lists_and_rmi_removes", images_and_rmi),
    ("rmi_leaves_what_another_name_needs", shared_record),
    ("prune_lets_everything_go_and_images_still_run", prune_all),
    ("du_and_version_tell", du_and_version),
    ("quiet_prints_the_id_alone", quiet),
    ("one_record_an_image", one_record),
];

fn context(stamp: &str) -> Context {
    Context::new(&format!("FROM {BASE}\nRUN echo {stamp} > /stamp\n"))
}

fn images_and_rmi(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/listed:1";
    lab.build(name, &context("listed"), &[]).success()?;
    lab.pushless(&["images"]).success()?.says(name)?;
    let listed = lab.pushless(&["images"]).success()?;
    require(!listed.stdout.contains(BASE), "only what pushless built is listed")?;
    lab.pushless(&["rmi", name]).success()?;
    expect(lab.ctr(&["images", "ls", "-q", &format!("name=={name}")])?.trim(), "")?;
    lab.pushless(&["rmi", name]).exits(2)?.says("no such image").map(drop)
}

fn prune_all(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/pruned:1";
    lab.build(name, &context("pruned"), &[]).success()?;
    let gone = "shakedown.test/e2e/gone:1";
    lab.build(gone, &context("gone"), &[]).success()?;
    lab.pushless(&["rmi", gone]).success()?;
    lab.pushless(&["prune", "--all"]).success()?;
    expect(lab.pushless(&["du"]).success()?.stdout.lines().last(), Some("0 layers, 0 B"))?;
    // Held by its image alone now, through any collection.
    lab.collect_garbage()?;
    expect(&*lab.look(name, &["cat", "/stamp"])?, "pruned\n")?;
    expect(lab.is_complete(name)?, true)?;
    let labelled = lab.ctr(&["snapshots", "ls"])?;
    let committed = labelled.lines().filter(|line| line.contains("Committed")).count();
    let images = lab.ctr(&["images", "ls", "-q"])?.lines().count();
    require(committed <= 3 * images, &format!("{committed} snapshots for {images} images:\n{labelled}"))?;
    expect(lab.build(gone, &context("gone"), &[]).success()?.steps().0, 1)
}

fn du_and_version(lab: &Lab) -> Result<(), Failed> {
    lab.build("shakedown.test/e2e/du:1", &context("du"), &[]).success()?;
    lab.pushless(&["du"]).success()?.says(" step")?.says(" base")?;
    let version = lab.pushless(&["version"]).success()?;
    version.says(env!("CARGO_PKG_VERSION"))?.says("containerd")?.says("runc").map(drop)
}

fn quiet(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/quiet:1";
    let ran = lab.build(name, &context("quiet"), &["-q"]).success()?;
    expect(&*ran.stderr, "")?;
    let id = ran.stdout.trim().to_owned();
    expect(Some(id), lab.cri_id(name)?)
}

fn one_record(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/record:1";
    let before = lab.ctr(&["images", "ls", "-q"])?.lines().count();
    lab.build(name, &context("record"), &[]).success()?;
    lab.build(name, &context("record again"), &[]).success()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    expect(lab.ctr(&["images", "ls", "-q"])?.lines().count(), before + 1)
}

fn shared_record(lab: &Lab) -> Result<(), Failed> {
    let (name, other) = ("shakedown.test/e2e/shared:1", "shakedown.test/e2e/shared:2");
    lab.build(name, &context("shared"), &[]).success()?;
    lab.ctr(&["images", "tag", name, other])?;
    // As CRI adds it to an image that is not marked as managed.
    let id = lab.config_digest(name)?;
    lab.ctr(&["images", "tag", name, &id])?;
    let by_id = |lab: &Lab| Ok::<_, Failed>(lab.ctr(&["images", "ls", "-q"])?.lines().any(|line| line == id));
    require(by_id(lab)?, "the record by id is there")?;
    lab.pushless(&["rmi", name]).success()?;
    require(by_id(lab)?, "the other name's record by id stays")?;
    lab.pushless(&["rmi", other]).success()?;
    require(!by_id(lab)?, "it goes with the last name")
}
