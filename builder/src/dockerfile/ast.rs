// SPDX-License-Identifier: Apache-2.0
//! The typed Dockerfile. Every span counts bytes of [`Dockerfile::source`] and lies on character boundaries.

use std::ops::Range;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location};

/// A parsed Dockerfile: global arguments, then one stage or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The ARGs before the first FROM, in order.
    pub global_args: Vec<ArgDeclaration>,
    /// The stages in the order of the file; never empty.
    pub stages: Vec<Stage>,
    /// The character of the `escape` directive, the backslash by default.
    pub escape: char,
    /// What is accepted without effect, to be told once.
    pub notices: Vec<Diagnostic>,
    /// The file's name as the user would write it.
    pub file: String,
    /// The file's text without its byte order mark.
    pub source: Arc<str>,
}

impl Dockerfile {
    /// A place in this file.
    pub fn location(&self, span: Range<usize>) -> Location {
        Location::new(&*self.file, self.source.clone(), span)
    }
}

/// A build stage.
///
/// ```text
/// FROM alpine AS build
/// RUN make
/// ~~~~~~~~ instructions; the span is both lines
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The name in lower case, if it has one.
    pub name: Option<String>,
    /// What it starts from.
    pub from: From,
    /// What it does.
    pub instructions: Vec<Instruction>,
    /// From FROM to the end of the last instruction.
    pub span: Range<usize>,
}

/// What a stage starts from.
///
/// ```text
/// FROM --platform=$BUILDPLATFORM alpine AS Build
///                 ~~~~~~~~~~~~~~ platform  ~~~~~ alias
///                                ~~~~~~ image
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// A stage, an image or `scratch`, variables not yet expanded.
    pub image: Word,
    /// The platform to take the image for. Always `None` so far: the flag is refused.
    pub platform: Option<Word>,
    /// The stage's name.
    pub alias: Option<Alias>,
    /// The instruction.
    pub span: Range<usize>,
    /// The logical text of the instruction.
    pub original: String,
}

/// The name of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// In lower case; matches `^[a-z][a-z0-9-_.]*$`.
    pub name: String,
    /// As it stands in the file.
    pub span: Range<usize>,
}

/// One instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it is.
    pub kind: InstructionKind,
    /// From the keyword to the last byte of its last line; bodies of heredocs are not included.
    pub span: Range<usize>,
    /// The logical text, lines joined and comments dropped, as history shows it.
    pub original: String,
}

/// What an instruction says. FROM is not here: it starts a [`Stage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// `RUN make` or `RUN ["make"]`. Never expanded.
    Run {
        /// The command; an exec form is not empty.
        command: Command,
    },
    /// `COPY a b /dir/`.
    Copy(Copy),
    /// `ENV a=1 b=2` or `ENV a 1`. Names and values expand, both with the environment as it was before.
    Env(Vec<(Word, Word)>),
    /// `ARG a b=1`.
    Arg(Vec<ArgDeclaration>),
    /// `WORKDIR /app`; the rest of the line, white space included.
    Workdir(Word),
    /// `USER app:app`; the rest of the line.
    User(Word),
    /// `LABEL a=1 b=2` or `LABEL a 1`. Names and values expand.
    Label(Vec<(Word, Word)>),
    /// `EXPOSE 80 443/tcp`. Each word may expand to several.
    Expose(Vec<Word>),
    /// `CMD ["app"]`; an empty exec form clears it.
    Cmd(Command),
    /// `ENTRYPOINT ["app"]`; an empty exec form clears it.
    Entrypoint(Command),
}

impl InstructionKind {
    /// The keyword in capitals.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Run { .. } => "RUN",
            Self::Copy(_) => "COPY",
            Self::Env(_) => "ENV",
            Self::Arg(_) => "ARG",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Label(_) => "LABEL",
            Self::Expose(_) => "EXPOSE",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
        }
    }
}

/// A command for the shell or for exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// One text for the shell.
    Shell(String),
    /// The arguments as they are.
    Exec(Vec<String>),
}

/// `COPY`.
///
/// ```text
/// COPY --from=build --chown=app a b /dir/
///             ~~~~~ from    ~~~ ~~~ sources
///                                   ~~~~~ destination
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// A stage, a stage's index or an image; never expanded. `None` is the build context.
    pub from: Option<Word>,
    /// The owner for what is copied. Always `None` so far: the flag is refused.
    pub chown: Option<Word>,
    /// The mode for what is copied. Always `None` so far: the flag is refused.
    pub chmod: Option<Word>,
    /// At least one.
    pub sources: Vec<Word>,
    /// Where to.
    pub destination: Word,
}

/// One argument of ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// Its name; never expanded.
    pub name: String,
    /// The value after `=`. `ARG a=` has an empty one, `ARG a` has none.
    pub default: Option<Word>,
    /// Name and default.
    pub span: Range<usize>,
}

/// A piece of text that expansion works on: quotes, escapes and variables as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text. Line continuations inside it are already gone.
    pub raw: String,
    /// Where it stands. Longer than `raw` if the word was continued or written as JSON.
    pub span: Range<usize>,
}

impl Word {
    /// The bytes in the file of a part of `raw`; the whole word where the two differ.
    pub(super) fn part(&self, range: Range<usize>) -> Range<usize> {
        if self.span.len() == self.raw.len() {
            self.span.start + range.start..self.span.start + range.end
        } else {
            self.span.clone()
        }
    }
}
