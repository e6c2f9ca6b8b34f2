// SPDX-License-Identifier: Apache-2.0
//! A private containerd for tests and conformance runs: own root, state, socket and CNI configuration in one directory,
//! base images made from the host's busybox, a private registry to pull from, and nothing left behind.
//!
//! A [`Node`] is meant to run inside [`confine::enter`]: when that supervisor dies, even by `SIGKILL`, the kernel ends
//! every process and every mount of the node. What can remain is directories and cgroups; the next run takes those with
//! [`Leftovers::collect`]. This crate knows containerd and CRI; it must not know any builder.

mod base_image;
mod binaries;
mod cgroups;
mod config;
mod inventory;
mod leftovers;
mod mounts;
mod node;
mod processes;
mod registry;
mod run_directory;
mod shim_directory;
mod teardown;
mod test_place;
mod workloads;

pub use base_image::{BaseImage, BaseImageError};
pub use binaries::{BinariesError, ContainerdBinaries, ContainerdVersion};
pub use config::ConfigVersion;
pub use inventory::{Difference, Inventory, InventoryError, Residue, ResidueKind};
pub use leftovers::{Leftovers, LeftoversError};
pub use node::{Node, NodeError, NodeOptions};
pub use processes::ProcessMarker;
pub use registry::{Registry, RegistryError};
pub use run_directory::{RunDirectoryError, RunId};
pub use teardown::TeardownError;
pub use test_place::{TestPlace, TestPlaceError};
