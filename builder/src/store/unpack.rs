// SPDX-License-Identifier: Apache-2.0
//! Snapshots for an image whose layers are in the content store but were never unpacked.

use std::time::Duration;

use containerd_client::services::v1::ApplyRequest;
use containerd_client::types::Mount;

use super::connection::{Store, unique_name};
use super::convert;
use super::error::StoreError;
use super::images::ATTEMPTS;
use super::labels::Labels;
use crate::image::{ChainId, Descriptor, DiffId};

/// The lease of an unpacking, should its process die.
const LEASE_LIMIT: Duration = Duration::from_secs(3600);

impl Store {
    /// Unpacks a layer blob, compressed or not, into the active snapshot `key`, and returns the digest of the layer's
    /// uncompressed stream. containerd does the work.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn apply(&self, layer: &Descriptor, key: &str) -> Result<DiffId, StoreError> {
        let mounts = self.wire_mounts(key).await?;
        self.apply_to(layer, mounts).await
    }

    async fn apply_to(&self, layer: &Descriptor, mounts: Vec<Mount>) -> Result<DiffId, StoreError> {
        const OPERATION: &str = "unpack layer";
        let malformed =
            |detail| StoreError::Answer { operation: OPERATION, subject: layer.digest.to_string(), detail };
        let request = ApplyRequest {
            diff: Some(convert::to_wire_descriptor(layer).map_err(malformed)?),
            mounts,
            ..ApplyRequest::default()
        };
        let answer = self.diff_client().apply(request).await;
        let answer = answer.map_err(|status| self.failed(OPERATION, layer.digest.to_string(), status))?;
        let applied = answer.into_inner().applied.ok_or_else(|| malformed("no descriptor".to_owned()))?;
        applied.digest.parse().map(DiffId).map_err(|error| malformed(format!("{error}")))
    }

    /// Makes the chain-id snapshots of `layers`, lowest first, that are missing; the topmost one gets `labels`, whether
    /// it was missing or not. Returns how many were unpacked. When all is there, labels included, nothing is written.
    ///
    /// The labels should hold [`super::labels::GC_ROOT`]: it keeps the lower ones too. Until they are set, everything
    /// is held by a lease.
    ///
    /// # Errors
    /// [`StoreError::DiffId`] when a blob is not the layer that the config names; else as for every call.
    pub async fn unpack(
        &self,
        layers: &[(Descriptor, DiffId)],
        labels: &Labels,
    ) -> Result<usize, StoreError> {
        let diff_ids: Vec<DiffId> = layers.iter().map(|(_, diff_id)| *diff_id).collect();
        let Some(top) = ChainId::stack(&diff_ids).last().copied() else { return Ok(0) };
        if let Some(info) = self.snapshot(&top.to_string()).await? {
            if labels.iter().all(|(key, value)| info.labels.get(key) == Some(value)) {
                return Ok(0);
            }
            match self.update_snapshot_labels(&top.to_string(), labels, &[]).await {
                Ok(()) => return Ok(0),
                // Collected since it was looked for.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let lease = unique_name("unpack");
        self.create_lease(&lease, &Labels::new(), Some(LEASE_LIMIT)).await?;
        let unpacked = self.under_lease(&lease)?.unpack_missing(layers, top, labels).await;
        let released = self.delete_lease(&lease, false).await;
        let unpacked = unpacked?;
        released?;
        Ok(unpacked)
    }

    async fn unpack_missing(
        &self,
        layers: &[(Descriptor, DiffId)],
        top: ChainId,
        labels: &Labels,
    ) -> Result<usize, StoreError> {
        let mut unpacked = 0;
        for _ in 0..ATTEMPTS {
            match self.unpack_onto_present(layers, &mut unpacked).await {
                Ok(()) => {}
                // A lower snapshot was there when it was looked for, and collected before anything held it.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            }
            match self.update_snapshot_labels(&top.to_string(), labels, &[]).await {
                Ok(()) => return Ok(unpacked),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Contended { operation: "unpack", subject: top.to_string(), attempts: ATTEMPTS })
    }

    async fn unpack_onto_present(
        &self,
        layers: &[(Descriptor, DiffId)],
        unpacked: &mut usize,
    ) -> Result<(), StoreError> {
        let diff_ids: Vec<DiffId> = layers.iter().map(|(_, diff_id)| *diff_id).collect();
        let chains = ChainId::stack(&diff_ids);
        let mut present = chains.len();
        while present > 0 && self.snapshot(&chains[present - 1].to_string()).await?.is_none() {
            present -= 1;
        }
        for (index, (layer, diff_id)) in layers.iter().enumerate().skip(present) {
            let parent = index.checked_sub(1).map(|below| chains[below]);
            let key = unique_name("unpack");
            let mounts = self.prepare_mounts(&key, parent, &Labels::new()).await?;
            let done = self.unpack_one(layer, *diff_id, mounts, &key, chains[index]).await;
            if let Err(error) = done {
                // The first failure is the one to report; a snapshot left behind goes with the lease.
                if let Err(second) = self.remove_snapshot(&key).await {
                    tracing::warn!(
                        key,
                        error = &second as &dyn std::error::Error,
                        "a snapshot is left behind"
                    );
                }
                return Err(error);
            }
            *unpacked += 1;
        }
        Ok(())
    }

    async fn unpack_one(
        &self,
        layer: &Descriptor,
        diff_id: DiffId,
        mounts: Vec<Mount>,
        key: &str,
        chain: ChainId,
    ) -> Result<(), StoreError> {
        let found = self.apply_to(layer, mounts).await?;
        if found != diff_id {
            return Err(StoreError::DiffId {
                blob: layer.digest,
                expected: diff_id.0,
                found: found.to_string(),
            });
        }
        self.commit(chain, key, &Labels::new()).await?;
        Ok(())
    }
}
