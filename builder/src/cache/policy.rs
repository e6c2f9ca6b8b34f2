// SPDX-License-Identifier: Apache-2.0
//! What is kept and what is let go: a pure decision over what containerd holds and what builds led to.
//!
//! Letting go means to unpin: the snapshot stays as long as an image or another snapshot needs it, and containerd's
//! garbage collection takes it afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::BuildResult;
use crate::image::ChainId;

/// Bounds on what the cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Results kept of each image name.
    pub results_per_name: usize,
    /// Sum of the sizes of all pinned layers.
    pub max_bytes: u64,
    /// How full the file system of containerd's snapshots may be before results are given up for it.
    ///
    /// The kubelet starts to remove images at 85 % (its default `imageGCHighThresholdPercent`); staying well below
    /// keeps the cache from costing anybody a running system's images.
    pub max_fs_percent: u8,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { results_per_name: 10, max_bytes: 10 << 30, max_fs_percent: 75 }
    }
}

impl CacheLimits {
    /// Limits under which nothing is kept at all.
    pub const fn nothing() -> Self {
        Self { results_per_name: 0, max_bytes: 0, max_fs_percent: 0 }
    }
}

/// A committed snapshot that carries our labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedSnapshot {
    /// Its name.
    pub chain: ChainId,
    /// The snapshot below it.
    pub parent: Option<ChainId>,
    /// The size of its layer; 0 for a base image's.
    pub size_bytes: u64,
    /// Whether it holds a pin now.
    pub pinned: bool,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: u64,
}

/// How full the file system is that holds the snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystemUse {
    /// Its size.
    pub total_bytes: u64,
    /// What is in use, by whomever.
    pub used_bytes: u64,
}

impl FileSystemUse {
    /// Whether more than `percent` is in use once `freed_bytes` are given back.
    pub fn over(&self, percent: u8, freed_bytes: u64) -> bool {
        let used = u128::from(self.used_bytes.saturating_sub(freed_bytes));
        used * 100 > u128::from(self.total_bytes) * u128::from(percent)
    }
}

/// Why a result stays although a limit is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Keep the newest result whatever the limits say: it is the build that has just ended.
    pub newest: bool,
}

/// What to let go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrunePlan {
    /// Results to forget, oldest first.
    pub forget: Vec<BuildResult>,
    /// Snapshots to unpin, children before their parents.
    pub unpin: Vec<ChainId>,
    /// What those hold, as far as nothing else needs it.
    pub frees_bytes: u64,
    /// Whether a limit in bytes or of the file system is behind it, so that waiting for containerd's next collection
    /// is not enough.
    pub urgent: bool,
}

/// Decides what goes. `results` are in the order of recording, the newest last.
///
/// A pinned snapshot that no result leads to (its build died, or the record was lost) counts as a result of its own,
/// in a group that is bounded like any name.
pub fn plan_prune(
    snapshots: &[PinnedSnapshot],
    results: &[BuildResult],
    limits: CacheLimits,
    file_system: FileSystemUse,
    kept: Kept,
) -> PrunePlan {
    let by_chain: BTreeMap<ChainId, &PinnedSnapshot> =
        snapshots.iter().map(|snapshot| (snapshot.chain, snapshot)).collect();
    let mut candidates = candidates(&by_chain, results);
    let newest = if kept.newest { results.last() } else { None };
    let is_newest = |candidate: &Candidate| candidate.result.is_some_and(|result| Some(result) == newest);

    let mut per_group: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    let mut forgotten = Vec::new();
    // Newest first, so that the count reaches the limit at the oldest ones.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.recorded_ns));
    candidates.retain(|candidate| {
        let seen = per_group.entry(candidate.group).or_default();
        *seen += 1;
        let keep = *seen <= limits.results_per_name || is_newest(candidate);
        if !keep {
            forgotten.extend(candidate.result);
        }
        keep
    });

    let pinned_bytes: u64 =
        snapshots.iter().filter(|snapshot| snapshot.pinned).map(|snapshot| snapshot.size_bytes).sum();
    let mut urgent = false;
    let mut live = live(&by_chain, &candidates);
    loop {
        let live_bytes = size(&by_chain, &live);
        let freed = pinned_bytes.saturating_sub(live_bytes);
        if live_bytes <= limits.max_bytes && !file_system.over(limits.max_fs_percent, freed) {
            break;
        }
        urgent = true;
        let Some(oldest) = candidates.iter().rposition(|candidate| !is_newest(candidate)) else { break };
        forgotten.extend(candidates.remove(oldest).result);
        live = self::live(&by_chain, &candidates);
    }

    forgotten.sort_by_key(|result| result.recorded_ns);
    let mut gone: Vec<&PinnedSnapshot> =
        snapshots.iter().filter(|snapshot| snapshot.pinned && !live.contains(&snapshot.chain)).collect();
    gone.sort_by_key(|snapshot| std::cmp::Reverse(depth(&by_chain, snapshot.chain)));
    PrunePlan {
        forget: forgotten.into_iter().cloned().collect(),
        frees_bytes: gone.iter().map(|snapshot| snapshot.size_bytes).sum(),
        urgent: urgent && !gone.is_empty(),
        unpin: gone.into_iter().map(|snapshot| snapshot.chain).collect(),
    }
}

