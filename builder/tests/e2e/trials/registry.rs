// SPDX-License-Identifier: Apache-2.0
//! A base that is not in containerd is pulled through CRI, once; from then on it is there without the registry.

mod layout;

use std::time::{Duration, Instant};

use layout::Layout;
use libtest_mimic::Failed;
use pushless::image::Platform;
use serde_json::Value;
use shakedown_node::Registry;

use super::{Run, expect, require};
use crate::lab::{BASE, Context, Lab, Ran};

pub const ALL: &[(&str, Run)] = &[
    ("an_absent_base_is_pulled_once_for_all_stages_and_builds", pulled_once),
    ("a_tag_that_the_registry_does_not_have_is_exit_4", missing_tag),
    ("a_pulled_base_stays_usable_after_the_kubelet_removed_it", removed_base),
    ("an_index_resolves_to_the_platform_of_this_node", index),
    ("an_index_without_the_platform_of_this_node_is_exit_4", foreign_index),
];

const NAME: &str = "shakedown.test/e2e/registry:1";

/// Under which the images are in containerd until they are pushed.
const LOCAL: &str = "shakedown.test/e2e/pushed:1";

fn pulled_once(lab: &Lab) -> Result<(), Failed> {
    let registry = Registry::start(lab.node().dir())?;
    let mut layout = Layout::default();
    let image = with_shell(&mut layout, "registry\n")?;
    let base = publish(lab, &registry, &layout, image, "base:1")?;

    let context = Context::new(&format!(
        "FROM {base} AS one\nRUN read line < /origin; echo $line > /one\n\
         FROM {base}\nRUN echo two > /two\nCOPY --from=one /one /one\n"
    ));
    let ran = lab.build(NAME, &context, &[]).success()?;
    expect((pulls(&ran), ran.steps().0), (1, 3))?;
    require(lab.cri_id(&base)?.is_some(), "pods can use the base, too")?;
    expect(lab.is_complete(NAME)?, true)?;
    let script = "read one < /one; read two < /two; echo $one $two";
    expect(&*lab.look(NAME, &["/bin/sh", "-c", script])?, "registry two\n")?;

    registry.stop()?;
    let again = lab.build(NAME, &context, &[]).success()?;
    expect((pulls(&again), again.steps().0, again.writes()), (0, 0, 0))?;
    context.write("Dockerfile", &format!("FROM {base}\nRUN echo other > /two\n"));
    let other = lab.build(NAME, &context, &[]).success()?;
    expect((pulls(&other), other.steps().0), (0, 1))
}

fn missing_tag(lab: &Lab) -> Result<(), Failed> {
    let registry = Registry::start(lab.node().dir())?;
    registry.push(lab.node(), BASE, "base:1")?;
    for absent in ["base:2", "nothing:1"] {
        let absent = registry.reference(absent);
        let ran = lab.build(NAME, &Context::new(&format!("FROM {absent}\nRUN true\n")), &[]).exits(4)?;
        require(ran.last_line().contains(&absent), &format!("the image is named: {}", ran.last_line()))?;
        require(ran.last_line().contains("not found"), &format!("the cause is told: {}", ran.last_line()))?;
    }
    Ok(registry.stop()?)
}

fn removed_base(lab: &Lab) -> Result<(), Failed> {
    let registry = Registry::start(lab.node().dir())?;
    let mut layout = Layout::default();
    let image = with_shell(&mut layout, "removed\n")?;
    let base = publish(lab, &registry, &layout, image, "base:1")?;
    let context = Context::new(&format!("FROM {base}\nRUN echo one > /file\n"));
    let ran = lab.build(NAME, &context, &[]).success()?;
    expect(pulls(&ran), 1)?;
    let id = lab.target(NAME)?;
    registry.stop()?;
    lab.cri_remove_all()?;
    lab.collect_garbage()?;
    // Records that CRI does not know may stay, such as those of names that nobody normalised.
    let left = lab.ctr(&["images", "ls", "-q"])?;
    require(!left.contains(&base) && !left.contains(NAME), &format!("the records are gone: {left}"))?;

    let rebuilt = lab.build(NAME, &context, &[]).success();
    context.write("Dockerfile", &format!("FROM {base}\nRUN read line < /origin; echo two $line > /file\n"));
    let rebuilt_id = lab.target(NAME);
    let changed = lab.build(NAME, &context, &[]).success();
    lab.seed()?;
    let (rebuilt, changed) = (rebuilt?, changed?);
    expect((pulls(&rebuilt), rebuilt.steps().0), (0, 0))?;
    expect(rebuilt_id?, id)?;
    expect((pulls(&changed), changed.steps().0), (0, 1))?;
    expect(&*lab.look(NAME, &["/bin/sh", "-c", "read line < /file; echo $line"])?, "two removed\n")?;
    expect(lab.is_complete(NAME)?, true)
}

