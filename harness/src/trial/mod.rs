// SPDX-License-Identifier: Apache-2.0
//! Runs scenarios against builders and says what came of it, as one stream of events.

mod builder;
mod cancellation;
mod command;
mod daemon;
mod journal;
mod roster;

pub use builder::{BuilderError, NAMESPACE, ReadyBuilder};
pub use cancellation::Cancellation;
pub use command::{CommandError, Completion, End, Execution, run};
pub use daemon::DaemonError;
pub use journal::{Journal, JournalError};
pub use roster::{Candidate, sha256_of};
