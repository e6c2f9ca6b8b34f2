// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with the text of a Dockerfile, and how it is told.

use std::ops::Range;
use std::sync::Arc;

use super::expand::ExpandError;
use crate::diagnostic::{Diagnostic, Location};

/// A mistake in a Dockerfile. The sentence stands alone; the place is kept beside it, in [`Fault`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// The engine has no such thing yet.
    #[error("{feature} is not supported yet")]
    Unsupported {
        /// The thing, as it is written.
        feature: String,
    },
    /// The first word is no instruction.
    #[error("unknown instruction: {name}{}", meant(*.suggestion))]
    UnknownInstruction {
        /// The word as written.
        name: String,
        /// The instruction that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A parser directive is given twice.
    #[error("only one {key} parser directive can be used")]
    DuplicateDirective {
        /// Its lower-case name.
        key: &'static str,
    },
    /// The escape directive names another character.
    #[error("the escape directive must be \\ or `, not {value:?}")]
    EscapeDirective {
        /// What it names.
        value: String,
    },
    /// A physical line is too long.
    #[error("line is longer than {limit_bytes} bytes")]
    LineTooLong {
        /// The longest that is read.
        limit_bytes: usize,
    },
    /// The file ended inside a heredoc.
    #[error("unterminated heredoc: no line is {name:?}")]
    UnterminatedHeredoc {
        /// The terminator that was looked for.
        name: String,
    },
    /// The line that announces a heredoc has an unfinished quote.
    #[error("unfinished {quote} in a line with a heredoc")]
    HeredocQuote {
        /// The quote that was opened.
        quote: char,
    },
    /// The number before `<<` is no file descriptor.
    #[error("{number} is not a file descriptor")]
    HeredocDescriptor {
        /// The digits as written.
        number: String,
    },
    /// The file has no byte but white space and comments.
    #[error("the Dockerfile has no instructions")]
    NoInstructions,
    /// There is something, but no stage.
    #[error("the Dockerfile has no FROM instruction")]
    NoStage,
    /// An instruction before the first stage.
    #[error("{keyword} before the first FROM: only ARG may stand there")]
    BeforeFirstStage {
        /// The instruction.
        keyword: &'static str,
    },
    /// FROM with two, or with more than three words, or without AS.
    #[error("FROM requires either one or three arguments (FROM image [AS name])")]
    FromArguments,
    /// A stage name that is none.
    #[error("invalid name for a build stage: {name:?}")]
    StageName {
        /// The name as written.
        name: String,
    },
    /// Too few arguments.
    #[error("{keyword} requires {needs}")]
    MissingArguments {
        /// The instruction.
        keyword: &'static str,
        /// How many it wants, in words.
        needs: &'static str,
    },
    /// A flag that the instruction does not have.
    #[error("unknown flag for {keyword}: --{name}{}", meant_flag(*.suggestion))]
    UnknownFlag {
        /// The instruction.
        keyword: &'static str,
        /// The flag without dashes.
        name: String,
        /// The flag that was probably meant, without dashes.
        suggestion: Option<&'static str>,
    },
    /// A flag that may be given once is given twice.
    #[error("duplicate flag: --{name}")]
    DuplicateFlag {
        /// The flag without dashes.
        name: &'static str,
    },
    /// A flag without its value.
    #[error("missing value: --{name}=…")]
    MissingFlagValue {
        /// The flag without dashes.
        name: &'static str,
    },
    /// A switch with a value that is neither `true` nor `false`.
    #[error("--{name} is true or false, not {value:?}")]
    SwitchValue {
        /// The flag without dashes.
        name: &'static str,
        /// What was written.
        value: String,
    },
    /// A JSON array with other things than strings.
    #[error("the exec form is a JSON array of strings only")]
    ExecFormNotStrings,
    /// `RUN []`.
    #[error("RUN has no command to run")]
    EmptyCommand,
    /// A word of ENV or LABEL without `=`.
    #[error("can't find = in {word:?}: must be of the form name=value")]
    NotKeyValue {
        /// The word as written.
        word: String,
    },
    /// `ENV name` without anything else.
    #[error("{keyword} must have two arguments: name=value")]
    NoValue {
        /// The instruction.
        keyword: &'static str,
    },
    /// `ENV =value`.
    #[error("{keyword} names can not be blank")]
    BlankName {
        /// The instruction.
        keyword: &'static str,
    },
}

fn meant(suggestion: Option<&str>) -> String {
    suggestion.map(|word| format!(" (did you mean {word}?)")).unwrap_or_default()
}

fn meant_flag(suggestion: Option<&str>) -> String {
    suggestion.map(|word| format!(" (did you mean --{word}?)")).unwrap_or_default()
}

impl SyntaxError {
    /// The stable code of its diagnostic.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "dockerfile/unsupported",
            Self::UnknownInstruction { .. } => "dockerfile/unknown-instruction",
            Self::DuplicateDirective { .. } | Self::EscapeDirective { .. } => "dockerfile/directive",
            Self::LineTooLong { .. } => "dockerfile/line-too-long",
            Self::UnterminatedHeredoc { .. } | Self::HeredocQuote { .. } | Self::HeredocDescriptor { .. } => {
                "dockerfile/heredoc"
            }
            Self::NoInstructions | Self::NoStage | Self::BeforeFirstStage { .. } => "dockerfile/structure",
            Self::StageName { .. } => "dockerfile/stage-name",
            Self::FromArguments
            | Self::MissingArguments { .. }
            | Self::ExecFormNotStrings
            | Self::EmptyCommand
            | Self::NotKeyValue { .. }
            | Self::NoValue { .. }
            | Self::BlankName { .. } => "dockerfile/arguments",
            Self::UnknownFlag { .. }
            | Self::DuplicateFlag { .. }
            | Self::MissingFlagValue { .. }
            | Self::SwitchValue { .. } => "dockerfile/flag",
        }
    }

    /// What to do about it, where that is not plain from the sentence.
    fn help(&self) -> Option<String> {
        let text = match self {
            Self::StageName { .. } => {
                "a stage name starts with a letter, then come letters, digits, '-', '_' and '.'"
            }
            Self::NoInstructions | Self::NoStage => "start with FROM, e.g. FROM scratch",
            Self::BeforeFirstStage { .. } => "move it below a FROM",
            Self::MissingArguments { keyword: "CMD" | "ENTRYPOINT", .. } => "write [] to clear it",
            Self::EscapeDirective { .. } => "write # escape=` or leave the directive out",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// A mistake and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) error: SyntaxError,
    pub(super) span: Range<usize>,
}

impl Fault {
    #[cold]
    pub(super) fn new(error: SyntaxError, span: Range<usize>) -> Self {
        Self { error, span }
    }

    #[cold]
    pub(super) fn unsupported(feature: impl Into<String>, span: Range<usize>) -> Self {
        Self::new(SyntaxError::Unsupported { feature: feature.into() }, span)
    }

    pub(super) fn into_diagnostic(self, file: &str, source: &Arc<str>) -> Diagnostic {
        let diagnostic = Diagnostic::error(self.error.code(), self.error.to_string()).at(Location::new(
            file,
            source.clone(),
            self.span,
        ));
        match self.error.help() {
            Some(help) => diagnostic.with_help(help),
            None => diagnostic,
        }
    }
}

impl ExpandError {
    /// The error as it is told. `file` and `source` are those of the Dockerfile that the word came from.
    pub fn into_diagnostic(self, file: &str, source: &Arc<str>) -> Diagnostic {
        Diagnostic::error("dockerfile/expand", self.kind.to_string()).at(Location::new(
            file,
            source.clone(),
            self.span,
        ))
    }
}
