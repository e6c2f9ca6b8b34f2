// SPDX-License-Identifier: Apache-2.0
//! What a Dockerfile says is what the image is.

use libtest_mimic::Failed;
use pushless::image::Digest;

use super::{Run, expect, require};
use crate::lab::{BASE, Context, Lab};

pub const ALL: &[(&str, Run)] = &[
    ("arguments_environment_and_working_directory", arguments),
    ("stages_targets_and_copies_between_them", stages),
    ("config_of_the_image", config),
    ("a_base_without_history_gets_one_that_counts", no_history),
    ("metadata_alone_makes_an_image_too", metadata_only),
    ("copy_keeps_modes_links_and_hard_links", copied_metadata),
    ("an_ignore_file_hides_and_shows", ignore_file),
    ("deletions_and_replacements_in_run", whiteouts),
    ("users_and_groups_of_run", users),
    ("mount_stubs_stay_out_of_the_layer", stubs),
    ("a_base_has_many_names", base_names),
    ("bases_that_share_a_snapshot_outlive_their_records", twin_bases),
    ("another_namespace_is_built_without_cri", other_namespace),
    ("a_base_of_another_platform_is_told", foreign_base),
];

fn arguments(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(
        "ARG TAG=1\nFROM shakedown.test/busybox:$TAG\nARG WHO=world\nENV GREETING=hello OTHER=\"a b\"\nWORKDIR /app\n\
         COPY . .\nRUN echo $GREETING $WHO $OTHER > said\nRUN [\"/bin/sh\", \"-c\", \"pwd > exec\"]\n\
         CMD [\"cat\", \"/app/said\"]\n",
    );
    context.write("sub/file", "content\n");
    let name = "shakedown.test/e2e/arguments:1";
    lab.build(name, &context, &[]).success()?;
    expect(&*lab.look(name, &["cat", "/app/said", "/app/exec"])?, "hello world a b\n/app\n")?;
    lab.build(name, &context, &["--build-arg", "WHO=you"]).success()?;
    expect(&*lab.look(name, &["cat", "/app/said", "/app/sub/file"])?, "hello you a b\ncontent\n")?;
    let unused = lab.build(name, &context, &["--build-arg", "NOBODY=asks"]).success()?;
    unused.says("NOBODY").map(drop)
}

fn stages(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!(
        "FROM {BASE} AS make\nRUN mkdir /out && echo made > /out/file && ln -s file /out/link\n\
         FROM {BASE} AS broken\nRUN false\n\
         FROM scratch AS result\nCOPY --from=make /out /out/\nCOPY --from=0 /bin/busybox /bin/busybox\n\
         COPY --from={BASE} /etc/passwd /etc/\n\
         FROM make AS more\nRUN echo more >> /out/file\n"
    ));
    let name = "shakedown.test/e2e/stages:1";
    lab.build(name, &context, &["--target", "result"]).success()?;
    let said = lab.look(name, &["/bin/busybox", "sh", "-c", "busybox cat /out/link; busybox ls /etc"])?;
    expect(&*said, "made\npasswd\n")?;
    lab.build(name, &context, &["--target", "MORE"]).success()?;
    expect(&*lab.look(name, &["cat", "/out/file"])?, "made\nmore\n")?;
    lab.build(name, &context, &["--target", "broken"]).exits(1).map(drop)
}

