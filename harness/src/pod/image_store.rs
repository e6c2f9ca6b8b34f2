// SPDX-License-Identifier: Apache-2.0
//! Reads containerd's image records, blobs and snapshots over gRPC, in one containerd namespace. Changes nothing.

use std::path::{Path, PathBuf};

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::StatSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{GetImageRequest, InfoRequest, ReadContentRequest};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// containerd's own limit for a message.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The snapshotter that pods use on a node of ours.
pub(super) const SNAPSHOTTER: &str = "overlayfs";

/// A connection to containerd's stores in one namespace.
#[derive(Debug, Clone)]
pub struct ImageStore {
    pub(super) channel: Channel,
    namespace: MetadataValue<Ascii>,
}

/// Why the stores could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageStoreError {
    /// The socket did not take a connection.
    #[error("connect to {}", address.display())]
    Connect {
        /// The socket.
        address: PathBuf,
        /// The reason.
        #[source]
        source: tonic::transport::Error,
    },
    /// A call failed.
    #[error("{operation} {subject}: {}", source.message())]
    Call {
        /// The call.
        operation: &'static str,
        /// The image, blob or snapshot.
        subject: String,
        /// containerd's answer.
        #[source]
        source: Box<Status>,
    },
    /// There is no image of that name.
    #[error("look up image {reference}: no such image")]
    NoImage {
        /// The image's name.
        reference: String,
    },
    /// A blob that was expected to be JSON is not.
    #[error("parse blob {digest}")]
    Json {
        /// The blob.
        digest: String,
        /// Where it stops being JSON.
        #[source]
        source: serde_json::Error,
    },
    /// A JSON document lacks what its specification demands.
    #[error("read {what} of {digest}: it is missing")]
    Field {
        /// The field.
        what: &'static str,
        /// The document.
        digest: String,
    },
    /// An index has no manifest for this machine.
    #[error("pick a manifest of {digest}: none is for linux/{architecture}")]
    NoPlatform {
        /// The index.
        digest: String,
        /// This machine's architecture.
        architecture: &'static str,
    },
}

/// An image's manifest and config, with their digests.
pub(super) struct Documents {
    pub(super) manifest_digest: String,
    pub(super) manifest: Value,
    pub(super) config_digest: String,
}

impl ImageStore {
    /// Connects to the socket at `address`, for the namespace `k8s.io`.
    ///
    /// # Errors
    /// [`ImageStoreError::Connect`].
    pub async fn connect(address: &Path) -> Result<Self, ImageStoreError> {
        let channel = containerd_client::connect(address)
            .await
            .map_err(|source| ImageStoreError::Connect { address: address.to_owned(), source })?;
        Ok(Self { channel, namespace: MetadataValue::from_static("k8s.io") })
    }

