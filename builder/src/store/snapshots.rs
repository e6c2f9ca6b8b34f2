// SPDX-License-Identifier: Apache-2.0
//! Snapshots: the directories that layers are made in, and the chain ids they are committed under.
//!
//! A committed snapshot is named by its chain id, which is a shared name: another build, or a pull of the same layers,
//! may commit it first. That is success here, with the labels set on the one that is there.

use std::time::SystemTime;

use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest, ViewSnapshotRequest,
};
use containerd_client::types::Mount;

use super::connection::Store;
use super::convert;
use super::discovery::OVERLAYFS;
use super::error::StoreError;
use super::images::ATTEMPTS;
use super::labels::{self, Labels};
use super::mounts::SnapshotDirs;
use crate::image::ChainId;

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Being written.
    Active,
    /// A read-only look at a committed one.
    View,
    /// Finished; the parent of others.
    Committed,
}

/// What containerd knows of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The key of an active snapshot or view, the chain id of a committed one.
    pub name: String,
    /// The committed snapshot below.
    pub parent: Option<String>,
    /// What it is.
    pub kind: SnapshotKind,
    /// Its labels.
    pub labels: Labels,
    /// When it was prepared, or committed.
    pub created_at: Option<SystemTime>,
}

/// What a snapshot takes on disk, its parents not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in blocks on disk.
    pub size_bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// What became of a snapshot that was to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is now the chain id's snapshot.
    Committed,
    /// The chain id had a snapshot: that one has our labels now, and ours is removed.
    AlreadyThere,
}

