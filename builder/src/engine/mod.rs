// SPDX-License-Identifier: Apache-2.0
//! The engine: walks a plan and turns it into an image in containerd, one file per kind of step.
//!
//! It knows every other part of the builder but the command line. What happens is told as [`Event`]s; what goes wrong is
//! a [`BuildError`]. It must be used by a process that `confine::enter` has made PID 1 of its own namespaces: mounts and
//! processes are left to the kernel to end.

mod base;
mod build;
mod cancel;
mod collect;
mod context;
mod copy;
mod copy_target;
mod error;
mod event;
mod finish;
mod history;
mod layer_step;
mod ports;
mod prune;
mod request;
mod run;
mod session;
mod stage;
mod workdir;

pub use build::build;
pub use cancel::{Cancel, CancelHandle};
pub use error::{BuildError, StepFailure};
pub use event::{Event, EventSink, OutputStream, StepId, StepOutcome};
pub use finish::BuiltImage;
pub use ports::PortError;
pub use prune::{CacheEntry, Pruned, Upkeep};
pub use request::BuildRequest;
pub use session::{DEFAULT_RUN_DIR, NodePaths};
