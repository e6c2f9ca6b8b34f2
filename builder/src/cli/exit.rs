// SPDX-License-Identifier: Apache-2.0
//! From what went wrong to a documented exit code and to what the user is told.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | built, and visible to CRI where CRI is asked |
//! | 1 | a step of the Dockerfile failed |
//! | 2 | usage, Dockerfile syntax |
//! | 3 | containerd or runc unreachable |
//! | 4 | registry, network, credentials |
//! | 5 | store, commit or verification failed |
//! | 6 | context or ignore file |
//! | 130, 143 | cancelled by SIGINT, SIGTERM |

use std::error::Error;

use super::command::CommandError;
use crate::context::ContextError;
use crate::diagnostic::Diagnostic;
use crate::engine::BuildError;
use crate::layer::LayerError;
use crate::sandbox::executor::SandboxError;
use crate::sandbox::runc::RuncError;
use crate::store::{ErrorKind, StoreError};

/// The exit codes, so that no number stands anywhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// It worked.
    Success = 0,
    /// A step of the Dockerfile failed.
    Step = 1,
    /// Usage or Dockerfile syntax.
    Usage = 2,
    /// containerd or runc unreachable.
    Unreachable = 3,
    /// Registry, network, credentials.
    Registry = 4,
    /// Store, commit or verification failed.
    Store = 5,
    /// Context or ignore file.
    Context = 6,
    /// Cancelled by SIGINT.
    Interrupted = 130,
    /// Cancelled by SIGTERM.
    Terminated = 143,
}

/// What kind of failure it is.
pub fn exit_code(error: &CommandError) -> ExitCode {
    match error {
        CommandError::Discovery(_) | CommandError::Confine(_) => ExitCode::Unreachable,
        CommandError::Usage(_) => ExitCode::Usage,
        CommandError::Output(_)
        | CommandError::Runtime(_)
        | CommandError::Network(_)
        | CommandError::Stats { .. } => ExitCode::Store,
        CommandError::Store(error) => store_code(error),
        CommandError::NoSuchImage { .. } => ExitCode::Usage,
        CommandError::Cancelled { terminated: true } => ExitCode::Terminated,
        CommandError::Cancelled { terminated: false } => ExitCode::Interrupted,
        CommandError::Build(error) => build_code(error),
    }
}

fn build_code(error: &BuildError) -> ExitCode {
    match error {
        BuildError::Step(_) | BuildError::Copy { .. } | BuildError::User { .. } => ExitCode::Step,
        BuildError::Dockerfile(_) | BuildError::Port { .. } | BuildError::BaseTriggers { .. } => {
            ExitCode::Usage
        }
        BuildError::Context(error) => context_code(error),
        BuildError::In { source, .. } => build_code(source),
        BuildError::BaseAbsent { .. }
        | BuildError::Pull { .. }
        | BuildError::BasePlatform { .. }
        | BuildError::BaseImage { .. }
        | BuildError::BaseLayers { .. }
        | BuildError::BaseNesting { .. } => ExitCode::Registry,
        BuildError::Store(error) => store_code(error),
        BuildError::Sandbox(SandboxError::Runc(error)) => match error {
            RuncError::NotFound { .. } => ExitCode::Unreachable,
            RuncError::CannotExecute { .. } => ExitCode::Step,
            RuncError::Failed { .. }
            | RuncError::Died { .. }
            | RuncError::System { .. }
            | RuncError::Cgroup(_) => ExitCode::Store,
        },
        BuildError::Layer(LayerError::Source { .. } | LayerError::SizeChanged { .. }) => ExitCode::Context,
        BuildError::Layer(
            LayerError::WhiteoutName { .. }
            | LayerError::WhiteoutDevice { .. }
            | LayerError::Owner { .. }
            | LayerError::Loop { .. }
            | LayerError::ParentNotDirectory { .. },
        ) => ExitCode::Step,
        BuildError::Cancelled => ExitCode::Interrupted,
        BuildError::Layer(_)
        | BuildError::Sandbox(_)
        | BuildError::Overlay(_)
        | BuildError::Scratch(_)
        | BuildError::BuildLock(_)
        | BuildError::Cgroup(_)
        | BuildError::Network(_)
        | BuildError::Index(_)
        | BuildError::Results(_)
        | BuildError::StateDir(_)
        | BuildError::Marker { .. }
        | BuildError::Directory { .. }
        | BuildError::ReadInImage { .. }
        | BuildError::MakeInImage { .. }
        | BuildError::NoUpper { .. }
        | BuildError::Damaged { .. }
        | BuildError::System { .. }
        | BuildError::Stale { .. }
        | BuildError::StageUnplanned { .. }
        | BuildError::DependencyFailed
        | BuildError::CacheInUse => ExitCode::Store,
    }
}

