// SPDX-License-Identifier: Apache-2.0
//! Mounts the directories of snapshots: a read-only view of a stack, or a root that a container may write to.
//!
//! Overlays carry the options that a layer's producer relies on: without `redirect_dir=off,metacopy=off` a rename or a
//! `chmod` would leave an upper directory that cannot be read without its lower ones. The mounts are made in the private
//! mount namespace of the build and undone by RAII; a mount that is busy is detached, which is logged, for it means that
//! something still held a file.
//!
//! This module must not know containerd: it takes plain directories.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::scratch::{Scratch, ScratchError};

/// Overlay options that a root is mounted with, as the kernel names their defaults in its module parameters.
const REQUIRED: [&str; 3] = ["redirect_dir", "metacopy", "index"];

/// Where the kernel lists the options of its overlay file system.
const PARAMETERS: &str = "/sys/module/overlay/parameters";

/// The kernel copies mount options into one page.
const OPTIONS_LIMIT_BYTES: usize = 4096;

/// Why a root or view could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The scratch space gave no mount point or link.
    #[error("prepare a mount")]
    Scratch(#[from] ScratchError),
    /// The stack does not fit into the options of one mount.
    #[error("mount an overlay of {layers} directories: options of {size_bytes} bytes exceed a page")]
    TooManyLayers {
        /// Lower directories asked for.
        layers: usize,
        /// Size of the option string.
        size_bytes: usize,
    },
    /// The kernel lacks options without which layers would be wrong.
    #[error("mount an overlay: this kernel does not know the options {}", .options.join(", "))]
    UnknownOptions {
        /// Names of the missing options.
        options: Vec<&'static str>,
    },
    /// The kernel refused.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The mount point or directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// A mounted root file system; dropping it unmounts.
#[derive(Debug)]
pub struct MountedRoot {
    path: PathBuf,
    /// `None` only while unmounting: an open descriptor would keep the mount busy.
    fd: Option<OwnedFd>,
}

impl MountedRoot {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root directory, opened with `O_PATH`, to resolve names in.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("invariant: the descriptor lives as long as the mount").as_fd()
    }

    /// Unmounts and says what went wrong, where dropping could only log it.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than "busy", which is answered by detaching.
    pub fn unmount(mut self) -> Result<(), OverlayError> {
        self.unmount_now()
    }

    fn open(path: PathBuf) -> Result<Self, OverlayError> {
        let mut root = Self { path, fd: None };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&root.path, flags, Mode::empty()).map_err(at("open", &root.path))?;
        root.fd = Some(fd);
        Ok(root)
    }

    fn unmount_now(&mut self) -> Result<(), OverlayError> {
        self.fd = None;
        let path = std::mem::take(&mut self.path);
        match rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => {
                tracing::warn!(path = %path.display(), "a root is still in use; it is detached");
                rustix::mount::unmount(&path, UnmountFlags::DETACH).map_err(at("detach", &path))?;
            }
            other => other.map_err(at("unmount", &path))?,
        }
        std::fs::remove_dir(&path).map_err(|source| OverlayError::System {
            operation: "remove mount point",
            path: path.clone(),
            source,
        })
    }
}

impl Drop for MountedRoot {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty()
            && let Err(error) = self.unmount_now()
        {
            tracing::warn!(%error, "a root could not be unmounted");
        }
    }
}

/// Mounts a read-only view of the stack `lower`, topmost directory first. An empty stack gives an empty directory.
///
/// Nothing can be executed or opened as a device through a view.
///
/// # Errors
/// [`OverlayError`]; nothing stays mounted then.
pub fn mount_view(scratch: &Scratch, lower: &[PathBuf]) -> Result<MountedRoot, OverlayError> {
    let target = scratch.mount_point()?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match lower {
        [] => read_only_bind(&target, &target, flags)?,
        [one] => read_only_bind(one, &target, flags)?,
        _ => {
            let options = format!("lowerdir={}", lower_links(scratch, lower)?);
            mount_overlay(&target, flags, &options, lower.len())?;
        }
    }
    MountedRoot::open(target)
}

