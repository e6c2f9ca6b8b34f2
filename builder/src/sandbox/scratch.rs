// SPDX-License-Identifier: Apache-2.0
//! One private tmpfs that holds everything a build's containers need on disk while it lives.
//!
//! Mount points, runc's state, OCI bundles, network namespaces and short symbolic links lie in it. It is mounted in the
//! private mount namespace that `confine::enter` made, so it goes with the last process of the build, whatever ended
//! that: nothing here depends on cleaning up. The directory below the mount, `<run_dir>/scratch`, is shared by all
//! builds and always empty.
//!
//! This module must not know what the directories are used for beyond their names.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

/// Why the scratch space cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct ScratchError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl ScratchError {
    fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { operation, path, source }
    }
}

/// The tmpfs. Dropping it unmounts it; everything mounted inside must be gone by then or goes with the namespace.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    next: AtomicU64,
    /// The directory `l/`, to have a short name for it.
    link_directory: OwnedFd,
    /// Symbolic links made so far: target -> path of the link.
    links: Mutex<HashMap<PathBuf, PathBuf>>,
}

/// Directories made at the start, relative to the root.
const DIRECTORIES: [&str; 5] = ["b", "l", "m", "n", "runc"];

impl Scratch {
    /// Mounts the tmpfs over `<run_dir>/scratch`, which is made when absent.
    ///
    /// A second one over the same directory in the same mount namespace would hide the first: one per process.
    ///
    /// # Errors
    /// When the directory cannot be made, or the kernel refuses the mount.
    pub fn new(run_dir: &Path) -> Result<Self, ScratchError> {
        let root = run_dir.join("scratch");
        std::fs::create_dir_all(&root).map_err(ScratchError::at("make directory", &root))?;
        rustix::mount::mount(
            "pushless",
            &root,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME,
            Some(c"mode=0700"),
        )
        .map_err(|errno| ScratchError::at("mount a tmpfs over", &root)(errno.into()))?;
        for name in DIRECTORIES {
            let path = root.join(name);
            std::fs::create_dir(&path).map_err(ScratchError::at("make directory", &path))?;
        }
        let links = root.join("l");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let link_directory = rustix::fs::open(&links, flags, Mode::empty())
            .map_err(|errno| ScratchError::at("open", &links)(errno.into()))?;
        Ok(Self { root, next: AtomicU64::new(0), link_directory, links: Mutex::default() })
    }

    /// Where the tmpfs is mounted.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What runc gets as `--root`.
    pub fn runc_state(&self) -> PathBuf {
        self.root.join("runc")
    }

    /// A new empty directory to mount something on.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn mount_point(&self) -> Result<PathBuf, ScratchError> {
        self.fresh_directory("m")
    }

    /// A new empty directory for an OCI bundle. Its name is unique in this scratch space and serves as container id.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn bundle(&self) -> Result<PathBuf, ScratchError> {
        self.fresh_directory("b")
    }

    /// A path for a bind-mounted network namespace; nothing is there yet.
    pub fn network_namespace(&self) -> PathBuf {
        self.root.join("n").join(self.number())
    }

    /// A short symbolic link to `target`, the same one for the same target. Only this process can follow it.
    ///
    /// Options of a mount must fit into one page, which paths of snapshots do not when there are many; a link also
    /// frees them of the characters that separate options. The link is named through a descriptor, so that its length does
    /// not depend on where the scratch space lies.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub fn link(&self, target: &Path) -> Result<PathBuf, ScratchError> {
        let mut links = self.links.lock().expect("invariant: no panic while the map is locked");
        if let Some(link) = links.get(target) {
            return Ok(link.clone());
        }
        let link =
            PathBuf::from(format!("/proc/self/fd/{}/{:x}", self.link_directory.as_raw_fd(), links.len()));
        std::os::unix::fs::symlink(target, &link).map_err(ScratchError::at("make link", &link))?;
        links.insert(target.to_owned(), link.clone());
        Ok(link)
    }

    fn fresh_directory(&self, below: &str) -> Result<PathBuf, ScratchError> {
        let path = self.root.join(below).join(self.number());
        std::fs::create_dir(&path).map_err(ScratchError::at("make directory", &path))?;
        Ok(path)
    }

    fn number(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(errno) = rustix::mount::unmount(&self.root, UnmountFlags::DETACH) {
            tracing::warn!(path = %self.root.display(), %errno, "the scratch space could not be unmounted");
        }
    }
}
