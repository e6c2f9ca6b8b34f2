// SPDX-License-Identifier: Apache-2.0
//! Where the directories of runs are made, and collecting those of runs that were killed.

use std::env;
use std::path::PathBuf;

use shakedown_node::{Leftovers, LeftoversError};

/// The environment variable that names another parent directory.
pub const RUNS_DIR_VARIABLE: &str = "SHAKEDOWN_RUNS_DIR";

/// The parent directory of all runs of this user: `$SHAKEDOWN_RUNS_DIR`, else `/tmp/shakedown-<uid>`.
///
/// Short, for a socket's path has 107 bytes at most, and not in `$XDG_RUNTIME_DIR`, which is kept in memory. It must be
/// on a file system that overlayfs takes as an upper directory: inside a container, name a volume.
pub fn runs_dir() -> PathBuf {
    match env::var_os(RUNS_DIR_VARIABLE) {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(format!("/tmp/shakedown-{}", rustix::process::geteuid().as_raw())),
    }
}

/// Removes what killed runs left in [`runs_dir`]; live ones are not touched.
///
/// # Errors
/// [`LeftoversError`].
pub fn collect_leftovers() -> Result<Leftovers, LeftoversError> {
    Leftovers::collect(&runs_dir())
}
