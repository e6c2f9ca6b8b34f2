// SPDX-License-Identifier: Apache-2.0
//! Collects what runs that were killed have left below a parent directory.
//!
//! Their processes and mounts ended with their namespaces; cgroups and directories remain. A run whose lock is held is
//! alive and is left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::run_directory::{RunDirectory, RunDirectoryError, RunId};
use crate::shim_directory::ShimDirectory;
use crate::teardown::{self, TeardownError};

/// What was found and removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// The dead runs, in no order.
    pub runs: Vec<RunId>,
}

/// What could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum LeftoversError {
    /// The parent directory could not be listed.
    #[error("list runs in {}", parent.display())]
    List {
        /// The parent directory.
        parent: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The lock or the directory of a run could not be handled.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// Something of a run could not be removed.
    #[error(transparent)]
    Teardown(#[from] TeardownError),
}

impl Leftovers {
    /// Removes directories and cgroups of every dead run below `parent`; an absent parent holds none.
    ///
    /// # Errors
    /// The first [`LeftoversError`]; what was collected before stays collected.
    pub fn collect(parent: &Path) -> Result<Self, LeftoversError> {
        let mut found = Self::default();
        for id in runs_below(parent)? {
            let Some(run) = RunDirectory::adopt(parent, id)? else { continue };
            teardown::remove_traces(&run)?;
            run.remove()?;
            found.runs.push(run.id().clone());
        }
        ShimDirectory::sweep();
        Ok(found)
    }
}

/// The ids of all runs below `parent` that have a lock file, held or not; an absent parent holds none.
pub(crate) fn runs_below(parent: &Path) -> Result<Vec<RunId>, LeftoversError> {
    let list = |source| LeftoversError::List { parent: parent.to_owned(), source };
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(list)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry.map_err(list)?.file_name().to_str().and_then(RunId::of_lock_file));
    }
    Ok(found)
}
