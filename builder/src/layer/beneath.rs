// SPDX-License-Identifier: Apache-2.0
//! Opening directories by image path below an open root, never through a symbolic link and never above the root.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::image::ImagePath;

/// Opens the directory `path` below `root`; `None` when something on the way is missing or is no directory.
pub(super) fn directory(root: BorrowedFd<'_>, path: &ImagePath) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(root, path.relative(), flags, Mode::empty(), resolve) {
            Ok(open) => return Ok(Some(open)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            // A rename somewhere in the system raced with the walk: openat2(2) asks to try again.
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Opens the directory `name` directly in `parent`.
pub(super) fn child(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    open(parent, name, OFlags::DIRECTORY)
}

/// Opens the regular file `name` directly in `parent` for reading. The caller knows that it is a regular file.
pub(super) fn file(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    open(parent, name, OFlags::NONBLOCK)
}

/// Opens for reading and leaves the access time alone where the kernel allows that.
fn open(parent: BorrowedFd<'_>, name: &OsStr, more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    match rustix::fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?),
        opened => Ok(opened?),
    }
}

/// The names in a directory that was opened for this one reading, sorted by their bytes.
pub(super) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut reader = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = reader.next() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
