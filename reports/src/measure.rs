// SPDX-License-Identifier: Apache-2.0
//! Durations as they were taken, and what was concluded from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The names of the phases, in the order in which they happen. Other names are allowed and come after these.
pub mod phase {
    /// The builder's own command, from its start to its end.
    pub const BUILD: &str = "build";
    /// Bringing the image to where pods look for it: the push, or save and import. Zero work for some builders.
    pub const DELIVER: &str = "deliver";
    /// Until CRI's ImageStatus answers with the id that was built.
    pub const VISIBLE: &str = "visible";
    /// RunPodSandbox.
    pub const SANDBOX: &str = "sandbox";
    /// CreateContainer.
    pub const CREATE: &str = "create";
    /// StartContainer.
    pub const START: &str = "start";
    /// From StartContainer's answer until the container is seen running (or has already exited).
    pub const RUNNING: &str = "running";
    /// The whole way from the edit of a file to the running pod, measured as one interval.
    pub const TOTAL: &str = "total";

    /// All of them in order.
    pub const ORDER: [&str; 8] = [BUILD, DELIVER, VISIBLE, SANDBOX, CREATE, START, RUNNING, TOTAL];

    /// The place of a phase in a table.
    pub fn rank(name: &str) -> usize {
        ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len())
    }
}

/// How long one phase took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhaseTime {
    /// One of [`phase`], or a name of the adapter's own.
    pub phase: String,
    /// Duration by a monotonic clock around the call, in microseconds.
    pub wall_us: u64,
}

/// One measured build of one builder. Warm-up rounds are not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Name of the benchmark.
    pub bench: String,
    /// What was rebuilt: the id of the case, such as `cold`, `noop` or `edit`.
    pub case: String,
    /// Name of the builder.
    pub builder: String,
    /// Number of the round; samples of one round belong together in a pair.
    pub round: u32,
    /// Place of this builder in the round's random order, from 0.
    pub position: u32,
    /// The phases, raw.
    pub phases: Vec<PhaseTime>,
}

/// A round that gave no sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MissedRound {
    /// Name of the benchmark.
    pub bench: String,
    /// What was to be rebuilt: the id of the case.
    pub case: String,
    /// Name of the builder.
    pub builder: String,
    /// Number of the round.
    pub round: u32,
    /// Why there is no sample.
    pub reason: String,
}

/// What a comparison allows to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The whole interval lies below 1 by more than the minimum effect.
    Faster,
    /// The whole interval lies above 1 by more than the minimum effect.
    Slower,
    /// Neither can be said.
    Inconclusive,
}

/// A builder measured against the first builder of the run, by pairs from the same rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Name of the benchmark.
    pub bench: String,
    /// What was rebuilt: the id of the case, such as `cold`, `noop` or `edit`.
    pub case: String,
    /// The compared phase.
    pub phase: String,
    /// The builder in question.
    pub builder: String,
    /// The builder it is compared with.
    pub reference: String,
    /// Rounds in which both gave a sample.
    pub pairs: u32,
    /// Time of `builder` divided by that of `reference`: exponential of the median of the paired log-ratios.
    pub ratio: f64,
    /// Lower end of the 95 % bootstrap interval of `ratio`.
    pub ratio_low: f64,
    /// Upper end of the 95 % bootstrap interval of `ratio`.
    pub ratio_high: f64,
    /// The smallest relative difference that counts as one.
    pub minimum_effect: f64,
    /// The conclusion.
    pub effect: Effect,
}
