// SPDX-License-Identifier: Apache-2.0
//! An image's file system, mounted read-only to look at its files.
//!
//! The mount is made from a view snapshot of the top layer, in this process's mount namespace: the caller has entered a
//! private one. Invariant: [`ImageRoot::close`] leaves neither mount nor snapshot; a mere drop unmounts, and leaves the
//! view to the node's end.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{RemoveSnapshotRequest, ViewSnapshotRequest};
use containerd_client::types::Mount;
use rustix::mount::{MountFlags, UnmountFlags};
use tonic::Status;

use super::image_store::SNAPSHOTTER;
use super::{ImageStore, ImageStoreError};

/// A mounted image; unmounted when dropped.
#[derive(Debug)]
pub struct ImageRoot {
    store: ImageStore,
    key: String,
    /// Taken when unmounted.
    point: Option<tempfile::TempDir>,
    path: PathBuf,
}

/// Why an image could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum ImageRootError {
    /// The image's documents could not be read.
    #[error(transparent)]
    Store(#[from] ImageStoreError),
    /// The image has no layer, so there is nothing to mount.
    #[error("mount image {reference}: it has no layers")]
    NoLayers {
        /// The image's name.
        reference: String,
    },
    /// The snapshotter refused.
    #[error("{operation} {key}: {}", source.message())]
    Snapshot {
        /// The call.
        operation: &'static str,
        /// The snapshot.
        key: String,
        /// containerd's answer.
        #[source]
        source: Box<Status>,
    },
    /// The snapshotter's answer is nothing that can be mounted here.
    #[error("mount {reference}: the snapshotter gave {mounts}")]
    Mounts {
        /// The image's name.
        reference: String,
        /// What it gave.
        mounts: String,
    },
    /// The kernel refused.
    #[error("{operation} {}", path.display())]
    System {
        /// The step that failed.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl ImageRoot {
    /// Mounts the image that `reference` names.
    ///
    /// # Errors
    /// [`ImageRootError`]; nothing is left mounted then, and no view either.
    pub async fn mount(store: &ImageStore, reference: &str) -> Result<Self, ImageRootError> {
        static VIEWS: AtomicU64 = AtomicU64::new(0);
        let config_digest = store.image_id(reference).await?;
        let chain_ids = store.chain_ids(&config_digest).await?;
        let parent = chain_ids.last().cloned();
        let parent = parent.ok_or_else(|| ImageRootError::NoLayers { reference: reference.to_owned() })?;
        let number = VIEWS.fetch_add(1, Ordering::Relaxed);
        let key = format!("shakedown-view-{}-{number}", std::process::id());
        let view = ViewSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            parent,
            // Without a lease or this label, the next garbage collection takes the view from under the mount.
            labels: [("containerd.io/gc.root".to_owned(), "shakedown".to_owned())].into(),
        };
        let mounts = SnapshotsClient::new(store.channel.clone())
            .view(store.scoped(view))
            .await
            .map_err(|source| ImageRootError::Snapshot {
                operation: "make view",
                key: key.clone(),
                source: Box::new(source),
            })?
            .into_inner()
            .mounts;
        match mount(reference, &mounts) {
            Ok(point) => {
                let path = point.path().to_owned();
                Ok(Self { store: store.clone(), key, point: Some(point), path })
            }
            Err(error) => {
                remove_view(store, &key).await?;
                Err(error)
            }
        }
    }

    /// Where the image's root is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it and removes the view.
    ///
    /// # Errors
    /// [`ImageRootError`].
    pub async fn close(mut self) -> Result<(), ImageRootError> {
        self.unmount()?;
        remove_view(&self.store, &self.key).await
    }

    fn unmount(&mut self) -> Result<(), ImageRootError> {
        let Some(point) = self.point.take() else { return Ok(()) };
        let unmounted = rustix::mount::unmount(point.path(), UnmountFlags::DETACH);
        if let Err(errno) = unmounted {
            // Keep the directory: removing it would walk into what is still mounted there.
            let path = point.keep();
            return Err(ImageRootError::System { operation: "unmount", path, source: errno.into() });
        }
        let path = point.path().to_owned();
        point.close().map_err(|source| ImageRootError::System { operation: "remove", path, source })
    }
}

impl Drop for ImageRoot {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::warn!("could not release an image's root: {error}");
        }
    }
}

async fn remove_view(store: &ImageStore, key: &str) -> Result<(), ImageRootError> {
    let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
    let removed = SnapshotsClient::new(store.channel.clone()).remove(store.scoped(request)).await;
    removed.map(drop).map_err(|source| ImageRootError::Snapshot {
        operation: "remove view",
        key: key.to_owned(),
        source: Box::new(source),
    })
}

/// Mounts what the overlayfs snapshotter gives for a view: a bind mount of one layer, or an overlay of several.
fn mount(reference: &str, mounts: &[Mount]) -> Result<tempfile::TempDir, ImageRootError> {
    let unknown =
        || ImageRootError::Mounts { reference: reference.to_owned(), mounts: format!("{mounts:?}") };
    let [view] = mounts else { return Err(unknown()) };
    let point = tempfile::Builder::new().prefix("shakedown-root-").tempdir().map_err(|source| {
        ImageRootError::System { operation: "make a directory in", path: std::env::temp_dir(), source }
    })?;
    let mounted = match view.r#type.as_str() {
        "bind" => bind_read_only(Path::new(&view.source), point.path()),
        "overlay" => {
            let lower = view.options.iter().find_map(|option| option.strip_prefix("lowerdir="));
            overlay(lower.ok_or_else(unknown)?, point.path())
        }
        _ => return Err(unknown()),
    };
    match mounted {
        Ok(()) => Ok(point),
        Err(source) => {
            Err(ImageRootError::System { operation: "mount on", path: point.path().to_owned(), source })
        }
    }
}

fn bind_read_only(source: &Path, point: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(source, point)?;
    let read_only = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(point, read_only, c"").map_err(|errno| {
        // Nothing may stay mounted on an error; should this fail too, the namespace's end unmounts.
        let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
        errno.into()
    })
}

/// Overlays the layers. The kernel takes one page of options, which full paths of some forty layers fill; so they are
/// named from an open directory that they have in common.
fn overlay(lower: &str, point: &Path) -> io::Result<()> {
    let layers: Vec<&str> = lower.split(':').collect();
    let common = common_directory(&layers);
    let dir = File::open(common)?;
    let short: Vec<_> = layers
        .iter()
        .map(|layer| format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), &layer[common.len()..]))
        .collect();
    let options = CString::new(format!("lowerdir={}", short.join(":")))?;
    rustix::mount::mount("overlay", point, "overlay", MountFlags::RDONLY, options.as_c_str())?;
    Ok(())
}

/// The longest directory, with its final slash, that all paths begin with.
fn common_directory<'a>(paths: &[&'a str]) -> &'a str {
    let Some((first, rest)) = paths.split_first() else { return "/" };
    let mut common = &first[..first.rfind('/').map_or(0, |slash| slash + 1)];
    while !rest.iter().all(|path| path.starts_with(common)) {
        let parent = common.trim_end_matches('/');
        common = &parent[..parent.rfind('/').map_or(0, |slash| slash + 1)];
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_all_layers_is_found() {
        assert_eq!(common_directory(&["/a/b/1/fs", "/a/b/12/fs"]), "/a/b/");
        assert_eq!(common_directory(&["/a/b/1/fs"]), "/a/b/1/");
        assert_eq!(common_directory(&["/a/1", "/b/1"]), "/");
    }
}
