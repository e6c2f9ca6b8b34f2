// SPDX-License-Identifier: Apache-2.0
//! What an image is: digests, references, paths inside it, and the documents that describe it.
//!
//! Pure values. This module must not know containerd, the file system or the Dockerfile language.

mod config;
mod digest;
mod document;
mod manifest;
mod path;
mod platform;
mod reference;

pub use config::{Healthcheck, History, ImageConfig, NameSet, Rootfs, RunConfig};
pub use digest::{ChainId, DiffId, Digest, DigestError};
pub use document::{Document, DocumentError};
pub use manifest::{Descriptor, Index, Manifest, ManifestOrIndex, media_type};
pub use path::ImagePath;
pub use platform::{Platform, PlatformError};
pub use reference::{ImageReference, ReferenceError};
