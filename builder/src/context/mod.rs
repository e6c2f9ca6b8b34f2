// SPDX-License-Identifier: Apache-2.0
//! What `COPY` sees: the build context and the root file systems of other stages, as lists of entries.
//!
//! Given source patterns and a tree, [`select`] says exactly which entries are copied, with their metadata and the
//! digests of their contents, without reading again what has not changed since an earlier build.
//! This module must not know where the entries go: no snapshots, no layers, no containerd.

mod digest;
mod dockerfile_source;
mod entry;
mod error;
mod hash;
mod ignore;
mod pattern;
mod select;
mod stat;
mod stat_cache;
mod stat_cache_file;
mod tree;
mod walk;

pub use digest::selection_digest;
pub use dockerfile_source::{DOCKERFILE_LIMIT_BYTES, DockerfileSource};
pub use entry::{ContentDigest, EntryKind, HardlinkGroup, SelectedSource, SourceEntry, SourceKind};
pub use error::{ContextError, IgnoredBy};
pub use ignore::{IgnoreFile, IgnoreMatcher, IgnoreProblem, IgnoreRule, IgnoreTrail, IgnoreVerdict};
pub use pattern::{Pattern, PatternError, PatternProblem};
pub use select::select;
pub use stat::{StatKey, Timestamp};
pub use stat_cache::{Clock, RACY_WINDOW, StatCache, SystemClock};
pub use tree::SourceTree;
