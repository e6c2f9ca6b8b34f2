// SPDX-License-Identifier: Apache-2.0
//! containerd's own unpacker as the judge: its content store, its overlay snapshotter and its differ.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, ViewSnapshotRequest,
};
use containerd_client::services::v1::{ApplyRequest, WriteAction, WriteContentRequest};
use containerd_client::types::{Descriptor, Mount};
use containerd_client::with_namespace;
use libtest_mimic::Failed;
use pushless::image::Digest;
use shakedown_node::{ContainerdBinaries, Node, NodeOptions};
use tokio::runtime::Runtime;
use tonic::Request;
use tonic::codegen::tokio_stream::once;
use tonic::transport::Channel;

const SNAPSHOTTER: &str = "overlayfs";
/// Keeps objects that nothing refers to from containerd's garbage collector.
const PIN: (&str, &str) = ("containerd.io/gc.root", "test");

pub(crate) struct Judge {
    node: Node,
    runtime: Runtime,
    channel: Channel,
    keys: AtomicU64,
}

impl Judge {
    pub(crate) fn start(binaries: ContainerdBinaries, place: &Path) -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let options = NodeOptions { cni: false, ..NodeOptions::new(binaries, place.join("nodes")) };
        let node = runtime.block_on(Node::start(options))?;
        let channel = runtime.block_on(node.channel())?;
        Ok(Self { node, runtime, channel, keys: AtomicU64::new(0) })
    }

    pub(crate) fn stop(self) {
        self.runtime.block_on(self.node.stop()).expect("nothing is left");
    }

    fn key(&self) -> String {
        format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed))
    }

    /// Unpacks `tar` onto the snapshot `parent` and returns the new snapshot's name.
    pub(crate) fn apply(&self, parent: &str, tar: &[u8]) -> Result<String, Failed> {
        let (key, name) = (self.key(), self.key());
        self.runtime.block_on(async {
            let descriptor = self.store(tar).await?;
            let mut snapshots = SnapshotsClient::new(self.channel.clone());
            let prepare = PrepareSnapshotRequest {
                snapshotter: SNAPSHOTTER.into(),
                key: key.clone(),
                parent: parent.into(),
                labels: pin(),
            };
            let mounts = snapshots.prepare(with_namespace!(prepare, "layers")).await?.into_inner().mounts;
            let apply = ApplyRequest { diff: Some(descriptor.clone()), mounts, ..ApplyRequest::default() };
            let applied =
                DiffClient::new(self.channel.clone()).apply(with_namespace!(apply, "layers")).await?;
            let applied = applied.into_inner().applied.map(|applied| applied.digest);
            if applied.as_ref() != Some(&descriptor.digest) {
                return Err(format!("containerd unpacked {applied:?}, not {}", descriptor.digest).into());
            }
            let commit = CommitSnapshotRequest {
                snapshotter: SNAPSHOTTER.into(),
                name: name.clone(),
                key,
                labels: pin(),
            };
            snapshots.commit(with_namespace!(commit, "layers")).await?;
            Ok(name)
        })
    }

    /// What to mount to see the snapshot `name`, read-only.
    pub(crate) fn view(&self, name: &str) -> Result<Vec<Mount>, Failed> {
        let key = self.key();
        self.runtime.block_on(async {
            let view = ViewSnapshotRequest {
                snapshotter: SNAPSHOTTER.into(),
                key,
                parent: name.into(),
                labels: pin(),
            };
            let mut snapshots = SnapshotsClient::new(self.channel.clone());
            Ok(snapshots.view(with_namespace!(view, "layers")).await?.into_inner().mounts)
        })
    }

    async fn store(&self, tar: &[u8]) -> Result<Descriptor, Failed> {
        let digest = Digest::of(tar).to_string();
        let size = i64::try_from(tar.len())?;
        let write = WriteContentRequest {
            action: WriteAction::Commit as i32,
            r#ref: self.key(),
            total: size,
            expected: digest.clone(),
            offset: 0,
            data: tar.to_vec(),
            labels: pin(),
        };
        let mut content = ContentClient::new(self.channel.clone());
        let sent = content.write(with_namespace!(once(write), "layers")).await;
        let finished = match sent {
            Ok(answers) => {
                let mut answers = answers.into_inner();
                loop {
                    match answers.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break Ok(()),
                        Err(status) => break Err(status),
                    }
                }
            }
            Err(status) => Err(status),
        };
        match finished {
            Err(status) if status.code() != tonic::Code::AlreadyExists => return Err(status.into()),
            _ => {}
        }
        let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
        Ok(Descriptor { media_type, digest, size, ..Descriptor::default() })
    }
}

fn pin() -> std::collections::HashMap<String, String> {
    [(PIN.0.to_owned(), PIN.1.to_owned())].into()
}
