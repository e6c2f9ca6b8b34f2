// SPDX-License-Identifier: Apache-2.0
//! What all steps that make a layer have in common: look-up, the layer's stream, and the lazy commit.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fd::OwnedFd;

use super::cancel::Cancel;
use super::error::BuildError;
use super::session::{ActiveSnapshot, MountedView, Session};
use super::stage::StageRun;
use crate::cache::{StepKey, StepRecord};
use crate::image::ChainId;
use crate::layer::{LayerDigest, LayerError, LayerSink, TAR_VERSION, View};
use crate::store::{BlobSink, CommitOutcome, ContentWriter, Labels, SnapshotKind, Streamed, labels};

/// A layer that is written but not yet committed.
#[derive(Debug)]
pub(crate) struct PendingLayer {
    snapshot: ActiveSnapshot,
    record: StepRecord,
    keys: Vec<StepKey>,
    writer: ContentWriter,
    streamed: Streamed,
}

/// A layer whose snapshot is committed and whose blob is not.
#[derive(Debug)]
pub(crate) struct CommittedLayer {
    record: StepRecord,
    keys: Vec<StepKey>,
    writer: ContentWriter,
    streamed: Streamed,
    is_new: bool,
}

/// A finished stream, still without a name in the stores.
pub(crate) struct WrittenLayer {
    pub(crate) digest: LayerDigest,
    writer: ContentWriter,
    streamed: Streamed,
}

