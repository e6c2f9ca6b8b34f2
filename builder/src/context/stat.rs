// SPDX-License-Identifier: Apache-2.0
//! What the kernel says of a file, as far as it tells whether the file changed.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp};

/// A point in time of the system's clock. Times before 1970 have negative seconds; the fraction always adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds since 1970.
    pub seconds: i64,
    /// Added to the seconds; below 1,000,000,000.
    pub nanoseconds: u32,
}

/// What must be equal for a file to count as unchanged.
///
/// The change time is in it, and cannot be set from user space: an edit that keeps the size and puts back the
/// modification time is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatKey {
    /// Size of the contents.
    pub size_bytes: u64,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner as the file system has it.
    pub uid: u32,
    /// Group as the file system has it.
    pub gid: u32,
    /// When the contents changed last, as far as anyone tells.
    pub mtime: Timestamp,
    /// When anything changed last, by the kernel's clock.
    pub ctime: Timestamp,
    /// Number of the file in its file system.
    pub inode: u64,
    /// The file system, as in `st_dev`.
    pub device: u64,
}

/// [`StatKey`], and what matters only to a copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metadata {
    pub(crate) key: StatKey,
    pub(crate) links: u32,
    pub(crate) device_major: u32,
    pub(crate) device_minor: u32,
}

impl StatKey {
    /// What the kernel says of an open file now.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn of(file: impl AsFd) -> Result<Self, rustix::io::Errno> {
        Ok(Metadata::of(file)?.key)
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

impl Metadata {
    pub(crate) fn of(file: impl AsFd) -> Result<Self, rustix::io::Errno> {
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        Ok(Self::from(&stat))
    }

    /// The entry `name` of an open directory; a link is not followed.
    pub(crate) fn at(directory: impl AsFd, name: &std::ffi::CStr) -> Result<Self, rustix::io::Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(Self::from(&rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)?))
    }
}

impl From<&Statx> for Metadata {
    fn from(stat: &Statx) -> Self {
        Self {
            key: StatKey {
                size_bytes: stat.stx_size,
                mode: stat.stx_mode.into(),
                uid: stat.stx_uid,
                gid: stat.stx_gid,
                mtime: stat.stx_mtime.into(),
                ctime: stat.stx_ctime.into(),
                inode: stat.stx_ino,
                device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            },
            links: stat.stx_nlink,
            device_major: stat.stx_rdev_major,
            device_minor: stat.stx_rdev_minor,
        }
    }
}

impl From<StatxTimestamp> for Timestamp {
    fn from(time: StatxTimestamp) -> Self {
        Self { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
    }
}
