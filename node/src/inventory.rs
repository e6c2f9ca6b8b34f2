// SPDX-License-Identifier: Apache-2.0
//! What there is on a node at one moment, to tell what a builder leaves behind. Changes nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{Kind as SnapshotKind, ListSnapshotsRequest};
use containerd_client::services::v1::{
    ListContentRequest, ListImagesRequest, ListNamespacesRequest, ListRequest, ListStatusesRequest,
};
use containerd_client::tonic::{Status, transport::Channel};

use crate::node::{Node, NodeError};
use crate::workloads::scoped;
use crate::{cgroups, mounts, processes};

/// The snapshotter that nodes use.
const SNAPSHOTTER: &str = "overlayfs";

/// The sort of a thing that can be left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResidueKind {
    /// A process of this pid namespace, named `<pid> <command>`.
    Process,
    /// A mount point.
    Mount,
    /// A directory of a cgroup hierarchy.
    Cgroup,
    /// A snapshot that someone works in: active, or a view.
    ActiveSnapshot,
    /// A snapshot that others may stand on.
    CommittedSnapshot,
    /// A lease.
    Lease,
    /// An image record, named `<name> <target digest>`.
    Image,
    /// An upload to the content store that was not finished.
    Ingest,
    /// A blob of the content store.
    Blob,
}

/// One thing on a node. Those of containerd are named `<namespace>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Residue {
    /// Its sort.
    pub kind: ResidueKind,
    /// Its name.
    pub name: String,
}

/// Everything on a node at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    items: BTreeSet<Residue>,
}

/// What two inventories do not have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the later one only.
    pub added: Vec<Residue>,
    /// In the earlier one only.
    pub removed: Vec<Residue>,
}

/// Why an inventory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The node's socket did not take a connection.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The kernel did not answer.
    #[error("list {what}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// containerd did not answer.
    #[error("list {what} of namespace {namespace}: {}", source.message())]
    Call {
        /// What was asked for.
        what: &'static str,
        /// The containerd namespace.
        namespace: String,
        /// containerd's answer.
        #[source]
        source: Box<Status>,
    },
}

impl fmt::Display for Residue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ResidueKind::Process => "process",
            ResidueKind::Mount => "mount",
            ResidueKind::Cgroup => "cgroup",
            ResidueKind::ActiveSnapshot => "active snapshot",
            ResidueKind::CommittedSnapshot => "committed snapshot",
            ResidueKind::Lease => "lease",
            ResidueKind::Image => "image",
            ResidueKind::Ingest => "ingest",
            ResidueKind::Blob => "blob",
        };
        write!(out, "{kind} {}", self.name)
    }
}

impl Inventory {
    /// Lists everything: the processes of this pid namespace, mounts below `prefixes`, the cgroups of the names given
    /// (relative to each hierarchy, `/pushless` for instance) and the node's own, and what containerd holds in all of
    /// its namespaces.
    ///
    /// # Errors
    /// [`InventoryError`].
    pub async fn take(
        node: &Node,
        prefixes: &[&Path],
        cgroup_names: &[&str],
    ) -> Result<Self, InventoryError> {
        let mut inventory = Self::default();
        inventory.take_system(prefixes, cgroup_names)?;
        // The first pod makes the node's own cgroup, which then stays until the node stops: only what is in it counts.
        let own = node.cgroup_parent();
        inventory.take_cgroups(&own, |dir| !dir.ends_with(own.trim_start_matches('/')))?;
        inventory.take_containerd(node.channel().await?).await?;
        Ok(inventory)
    }

    /// Everything, in order.
    pub fn items(&self) -> impl Iterator<Item = &Residue> {
        self.items.iter()
    }

    /// How many things of one sort there are.
    pub fn count(&self, kind: ResidueKind) -> usize {
        self.items.iter().filter(|item| item.kind == kind).count()
    }

    /// What changed between this inventory and a later one.
    pub fn diff(&self, later: &Self) -> Difference {
        Difference {
            added: later.items.difference(&self.items).cloned().collect(),
            removed: self.items.difference(&later.items).cloned().collect(),
        }
    }

    /// Leaves out one sort: processes, for instance, where other work goes on in the same pid namespace.
    pub fn forget(&mut self, kind: ResidueKind) {
        self.items.retain(|item| item.kind != kind);
    }

    fn put(&mut self, kind: ResidueKind, name: String) {
        self.items.insert(Residue { kind, name });
    }

    fn take_system(&mut self, prefixes: &[&Path], cgroup_names: &[&str]) -> Result<(), InventoryError> {
        let failed = |what| move |source| InventoryError::System { what, source };
        for process in processes::all().map_err(failed("processes"))? {
            self.put(ResidueKind::Process, format!("{} {}", process.pid, process.comm));
        }
        for prefix in prefixes {
            for mount in mounts::below(prefix).map_err(failed("mounts"))? {
                self.put(ResidueKind::Mount, mount.point.display().to_string());
            }
        }
        for name in cgroup_names {
            self.take_cgroups(name, |_| true)?;
        }
        Ok(())
    }

