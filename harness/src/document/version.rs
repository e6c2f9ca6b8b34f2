// SPDX-License-Identifier: Apache-2.0
//! The version that every document states.

use schemars::JsonSchema;
use serde::Deserialize;

/// Versions of the document formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The only one so far.
    #[serde(rename = "shakedown/v1")]
    V1,
}
