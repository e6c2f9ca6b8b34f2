// SPDX-License-Identifier: Apache-2.0
//! The connection to containerd, in one namespace.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{CreateNamespaceRequest, Namespace};
use http::HeaderValue;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::Status;

use super::counts::RpcCounts;
use super::cri::Cri;
use super::discovery::{self, KUBERNETES_NAMESPACE};
use super::error::StoreError;
use super::labels::{self, Labels};
use super::transport::{MESSAGE_LIMIT_BYTES, Transport};

/// containerd's stores in one namespace, over one connection. Clones share the connection and the call counts.
///
/// The snapshotter is always overlayfs: the builder writes into snapshot directories itself and knows no other layout.
#[derive(Clone)]
pub struct Store {
    transport: Transport,
    address: Arc<PathBuf>,
    namespace: Arc<str>,
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Store({}, {})", self.address.display(), self.namespace)
    }
}

/// A client of one service, with containerd's own message limits.
macro_rules! client {
    ($name:ident, $client:ident) => {
        pub(super) fn $name(&self) -> $client<Transport> {
            $client::new(self.transport.clone())
                .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
                .max_encoding_message_size(MESSAGE_LIMIT_BYTES)
        }
    };
}

impl Store {
    client!(content_client, ContentClient);
    client!(diff_client, DiffClient);
    client!(images_client, ImagesClient);
    client!(introspection_client, IntrospectionClient);
    client!(leases_client, LeasesClient);
    client!(namespaces_client, NamespacesClient);
    client!(snapshots_client, SnapshotsClient);
    client!(version_client, VersionClient);
    client!(cri_images_client, ImageServiceClient);
    client!(cri_runtime_client, RuntimeServiceClient);

    /// Prepares a connection to `address`; the first call connects. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// [`StoreError::Namespace`] when containerd would refuse the name.
    pub fn connect(address: &Path, namespace: &str) -> Result<Self, StoreError> {
        let wrong = || StoreError::Namespace { namespace: namespace.to_owned() };
        if !is_identifier(namespace) {
            return Err(wrong());
        }
        let header = HeaderValue::from_str(namespace).map_err(|_| wrong())?;
        Ok(Self {
            transport: Transport::new(address, header),
            address: Arc::new(address.to_owned()),
            namespace: namespace.into(),
        })
    }

    /// The socket.
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// The namespace that all calls but CRI's work in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The calls made through this connection and its clones.
    pub fn counts(&self) -> &RpcCounts {
        self.transport.counts()
    }

    /// The CRI service on the same socket; `None` in a namespace that CRI does not see.
    pub fn cri(&self) -> Option<Cri> {
        (&*self.namespace == KUBERNETES_NAMESPACE).then(|| Cri::new(self.clone()))
    }

    /// containerd's version, as it tells it.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn version(&self) -> Result<String, StoreError> {
        let answer = self.version_client().version(()).await;
        let answer = answer.map_err(|status| self.failed("ask", "containerd for its version", status))?;
        Ok(answer.into_inner().version)
    }

    /// Makes the namespace if it is not there, so that tools which list namespaces show it.
    ///
    /// containerd needs no such object: 1.6 and 2.x make whatever buckets a write wants. `k8s.io` is CRI's to make, so
    /// no call is made for it.
    ///
    /// # Errors
    /// [`StoreError::Call`] or [`StoreError::Unreachable`].
    pub async fn ensure_namespace(&self) -> Result<(), StoreError> {
        if &*self.namespace == KUBERNETES_NAMESPACE {
            return Ok(());
        }
        let namespace = Some(Namespace { name: self.namespace.to_string(), labels: <_>::default() });
        let answer = self.namespaces_client().create(CreateNamespaceRequest { namespace }).await;
        match answer.map_err(|status| self.failed("create namespace", &*self.namespace, status)) {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The same store with everything that is made held by a lease.
    pub(super) fn with_lease_header(&self, lease: HeaderValue) -> Self {
        Self { transport: self.transport.under(lease), ..self.clone() }
    }

    /// Turns the status of a failed call into an error that says what was tried.
    pub(super) fn failed(
        &self,
        operation: &'static str,
        subject: impl Into<String>,
        status: Status,
    ) -> StoreError {
        let subject = subject.into();
        // A status that containerd sent has no source; one that the transport made has.
        if std::error::Error::source(&status).is_some() {
            let problem = discovery::diagnose(&self.address);
            let address = self.address.to_path_buf();
            return StoreError::Unreachable { operation, subject, address, problem, source: status.into() };
        }
        StoreError::Call { operation, subject, source: status.into() }
    }

    pub(super) fn checked(
        &self,
        operation: &'static str,
        subject: impl Into<String>,
        labels: &Labels,
    ) -> Result<(), StoreError> {
        labels::check(labels).map_err(|source| StoreError::Label {
            operation,
            subject: subject.into(),
            source,
        })
    }
}

/// A name that no other process uses: `pushless-<purpose>-<random><counter>`.
///
/// Process ids would not do: every build is PID 1 of its own namespace.
pub(super) fn unique_name(purpose: &str) -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // RandomState is seeded by the kernel's random numbers.
    let process = PROCESS.get_or_init(|| std::hash::RandomState::new().build_hasher().finish());
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("pushless-{purpose}-{process:016x}-{counter}")
}

/// `identifiers.Validate` of containerd: letters and digits, with single separators between them, up to 76 bytes.
fn is_identifier(name: &str) -> bool {
    name.len() <= 76
        && name
            .split(['.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_identifiers() {
        for (name, good) in [
            ("k8s.io", true),
            ("default", true),
            ("a-b_c.d", true),
            ("", false),
            ("a--b", false),
            (".a", false),
            ("a\nb", false),
            (&"a".repeat(77), false),
        ] {
            assert_eq!(is_identifier(name), good, "{name:?}");
        }
    }

    #[test]
    fn unique_names_differ() {
        assert_ne!(unique_name("a"), unique_name("a"));
    }

    #[tokio::test]
    async fn an_absent_socket_is_named_with_its_problem() {
        let dir = tempfile::tempdir().unwrap();
        let address = dir.path().join("absent.sock");
        let store = Store::connect(&address, "k8s.io").unwrap();
        let error = store.snapshot("a").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("stat snapshot a: containerd is not reachable at {}: no such file", address.display())
        );
        assert!(error.help().is_some());
        assert_eq!(store.counts().snapshot().reads(), 1);
    }
}
