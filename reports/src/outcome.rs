// SPDX-License-Identifier: Apache-2.0
//! What a whole run comes to, and the one place that turns it into an exit code.

use crate::{Effect, Ending, Level, Report, Verdict};

/// What a run comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every required scenario holds.
    Holds,
    /// A required scenario does not hold, or a claim or an expectation is broken.
    Red,
    /// The command line, a scenario or an adapter is wrong; nothing was started.
    Usage,
    /// Everything holds, but a gated comparison says "slower".
    LatencyRegression,
    /// The selection is empty, or no selected builder is there.
    NothingRan,
    /// The harness or its environment failed.
    HarnessFailed,
    /// Something planned has no verdict.
    Incomplete,
    /// Ended by Ctrl-C.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Outcome {
    /// The outcome of a whole report. What is known for certain about a builder (red) outweighs what broke around it.
    ///
    /// A comparison counts only for the builders in `latency_gate`.
    pub fn of(report: &Report, latency_gate: &[String]) -> Self {
        match report.ending {
            Ending::Interrupted => return Self::Interrupted,
            Ending::Terminated => return Self::Terminated,
            Ending::Completed => {}
        }
        if report.counts.not_run > 0 {
            return Self::Incomplete;
        }
        let required = || report.trials.iter().filter(|trial| trial.level == Level::Must);
        if required().any(|trial| is_red(trial.verdict)) {
            return Self::Red;
        }
        if report.counts.error > 0 {
            return Self::HarnessFailed;
        }
        if !report.trials.iter().any(|trial| trial.verdict.is_judged()) {
            return Self::NothingRan;
        }
        let slower = |builder: &String| {
            report.comparisons.iter().any(|row| row.effect == Effect::Slower && row.builder == *builder)
        };
        if latency_gate.iter().any(slower) {
            return Self::LatencyRegression;
        }
        Self::Holds
    }

    /// The documented exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::Red => 1,
            Self::Usage => 2,
            Self::LatencyRegression => 3,
            Self::NothingRan => 4,
            Self::HarnessFailed => 70,
            Self::Incomplete => 106,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// A verdict that somebody has to act on. A flaky trial is one: a second attempt does not undo the first.
fn is_red(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Fail | Verdict::Timeout | Verdict::Xpass | Verdict::Flaky => true,
        Verdict::Pass
        | Verdict::Xfail
        | Verdict::Unsupported
        | Verdict::Absent
        | Verdict::NotRun
        | Verdict::Error => false,
    }
}
