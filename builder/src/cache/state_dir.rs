// SPDX-License-Identifier: Apache-2.0
//! Where Pushless keeps what containerd does not: the step index, the record of results, the stat cache, locks.
//!
//! Everything in it can be deleted at any time between builds; it is found again or costs a little time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The state directory used when neither flag nor environment names one.
const DEFAULT_ROOT: &str = "/var/lib/pushless";

/// A directory, or a lock in it, could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct StateDirError {
    /// What was tried.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: std::io::Error,
}

/// The state of one containerd namespace and snapshotter.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
    store: PathBuf,
}

impl StateDir {
    /// The state for images behind `address`, `namespace` and `snapshotter`, below `root` or the default.
    ///
    /// Keyed by the address, not by the instance behind it: a record maps inputs to a chain id, which is right for any
    /// containerd, and a snapshot that this one does not have is noticed at its first use.
    pub fn new(root: Option<&Path>, address: &Path, namespace: &str, snapshotter: &str) -> Self {
        let root = root.unwrap_or(Path::new(DEFAULT_ROOT)).to_path_buf();
        let address = address.canonicalize().unwrap_or_else(|_| address.to_path_buf());
        let mut hasher = blake3::Hasher::new();
        for part in [address.as_os_str().as_encoded_bytes(), namespace.as_bytes(), snapshotter.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let name = &hasher.finalize().to_hex()[..16];
        Self { store: root.join("stores").join(name), root }
    }

    /// The directory of all stores of this machine; the stat cache has a directory of its own in it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the step index.
    pub fn steps(&self) -> PathBuf {
        self.store.join("steps")
    }

    /// The directory of the record of results.
    pub fn results(&self) -> PathBuf {
        self.store.join("results")
    }

    /// The directory of markers of builds that have snapshots of their own in the store.
    pub fn active(&self) -> PathBuf {
        self.store.join("active")
    }

    /// Says that cached steps are in use until the lock is dropped; any number of builds may say so at once. `None`
    /// while somebody prunes.
    ///
    /// # Errors
    /// When the lock file can neither be opened nor made, or not be locked.
    pub fn try_lock_shared(&self) -> Result<Option<CacheLock>, StateDirError> {
        self.try_lock(File::try_lock_shared)
    }

    /// Takes the cache for pruning; `None` while any build uses it.
    ///
    /// # Errors
    /// As [`Self::try_lock_shared`].
    pub fn try_lock_exclusive(&self) -> Result<Option<CacheLock>, StateDirError> {
        self.try_lock(File::try_lock)
    }

    fn try_lock(
        &self,
        lock: impl FnOnce(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<CacheLock>, StateDirError> {
        let (file, path) = self.lock_file()?;
        match lock(&file) {
            Ok(()) => Ok(Some(CacheLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StateDirError { operation: "lock", path, source }),
        }
    }

    fn lock_file(&self) -> Result<(File, PathBuf), StateDirError> {
        let path = self.store.join("lock");
        // Opening first keeps the usual case free of any write.
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&self.store).map_err(|source| StateDirError {
                    operation: "create directory",
                    path: self.store.clone(),
                    source,
                })?;
                File::options().create(true).append(true).open(&path).map_err(|source| StateDirError {
                    operation: "create",
                    path: path.clone(),
                    source,
                })?
            }
            Err(source) => return Err(StateDirError { operation: "open", path, source }),
        };
        Ok((file, path))
    }
}

/// Holds the cache; given back when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_waits_for_builds() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(root.path()), Path::new("/run/x.sock"), "k8s.io", "overlayfs");
        let build = state.try_lock_shared().unwrap().unwrap();
        let other_build = state.try_lock_shared().unwrap().unwrap();
        assert!(state.try_lock_exclusive().unwrap().is_none());
        drop((build, other_build));
        let prune = state.try_lock_exclusive().unwrap();
        assert!(prune.is_some());
        assert!(state.try_lock_exclusive().unwrap().is_none());
        assert!(state.try_lock_shared().unwrap().is_none());
    }

    #[test]
    fn every_store_has_its_own_directory() {
        let at = |address: &str, namespace: &str| {
            StateDir::new(Some(Path::new("/s")), Path::new(address), namespace, "overlayfs").steps()
        };
        assert_ne!(at("/a.sock", "k8s.io"), at("/a.sock", "default"));
        assert_ne!(at("/a.sock", "k8s.io"), at("/b.sock", "k8s.io"));
        assert_eq!(at("/a.sock", "k8s.io"), at("/a.sock", "k8s.io"));
    }
}
