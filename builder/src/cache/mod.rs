// SPDX-License-Identifier: Apache-2.0
//! The step cache: what a step's inputs are, which snapshot they led to, and what is kept.
//!
//! containerd is the database: a snapshot under its chain id is the cached result, its labels are the record, and
//! `containerd.io/gc.root` on it is the pin. The local index only finds it faster, and can be rebuilt from the labels
//! at any time. Nothing here speaks to containerd; the engine hands in what it saw and carries out what is decided.

mod index;
mod key;
mod policy;
mod results;
mod state_dir;

pub use index::{BootId, IndexError, StepIndex, StepRecord};
pub use key::{KeyBuilder, StepKey, StepKeyError};
pub use policy::{CacheLimits, FileSystemUse, Kept, PinnedSnapshot, PrunePlan, plan_prune};
pub use results::{BuildResult, ResultLog, ResultsError};
pub use state_dir::{CacheLock, StateDir, StateDirError};
