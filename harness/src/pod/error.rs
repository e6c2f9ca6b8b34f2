// SPDX-License-Identifier: Apache-2.0
//! Why a pod did not run, one variant per place where a kubelet would give up.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::Status;

use super::LogError;

/// Why a pod did not run.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The CRI socket did not take a connection.
    #[error("connect to {}", address.display())]
    Connect {
        /// The socket.
        address: PathBuf,
        /// The reason.
        #[source]
        source: tonic::transport::Error,
    },
    /// CRI does not know the image, and the policy is `Never`: a kubelet's `ErrImageNeverPull`.
    #[error("run a pod from {reference}: CRI has no such image")]
    ImageAbsent {
        /// The image's name.
        reference: String,
    },
    /// The name stands for another image than the one that was built.
    #[error("run a pod from {reference}: CRI has {found}, expected {expected}")]
    WrongImage {
        /// The image's name.
        reference: String,
        /// The id that was built.
        expected: String,
        /// The id that CRI gave.
        found: String,
    },
    /// The sandbox did not start: a fault of the node, not of the image.
    #[error("run the sandbox of pod {name}: {}", source.message())]
    SandboxFailed {
        /// The pod's name.
        name: String,
        /// CRI's answer.
        #[source]
        source: Box<Status>,
    },
    /// The container could not be created: a kubelet's `CreateContainerError`.
    #[error("create the container of pod {name}: {}", source.message())]
    CreateFailed {
        /// The pod's name.
        name: String,
        /// CRI's answer.
        #[source]
        source: Box<Status>,
    },
    /// The container's program could not be started: a kubelet's `RunContainerError`.
    #[error("start the container of pod {name}: {}", source.message())]
    StartFailed {
        /// The pod's name.
        name: String,
        /// CRI's answer.
        #[source]
        source: Box<Status>,
    },
    /// The pod was not through in time; it has been removed.
    #[error("run pod {name}: not through after {} ms, while it was to {phase}", limit.as_millis())]
    Timeout {
        /// The pod's name.
        name: String,
        /// The limit that passed.
        limit: Duration,
        /// What was going on.
        phase: &'static str,
    },
    /// Another call of CRI failed.
    #[error("{operation}: {}", source.message())]
    Call {
        /// The call.
        operation: &'static str,
        /// CRI's answer.
        #[source]
        source: Box<Status>,
    },
    /// The directory of the container's log could not be made.
    #[error("make a directory for the log of pod {name}")]
    LogDirectory {
        /// The pod's name.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The container's log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl PodError {
    pub(super) fn call(operation: &'static str) -> impl FnOnce(Status) -> Self {
        move |source| Self::Call { operation, source: Box::new(source) }
    }
}
