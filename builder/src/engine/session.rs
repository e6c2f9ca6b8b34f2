// SPDX-License-Identifier: Apache-2.0
//! What one build has in hand: connections, the cache, scratch space, and everything that it must give back.
//!
//! Whatever leaves a trace outside this process (active snapshots, cgroups, network addresses) is made here or told
//! here, so that [`Session::close`] can remove it on every way out. What a killed build could not remove is found by
//! [`super::collect`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::OnceCell;

use super::cancel::Cancel;
use super::collect::Marker;
use super::error::BuildError;
use super::event::EventSink;
use super::request::BuildRequest;
use crate::cache::{BootId, StateDir, StepIndex, StepKey, StepRecord};
use crate::image::ChainId;
use crate::layer::View;
use crate::sandbox::build_lock::BuildLock;
use crate::sandbox::executor::{Sandbox, SandboxOptions};
use crate::sandbox::network::PLUGIN_DIRECTORIES;
use crate::sandbox::overlay::{self, MountedRoot};
use crate::sandbox::scratch::Scratch;
use crate::store::{Cri, Labels, SnapshotDirs, Store, labels};

/// Where live builds keep their locks and scratch mount points; a tmpfs on every current distribution.
pub const DEFAULT_RUN_DIR: &str = "/run/pushless";

/// Where things are on this node.
#[derive(Debug, Clone)]
pub struct NodePaths {
    /// For locks and mount points of live builds.
    pub run_dir: PathBuf,
    /// For the index and the stat cache.
    pub state: StateDir,
    /// runc, if the user named one.
    pub runc: Option<PathBuf>,
    /// The cgroup that RUN steps belong below, if the user named one.
    pub cgroup_parent: Option<PathBuf>,
}

/// One build under way.
pub(crate) struct Session {
    pub(crate) request: BuildRequest,
    pub(crate) store: Store,
    pub(crate) cri: Option<Cri>,
    pub(crate) paths: NodePaths,
    pub(crate) index: StepIndex,
    pub(crate) events: EventSink,
    pub(crate) cancel: Cancel,
    pub(crate) boot: BootId,
    lock: OnceCell<(Arc<BuildLock>, Marker)>,
    scratch: OnceCell<Arc<Scratch>>,
    sandbox: tokio::sync::Mutex<Option<Arc<Sandbox>>>,
    used: Mutex<BTreeSet<ChainId>>,
    /// What any stage took from the cache: each may turn out to be gone, also where another stage notices.
    hits: Mutex<Vec<(StepKey, StepRecord)>>,
    /// A directory of a snapshot: on the file system whose free space matters.
    snapshot_path: OnceLock<PathBuf>,
    snapshots: AtomicU64,
    active: Mutex<BTreeSet<String>>,
}

