// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between a directory and its tar stream.

use std::ffi::OsString;
use std::io;

use crate::image::{DiffId, ImagePath};

/// Why a layer could not be read, written or verified.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The directory of the layer refused an operation.
    #[error("{operation} {path} of the layer's directory")]
    Upper {
        /// What was tried, as a verb.
        operation: &'static str,
        /// Where, as the image sees it.
        path: ImagePath,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The view of the parent layers refused an operation.
    #[error("{operation} {path} of the parent layers")]
    Below {
        /// What was tried, as a verb.
        operation: &'static str,
        /// Where, as the image sees it.
        path: ImagePath,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The origin of a file's bytes failed.
    #[error("read the content for {path}")]
    Source {
        /// The file that was to be written.
        path: ImagePath,
        /// The origin's answer.
        #[source]
        source: io::Error,
    },
    /// A file grew or shrank between the look at its size and the end of reading it.
    #[error(
        "read the content for {path}: it has {found} bytes, expected {expected_bytes}; it changed meanwhile"
    )]
    SizeChanged {
        /// The file.
        path: ImagePath,
        /// The size that the tar header already states.
        expected_bytes: u64,
        /// What was found instead.
        found: FoundBytes,
    },
    /// The receiver of the tar stream failed.
    #[error("write the layer's tar stream")]
    Sink {
        /// The receiver's answer.
        #[source]
        source: io::Error,
    },
    /// A layer cannot express such a name: `.wh.` marks deletions (OCI image specification, "Whiteouts").
    #[error("store {path} in a layer: names that begin with .wh. mark deletions")]
    WhiteoutName {
        /// The offending path.
        path: ImagePath,
    },
    /// A character device 0/0 is overlayfs' own mark of a deletion.
    #[error("store {path} in a layer: a character device 0/0 marks a deletion")]
    WhiteoutDevice {
        /// The offending path.
        path: ImagePath,
    },
    /// overlayfs keeps state in an attribute whose meaning a tar stream cannot carry.
    #[error("read {path} of the layer's directory: overlay attribute {name:?} has no meaning in a layer")]
    OverlayAttribute {
        /// The entry that carries it.
        path: ImagePath,
        /// The attribute's full name.
        name: OsString,
    },
    /// Too many symbolic links on the way, as the kernel's `ELOOP`.
    #[error("resolve {path} in the parent layers: more than {limit} symbolic links")]
    Loop {
        /// The path as asked for.
        path: ImagePath,
        /// How many are followed.
        limit: usize,
    },
    /// The kernel reserves the number.
    #[error("store {path} in a layer: 4294967295 is no user or group")]
    Owner {
        /// The entry with such an owner.
        path: ImagePath,
    },
    /// Entries must come sorted and once.
    #[error("store {path} in a layer: it comes after {previous}, entries must be sorted and unique")]
    Order {
        /// The entry out of place.
        path: ImagePath,
        /// Its predecessor.
        previous: ImagePath,
    },
    /// The path above an entry is not a directory and no entry makes it one.
    #[error("store {path} in a layer: {parent} is not a directory")]
    ParentNotDirectory {
        /// The entry.
        path: ImagePath,
        /// What stands in its way.
        parent: ImagePath,
    },
    /// The root can only be a directory.
    #[error("store / in a layer as something else than a directory")]
    RootNotDirectory,
    /// A hard link must point to an earlier entry of the same layer that is not a directory.
    #[error("link {path} to {target}: the target is no earlier file of the same layer")]
    HardlinkTarget {
        /// The link.
        path: ImagePath,
        /// Where it was to point.
        target: ImagePath,
    },
    /// A directory does not hold what its diff id promises.
    #[error("verify a layer: found {found}, expected {expected}")]
    Mismatch {
        /// The diff id on record.
        expected: DiffId,
        /// The diff id of the directory as it is.
        found: DiffId,
    },
}

/// How much of a file there was, compared with what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBytes {
    /// The file ended early, after so many bytes.
    Only(u64),
    /// There was more to read.
    More,
}

impl std::fmt::Display for FoundBytes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Only(bytes) => write!(out, "only {bytes}"),
            Self::More => out.write_str("more"),
        }
    }
}

/// For `map_err`: an operation on the layer's own directory.
pub(super) fn upper<E: Into<io::Error>>(
    operation: &'static str,
    path: &ImagePath,
) -> impl FnOnce(E) -> LayerError {
    move |source| LayerError::Upper { operation, path: path.clone(), source: source.into() }
}

/// For `map_err`: an operation on the parents' view.
pub(super) fn below<E: Into<io::Error>>(
    operation: &'static str,
    path: &ImagePath,
) -> impl FnOnce(E) -> LayerError {
    move |source| LayerError::Below { operation, path: path.clone(), source: source.into() }
}
