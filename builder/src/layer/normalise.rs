// SPDX-License-Identifier: Apache-2.0
//! Makes the directory that a command has written equal to what unpacking its tar stream would give.
//!
//! A command leaves things that no layer carries: sockets, extended attributes, times before the epoch, deletions of
//! what never existed. If they stayed, a snapshot would differ from the one that another client unpacks under the same
//! chain id.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};

use super::beneath;
use super::error::{LayerError, below, upper};
use super::metadata::{EntryKind, Stat, bounded_mtime_s};
use super::upper::{Marks, refuse_whiteout_name};
use super::view::{View, look};
use super::xattr::Subject;
use crate::image::ImagePath;

/// Removes from `upper_root` what a layer cannot carry. Afterwards [`super::diff`] gives the same stream as before.
///
/// The overlay that wrote the directory must be unmounted. Times keep their fractions of a second. The root gets mode
/// 0755, user and group 0 and the epoch as its time: containerd's unpacker never applies metadata to the root, but
/// makes it so (2.4.2, `plugins/snapshots/overlay`, `prepareDirectory`; its time there is that of the unpacking).
///
/// # Errors
/// What a layer cannot say ([`LayerError::WhiteoutName`], [`LayerError::OverlayAttribute`]), and failures to read or
/// write.
pub fn normalise(upper_root: BorrowedFd<'_>, parents: &View) -> Result<(), LayerError> {
    let root = ImagePath::root();
    let open = beneath::child(upper_root, OsStr::new(".")).map_err(upper("open", &root))?;
    let root_below = parents
        .root()
        .map(|root_below| beneath::child(root_below, OsStr::new(".")))
        .transpose()
        .map_err(below("open", &root))?;
    let marks = Marks::read(Subject::Open(open.as_fd()), &root)?;
    let merged_with = root_below.as_ref().map(AsFd::as_fd).filter(|_| !marks.opaque);
    directory(&root, open.as_fd(), merged_with)?;
    strip(Subject::Open(open.as_fd()), &marks, &root)?;
    settle_root(open.as_fd())
}

/// Gives the root the metadata that containerd's unpacker leaves, see [`normalise`].
pub(super) fn settle_root(root: BorrowedFd<'_>) -> Result<(), LayerError> {
    let settle = || {
        rustix::fs::fchown(root, Some(Uid::ROOT), Some(Gid::ROOT))?;
        rustix::fs::fchmod(root, Mode::from_raw_mode(0o755))?;
        rustix::fs::futimens(root, &only_mtime(0, 0))
    };
    settle().map_err(upper("set the metadata of", &ImagePath::root()))
}

/// For `utimensat`: this modification time, the access time as it is.
pub(super) fn only_mtime(mtime_s: i64, mtime_ns: u32) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime_s, tv_nsec: mtime_ns.into() },
    }
}

/// Cleans what is in the directory `path`; the directory's own attributes are the caller's.
///
/// `merged_with` is the parents' directory that shows through, none below a directory that hides the parents'. There
/// a deletion would not only be needless: overlayfs lists the names of directories that it does not merge as they are,
/// the marks of deletions included.
fn directory(
    path: &ImagePath,
    open: BorrowedFd<'_>,
    merged_with: Option<BorrowedFd<'_>>,
) -> Result<(), LayerError> {
    let before = Stat::of(open).map_err(upper("look at", path))?;
    for name in beneath::names(open).map_err(upper("list", path))? {
        let child = path.child(&name);
        let Some(stat) = Stat::at(open, &name).map_err(upper("look at", &child))? else { continue };
        let found = merged_with.map_or(Ok(None), |parents| look(parents, &name));
        let found = found.map_err(below("look at", &child))?;
        if stat.kind.is_whiteout() {
            if found.is_none() {
                remove(open, &name).map_err(upper("remove", &child))?;
            }
            continue;
        }
        if stat.kind == EntryKind::Socket {
            remove(open, &name).map_err(upper("remove", &child))?;
            if found.is_some() {
                rustix::fs::mknodat(open, &name, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(upper("mark as deleted", &child))?;
            }
            continue;
        }
        refuse_whiteout_name(&child)?;
        if stat.kind == EntryKind::Directory {
            let inner = beneath::child(open, &name).map_err(upper("open", &child))?;
            let subject = Subject::Open(inner.as_fd());
            let marks = Marks::read(subject, &child)?;
            let inner_below = match (merged_with, found) {
                (Some(parents), Some(Stat { kind: EntryKind::Directory, .. })) if !marks.opaque => {
                    Some(beneath::child(parents, &name).map_err(below("open", &child))?)
                }
                _ => None,
            };
            directory(&child, inner.as_fd(), inner_below.as_ref().map(AsFd::as_fd))?;
            strip(subject, &marks, &child)?;
        } else {
            let subject = Subject::Named(open, &name);
            strip(subject, &Marks::of_file(subject, &child)?, &child)?;
        }
        let mtime_s = bounded_mtime_s(stat.mtime_s);
        if mtime_s != stat.mtime_s {
            rustix::fs::utimensat(open, &name, &only_mtime(mtime_s, 0), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(upper("set the time of", &child))?;
        }
    }
    // Removing names has moved the directory's own time.
    let after = Stat::of(open).map_err(upper("look at", path))?;
    if (after.mtime_s, after.mtime_ns) != (before.mtime_s, before.mtime_ns) {
        rustix::fs::futimens(open, &only_mtime(before.mtime_s, before.mtime_ns))
            .map_err(upper("set the time of", path))?;
    }
    Ok(())
}

fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?)
}

fn strip(subject: Subject<'_>, marks: &Marks, path: &ImagePath) -> Result<(), LayerError> {
    for attribute in &marks.others {
        subject.remove(attribute).map_err(upper("remove an attribute of", path))?;
    }
    Ok(())
}
