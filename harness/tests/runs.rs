// SPDX-License-Identifier: Apache-2.0
//! The program from outside, with builders made of a few lines of shell: exit codes, files, and what is left when it is
//! cancelled or killed. Trials that start a node need root; as a plain user they are reported as ignored.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use confine::Confinement;
use libtest_mimic::{Arguments, Failed, Trial};
use shakedown_node::TestPlace;
use shakedown_report::{Class, Event, FoldError, Report, Verdict, fold, read_events, schema};
use shakedown_testing::trial;

type Body = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let plain_user = shakedown_testing::root("start a node");
    if plain_user.is_none() {
        // A kill of this program then ends the runs that it has started, too.
        confine::enter(Confinement { network: false, reap_orphans: true }).expect("namespaces");
    }
    let _place = TestPlace::enter().expect("a place");
    let anybody = [
        Trial::test("a_selection_of_nothing_is_4", nothing_selected),
        Trial::test("an_unknown_builder_is_2_and_the_known_ones_are_named", unknown_builder),
        Trial::test("a_bad_document_is_2_and_shown_with_its_place", bad_document),
        Trial::test("the_list_names_scenarios_and_builders", list),
    ];
    let with_root: [(&str, Body); 12] = [
        ("absent_builders_are_reported_and_nothing_ran_is_4", absent),
        ("a_builder_that_does_what_must_hold_is_0", holds),
        ("a_failure_is_1_and_the_report_is_valid", red),
        ("a_build_over_its_limit_is_a_timeout_and_a_deaf_one_a_hang", timeout),
        ("what_a_build_leaves_running_is_residue", survivor),
        ("a_mount_and_a_lease_that_a_build_leaves_are_residue", litter),
        ("a_death_by_signal_is_a_crash", crash),
        ("a_builder_whose_daemon_does_not_start_is_an_error_and_70", broken),
        ("what_an_adapter_does_not_claim_is_unsupported", unsupported),
        ("sigterm_reports_the_rest_as_not_run_and_is_143", || cancelled(libc::SIGTERM, 143)),
        ("sigint_reports_the_rest_as_not_run_and_is_130", || cancelled(libc::SIGINT, 130)),
        ("sigkill_keeps_the_events_and_the_next_run_collects", killed),
    ];
    let with_root = with_root.map(|(name, run)| trial(name, plain_user.as_deref(), run));
    libtest_mimic::run(&Arguments::from_args(), anybody.into_iter().chain(with_root).collect()).exit_code()
}

