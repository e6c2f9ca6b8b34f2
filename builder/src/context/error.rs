// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a build context, and the remedies.

use std::io;
use std::path::PathBuf;

use crate::image::ImagePath;

use super::ignore::IgnoreProblem;
use super::pattern::PatternError;

/// Why a context, its ignore file, its Dockerfile or a selection from it cannot be used.
///
/// Messages are fragments that fit "failed to …"; the remedy is in [`ContextError::help`].
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The root directory of a tree cannot be opened.
    #[error("open directory {path}")]
    OpenTree {
        /// As the caller gave it.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The ignore file exists but cannot be read.
    #[error("read ignore file {path}")]
    ReadIgnoreFile {
        /// On the host.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A line of the ignore file is wrong.
    #[error("read ignore file {path}: line {line}: {problem}")]
    IgnoreLine {
        /// On the host.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: IgnoreProblem,
    },
    /// A wildcard of a source is malformed.
    #[error(transparent)]
    SourcePattern(#[from] PatternError),
    /// A source without wildcards does not exist, or the ignore file hides it.
    #[error("find copy source \"{path}\": not found")]
    NotFound {
        /// As written in the instruction, cleaned into the root.
        path: ImagePath,
        /// Set when the path is there and only the ignore file hides it.
        ignored_by: Option<IgnoredBy>,
    },
    /// Symbolic links lead in a circle.
    #[error("follow symbolic links of \"{path}\": more than {limit} links on the way")]
    TooManyLinks {
        /// As written, cleaned into the root.
        path: ImagePath,
        /// How many are followed.
        limit: usize,
    },
    /// An entry of a tree cannot be looked at.
    #[error("{operation} \"{path}\"")]
    Entry {
        /// What was tried, such as `read directory`.
        operation: &'static str,
        /// In the tree.
        path: ImagePath,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file was written to again and again while it was read.
    #[error("hash \"{path}\": it keeps changing while it is read")]
    Changing {
        /// In the tree.
        path: ImagePath,
    },
    /// The stat cache cannot be written. The build is right without it, and slower.
    #[error("write stat cache {path}")]
    WriteStatCache {
        /// On the host.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is no Dockerfile.
    #[error("read Dockerfile {path}: no such file")]
    DockerfileMissing {
        /// Where it was looked for first.
        path: PathBuf,
        /// Files of the context whose names look like a Dockerfile's, relative to the context, sorted.
        similar: Vec<PathBuf>,
    },
    /// The Dockerfile is a directory.
    #[error("read Dockerfile {path}: it is a directory")]
    DockerfileIsDirectory {
        /// On the host.
        path: PathBuf,
    },
    /// The Dockerfile is neither a file nor a directory: reading it might never end.
    #[error("read Dockerfile {path}: it is not a regular file")]
    DockerfileNotRegular {
        /// On the host.
        path: PathBuf,
    },
    /// The Dockerfile is larger than anything a person writes.
    #[error("read Dockerfile {path}: it has more than {limit_bytes} bytes")]
    DockerfileTooLarge {
        /// On the host.
        path: PathBuf,
        /// The most that is read.
        limit_bytes: u64,
    },
    /// The Dockerfile is not text.
    #[error("read Dockerfile {path}: line {line} is not UTF-8")]
    DockerfileNotUtf8 {
        /// On the host.
        path: PathBuf,
        /// The first such line, counted from 1.
        line: usize,
    },
    /// The Dockerfile exists but cannot be read.
    #[error("read Dockerfile {path}")]
    ReadDockerfile {
        /// On the host.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The line of an ignore file that hides a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredBy {
    /// The ignore file on the host.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// The line, cleaned.
    pub pattern: String,
    /// What it hides: the source itself, or a link on the way to it.
    pub path: ImagePath,
}

impl ContextError {
    /// What the user can do about it, as a full sentence.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotFound { ignored_by: Some(by), .. } => Some(format!(
                "\"{}\" is there, but the pattern {:?} in {} (line {}) hides it; a later line with !{} would bring it back.",
                by.path,
                by.pattern,
                by.file.display(),
                by.line,
                by.path.relative().display(),
            )),
            Self::NotFound { ignored_by: None, .. } => Some(
                "Sources are relative to the root of the build context (or of the stage named by --from), and nothing outside of it can be copied.".to_owned(),
            ),
            Self::DockerfileMissing { similar, .. } if !similar.is_empty() => {
                let names: Vec<String> = similar.iter().map(|name| name.display().to_string()).collect();
                Some(format!("The context holds {}; name one of them with -f.", names.join(", ")))
            }
            Self::DockerfileMissing { .. } => {
                Some("Name the Dockerfile with -f; a relative name is looked up in the current directory.".to_owned())
            }
            Self::DockerfileIsDirectory { .. } => Some("Name a file with -f.".to_owned()),
            _ => None,
        }
    }
}
