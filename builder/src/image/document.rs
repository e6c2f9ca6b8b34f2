// SPDX-License-Identifier: Apache-2.0
//! A JSON document together with the bytes that its digest is of.
//!
//! What was fetched is never written again from its parsed form: another order of keys or an unknown key lost would be
//! another digest.

use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use super::Digest;

/// A parsed document and its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T> {
    raw: Vec<u8>,
    digest: Digest,
    value: T,
}

/// Why bytes are not the document that they should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of the right shape.
    #[error("parse {kind} {digest}")]
    Parse {
        /// What it was to be.
        kind: &'static str,
        /// The digest of the bytes.
        digest: Digest,
        /// Line, column and reason.
        #[source]
        source: serde_json::Error,
    },
    /// The history tells of another number of layers than there are.
    #[error(
        "check image config {digest}: {history} history entries have a layer, but there are {layers} layers"
    )]
    History {
        /// The digest of the config.
        digest: Digest,
        /// Entries that are not marked as empty.
        history: usize,
        /// Number of diff ids.
        layers: usize,
    },
    /// A media type that is neither a manifest's nor an index's.
    #[error("parse manifest {digest}: media type {media_type:?} is not supported")]
    MediaType {
        /// The digest of the bytes.
        digest: Digest,
        /// The media type on record.
        media_type: String,
    },
}

impl<T> Document<T> {
    /// The bytes as fetched or as written.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The digest of [`Document::raw`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Length of [`Document::raw`].
    pub fn size_bytes(&self) -> u64 {
        self.raw.len() as u64
    }

    /// Gives the bytes away.
    pub fn into_raw(self) -> Vec<u8> {
        self.raw
    }

    /// What the document says.
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize> Document<T> {
    /// Writes `value` as compact JSON with its keys in the order of the Go structs that other tools write.
    pub fn write(value: T) -> Self {
        let raw = serde_json::to_vec(&value)
            .expect("invariant: image documents hold no map with other keys than text");
        Self { digest: Digest::of(&raw), raw, value }
    }
}

impl<T: DeserializeOwned> Document<T> {
    /// Parses `raw`. `kind` is the document's name in an error.
    pub(super) fn parse_as(kind: &'static str, raw: Vec<u8>) -> Result<Self, DocumentError> {
        let digest = Digest::of(&raw);
        match serde_json::from_slice(&raw) {
            Ok(value) => Ok(Self { raw, digest, value }),
            Err(source) => Err(DocumentError::Parse { kind, digest, source }),
        }
    }
}

/// For `deserialize_with`: Go writes nil slices and maps as `null`, which reads as the default here.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
