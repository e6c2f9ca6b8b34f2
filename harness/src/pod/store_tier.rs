// SPDX-License-Identifier: Apache-2.0
//! The lowest tier of "usable by a pod": what of an image lies in containerd's stores.
//!
//! Two assertions: *runnable* (manifest, config and the snapshot of every layer exist: all that a pod needs) and
//! *complete* (every blob exists too: what push, save and other tools need).

use super::{ImageStore, ImageStoreError};

/// What of an image is in the stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreTier {
    /// The image's id: the digest of its config.
    pub image_id: String,
    /// The digest of its manifest.
    pub manifest_digest: String,
    /// The chain ids of its layers, lowest first; empty when the config is missing.
    pub chain_ids: Vec<String>,
    /// Whether the config blob exists.
    pub has_config: bool,
    /// Chain ids without a snapshot.
    pub missing_snapshots: Vec<String>,
    /// Digests of layers without a blob.
    pub missing_blobs: Vec<String>,
}

impl StoreTier {
    /// Looks an image up; `None` without a record of that name or with a record whose manifest is missing.
    ///
    /// # Errors
    /// [`ImageStoreError`] when containerd does not answer or a document is malformed.
    pub async fn inspect(store: &ImageStore, reference: &str) -> Result<Option<Self>, ImageStoreError> {
        let documents = match store.documents(reference).await {
            Err(ImageStoreError::NoImage { .. }) => return Ok(None),
            Err(ImageStoreError::Call { source, .. }) if source.code() == tonic::Code::NotFound => {
                return Ok(None);
            }
            documents => documents?,
        };
        let has_config = store.has_blob(&documents.config_digest).await?;
        let chain_ids =
            if has_config { store.chain_ids(&documents.config_digest).await? } else { Vec::new() };
        let mut missing_snapshots = Vec::new();
        for chain_id in &chain_ids {
            if !store.has_snapshot(chain_id).await? {
                missing_snapshots.push(chain_id.clone());
            }
        }
        let layers = documents.manifest["layers"].as_array();
        let layers = layers.ok_or_else(|| ImageStoreError::Field {
            what: "layers",
            digest: documents.manifest_digest.clone(),
        })?;
        let mut missing_blobs = Vec::new();
        for layer in layers {
            let digest = layer["digest"].as_str().ok_or_else(|| ImageStoreError::Field {
                what: "layers.digest",
                digest: documents.manifest_digest.clone(),
            })?;
            if !store.has_blob(digest).await? {
                missing_blobs.push(digest.to_owned());
            }
        }
        Ok(Some(Self {
            image_id: documents.config_digest,
            manifest_digest: documents.manifest_digest,
            chain_ids,
            has_config,
            missing_snapshots,
            missing_blobs,
        }))
    }

    /// Manifest, config and the snapshot of every layer exist.
    pub fn is_runnable(&self) -> bool {
        self.has_config && self.missing_snapshots.is_empty()
    }

    /// It is runnable and every blob exists.
    pub fn is_complete(&self) -> bool {
        self.is_runnable() && self.missing_blobs.is_empty()
    }
}