    /// The same connection for another namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: &'static str) -> Self {
        self.namespace = MetadataValue::from_static(namespace);
        self
    }

    /// The digest that the image's record names (a manifest or an index), `None` without a record.
    ///
    /// # Errors
    /// [`ImageStoreError::Call`].
    pub async fn target(&self, reference: &str) -> Result<Option<String>, ImageStoreError> {
        let request = self.scoped(GetImageRequest { name: reference.to_owned() });
        let found = ImagesClient::new(self.channel.clone()).get(request).await;
        let found = absent_is_none("get image", reference, found)?;
        Ok(found.and_then(|answer| answer.image?.target).map(|target| target.digest))
    }

    /// The image's manifest for this machine.
    ///
    /// # Errors
    /// [`ImageStoreError`], also when there is no such image.
    pub async fn manifest(&self, reference: &str) -> Result<Value, ImageStoreError> {
        Ok(self.documents(reference).await?.manifest)
    }

    /// The image's config for this machine.
    ///
    /// # Errors
    /// As [`ImageStore::manifest`].
    pub async fn image_config(&self, reference: &str) -> Result<Value, ImageStoreError> {
        let digest = self.documents(reference).await?.config_digest;
        self.json(&digest).await
    }

    /// The digest of the image's config for this machine: its id.
    ///
    /// # Errors
    /// As [`ImageStore::manifest`].
    pub async fn image_id(&self, reference: &str) -> Result<String, ImageStoreError> {
        Ok(self.documents(reference).await?.config_digest)
    }

    /// A blob's bytes.
    ///
    /// # Errors
    /// [`ImageStoreError::Call`], with the code `NotFound` for an absent one.
    pub async fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageStoreError> {
        let call =
            |source| ImageStoreError::Call { operation: "read blob", subject: digest.to_owned(), source };
        let request = self.scoped(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
        let mut client =
            ContentClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut stream = client.read(request).await.map_err(|status| call(Box::new(status)))?.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(|status| call(Box::new(status)))? {
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }

    /// Whether a blob is in the content store.
    ///
    /// # Errors
    /// [`ImageStoreError::Call`].
    pub async fn has_blob(&self, digest: &str) -> Result<bool, ImageStoreError> {
        let request = self.scoped(InfoRequest { digest: digest.to_owned() });
        let found = ContentClient::new(self.channel.clone()).info(request).await;
        Ok(absent_is_none("look up blob", digest, found)?.is_some())
    }

    /// Whether a snapshot of that name is in the snapshotter that pods use.
    ///
    /// # Errors
    /// [`ImageStoreError::Call`].
    pub async fn has_snapshot(&self, key: &str) -> Result<bool, ImageStoreError> {
        let request = StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let found = SnapshotsClient::new(self.channel.clone()).stat(self.scoped(request)).await;
        Ok(absent_is_none("look up snapshot", key, found)?.is_some())
    }

    pub(super) async fn json(&self, digest: &str) -> Result<Value, ImageStoreError> {
        let bytes = self.blob(digest).await?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ImageStoreError::Json { digest: digest.to_owned(), source })
    }

    /// Follows the image's record, through an index if there is one, to the manifest for this machine.
    pub(super) async fn documents(&self, reference: &str) -> Result<Documents, ImageStoreError> {
        let target = self.target(reference).await?;
        let mut manifest_digest =
            target.ok_or_else(|| ImageStoreError::NoImage { reference: reference.to_owned() })?;
        let mut manifest = self.json(&manifest_digest).await?;
        if let Some(entries) = manifest["manifests"].as_array() {
            let architecture = architecture();
            let own = entries.iter().find(|entry| {
                entry["platform"]["os"] == "linux" && entry["platform"]["architecture"] == architecture
            });
            let own = own.or_else(|| entries.iter().find(|entry| entry["platform"].is_null()));
            let digest = own.and_then(|entry| entry["digest"].as_str());
            let digest = digest
                .ok_or(ImageStoreError::NoPlatform { digest: manifest_digest, architecture })?
                .to_owned();
            manifest = self.json(&digest).await?;
            manifest_digest = digest;
        }
        let config_digest = manifest["config"]["digest"].as_str().map(str::to_owned).ok_or_else(|| {
            ImageStoreError::Field { what: "config.digest", digest: manifest_digest.clone() }
        })?;
        Ok(Documents { manifest_digest, manifest, config_digest })
    }

    /// The chain ids of the image's layers, lowest first (OCI image specification, "Layer ChainID").
    pub(super) async fn chain_ids(&self, config_digest: &str) -> Result<Vec<String>, ImageStoreError> {
        let config = self.json(config_digest).await?;
        let missing = || ImageStoreError::Field { what: "rootfs.diff_ids", digest: config_digest.to_owned() };
        let diff_ids = config["rootfs"]["diff_ids"].as_array().ok_or_else(missing)?;
        let diff_ids = diff_ids.iter().map(|id| id.as_str().ok_or_else(missing));
        Ok(chain(&diff_ids.collect::<Result<Vec<_>, _>>()?))
    }

    pub(super) fn scoped<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }
}

fn chain(diff_ids: &[&str]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => (*diff_id).to_owned(),
            Some(parent) => {
                let hash = Sha256::digest(format!("{parent} {diff_id}").as_bytes());
                let hex: Vec<_> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("sha256:{}", hex.concat())
            }
        };
        chain.push(next);
    }
    chain
}

fn absent_is_none<T>(
    operation: &'static str,
    subject: &str,
    answer: Result<tonic::Response<T>, Status>,
) -> Result<Option<T>, ImageStoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => {
            Err(ImageStoreError::Call { operation, subject: subject.to_owned(), source: Box::new(status) })
        }
    }
}

/// The name of this machine's architecture in image indexes (Go's `GOARCH`).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_starts_with_the_diff_id_itself() {
        // The second value was computed by sha256sum of `sha256:a sha256:b`.
        assert_eq!(
            chain(&["sha256:a", "sha256:b"]),
            ["sha256:a", "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8"]
        );
    }
}
