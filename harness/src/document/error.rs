// SPDX-License-Identifier: Apache-2.0
//! Why a document was refused, and how that is shown to the person who wrote it.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// Why a document could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file or folder could not be read.
    #[error("read {file}", file = file.display())]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The text is not a valid document of its kind.
    #[error(transparent)]
    Invalid(#[from] Box<Invalid>),
}

impl DocumentError {
    /// The whole story for a terminal: message, place, snippet with caret, allowed keys, remedy.
    pub fn render(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("{self}: {source}\n"),
            Self::Invalid(invalid) => invalid.render(),
        }
    }
}

/// One mistake in a document, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse {place}: {message}", place = self.place())]
pub struct Invalid {
    /// The document.
    pub file: PathBuf,
    /// Line from 1; 0 when the mistake is one of the whole document.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, as a lower-case fragment.
    pub message: String,
    /// The keys or words that may stand there; empty when the mistake is not about one.
    pub allowed: Vec<String>,
    /// What was probably meant or what to do.
    pub help: Option<String>,
    /// The text of the line, for the snippet.
    source_line: String,
}

impl Invalid {
    /// A mistake of the whole document, such as two keys that do not go together.
    pub fn of_document(file: &Path, message: String) -> Self {
        Self::new(file, "", 0, 0, message)
    }

    /// A mistake at a place of `text`; the line is copied out for the snippet.
    pub fn new(file: &Path, text: &str, line: usize, column: usize, message: String) -> Self {
        let source_line = line.checked_sub(1).and_then(|index| text.lines().nth(index)).unwrap_or_default();
        Self {
            file: file.to_owned(),
            line,
            column,
            message,
            allowed: Vec::new(),
            help: None,
            source_line: source_line.to_owned(),
        }
    }

    /// Adds what may stand there and, when one of the words is close to `given`, asks whether it was meant.
    #[must_use]
    pub fn with_allowed(mut self, given: &str, allowed: &[&str]) -> Self {
        self.help = nearest(given, allowed).map(|word| format!("did you mean `{word}`?"));
        self.allowed = allowed.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Adds the remedy.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `file:line:column`, or the file alone for a mistake of the whole document.
    fn place(&self) -> String {
        let file = self.file.display();
        if self.line == 0 { file.to_string() } else { format!("{file}:{}:{}", self.line, self.column) }
    }

    /// The mistake with its snippet, in the manner of a compiler.
    pub fn render(&self) -> String {
        let mut out = format!("error: {}\n", self.message);
        let gutter = " ".repeat(self.line.to_string().len());
        writeln!(out, "{gutter}--> {}", self.place()).expect("invariant: writing to a String succeeds");
        if self.line > 0 {
            let before = " ".repeat(self.column.saturating_sub(1));
            let carets = "^".repeat(self.word_length());
            writeln!(out, "{gutter} |\n{} | {}\n{gutter} | {before}{carets}", self.line, self.source_line)
                .expect("invariant: writing to a String succeeds");
        }
        if !self.allowed.is_empty() {
            writeln!(out, "{gutter} = allowed: {}", self.allowed.join(", "))
                .expect("invariant: writing to a String succeeds");
        }
        if let Some(help) = &self.help {
            writeln!(out, "{gutter} = help: {help}").expect("invariant: writing to a String succeeds");
        }
        out
    }

    /// Characters from the caret to the end of the word, at least one.
    fn word_length(&self) -> usize {
        let rest = self.source_line.chars().skip(self.column.saturating_sub(1));
        rest.take_while(|letter| letter.is_alphanumeric() || "_-./{}".contains(*letter)).count().max(1)
    }
}

/// The word at the smallest edit distance, when it is small enough to be a slip of the pen.
pub(super) fn nearest<'a>(given: &str, words: &[&'a str]) -> Option<&'a str> {
    let limit = 1 + given.chars().count() / 4;
    words
        .iter()
        .map(|&word| (edit_distance(given, word), word))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, word)| word)
}

/// Levenshtein distance in characters, with one row of memory.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, &to) in right.iter().enumerate() {
            let substitution = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = substitution.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_a_stranger_is_not() {
        let words = ["files", "text", "symlink"];
        for (given, expected) in [
            ("fils", Some("files")),
            ("file", Some("files")),
            ("txet", Some("text")),
            ("simlynk", Some("symlink")),
            ("zebra", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given, &words), expected, "{given}");
        }
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (left, right, distance) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
        {
            assert_eq!(edit_distance(left, right), distance, "{left} {right}");
            assert_eq!(edit_distance(right, left), distance, "{right} {left}");
        }
    }
}
