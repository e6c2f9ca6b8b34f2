// SPDX-License-Identifier: Apache-2.0
//! The one folder in which a test program works, so that nothing of it stays, however the program ends.
//!
//! `TMPDIR` points into it from [`TestPlace::enter`] on, for this process and those it starts. It is removed when the
//! value is dropped. A killed program cannot do that: its lock goes with it, and the next test program collects the
//! folder, the nodes below it and the cgroups that were claimed. Only tests use this module.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::cgroups;
use crate::leftovers::{Leftovers, LeftoversError, runs_below};
use crate::run_directory::{RunDirectory, RunDirectoryError, RunId};
use crate::shim_directory::ShimDirectory;
use crate::teardown::{self, TeardownError};

/// The file of a place that names claimed cgroups, one a line.
const CLAIMS: &str = "cgroups";

/// How deep below a place the directories of nodes are looked for.
const DEPTH: usize = 5;

/// The folder of this test program.
#[derive(Debug)]
pub struct TestPlace {
    run: RunDirectory,
    parent: PathBuf,
}

/// Why a test program has no place to work in.
#[derive(Debug, thiserror::Error)]
pub enum TestPlaceError {
    /// `TMPDIR` cannot be set any more.
    #[error("enter the place of a test program: it already has {threads} threads")]
    Threads {
        /// How many.
        threads: usize,
    },
    /// What a killed test program left could not be removed.
    #[error(transparent)]
    Leftovers(#[from] LeftoversError),
    /// The folder could not be made.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
}

impl TestPlace {
    /// Collects what killed test programs of this user left, makes a fresh folder, and points `TMPDIR` to it.
    ///
    /// Must be called while the process has one thread, and after `confine::enter`: the lock belongs to the process
    /// that calls.
    ///
    /// # Errors
    /// [`TestPlaceError`].
    pub fn enter() -> Result<Self, TestPlaceError> {
        let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads != 1 {
            return Err(TestPlaceError::Threads { threads });
        }
        let user = rustix::process::geteuid().as_raw();
        // Short, for the path of a socket far below it has a limit.
        let place = Self::below(&std::env::temp_dir().join(format!("sdt-{user}")))?;
        // SAFETY: no other thread reads the environment, for there is none.
        unsafe { std::env::set_var("TMPDIR", place.path()) };
        Ok(place)
    }

    fn below(parent: &Path) -> Result<Self, TestPlaceError> {
        collect(parent)?;
        let run = RunDirectory::create(parent)?;
        Ok(Self { run, parent: parent.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.run.path()
    }

    /// Has the cgroup `name`, as `/name` below the root of each hierarchy, removed with the place.
    ///
    /// # Errors
    /// When the claim cannot be written down, or `name` is not that of one cgroup directly below the root.
    pub fn claim_cgroup(&self, name: &str) -> io::Result<()> {
        if !cgroups::is_removable(name) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut claims = File::options().append(true).create(true).open(self.path().join(CLAIMS))?;
        // In one write: trials claim at the same time.
        claims.write_all(format!("{name}\n").as_bytes())
    }
}

impl Drop for TestPlace {
    fn drop(&mut self) {
        // Whatever is still mounted below is in the private namespace of this process, which is about to end.
        if let Err(error) = remove(&self.run) {
            eprintln!("could not remove {}: {error}", self.path().display());
        }
        // It stays while others work in it.
        let _ = fs::remove_dir(&self.parent);
    }
}

/// Collects the places of dead test programs.
fn collect(parent: &Path) -> Result<(), LeftoversError> {
    for id in runs_below(parent)? {
        let Some(run) = RunDirectory::adopt(parent, id)? else { continue };
        remove(&run)?;
    }
    ShimDirectory::sweep();
    Ok(())
}

/// Removes a place: the nodes in it first, for each names a cgroup.
fn remove(run: &RunDirectory) -> Result<(), LeftoversError> {
    let mut parents = Vec::new();
    parents_of_runs(run.path(), DEPTH, &mut parents);
    for parent in parents {
        Leftovers::collect(&parent)?;
    }
    let claims = fs::read_to_string(run.path().join(CLAIMS)).unwrap_or_default();
    for cgroup in claims.lines() {
        cgroups::remove(cgroup)
            .map_err(|source| TeardownError::Cgroup { cgroup: cgroup.to_owned(), source })?;
    }
    teardown::remove_traces(run)?;
    Ok(run.remove()?)
}

/// The directories below `dir` that hold lock files of runs. What cannot be listed holds none.
fn parents_of_runs(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let mut holds_runs = false;
    let mut below = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        holds_runs |= entry.file_name().to_str().and_then(RunId::of_lock_file).is_some();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below.push(entry.path());
        }
    }
    if holds_runs {
        found.push(dir.to_owned());
    } else if depth > 0 {
        for dir in below {
            parents_of_runs(&dir, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_place_goes_with_its_value_and_a_dead_one_with_the_next() {
        let permissions = fs::Permissions::from_mode(0o755);
        let outer = tempfile::Builder::new().permissions(permissions).tempdir().unwrap();
        let parent = outer.path().join("places");
        let live = TestPlace::below(&parent).unwrap();
        // As a kill leaves it: the folder with a node's directory deep inside, and lock files that nobody holds.
        let dead = RunDirectory::create(&parent).unwrap();
        let node = RunDirectory::create(&dead.path().join("trial/nodes")).unwrap();
        fs::write(node.path().join("file"), "").unwrap();
        fs::write(dead.path().join(CLAIMS), "/shakedown-absent\n").unwrap();
        let path = dead.path().to_owned();
        drop((dead, node));

        let other = TestPlace::below(&parent).unwrap();
        assert!(!path.exists());
        assert!(live.path().exists(), "a live place is left alone");
        let path = other.path().to_owned();
        drop(other);
        assert!(!path.exists());
        drop(live);
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0, "the last one takes the parent along");
    }
}
