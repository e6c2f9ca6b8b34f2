// SPDX-License-Identifier: Apache-2.0
//! containerd's stores: images, content, snapshots, leases, and the CRI view on them.
//!
//! The only place that knows gRPC. Signatures carry domain types; generated types stay inside. This module must not
//! know Dockerfiles, build steps or what a layer contains.

mod connection;
mod content;
mod convert;
mod counts;
mod cri;
pub mod discovery;
mod error;
mod images;
mod ingest;
pub mod labels;
mod leases;
mod mounts;
mod snapshots;
mod transport;
mod unpack;

pub use connection::Store;
pub use content::{BlobOutcome, ContentInfo};
pub use counts::{Access, RpcCounts, RpcSnapshot};
pub use cri::Cri;
pub use discovery::{Discovery, DiscoveryError, Environment, SocketProblem};
pub use error::{Cause, ErrorKind, StoreError};
pub use images::{ImageOutcome, ImageRecord};
pub use ingest::{BlobSink, ContentWriter, Ingest, Streamed};
pub use labels::{LabelError, Labels};
pub use leases::GcOutcome;
pub use mounts::{MountEntry, MountsError, SnapshotDirs};
pub use snapshots::{CommitOutcome, SnapshotInfo, SnapshotKind, Usage};
