// SPDX-License-Identifier: Apache-2.0
//! Carries out what the cache policy decides: after each build that led to something new, and when asked to.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::error::BuildError;
use super::layer_step::record_of;
use crate::cache::{
    CacheLimits, FileSystemUse, Kept, PinnedSnapshot, PrunePlan, ResultLog, StateDir, StepIndex, plan_prune,
};
use crate::image::ChainId;
use crate::store::{SnapshotInfo, SnapshotKind, Store, labels};

/// Snapshots let go of at the end of one build at the most; the next build goes on. Collecting them holds containerd.
const BATCH: usize = 32;
/// A few results more than the limit are left, so that not every build has to let one go.
const SLACK: usize = 5;
/// How long the end of a build waits for a collection that the disk is in need of.
const URGENT_WAIT: Duration = Duration::from_millis(300);

/// What was let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Snapshots unpinned.
    pub snapshots: usize,
    /// The size of their layers. What images still use stays on disk.
    pub size_bytes: u64,
}

/// One entry of what the cache holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// The snapshot.
    pub chain: ChainId,
    /// The size of its layer; 0 for a base image.
    pub size_bytes: u64,
    /// When it was made, in seconds since the epoch.
    pub created_s: u64,
    /// How many step keys lead to it; 0 for a base image.
    pub keys: usize,
}

/// The cache of one store, as seen by its upkeep.
#[derive(Debug)]
pub struct Upkeep<'a> {
    /// containerd.
    pub store: &'a Store,
    /// Where index and results are.
    pub state: &'a StateDir,
}