fn index(lab: &Lab) -> Result<(), Failed> {
    let registry = Registry::start(lab.node().dir())?;
    let mut layout = Layout::default();
    let node = Platform::of_this_node();
    let mut images = Vec::new();
    // The right one is neither the first nor the last.
    for platform in [foreign_platform(), node.clone(), Platform::new("linux", "s390x", "")] {
        images.push(layout.image(&platform, &[("platform", 0o644, platform.to_string().as_bytes())])?);
    }
    let manifest = images[1]["digest"].as_str().ok_or("no digest")?.to_owned();
    let index = layout.index(&images);
    let digest = index["digest"].as_str().ok_or("no digest")?.to_owned();
    let base = publish(lab, &registry, &layout, index, "multi:1")?;
    let context =
        Context::new(&format!("FROM {base} AS multi\nFROM {BASE}\nCOPY --from=multi /platform /\n"));
    let ran = lab.build(NAME, &context, &[]).success()?;
    expect(pulls(&ran), 1)?;
    expect(lab.look(NAME, &["cat", "/platform"])?, node.to_string())?;
    // What a pull for another platform leaves: the index without the content for this one.
    lab.ctr(&["content", "rm", &manifest])?;
    expect(pulls(&lab.build(NAME, &context, &[]).success()?), 1)?;
    // Directly on it, and by the digest of the index, both from what is there now.
    registry.stop()?;
    let (repository, _) = base.rsplit_once(':').ok_or("no tag")?;
    for base in [base.clone(), format!("{base}@{digest}"), format!("{repository}@{digest}")] {
        context.write("Dockerfile", &format!("FROM {base}\nCOPY Dockerfile /\n"));
        lab.build(NAME, &context, &[]).success()?;
        expect(lab.config(NAME)?["architecture"].as_str(), Some(&*node.architecture))?;
        expect(lab.is_complete(NAME)?, true)?;
    }
    Ok(())
}

fn foreign_index(lab: &Lab) -> Result<(), Failed> {
    let registry = Registry::start(lab.node().dir())?;
    let mut layout = Layout::default();
    // Other content than in the trial before: blobs that an image here refers to would not go.
    let mut images = Vec::new();
    for platform in [foreign_platform(), Platform::new("linux", "s390x", "")] {
        images.push(layout.image(&platform, &[("foreign", 0o644, platform.to_string().as_bytes())])?);
    }
    let index = layout.index(&images);
    let base = publish(lab, &registry, &layout, index.clone(), "foreign:1")?;
    let context = Context::new(&format!("FROM {base}\nCOPY Dockerfile /\n"));
    // Twice, for containerd 2.4 keeps a record of what it refused.
    for _ in 0..2 {
        let ran = lab.build(NAME, &context, &[]).exits(4)?;
        require(ran.last_line().contains(&base), &format!("the image is named: {}", ran.last_line()))?;
        require(ran.last_line().contains("platform"), &format!("the cause is told: {}", ran.last_line()))?;
    }
    let mut mended = Layout::default();
    let image = mended.image(&Platform::of_this_node(), &[("mended", 0o644, b"")])?;
    let mended_index = mended.index(&[image]);
    publish(lab, &registry, &mended, mended_index, "foreign:1")?;
    expect(pulls(&lab.build(NAME, &context, &[]).success()?), 1)?;
    registry.stop()?;

    // One that no registry has: what is wanted and what there is instead is said all the same.
    import(lab, &layout, index)?;
    let ran = lab.build(NAME, &Context::new(&format!("FROM {LOCAL}\nCOPY Dockerfile /\n")), &[]).exits(4);
    lab.ctr(&["images", "rm", "--sync", LOCAL])?;
    let ran = ran?;
    require(ran.last_line().contains(LOCAL), &format!("the image is named: {}", ran.last_line()))?;
    let (wanted, offered) = (Platform::of_this_node(), foreign_platform());
    ran.says(&format!("for {offered}, linux/s390x, not for {wanted}")).map(drop)
}

/// An image with a shell in a layer that no other image of this containerd has.
fn with_shell(layout: &mut Layout, origin: &str) -> Result<Value, Failed> {
    let shell = std::fs::read("/bin/busybox")?;
    let files = [("bin/sh", 0o755, shell.as_slice()), ("origin", 0o644, origin.as_bytes())];
    layout.image(&Platform::of_this_node(), &files)
}

fn foreign_platform() -> Platform {
    let architecture = if Platform::of_this_node().architecture == "arm64" { "amd64" } else { "arm64" };
    Platform::new("linux", architecture, "")
}

/// How often a build said that it pulls.
fn pulls(ran: &Ran) -> usize {
    ran.stderr.matches("pulling it through CRI").count()
}

fn import(lab: &Lab, layout: &Layout, target: Value) -> Result<(), Failed> {
    let archive = tempfile::NamedTempFile::new()?;
    std::fs::write(archive.path(), layout.finish(LOCAL, target)?)?;
    let path = archive.path().to_str().ok_or("a path of plain letters")?;
    lab.ctr(&["images", "import", "--all-platforms", "--no-unpack", path]).map(drop)
}

/// Puts `target` of the layout into the registry and nowhere else, and returns its name there.
fn publish(
    lab: &Lab,
    registry: &Registry,
    layout: &Layout,
    target: Value,
    path: &str,
) -> Result<String, Failed> {
    let filter = format!("target.digest=={}", target["digest"].as_str().ok_or("no digest")?);
    import(lab, layout, target)?;
    let remote = registry.push(lab.node(), LOCAL, path)?;
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        // CRI follows the import with records of its own, a little later.
        for name in lab.ctr(&["images", "ls", "-q", &filter])?.lines() {
            lab.ctr(&["images", "rm", name])?;
        }
        lab.collect_garbage()?;
        let content = lab.ctr(&["content", "ls", "-q"])?;
        if !layout.digests().iter().any(|digest| content.contains(digest)) {
            return Ok(remote);
        }
        require(Instant::now() < limit, "the image is in the registry only")?;
        std::thread::sleep(Duration::from_millis(20));
    }
}
