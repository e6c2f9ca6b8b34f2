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
    #[serde(deserialize_with = "null_as_default")]
    pub media_type: String,
    /// What an artifact is.
    #[serde(rename = "artifactType", default, skip_serializing_if = "String::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
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
    #[serde(deserialize_with = "null_as_default")]
    pub media_type: String,
    /// What an artifact is.
    #[serde(rename = "artifactType", default, skip_serializing_if = "String::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
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
    Manifest(Box<Document<Manifest>>),
    /// Several.
    Index(Box<Document<Index>>),
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
                Ok(Self::Manifest(Box::new(Document::parse_as("manifest", raw)?)))
            }
            known if media_type::is_index(known) => {
                Ok(Self::Index(Box::new(Document::parse_as("index", raw)?)))
            }
            "" if has_manifests => Ok(Self::Index(Box::new(Document::parse_as("index", raw)?))),
            "" => Ok(Self::Manifest(Box::new(Document::parse_as("manifest", raw)?))),
            _ => Err(DocumentError::MediaType { digest, media_type }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, text: &str) -> Descriptor {
        Descriptor::new(media_type, Digest::of(text.as_bytes()), text.len() as u64)
    }

    #[test]
    fn a_manifest_is_written_as_oci_and_layers_keep_their_descriptors() {
        let mut base = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "base");
        base.urls = vec!["https://example.test/base".to_owned()];
        base.annotations =
            BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let layers = vec![base, descriptor(media_type::LAYER, "own")];
        let written = Document::write(Manifest::oci(descriptor(media_type::CONFIG, "{}"), layers));
        insta::assert_snapshot!(str::from_utf8(written.raw()).unwrap(), @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","size":4,"urls":["https://example.test/base"],"annotations":{"a":"1","b":"2"}},{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:5b3975651c3cab92d044c096dc30a1c2d9525497457472de48c51ecb363d1f4a","size":3}]}"#);
        let read = ManifestOrIndex::parse(written.raw().to_vec(), "").unwrap();
        assert_eq!(read, ManifestOrIndex::Manifest(Box::new(written)));
    }

    #[test]
    fn documents_are_told_apart() {
        let manifest = |media_type: &str| {
            let config = r#"{"mediaType":"x","size":1,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;
            format!(r#"{{"schemaVersion":2{media_type},"config":{config},"layers":null,"unknown":1}}"#)
        };
        let index = |media_type: &str| format!(r#"{{"schemaVersion":2{media_type},"manifests":[]}}"#);
        let own = |name: &str| format!(r#","mediaType":"{name}""#);
        for (document, from, is_index) in [
            (manifest(""), "", false),
            (manifest(""), media_type::MANIFEST, false),
            (manifest(&own(media_type::DOCKER_MANIFEST)), "", false),
            (manifest(&own(media_type::MANIFEST)), media_type::INDEX, false),
            (index(""), "", true),
            (index(r#","mediaType":null"#), "", true),
            (index(&own(media_type::INDEX)), "", true),
            (index(&own(media_type::DOCKER_INDEX)), "", true),
        ] {
            let read = ManifestOrIndex::parse(document.clone().into_bytes(), from).unwrap();
            assert_eq!(matches!(read, ManifestOrIndex::Index(_)), is_index, "{document}");
        }
        let schema_1 = index(&own("application/vnd.docker.distribution.manifest.v1+prettyjws"));
        let error = ManifestOrIndex::parse(schema_1.into_bytes(), "").unwrap_err();
        assert!(
            error.to_string().ends_with(
                ": media type \"application/vnd.docker.distribution.manifest.v1+prettyjws\" is not supported"
            ),
            "{error}"
        );
    }

    #[test]
    fn the_closest_platform_is_chosen() {
        let entry = |platform: Option<&str>| {
            let text = platform.unwrap_or("none");
            let mut descriptor = descriptor(media_type::MANIFEST, text);
            descriptor.platform = platform.map(|text| {
                let mut parts = text.split('/').map(str::to_owned);
                let mut next = || parts.next().unwrap_or_default();
                let (os, architecture, variant) = (next(), next(), next());
                Platform { os, architecture, variant, os_version: String::new(), os_features: Vec::new() }
            });
            descriptor
        };
        let choose = |offered: &[Option<&str>], wanted: &str| {
            let manifests: Vec<_> = offered.iter().map(|platform| entry(*platform)).collect();
            let index = Index {
                schema_version: 2,
                media_type: media_type::INDEX.to_owned(),
                artifact_type: String::new(),
                manifests,
                subject: None,
                annotations: BTreeMap::new(),
            };
            let chosen = index.choose(&wanted.parse().unwrap()).map(|chosen| chosen.digest);
            offered
                .iter()
                .find(|platform| chosen == Some(Digest::of(platform.unwrap_or("none").as_bytes())))
                .map(|platform| platform.unwrap_or("none").to_owned())
        };
        let arms =
            [Some("linux/arm/v5"), Some("linux/arm/v7"), Some("linux/arm64/v8"), Some("unknown/unknown")];
        for (offered, wanted, chosen) in [
            (&arms[..], "linux/arm64", Some("linux/arm64/v8")),
            (&arms, "linux/arm/v7", Some("linux/arm/v7")),
            (&arms, "linux/arm/v6", Some("linux/arm/v5")),
            (&arms, "linux/amd64", None),
            (&[None], "linux/amd64", Some("none")),
            (&[None, Some("linux/amd64")], "linux/amd64", Some("linux/amd64")),
        ] {
            assert_eq!(choose(offered, wanted).as_deref(), chosen, "{wanted} among {offered:?}");
        }
    }

    #[test]
    fn an_index_entry_keeps_the_order_of_go() {
        let mut entry = descriptor(media_type::MANIFEST, "x");
        entry.platform = Some("linux/arm/v7".parse().unwrap());
        insta::assert_snapshot!(serde_json::to_string(&entry).unwrap(), @r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1,"platform":{"architecture":"arm","os":"linux","variant":"v7"}}"#);
    }
}
