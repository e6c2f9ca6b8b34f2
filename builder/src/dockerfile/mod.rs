// SPDX-License-Identifier: Apache-2.0
//! The Dockerfile language: text to typed instructions, variable expansion, and the variables in scope.
//!
//! Pure: no file system, no containerd. The reference is BuildKit's Dockerfile frontend (1.20); where its documentation
//! and its behaviour differ, its behaviour is followed. Parsing goes in two stages, `lines` (directives,
//! continuations, comments, heredocs) and `instruction` (flags, words, exec forms), and keeps byte spans throughout.

mod ast;
mod directive;
mod error;
mod exec_form;
mod expand;
mod flag;
mod heredoc;
mod instruction;
mod lines;
mod parse;
mod pattern;
pub mod scope;
mod text;
mod words;

pub use ast::{
    Alias, ArgDeclaration, Command, Copy, Dockerfile, From, Instruction, InstructionKind, Stage, Word,
};
pub use error::SyntaxError;
pub use expand::{ExpandError, ExpandErrorKind, Lookup, expand, expand_words, variables};
pub use heredoc::Heredoc;
pub use parse::parse;
pub use pattern::PatternError;
