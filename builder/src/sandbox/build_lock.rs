// SPDX-License-Identifier: Apache-2.0
//! Tells live builds from dead ones: each holds a lock on a file of its own, and the kernel lets go of it at any death.
//!
//! What a killed build leaves (cgroup directories, address leases, active snapshots) carries its build id; whoever
//! collects asks here which ids are dead. A file is removed only by a process that holds its lock.
//!
//! This module must not know what is collected.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where locks and network state lie unless the user says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/pushless";

/// What tells the host-wide names (cgroups, bridge) of one run directory from those of another: nothing for the default
/// one, eight hexadecimal digits for any other. Builds of different run directories know nothing of each other's
/// locks, so they must not share what is collected by them.
pub fn run_dir_suffix(run_dir: &Path) -> String {
    if run_dir == Path::new(DEFAULT_RUN_DIR) {
        return String::new();
    }
    use std::os::unix::ffi::OsStrExt;
    let digest = blake3::hash(run_dir.as_os_str().as_bytes()).to_hex();
    format!("-{}", &digest[..8])
}

/// Why the directory of live builds cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct BuildLockError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildLockError {
    let path = path.to_owned();
    move |source| BuildLockError { operation, path, source }
}

/// The sign of life of this build, held until dropped or until the process ends.
#[derive(Debug)]
pub struct BuildLock {
    id: String,
    path: PathBuf,
    _locked: File,
}

impl BuildLock {
    /// Takes a new build id, twelve hexadecimal digits, and locks `<run_dir>/builds/<id>`.
    ///
    /// Writes to disk: call it when the build is about to make something that could be left behind, not before.
    ///
    /// # Errors
    /// When the directory or the file cannot be made or locked.
    pub fn acquire(run_dir: &Path) -> Result<Self, BuildLockError> {
        let directory = run_dir.join("builds");
        std::fs::create_dir_all(&directory).map_err(at("make directory", &directory))?;
        loop {
            let id = random_id()?;
            let path = directory.join(&id);
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(at("make lock file", &path))?,
            };
            file.lock().map_err(at("lock", &path))?;
            // A collector that came between the two steps above has taken the file for a dead build's and removed it.
            if file.metadata().map_err(at("look at", &path))?.nlink() == 1 {
                return Ok(Self { id, path, _locked: file });
            }
        }
    }

    /// The build's id, safe as a file name, a cgroup name and part of a container id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for BuildLock {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the lock file of this build stays behind");
        }
    }
}

/// A build that ended without removing its file. Holding this value keeps other collectors away from it.
#[derive(Debug)]
pub struct DeadBuild {
    id: String,
    path: PathBuf,
    _locked: File,
}

impl DeadBuild {
    /// The dead build's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Removes the file: everything that carried this id has been collected.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn forget(self) -> Result<(), BuildLockError> {
        std::fs::remove_file(&self.path).map_err(at("remove", &self.path))
    }
}

/// The builds whose lock can be taken, each locked for the caller. Writes nothing.
///
/// # Errors
/// When the directory cannot be read; that it does not exist is no error.
pub fn dead_builds(run_dir: &Path) -> Result<Vec<DeadBuild>, BuildLockError> {
    let directory = run_dir.join("builds");
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at("list", &directory))?,
    };
    let mut dead = Vec::new();
    for entry in entries {
        let path = entry.map_err(at("list", &directory))?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        let file = match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(at("open", &path))?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(source)) => return Err(at("lock", &path)(source)),
        }
        // Another collector may have finished with it since it was listed.
        if file.metadata().map_err(at("look at", &path))?.nlink() == 1 {
            dead.push(DeadBuild { id, path, _locked: file });
        }
    }
    Ok(dead)
}

/// Whether the build `id` holds its lock at this moment. Writes nothing.
///
/// # Errors
/// When the file exists and cannot be looked at.
pub fn is_live(run_dir: &Path, id: &str) -> Result<bool, BuildLockError> {
    let path = run_dir.join("builds").join(id);
    let file = match OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(at("open", &path))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(at("lock", &path)(source)),
    }
}

/// Process ids would not do: inside its pid namespace every build is process 1.
fn random_id() -> Result<String, BuildLockError> {
    let source = Path::new("/proc/sys/kernel/random/uuid");
    let uuid = std::fs::read_to_string(source).map_err(at("read", source))?;
    Ok(uuid.chars().filter(char::is_ascii_hexdigit).take(12).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(run_dir: &Path) -> Vec<String> {
        dead_builds(run_dir).expect("a listing").iter().map(|dead| dead.id().to_owned()).collect()
    }

    #[test]
    fn only_the_default_run_directory_has_plain_names() {
        assert_eq!(run_dir_suffix(Path::new(DEFAULT_RUN_DIR)), "");
        let other = run_dir_suffix(Path::new("/tmp/other"));
        assert_eq!(other.len(), 9);
        assert_ne!(other, run_dir_suffix(Path::new("/tmp/another")));
    }

    #[test]
    fn looking_for_dead_builds_writes_nothing() {
        let run_dir = tempfile::tempdir().expect("a directory");
        assert!(ids(run_dir.path()).is_empty());
        assert_eq!(std::fs::read_dir(run_dir.path()).expect("a listing").count(), 0);
    }

    #[test]
    fn a_held_lock_is_a_live_build_and_dropping_it_leaves_no_file() {
        let run_dir = tempfile::tempdir().expect("a directory");
        let (one, two) = (BuildLock::acquire(run_dir.path()), BuildLock::acquire(run_dir.path()));
        let (one, two) = (one.expect("a lock"), two.expect("a lock"));
        assert_eq!(one.id().len(), 12);
        assert!(is_live(run_dir.path(), one.id()).expect("an answer"));
        assert!(!is_live(run_dir.path(), "nobody").expect("an answer"));
        assert_ne!(one.id(), two.id());
        assert!(ids(run_dir.path()).is_empty());
        drop((one, two));
        assert_eq!(std::fs::read_dir(run_dir.path().join("builds")).expect("a listing").count(), 0);
    }

    #[test]
    fn an_unlocked_file_is_a_dead_build_until_forgotten() {
        let run_dir = tempfile::tempdir().expect("a directory");
        let _live = BuildLock::acquire(run_dir.path()).expect("a lock");
        std::fs::write(run_dir.path().join("builds/0123456789ab"), "").expect("a file");
        let dead = dead_builds(run_dir.path()).expect("a listing");
        assert_eq!(dead.iter().map(DeadBuild::id).collect::<Vec<_>>(), ["0123456789ab"]);
        assert!(ids(run_dir.path()).is_empty(), "a second collector keeps away");
        for build in dead {
            build.forget().expect("forgotten");
        }
        assert!(ids(run_dir.path()).is_empty());
    }
}
