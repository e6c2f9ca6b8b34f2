// SPDX-License-Identifier: Apache-2.0
//! A private containerd with base images, as the place where builders put images and pods run.

use std::fs;
use std::io;
use std::path::PathBuf;

use shakedown_node::{BaseImage, BaseImageError, ContainerdBinaries, Node, NodeError, NodeOptions};

use crate::pod::{ImageStore, ImageStoreError, PodError, PodRuntime};

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// containerd's programs.
    pub binaries: ContainerdBinaries,
    /// Where the run's directory is made.
    pub parent_dir: PathBuf,
    /// Leave the run's directory behind.
    pub keep: bool,
}

/// A running cluster of one node.
#[derive(Debug)]
pub struct Cluster {
    node: Node,
    pods: PodRuntime,
    store: ImageStore,
    base_images: Vec<BaseImage>,
}

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The node did not start, or did not stop.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A base image could not be made.
    #[error(transparent)]
    BaseImage(#[from] BaseImageError),
    /// CRI did not take a connection.
    #[error(transparent)]
    Pods(#[from] PodError),
    /// containerd did not take a connection.
    #[error(transparent)]
    Store(#[from] ImageStoreError),
    /// A directory could not be made.
    #[error("create directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl ClusterOptions {
    /// A cluster in the usual directory, which it leaves empty.
    pub fn new(binaries: ContainerdBinaries) -> Self {
        Self { binaries, parent_dir: super::runs_dir(), keep: false }
    }
}

impl Cluster {
    /// Starts a node and puts the base images into it. Must be called inside `confine::enter` with a private network.
    ///
    /// # Errors
    /// [`ClusterError`]; what was started is gone again.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let base_images = vec![BaseImage::pause()?, BaseImage::busybox()?];
        let mut node_options = NodeOptions::new(options.binaries, options.parent_dir);
        node_options.keep = options.keep;
        let node = Node::start(node_options).await?;
        for image in &base_images {
            node.seed(image).await?;
        }
        let logs = node.dir().join("pods");
        fs::create_dir(&logs).map_err(|source| ClusterError::Directory { path: logs.clone(), source })?;
        let pods = PodRuntime::connect(&node.address())
            .await?
            .with_cgroup_parent(node.cgroup_parent())
            .with_log_parent(logs);
        let store = ImageStore::connect(&node.address()).await?;
        Ok(Self { node, pods, store, base_images })
    }

    /// The node, for its paths and its inventory.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Runs pods.
    pub fn pods(&self) -> &PodRuntime {
        &self.pods
    }

    /// Reads containerd's stores in the namespace of pods.
    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// The images that were put in; their archives can be loaded elsewhere.
    pub fn base_images(&self) -> &[BaseImage] {
        &self.base_images
    }

    /// What tells a builder where containerd is, in the names that nerdctl reads.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("CONTAINERD_ADDRESS", self.node.address().display().to_string()),
            ("CONTAINERD_NAMESPACE", "k8s.io".to_owned()),
            ("CONTAINERD_SNAPSHOTTER", "overlayfs".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Makes a directory below the run's, for a builder's state or its daemon's. It goes with the run, together with
    /// whatever is mounted below it, also when the run is killed.
    ///
    /// # Errors
    /// [`ClusterError::Directory`], also when there is one of that name.
    pub fn create_dir(&self, name: &str) -> Result<PathBuf, ClusterError> {
        let path = self.node.dir().join(name);
        fs::create_dir(&path).map_err(|source| ClusterError::Directory { path: path.clone(), source })?;
        Ok(path)
    }

    /// Stops everything and removes it.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn stop(self) -> Result<(), ClusterError> {
        Ok(self.node.stop().await?)
    }
}