/// Documents, state and report of one trial.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Result<Self, Failed> {
        let place = Self(tempfile::tempdir()?);
        for folder in ["scenarios/s", "adapters", "out"] {
            fs::create_dir_all(place.path().join(folder))?;
        }
        Ok(place)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// An adapter whose builder is a shell script.
    fn builder(&self, name: &str, script: &str) -> Result<(), Failed> {
        self.adapter(name, "/bin/sh", script, "", "[]")
    }

    fn adapter(
        &self,
        name: &str,
        program: &str,
        script: &str,
        more: &str,
        capabilities: &str,
    ) -> Result<(), Failed> {
        let script = serde_json::to_string(script)?;
        let text = format!(
            r#"api_version: shakedown/v1
kind: Adapter
id: {name}
title: A shell script
driver: exec
discover:
  sh:
    environment_override: NO_SUCH_VARIABLE
    candidates: ["{program}"]
    install_hint: apt-get install {name}
version:
  argv: ["{{program.sh}}", -c, "echo version 1.2.3"]
  regex: 'version (\S+)'
capabilities: {capabilities}
environment:
  inherit: [PATH]
build:
  argv: ["{{program.sh}}", -c, {script}, build, "{{ref}}", "{{options}}", "{{context}}"]
{more}"#
        );
        Ok(fs::write(self.path().join(format!("adapters/{name}.yaml")), text)?)
    }

    fn scenario(&self, name: &str, more: &str) -> Result<(), Failed> {
        let text = format!(
            "api_version: shakedown/v1\nkind: Scenario\nid: s/{name}\ntitle: T\nspec: none\nlevel: must\n\
             dockerfile: {{text: \"FROM scratch\\n\"}}\n{more}"
        );
        Ok(fs::write(self.path().join(format!("scenarios/s/{name}.yaml")), text)?)
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shakedown"));
        command.arg(subcommand).stdin(Stdio::null());
        for folder in ["scenarios", "adapters"] {
            command.arg(format!("--{folder}")).arg(self.path().join(folder));
        }
        command
    }

    fn run(&self) -> Command {
        let mut command = self.command("run");
        command.arg("--out").arg(self.path().join("out"));
        command.env("SHAKEDOWN_RUNS_DIR", self.path().join("state"));
        command
    }

    fn report(&self) -> Result<Report, Failed> {
        let text = fs::read_to_string(self.path().join("out/report.json"))?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let validator = jsonschema::validator_for(&schema())?;
        if let Some(error) = validator.iter_errors(&value).next() {
            return Err(format!("the report is not valid: {error}").into());
        }
        Ok(serde_json::from_value(value)?)
    }

    fn events(&self) -> Result<Vec<Event>, Failed> {
        let text = fs::read(self.path().join("out/events.jsonl"))?;
        Ok(read_events(text.as_slice())?.events)
    }

    /// What every ended run leaves below its state folder: nothing.
    fn nothing_left(&self) -> Result<(), Failed> {
        let left: Vec<_> =
            fs::read_dir(self.path().join("state"))?.flatten().map(|entry| entry.path()).collect();
        expect(left, Vec::new())?;
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        expect(mounts.contains(&*self.path().to_string_lossy()), false)
    }
}

const SUCCEEDS: &str = "steps: [{build: {}}]\n";
const FAILS: &str =
    "steps: [{build: {expect: {outcome: {failure: {message_regex: 'no such file'}}}}}]\nlimit_s: 20\n";

#[expect(clippy::needless_pass_by_value, reason = "the callers compare temporaries")]
fn expect<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), Failed> {
    if found == wanted { Ok(()) } else { Err(format!("found {found:?}, wanted {wanted:?}").into()) }
}

fn expect_code(output: &Output, code: i32) -> Result<(), Failed> {
    if output.status.code() == Some(code) {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{} instead of {code}\n{out}\n{err}", output.status).into())
}

fn nothing_selected() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("fake", "exit 0")?;
    place.scenario("one", SUCCEEDS)?;
    let output = place.run().args(["--filter", "no such text"]).output()?;
    expect_code(&output, 4)?;
    expect_code(&place.command("list").args(["--filter", "no such text"]).output()?, 4)
}

fn unknown_builder() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("fake", "exit 0")?;
    place.scenario("one", SUCCEEDS)?;
    let output = place.run().args(["--builder", "fak"]).output()?;
    expect_code(&output, 2)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(text.as_str(), "error: select builder `fak`: there is no such adapter (there are fake)\n")
}

fn bad_document() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("fake", "exit 0")?;
    place.scenario("one", "stepps: []\n")?;
    let output = place.run().output()?;
    expect_code(&output, 2)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(text.contains("scenarios/s/one.yaml:8:1"), true)
}

fn list() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("fake", "exit 0")?;
    place.scenario("one", SUCCEEDS)?;
    let output = place.command("list").output()?;
    expect_code(&output, 0)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    expect(text.as_str(), "s/one  T\n\n1 scenarios, for the builders:\nfake   A shell script\n")
}

fn absent() -> Result<(), Failed> {
    let place = Place::new()?;
    place.adapter("ghost", "/nonexistent/ghost", "", "", "[]")?;
    place.scenario("one", SUCCEEDS)?;
    let output = place.run().output()?;
    expect_code(&output, 4)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    expect(text.contains("help: apt-get install ghost"), true)?;
    let report = place.report()?;
    expect((report.trials.len(), report.counts.absent), (1, 1))?;
    place.nothing_left()
}

