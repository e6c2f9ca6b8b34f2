// SPDX-License-Identifier: Apache-2.0
//! What can be said about a trial: the verdict, its class, the findings behind it, and how often each was given.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The judgement on one trial. The order is that of the legend: good news first, then what was not judged, then what
/// somebody has to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that the scenario asks for holds.
    Pass,
    /// Failed in the way that an expectation with a reason had declared.
    Xfail,
    /// The scenario needs a capability that the adapter does not declare; nothing was executed.
    Unsupported,
    /// The builder is not installed on this machine; nothing was executed.
    Absent,
    /// The run ended before this trial's turn.
    NotRun,
    /// Failed first and passed when it was tried again.
    Flaky,
    /// Passed although a failure had been declared: the declaration is out of date.
    Xpass,
    /// Something that must hold does not.
    Fail,
    /// The builder did not end within its limit.
    Timeout,
    /// The harness or its environment broke; nothing is said about the builder.
    Error,
}

impl Verdict {
    /// Every verdict in the order of the legend.
    pub const ALL: [Self; 10] = [
        Self::Pass,
        Self::Xfail,
        Self::Unsupported,
        Self::Absent,
        Self::NotRun,
        Self::Flaky,
        Self::Xpass,
        Self::Fail,
        Self::Timeout,
        Self::Error,
    ];

    /// The name, as it stands in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Xfail => "xfail",
            Self::Unsupported => "unsupported",
            Self::Absent => "absent",
            Self::NotRun => "not-run",
            Self::Flaky => "flaky",
            Self::Xpass => "xpass",
            Self::Fail => "fail",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }

    /// Whether the builder was executed and judged.
    pub fn is_judged(self) -> bool {
        !matches!(self, Self::Unsupported | Self::Absent | Self::NotRun)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What kind of misbehaviour a verdict other than pass rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// An assertion of the scenario does not hold.
    Assertion,
    /// The adapter declares a capability that the builder refused.
    Claim,
    /// The builder was ended by a signal that the harness did not send.
    Crash,
    /// The builder did not react to the request to end and had to be killed.
    Hang,
    /// A secret was found where it must not be.
    Leak,
    /// Something was left behind: a mount, an active snapshot, a lease, a cgroup, a process.
    Residue,
    /// Two builders that must agree do not.
    OracleSplit,
}

impl Class {
    /// The name, as it stands in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Assertion => "assertion",
            Self::Claim => "claim",
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Leak => "leak",
            Self::Residue => "residue",
            Self::OracleSplit => "oracle-split",
        }
    }
}

/// One thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The kind of assertion, stable over versions: `image.config`, `file.mode`, `residue.mount`.
    pub assertion: String,
    /// What it is about: a path in the image, a JSON pointer into its config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Which build of the scenario, from 1; absent when it concerns all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<u32>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// How many trials got each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "one field per verdict, each with the verdict's name and meaning")]
pub struct Counts {
    pub pass: u64,
    pub xfail: u64,
    pub unsupported: u64,
    pub absent: u64,
    pub not_run: u64,
    pub flaky: u64,
    pub xpass: u64,
    pub fail: u64,
    pub timeout: u64,
    pub error: u64,
}

impl Counts {
    /// Counts the verdicts.
    pub fn of(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let mut counts = Self::default();
        for verdict in verdicts {
            *counts.slot(verdict) += 1;
        }
        counts
    }

    /// The number of trials with this verdict.
    pub fn get(mut self, verdict: Verdict) -> u64 {
        *self.slot(verdict)
    }

    /// The number of all trials.
    pub fn total(self) -> u64 {
        Verdict::ALL.into_iter().map(|verdict| self.get(verdict)).sum()
    }

    fn slot(&mut self, verdict: Verdict) -> &mut u64 {
        match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Xfail => &mut self.xfail,
            Verdict::Unsupported => &mut self.unsupported,
            Verdict::Absent => &mut self.absent,
            Verdict::NotRun => &mut self.not_run,
            Verdict::Flaky => &mut self.flaky,
            Verdict::Xpass => &mut self.xpass,
            Verdict::Fail => &mut self.fail,
            Verdict::Timeout => &mut self.timeout,
            Verdict::Error => &mut self.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_serialised_form() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.name());
        }
        for class in [
            Class::Assertion,
            Class::Claim,
            Class::Crash,
            Class::Hang,
            Class::Leak,
            Class::Residue,
            Class::OracleSplit,
        ] {
            assert_eq!(serde_json::to_value(class).unwrap(), class.name());
        }
    }

    #[test]
    fn counts_keep_every_verdict_apart() {
        let counts = Counts::of(Verdict::ALL.into_iter().chain([Verdict::Fail]));
        assert_eq!(counts.total(), 11);
        for verdict in Verdict::ALL {
            assert_eq!(counts.get(verdict), if verdict == Verdict::Fail { 2 } else { 1 }, "{verdict}");
        }
    }
}