impl Upkeep<'_> {
    /// Bounded and cheap: called at the end of a build of `name` whose snapshots are on the file system of `snapshots`.
    pub(crate) async fn after_build(
        &self,
        name: &str,
        limits: CacheLimits,
        snapshots: Option<&Path>,
    ) -> Result<Pruned, BuildError> {
        let results = ResultLog::new(self.state.results());
        let file_system = snapshots.map(usage).transpose()?;
        let cached_bytes: u64 = self.index().all()?.iter().map(|(_, record)| record.size_bytes).sum();
        let full = file_system.is_some_and(|usage| usage.over(limits.max_fs_percent, 0));
        if results.count(name)? <= limits.results_per_name + SLACK
            && cached_bytes <= limits.max_bytes
            && !full
        {
            return Ok(Pruned::default());
        }
        // While another build uses the cache nothing is let go: the last one to end will do it.
        let Some(alone) = self.state.try_lock_exclusive()? else { return Ok(Pruned::default()) };
        let plan = self.plan(limits, file_system, Kept { newest: true }).await?;
        let urgent = plan.urgent;
        let pruned = self.carry_out(plan, BATCH).await?;
        drop(alone);
        if urgent {
            self.store.request_gc(URGENT_WAIT).await?;
        }
        Ok(pruned)
    }

    /// Lets go of what exceeds `limits`, of all that there is, and waits up to `wait` for the space.
    ///
    /// # Errors
    /// When containerd or the state directory fails, or while a build is running.
    pub async fn prune(&self, limits: CacheLimits, wait: Duration) -> Result<Pruned, BuildError> {
        let Some(alone) = self.state.try_lock_exclusive()? else { return Err(BuildError::CacheInUse) };
        let plan = self.plan(limits, None, Kept::default()).await?;
        let pruned = self.carry_out(plan, usize::MAX).await?;
        // What is let go is in no index any more: builds need not wait for containerd to collect it.
        drop(alone);
        self.store.request_gc(wait).await?;
        Ok(pruned)
    }

    /// Everything that is pinned, largest first.
    ///
    /// # Errors
    /// When containerd fails.
    pub async fn entries(&self) -> Result<Vec<CacheEntry>, BuildError> {
        let mut entries: Vec<CacheEntry> = self
            .pinned()
            .await?
            .iter()
            .map(|(pinned, info)| CacheEntry {
                chain: pinned.chain,
                size_bytes: pinned.size_bytes,
                created_s: pinned.created_ns / 1_000_000_000,
                keys: info.labels.keys().filter(|label| label.starts_with(labels::KEY_PREFIX)).count(),
            })
            .collect();
        entries.sort_by_key(|entry| (std::cmp::Reverse(entry.size_bytes), entry.chain));
        Ok(entries)
    }

    /// Fills the index from the snapshots' labels, if there is no index.
    pub(crate) async fn restore_index(&self) -> Result<(), BuildError> {
        let index = self.index();
        if index.exists() {
            return Ok(());
        }
        index.create()?;
        for snapshot in self.store.snapshots(&[&format!("labels.\"{}\"", labels::DIFF_ID)]).await? {
            if let Some((record, keys)) = record_of(&snapshot) {
                for key in keys {
                    index.put(key, &record)?;
                }
            }
        }
        Ok(())
    }

    fn index(&self) -> StepIndex {
        StepIndex::new(self.state.steps())
    }

    async fn pinned(&self) -> Result<Vec<(PinnedSnapshot, SnapshotInfo)>, BuildError> {
        let filter = format!("labels.\"{}\"", labels::GC_ROOT);
        let snapshots = self.store.snapshots(&[&filter]).await?;
        Ok(snapshots.into_iter().filter_map(|info| Some((to_pinned(&info)?, info))).collect())
    }

    async fn plan(
        &self,
        limits: CacheLimits,
        file_system: Option<FileSystemUse>,
        kept: Kept,
    ) -> Result<PrunePlan, BuildError> {
        let pinned: Vec<PinnedSnapshot> =
            self.pinned().await?.into_iter().map(|(pinned, _)| pinned).collect();
        let results = ResultLog::new(self.state.results()).all()?;
        let unlimited = FileSystemUse { total_bytes: u64::MAX, used_bytes: 0 };
        Ok(plan_prune(&pinned, &results, limits, file_system.unwrap_or(unlimited), kept))
    }

    async fn carry_out(&self, plan: PrunePlan, batch: usize) -> Result<Pruned, BuildError> {
        let results = ResultLog::new(self.state.results());
        let index = self.index();
        let mut pruned = Pruned::default();
        let whole = plan.unpin.len() <= batch;
        for chain in plan.unpin.iter().take(batch) {
            let name = chain.to_string();
            let Some(info) = self.store.snapshot(&name).await? else { continue };
            for key in info.labels.keys().filter_map(|label| label.strip_prefix(labels::KEY_PREFIX)) {
                if let Ok(key) = key.parse() {
                    index.remove(key)?;
                }
            }
            // Every reference goes with the pin: what an image needs, its own manifest and config hold.
            let references: Vec<&str> = info
                .labels
                .keys()
                .map(String::as_str)
                .filter(|label| *label == labels::GC_ROOT || label.starts_with(labels::GC_REF_CONTENT_PREFIX))
                .collect();
            match self.store.update_snapshot_labels(&name, &<_>::default(), &references).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
            pruned.snapshots += 1;
            pruned.size_bytes += to_pinned(&info).map_or(0, |pinned| pinned.size_bytes);
        }
        if whole {
            for result in &plan.forget {
                results.remove(result)?;
            }
        }
        Ok(pruned)
    }
}

/// One of ours, or a base that we pinned; `None` for snapshots that another client pins.
fn to_pinned(info: &SnapshotInfo) -> Option<PinnedSnapshot> {
    let ours = info.labels.contains_key(labels::DIFF_ID)
        || info.labels.keys().any(|label| label.starts_with(labels::BASE_PREFIX));
    if !ours || info.kind != SnapshotKind::Committed {
        return None;
    }
    let size = info.labels.get(labels::SIZE).and_then(|size| size.parse().ok());
    let created =
        info.created_at.and_then(|moment| moment.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Some(PinnedSnapshot {
        chain: ChainId(info.name.parse().ok()?),
        parent: info.parent.as_deref().and_then(|parent| parent.parse().ok()).map(ChainId),
        size_bytes: size.unwrap_or(0),
        pinned: info.labels.contains_key(labels::GC_ROOT),
        created_ns: u64::try_from(created.as_nanos()).unwrap_or(u64::MAX),
    })
}

fn usage(path: &Path) -> Result<FileSystemUse, BuildError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|errno| BuildError::Directory { path: path.to_owned(), source: errno.into() })?;
    Ok(FileSystemUse {
        total_bytes: stat.f_blocks * stat.f_frsize,
        used_bytes: (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
    })
}