fn holds() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("fake", "echo COPY: no such file >&2; exit 1")?;
    place.scenario("one", FAILS)?;
    let output = place.run().output()?;
    expect_code(&output, 0)?;
    let report = place.report()?;
    expect(report.trials[0].verdict, Verdict::Pass)?;
    expect(fold(&place.events()?)?, report)?;
    place.nothing_left()
}

fn red() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("liar", "exit 0")?;
    place.builder("fine", "echo no such file; exit 1")?;
    place.scenario("one", FAILS)?;
    place.scenario("two", SUCCEEDS)?;
    let output = place.run().args(["--retries", "1"]).output()?;
    expect_code(&output, 1)?;
    let report = place.report()?;
    let verdicts: Vec<_> = report
        .trials
        .iter()
        .map(|trial| (trial.scenario.as_str(), trial.builder.as_str(), trial.verdict, trial.attempts.len()))
        .collect();
    expect(
        verdicts,
        vec![
            ("s/one", "fine", Verdict::Pass, 1),
            ("s/one", "liar", Verdict::Fail, 2),
            ("s/two", "fine", Verdict::Fail, 2),
            ("s/two", "liar", Verdict::Fail, 2),
        ],
    )?;
    let assertions: Vec<_> = report
        .trials
        .iter()
        .filter_map(|trial| Some(trial.deciding()?.findings.first()?.assertion.as_str()))
        .collect();
    expect(assertions, vec!["build.outcome", "build.outcome", "image.present"])?;
    place.nothing_left()
}

fn timeout() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("slow", "exec sleep 1000")?;
    place.builder("slow_and_deaf", "trap '' TERM; while :; do sleep 0.1; done")?;
    place.scenario("one", "steps: [{build: {}}]\nlimit_s: 1\n")?;
    expect_code(&place.run().output()?, 1)?;
    let report = place.report()?;
    let found: Vec<_> = report
        .trials
        .iter()
        .map(|trial| (trial.verdict, trial.deciding().and_then(|attempt| attempt.class)))
        .collect();
    expect(found, vec![(Verdict::Timeout, None), (Verdict::Timeout, Some(Class::Hang))])?;
    place.nothing_left()
}

fn survivor() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("litter", "sleep 1000 & echo no such file; exit 1")?;
    place.scenario("one", FAILS)?;
    expect_code(&place.run().output()?, 1)?;
    let report = place.report()?;
    let attempt = report.trials[0].deciding().ok_or("no attempt")?;
    expect((attempt.verdict, attempt.class), (Verdict::Fail, Some(Class::Residue)))
}

fn litter() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder(
        "mounter",
        "mkdir $2/m && mount -t tmpfs none $2/m && touch $2/m/kept; echo no such file; exit 1",
    )?;
    let lease = "environment:\n  inherit: [PATH]\n  set: {ADDRESS: \"{containerd}\"}\n";
    place.adapter(
        "lessee",
        "/bin/sh",
        "ctr -a $ADDRESS -n k8s.io leases create; echo no such file; exit 1",
        "",
        "[]",
    )?;
    let path = place.path().join("adapters/lessee.yaml");
    let text = fs::read_to_string(&path)?.replace("environment:\n  inherit: [PATH]\n", lease);
    fs::write(path, text)?;
    place.scenario("one", FAILS)?;
    expect_code(&place.run().output()?, 1)?;
    let report = place.report()?;
    for (trial, assertion) in report.trials.iter().zip(["residue.lease", "residue.mount"]) {
        let attempt = trial.deciding().ok_or("no attempt")?;
        let found: Vec<_> = attempt.findings.iter().map(|finding| finding.assertion.as_str()).collect();
        expect((attempt.class, found), (Some(Class::Residue), vec![assertion]))?;
    }
    place.nothing_left()
}

