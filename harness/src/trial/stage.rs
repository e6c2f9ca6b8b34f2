// SPDX-License-Identifier: Apache-2.0
//! The node and the builders of a run, made ready together and put away together.

use std::path::Path;

use shakedown_report::{Builder, Presence};

use super::builder::ReadyBuilder;
use super::judgement::chain;
use super::{Cancellation, Candidate, describe, sha256_of};
use crate::adapter::{Absence, Environment};
use crate::cluster::Cluster;

/// One builder of the run.
pub struct Column {
    name: String,
    program: String,
    /// What became of it.
    pub state: ColumnState,
}

/// What became of a builder when it was to be made ready.
pub enum ColumnState {
    /// It can build.
    Ready(Box<ReadyBuilder>),
    /// It is not installed.
    Absent(Absence),
    /// It is installed and could not be made ready.
    Broken {
        /// Why.
        reason: String,
    },
}

impl Column {
    /// Makes one builder ready, as far as it is there.
    pub async fn prepare(
        candidate: &Candidate,
        cluster: &Cluster,
        logs: &Path,
        environment: &Environment,
        cancellation: &Cancellation,
    ) -> Self {
        let program = candidate.main_program().map(|path| path.display().to_string()).unwrap_or_default();
        let state = match &candidate.programs {
            Err(absence) => ColumnState::Absent(absence.clone()),
            Ok(programs) => {
                let variables = &environment.variables;
                match ReadyBuilder::start(candidate, programs, cluster, logs, variables, cancellation).await {
                    Ok(builder) => ColumnState::Ready(Box::new(builder)),
                    Err(error) => ColumnState::Broken { reason: chain(&error) },
                }
            }
        };
        Self { name: candidate.name().to_owned(), program, state }
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The column's head in the report.
    pub fn describe(&self) -> Builder {
        let presence = match &self.state {
            ColumnState::Ready(builder) => match sha256_of(Path::new(&self.program)) {
                Ok(program_sha256) => Presence::Present {
                    version: builder.version().to_owned(),
                    program: self.program.clone(),
                    program_sha256,
                },
                Err(error) => Presence::Broken {
                    program: self.program.clone(),
                    reason: format!("read the program: {error}"),
                },
            },
            ColumnState::Absent(absence) => {
                Presence::Absent { reason: describe(absence), remedy: Some(absence.install_hint.clone()) }
            }
            ColumnState::Broken { reason } => {
                Presence::Broken { program: self.program.clone(), reason: reason.clone() }
            }
        };
        Builder { name: self.name.clone(), presence }
    }

    /// The builder, if it can build.
    pub fn ready(&self) -> Option<&ReadyBuilder> {
        match &self.state {
            ColumnState::Ready(builder) => Some(builder),
            ColumnState::Absent(_) | ColumnState::Broken { .. } => None,
        }
    }

    /// Puts the builder away; returns what went wrong.
    pub async fn put_away(self) -> Option<String> {
        match self.state {
            ColumnState::Ready(builder) => {
                let stopped = builder.stop().await;
                stopped.err().map(|error| format!("put away {}: {}", self.name, chain(&error)))
            }
            ColumnState::Absent(_) | ColumnState::Broken { .. } => None,
        }
    }
}