fn config(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!(
        "FROM {BASE}\nENV A=1 B=2\nENV A=3\nLABEL one=1 \"two words\"=2\nEXPOSE 80 90/udp\nWORKDIR /w\nWORKDIR x\n\
         USER 1000:1000\nENTRYPOINT [\"/bin/echo\"]\nCMD [\"said\"]\n"
    ));
    let name = "shakedown.test/e2e/config:1";
    lab.build(name, &context, &[]).success()?;
    let config = lab.config(name)?;
    let run = &config["config"];
    let env = run["Env"].as_array().cloned().unwrap_or_default();
    require(
        env.iter().any(|pair| pair == "A=3") && env.iter().any(|pair| pair == "B=2"),
        "ENV is in the config",
    )?;
    require(
        env.iter().position(|pair| pair == "A=3") < env.iter().position(|pair| pair == "B=2"),
        "a replaced variable keeps its place",
    )?;
    expect(&run["Labels"], &serde_json::json!({"one": "1", "two words": "2"}))?;
    expect(&run["ExposedPorts"], &serde_json::json!({"80/tcp": {}, "90/udp": {}}))?;
    expect(&run["WorkingDir"], &serde_json::json!("/w/x"))?;
    expect(&run["User"], &serde_json::json!("1000:1000"))?;
    expect(&run["Entrypoint"], &serde_json::json!(["/bin/echo"]))?;
    expect(&run["Cmd"], &serde_json::json!(["said"]))?;
    let layers = config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
    let history = config["history"].as_array().cloned().unwrap_or_default();
    let with_layer = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    expect(with_layer, layers)?;
    let texts: Vec<_> = history.iter().filter_map(|entry| entry["created_by"].as_str()).collect();
    require(
        texts.contains(&"WORKDIR /w/x") && texts.contains(&"CMD [\"said\"]"),
        "history names the instructions",
    )
}

fn metadata_only(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/metadata:1";
    let context = Context::new(&format!("FROM {BASE}\nLABEL a=1\n"));
    lab.build(name, &context, &[]).success()?;
    context.write("Dockerfile", &format!("FROM {BASE}\nLABEL a=2\n"));
    lab.build(name, &context, &[]).success()?;
    expect(&lab.config(name)?["config"]["Labels"]["a"], &serde_json::json!("2"))?;
    expect(&*lab.look(name, &["echo", "runs"])?, "runs\n")?;
    let empty = "shakedown.test/e2e/empty:1";
    let context = Context::new("FROM scratch\nLABEL a=1\n");
    lab.build(empty, &context, &[]).success()?;
    let again = lab.build(empty, &context, &[]).success()?;
    expect(again.writes(), 0)
}

fn copied_metadata(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!(
        "FROM {BASE}\nRUN mkdir -m 711 /there && ln -s there /link\nCOPY tree /new\nCOPY tree/a /link\nCOPY tree/a /file\n"
    ));
    context.write("tree/a", "a");
    context.write("tree/sub/b", "b");
    let tree = context.path().join("tree");
    std::fs::hard_link(tree.join("a"), tree.join("c"))?;
    std::os::unix::fs::symlink("sub/b", tree.join("l"))?;
    let mode = |path: &str, mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(tree.join(path), std::fs::Permissions::from_mode(mode))
    };
    mode("a", 0o4750)?;
    mode("sub", 0o1777)?;
    std::os::unix::fs::chown(tree.join("a"), Some(1234), Some(1234))?;
    mode("a", 0o4750)?;
    let name = "shakedown.test/e2e/copied:1";
    lab.build(name, &context, &[]).success()?;
    let script = "stat -c '%n %a %u:%g' /new /new/sub /there; stat -c '%n %a %u:%g %h' /new/a /new/c /there/a /file; readlink /new/l";
    expect(
        &*lab.look(name, &["sh", "-c", script])?,
        "/new 755 0:0\n/new/sub 1777 0:0\n/there 711 0:0\n/new/a 4750 0:0 2\n/new/c 4750 0:0 2\n\
         /there/a 4750 0:0 1\n/file 4750 0:0 1\nsub/b\n",
    )
}

