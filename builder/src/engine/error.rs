// SPDX-License-Identifier: Apache-2.0
//! Everything that can end a build, with what was tried and where in the Dockerfile.

use std::io;
use std::path::PathBuf;

use super::ports::PortError;
use crate::cache::{IndexError, ResultsError, StateDirError, StepKey, StepRecord};
use crate::context::ContextError;
use crate::diagnostic::{Diagnostic, Location};
use crate::image::{ChainId, DocumentError, ImagePath, ImageReference};
use crate::layer::LayerError;
use crate::plan::StageId;
use crate::sandbox::build_lock::BuildLockError;
use crate::sandbox::cgroup::CgroupError;
use crate::sandbox::executor::SandboxError;
use crate::sandbox::network::NetworkError;
use crate::sandbox::overlay::OverlayError;
use crate::sandbox::scratch::ScratchError;
use crate::sandbox::user::UserError;
use crate::store::StoreError;

/// A command of the Dockerfile that ran and failed.
#[derive(Debug)]
pub struct StepFailure {
    /// The instruction.
    pub location: Location,
    /// What was executed.
    pub argv: Vec<String>,
    /// Its exit code; 128 + the signal's number after a signal.
    pub code: i32,
    /// The last of its output.
    pub tail: String,
}

/// Why a build ended without an image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile is wrong, or asks for what is not supported.
    #[error("{0}")]
    Dockerfile(Box<Diagnostic>),
    /// A RUN failed.
    #[error("run {}: exit code {}", .0.argv.join(" "), .0.code)]
    Step(Box<StepFailure>),
    /// A COPY can't be carried out as it is written.
    #[error("{reason}")]
    Copy {
        /// The instruction.
        location: Box<Location>,
        /// What stands in the way.
        reason: String,
    },
    /// A USER that the image does not know.
    #[error("resolve user {user:?}")]
    User {
        /// The instruction.
        location: Box<Location>,
        /// As written.
        user: String,
        /// What is not known.
        #[source]
        source: UserError,
    },
    /// An EXPOSE that names no port.
    #[error("expose ports")]
    Port {
        /// The instruction.
        location: Box<Location>,
        /// What is wrong.
        #[source]
        source: PortError,
    },
    /// The context, its ignore file or the Dockerfile could not be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// Something went wrong while an instruction was carried out.
    #[error("{source}")]
    In {
        /// The instruction.
        location: Box<Location>,
        /// What went wrong.
        #[source]
        source: Box<BuildError>,
    },
    /// A base image is neither in containerd nor to be pulled.
    #[error("find base image {reference}: it is not in containerd's namespace {namespace}")]
    BaseAbsent {
        /// Its name.
        reference: ImageReference,
        /// The word that names it.
        location: Box<Location>,
        /// Where it was looked for.
        namespace: String,
    },
    /// A base image could not be pulled.
    #[error("get the base of a stage")]
    Pull {
        /// Its name.
        reference: ImageReference,
        /// The word that names it.
        location: Box<Location>,
        /// CRI's answer.
        #[source]
        source: StoreError,
    },
    /// A base image's manifest or config is malformed.
    #[error("read base image {reference}")]
    BaseImage {
        /// Its name.
        reference: ImageReference,
        /// The word that names it.
        location: Box<Location>,
        /// What is wrong.
        #[source]
        source: DocumentError,
    },
    /// A base image contradicts itself.
    #[error("read base image {reference}: its manifest has {descriptors} layers, its config {diff_ids}")]
    BaseLayers {
        /// Its name.
        reference: ImageReference,
        /// The word that names it.
        location: Box<Location>,
        /// Layers in the manifest.
        descriptors: usize,
        /// Layers in the config.
        diff_ids: usize,
    },
    /// A base image asks for instructions to be carried out first. Ignoring them would give another image than asked for.
    #[error("build on {reference}: its ONBUILD triggers are not supported: {}", .triggers.join("; "))]
    BaseTriggers {
        /// Its name.
        reference: ImageReference,
        /// The word that names it.
        location: Box<Location>,
        /// The instructions.
        triggers: Vec<String>,
    },
    /// A base image's index leads to nothing but further indexes.
    #[error("read base image {reference}: its indexes are nested too deeply")]
    BaseNesting {
        /// Its name.
        reference: ImageReference,
        /// The word that names it.
        location: Box<Location>,
    },
    /// A base image is not there for this platform.
    #[error("find base image {reference} for {platform}: it is there for {}", if .offered.is_empty() { "no named platform".to_owned() } else { .offered.join(", ") })]
    BasePlatform {
        /// Its name.
        reference: ImageReference,
        /// The word that names it.
        location: Box<Location>,
        /// What is wanted.
        platform: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// containerd or CRI.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer could not be written or read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The sandbox of a RUN.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A mount.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// Scratch space.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The directory of live builds.
    #[error(transparent)]
    BuildLock(#[from] BuildLockError),
    /// Cgroups of builds that died.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Networks of builds that died.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The step index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The record of results.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// A marker of this or another build.
    #[error("keep track of builds in {path}")]
    Marker {
        /// The marker or its directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A directory of a snapshot.
    #[error("open snapshot directory {path}")]
    Directory {
        /// The directory on the host.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the image that the build has to read itself.
    #[error("read {path} of the image")]
    ReadInImage {
        /// The file.
        path: ImagePath,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A working directory that could not be made.
    #[error("make directory {path} in the image")]
    MakeInImage {
        /// The directory.
        path: ImagePath,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// containerd gave a snapshot without a directory to write to.
    #[error("write into snapshot {key}: containerd names no directory for it")]
    NoUpper {
        /// The snapshot.
        key: String,
    },
    /// A cached layer is damaged and stays in the way of a new one.
    #[error("replace the damaged layer {chain}")]
    Damaged {
        /// The layer's snapshot.
        chain: ChainId,
        /// Why it can't be removed.
        #[source]
        source: StoreError,
    },
    /// A system call that has no reason to fail.
    #[error("{operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Cached results are gone from containerd; the build starts over without them.
    #[error("use cached steps: containerd no longer has them")]
    Stale {
        /// The steps whose results were taken from the cache.
        hits: Vec<(StepKey, StepRecord)>,
    },
    /// A stage is asked for that the plan does not hold.
    #[error("build stage {stage}: the plan does not hold it")]
    StageUnplanned {
        /// The stage.
        stage: StageId,
    },
    /// Another stage failed, and tells why.
    #[error("wait for a stage that failed")]
    DependencyFailed,
    /// A prune while builds are running.
    #[error("prune: a build is using the cache")]
    CacheInUse,
    /// The build was told to end.
    #[error("the build was cancelled")]
    Cancelled,
}

impl BuildError {
    /// Says in which instruction it happened, unless the error knows a place itself.
    pub(crate) fn in_instruction(self, location: &Location) -> Self {
        match self {
            Self::Layer(_) | Self::Context(_) | Self::Sandbox(_) | Self::Overlay(_) => {
                Self::In { location: Box::new(location.clone()), source: Box::new(self) }
            }
            other => other,
        }
    }

    /// The place in the Dockerfile, if there is one.
    pub fn location(&self) -> Option<&Location> {
        match self {
            Self::Dockerfile(diagnostic) => diagnostic.location.as_ref(),
            Self::Step(failure) => Some(&failure.location),
            Self::Copy { location, .. }
            | Self::User { location, .. }
            | Self::Port { location, .. }
            | Self::In { location, .. }
            | Self::BaseAbsent { location, .. }
            | Self::Pull { location, .. }
            | Self::BaseImage { location, .. }
            | Self::BaseLayers { location, .. }
            | Self::BaseTriggers { location, .. }
            | Self::BaseNesting { location, .. }
            | Self::BasePlatform { location, .. } => Some(location),
            _ => None,
        }
    }
}