/// Something that keeps chains alive.
struct Candidate<'a> {
    /// Counted together: the successes of a name, or its failures, so that many failing tries push no good result out.
    group: (&'a str, bool),
    recorded_ns: u64,
    chains: Vec<ChainId>,
    result: Option<&'a BuildResult>,
}

fn candidates<'a>(
    by_chain: &BTreeMap<ChainId, &PinnedSnapshot>,
    results: &'a [BuildResult],
) -> Vec<Candidate<'a>> {
    let mut candidates: Vec<Candidate<'a>> = results
        .iter()
        .map(|result| Candidate {
            group: (&result.name, result.manifest.is_some()),
            recorded_ns: result.recorded_ns,
            chains: result.chains.clone(),
            result: Some(result),
        })
        .collect();
    let reached = live(by_chain, &candidates);
    let parents: BTreeSet<ChainId> = by_chain.values().filter_map(|snapshot| snapshot.parent).collect();
    let loose_tops = by_chain
        .values()
        .filter(|snapshot| !reached.contains(&snapshot.chain) && !parents.contains(&snapshot.chain))
        .map(|snapshot| Candidate {
            group: ("", false),
            recorded_ns: snapshot.created_ns,
            chains: vec![snapshot.chain],
            result: None,
        });
    candidates.extend(loose_tops);
    candidates
}