fn ignore_file(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!("FROM {BASE}\nCOPY . /c\n"));
    context.write(".dockerignore", "# comment\nnode_modules\n**/*.log\n!keep.log\nDockerfile\n");
    for path in ["node_modules/x", "a.log", "sub/b.log", "keep.log", "sub/file"] {
        context.write(path, "");
    }
    let name = "shakedown.test/e2e/ignored:1";
    lab.build(name, &context, &[]).success()?;
    let found = lab.look(name, &["sh", "-c", "cd /c && find . -type f | sort"])?;
    expect(&*found, "./.dockerignore\n./keep.log\n./sub/file\n")?;
    // A change of what is hidden changes nothing.
    context.write("a.log", "changed");
    expect(lab.build(name, &context, &[]).success()?.writes(), 0)
}

fn whiteouts(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!(
        "FROM {BASE}\nRUN mkdir -p /d/e && touch /d/a /d/e/b && echo old > /f\n\
         RUN rm -r /d && mkdir /d && touch /d/new && rm /f && mkdir /f && rm /bin/cat\n"
    ));
    let name = "shakedown.test/e2e/whiteouts:1";
    lab.build(name, &context, &[]).success()?;
    let found =
        lab.look(name, &["sh", "-c", "ls /d; stat -c %F /f; ls /bin/cat 2>/dev/null || echo none"])?;
    expect(&*found, "new\ndirectory\nnone\n")
}

fn users(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!(
        "FROM {BASE}\nRUN echo 'maker:x:1234:1235::/home/maker:/bin/sh' >> /etc/passwd && echo 'maker:x:1235:' >> /etc/group && \
         chmod 1777 /tmp\nUSER maker\nWORKDIR /home/maker\nRUN id -u > ids && id -g >> ids && echo $HOME >> ids\n"
    ));
    let name = "shakedown.test/e2e/users:1";
    lab.build(name, &context, &[]).success()?;
    let found =
        lab.look(name, &["sh", "-c", "cat /home/maker/ids; stat -c %u:%g /home/maker /home/maker/ids"])?;
    expect(&*found, "1234\n1235\n/home/maker\n1234:1235\n1234:1235\n")?;
    context.write("Dockerfile", &format!("FROM {BASE}\nUSER nobody-knows\nRUN true\n"));
    lab.build(name, &context, &[]).exits(1)?.says("nobody-knows").map(drop)
}

fn stubs(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!(
        "FROM {BASE} AS from\nFROM scratch\nCOPY --from=from /bin /bin\nRUN [\"/bin/busybox\", \"true\"]\n"
    ));
    let name = "shakedown.test/e2e/stubs:1";
    lab.build(name, &context, &[]).success()?;
    let config = lab.config(name)?;
    let diff_ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    // The digest of a tar stream without members: two blocks of zeros.
    expect(
        diff_ids.last().and_then(|id| id.as_str()),
        Some("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"),
    )
}

fn base_names(lab: &Lab) -> Result<(), Failed> {
    lab.ctr(&["images", "tag", "--force", BASE, "docker.io/library/e2e-base:latest"])?;
    lab.ctr(&["images", "tag", "--force", BASE, "e2e-unnormalised:7"])?;
    let id = lab.ctr(&["images", "ls", "-q"])?;
    require(id.contains(BASE), "the base is listed")?;
    let digest = lab.target(BASE)?;
    for (number, name) in [
        "e2e-base".to_owned(),
        "library/e2e-base:latest".to_owned(),
        "docker.io/library/e2e-base".to_owned(),
        "e2e-unnormalised:7".to_owned(),
        format!("shakedown.test/busybox@{digest}"),
        format!("shakedown.test/busybox:1@{digest}"),
    ]
    .iter()
    .enumerate()
    {
        let context = Context::new(&format!("FROM {name}\nLABEL number={number}\n"));
        lab.build("shakedown.test/e2e/names:1", &context, &[]).success()?;
    }
    Ok(())
}

