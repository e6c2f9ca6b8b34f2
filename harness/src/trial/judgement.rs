// SPDX-License-Identifier: Apache-2.0
//! From what was seen in an attempt to its verdict. Pure.

use std::collections::BTreeMap;
use std::error::Error;

use shakedown_report::{AttemptFinished, Class, Finding, PhaseTime, Verdict};

use crate::check;

/// Why an attempt did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interruption {
    /// The builder is not installed.
    Absent(String),
    /// The adapter does not claim what the scenario needs.
    Unsupported(String),
    /// A command of the builder reached its limit; `hang` when it did not react to SIGTERM either.
    Timeout {
        /// Which command.
        reason: String,
        /// Whether SIGKILL was needed.
        hang: bool,
    },
    /// The run was cancelled.
    Cancelled,
    /// The harness or its environment broke.
    Harness(String),
}

impl Interruption {
    /// An error of the harness with all its causes.
    pub fn harness(error: &dyn Error) -> Self {
        Self::Harness(chain(error))
    }
}

/// What was seen in an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Everything that does not hold.
    pub findings: Vec<Finding>,
    /// A builder's command was ended by a signal that the harness did not send.
    pub crashed: bool,
    /// Phases in order.
    pub phases: Vec<PhaseTime>,
    /// Counters.
    pub metrics: BTreeMap<String, u64>,
    /// Log files, relative to the report's folder.
    pub logs: Vec<String>,
}

/// The trial that an attempt belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Name of the scenario.
    pub scenario: &'a str,
    /// Name of the builder.
    pub builder: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

/// Judges an attempt. What was found before an interruption stays in the report.
pub fn judge(
    identity: Identity<'_>,
    seen: Seen,
    end: Result<(), Interruption>,
    wall_ms: u64,
) -> AttemptFinished {
    let (verdict, class, reason) = match end {
        Ok(()) => judge_findings(&seen),
        Err(Interruption::Absent(reason)) => (Verdict::Absent, None, Some(reason)),
        Err(Interruption::Unsupported(reason)) => (Verdict::Unsupported, None, Some(reason)),
        Err(Interruption::Timeout { reason, hang }) => {
            (Verdict::Timeout, hang.then_some(Class::Hang), Some(reason))
        }
        Err(Interruption::Cancelled) => (Verdict::NotRun, None, Some("the run was cancelled".to_owned())),
        Err(Interruption::Harness(reason)) => (Verdict::Error, None, Some(reason)),
    };
    AttemptFinished {
        scenario: identity.scenario.to_owned(),
        builder: identity.builder.to_owned(),
        attempt: identity.attempt,
        verdict,
        class,
        reason,
        findings: seen.findings,
        phases: seen.phases,
        metrics: seen.metrics,
        logs: seen.logs,
        wall_ms,
    }
}

/// The worst class gives the name: a crash explains what else is wrong, residue alone is told from wrong images.
fn judge_findings(seen: &Seen) -> (Verdict, Option<Class>, Option<String>) {
    let Some(first) = seen.findings.first() else { return (Verdict::Pass, None, None) };
    let class = if seen.crashed {
        Class::Crash
    } else if seen.findings.iter().all(|finding| finding.assertion.starts_with(RESIDUE)) {
        Class::Residue
    } else {
        Class::Assertion
    };
    let place = first.path.as_ref().map(|path| format!(" {path}")).unwrap_or_default();
    let more = match seen.findings.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let (expected, found) = (first_line(&first.expected), first_line(&first.found));
    let reason = format!("{}{place}: expected {expected}, found {found}{more}", first.assertion);
    (Verdict::Fail, Some(class), Some(reason))
}

/// How assertions about what was left behind start.
pub(super) const RESIDUE: &str = "residue.";

/// The report's form of what a check found.
pub(super) fn finding(found: check::Finding, build: Option<u32>) -> Finding {
    Finding {
        assertion: found.assertion.as_str().to_owned(),
        path: found.path,
        build,
        expected: found.expected,
        found: found.found,
    }
}

/// An error and its causes, from the outermost to the innermost.
pub fn chain(error: &dyn Error) -> String {
    let shown = |error: &dyn Error| error.to_string().trim_end().to_owned();
    let mut text = shown(error);
    let mut next = error.source();
    while let Some(cause) = next {
        // A transparent error shows its cause's text as its own.
        let cause_text = shown(cause);
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity<'_> = Identity { scenario: "a/b", builder: "c", attempt: 1 };

    fn found(assertion: &str) -> Finding {
        Finding {
            assertion: assertion.to_owned(),
            path: Some("/p".to_owned()),
            build: None,
            expected: "x".to_owned(),
            found: "y\nz".to_owned(),
        }
    }

    fn verdict(
        findings: &[&str],
        crashed: bool,
        end: Result<(), Interruption>,
    ) -> (Verdict, Option<Class>, String) {
        let findings = findings.iter().map(|assertion| found(assertion)).collect();
        let attempt = judge(IDENTITY, Seen { findings, crashed, ..Seen::default() }, end, 1);
        (attempt.verdict, attempt.class, attempt.reason.unwrap_or_default())
    }

    #[test]
    fn findings_alone_make_a_failure() {
        assert_eq!(verdict(&[], false, Ok(())), (Verdict::Pass, None, String::new()));
        let one = "file.mode /p: expected x, found y".to_owned();
        assert_eq!(verdict(&["file.mode"], false, Ok(())), (Verdict::Fail, Some(Class::Assertion), one));
        let two = "residue.mount /p: expected x, found y, and 1 more".to_owned();
        let residue = ["residue.mount", "residue.lease"];
        assert_eq!(verdict(&residue, false, Ok(())), (Verdict::Fail, Some(Class::Residue), two));
        let mixed = verdict(&["residue.mount", "file.mode"], false, Ok(()));
        assert_eq!(mixed.1, Some(Class::Assertion));
        assert_eq!(verdict(&["build.outcome"], true, Ok(())).1, Some(Class::Crash));
    }

    #[test]
    fn trouble_of_the_harness_is_an_error_whatever_was_found_before() {
        let end = || Err(Interruption::Harness("containerd is gone".to_owned()));
        assert_eq!(verdict(&[], false, end()), (Verdict::Error, None, "containerd is gone".to_owned()));
        assert_eq!(verdict(&["file.mode"], true, end()).0, Verdict::Error);
    }

    #[test]
    fn every_interruption_has_its_verdict() {
        let word = || "why".to_owned();
        for (end, expected, class) in [
            (Interruption::Absent(word()), Verdict::Absent, None),
            (Interruption::Unsupported(word()), Verdict::Unsupported, None),
            (Interruption::Timeout { reason: word(), hang: false }, Verdict::Timeout, None),
            (Interruption::Timeout { reason: word(), hang: true }, Verdict::Timeout, Some(Class::Hang)),
            (Interruption::Cancelled, Verdict::NotRun, None),
        ] {
            let found = verdict(&[], false, Err(end));
            assert_eq!((found.0, found.1), (expected, class));
        }
    }
}
