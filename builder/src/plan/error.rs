// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with a Dockerfile that parses, given a request.

use std::ops::Range;

use crate::diagnostic::Diagnostic;
use crate::dockerfile::Dockerfile;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `--target` names no stage.
    #[error("target stage {target:?} could not be found{}", suggestion.as_ref().map(|name| format!(" (did you mean {name}?)")).unwrap_or_default())]
    UnknownTarget {
        /// What was asked for.
        target: String,
        /// The stage that was probably meant.
        suggestion: Option<String>,
        /// Every stage, by name or index.
        stages: Vec<String>,
    },
    /// The word of FROM is empty after expansion.
    #[error("the name of the base is empty after expansion: {word}")]
    EmptyBase {
        /// The word as written.
        word: String,
    },
    /// A word is no image name.
    #[error("{name:?} is not an image name: {reason}")]
    ImageName {
        /// The name after expansion.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `COPY --from` is never expanded.
    #[error("variables are not expanded in --from: {word}")]
    VariableInFrom {
        /// The value as written.
        word: String,
    },
    /// `COPY --from=` without a value.
    #[error("--from names no stage and no image")]
    EmptyCopyFrom,
    /// `COPY --from=9` of fewer stages.
    #[error("there is no stage with index {index}")]
    StageIndex {
        /// The number as written.
        index: String,
    },
    /// A stage that starts below.
    #[error("stage {name} is defined further below")]
    ForwardReference {
        /// The stage, by name or index.
        name: String,
    },
    /// A stage that copies from itself.
    #[error("stage {name} cannot copy from itself")]
    SelfReference {
        /// The stage, by name or index.
        name: String,
    },
    /// `COPY --from=scratch`.
    #[error("scratch has no files to copy")]
    CopyFromScratch,
}

impl PlanError {
    /// The stable code of its diagnostic.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTarget { .. } => "plan/target",
            Self::EmptyBase { .. } => "plan/empty-base",
            Self::ImageName { .. } => "plan/image-name",
            Self::VariableInFrom { .. } => "plan/variable-in-from",
            Self::EmptyCopyFrom | Self::StageIndex { .. } | Self::CopyFromScratch => "plan/copy-source",
            Self::ForwardReference { .. } | Self::SelfReference { .. } => "plan/stage-order",
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::UnknownTarget { stages, .. } => format!("the stages are {}", stages.join(", ")),
            Self::EmptyBase { .. } => {
                "give the ARG a default before the first FROM, or pass it with --build-arg".to_owned()
            }
            Self::VariableInFrom { word } => {
                format!("add a stage FROM {word} AS name, and use COPY --from=name")
            }
            Self::ForwardReference { .. } => "move the stage above the one that uses it".to_owned(),
            _ => return None,
        })
    }

    /// The error as it is told. `span` is the place in the Dockerfile, if it has one.
    pub fn into_diagnostic(self, dockerfile: &Dockerfile, span: Option<Range<usize>>) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(self.code(), self.to_string());
        if let Some(span) = span {
            diagnostic = diagnostic.at(dockerfile.location(span));
        }
        match self.help() {
            Some(help) => diagnostic.with_help(help),
            None => diagnostic,
        }
    }
}
