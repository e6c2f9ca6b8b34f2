// SPDX-License-Identifier: Apache-2.0
//! The format as a whole: one golden run through writer, reader, fold, schema and renderings.

use std::collections::BTreeMap;
use std::path::Path;

use shakedown_report::{
    AttemptFinished, Builder, Class, Comparison, Counts, Effect, Ending, Event, Finding, FoldError, Host,
    Level, MissedRound, Outcome, PhaseTime, PlannedTrial, Presence, ReadError, Report, RunFinished,
    RunStarted, SCHEMA_VERSION, Sample, TrialStarted, Verdict, fold, phase, read_events, schema, text,
};

const SCHEMA_FILE: &str = "schema/report.v1.schema.json";
const BLESS: &str = "SHAKEDOWN_BLESS=1 cargo test -p shakedown-report --test format";

fn planned(scenario: &str, builder: &str, level: Level) -> PlannedTrial {
    PlannedTrial { scenario: scenario.into(), builder: builder.into(), level }
}

fn attempt(scenario: &str, builder: &str, attempt: u32, verdict: Verdict) -> AttemptFinished {
    AttemptFinished {
        scenario: scenario.into(),
        builder: builder.into(),
        attempt,
        verdict,
        class: None,
        reason: None,
        findings: Vec::new(),
        phases: Vec::new(),
        metrics: BTreeMap::new(),
        logs: Vec::new(),
        wall_ms: 12,
    }
}

fn sample(builder: &str, round: u32, wall_us: u64) -> Event {
    Event::Sample(Sample {
        bench: "small".into(),
        case: "noop".into(),
        builder: builder.into(),
        round,
        position: 0,
        phases: vec![
            PhaseTime { phase: phase::BUILD.into(), wall_us },
            PhaseTime { phase: phase::TOTAL.into(), wall_us: wall_us * 2 },
        ],
    })
}

/// A run with one of everything: every kind of event, a failure with findings, a second attempt, an absent builder.
fn golden() -> Vec<Event> {
    let builders = vec![
        Builder {
            name: "pushless".into(),
            presence: Presence::Present {
                version: "0.1.0".into(),
                program: "/usr/bin/pushless".into(),
                program_sha256: "ab".repeat(32),
            },
        },
        Builder {
            name: "docker".into(),
            presence: Presence::Absent {
                reason: "no program docker in PATH".into(),
                remedy: Some("apt install docker.io".into()),
            },
        },
    ];
    let started =
        TrialStarted { scenario: "copy/mode".into(), builder: "pushless".into(), attempt: 1, at_ms: 5 };
    let failed = AttemptFinished {
        class: Some(Class::Assertion),
        reason: Some("1 of 9 assertions does not hold".into()),
        findings: vec![Finding {
            assertion: "file.mode".into(),
            path: Some("/app".into()),
            build: Some(1),
            expected: "04755".into(),
            found: "0755".into(),
        }],
        phases: vec![PhaseTime { phase: phase::BUILD.into(), wall_us: 1500 }],
        metrics: [("layers".to_owned(), 2)].into(),
        logs: vec!["logs/copy-mode/pushless/build-1.log".into()],
        ..attempt("copy/mode", "pushless", 1, Verdict::Fail)
    };
    let header = RunStarted {
        schema_version: SCHEMA_VERSION,
        run: "r1".into(),
        started_at: "2026-01-02T03:04:05Z".into(),
        shakedown_version: "0.1.0".into(),
        argv: vec!["shakedown".into(), "run".into()],
        seed: 7,
        suite_sha256: "00".repeat(32),
        host: Host {
            kernel: "6.1.0".into(),
            architecture: "x86_64".into(),
            cpus: 2,
            memory_bytes: 1 << 30,
            cgroup: "v2".into(),
            containerd: "1.6.20".into(),
            runc: "1.1.5".into(),
            snapshotter: "overlayfs".into(),
        },
        builders,
        planned: vec![
            planned("copy/mode", "pushless", Level::Must),
            planned("copy/mode", "docker", Level::Must),
            planned("run/exit", "pushless", Level::Should),
            planned("run/exit", "docker", Level::Should),
        ],
    };
    vec![
        Event::RunStarted(header),
        Event::TrialStarted(started),
        Event::AttemptFinished(failed),
        Event::AttemptFinished(attempt("copy/mode", "docker", 1, Verdict::Absent)),
        Event::AttemptFinished(attempt("run/exit", "pushless", 1, Verdict::Error)),
        Event::AttemptFinished(attempt("run/exit", "pushless", 2, Verdict::Pass)),
        Event::AttemptFinished(attempt("run/exit", "docker", 1, Verdict::Absent)),
        sample("pushless", 1, 12_300),
        sample("pushless", 2, 14_300),
        sample("docker", 1, 150_000),
        Event::MissedRound(MissedRound {
            bench: "small".into(),
            case: "noop".into(),
            builder: "docker".into(),
            round: 2,
            reason: "exit status 1".into(),
        }),
        Event::Comparison(Comparison {
            bench: "small".into(),
            case: "noop".into(),
            phase: phase::BUILD.into(),
            builder: "docker".into(),
            reference: "pushless".into(),
            pairs: 1,
            ratio: 12.195,
            ratio_low: 12.0,
            ratio_high: 12.5,
            minimum_effect: 0.05,
            effect: Effect::Slower,
        }),
        Event::RunFinished(RunFinished {
            ending: Ending::Completed,
            wall_ms: 4000,
            counts: Counts { fail: 1, absent: 2, flaky: 1, ..Counts::default() },
        }),
    ]
}

