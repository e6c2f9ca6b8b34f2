// SPDX-License-Identifier: Apache-2.0
//! Layers: the bytes of a layer's tar stream, and the overlay directory that holds the same content on disk.
//!
//! A layer exists twice, as a snapshot's directory and as a tar stream whose digest is the diff id. The chain id made
//! of diff ids is a name that every client of containerd shares, so both forms must say the same thing to the last
//! mode bit: [`assemble`] writes both at once from a list of entries, [`diff`] derives the stream from a directory that
//! a command has written through an overlay, and [`verify`] proves a directory against a diff id again, later.
//!
//! This module must not know containerd, Dockerfiles or build contexts: it works on open directories.

mod assemble;
mod beneath;
mod diff;
mod entry;
mod error;
mod metadata;
mod normalise;
mod sink;
mod tar;
mod upper;
mod view;
mod xattr;

pub use assemble::assemble;
pub use diff::{diff, verify};
pub use entry::{Content, LayerEntry, Opener};
pub use error::{FoundBytes, LayerError};
pub use metadata::{EntryKind, Metadata, Stat, bounded_mtime_s};
pub use normalise::normalise;
pub use sink::{HashingSink, LayerDigest, LayerSink};
pub use tar::{Member, TAR_VERSION, TarWriter};
pub use view::View;
