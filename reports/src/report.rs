// SPDX-License-Identifier: Apache-2.0
//! The report: what remains of the stream when the order of happening no longer matters.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Builder, Class, Comparison, Counts, Ending, Finding, Host, Level, MissedRound, PhaseTime, Sample, Verdict,
};

/// `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Version of this format; see [`crate::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The name of the run.
    pub run: String,
    /// Wall-clock time of the start, RFC 3339 in UTC.
    pub started_at: String,
    /// Version of the harness.
    pub shakedown_version: String,
    /// Command line of the harness.
    pub argv: Vec<String>,
    /// Seed of every random choice of the run.
    pub seed: u64,
    /// sha256 (hex) over the selected scenarios and adapters.
    pub suite_sha256: String,
    /// The machine.
    pub host: Host,
    /// The builders, in the order of the columns.
    pub builders: Vec<Builder>,
    /// The trials, in the order of the plan.
    pub trials: Vec<TrialReport>,
    /// Every measured round, raw.
    pub samples: Vec<Sample>,
    /// Rounds that gave no sample.
    pub missed_rounds: Vec<MissedRound>,
    /// Conclusions from the samples.
    pub comparisons: Vec<Comparison>,
    /// The verdicts counted.
    pub counts: Counts,
    /// How the run came to its end.
    pub ending: Ending,
    /// Duration of the run.
    pub wall_ms: u64,
}

/// One cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrialReport {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the builder.
    pub builder: String,
    /// How binding the scenario is.
    pub level: Level,
    /// The verdict over all attempts.
    pub verdict: Verdict,
    /// Every attempt in order, at least one.
    pub attempts: Vec<Attempt>,
}

impl TrialReport {
    /// The attempt that decided: the last one.
    pub fn deciding(&self) -> Option<&Attempt> {
        self.attempts.last()
    }
}

/// One attempt at a trial; the fields are those of [`crate::AttemptFinished`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
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
    /// Phases in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseTime>,
    /// Counters; the unit is part of the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, u64>,
    /// Log files, relative to the report's directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
    /// Duration of the attempt.
    pub wall_ms: u64,
}

/// The JSON Schema of [`Report`], as it is committed in `reports/schema/report.v1.schema.json`.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Report).to_value()
}
