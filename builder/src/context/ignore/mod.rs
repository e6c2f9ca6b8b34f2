// SPDX-License-Identifier: Apache-2.0
//! Ignore files: reading them, and deciding what they hide.
//!
//! Moby's rules, not git's (moby/patternmatcher 5a6d842, tonistiigi/fsutil 6d9dc2e, BuildKit 73ed6825).

mod file;
mod matcher;

pub use file::{IgnoreFile, IgnoreProblem};
pub use matcher::{IgnoreMatcher, IgnoreRule, IgnoreTrail, IgnoreVerdict};
