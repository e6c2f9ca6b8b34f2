// SPDX-License-Identifier: Apache-2.0
//! What an image is: digests, references, paths inside it, and the documents that describe it.
//!
//! Pure values. This module must not know containerd, the file system or the Dockerfile language.

mod digest;
mod path;
mod reference;

pub use digest::{ChainId, DiffId, Digest, DigestError};
pub use path::ImagePath;
pub use reference::{ImageReference, ReferenceError};
