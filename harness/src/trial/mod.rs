// SPDX-License-Identifier: Apache-2.0
//! Runs scenarios against builders and says what came of it, as one stream of events.

mod cancellation;
mod command;
mod journal;

pub use cancellation::Cancellation;
pub use command::{CommandError, Completion, End, Execution, run};
pub use journal::{Journal, JournalError};
