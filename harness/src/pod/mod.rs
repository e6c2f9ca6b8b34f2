// SPDX-License-Identifier: Apache-2.0
//! Is an image usable by a pod? Through CRI exactly as a kubelet asks, and by a look into containerd's stores.
//!
//! Nothing here ever pulls: an image that was not built is absent. This module must not know which builder made an
//! image.

mod error;
mod image_store;
mod log;
mod request;
mod rootfs;
mod runtime;
mod store_tier;

pub use error::PodError;
pub use image_store::{ImageStore, ImageStoreError};
pub use log::{ContainerLog, LogError};
pub use request::{PodOutcome, PodPhases, PodRequest};
pub use rootfs::{ImageRoot, ImageRootError};
pub use runtime::{ImageFacts, PodRuntime};
pub use store_tier::StoreTier;