fn crash() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("fragile", "echo no such file; kill -SEGV $$")?;
    place.scenario("one", FAILS)?;
    expect_code(&place.run().output()?, 1)?;
    let report = place.report()?;
    let attempt = report.trials[0].deciding().ok_or("no attempt")?;
    expect((attempt.verdict, attempt.class), (Verdict::Fail, Some(Class::Crash)))
}

fn broken() -> Result<(), Failed> {
    let place = Place::new()?;
    let daemon = "lifecycle:\n  up:\n    - argv: [\"{program.sh}\", -c, \"echo no disk; exit 9\"]\n      \
                  ready: {socket: \"{state}/socket\"}\n      limit_s: 20\n";
    place.adapter("broken", "/bin/sh", "exit 0", daemon, "[]")?;
    place.scenario("one", FAILS)?;
    expect_code(&place.run().output()?, 70)?;
    let report = place.report()?;
    let attempt = report.trials[0].deciding().ok_or("no attempt")?;
    expect(attempt.verdict, Verdict::Error)?;
    let reason = attempt.reason.clone().unwrap_or_default();
    expect(reason.as_str(), "start /bin/sh: it ended with exit status: 9\nno disk")
}

fn unsupported() -> Result<(), Failed> {
    let place = Place::new()?;
    place.builder("simple", "echo no such file; exit 1")?;
    place.scenario("one", &format!("requires: [cache.steps]\n{FAILS}"))?;
    place.scenario("two", FAILS)?;
    expect_code(&place.run().output()?, 0)?;
    let report = place.report()?;
    let verdicts: Vec<_> = report.trials.iter().map(|trial| trial.verdict).collect();
    expect(verdicts, vec![Verdict::Unsupported, Verdict::Pass])?;
    let reason = report.trials[0].attempts[0].reason.clone();
    expect(reason.as_deref(), Some("does not claim cache.steps"))
}

/// Starts a run whose first builder hangs, and returns when its build has begun.
fn start_hanging(place: &Place) -> Result<Child, Failed> {
    let begun = place.path().join("begun");
    place.builder("slow", &format!("touch {}; exec sleep 1000", begun.display()))?;
    for name in ["one", "two"] {
        place.scenario(name, "steps: [{build: {}}]\nlimit_s: 500\n")?;
    }
    let child = place.run().stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let limit = Instant::now() + Duration::from_secs(60);
    while !begun.exists() {
        if Instant::now() > limit {
            return Err("the build did not begin in 60 s".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

fn cancelled(signal: i32, code: i32) -> Result<(), Failed> {
    let place = Place::new()?;
    let mut child = start_hanging(&place)?;
    // SAFETY: kill takes no pointers; the child is ours and not yet reaped.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
    let lines: Vec<_> =
        BufReader::new(child.stdout.take().ok_or("piped")?).lines().collect::<Result<_, _>>()?;
    expect(child.wait()?.code(), Some(code))?;
    expect(lines.iter().any(|line| line.starts_with("= not-run") && line.ends_with('2')), true)?;
    let report = place.report()?;
    let verdicts: Vec<_> = report.trials.iter().map(|trial| trial.verdict).collect();
    expect(verdicts, vec![Verdict::NotRun, Verdict::NotRun])?;
    place.nothing_left()
}

fn killed() -> Result<(), Failed> {
    let place = Place::new()?;
    let mut child = start_hanging(&place)?;
    child.kill()?;
    child.wait()?;
    let events = place.events()?;
    expect(matches!(events.as_slice(), [Event::RunStarted(_), Event::TrialStarted(_)]), true)?;
    expect(fold(&events), Err(FoldError::NoFooter { events: 2 }))?;
    expect(place.path().join("out/report.json").exists(), false)?;
    // The same place, another builder: the first run's folder is collected, its report replaced.
    fs::remove_file(place.path().join("adapters/slow.yaml"))?;
    place.builder("fake", "exit 1")?;
    let output = place.run().output()?;
    expect_code(&output, 1)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    expect(text.starts_with("collected what 1 killed runs had left\n"), true)?;
    place.nothing_left()
}