impl StageRun<'_> {
    /// The cached result under the first of `keys` that has one.
    pub(crate) async fn look_up(&mut self, keys: &[StepKey]) -> Result<Option<StepRecord>, BuildError> {
        if self.build.session.request.no_cache {
            return Ok(None);
        }
        for key in keys {
            let Some(record) = self.build.session.index.get(*key) else { continue };
            if record.boot == self.build.session.boot {
                return Ok(Some(record));
            }
            if let Some(record) = self.recheck(*key, record).await? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Takes a cached result: the image gets its layer, and the check at the end of the build gets to know of it.
    pub(crate) async fn take_hit(
        &mut self,
        key: StepKey,
        record: StepRecord,
        created_by: String,
    ) -> Result<(), BuildError> {
        self.settle().await?;
        self.build.session.uses(record.chain);
        self.build.session.hits(key, record);
        self.image.hits.push(record);
        self.image.push_layer(&record, created_by);
        Ok(())
    }

    /// A snapshot on top of the stage so far. A parent that is gone means that the cache has promised too much.
    pub(crate) async fn prepare(&mut self) -> Result<ActiveSnapshot, BuildError> {
        self.settle().await?;
        let prepared = self.build.session.prepare(self.image.chain).await;
        prepared.map_err(|error| self.build.session.or_stale(error))
    }

    /// Runs `write` on a blocking thread with the upper directory, the parents' view and a sink that feeds the content
    /// store.
    pub(crate) async fn write_layer<F>(
        &self,
        upper: OwnedFd,
        parents: &MountedView,
        write: F,
    ) -> Result<WrittenLayer, BuildError>
    where
        F: FnOnce(OwnedFd, &View, &mut dyn LayerSink) -> Result<LayerDigest, LayerError> + Send + 'static,
    {
        let build = self.build.session.build_id().await?;
        let (sink, writer) = self.build.session.store.content_writer(build);
        let view: Arc<View> = parents.view.clone();
        let cancel = self.build.session.cancel.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut sink = EndingSink { sink, cancel };
            let digest = write(upper, &view, &mut sink)?;
            Ok::<_, LayerError>((digest, sink.sink.finish()))
        });
        let (digest, finished) = match join(written.await)? {
            Ok(written) => written,
            Err(error) => {
                // The stream may have broken because containerd refused it: then that is the reason to tell.
                let refused = writer.abort().await;
                self.build.session.check_cancelled()?;
                return Err(refused.err().map_or(BuildError::Layer(error), BuildError::Store));
            }
        };
        match finished {
            Ok(streamed) => Ok(WrittenLayer { digest, writer, streamed }),
            Err(source) => {
                let refused = writer.abort().await;
                let broken = BuildError::System { operation: "hand the layer to containerd", source };
                Err(refused.err().map_or(broken, BuildError::Store))
            }
        }
    }

    /// Gives the image the layer that was just written. It is committed by the next step or at the end of the stage.
    pub(crate) fn take_layer(
        &mut self,
        snapshot: ActiveSnapshot,
        layer: WrittenLayer,
        keys: Vec<StepKey>,
        created_by: String,
    ) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = StepRecord {
            chain: ChainId::extend(self.image.chain, layer.digest.diff_id),
            diff_id: layer.digest.diff_id,
            size_bytes: layer.digest.size_bytes,
            created_s: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            boot: self.build.session.boot,
        };
        self.build.session.uses(record.chain);
        self.image.push_layer(&record, created_by);
        let WrittenLayer { writer, streamed, .. } = layer;
        self.pending = Some(PendingLayer { snapshot, record, keys, writer, streamed });
    }

    /// Commits the layer that waits for it, if one does.
    pub(crate) async fn settle(&mut self) -> Result<(), BuildError> {
        match self.commit_snapshot(Labels::new()).await? {
            Some(layer) => layer.store(&self.build.session).await,
            None => Ok(()),
        }
    }

    /// Commits the layer that waits for it although the build ends without an image: the step has finished, and the next
    /// build need not execute it again. Without this its stream would stay behind in containerd, too.
    pub(crate) async fn keep_finished(&mut self) {
        if let Err(error) = self.settle().await {
            self.build.session.events.notice(format!("a finished step could not be kept: {error}"));
        }
    }

    /// Commits the snapshot of the layer that waits for it, with `extra` labels. The blob is still to be stored: the
    /// snapshot goes first, for its labels hold the blob, which therefore is never unreferenced.
    pub(crate) async fn commit_snapshot(
        &mut self,
        extra: Labels,
    ) -> Result<Option<CommittedLayer>, BuildError> {
        let Some(PendingLayer { snapshot, record, keys, writer, streamed }) = self.pending.take() else {
            return Ok(None);
        };
        let session = &self.build.session;
        let mut given = record_labels(&record, &keys);
        given.extend(extra);
        let outcome = session.store.commit(record.chain, &snapshot.key, &given).await?;
        session.committed(&snapshot.key);
        let is_new = outcome == CommitOutcome::Committed;
        Ok(Some(CommittedLayer { record, keys, writer, streamed, is_new }))
    }

    /// Looks again at a layer that was written before the machine was started the last time: its files may never have
    /// reached the disk. `None` when it can't be used.
    async fn recheck(&mut self, key: StepKey, record: StepRecord) -> Result<Option<StepRecord>, BuildError> {
        self.settle().await?;
        let session = &self.build.session;
        let name = record.chain.to_string();
        let Some(snapshot) = session.store.snapshot(&name).await? else {
            session.index.remove(key)?;
            return Ok(None);
        };
        let checked = StepRecord { boot: session.boot, ..record };
        let boot = snapshot.labels.get(labels::BOOT_ID).map(String::as_str);
        if boot != Some(&*session.boot.to_string()) {
            if let Err(error) = self.verify(&record).await? {
                session.index.remove(key)?;
                session.events.notice(format!("a cached layer is damaged and is made again: {error}"));
                self.remove_damaged(record.chain).await?;
                return Ok(None);
            }
            let boot = Labels::from([(labels::BOOT_ID.to_owned(), session.boot.to_string())]);
            session.store.update_snapshot_labels(&name, &boot, &[]).await?;
        }
        session.index.put(key, &checked)?;
        Ok(Some(checked))
    }

    /// Hashes a committed layer's directory again. The inner result tells whether it is whole.
    async fn verify(&self, record: &StepRecord) -> Result<Result<(), LayerError>, BuildError> {
        let session = &self.build.session;
        let look = session.look(Some(record.chain)).await?;
        let Some((upper, lower)) = look.dirs.lower.split_first() else {
            return Err(BuildError::NoUpper { key: look.key });
        };
        let upper = super::session::open_directory(upper)?;
        let parents = session.view(lower).await?;
        let (view, expected) = (parents.view.clone(), record.diff_id);
        let verified = tokio::task::spawn_blocking(move || {
            use rustix::fd::AsFd as _;
            crate::layer::verify(upper.as_fd(), &view, expected).map(drop)
        });
        let verified = session.unless_cancelled(async { join(verified.await) }).await?;
        drop(parents);
        session.give_back(look).await?;
        Ok(verified)
    }

    /// Takes a damaged layer out of the way of its successor, with every cached layer that was built on it. A container
    /// that runs on it is not ended: that is for the user to do.
    async fn remove_damaged(&self, chain: ChainId) -> Result<(), BuildError> {
        let store = &self.build.session.store;
        let damaged = |source| BuildError::Damaged { chain, source };
        let snapshots = store.snapshots(&[]).await.map_err(damaged)?;
        let mut names = vec![chain.to_string()];
        let mut next = 0;
        while let Some(name) = names.get(next).cloned() {
            next += 1;
            let children = snapshots.iter().filter(|snapshot| {
                snapshot.parent.as_deref() == Some(&name) && snapshot.kind == SnapshotKind::Committed
            });
            names.extend(children.map(|child| child.name.clone()));
        }
        // Children come after their parents in the list, and must go before them.
        for name in names.iter().rev() {
            store.remove_snapshot(name).await.map_err(damaged)?;
        }
        Ok(())
    }
}