/// Every snapshot that a candidate needs, parents included.
fn live(by_chain: &BTreeMap<ChainId, &PinnedSnapshot>, candidates: &[Candidate<'_>]) -> BTreeSet<ChainId> {
    let mut live = BTreeSet::new();
    for chain in candidates.iter().flat_map(|candidate| &candidate.chains) {
        let mut next = Some(*chain);
        while let Some(chain) = next {
            if !live.insert(chain) {
                break;
            }
            next = by_chain.get(&chain).and_then(|snapshot| snapshot.parent);
        }
    }
    live
}

fn size(by_chain: &BTreeMap<ChainId, &PinnedSnapshot>, chains: &BTreeSet<ChainId>) -> u64 {
    chains
        .iter()
        .filter_map(|chain| by_chain.get(chain))
        .filter(|snapshot| snapshot.pinned)
        .map(|snapshot| snapshot.size_bytes)
        .sum()
}

fn depth(by_chain: &BTreeMap<ChainId, &PinnedSnapshot>, chain: ChainId) -> usize {
    std::iter::successors(by_chain.get(&chain), |snapshot| {
        snapshot.parent.and_then(|parent| by_chain.get(&parent))
    })
    .count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::Digest;

    const ROOMY: FileSystemUse = FileSystemUse { total_bytes: 1 << 40, used_bytes: 0 };

    fn chain(number: u32) -> ChainId {
        ChainId(Digest::of(&number.to_le_bytes()))
    }

    fn snapshot(number: u32, parent: Option<u32>, size_bytes: u64) -> PinnedSnapshot {
        PinnedSnapshot {
            chain: chain(number),
            parent: parent.map(chain),
            size_bytes,
            pinned: true,
            created_ns: u64::from(number),
        }
    }

    fn result(name: &str, recorded_ns: u64, chains: &[u32]) -> BuildResult {
        let chains = chains.iter().copied().map(chain).collect();
        let mut result = BuildResult::new(name.to_owned(), None, chains);
        result.recorded_ns = recorded_ns;
        result
    }

    #[test]
    fn the_oldest_results_of_a_name_go_and_shared_parents_stay() {
        let snapshots =
            [snapshot(0, None, 0), snapshot(1, Some(0), 1), snapshot(2, Some(0), 1), snapshot(3, Some(0), 1)];
        let results =
            [result("a", 1, &[1]), result("b", 2, &[1]), result("a", 3, &[2]), result("a", 4, &[3])];
        let limits = CacheLimits { results_per_name: 1, ..CacheLimits::default() };
        let plan = plan_prune(&snapshots, &results, limits, ROOMY, Kept { newest: true });
        assert_eq!(plan.forget, [results[0].clone(), results[2].clone()]);
        assert_eq!(plan.unpin, [chain(2)], "1 is b's, 0 is everybody's parent");
        assert!(!plan.urgent);
    }

    #[test]
    fn failing_tries_push_no_good_result_out() {
        let snapshots: Vec<_> = (1..=4).map(|number| snapshot(number, None, 1)).collect();
        let mut good = result("a", 1, &[1]);
        good.manifest = Some(Digest::of(b"good"));
        let results = [good.clone(), result("a", 2, &[2]), result("a", 3, &[3]), result("a", 4, &[4])];
        let limits = CacheLimits { results_per_name: 1, ..CacheLimits::default() };
        let plan = plan_prune(&snapshots, &results, limits, ROOMY, Kept { newest: true });
        assert!(!plan.forget.contains(&good) && !plan.unpin.contains(&chain(1)));
        assert_eq!(plan.unpin.len(), 2);
    }

    #[test]
    fn a_full_file_system_costs_old_results_but_never_the_newest() {
        let snapshots = [snapshot(1, None, 40), snapshot(2, None, 40), snapshot(3, None, 40)];
        let results = [result("a", 1, &[1]), result("b", 2, &[2]), result("c", 3, &[3])];
        let full = FileSystemUse { total_bytes: 1000, used_bytes: 790 };
        let plan = plan_prune(&snapshots, &results, CacheLimits::default(), full, Kept { newest: true });
        assert_eq!(plan.unpin, [chain(1)]);
        assert_eq!(plan.frees_bytes, 40);
        assert!(plan.urgent);
        let fuller = FileSystemUse { total_bytes: 1000, used_bytes: 990 };
        let plan = plan_prune(&snapshots, &results, CacheLimits::default(), fuller, Kept { newest: true });
        assert_eq!(plan.unpin.len(), 2);
        assert!(!plan.unpin.contains(&chain(3)));
    }

    #[test]
    fn what_no_result_leads_to_is_bounded_too() {
        let snapshots: Vec<_> = (1..=5).map(|number| snapshot(number, None, 1)).collect();
        let limits = CacheLimits { results_per_name: 2, ..CacheLimits::default() };
        let plan = plan_prune(&snapshots, &[], limits, ROOMY, Kept::default());
        assert_eq!(plan.unpin.len(), 3);
        assert!(!plan.unpin.contains(&chain(5)) && !plan.unpin.contains(&chain(4)));
    }

    #[test]
    fn limits_of_nothing_unpin_everything_children_first() {
        let snapshots = [snapshot(0, None, 1), snapshot(1, Some(0), 1), snapshot(2, Some(1), 1)];
        let results = [result("a", 1, &[2])];
        let plan = plan_prune(&snapshots, &results, CacheLimits::nothing(), ROOMY, Kept::default());
        assert_eq!(plan.unpin, [chain(2), chain(1), chain(0)]);
        assert_eq!(plan.forget, results);
    }

    proptest! {
        #[test]
        fn the_newest_result_survives_and_the_limits_hold(
            parents in proptest::collection::vec((any::<Option<u32>>(), 0_u64..100), 1..30),
            builds in proptest::collection::vec((0_u8..3, 0_u32..30), 1..30),
            results_per_name in 0_usize..5,
            max_bytes in 0_u64..500,
        ) {
            let snapshots: Vec<_> = parents
                .iter()
                .zip(0_u32..)
                .map(|((parent, size), number)| {
                    let parent = parent.filter(|_| number > 0).map(|parent| parent % number.max(1));
                    snapshot(number, parent, *size)
                })
                .collect();
            let count = u32::try_from(snapshots.len()).expect("few");
            let results: Vec<_> = builds
                .iter()
                .zip(1_u64..)
                .map(|((name, top), recorded)| result(&format!("name{name}"), recorded, &[top % count]))
                .collect();
            let limits = CacheLimits { results_per_name, max_bytes, max_fs_percent: 100 };
            let plan = plan_prune(&snapshots, &results, limits, ROOMY, Kept { newest: true });
            let by_chain: BTreeMap<_, _> = snapshots.iter().map(|snapshot| (snapshot.chain, snapshot)).collect();
            let newest = results.last().expect("at least one");
            let needed = live(&by_chain, &candidates(&by_chain, std::slice::from_ref(newest))
                .into_iter().filter(|candidate| candidate.result.is_some()).collect::<Vec<_>>());
            prop_assert!(plan.unpin.iter().all(|chain| !needed.contains(chain)));
            let left: u64 = snapshots.iter().filter(|snapshot| !plan.unpin.contains(&snapshot.chain))
                .map(|snapshot| snapshot.size_bytes).sum();
            prop_assert!(left <= max_bytes.max(size(&by_chain, &needed)));
            for name in ["name0", "name1", "name2"] {
                let kept = results.iter().filter(|result| result.name == name && !plan.forget.contains(result)).count();
                prop_assert!(kept <= results_per_name.max(1));
            }
            // No pinned snapshot keeps an unpinned parent that something needs to reach.
            for snapshot in &snapshots {
                if !plan.unpin.contains(&snapshot.chain) && let Some(parent) = snapshot.parent {
                    prop_assert!(!plan.unpin.contains(&parent));
                }
            }
        }
    }
}
