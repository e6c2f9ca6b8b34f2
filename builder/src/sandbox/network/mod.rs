// SPDX-License-Identifier: Apache-2.0
//! The network of a build: a namespace behind a bridge of our own, never the cluster's.

mod attachment;
mod cni;
mod link;
mod masquerade;
mod subnet;

pub use attachment::{Network, NetworkError, PLUGIN_DIRECTORIES, remove_unused};
