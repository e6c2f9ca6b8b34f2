// SPDX-License-Identifier: Apache-2.0
//! Scenarios: what a builder is given, what it is asked to do, and what must hold afterwards.
//!
//! A scenario is data. It knows no builder and no cluster, and nothing here runs anything; the only I/O is reading
//! scenario files and laying out a build context.

mod bench;
mod context;
mod expect;
mod load;
mod model;
mod words;
mod workspace;

pub use bench::{Bench, BenchCase, BenchKind};
pub use context::{Context, ContextFile, FileContent, Mutation, RandomBytes};
pub use expect::{
    ConfigAssertion, ConfigRule, DirectoryEntries, ExecutionExpect, Expect, FailureExpect, FileContentRule,
    FileExpect, FileFacts, FileState, FileType, ImageExpect, LogExpect, Outcome, PodExit, PodExpect, PodRun,
};
pub use load::{load, load_all};
pub use model::{BuildStep, Dockerfile, Level, Scenario, ScenarioKind, Step};
pub use words::{ContextPath, ImageFilePath, Mode, Pattern, ScenarioId, Sha256, Substitutions};
pub use workspace::{Workspace, WorkspaceError};
