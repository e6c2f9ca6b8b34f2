// SPDX-License-Identifier: Apache-2.0
//! What a layer is made of when it is assembled from a list.

use std::ffi::OsString;
use std::fmt;
use std::io;

use super::Metadata;
use crate::image::ImagePath;

/// Opens the origin of a file's bytes, at the moment they are needed.
pub type Opener = Box<dyn FnOnce() -> io::Result<Box<dyn io::Read>> + Send>;

/// One path of a layer.
#[derive(Debug)]
pub struct LayerEntry {
    /// Where it goes. The directories above may be left out of the list when the parents' view has them or when
    /// the default metadata will do.
    pub path: ImagePath,
    /// What is recorded of it. Ignored for a hard link, which shares that of its target.
    pub metadata: Metadata,
    /// What it is.
    pub content: Content,
}

/// The type of an entry and what belongs to the type.
pub enum Content {
    /// A directory, merged with the one below if there is one.
    Directory,
    /// A regular file whose bytes are elsewhere.
    File {
        /// Its length; a file that turns out longer or shorter is an error, for the tar header comes first.
        size_bytes: u64,
        /// Where the bytes are.
        open: Opener,
    },
    /// A regular file with these bytes.
    Bytes(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(OsString),
    /// Another name for an earlier entry of the same layer.
    Hardlink(ImagePath),
    /// A named pipe.
    Fifo,
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

impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => out.write_str("Directory"),
            Self::File { size_bytes, .. } => write!(out, "File({size_bytes} bytes)"),
            Self::Bytes(bytes) => write!(out, "Bytes({})", bytes.len()),
            Self::Symlink(target) => write!(out, "Symlink({})", target.display()),
            Self::Hardlink(target) => write!(out, "Hardlink({target})"),
            Self::Fifo => out.write_str("Fifo"),
            Self::CharDevice { major, minor } => write!(out, "CharDevice({major}, {minor})"),
            Self::BlockDevice { major, minor } => write!(out, "BlockDevice({major}, {minor})"),
        }
    }
}