/// Mounts a root that can be written to: `lower`, topmost first, below `upper`. With no lower directory it is `upper`
/// itself, bound.
///
/// `volatile` is set where the kernel has it (5.10): without it, unmounting flushes the whole file system that
/// holds `upper` to disk, 250 ms for 100 MB. What the engine keeps of the upper directory has a durability rule of its
/// own. The kernel marks `work` and refuses to mount it again, so each pair of `upper` and `work` is mounted once.
///
/// # Errors
/// [`OverlayError`]; nothing stays mounted then.
pub fn mount_root(
    scratch: &Scratch,
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
) -> Result<MountedRoot, OverlayError> {
    let target = scratch.mount_point()?;
    if lower.is_empty() {
        rustix::mount::mount_bind(upper, &target).map_err(at("bind to", &target))?;
        return MountedRoot::open(target);
    }
    let mut options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower_links(scratch, lower)?,
        scratch.link(upper)?.display(),
        scratch.link(work)?.display()
    );
    for name in REQUIRED {
        options.push_str(&format!(",{name}=off"));
    }
    let volatile = format!("{options},volatile");
    match mount_overlay(&target, MountFlags::empty(), &volatile, lower.len()) {
        Err(OverlayError::System { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
            mount_overlay(&target, MountFlags::empty(), &options, lower.len())?;
        }
        other => other?,
    }
    MountedRoot::open(target)
}

fn lower_links(scratch: &Scratch, lower: &[PathBuf]) -> Result<String, OverlayError> {
    let mut joined = String::new();
    for directory in lower {
        if !joined.is_empty() {
            joined.push(':');
        }
        joined.push_str(&scratch.link(directory)?.display().to_string());
    }
    Ok(joined)
}

fn mount_overlay(target: &Path, flags: MountFlags, options: &str, layers: usize) -> Result<(), OverlayError> {
    if options.len() >= OPTIONS_LIMIT_BYTES {
        return Err(OverlayError::TooManyLayers { layers, size_bytes: options.len() });
    }
    let data = CString::new(options).expect("invariant: paths and option names hold no NUL");
    rustix::mount::mount("overlay", target, "overlay", flags, Some(data.as_c_str())).map_err(|errno| {
        let options = if errno == Errno::INVAL { unknown_options(Path::new(PARAMETERS)) } else { Vec::new() };
        if options.is_empty() {
            at("mount an overlay at", target)(errno)
        } else {
            OverlayError::UnknownOptions { options }
        }
    })
}

/// The required options that the kernel whose module parameters are at `parameters` does not list.
fn unknown_options(parameters: &Path) -> Vec<&'static str> {
    REQUIRED.into_iter().filter(|name| !parameters.join(name).exists()).collect()
}

fn read_only_bind(source: &Path, target: &Path, flags: MountFlags) -> Result<(), OverlayError> {
    rustix::mount::mount_bind(source, target).map_err(at("bind to", target))?;
    // The kernel ignores the flags of a bind mount until it is remounted.
    rustix::mount::mount_remount(target, MountFlags::BIND | flags, c"").map_err(|errno| {
        // Nothing has been opened below yet; the error above is the one to tell.
        let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
        at("make read-only", target)(errno)
    })
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> OverlayError {
    let path = path.to_owned();
    move |errno| OverlayError::System { operation, path, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_the_kernel_lacks_are_named() {
        let parameters = tempfile::tempdir().expect("a directory");
        for known in ["redirect_dir", "xino_auto"] {
            std::fs::write(parameters.path().join(known), "N\n").expect("a file");
        }
        let options = unknown_options(parameters.path());
        assert_eq!(
            OverlayError::UnknownOptions { options }.to_string(),
            "mount an overlay: this kernel does not know the options metacopy, index"
        );
    }
}
