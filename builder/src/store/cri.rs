// SPDX-License-Identifier: Apache-2.0
//! The image service that a kubelet asks, on containerd's own socket: what pods will see.
//!
//! Exists only in the namespace that CRI reads; [`super::Store::cri`] answers `None` elsewhere.

use std::time::Duration;

use containerd_client::services::v1::PluginsRequest;
use k8s_cri::v1::{ImageFsInfoRequest, ImageSpec, ImageStatusRequest, PullImageRequest, VersionRequest};
use tokio::time::Instant;

use super::connection::Store;
use super::error::{ErrorKind, StoreError};
use crate::image::{Digest, ImageReference};

const SNAPSHOTTER_PLUGIN: &str = "io.containerd.snapshotter.v1";

/// Pauses between questions about an image's id grow from the first to the second of these.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// CRI, version `runtime.v1` (containerd 1.6 and later).
#[derive(Debug, Clone)]
pub struct Cri {
    store: Store,
}

impl Cri {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Whether this containerd serves CRI; an administrator can switch it off.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn available(&self) -> Result<bool, StoreError> {
        let answer = self.store.cri_runtime_client().version(VersionRequest { version: String::new() }).await;
        match answer.map_err(|status| self.store.failed("ask", "CRI for its version", status)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unimplemented => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The id under which pods would run an image: the digest of its config. `None` when CRI does not know the name.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn image_id(&self, reference: &ImageReference) -> Result<Option<String>, StoreError> {
        let name = reference.to_string();
        let request = ImageStatusRequest { image: Some(image_spec(&name)), verbose: false };
        let answer = self.store.cri_images_client().image_status(request).await;
        let answer = answer.map_err(|status| self.store.failed("ask CRI for image", name, status))?;
        Ok(answer.into_inner().image.map(|image| image.id))
    }

    /// Has CRI pull an image, by the mirrors and credentials that the node is configured with, and returns its id.
    ///
    /// # Errors
    /// [`StoreError`] as for every call; registry and network failures come in containerd's words.
    pub async fn pull(&self, reference: &ImageReference) -> Result<String, StoreError> {
        let name = reference.to_string();
        let request = PullImageRequest { image: Some(image_spec(&name)), auth: None, sandbox_config: None };
        let answer = self.store.cri_images_client().pull_image(request).await;
        let answer = answer.map_err(|status| self.store.failed("pull image", name, status))?;
        Ok(answer.into_inner().image_ref)
    }

    /// Waits until CRI answers with the image that was just set.
    ///
    /// CRI follows containerd's events: right after a name was moved its answer may still be the old id.
    ///
    /// # Errors
    /// [`StoreError::NotVisible`] with the last answer when `limit` has passed; else as for every call.
    pub async fn wait_visible(
        &self,
        reference: &ImageReference,
        expected: Digest,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + limit;
        let wanted = expected.to_string();
        let mut found = None;
        let mut pause = BACKOFF.0;
        loop {
            match tokio::time::timeout_at(deadline, self.image_id(reference)).await {
                Ok(id) => found = id?,
                Err(_) => break,
            }
            if found.as_deref() == Some(&*wanted) {
                return Ok(());
            }
            if Instant::now() + pause >= deadline {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
        Err(StoreError::NotVisible { reference: reference.to_string(), expected, found, limit })
    }

    /// The snapshotter that CRI unpacks images with; `None` when CRI is switched off or it cannot be told.
    ///
    /// The directory that ImageFsInfo reports first is that of CRI's snapshotter (1.6 and 2.x; the configuration that
    /// Status prints has the snapshotter's name in 1.6 only). It is named after the snapshotter unless an administrator
    /// has moved it: then it is looked for among the directories that the snapshotters export.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub async fn snapshotter(&self) -> Result<Option<String>, StoreError> {
        let answer = self.store.cri_images_client().image_fs_info(ImageFsInfoRequest {}).await;
        let answer = answer.map_err(|status| self.store.failed("ask", "CRI for its image directory", status));
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(error) if error.kind() == ErrorKind::Unimplemented => return Ok(None),
            Err(error) => return Err(error),
        };
        let first = answer.image_filesystems.into_iter().next();
        let Some(directory) = first.and_then(|usage| usage.fs_id).map(|id| id.mountpoint) else {
            return Ok(None);
        };
        if let Some(name) = named_after_snapshotter(&directory) {
            return Ok(Some(name.to_owned()));
        }
        let request = PluginsRequest { filters: vec![format!("type=={SNAPSHOTTER_PLUGIN}")] };
        let answer = self.store.introspection_client().plugins(request).await;
        let answer =
            answer.map_err(|status| self.store.failed("list", "containerd's snapshotters", status))?;
        let mut plugins = answer.into_inner().plugins.into_iter();
        Ok(plugins.find(|plugin| plugin.exports.get("root") == Some(&directory)).map(|plugin| plugin.id))
    }
}

fn image_spec(name: &str) -> ImageSpec {
    ImageSpec { image: name.to_owned(), ..ImageSpec::default() }
}

fn named_after_snapshotter(directory: &str) -> Option<&str> {
    let (_, name) = directory.trim_end_matches('/').rsplit_once('/')?;
    name.strip_prefix(SNAPSHOTTER_PLUGIN)?.strip_prefix('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_tells_the_snapshotter() {
        for (directory, name) in [
            ("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs", Some("overlayfs")),
            ("/var/lib/containerd/io.containerd.snapshotter.v1.stargz/", Some("stargz")),
            ("/big/disk", None),
            ("", None),
        ] {
            assert_eq!(named_after_snapshotter(directory), name, "{directory}");
        }
    }
}