fn store_code(error: &StoreError) -> ExitCode {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::PermissionDenied => ExitCode::Unreachable,
        ErrorKind::InvalidArgument => ExitCode::Usage,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::FailedPrecondition
        | ErrorKind::Unimplemented
        | ErrorKind::Cancelled
        | ErrorKind::NotVisible
        | ErrorKind::Damaged
        | ErrorKind::Internal => ExitCode::Store,
    }
}

/// A source that does not exist is a mistake of the Dockerfile's step, the rest is trouble with the context.
fn context_code(error: &ContextError) -> ExitCode {
    match error {
        ContextError::NotFound { .. } => ExitCode::Step,
        _ => ExitCode::Context,
    }
}

/// The failure as the user is told it: place and caret where there is a place, the chain of causes, the remedy.
pub fn diagnostic(error: &CommandError) -> Diagnostic {
    if let CommandError::Build(BuildError::Dockerfile(diagnostic)) = error {
        return (**diagnostic).clone();
    }
    let mut told = Diagnostic::error(code_name(exit_code(error)), message(error));
    if let CommandError::Build(build) = error
        && let Some(location) = build.location()
    {
        told = told.at(location.clone());
    }
    match help(error) {
        Some(help) => told.with_help(help),
        None => told,
    }
}

/// An error and its causes on one line; a cause that its error repeats already is not told twice.
fn message(error: &CommandError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn code_name(code: ExitCode) -> &'static str {
    match code {
        ExitCode::Success => "pushless/success",
        ExitCode::Step => "build/step",
        ExitCode::Usage => "pushless/usage",
        ExitCode::Unreachable => "node/unreachable",
        ExitCode::Registry => "registry/base",
        ExitCode::Store => "store/failed",
        ExitCode::Context => "context/failed",
        ExitCode::Interrupted | ExitCode::Terminated => "pushless/cancelled",
    }
}

fn help(error: &CommandError) -> Option<String> {
    match error {
        CommandError::Discovery(error) => error.help().map(str::to_owned),
        CommandError::Store(error) => error.help(),
        CommandError::Confine(error) if error.is_permission() => {
            Some("pushless needs root to work in containerd's directories: try sudo pushless".to_owned())
        }
        CommandError::Build(error) => build_help(error),
        _ => None,
    }
}

fn build_help(error: &BuildError) -> Option<String> {
    match error {
        BuildError::Store(error) => error.help(),
        BuildError::In { source, .. } => build_help(source),
        BuildError::Context(error) => error.help(),
        BuildError::BaseAbsent { namespace, .. } if namespace != "k8s.io" => Some(format!(
            "images are pulled through CRI, which knows only the namespace k8s.io: put the image into {namespace} first"
        )),
        BuildError::Pull { .. } => Some(
            "the node's own registry configuration and credentials are used: see containerd's CRI settings"
                .into(),
        ),
        BuildError::Sandbox(SandboxError::Runc(RuncError::NotFound { .. })) => {
            Some("install runc, or name it with --runc".to_owned())
        }
        BuildError::Layer(LayerError::Source { .. } | LayerError::SizeChanged { .. }) => {
            Some("build again once nothing writes to the context".to_owned())
        }
        BuildError::Damaged { .. } => {
            Some("remove the images and containers that use it, then build again".to_owned())
        }
        BuildError::CacheInUse => Some("wait for the build to end, then prune again".to_owned()),
        _ => None,
    }
}