fn other_namespace(lab: &Lab) -> Result<(), Failed> {
    let name = "shakedown.test/e2e/elsewhere:1";
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    let mut command = lab.command();
    command.env("CONTAINERD_NAMESPACE", "e2e-other");
    let ran = lab.build_by(command, name, &context, &[]).success()?;
    require(!ran.stderr.contains("visible to pods"), "nothing is visible to pods in another namespace")?;
    let listed = lab.ctr_in("e2e-other", &["images", "ls", "-q"])?;
    expect(listed.trim(), name)?;
    let mut command = lab.command();
    command.env("CONTAINERD_NAMESPACE", "e2e-other");
    expect(lab.build_by(command, name, &context, &[]).success()?.writes(), 0)
}

/// A single manifest, without an index to choose from, whose config is for another machine.
fn foreign_base(lab: &Lab) -> Result<(), Failed> {
    let (layer, name) = (vec![0_u8; 1024], "shakedown.test/e2e/foreign-base:1");
    let digest = Digest::of(&layer).hex();
    let config = format!(
        "{{\"architecture\":\"s390x\",\"os\":\"linux\",\"config\":{{}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:{digest}\"]}}}}"
    );
    let manifest =
        format!("[{{\"Config\":\"config.json\",\"RepoTags\":[\"{name}\"],\"Layers\":[\"layer.tar\"]}}]");
    let context = Context::new(&format!("FROM {name}\nLABEL a=1\n"));
    let archive = context.path().with_extension("tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive)?);
    for (member, bytes) in
        [("manifest.json", manifest.as_bytes()), ("config.json", config.as_bytes()), ("layer.tar", &layer)]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, member, bytes)?;
    }
    tar.finish()?;
    lab.ctr(&["images", "import", "--all-platforms", &archive.display().to_string()])?;
    lab.build("shakedown.test/e2e/foreign:1", &context, &[])
        .success()?
        .says("is for linux/s390x, not for")
        .map(drop)
}

fn no_history(lab: &Lab) -> Result<(), Failed> {
    let (base, name) = ("shakedown.test/e2e/no-history:1", "shakedown.test/e2e/history:1");
    let empty = serde_json::json!([{"created_by": "LABEL x", "empty_layer": true}]);
    for history in [serde_json::Value::Null, empty] {
        lab.derive(base, BASE, |config| config["history"] = history)?;
        let context = Context::new(&format!("FROM {base}\nRUN echo history > /file\nLABEL a=b\n"));
        lab.build(name, &context, &[]).success()?;
        let config = lab.config(name)?;
        let layers = config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
        let history = config["history"].as_array().cloned().unwrap_or_default();
        expect(history.iter().filter(|entry| entry["empty_layer"] != true).count(), layers)?;
        let last: Vec<_> = history.iter().rev().take(2).map(|entry| entry["created_by"].as_str()).collect();
        expect(last, vec![Some("LABEL a=b"), Some("RUN /bin/sh -c echo history > /file # buildkit")])?;
    }
    Ok(())
}

/// Images that differ in their configs alone share a snapshot, and each has to outlive its record.
fn twin_bases(lab: &Lab) -> Result<(), Failed> {
    let bases = ["shakedown.test/e2e/twin:1", "shakedown.test/e2e/twin:2"];
    let contexts = bases.map(|base| Context::new(&format!("FROM {base}\nLABEL from={base}\n")));
    for (base, context) in bases.iter().zip(&contexts) {
        lab.derive(base, BASE, |config| config["config"]["Labels"] = serde_json::json!({"twin": base}))?;
        lab.build("shakedown.test/e2e/twins:1", context, &[]).success()?;
    }
    lab.cri_remove_all()?;
    lab.collect_garbage()?;
    let built: Result<Vec<_>, _> = contexts
        .iter()
        .map(|context| {
            lab.build("shakedown.test/e2e/twins:1", context, &[]).success()?;
            let config = lab.config("shakedown.test/e2e/twins:1")?;
            Ok::<_, Failed>(config["config"]["Labels"]["twin"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    lab.seed()?;
    expect(built?, bases.map(str::to_owned).to_vec())
}
