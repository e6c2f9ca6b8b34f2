// SPDX-License-Identifier: Apache-2.0
//! Removes what a node leaves on the machine when containerd is gone: processes, mounts, cgroups, the directory.
//!
//! Synchronous, for it runs in `Drop` too. Invariant: the directory is removed only when nothing is mounted below it,
//! for a removal must never walk into another file system.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::run_directory::{RunDirectory, RunDirectoryError, RunId};
use crate::{cgroups, mounts, processes};

/// How long killed processes may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// The processes of the node could not be listed.
    #[error("list the processes of run {run}")]
    List {
        /// The run.
        run: RunId,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Processes that did not end on `SIGKILL`.
    #[error("end the processes of run {run}: {pids:?} are still there")]
    Alive {
        /// The run.
        run: RunId,
        /// Their pids.
        pids: Vec<i32>,
    },
    /// A mount below the directory stayed.
    #[error("unmount what is below {}", dir.display())]
    Unmount {
        /// The node's directory.
        dir: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A cgroup stayed.
    #[error("remove cgroup {cgroup}")]
    Cgroup {
        /// The cgroup's name.
        cgroup: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The directory or its lock file stayed.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
}

/// Kills the shims of the run with their containers, and waits until they are gone.
pub(crate) fn end_processes(run: &RunDirectory) -> Result<(), TeardownError> {
    let socket = Config::socket(run.path());
    let limit = Instant::now() + KILL_LIMIT;
    loop {
        let left = processes::shims_and_their_children(&socket)
            .map_err(|source| TeardownError::List { run: run.id().clone(), source })?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > limit {
            return Err(TeardownError::Alive { run: run.id().clone(), pids: left });
        }
        left.into_iter().for_each(processes::kill);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Removes the cgroups and the mounts of a run.
pub(crate) fn remove_traces(run: &RunDirectory) -> Result<(), TeardownError> {
    let cgroup = run.id().cgroup();
    cgroups::remove(&cgroup).map_err(|source| TeardownError::Cgroup { cgroup, source })?;
    let dir = run.path().to_owned();
    let unmounted = mounts::unmount_below(&dir).and_then(|()| match mounts::below(&dir)?.first() {
        Some(mount) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{} is still mounted", mount.point.display()),
        )),
        None => Ok(()),
    });
    unmounted.map_err(|source| TeardownError::Unmount { dir, source })
}
