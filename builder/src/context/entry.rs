// SPDX-License-Identifier: Apache-2.0
//! The entries that a `COPY` takes, as plain values.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;

use rustix::fs::FileType;

use crate::image::ImagePath;

use super::stat::StatKey;

/// BLAKE3 of a file's contents. It never leaves this machine; what does is named by SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest(pub [u8; 32]);

impl fmt::Debug for ContentDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "blake3:{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Names regular files of one selection that are the same file. Numbers are given in the order of the entries, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardlinkGroup(pub u32);

/// What one source of a `COPY` (or one match of its wildcard) came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedSource {
    /// As written in the instruction.
    pub pattern: OsString,
    /// The name that a file gets in a destination directory: that of the link, when a link was followed. Empty for
    /// the root of the tree.
    pub base_name: OsString,
    /// What the source is, links followed.
    pub kind: SourceKind,
    /// The source itself first, then what lies below it, in the order of [`ImagePath`].
    pub entries: Vec<SourceEntry>,
}

/// How a source is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// As one entry, under its base name or the destination's.
    File,
    /// Its contents go into the destination; its own metadata only count for a destination that does not exist.
    Directory,
}

/// One entry that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// Below the source; the root for the source itself.
    pub relative: ImagePath,
    /// In the tree, without links on the way.
    pub path: ImagePath,
    /// What it is.
    pub kind: EntryKind,
    /// The twelve permission bits; 0777 for a link.
    pub mode: u32,
    /// Owner; 0 for all of a build context.
    pub uid: u32,
    /// Group; 0 for all of a build context.
    pub gid: u32,
    /// Modification time in whole seconds since 1970, rounded down as layers have it.
    pub mtime_s: i64,
    /// Raw `security.capability` of a regular file: the only extended attribute that layers carry.
    pub capability: Option<Vec<u8>>,
    /// Set when another entry of the same source is the same regular file.
    pub hardlink_group: Option<HardlinkGroup>,
    /// Of the contents; set for every [`EntryKind::File`].
    pub digest: Option<ContentDigest>,
    /// What the kernel said when the digest was taken.
    pub stat: StatKey,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file. A socket is one too, with no contents: that is what BuildKit copies.
    File {
        /// Size of the contents.
        size_bytes: u64,
    },
    /// A symbolic link, copied as it is.
    Symlink {
        /// Where it points, word for word.
        target: OsString,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Driver.
        major: u32,
        /// Device of the driver.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Driver.
        major: u32,
        /// Device of the driver.
        minor: u32,
    },
}

impl SourceEntry {
    /// Whether `file`, from [`super::SourceTree::open_entry`], is still what the selection saw. Ask after the last byte
    /// was read: then what was read is what the digest says.
    ///
    /// # Errors
    /// The kernel's answer to a stat of the open file.
    pub fn unchanged(&self, file: &File) -> std::io::Result<bool> {
        Ok(self.is_socket() || StatKey::of(file)? == self.stat)
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.stat.file_type() == FileType::Socket
    }
}
