// SPDX-License-Identifier: Apache-2.0
//! What scenarios run on: a private containerd with base images, and the daemons that builders need.
//!
//! Signals are the caller's. This module must not know any scenario or verdict.

mod daemon;
mod private;
mod runs;

pub use daemon::{Daemon, DaemonError, DaemonSpec, WaitFor};
pub use private::{Cluster, ClusterError, ClusterOptions};
pub use runs::{RUNS_DIR_VARIABLE, collect_leftovers, runs_dir};
