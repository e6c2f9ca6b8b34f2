// SPDX-License-Identifier: Apache-2.0
//! Compares what was observed with what must hold.
//!
//! The observations come from outside: exit code and log of a builder, the image config, the root file system of the
//! image as a folder, what a pod printed. Nothing here starts anything, asks a builder or a cluster, or measures time;
//! the only I/O is reading below the root folder that was handed in. A comparison that cannot be made is an error of
//! the harness ([`CheckError`]), never a silent pass.

mod build;
mod config;
mod files;
mod finding;
mod pod;
mod root;

pub use build::{BuildObservation, BuildRecord, ImageObservation, check_build, read_stamps};
pub use finding::{Assertion, Finding};
pub use pod::{PodObservation, check_pod};
pub use root::{CheckError, ImageRoot};