    fn take_cgroups(&mut self, name: &str, counts: impl Fn(&Path) -> bool) -> Result<(), InventoryError> {
        let failed = |source| InventoryError::System { what: "cgroups", source };
        for dir in cgroups::directories(name).map_err(failed)? {
            if counts(&dir) {
                self.put(ResidueKind::Cgroup, dir.display().to_string());
            }
        }
        Ok(())
    }

    async fn take_containerd(&mut self, channel: Channel) -> Result<(), InventoryError> {
        let listed = NamespacesClient::new(channel.clone()).list(ListNamespacesRequest::default()).await;
        let listed = listed.map_err(|source| InventoryError::Call {
            what: "namespaces",
            namespace: String::new(),
            source: Box::new(source),
        })?;
        for namespace in listed.into_inner().namespaces {
            let name = namespace.name;
            let failed = |what| {
                let namespace = name.clone();
                move |source| InventoryError::Call { what, namespace, source: Box::new(source) }
            };
            self.take_records(&channel, &name).await.map_err(failed("images and leases"))?;
            self.take_snapshots(&channel, &name).await.map_err(failed("snapshots"))?;
            self.take_content(&channel, &name).await.map_err(failed("content"))?;
        }
        Ok(())
    }

    async fn take_records(&mut self, channel: &Channel, namespace: &str) -> Result<(), Status> {
        let images = ImagesClient::new(channel.clone())
            .list(scoped(ListImagesRequest::default(), namespace)?)
            .await?
            .into_inner()
            .images;
        for image in images {
            let digest = image.target.map(|target| target.digest).unwrap_or_default();
            self.put(ResidueKind::Image, format!("{namespace}/{} {digest}", image.name));
        }
        let leases = LeasesClient::new(channel.clone())
            .list(scoped(ListRequest::default(), namespace)?)
            .await?
            .into_inner()
            .leases;
        for lease in leases {
            self.put(ResidueKind::Lease, format!("{namespace}/{}", lease.id));
        }
        Ok(())
    }

    async fn take_snapshots(&mut self, channel: &Channel, namespace: &str) -> Result<(), Status> {
        let request = ListSnapshotsRequest { snapshotter: SNAPSHOTTER.to_owned(), ..Default::default() };
        let mut parts =
            SnapshotsClient::new(channel.clone()).list(scoped(request, namespace)?).await?.into_inner();
        while let Some(part) = parts.message().await? {
            for snapshot in part.info {
                let kind = match snapshot.kind() {
                    SnapshotKind::Committed => ResidueKind::CommittedSnapshot,
                    SnapshotKind::Active | SnapshotKind::View | SnapshotKind::Unknown => {
                        ResidueKind::ActiveSnapshot
                    }
                };
                self.put(kind, format!("{namespace}/{}", snapshot.name));
            }
        }
        Ok(())
    }

    async fn take_content(&mut self, channel: &Channel, namespace: &str) -> Result<(), Status> {
        let mut client = ContentClient::new(channel.clone());
        let ingests = client.list_statuses(scoped(ListStatusesRequest::default(), namespace)?).await?;
        for ingest in ingests.into_inner().statuses {
            self.put(ResidueKind::Ingest, format!("{namespace}/{}", ingest.r#ref));
        }
        let mut parts = client.list(scoped(ListContentRequest::default(), namespace)?).await?.into_inner();
        while let Some(part) = parts.message().await? {
            for blob in part.info {
                self.put(ResidueKind::Blob, format!("{namespace}/{}", blob.digest));
            }
        }
        Ok(())
    }
}

impl Difference {
    /// Whether the two are equal.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(items: &[(ResidueKind, &str)]) -> Inventory {
        let residue = |(kind, name): &(ResidueKind, &str)| Residue { kind: *kind, name: (*name).to_owned() };
        Inventory { items: items.iter().map(residue).collect() }
    }

    #[test]
    fn a_difference_has_two_directions() {
        let before = inventory(&[(ResidueKind::Lease, "a"), (ResidueKind::Mount, "/m")]);
        let after = inventory(&[(ResidueKind::Mount, "/m"), (ResidueKind::ActiveSnapshot, "s")]);
        let found = before.diff(&after);
        assert_eq!(found.added.iter().map(ToString::to_string).collect::<Vec<_>>(), ["active snapshot s"]);
        assert_eq!(found.removed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["lease a"]);
        assert!(!found.is_empty() && before.diff(&before).is_empty());
    }
}
