// SPDX-License-Identifier: Apache-2.0
//! Blobs by digest: small documents in one message, and the labels on any of them.
//!
//! Content that exists keeps its old labels when it is written again, so whoever writes a blob that was there already
//! has to set the labels on it; [`Store::write_blob`] does.

use std::time::SystemTime;

use containerd_client::services::v1::{
    DeleteContentRequest, Info, InfoRequest, ListContentRequest, ReadContentRequest, UpdateRequest,
    WriteAction, WriteContentRequest,
};
use tonic::codegen::tokio_stream;

use super::connection::{Store, unique_name};
use super::convert;
use super::error::StoreError;
use super::images::ATTEMPTS;
use super::labels::Labels;
use super::transport::MESSAGE_LIMIT_BYTES;
use crate::image::Digest;

/// What containerd knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentInfo {
    /// The blob's digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// Its labels.
    pub labels: Labels,
    /// When it was committed.
    pub created_at: Option<SystemTime>,
}

/// What became of a blob that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobOutcome {
    /// It was stored.
    Written,
    /// It was there; the labels were set on it.
    AlreadyThere,
}

impl Store {
    /// What containerd knows of a blob; `None` when it is not there.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn content_info(&self, digest: Digest) -> Result<Option<ContentInfo>, StoreError> {
        const OPERATION: &str = "look up content";
        let request = InfoRequest { digest: digest.to_string() };
        let answer = match self.content_client().info(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let error = self.failed(OPERATION, digest.to_string(), status);
                return if error.is_not_found() { Ok(None) } else { Err(error) };
            }
        };
        let malformed =
            |detail| StoreError::Answer { operation: OPERATION, subject: digest.to_string(), detail };
        let info = answer.info.ok_or_else(|| malformed("no info".to_owned()))?;
        convert::to_content(info).map(Some).map_err(malformed)
    }

    /// The bytes of a document: a manifest, an index or a config. They are checked against the digest.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] beyond `limit_bytes`, [`StoreError::Corrupt`] when the bytes are not those of the
    /// digest; else as for every call, an absent blob included.
    pub async fn read_content(&self, digest: Digest, limit_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let failed = |status| self.failed("read content", digest.to_string(), status);
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let mut frames = self.content_client().read(request).await.map_err(failed)?.into_inner();
        let mut bytes = Vec::new();
        while let Some(frame) = frames.message().await.map_err(failed)? {
            if (bytes.len() + frame.data.len()) as u64 > limit_bytes {
                return Err(StoreError::TooLarge { digest, limit_bytes });
            }
            bytes.extend_from_slice(&frame.data);
        }
        let found = Digest::of(&bytes);
        if found == digest { Ok(bytes) } else { Err(StoreError::Corrupt { digest, found }) }
    }

    /// Stores a document with its labels, in one message: containerd takes 2 ms for it, most of them for the sync.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for what does not fit into a message, [`StoreError::Label`], or as for every call.
    pub async fn write_blob(
        &self,
        digest: Digest,
        bytes: &[u8],
        labels: &Labels,
    ) -> Result<BlobOutcome, StoreError> {
        const OPERATION: &str = "write content";
        // Room for the labels and the framing.
        const LIMIT_BYTES: u64 = (MESSAGE_LIMIT_BYTES - (1 << 20)) as u64;
        self.checked(OPERATION, digest.to_string(), labels)?;
        let total = match i64::try_from(bytes.len()) {
            Ok(total) if bytes.len() as u64 <= LIMIT_BYTES => total,
            _ => return Err(StoreError::TooLarge { digest, limit_bytes: LIMIT_BYTES }),
        };
        for _ in 0..ATTEMPTS {
            let request = WriteContentRequest {
                action: WriteAction::Commit.into(),
                // An own reference: two processes may write the same blob, and containerd locks by reference.
                r#ref: unique_name("blob"),
                total,
                expected: digest.to_string(),
                offset: 0,
                data: bytes.to_vec(),
                labels: convert::to_wire_labels(labels),
            };
            let status = match self.content_client().write(tokio_stream::once(request)).await {
                Err(status) => status,
                Ok(answers) => match answers.into_inner().message().await {
                    Err(status) => status,
                    Ok(Some(_)) => return Ok(BlobOutcome::Written),
                    Ok(None) => {
                        return Err(StoreError::Answer {
                            operation: OPERATION,
                            subject: digest.to_string(),
                            detail: "the commit was not confirmed".to_owned(),
                        });
                    }
                },
            };
            let error = self.failed(OPERATION, digest.to_string(), status);
            if !error.is_already_exists() {
                return Err(error);
            }
            if self.label_existing(digest, labels).await? {
                return Ok(BlobOutcome::AlreadyThere);
            }
        }
        Err(StoreError::Contended { operation: OPERATION, subject: digest.to_string(), attempts: ATTEMPTS })
    }

    /// Sets labels on a blob that is there already; `false` when it has gone meanwhile.
    pub(super) async fn label_existing(&self, digest: Digest, labels: &Labels) -> Result<bool, StoreError> {
        if labels.is_empty() {
            return Ok(self.content_info(digest).await?.is_some());
        }
        match self.update_content_labels(digest, labels, &[]).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets and removes single labels of a blob; the others stay. Without any there is no call.
    ///
    /// # Errors
    /// [`StoreError::Label`], or as for every call, an absent blob included.
    pub async fn update_content_labels(
        &self,
        digest: Digest,
        set: &Labels,
        unset: &[&str],
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "label content";
        self.checked(OPERATION, digest.to_string(), set)?;
        if set.is_empty() && unset.is_empty() {
            // An empty mask would mean the whole record.
            return Ok(());
        }
        let info =
            Info { digest: digest.to_string(), labels: convert::to_wire_labels(set), ..Info::default() };
        // A path without a value removes the label.
        let mask = convert::label_mask(set.keys().map(String::as_str).chain(unset.iter().copied()));
        let request = UpdateRequest { info: Some(info), update_mask: Some(mask) };
        let answer = self.content_client().update(request).await;
        answer.map_err(|status| self.failed(OPERATION, digest.to_string(), status))?;
        Ok(())
    }

    /// Removes a blob; `false` when it was not there. Its bytes go with the next garbage collection.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn delete_content(&self, digest: Digest) -> Result<bool, StoreError> {
        let digest = digest.to_string();
        let answer = self.content_client().delete(DeleteContentRequest { digest: digest.clone() }).await;
        self.removed("delete content", &digest, answer.err())
    }

    /// The blobs that one of containerd's filters matches; all of them without a filter.
    ///
    /// A blob under another digest algorithm is left out with a warning: it is not one of ours.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn list_content(&self, filters: &[&str]) -> Result<Vec<ContentInfo>, StoreError> {
        let failed = |status| self.failed("list", "content", status);
        let request = ListContentRequest { filters: filters.iter().map(ToString::to_string).collect() };
        let mut batches = self.content_client().list(request).await.map_err(failed)?.into_inner();
        let mut found = Vec::new();
        while let Some(batch) = batches.message().await.map_err(failed)? {
            for info in batch.info {
                let digest = info.digest.clone();
                match convert::to_content(info) {
                    Ok(info) => found.push(info),
                    Err(detail) => tracing::warn!(digest, detail, "blob left out"),
                }
            }
        }
        Ok(found)
    }
}
