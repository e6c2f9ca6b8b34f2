// SPDX-License-Identifier: Apache-2.0
//! The stream: one JSON object per line, in the order in which things happened, written as they happen.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Class, Comparison, Counts, Ending, Finding, MissedRound, PhaseTime, RunStarted, Sample, Verdict,
};

/// One line of `events.jsonl`: `{"event":"trial_started","scenario":"copy/mode",…}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The header; always the first line.
    RunStarted(RunStarted),
    /// An attempt at a trial begins.
    TrialStarted(TrialStarted),
    /// An attempt at a trial has its verdict.
    AttemptFinished(AttemptFinished),
    /// A measured round of a benchmark.
    Sample(Sample),
    /// A round that gave no sample.
    MissedRound(MissedRound),
    /// A conclusion from samples.
    Comparison(Comparison),
    /// The footer; always the last line. Without it the run is incomplete.
    RunFinished(RunFinished),
}

/// An attempt at a trial begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrialStarted {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the builder.
    pub builder: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Time since the start of the run.
    pub at_ms: u64,
}

/// An attempt at a trial has its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptFinished {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the builder.
    pub builder: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The judgement.
    pub verdict: Verdict,
    /// The kind of misbehaviour, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// One sentence: why the verdict is not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Everything that does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Phases of the attempt in order; a phase of a later step appears again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseTime>,
    /// Counters such as `run_executions` or `layers`; the unit is part of the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, u64>,
    /// Log files, relative to the report's directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
    /// Duration of the whole attempt.
    pub wall_ms: u64,
}

/// The footer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunFinished {
    /// How the run came to its end.
    pub ending: Ending,
    /// Duration of the run.
    pub wall_ms: u64,
    /// The final verdicts counted by the writer; the reader counts again and compares.
    pub counts: Counts,
}
