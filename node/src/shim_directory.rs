// SPDX-License-Identifier: Apache-2.0
//! A private `/run/containerd`, shared by all nodes of this process.
//!
//! Whatever its configuration, containerd's shims put their sockets into `/run/containerd/s` and its clients their
//! fifos into `/run/containerd/fifo` (containerd 1.6 to 2.4, `defaults.DefaultStateDir`). So an empty tmpfs is mounted
//! over that directory in the private mount namespace, which also hides the socket of the host's containerd.
//!
//! Where the host has no such directory it must be made. It then carries an attribute that says so, and whoever leaves
//! last removes it: users hold a shared lock on it, and a removal needs the exclusive one, for removing a directory
//! that is a mount point in *another* namespace succeeds and takes the mount away.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::XattrFlags;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::mounts;

const PATH: &str = "/run/containerd";

/// What the tmpfs is called in the list of mounts.
const SOURCE: &str = "shakedown";

/// Marks a directory that was made here, not by the host.
const MADE_HERE: &str = "trusted.shakedown.made";

/// How many nodes use the mount, and the locked directory below it.
static USERS: Mutex<(usize, Option<File>)> = Mutex::new((0, None));

/// One node's share in the mount; the last one unmounts.
#[derive(Debug)]
pub(crate) struct ShimDirectory(());

impl ShimDirectory {
    /// Mounts the tmpfs unless another node of this process has done so.
    ///
    /// Must be called in a private mount namespace.
    pub(crate) fn enter() -> io::Result<Self> {
        let mut users = lock();
        if users.0 == 0 {
            uncover()?;
            let dir = open_shared()?;
            let options = c"mode=0711";
            rustix::mount::mount(
                "shakedown",
                PATH,
                "tmpfs",
                MountFlags::NOSUID | MountFlags::NODEV,
                options,
            )?;
            users.1 = Some(dir);
        }
        users.0 += 1;
        Ok(Self(()))
    }

    /// Removes the directory if it was made here and nobody uses it: what a killed run leaves.
    pub(crate) fn sweep() {
        if lock().0 == 0
            && let Ok(dir) = File::open(PATH)
        {
            remove_if_unused(&dir);
        }
    }
}

impl Drop for ShimDirectory {
    fn drop(&mut self) {
        let mut users = lock();
        users.0 -= 1;
        if users.0 > 0 {
            return;
        }
        if let Err(errno) = rustix::mount::unmount(PATH, UnmountFlags::DETACH) {
            // The namespace takes the mount along when it ends.
            tracing::warn!("could not unmount {PATH}: {errno}");
            return;
        }
        if let Some(dir) = users.1.take() {
            remove_if_unused(&dir);
        }
    }
}

fn lock() -> MutexGuard<'static, (usize, Option<File>)> {
    // The guarded values are changed in single steps, so a panic elsewhere leaves them sound.
    USERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unmounts what a process around this one has mounted here, in our copy of its mounts.
///
/// Otherwise the lock would be on that tmpfs and not on the directory, and the outer process might remove the latter.
fn uncover() -> io::Result<()> {
    for mount in mounts::all()? {
        if mount.point == Path::new(PATH) && mount.source == SOURCE {
            rustix::mount::unmount(PATH, UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}

/// The directory, made if absent, with a shared lock that says it is in use.
fn open_shared() -> io::Result<File> {
    loop {
        let made = match DirBuilder::new().mode(0o711).create(PATH) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        let dir = match File::open(PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            dir => dir?,
        };
        if made {
            rustix::fs::fsetxattr(&dir, MADE_HERE, b"1", XattrFlags::empty())?;
        }
        dir.lock_shared()?;
        // It may have been removed between opening and locking.
        if still_named(&dir)? {
            return Ok(dir);
        }
    }
}

fn still_named(dir: &File) -> io::Result<bool> {
    let held = dir.metadata()?;
    match fs::symlink_metadata(PATH) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the directory when it is marked as made here, empty, and locked by nobody else.
fn remove_if_unused(dir: &File) {
    let marked = rustix::fs::fgetxattr(dir, MADE_HERE, &mut [0_u8; 8]).is_ok();
    if !marked || !still_named(dir).unwrap_or(false) {
        return;
    }
    match dir.try_lock() {
        Ok(()) => {}
        // The other user removes it.
        Err(TryLockError::WouldBlock) => return,
        Err(TryLockError::Error(error)) => {
            tracing::warn!("could not lock {PATH}: {error}");
            return;
        }
    }
    if let Err(error) = fs::remove_dir(Path::new(PATH)) {
        // The host's own containerd has moved in.
        tracing::debug!("{PATH} stays: {error}");
    }
}
