// SPDX-License-Identifier: Apache-2.0
//! What a layer records of a file besides its bytes.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Statx, StatxFlags};
use rustix::io::Errno;

/// The last whole second that fits into 64 bits of nanoseconds (in the year 2262).
const LAST_MTIME_S: i64 = i64::MAX / 1_000_000_000;

/// The metadata that both forms of a layer carry, and nothing that only one of them could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The twelve mode bits: permissions, set-user-id, set-group-id, sticky. A symbolic link always has 0777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time in whole seconds since the epoch. Only [`bounded_mtime_s`] values are ever stored.
    pub mtime_s: i64,
    /// The raw value of `security.capability`, the one extended attribute that containerd keeps (2.4.2,
    /// `pkg/archive/tar.go`, `HandleChange`).
    pub capability: Option<Vec<u8>>,
}

impl Metadata {
    /// `mode` for user and group 0, without capabilities.
    pub const fn of_root(mode: u32, mtime_s: i64) -> Self {
        Self { mode, uid: 0, gid: 0, mtime_s, capability: None }
    }

    /// These values as a layer can hold them: twelve mode bits and a time within bounds.
    pub(super) fn storable(&self) -> Self {
        Self { mode: self.mode & 0o7777, mtime_s: bounded_mtime_s(self.mtime_s), ..self.clone() }
    }
}

/// A time as containerd's unpacker would set it: the epoch in place of everything before it or after the year 2262
/// (2.4.2, `pkg/archive/time.go`, `boundTime`).
///
/// A layer that recorded another time would give two different directories under one chain id.
pub fn bounded_mtime_s(mtime_s: i64) -> i64 {
    if (0..=LAST_MTIME_S).contains(&mtime_s) { mtime_s } else { 0 }
}

/// The type of a file, with the numbers of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A unix socket. No layer holds one.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl EntryKind {
    /// Whether this is overlayfs' mark of a deletion, a character device 0/0.
    pub(super) fn is_whiteout(self) -> bool {
        self == Self::CharDevice { major: 0, minor: 0 }
    }
}

/// What one `statx` tells, in types that do not depend on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The file's type.
    pub kind: EntryKind,
    /// The twelve mode bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Whole seconds of the modification time.
    pub mtime_s: i64,
    /// Nanoseconds on top of [`Stat::mtime_s`].
    pub mtime_ns: u32,
    /// Length of a regular file.
    pub size_bytes: u64,
    /// Number of names in the file system.
    pub links: u32,
    /// Which file it is within its file system.
    pub inode: u64,
    /// Which file system it is on.
    pub device: (u32, u32),
}

impl Stat {
    /// Looks at `name` in `directory` without following a symbolic link. `None` when there is no such name.
    pub(super) fn at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Self>> {
        match rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Ok(raw) => Ok(Some(Self::from_raw(&raw)?)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Looks at an open file.
    pub(super) fn of(open: BorrowedFd<'_>) -> io::Result<Self> {
        let raw = rustix::fs::statx(open, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        Self::from_raw(&raw)
    }

    fn from_raw(raw: &Statx) -> io::Result<Self> {
        let mode = u32::from(raw.stx_mode);
        let (major, minor) = (raw.stx_rdev_major, raw.stx_rdev_minor);
        let kind = match mode & libc::S_IFMT {
            libc::S_IFDIR => EntryKind::Directory,
            libc::S_IFREG => EntryKind::Regular,
            libc::S_IFLNK => EntryKind::Symlink,
            libc::S_IFIFO => EntryKind::Fifo,
            libc::S_IFSOCK => EntryKind::Socket,
            libc::S_IFCHR => EntryKind::CharDevice { major, minor },
            libc::S_IFBLK => EntryKind::BlockDevice { major, minor },
            unknown => return Err(io::Error::other(format!("unknown file type {unknown:#o}"))),
        };
        Ok(Self {
            kind,
            mode: mode & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            mtime_s: raw.stx_mtime.tv_sec,
            mtime_ns: raw.stx_mtime.tv_nsec,
            size_bytes: raw.stx_size,
            links: raw.stx_nlink,
            inode: raw.stx_ino,
            device: (raw.stx_dev_major, raw.stx_dev_minor),
        })
    }

    /// The part that a layer records, with `capability` as read separately.
    pub fn metadata(&self, capability: Option<Vec<u8>>) -> Metadata {
        Metadata {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime_s: bounded_mtime_s(self.mtime_s),
            capability,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_out_of_bounds_become_the_epoch() {
        for (given, stored) in [
            (0, 0),
            (-1, 0),
            (i64::MIN, 0),
            (1_700_000_000, 1_700_000_000),
            (9_223_372_036, 9_223_372_036),
            (9_223_372_037, 0),
        ] {
            assert_eq!(bounded_mtime_s(given), stored, "{given}");
        }
    }
}
