// SPDX-License-Identifier: Apache-2.0
//! Counts calls by their full gRPC method name, so that a test can hold a build to a budget.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Whether a call can change something in containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Answers from memory or the database; no sync to disk.
    Read,
    /// May change the database or the disk.
    Write,
}

/// Methods that only read. Whatever is not named here counts as a write: a method that is forgotten makes a budget
/// test fail instead of passing unnoticed.
const READS: [&str; 15] = [
    "containerd.services.content.v1.Content/Info",
    "containerd.services.content.v1.Content/List",
    "containerd.services.content.v1.Content/ListStatuses",
    "containerd.services.content.v1.Content/Read",
    "containerd.services.images.v1.Images/Get",
    "containerd.services.images.v1.Images/List",
    "containerd.services.introspection.v1.Introspection/Plugins",
    "containerd.services.leases.v1.Leases/List",
    "containerd.services.snapshots.v1.Snapshots/List",
    "containerd.services.snapshots.v1.Snapshots/Mounts",
    "containerd.services.snapshots.v1.Snapshots/Stat",
    "containerd.services.snapshots.v1.Snapshots/Usage",
    "runtime.v1.ImageService/ImageFsInfo",
    "runtime.v1.ImageService/ImageStatus",
    "runtime.v1.RuntimeService/Version",
];

/// The counter that all clients of one connection share.
#[derive(Debug, Clone, Default)]
pub struct RpcCounts(Arc<Mutex<BTreeMap<String, u64>>>);

/// The counts at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RpcSnapshot {
    /// Calls by full method name (`package.Service/Method`).
    pub calls: BTreeMap<String, u64>,
}

impl RpcCounts {
    /// Adds one call of `method`.
    pub(super) fn record(&self, method: &str) {
        // A panic elsewhere cannot leave a counter half-changed.
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get_mut(method) {
            Some(count) => *count += 1,
            None => {
                calls.insert(method.to_owned(), 1);
            }
        }
    }

    /// The calls so far.
    pub fn snapshot(&self) -> RpcSnapshot {
        RpcSnapshot { calls: self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

impl RpcSnapshot {
    /// What a method does.
    pub fn access(method: &str) -> Access {
        if READS.contains(&method) { Access::Read } else { Access::Write }
    }

    /// How often `method` was called.
    pub fn count(&self, method: &str) -> u64 {
        self.calls.get(method).copied().unwrap_or(0)
    }

    /// Calls that only read.
    pub fn reads(&self) -> u64 {
        self.sum(Access::Read)
    }

    /// Calls that may write.
    pub fn writes(&self) -> u64 {
        self.sum(Access::Write)
    }

    /// The calls that came after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let calls = self
            .calls
            .iter()
            .map(|(method, count)| (method.clone(), count - earlier.count(method)))
            .filter(|(_, count)| *count > 0)
            .collect();
        Self { calls }
    }

    fn sum(&self, access: Access) -> u64 {
        self.calls.iter().filter(|(method, _)| Self::access(method) == access).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for RpcSnapshot {
    /// One line per method, writes marked, for the message of a test whose budget is exceeded.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} reads, {} writes", self.reads(), self.writes())?;
        for (method, count) in &self.calls {
            let mark = if Self::access(method) == Access::Write { " (write)" } else { "" };
            writeln!(out, "{count:5} {method}{mark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_are_told_apart_and_the_unknown_is_a_write() {
        let counts = RpcCounts::default();
        let stat = "containerd.services.snapshots.v1.Snapshots/Stat";
        counts.record(stat);
        counts.record(stat);
        let before = counts.snapshot();
        counts.record(stat);
        counts.record("containerd.services.snapshots.v1.Snapshots/View");
        counts.record("some.Service/New");
        let now = counts.snapshot();
        assert_eq!((now.reads(), now.writes()), (3, 2));
        let later = now.since(&before);
        assert_eq!((later.count(stat), later.reads(), later.writes()), (1, 1, 2));
        assert!(now.to_string().contains("1 some.Service/New (write)"), "{now}");
    }
}
