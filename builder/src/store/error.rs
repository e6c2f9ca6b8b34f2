// SPDX-License-Identifier: Apache-2.0
//! Why an operation on containerd's stores failed.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

use super::discovery::SocketProblem;
use super::labels::LabelError;
use super::mounts::MountsError;
use crate::image::Digest;

/// A failed operation, with what it was done to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// containerd answered with an error, or the connection broke during the call.
    #[error("{operation} {subject}")]
    Call {
        /// What was tried, as a verb phrase: `commit snapshot`.
        operation: &'static str,
        /// What it was tried on: a name, digest or key.
        subject: String,
        /// containerd's answer.
        #[source]
        source: Cause,
    },
    /// There is no connection to containerd.
    #[error("{operation} {subject}: containerd is not reachable at {}: {problem}", address.display())]
    Unreachable {
        /// What was tried.
        operation: &'static str,
        /// What it was tried on.
        subject: String,
        /// The socket.
        address: PathBuf,
        /// What is wrong with the socket now.
        problem: SocketProblem,
        /// What the transport said.
        #[source]
        source: Cause,
    },
    /// containerd's answer lacks something that the protocol promises, or holds something malformed.
    #[error("{operation} {subject}: malformed answer: {detail}")]
    Answer {
        /// What was tried.
        operation: &'static str,
        /// What it was tried on.
        subject: String,
        /// What is wrong with the answer.
        detail: String,
    },
    /// A label that containerd would refuse or drop.
    #[error("{operation} {subject}")]
    Label {
        /// What was tried.
        operation: &'static str,
        /// What it was tried on.
        subject: String,
        /// Which label, and why.
        #[source]
        source: LabelError,
    },
    /// The snapshot's mounts are not those of a plain overlayfs snapshotter.
    #[error("{operation} {subject}")]
    Mounts {
        /// What was tried.
        operation: &'static str,
        /// The snapshot's key.
        subject: String,
        /// What was not understood.
        #[source]
        source: MountsError,
    },
    /// A blob that should be a small document is not small.
    #[error("read content {digest}: more than {limit_bytes} bytes")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The caller's limit.
        limit_bytes: u64,
    },
    /// Stored bytes do not have the digest they are stored under.
    #[error("read content {digest}: the stored bytes have the digest {found}")]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// The digest of what was read.
        found: Digest,
    },
    /// A layer blob does not unpack to the diff id that the image's config names.
    #[error("unpack layer {blob}: its diff id is {found}, the config says {expected}")]
    DiffId {
        /// The layer blob.
        blob: Digest,
        /// The config's diff id.
        expected: Digest,
        /// What containerd computed while it applied the layer.
        found: String,
    },
    /// An object kept vanishing between two calls: somebody removes it as fast as it is made.
    #[error("{operation} {subject}: it was removed by another client {attempts} times in a row")]
    Contended {
        /// What was tried.
        operation: &'static str,
        /// What it was tried on.
        subject: String,
        /// How often.
        attempts: u32,
    },
    /// CRI does not answer with the image that was just set.
    #[error(
        "see image {reference} through CRI: after {} ms its id is {}, not {expected}",
        limit.as_millis(), found.as_deref().unwrap_or("unknown to CRI")
    )]
    NotVisible {
        /// The image's name.
        reference: String,
        /// The digest of the config that was written.
        expected: Digest,
        /// CRI's last answer.
        found: Option<String>,
        /// How long it was asked.
        limit: Duration,
    },
    /// The name of a namespace is not an identifier in containerd's sense.
    #[error(
        "connect to namespace {namespace:?}: a namespace is up to 76 letters and digits with single . _ - between them"
    )]
    Namespace {
        /// The name as given.
        namespace: String,
    },
}

/// What kind of failure it is, for callers that react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object is not there.
    NotFound,
    /// An object of this name is there.
    AlreadyExists,
    /// containerd is not reachable, or for the moment refuses (a locked ingest).
    Unavailable,
    /// The socket or the operation is not permitted.
    PermissionDenied,
    /// The object's state does not allow it: a snapshot with children, a blob of another size.
    FailedPrecondition,
    /// containerd refuses what was asked as malformed, or this builder does before asking.
    InvalidArgument,
    /// The service is not there: CRI is switched off, or containerd is too old.
    Unimplemented,
    /// The call was cancelled or its time ran out.
    Cancelled,
    /// CRI did not show the image in time.
    NotVisible,
    /// Data is damaged or not what it claims to be.
    Damaged,
    /// Anything else that containerd reports, such as an error of its disk.
    Internal,
}

