// SPDX-License-Identifier: Apache-2.0
//! The one connection below all clients: counts each call and puts containerd's headers on it.

use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use http::HeaderValue;
use hyper_util::rt::TokioIo;
use tonic::body::Body;
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::counts::RpcCounts;

/// Flow-control window: frames of 1 MiB should not wait for window updates.
const WINDOW_BYTES: u32 = 8 << 20;

/// containerd's own limit for a message, both ways.
pub(super) const MESSAGE_LIMIT_BYTES: usize = 16 << 20;

/// An HTTP/2 connection over containerd's socket; clones share it.
///
/// Every call of a containerd service carries the namespace, and the lease if there is one: by the path of the request,
/// so no call can be made without. CRI knows no such headers.
#[derive(Clone)]
pub(super) struct Transport {
    channel: Channel,
    namespace: HeaderValue,
    lease: Option<HeaderValue>,
    counts: RpcCounts,
}

impl Transport {
    /// Makes the transport; the socket is connected by the first call.
    pub(super) fn new(address: &Path, namespace: HeaderValue) -> Self {
        let address: PathBuf = address.to_owned();
        let connector = tower::service_fn(move |_| {
            let address = address.clone();
            async move { tokio::net::UnixStream::connect(address).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost")
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect_with_connector_lazy(connector);
        Self { channel, namespace, lease: None, counts: RpcCounts::default() }
    }

    /// The same connection, with every object made through it held by a lease.
    pub(super) fn under(&self, lease: HeaderValue) -> Self {
        Self { lease: Some(lease), ..self.clone() }
    }

    pub(super) fn counts(&self) -> &RpcCounts {
        &self.counts
    }
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/');
        self.counts.record(method);
        if method.starts_with("containerd.") {
            request.headers_mut().insert("containerd-namespace", self.namespace.clone());
            if let Some(lease) = &self.lease {
                request.headers_mut().insert("containerd-lease", lease.clone());
            }
        }
        self.channel.call(request)
    }
}
