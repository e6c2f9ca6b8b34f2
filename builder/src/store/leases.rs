// SPDX-License-Identifier: Apache-2.0
//! Leases, for the few operations that make objects before anything refers to them; and garbage collection.

use std::time::Duration;

use containerd_client::services::v1::{CreateRequest, DeleteRequest, ListRequest};
use http::HeaderValue;
use tokio::time::Instant;

use super::connection::{Store, unique_name};
use super::convert;
use super::error::StoreError;
use super::labels::{self, Labels};

/// How long to wait, beyond the caller's limit, for containerd to read a request: a collection that is running holds the
/// lock which the request needs. By the end of this it waits for that lock, and nothing calls it back.
const NOTICE_LIMIT: Duration = Duration::from_millis(250);

/// How far a garbage collection had come when the caller stopped waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcOutcome {
    /// It is done.
    Finished,
    /// It is asked for and may still run.
    Requested,
}

impl Store {
    /// Makes a lease that holds what is made under it, until it is deleted or `expire` has passed.
    ///
    /// # Errors
    /// [`StoreError::Label`], or as for every call: a lease of this id that exists included.
    pub async fn create_lease(
        &self,
        id: &str,
        labels: &Labels,
        expire: Option<Duration>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "create lease";
        let mut labels = labels.clone();
        if let Some(expire) = expire {
            // Far beyond any lease there is no moment to write down, and none is needed.
            if let Ok(moment) = jiff::Timestamp::now().checked_add(expire) {
                labels.insert(labels::GC_EXPIRE.to_owned(), moment.to_string());
            }
        }
        self.checked(OPERATION, id, &labels)?;
        let request = CreateRequest { id: id.to_owned(), labels: convert::to_wire_labels(&labels) };
        let answer = self.leases_client().create(request).await;
        answer.map_err(|status| self.failed(OPERATION, id, status))?;
        Ok(())
    }

    /// The same store with every object that is made through it held by this lease.
    ///
    /// # Errors
    /// [`StoreError::Answer`] when the id cannot be a header's value.
    pub fn under_lease(&self, id: &str) -> Result<Self, StoreError> {
        let header = HeaderValue::from_str(id).map_err(|error| StoreError::Answer {
            operation: "use lease",
            subject: id.to_owned(),
            detail: error.to_string(),
        })?;
        Ok(self.with_lease_header(header))
    }

    /// Removes a lease; `false` when there was none. With `sync` the call returns after a garbage collection.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn delete_lease(&self, id: &str, sync: bool) -> Result<bool, StoreError> {
        let answer = self.leases_client().delete(DeleteRequest { id: id.to_owned(), sync }).await;
        self.removed("delete lease", id, answer.err())
    }

    /// Asks for a garbage collection and waits for it no longer than `limit`, or until containerd has taken note of it.
    ///
    /// Deleting a lease synchronously is the only way to ask. containerd schedules the collection before it waits for
    /// it, so it goes on when the caller has gone (1.6.20 and 2.4.2); but a call that is given up before containerd has
    /// read it never happens. That the lease is gone proves that it was read. Without this call containerd collects by
    /// itself some time after deletions, by its scheduler's settings.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn request_gc(&self, limit: Duration) -> Result<GcOutcome, StoreError> {
        let id = unique_name("gc");
        // Should the process end between the calls, the empty lease is collected a minute later.
        self.create_lease(&id, &Labels::new(), Some(Duration::from_secs(60))).await?;
        let give_up = async {
            tokio::time::sleep(limit).await;
            let latest = Instant::now() + NOTICE_LIMIT;
            while Instant::now() < latest && self.lease_exists(&id).await? {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(GcOutcome::Requested)
        };
        tokio::select! {
            answer = self.delete_lease(&id, true) => answer.map(|_| GcOutcome::Finished),
            outcome = give_up => outcome,
        }
    }

    async fn lease_exists(&self, id: &str) -> Result<bool, StoreError> {
        let request = ListRequest { filters: vec![format!("id=={id}")] };
        let answer = self.leases_client().list(request).await;
        let leases = answer.map_err(|status| self.failed("list", "leases", status))?.into_inner().leases;
        Ok(leases.iter().any(|lease| lease.id == id))
    }
}
