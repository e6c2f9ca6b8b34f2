// SPDX-License-Identifier: Apache-2.0
//! The directory of one run, and the lock that tells whether the run still lives.
//!
//! Beside the directory `<run>` lies the file `<run>.lock`, locked (flock) for as long as the process lives: the kernel
//! lets go of it however the process ends. Whoever gets the lock may remove the directory. The file is locked *before*
//! the directory is made, and a lock counts only while the file still has its name, so that no one can take a run that
//! is just being born.

use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The name of one run: `n` and eight hex digits, unique enough for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunId(String);

/// Why the directory of a run could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct RunDirectoryError {
    /// The step that failed.
    pub operation: &'static str,
    /// The file or directory concerned.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// A directory of one's own below a parent that all runs of a user share.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    id: RunId,
    path: PathBuf,
    lock_path: PathBuf,
    /// Held, not read: closing it lets go of the lock.
    _lock: File,
}

impl RunId {
    pub(crate) fn random() -> Self {
        // The keys of a RandomState come from the kernel's generator and differ from one call to the next.
        let random = std::hash::RandomState::new().build_hasher().finish();
        Self(format!("n{:08x}", random & 0xffff_ffff))
    }

    /// The id in a lock file's name, `None` for any other file.
    pub(crate) fn of_lock_file(name: &str) -> Option<Self> {
        let id = name.strip_suffix(".lock")?;
        let digits = id.strip_prefix('n')?;
        let hex = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| Self(id.to_owned()))
    }

    /// The digits as a number.
    pub(crate) fn number(&self) -> u32 {
        u32::from_str_radix(&self.0[1..], 16).expect("invariant: n and eight hex digits")
    }

    /// The cgroup that holds everything of this run, relative to the root of each hierarchy.
    ///
    /// It has no parent in common with other runs: a shared one could not be removed without a race.
    pub fn cgroup(&self) -> String {
        format!("/shakedown-{self}")
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl RunDirectory {
    /// Makes a fresh directory below `parent`, which is made too if absent.
    pub(crate) fn create(parent: &Path) -> Result<Self, RunDirectoryError> {
        loop {
            prepare_parent(parent)?;
            let id = RunId::random();
            let lock_path = parent.join(format!("{id}.lock"));
            let file = match File::options().create_new(true).write(true).open(&lock_path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                // Whoever leaves last may remove the empty parent.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(at("create lock file", &lock_path))?,
            };
            if !take(&file, &lock_path)? {
                continue;
            }
            let path = parent.join(id.to_string());
            DirBuilder::new().mode(0o711).create(&path).map_err(at("create directory", &path))?;
            return Ok(Self { id, path, lock_path, _lock: file });
        }
    }

    /// Takes over the directory of a run that has ended; `None` while it lives or when another took it first.
    pub(crate) fn adopt(parent: &Path, id: RunId) -> Result<Option<Self>, RunDirectoryError> {
        let lock_path = parent.join(format!("{id}.lock"));
        let file = match File::options().write(true).open(&lock_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(at("open lock file", &lock_path))?,
        };
        if !take(&file, &lock_path)? {
            return Ok(None);
        }
        let path = parent.join(id.to_string());
        Ok(Some(Self { id, path, lock_path, _lock: file }))
    }

    pub(crate) fn id(&self) -> &RunId {
        &self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory, then the lock file: in the other order a crash in between would leave an ownerless
    /// directory.
    pub(crate) fn remove(&self) -> Result<(), RunDirectoryError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(at("remove directory", &self.path))?,
        }
        self.forget()
    }

    /// Removes the lock file alone: the directory stays, and nobody will collect it.
    pub(crate) fn forget(&self) -> Result<(), RunDirectoryError> {
        match fs::remove_file(&self.lock_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(at("remove lock file", &self.lock_path)),
        }
    }
}

/// The parent may lie in a directory that everyone may write to: it must be ours alone. One that is removed meanwhile is
/// no concern here.
fn prepare_parent(parent: &Path) -> Result<(), RunDirectoryError> {
    match DirBuilder::new().mode(0o755).recursive(true).create(parent) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(at("create directory", parent))?,
    }
    let meta = match fs::symlink_metadata(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta.map_err(at("look at directory", parent))?,
    };
    let foreign = meta.uid() != rustix::process::geteuid().as_raw() || meta.permissions().mode() & 0o022 != 0;
    if !meta.is_dir() || foreign {
        let source = io::Error::new(
            io::ErrorKind::PermissionDenied,
            "not a directory that only its owner, the calling user, may write to",
        );
        return Err(at("use directory", parent)(source));
    }
    Ok(())
}

/// Locks the file without waiting; false if someone else holds it, or if it lost its name meanwhile.
fn take(file: &File, path: &Path) -> Result<bool, RunDirectoryError> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(source)) => return Err(at("lock", path)(source)),
    }
    let held = file.metadata().map_err(at("look at lock file", path))?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(at("look at lock file", path)(source)),
    }
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirectoryError {
    move |source| RunDirectoryError { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
    }

    #[test]
    fn a_live_run_is_not_adopted_and_a_dead_one_once() {
        let parent = parent();
        let live = RunDirectory::create(parent.path()).unwrap();
        let id = live.id().clone();
        assert!(RunDirectory::adopt(parent.path(), id.clone()).unwrap().is_none());
        let path = live.path().to_owned();
        drop(live);
        let dead = RunDirectory::adopt(parent.path(), id.clone()).unwrap().unwrap();
        assert!(RunDirectory::adopt(parent.path(), id.clone()).unwrap().is_none(), "taken twice");
        dead.remove().unwrap();
        assert!(!path.exists());
        assert!(RunDirectory::adopt(parent.path(), id).unwrap().is_none());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_on_a_file_without_its_name_does_not_count() {
        let parent = parent();
        let path = parent.path().join("n00000000.lock");
        let file = File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!take(&file, &path).unwrap());
    }

    #[test]
    fn a_parent_that_others_may_write_to_is_refused() {
        let parent = parent();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = RunDirectory::create(parent.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("use directory {}", parent.path().display()));
    }

    #[test]
    fn only_lock_files_name_a_run() {
        let id = RunId::random();
        assert_eq!(RunId::of_lock_file(&format!("{id}.lock")), Some(id.clone()));
        for name in ["n1.lock", "x.lock", "n0000000g.lock", &id.to_string()] {
            assert_eq!(RunId::of_lock_file(name), None, "{name}");
        }
    }
}