fn lines(events: &[Event]) -> String {
    events.iter().map(|event| serde_json::to_string(event).expect("serialisable") + "\n").collect()
}

#[test]
fn the_committed_schema_is_the_derived_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCHEMA_FILE);
    let derived = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("SHAKEDOWN_BLESS").is_some() {
        std::fs::write(&path, &derived).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some(line) = (0..).zip(committed.lines().zip(derived.lines())).find(|(_, (a, b))| a != b) {
        let (number, (a, b)) = line;
        panic!(
            "{SCHEMA_FILE}:{}: committed `{a}`, derived `{b}`; after a change on purpose run\n{BLESS}",
            number + 1
        );
    }
    assert!(committed == derived, "{SCHEMA_FILE} has another length than derived; run\n{BLESS}");
}

#[test]
fn a_golden_report_is_valid_by_the_schema_and_an_unknown_key_is_not() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut report = serde_json::to_value(fold(&golden()).unwrap()).unwrap();
    let errors: Vec<_> = validator.iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    report["trials"][0]["extra"] = true.into();
    assert!(!validator.is_valid(&report));
    assert!(serde_json::from_value::<Report>(report).is_err());
}

#[test]
fn events_and_report_survive_a_round_trip() {
    let events = golden();
    let log = read_events(lines(&events).as_bytes()).unwrap();
    assert_eq!(log.events, events);
    assert_eq!(log.torn, None);
    let report = fold(&events).unwrap();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn an_unknown_key_in_an_event_is_refused() {
    for event in golden() {
        let mut value = serde_json::to_value(event).unwrap();
        value["surprise"] = 1.into();
        assert!(serde_json::from_value::<Event>(value.clone()).is_err(), "{value}");
    }
}

#[test]
fn a_file_cut_anywhere_keeps_the_whole_events_before_the_cut_and_is_never_a_run() {
    let events = golden();
    let whole = lines(&events);
    for cut in 0..whole.len() - 1 {
        let head = &whole.as_bytes()[..cut];
        let log = read_events(head).unwrap();
        let ended = head.iter().filter(|byte| **byte == b'\n').count();
        // A line that lacks nothing but its newline is whole.
        assert!(
            log.events.len() == ended || (log.events.len() == ended + 1 && log.torn.is_none()),
            "cut at {cut}"
        );
        assert_eq!(log.events, events[..log.events.len()]);
        if cut > 0 {
            assert_eq!(log.torn.is_none(), head.ends_with(b"\n") || log.events.len() > ended, "cut at {cut}");
        }
        assert!(fold(&log.events).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_wrong_line_in_the_middle_is_named() {
    let text = lines(&golden()).replacen("trial_started", "trial_begun", 1);
    let error = read_events(text.as_bytes()).unwrap_err();
    assert!(matches!(error, ReadError::Malformed { line: 2, .. }), "{error}");
}

#[test]
fn fold_refuses_what_is_not_one_whole_run() {
    type Damage = fn(&mut Vec<Event>);
    let table: [(Damage, &str); 10] = [
        (|e| e.clear(), "fold the events: the first one is not the header"),
        (|e| drop(e.remove(0)), "fold the events: the first one is not the header"),
        (|e| drop(e.pop()), "fold the events: there is no footer after 12 events; the run did not end"),
        (
            |e| e.insert(3, e[0].clone()),
            "fold the events: event 3 is a second header or comes after the footer",
        ),
        (
            |e| e.insert(4, e[12].clone()),
            "fold the events: event 4 is a second header or comes after the footer",
        ),
        (|e| drop(e.remove(3)), "fold the events: 1 of 4 planned trials have no verdict: copy/mode × docker"),
        (
            |e| e.insert(3, e[2].clone()),
            "fold the events: copy/mode × pushless reports attempt 1 after 1 attempts",
        ),
        (
            |e| e.insert(2, Event::AttemptFinished(attempt("new", "docker", 1, Verdict::Pass))),
            "fold the events: new × docker is reported and was not planned",
        ),
        (
            |e| {
                if let Event::RunStarted(header) = &mut e[0] {
                    header.planned.push(header.planned[0].clone());
                }
            },
            "fold the events: copy/mode × pushless is planned twice",
        ),
        (
            |e| {
                if let Event::RunFinished(footer) = &mut e[12] {
                    footer.counts.pass += 1;
                }
            },
            "fold the events: the footer's counts are not those of the verdicts",
        ),
    ];
    for (damage, message) in table {
        let mut events = golden();
        damage(&mut events);
        assert_eq!(fold(&events).unwrap_err().to_string(), message);
    }
    let mut events = golden();
    if let Event::RunStarted(header) = &mut events[0] {
        header.schema_version = 2;
    }
    assert_eq!(fold(&events), Err(FoldError::Version { found: 2 }));
}

#[test]
fn a_pass_after_anything_else_is_flaky() {
    let report = fold(&golden()).unwrap();
    assert_eq!(report.trials[2].verdict, Verdict::Flaky);
    assert_eq!(report.trials[2].attempts.len(), 2);
}

/// A run of one `must` and one `should` trial of one builder, with the given verdicts.
fn report_of(must: Verdict, should: Verdict, ending: Ending) -> Report {
    let mut report = fold(&golden()).expect("a whole run");
    report.trials.retain(|trial| trial.builder == "pushless");
    report.trials[0].verdict = must;
    report.trials[1].verdict = should;
    report.counts = Counts::of([must, should]);
    report.ending = ending;
    report
}

#[test]
fn every_outcome_has_its_documented_exit_code() {
    use Verdict::{Absent, Error, Fail, Flaky, NotRun, Pass, Timeout, Unsupported, Xfail, Xpass};
    let table = [
        (Pass, Pass, Ending::Completed, 0),
        (Xfail, Unsupported, Ending::Completed, 0),
        (Pass, Absent, Ending::Completed, 0),
        (Pass, Fail, Ending::Completed, 0), // a failure of a `should` scenario is shown, not gated
        (Fail, Pass, Ending::Completed, 1),
        (Xpass, Pass, Ending::Completed, 1),
        (Timeout, Pass, Ending::Completed, 1),
        (Flaky, Pass, Ending::Completed, 1),
        (Fail, Error, Ending::Completed, 1),
        (Absent, Absent, Ending::Completed, 4),
        (Unsupported, Absent, Ending::Completed, 4),
        (Error, Pass, Ending::Completed, 70),
        (Pass, Error, Ending::Completed, 70),
        (Pass, NotRun, Ending::Completed, 106),
        (Fail, NotRun, Ending::Completed, 106),
        (Pass, NotRun, Ending::Interrupted, 130),
        (Fail, NotRun, Ending::Terminated, 143),
    ];
    for (must, should, ending, code) in table {
        let outcome = Outcome::of(&report_of(must, should, ending), &[]);
        assert_eq!(outcome.exit_code(), code, "{must} {should} {ending:?}");
    }
    let slower = report_of(Pass, Pass, Ending::Completed);
    assert_eq!(Outcome::of(&slower, &["docker".into()]).exit_code(), 3);
    assert_eq!(Outcome::of(&slower, &["pushless".into()]).exit_code(), 0);
    assert_eq!(Outcome::Usage.exit_code(), 2);
    let mut nothing = slower;
    nothing.trials.clear();
    assert_eq!(Outcome::of(&nothing, &[]), Outcome::NothingRan);
}

#[test]
fn the_terminal_shows_matrix_findings_and_latency() {
    let report = fold(&golden()).unwrap();
    insta::assert_snapshot!(text::matrix(&report), @r"
    scenario           pushless  docker
    copy/mode          FAIL      absent
    run/exit (should)  FLAKY     absent

    = absent           0         2
    = flaky            1         0
    = fail             1         0

    absent       the builder is not installed here; not executed
    FLAKY        failed first, passed when tried again
    FAIL         something that must hold does not
    ");
    insta::assert_snapshot!(text::findings(&report), @r"
    docker is absent: no program docker in PATH
        help: apt install docker.io
    copy/mode · pushless: FAIL (assertion): 1 of 9 assertions does not hold
        file.mode /app (build 1)
            expected  04755
            found     0755
        log: logs/copy-mode/pushless/build-1.log
    run/exit · pushless: FLAKY
    ");
    insta::assert_snapshot!(text::latency(&report), @r"
    benchmark  case  phase  builder   n  median      min..max          ratio [95 %]
    small      noop  build  pushless  2    13.3    12.3..14.3
                            docker    1   150.0  150.0..150.0  12.20 [12.00..12.50]  slower
                     total  pushless  2    26.6    24.6..28.6
                            docker    1   300.0  300.0..300.0
    times in milliseconds
    ratio: time divided by that of pushless in the same round, median of the pairs with a bootstrap interval; below 5 % nothing is concluded
    1 rounds gave no sample:
        small noop docker round 2: exit status 1
    ");
}
