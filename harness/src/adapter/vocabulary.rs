// SPDX-License-Identifier: Apache-2.0
//! The closed vocabularies by which scenarios and adapters understand each other.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// What a builder may be able to do. A scenario requires capabilities, an adapter claims them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
pub enum Capability {
    /// Values for `ARG` on the command line.
    #[serde(rename = "build.args")]
    BuildArgs,
    /// The choice of a stage on the command line.
    #[serde(rename = "build.target")]
    BuildTarget,
    /// A build that takes nothing from the cache.
    #[serde(rename = "build.no_cache")]
    BuildNoCache,
    /// More than one name for an image.
    #[serde(rename = "build.tags")]
    BuildTags,
    /// `.dockerignore` in the root of the context.
    #[serde(rename = "context.ignore_file")]
    ContextIgnoreFile,
    /// Several `FROM`s, and `COPY --from` between them.
    #[serde(rename = "dockerfile.stages")]
    DockerfileStages,
    /// `RUN` in shell and exec form, without a network.
    #[serde(rename = "dockerfile.run")]
    DockerfileRun,
    /// Steps whose inputs did not change are not executed again.
    #[serde(rename = "cache.steps")]
    CacheSteps,
    /// A pod can run the image as soon as it has been delivered.
    #[serde(rename = "pod.run")]
    PodRun,
}

impl Capability {
    /// The word as documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildArgs => "build.args",
            Self::BuildTarget => "build.target",
            Self::BuildNoCache => "build.no_cache",
            Self::BuildTags => "build.tags",
            Self::ContextIgnoreFile => "context.ignore_file",
            Self::DockerfileStages => "dockerfile.stages",
            Self::DockerfileRun => "dockerfile.run",
            Self::CacheSteps => "cache.steps",
            Self::PodRun => "pod.run",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Kinds of failure that an exit code can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitClass {
    /// An instruction failed while it was carried out.
    StepFailed,
    /// Wrong flags, or a Dockerfile that cannot be understood.
    Usage,
    /// The builder's daemon or the container runtime cannot be reached.
    Unreachable,
    /// Registry, network or credentials.
    Registry,
    /// The image store refused or did not show the result.
    Store,
    /// The build context or its ignore file cannot be read.
    Context,
    /// Ended by a signal.
    Cancelled,
}

impl ExitClass {
    /// The word as documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StepFailed => "step_failed",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::Registry => "registry",
            Self::Store => "store",
            Self::Context => "context",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ExitClass {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