impl Store {
    /// A snapshot by name or key; `None` when it is not there.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn snapshot(&self, name: &str) -> Result<Option<SnapshotInfo>, StoreError> {
        const OPERATION: &str = "stat snapshot";
        let request = StatSnapshotRequest { snapshotter: OVERLAYFS.to_owned(), key: name.to_owned() };
        let answer = match self.snapshots_client().stat(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let error = self.failed(OPERATION, name, status);
                return if error.is_not_found() { Ok(None) } else { Err(error) };
            }
        };
        let malformed =
            |detail| StoreError::Answer { operation: OPERATION, subject: name.to_owned(), detail };
        let info = answer.info.ok_or_else(|| malformed("no info".to_owned()))?;
        convert::to_snapshot(info).map(Some).map_err(malformed)
    }

    /// The snapshots that one of containerd's filters matches (`labels."pushless.dev/build"`, `kind==committed`); all of
    /// them without a filter.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn snapshots(&self, filters: &[&str]) -> Result<Vec<SnapshotInfo>, StoreError> {
        let failed = |status| self.failed("list", "snapshots", status);
        let request = ListSnapshotsRequest {
            snapshotter: OVERLAYFS.to_owned(),
            filters: filters.iter().map(ToString::to_string).collect(),
        };
        let mut batches = self.snapshots_client().list(request).await.map_err(failed)?.into_inner();
        let mut found = Vec::new();
        while let Some(batch) = batches.message().await.map_err(failed)? {
            for info in batch.info {
                found.push(convert::to_snapshot(info).map_err(|detail| StoreError::Answer {
                    operation: "list",
                    subject: "snapshots".to_owned(),
                    detail,
                })?);
            }
        }
        Ok(found)
    }

    /// Makes an active snapshot on top of `parent` and returns its directories.
    ///
    /// `labels` live until the commit, which drops them. The label that keeps garbage collection away is added: an
    /// active snapshot is collected like any other that nothing refers to.
    ///
    /// # Errors
    /// [`StoreError::Mounts`] when the directories cannot be told from the mounts (the snapshot is removed again),
    /// [`StoreError::Label`], or as for every call: an absent parent and a key that is taken included.
    pub async fn prepare(
        &self,
        key: &str,
        parent: Option<ChainId>,
        labels: &Labels,
    ) -> Result<SnapshotDirs, StoreError> {
        let mounts = self.prepare_mounts(key, parent, labels).await?;
        self.dirs_or_remove("prepare snapshot", key, mounts).await
    }

    pub(super) async fn prepare_mounts(
        &self,
        key: &str,
        parent: Option<ChainId>,
        labels: &Labels,
    ) -> Result<Vec<Mount>, StoreError> {
        const OPERATION: &str = "prepare snapshot";
        self.checked(OPERATION, key, labels)?;
        let request = PrepareSnapshotRequest {
            snapshotter: OVERLAYFS.to_owned(),
            key: key.to_owned(),
            parent: parent.map(|parent| parent.to_string()).unwrap_or_default(),
            labels: convert::to_wire_labels(&pinned(labels)),
        };
        let answer = self.snapshots_client().prepare(request).await;
        Ok(answer.map_err(|status| self.failed(OPERATION, key, status))?.into_inner().mounts)
    }

    /// Makes a read-only view of a committed snapshot and returns its directories. Labels as with [`Store::prepare`].
    ///
    /// # Errors
    /// As [`Store::prepare`].
    pub async fn view(
        &self,
        key: &str,
        parent: Option<ChainId>,
        labels: &Labels,
    ) -> Result<SnapshotDirs, StoreError> {
        const OPERATION: &str = "view snapshot";
        self.checked(OPERATION, key, labels)?;
        let request = ViewSnapshotRequest {
            snapshotter: OVERLAYFS.to_owned(),
            key: key.to_owned(),
            parent: parent.map(|parent| parent.to_string()).unwrap_or_default(),
            labels: convert::to_wire_labels(&pinned(labels)),
        };
        let answer = self.snapshots_client().view(request).await;
        let mounts = answer.map_err(|status| self.failed(OPERATION, key, status))?.into_inner().mounts;
        self.dirs_or_remove(OPERATION, key, mounts).await
    }

    /// The directories of an active snapshot or view.
    ///
    /// # Errors
    /// [`StoreError::Mounts`], or as for every call.
    pub async fn mounts(&self, key: &str) -> Result<SnapshotDirs, StoreError> {
        const OPERATION: &str = "read the mounts of snapshot";
        let mounts = self.wire_mounts(key).await?;
        SnapshotDirs::from_mounts(&convert::to_mounts(mounts)).map_err(|source| StoreError::Mounts {
            operation: OPERATION,
            subject: key.to_owned(),
            source,
        })
    }

    pub(super) async fn wire_mounts(&self, key: &str) -> Result<Vec<Mount>, StoreError> {
        let request = MountsRequest { snapshotter: OVERLAYFS.to_owned(), key: key.to_owned() };
        let answer = self.snapshots_client().mounts(request).await;
        let answer = answer.map_err(|status| self.failed("read the mounts of snapshot", key, status))?;
        Ok(answer.into_inner().mounts)
    }

    async fn dirs_or_remove(
        &self,
        operation: &'static str,
        key: &str,
        mounts: Vec<Mount>,
    ) -> Result<SnapshotDirs, StoreError> {
        match SnapshotDirs::from_mounts(&convert::to_mounts(mounts)) {
            Ok(dirs) => Ok(dirs),
            Err(source) => {
                self.remove_snapshot(key).await?;
                Err(StoreError::Mounts { operation, subject: key.to_owned(), source })
            }
        }
    }

    /// Makes the active snapshot `key` the snapshot of `chain`, with exactly `labels`.
    ///
    /// Under a taken name containerd keeps both, the committed one and the active one (2.x puts the committed one under
    /// the caller's lease first, 1.6 does not): then our labels are set on the committed one and the active one is
    /// removed. When the committed one vanishes in between, the commit is tried again.
    ///
    /// # Errors
    /// [`StoreError::Contended`] when it vanishes again and again, [`StoreError::Label`], or as for every call. The
    /// active snapshot is then still there.
    pub async fn commit(
        &self,
        chain: ChainId,
        key: &str,
        labels: &Labels,
    ) -> Result<CommitOutcome, StoreError> {
        const OPERATION: &str = "commit snapshot";
        let name = chain.to_string();
        self.checked(OPERATION, &name, labels)?;
        for _ in 0..ATTEMPTS {
            let request = CommitSnapshotRequest {
                snapshotter: OVERLAYFS.to_owned(),
                name: name.clone(),
                key: key.to_owned(),
                labels: convert::to_wire_labels(labels),
            };
            let error = match self.snapshots_client().commit(request).await {
                Ok(_) => return Ok(CommitOutcome::Committed),
                Err(status) => self.failed(OPERATION, &name, status),
            };
            if !error.is_already_exists() {
                return Err(error);
            }
            if self.adopt(&name, labels).await? {
                self.remove_snapshot(key).await?;
                return Ok(CommitOutcome::AlreadyThere);
            }
        }
        Err(StoreError::Contended { operation: OPERATION, subject: name, attempts: ATTEMPTS })
    }

    /// Sets labels on a committed snapshot; `false` when it is not there any more.
    async fn adopt(&self, name: &str, labels: &Labels) -> Result<bool, StoreError> {
        // An active snapshot could bear the name too; nothing can be built on that one.
        match self.snapshot(name).await? {
            Some(SnapshotInfo { kind: SnapshotKind::Committed, .. }) => {}
            Some(_) => {
                return Err(StoreError::Answer {
                    operation: "commit snapshot",
                    subject: name.to_owned(),
                    detail: "the name belongs to a snapshot that is not committed".to_owned(),
                });
            }
            None => return Ok(false),
        }
        match self.update_snapshot_labels(name, labels, &[]).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets and removes single labels of a snapshot; the others stay. Without any there is no call.
    ///
    /// # Errors
    /// [`StoreError::Label`], or as for every call, an absent snapshot included.
    pub async fn update_snapshot_labels(
        &self,
        name: &str,
        set: &Labels,
        unset: &[&str],
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "label snapshot";
        self.checked(OPERATION, name, set)?;
        if set.is_empty() && unset.is_empty() {
            // An empty mask would mean the whole record.
            return Ok(());
        }
        let info = Info { name: name.to_owned(), labels: convert::to_wire_labels(set), ..Info::default() };
        let mask = convert::label_mask(set.keys().map(String::as_str).chain(unset.iter().copied()));
        let request = UpdateSnapshotRequest {
            snapshotter: OVERLAYFS.to_owned(),
            info: Some(info),
            update_mask: Some(mask),
        };
        let answer = self.snapshots_client().update(request).await;
        answer.map_err(|status| self.failed(OPERATION, name, status))?;
        Ok(())
    }

    /// Removes a snapshot; `false` when it was not there. Its files go with the next garbage collection.
    ///
    /// # Errors
    /// [`StoreError::Call`] with [`super::ErrorKind::FailedPrecondition`] when others are built on it.
    pub async fn remove_snapshot(&self, name: &str) -> Result<bool, StoreError> {
        let request = RemoveSnapshotRequest { snapshotter: OVERLAYFS.to_owned(), key: name.to_owned() };
        let answer = self.snapshots_client().remove(request).await;
        self.removed("remove snapshot", name, answer.err())
    }

    /// What a snapshot takes on disk. For an active one containerd walks its files; a committed one was measured at its
    /// commit.
    ///
    /// # Errors
    /// [`StoreError`] as for every call, an absent snapshot included.
    pub async fn usage(&self, name: &str) -> Result<Usage, StoreError> {
        const OPERATION: &str = "measure snapshot";
        let request = UsageRequest { snapshotter: OVERLAYFS.to_owned(), key: name.to_owned() };
        let answer = self.snapshots_client().usage(request).await;
        let usage = answer.map_err(|status| self.failed(OPERATION, name, status))?.into_inner();
        let count = |count: i64| {
            u64::try_from(count).map_err(|_| StoreError::Answer {
                operation: OPERATION,
                subject: name.to_owned(),
                detail: format!("a usage of {count}"),
            })
        };
        Ok(Usage { size_bytes: count(usage.size)?, inodes: count(usage.inodes)? })
    }
}

fn pinned(given: &Labels) -> Labels {
    let mut labels = given.clone();
    labels.extend([labels::gc_root()]);
    labels
}
