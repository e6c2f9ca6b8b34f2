// SPDX-License-Identifier: Apache-2.0
//! What goes wrong is said with its place and its remedy, and has a documented exit code.

use libtest_mimic::Failed;

use super::{Run, expect, require};
use crate::lab::{BASE, Context, Lab, Ran};

pub const ALL: &[(&str, Run)] = &[
    ("a_failing_command_is_exit_1_with_line_and_cause", failing_command),
    ("what_is_not_supported_is_named_with_its_line", unsupported),
    ("a_missing_source_says_whether_it_is_ignored", missing_source),
    ("copy_refuses_what_buildkit_refuses", copy_conflicts),
    ("a_base_that_cannot_be_had_is_exit_4", missing_base),
    ("a_base_that_lost_its_content_is_pulled_again", lost_base),
    ("a_base_with_triggers_is_refused", on_build),
    ("a_directory_that_cannot_be_made_is_exit_1_with_its_line", workdir_conflicts),
    ("a_cause_of_many_lines_is_told_in_one", one_line),
    ("a_closed_standard_error_changes_no_exit_code", closed_stderr),
    ("no_containerd_is_exit_3_with_the_path", no_containerd),
    ("a_snapshotter_that_cri_does_not_use_is_refused", snapshotter),
    ("a_missing_context_is_exit_6", missing_context),
    ("a_plain_user_is_told_what_to_do", plain_user),
];

const NAME: &str = "shakedown.test/e2e/failures:1";

fn failing_command(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!("FROM {BASE}\n\nRUN echo before >&2; exit 3\n"));
    let ran = lab.build(NAME, &context, &[]).exits(1)?;
    require(
        ran.last_line().contains("exit code 3"),
        &format!("the last line tells the cause: {}", ran.last_line()),
    )?;
    require(ran.last_line().contains(":3:1"), "and the place")?;
    ran.says("before")?;
    context.write("Dockerfile", &format!("FROM {BASE}\nRUN [\"/no/such/program\"]\n"));
    lab.build(NAME, &context, &[]).exits(1)?.says("/no/such/program")?;
    expect(lab.ctr(&["images", "ls", "-q", &format!("name=={NAME}")])?.trim(), "")
}

fn unsupported(lab: &Lab) -> Result<(), Failed> {
    for (line, named) in [
        ("ADD a /b", "ADD"),
        ("VOLUME /v", "VOLUME"),
        ("HEALTHCHECK CMD true", "HEALTHCHECK"),
        ("ONBUILD RUN true", "ONBUILD"),
        ("SHELL [\"/bin/ash\", \"-c\"]", "SHELL"),
        ("STOPSIGNAL 9", "STOPSIGNAL"),
        ("MAINTAINER me", "MAINTAINER"),
        ("RUN --mount=type=cache,target=/c true", "--mount"),
        ("RUN --network=none true", "--network"),
        ("COPY --chown=1 a /b", "--chown"),
        ("COPY --link a /b", "--link"),
        ("RUN <<EOF\ntrue\nEOF", "heredoc"),
    ] {
        let context = Context::new(&format!("FROM {BASE}\n{line}\n"));
        let ran = lab.build(NAME, &context, &[]).exits(2)?.says("not supported")?;
        require(ran.last_line().contains(named), &format!("{named} is named in {}", ran.last_line()))?;
        require(ran.last_line().contains(":2:"), &format!("the line is named in {}", ran.last_line()))?;
    }
    let context = Context::new(&format!("FROM {BASE}\nRUNN true\n"));
    lab.build(NAME, &context, &[]).exits(2)?.says("did you mean RUN")?;
    for (arguments, cause) in [
        (&["build", "--no-such-flag", "."][..], "--no-such-flag"),
        (&["build", "-t", NAME], "<CONTEXT>"),
        (&["build", "-t", NAME, "--progress", "x", "."], "invalid value 'x'"),
        (&["bild"], "bild"),
    ] {
        let ran = lab.pushless(arguments).exits(2)?;
        require(ran.last_line().contains(cause), &format!("the cause comes last: {}", ran.stderr))?;
    }
    lab.pushless(&["--help"]).success().map(drop)
}

fn missing_source(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!("FROM {BASE}\nCOPY no-such-file /x\n"));
    lab.build(NAME, &context, &[]).exits(1)?.says("no-such-file")?;
    context.write("no-such-file", "");
    context.write(".dockerignore", "no-such*\n");
    lab.build(NAME, &context, &[]).exits(1)?.says(".dockerignore").map(drop)
}

fn copy_conflicts(lab: &Lab) -> Result<(), Failed> {
    for copy in ["COPY d /bin/sh", "COPY f /etc/passwd/x", "COPY d /link/f"] {
        let context =
            Context::new(&format!("FROM {BASE}\nRUN mkdir /l && touch /l/f && ln -s l /link\n{copy}\n"));
        context.write("d/x", "");
        context.write("f", "");
        lab.build(NAME, &context, &[]).exits(1)?.says("not a directory")?;
    }
    Ok(())
}