/// Ends the stream, and with it the blocking work that feeds it, once the build is told to end.
struct EndingSink {
    sink: BlobSink,
    cancel: Cancel,
}

impl LayerSink for EndingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.cancel.is_raised() {
            return Err(io::Error::other("the build was cancelled"));
        }
        LayerSink::write(&mut self.sink, bytes)
    }
}

impl CommittedLayer {
    /// Whether nobody had made the snapshot before.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Makes the blob of the layer, and only then a cached result of it: a hit must be complete.
    pub(crate) async fn store(self, session: &Session) -> Result<(), BuildError> {
        let Self { record, keys, writer, streamed, is_new: _ } = self;
        writer.commit(streamed, record.diff_id.0, &Labels::new()).await?;
        for key in keys {
            session.index.put(key, &record)?;
        }
        Ok(())
    }
}

/// What a snapshot says of itself, so that the index can be rebuilt from the snapshots alone.
fn record_labels(record: &StepRecord, keys: &[StepKey]) -> Labels {
    let mut given = Labels::from([
        labels::gc_root(),
        labels::content_reference("layer", record.diff_id.0),
        (labels::DIFF_ID.to_owned(), record.diff_id.to_string()),
        (labels::SIZE.to_owned(), record.size_bytes.to_string()),
        (labels::TAR_VERSION.to_owned(), TAR_VERSION.to_string()),
        (labels::BOOT_ID.to_owned(), record.boot.to_string()),
        (labels::CREATED.to_owned(), record.created_s.to_string()),
    ]);
    given.extend(keys.iter().map(|key| (labels::step_key(&key.to_string()), record.created_s.to_string())));
    given
}

/// The record that [`record_labels`] wrote; `None` for a snapshot that is not ours or of another tar version.
pub(crate) fn record_of(snapshot: &crate::store::SnapshotInfo) -> Option<(StepRecord, Vec<StepKey>)> {
    let label = |name: &str| snapshot.labels.get(name).map(String::as_str);
    if label(labels::TAR_VERSION)? != TAR_VERSION.to_string() {
        return None;
    }
    let record = StepRecord {
        chain: ChainId(snapshot.name.parse().ok()?),
        diff_id: crate::image::DiffId(label(labels::DIFF_ID)?.parse().ok()?),
        size_bytes: label(labels::SIZE)?.parse().ok()?,
        created_s: label(labels::CREATED)?.parse().ok()?,
        boot: crate::cache::BootId::parse(label(labels::BOOT_ID)?)?,
    };
    let keys = snapshot.labels.keys().filter_map(|name| name.strip_prefix(labels::KEY_PREFIX)?.parse().ok());
    Some((record, keys.collect()))
}

/// The outcome of a blocking task; a panic there goes on here.
pub(crate) fn join<T>(outcome: Result<T, tokio::task::JoinError>) -> Result<T, BuildError> {
    outcome.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => BuildError::System { operation: "wait for a task", source: io::Error::other(error) },
    })
}
