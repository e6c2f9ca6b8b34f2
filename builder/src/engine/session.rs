// SPDX-License-Identifier: Apache-2.0
//! What one build has in hand: connections, the cache, scratch space, and everything that it must give back.
//!
//! Whatever leaves a trace outside this process (active snapshots, cgroups, network addresses) is made here or told
//! here, so that [`Session::close`] can remove it on every way out. What a killed build could not remove is found by
//! [`super::collect`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use super::cancel::Cancel;
use super::collect;
use super::error::BuildError;
use super::event::EventSink;
use super::request::BuildRequest;
use crate::cache::{BootId, StateDir, StepIndex};
use crate::image::ChainId;
use crate::layer::View;
use crate::sandbox::build_lock::BuildLock;
use crate::sandbox::cgroup::Cgroups;
use crate::sandbox::network::Network;
use crate::sandbox::overlay::{self, MountedRoot};
use crate::sandbox::runc::Runc;
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
    lock: OnceCell<BuildLock>,
    scratch: OnceCell<Arc<Scratch>>,
    pub(crate) runc: OnceCell<Runc>,
    pub(crate) cgroups: OnceCell<Cgroups>,
    pub(crate) network: OnceCell<Network>,
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
            runc: OnceCell::new(),
            cgroups: OnceCell::new(),
            network: OnceCell::new(),
            snapshots: AtomicU64::new(0),
            active: Mutex::default(),
        })
    }

    /// The id of this build. The first call registers it, so that others can tell its traces from those of the dead.
    pub(crate) async fn build_id(&self) -> Result<&str, BuildError> {
        let lock = self
            .lock
            .get_or_try_init(|| async {
                let lock = BuildLock::acquire(&self.paths.run_dir)?;
                collect::announce(&self.paths.state, lock.id())?;
                Ok::<_, BuildError>(lock)
            })
            .await?;
        Ok(lock.id())
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

    /// A new snapshot to write into, on top of `parent`.
    pub(crate) async fn prepare(&self, parent: Option<ChainId>) -> Result<ActiveSnapshot, BuildError> {
        let (key, labels) = self.new_key().await?;
        let dirs = self.store.prepare(&key, parent, &labels).await?;
        Ok(ActiveSnapshot { key, dirs })
    }

    /// A read-only look at a committed snapshot; given back by [`Session::close`].
    pub(crate) async fn look(&self, chain: Option<ChainId>) -> Result<ActiveSnapshot, BuildError> {
        let (key, labels) = self.new_key().await?;
        let dirs = self.store.view(&key, chain, &labels).await?;
        Ok(ActiveSnapshot { key, dirs })
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
        let active = std::mem::take(&mut *self.active.lock().expect("invariant: no panic while the set is locked"));
        for key in active {
            keep(self.store.remove_snapshot(&key).await.map(drop).map_err(BuildError::from));
        }
        if let Some(network) = self.network.get() {
            keep(network.close().await.map_err(BuildError::from));
        }
        if let Some(lock) = self.lock.get() {
            if let Some(cgroups) = self.cgroups.get() {
                keep(cgroups.remove_build(lock.id()).map_err(BuildError::from));
            }
            if first.is_ok() {
                first = collect::retract(&self.paths.state, lock.id());
            }
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