fn missing_base(lab: &Lab) -> Result<(), Failed> {
    // Nobody listens on port 1: what comes back is CRI's own account of the failed pull.
    let context = Context::new("FROM 127.0.0.1:1/none:1\nRUN true\n");
    let ran = lab.build(NAME, &context, &[]).exits(4)?;
    require(ran.last_line().contains("127.0.0.1:1/none:1"), "the image is named")?;
    require(ran.last_line().contains("refused"), &format!("the cause is told: {}", ran.last_line()))
}

fn no_containerd(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new("FROM scratch\n");
    let mut command = lab.command();
    command.env("CONTAINERD_ADDRESS", "/no/such/containerd.sock");
    let ran = lab.build_by(command, NAME, &context, &[]).exits(3)?;
    require(ran.last_line().contains("/no/such/containerd.sock"), "the path is named")
}

fn snapshotter(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new("FROM scratch\n");
    let mut command = lab.command();
    command.env("CONTAINERD_SNAPSHOTTER", "native");
    lab.build_by(command, NAME, &context, &[]).exits(3)?.says("native").map(drop)
}

fn missing_context(lab: &Lab) -> Result<(), Failed> {
    let ran = lab.pushless(&["build", "-t", NAME, "/no/such/context"]).exits(6)?;
    let cause = |ran: &Ran| require(ran.last_line().contains("open directory"), ran.last_line());
    cause(&ran)?;
    // Nor when the Dockerfile is elsewhere and copies nothing.
    let context = Context::new("FROM scratch\n");
    let file = context.path().join("Dockerfile").display().to_string();
    cause(&lab.pushless(&["build", "-t", NAME, "-f", &file, "/no/such/context"]).exits(6)?)?;
    cause(&lab.pushless(&["build", "-t", NAME, "-f", &file, &file]).exits(6)?)?;
    let context = Context::new(&format!("FROM {BASE}\nCOPY . /\n"));
    context.write(".dockerignore", "ok\n!\n");
    lab.build(NAME, &context, &[]).exits(6)?.says("line 2").map(drop)
}

fn plain_user(lab: &Lab) -> Result<(), Failed> {
    use std::os::unix::process::CommandExt as _;
    let context = Context::new("FROM scratch\n");
    let mut command = lab.command();
    command.uid(65534).gid(65534);
    let ran = lab.build_by(command, NAME, &context, &[]).exits(3)?;
    ran.says("sudo").map(drop)
}

fn on_build(lab: &Lab) -> Result<(), Failed> {
    let base = "shakedown.test/e2e/triggers:1";
    lab.derive(base, BASE, |config| config["config"]["OnBuild"] = serde_json::json!(["RUN echo triggered"]))?;
    let context = Context::new(&format!("FROM {base}\nRUN true\n"));
    let ran = lab.build(NAME, &context, &[]).exits(2)?;
    let last = ran.last_line();
    require(last.contains("RUN echo triggered") && last.contains(":1:6"), &format!("it is named: {last}"))?;
    // Its files are of use all the same.
    let context = Context::new(&format!("FROM {BASE}\nCOPY --from={base} /etc/passwd /copied\n"));
    lab.build(NAME, &context, &[]).success().map(drop)
}

fn workdir_conflicts(lab: &Lab) -> Result<(), Failed> {
    for line in ["WORKDIR /etc/passwd", "WORKDIR /etc/passwd/x", "WORKDIR /a/.wh.b"] {
        let context = Context::new(&format!("FROM {BASE}\n{line}\n"));
        let ran = lab.build(NAME, &context, &[]).exits(1)?;
        require(ran.last_line().contains(":2:1"), &format!("the line is named: {}", ran.last_line()))?;
    }
    Ok(())
}

fn one_line(lab: &Lab) -> Result<(), Failed> {
    let context =
        Context::new(&format!("FROM {BASE}\nRUN [\"/bin/sh\", \"-c\", \"echo one\\nexit 9\\n\"]\n"));
    let ran = lab.build(NAME, &context, &[]).exits(1)?;
    let last = ran.last_line();
    require(
        last.contains(":2:1") && last.contains("exit code 9"),
        &format!("all is in the last line: {last}"),
    )
}

fn closed_stderr(lab: &Lab) -> Result<(), Failed> {
    let context = Context::new(&format!("FROM {BASE}\nRUN false\n"));
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = lab.command();
    command.args(["build", "-t", NAME]).arg(context.path()).stderr(writer);
    expect(command.status()?.code(), Some(1))
}

fn lost_base(lab: &Lab) -> Result<(), Failed> {
    let base = "127.0.0.1:1/lost:1";
    lab.derive(base, BASE, |config| config["author"] = serde_json::json!("lost"))?;
    lab.ctr(&["content", "rm", &lab.config_digest(base)?])?;
    let context = Context::new(&format!("FROM {base}\nRUN true\n"));
    let ran = lab.build(NAME, &context, &[]);
    lab.ctr(&["images", "rm", "--sync", base])?;
    let ran = ran.exits(4)?.says("pulling")?;
    require(ran.last_line().contains("refused"), &format!("the pull's failure is told: {}", ran.last_line()))
}
