// SPDX-License-Identifier: Apache-2.0
//! Runs scenarios against builders and says what came of it, as one stream of events.
//!
//! The dispatcher walks the plan and owns the stream; the executor runs one attempt and knows nothing of the others.
//! What a builder did wrong is a finding, what the harness could not do is an interruption, and the two never mix.

mod bench;
mod builder;
mod cancellation;
mod command;
mod dispatcher;
mod executor;
mod host;
mod journal;
mod judgement;
mod node_side;
mod residue;
mod roster;
mod stage;

pub use builder::{BuilderError, NAMESPACE, ReadyBuilder};
pub use cancellation::Cancellation;
pub use command::{CommandError, Completion, End, Execution, run};
pub use dispatcher::{Conclusion, Request, RunError, conduct};
pub use executor::Executor;
pub use host::{host, runc_version};
pub use journal::{Journal, JournalError};
pub use judgement::{Identity, Interruption, Seen, chain, judge};
pub use node_side::NodeSide;
pub use roster::{Candidate, describe, sha256_of, version_without_daemon};
pub use stage::{Column, ColumnState};
