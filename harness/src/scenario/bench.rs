// SPDX-License-Identifier: Apache-2.0
//! What of a scenario is measured.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Mutation, PodRun};
use crate::document::Located;

/// The measurements of one scenario. Its steps are carried out first: only a builder that is right is timed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// What is measured, each apart.
    pub cases: Vec<BenchCase>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchCase {
    /// A word that is unique in its scenario, for the report.
    pub id: Located<String>,
    /// What happens before the clock starts.
    pub kind: BenchKind,
    /// A pod that belongs to the measured time, as a phase of its own, after build and deliver. `{nonce}` in its
    /// expectation is that of the round, so that a pod of an older image is noticed.
    #[serde(default)]
    pub pod: Option<PodRun>,
}

/// The state from which a measured build starts.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BenchKind {
    /// Nothing cached: the builder has been pruned and has the base image.
    Cold,
    /// The same build has just succeeded.
    Noop,
    /// The same build has just succeeded, then this was changed. At least one change holds `{nonce}`, or the second
    /// round would find the first one's result.
    Edit(Vec<Mutation>),
}
