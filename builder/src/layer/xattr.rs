// SPDX-License-Identifier: Apache-2.0
//! Extended attributes of open files and of names in open directories.
//!
//! There is no `getxattrat` before Linux 6.13, so a name is reached through `/proc/self/fd`.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// File capabilities, the one attribute that a layer carries.
pub(super) const CAPABILITY: &str = "security.capability";

/// Whose attributes: an open file's, or those of a name in an open directory (a symbolic link is not followed).
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a OsStr),
}

/// The kernel's limit of a list and of a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LIMIT_BYTES: usize = 64 * 1024;
/// Fits nearly every list and value, so that one call is enough.
const USUAL_BYTES: usize = 512;

impl Subject<'_> {
    fn path(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<CString> {
        let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.as_bytes());
        Ok(CString::new(path)?)
    }

    /// The names of all attributes, sorted. A file system without attributes has none.
    pub(super) fn names(self) -> io::Result<Vec<OsString>> {
        let list = grown(|buffer| match self {
            Self::Open(file) => rustix::fs::flistxattr(file, buffer),
            Self::Named(directory, name) => {
                let path = Self::path(directory, name).map_err(|_| Errno::INVAL)?;
                rustix::fs::llistxattr(path, buffer)
            }
        });
        let list = match list {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            list => list?,
        };
        let mut names: Vec<_> = list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| OsString::from_vec(name.to_vec()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The value of `attribute`, `None` when it is not set.
    pub(super) fn value(self, attribute: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let value = grown(|buffer| match self {
            Self::Open(file) => rustix::fs::fgetxattr(file, attribute, buffer),
            Self::Named(directory, name) => {
                let path = Self::path(directory, name).map_err(|_| Errno::INVAL)?;
                rustix::fs::lgetxattr(path, attribute, buffer)
            }
        });
        match value {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The capability attribute; an empty value counts as none, as containerd has it.
    pub(super) fn capability(self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.value(OsStr::new(CAPABILITY))?.filter(|value| !value.is_empty()))
    }

    /// Sets the capability attribute.
    pub(super) fn set_capability(self, value: &[u8]) -> io::Result<()> {
        match self {
            Self::Open(file) => rustix::fs::fsetxattr(file, CAPABILITY, value, XattrFlags::empty())?,
            Self::Named(directory, name) => {
                rustix::fs::lsetxattr(Self::path(directory, name)?, CAPABILITY, value, XattrFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Removes an attribute that is set.
    pub(super) fn remove(self, attribute: &OsStr) -> io::Result<()> {
        match self {
            Self::Open(file) => rustix::fs::fremovexattr(file, attribute)?,
            Self::Named(directory, name) => {
                rustix::fs::lremovexattr(Self::path(directory, name)?, attribute)?;
            }
        }
        Ok(())
    }
}

/// Calls `fill` with a usual buffer and again with the largest possible one when that was too small.
fn grown(fill: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    for size in [USUAL_BYTES, LIMIT_BYTES] {
        let mut buffer = vec![0; size];
        match fill(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::TOOBIG)
}
