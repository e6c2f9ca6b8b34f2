// SPDX-License-Identifier: Apache-2.0
//! Figures of one run for tests and benchmarks: which calls were made, written where `PUSHLESS_STATS` says.
//!
//! They count what a clock can only guess at: an unchanged rebuild makes no writing call at all.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::command::CommandError;
use crate::store::RpcCounts;

/// The file's contents.
#[derive(Debug, Serialize)]
struct Stats {
    version: u32,
    /// Calls by full method name.
    calls: BTreeMap<String, u64>,
    reads: u64,
    writes: u64,
}

/// Writes the figures if they are asked for.
pub(super) fn write(counts: &RpcCounts) -> Result<(), CommandError> {
    let Some(path) = std::env::var_os("PUSHLESS_STATS").map(PathBuf::from) else { return Ok(()) };
    let snapshot = counts.snapshot();
    let (reads, writes) = (snapshot.reads(), snapshot.writes());
    let stats = Stats { version: 1, calls: snapshot.calls, reads, writes };
    serde_json::to_vec_pretty(&stats)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(&path, text))
        .map_err(|source| CommandError::Stats { path, source })
}
