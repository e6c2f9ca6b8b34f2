// SPDX-License-Identifier: Apache-2.0
//! The record of a run: a stream of events, the report folded from it, and the renderings of the report.
//!
//! Everything here is pure. The crate knows neither builders nor containerd: it is the stable format between the
//! harness, which writes events, and whoever reads a report. A format change that an old reader would misread raises
//! [`SCHEMA_VERSION`].

mod event;
mod fold;
mod measure;
mod outcome;
mod reader;
mod report;
mod run;
pub mod text;
mod verdict;

pub use event::{AttemptFinished, Event, RunFinished, TrialStarted};
pub use fold::{FoldError, fold, settle};
pub use measure::{Comparison, Effect, MissedRound, PhaseTime, Sample, phase};
pub use outcome::Outcome;
pub use reader::{EventLog, ReadError, read_events};
pub use report::{Attempt, Report, TrialReport, schema};
pub use run::{Builder, Ending, Host, Level, PlannedTrial, Presence, RunStarted, SCHEMA_VERSION};
pub use verdict::{Class, Counts, Finding, Verdict};