impl Session {
    /// A session that has touched nothing yet.
    pub(crate) fn new(
        request: BuildRequest,
        store: Store,
        paths: NodePaths,
        events: EventSink,
        cancel: Cancel,
    ) -> Result<Self, BuildError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|source| BuildError::System { operation: "read the boot id", source })?;
        Ok(Self {
            cri: store.cri(),
            index: StepIndex::new(paths.state.steps()),
            boot: BootId::of(&boot),
            request,
            store,
            paths,
            events,
            cancel,
            lock: OnceCell::new(),
            scratch: OnceCell::new(),
            sandbox: tokio::sync::Mutex::default(),
            used: Mutex::default(),
            hits: Mutex::default(),
            snapshot_path: OnceLock::new(),
            snapshots: AtomicU64::new(0),
            active: Mutex::default(),
        })
    }

    /// The id of this build. The first call registers it, so that others can tell its traces from those of the dead.
    pub(crate) async fn build_id(&self) -> Result<&str, BuildError> {
        Ok(self.lock().await?.0.id())
    }

    async fn lock(&self) -> Result<&(Arc<BuildLock>, Marker), BuildError> {
        self.lock
            .get_or_try_init(|| async {
                let lock = BuildLock::acquire(&self.paths.run_dir)?;
                let marker = Marker::announce(&self.paths.state, lock.id())?;
                Ok::<_, BuildError>((Arc::new(lock), marker))
            })
            .await
    }

    /// What RUN steps run in, made at the first of them.
    pub(crate) async fn sandbox(&self) -> Result<Arc<Sandbox>, BuildError> {
        let mut sandbox = self.sandbox.lock().await;
        if let Some(sandbox) = &*sandbox {
            return Ok(sandbox.clone());
        }
        let options = SandboxOptions {
            run_dir: self.paths.run_dir.clone(),
            runc: self.paths.runc.clone(),
            cgroup_parent: self.paths.cgroup_parent.clone(),
            cni_directories: plugin_directories(),
        };
        let made = Arc::new(Sandbox::new(options, self.lock().await?.0.clone(), self.scratch().await?)?);
        Ok(sandbox.insert(made).clone())
    }

    /// Remembers that this build used a result, so that pruning keeps it.
    pub(crate) fn uses(&self, chain: ChainId) {
        self.used.lock().expect("invariant: no panic while the set is locked").insert(chain);
    }

    /// Remembers a result that was taken from the cache.
    pub(crate) fn hits(&self, key: StepKey, record: StepRecord) {
        self.hits.lock().expect("invariant: no panic while the list is locked").push((key, record));
    }

    /// Says that something which the cache has promised is gone.
    pub(crate) fn stale(&self) -> BuildError {
        BuildError::Stale {
            hits: self.hits.lock().expect("invariant: no panic while the list is locked").clone(),
        }
    }

    /// A missing snapshot below a hit is a stale record, not a failure of containerd.
    pub(crate) fn or_stale(&self, error: BuildError) -> BuildError {
        let took_hits =
            || !self.hits.lock().expect("invariant: no panic while the list is locked").is_empty();
        match error {
            BuildError::Store(store) if store.is_not_found() && took_hits() => self.stale(),
            other => other,
        }
    }

    /// All results that this build used.
    pub(crate) fn used_chains(&self) -> Vec<ChainId> {
        self.used.lock().expect("invariant: no panic while the set is locked").iter().copied().collect()
    }

    /// A directory on the file system of the snapshots, if this build touched any.
    pub(crate) fn snapshot_path(&self) -> Option<PathBuf> {
        self.snapshot_path.get().cloned()
    }

    /// Space for mount points and bundles, gone with this process.
    pub(crate) async fn scratch(&self) -> Result<Arc<Scratch>, BuildError> {
        let scratch = self
            .scratch
            .get_or_try_init(|| async { Ok::<_, BuildError>(Arc::new(Scratch::new(&self.paths.run_dir)?)) })
            .await?;
        Ok(scratch.clone())
    }

    /// Fails once the build was told to end.
    pub(crate) fn check_cancelled(&self) -> Result<(), BuildError> {
        if self.cancel.is_raised() { Err(BuildError::Cancelled) } else { Ok(()) }
    }

    /// The outcome of `work`, which is given up once the build is told to end. For what leaves nothing behind when it
    /// is given up.
    pub(crate) async fn unless_cancelled<T, E: Into<BuildError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BuildError> {
        match self.cancel.unless_raised(work).await {
            Some(done) => done.map_err(Into::into),
            None => Err(BuildError::Cancelled),
        }
    }

    /// A new snapshot to write into, on top of `parent`.
    pub(crate) async fn prepare(&self, parent: Option<ChainId>) -> Result<ActiveSnapshot, BuildError> {
        let (key, labels) = self.new_key().await?;
        let dirs = self.store.prepare(&key, parent, &labels).await?;
        if let Some(snapshots) = dirs.upper.as_deref().and_then(Path::parent).and_then(Path::parent) {
            // Kept from the first one; the parent directory outlives the snapshot.
            let _ = self.snapshot_path.set(snapshots.to_owned());
        }
        Ok(ActiveSnapshot { key, dirs })
    }

    /// A read-only look at a committed snapshot; given back by [`Session::close`].
    pub(crate) async fn look(&self, chain: Option<ChainId>) -> Result<ActiveSnapshot, BuildError> {
        let (key, labels) = self.new_key().await?;
        let dirs = self.store.view(&key, chain, &labels).await?;
        Ok(ActiveSnapshot { key, dirs })
    }

    /// Ends a look early, where something else must be done with the snapshot below it.
    pub(crate) async fn give_back(&self, look: ActiveSnapshot) -> Result<(), BuildError> {
        self.store.remove_snapshot(&look.key).await?;
        self.committed(&look.key);
        Ok(())
    }

    async fn new_key(&self) -> Result<(String, Labels), BuildError> {
        let build = self.build_id().await?;
        let number = self.snapshots.fetch_add(1, Ordering::Relaxed);
        let key = format!("pushless-{build}-{number}");
        // Told before it is made: removing one that was never made is no error.
        self.active.lock().expect("invariant: no panic while the set is locked").insert(key.clone());
        Ok((key, Labels::from([(labels::BUILD.to_owned(), build.to_owned())])))
    }

    /// The parents' view of `dirs`: what was there before this snapshot.
    pub(crate) async fn view(&self, lower: &[PathBuf]) -> Result<MountedView, BuildError> {
        let (view, mount) = match lower {
            [] => (View::empty(), None),
            // One directory is its own merged view: nothing has to be mounted.
            [one] => (View::new(open_directory(one)?)?, None),
            _ => {
                let mount = overlay::mount_view(&*self.scratch().await?, lower)?;
                (View::new(mount.fd())?, Some(mount))
            }
        };
        Ok(MountedView { view: Arc::new(view), _mount: mount.map(Arc::new) })
    }

    /// Removes every trace of this build. The first failure is returned, the rest is still tried.
    pub(crate) async fn close(&self) -> Result<(), BuildError> {
        let mut first = Ok(());
        let mut keep = |outcome: Result<(), BuildError>| {
            if first.is_ok() {
                first = outcome;
            }
        };
        let active =
            std::mem::take(&mut *self.active.lock().expect("invariant: no panic while the set is locked"));
        for key in active {
            keep(self.store.remove_snapshot(&key).await.map(drop).map_err(BuildError::from));
        }
        // Every step has ended, so nobody else holds the sandbox.
        if let Some(sandbox) = self.sandbox.lock().await.take().and_then(Arc::into_inner) {
            keep(sandbox.close().await.map_err(BuildError::from));
        }
        if let Some((_, marker)) = self.lock.get()
            && first.is_ok()
        {
            first = marker.retract();
        }
        first
    }

    /// Says that a snapshot needs no removal any more, because it was committed.
    pub(crate) fn committed(&self, key: &str) {
        self.active.lock().expect("invariant: no panic while the set is locked").remove(key);
    }
}

/// A snapshot that this build writes into or looks at.
#[derive(Debug)]
pub(crate) struct ActiveSnapshot {
    pub(crate) key: String,
    pub(crate) dirs: SnapshotDirs,
}

impl ActiveSnapshot {
    /// The directory that this snapshot's own files go to, open.
    pub(crate) fn open_upper(&self) -> Result<rustix::fd::OwnedFd, BuildError> {
        open_directory(self.upper()?)
    }

    pub(crate) fn upper(&self) -> Result<&Path, BuildError> {
        self.dirs.upper.as_deref().ok_or_else(|| BuildError::NoUpper { key: self.key.clone() })
    }
}

/// A view of lower directories that stays mounted as long as it is used.
#[derive(Debug, Clone)]
pub(crate) struct MountedView {
    pub(crate) view: Arc<View>,
    _mount: Option<Arc<MountedRoot>>,
}

pub(crate) fn open_directory(path: &Path) -> Result<rustix::fd::OwnedFd, BuildError> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| BuildError::Directory { path: path.to_owned(), source: errno.into() })
}

/// Where CNI plugins are looked for.
pub(crate) fn plugin_directories() -> Vec<PathBuf> {
    PLUGIN_DIRECTORIES.iter().map(PathBuf::from).collect()
}
