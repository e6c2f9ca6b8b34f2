// SPDX-License-Identifier: Apache-2.0
//! Manifests, indexes and the descriptors in them.
//!
//! Docker's and OCI's documents have the same shape and are read alike; what is written is OCI. Field order is that of
//! the Go structs in the OCI image specification v1.1 (`specs-go/v1/{descriptor,manifest,index}.go`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::null_as_default;
use super::{Digest, Document, DocumentError, Platform};

/// Media types, in OCI's and in Docker's words.
pub mod media_type {
    /// An OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An uncompressed OCI layer.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's name for an index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

    /// Whether this is a manifest's media type.
    pub fn is_manifest(text: &str) -> bool {
        matches!(text, MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether this is an index's media type.
    pub fn is_index(text: &str) -> bool {
        matches!(text, INDEX | DOCKER_INDEX)
    }

    /// Whether this is an image config's media type.
    pub fn is_config(text: &str) -> bool {
        matches!(text, CONFIG | DOCKER_CONFIG)
    }
}

/// A pointer to content: what it is, its digest and its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What the content is.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The length of the content.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// Other places to fetch it from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub urls: Vec<String>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// In an index: what the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What an artifact is.
    #[serde(rename = "artifactType", default, skip_serializing_if = "String::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
    pub artifact_type: String,
}

impl Descriptor {
    /// A descriptor with nothing optional in it.
    pub fn new(media_type: &str, digest: Digest, size_bytes: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size_bytes,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: String::new(),
        }
    }

    /// The descriptor of a document.
    pub fn of<T>(media_type: &str, document: &Document<T>) -> Self {
        Self::new(media_type, document.digest(), document.size_bytes())
    }
}

/// What makes up one image: a config and layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// What the document says of itself; may be absent in OCI.
    #[serde(rename = "mediaType", default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What an artifact is.
    #[serde(rename = "artifactType", default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// What an artifact belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI manifest. Layers keep the descriptors that they came with.
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            artifact_type: String::new(),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// Several manifests under one name, usually one per platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// What the document says of itself; may be absent in OCI.
    #[serde(rename = "mediaType", default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What an artifact is.
    #[serde(rename = "artifactType", default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// The manifests, or further indexes.
    #[serde(deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// What an artifact belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// The entry for `wanted`, by the rules of [`Platform::rank`]: the closest variant, the first of equals.
    ///
    /// An entry without a platform is taken when nothing else fits; its config must then be looked at.
    pub fn choose(&self, wanted: &Platform) -> Option<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for entry in &self.manifests {
            let rank = match &entry.platform {
                None => Some(u32::MAX),
                Some(platform) => wanted.rank(platform),
            };
            if let Some(rank) = rank
                && best.is_none_or(|(so_far, _)| rank < so_far)
            {
                best = Some((rank, entry));
            }
        }
        best.map(|(_, entry)| entry)
    }
}

/// What an image name can point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Document<Manifest>),
    /// Several.
    Index(Document<Index>),
}

/// Enough of a document to tell which one it is.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "mediaType", default, deserialize_with = "null_as_default")]
    media_type: String,
    manifests: Option<serde::de::IgnoredAny>,
}

impl ManifestOrIndex {
    /// Parses `raw`. The document's own media type decides; an OCI document without one is told by its keys, after the
    /// media type of the descriptor that led here (empty when unknown).
    ///
    /// # Errors
    /// [`DocumentError::Parse`], [`DocumentError::MediaType`].
    pub fn parse(raw: Vec<u8>, descriptor_media_type: &str) -> Result<Self, DocumentError> {
        let shape = Document::<Shape>::parse_as("manifest", raw)?;
        let media_type = if shape.value().media_type.is_empty() {
            descriptor_media_type.to_owned()
        } else {
            shape.value().media_type.clone()
        };
        let (digest, has_manifests) = (shape.digest(), shape.value().manifests.is_some());
        let raw = shape.into_raw();
        match media_type.as_str() {
            known if media_type::is_manifest(known) => {
                Ok(Self::Manifest(Document::parse_as("manifest", raw)?))
            }
            known if media_type::is_index(known) => Ok(Self::Index(Document::parse_as("index", raw)?)),
            "" if has_manifests => Ok(Self::Index(Document::parse_as("index", raw)?)),
            "" => Ok(Self::Manifest(Document::parse_as("manifest", raw)?)),
            _ => Err(DocumentError::MediaType { digest, media_type }),
        }
    }
}