/// containerd's own words, without the decoration that the gRPC library puts around them.
#[derive(Debug)]
pub struct Cause(Box<Status>);

impl Cause {
    /// The gRPC status code.
    pub fn code(&self) -> Code {
        self.0.code()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.message() {
            "" => self.0.code().fmt(out),
            message => message.fmt(out),
        }
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Error::source(&*self.0)
    }
}

impl From<Status> for Cause {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl StoreError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Call { source, .. } => match source.code() {
                Code::NotFound => ErrorKind::NotFound,
                Code::AlreadyExists => ErrorKind::AlreadyExists,
                Code::Unavailable => ErrorKind::Unavailable,
                Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
                Code::FailedPrecondition | Code::Aborted => ErrorKind::FailedPrecondition,
                Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
                Code::Unimplemented => ErrorKind::Unimplemented,
                Code::Cancelled | Code::DeadlineExceeded => ErrorKind::Cancelled,
                Code::DataLoss => ErrorKind::Damaged,
                Code::Ok | Code::Unknown | Code::Internal | Code::ResourceExhausted => ErrorKind::Internal,
            },
            Self::Unreachable { problem: SocketProblem::PermissionDenied, .. } => ErrorKind::PermissionDenied,
            Self::Unreachable { .. } | Self::Contended { .. } => ErrorKind::Unavailable,
            Self::Label { .. } | Self::Mounts { .. } | Self::Namespace { .. } => ErrorKind::InvalidArgument,
            Self::Answer { .. } | Self::TooLarge { .. } | Self::Corrupt { .. } | Self::DiffId { .. } => {
                ErrorKind::Damaged
            }
            Self::NotVisible { .. } => ErrorKind::NotVisible,
        }
    }

    /// What the user can do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unreachable { problem, .. } => problem.help().map(str::to_owned),
            _ => None,
        }
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// Whether an object of this name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.kind() == ErrorKind::AlreadyExists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(code: Code, message: &str) -> StoreError {
        StoreError::Call {
            operation: "commit snapshot",
            subject: "sha256:00".to_owned(),
            source: Status::new(code, message).into(),
        }
    }

    #[test]
    fn the_message_names_operation_and_subject_and_the_source_is_containerds() {
        let error = call(Code::NotFound, "snapshot sha256:00 does not exist: not found");
        assert_eq!(error.to_string(), "commit snapshot sha256:00");
        let source = error.source().unwrap();
        assert_eq!(source.to_string(), "snapshot sha256:00 does not exist: not found");
        assert!(error.is_not_found());
        assert_eq!(call(Code::Internal, "").source().unwrap().to_string(), "Internal error");
    }

    #[test]
    fn kinds() {
        for (code, kind) in [
            (Code::AlreadyExists, ErrorKind::AlreadyExists),
            (Code::FailedPrecondition, ErrorKind::FailedPrecondition),
            (Code::Unimplemented, ErrorKind::Unimplemented),
            (Code::Unknown, ErrorKind::Internal),
        ] {
            assert_eq!(call(code, "").kind(), kind);
        }
    }

    #[test]
    fn an_image_that_stays_invisible_is_reported_with_both_ids() {
        let expected = Digest::of(b"new");
        let mut error = StoreError::NotVisible {
            reference: "docker.io/library/a:1".to_owned(),
            expected,
            found: Some("sha256:old".to_owned()),
            limit: Duration::from_millis(1500),
        };
        assert_eq!(
            error.to_string(),
            format!(
                "see image docker.io/library/a:1 through CRI: after 1500 ms its id is sha256:old, not {expected}"
            )
        );
        if let StoreError::NotVisible { found, .. } = &mut error {
            *found = None;
        }
        assert!(error.to_string().contains("its id is unknown to CRI, not sha256:"), "{error}");
    }
}
