// SPDX-License-Identifier: Apache-2.0
//! The diagnostic itself. It owns its source text, so it can outlive the file that it speaks of.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// How much a diagnostic matters to the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Notice,
    /// Probably not what was meant; the build goes on.
    Warning,
    /// The build cannot go on.
    Error,
}

/// A place in a text file.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// The file's name as the user would write it.
    pub file: String,
    /// The whole text of the file, without a byte order mark.
    pub source: Arc<str>,
    /// The bytes of `source` that are meant. May be empty, then it is the place before its start.
    pub span: Range<usize>,
}

impl Location {
    /// A place in `source`. A span that reaches beyond the text or cuts a character is widened or cut to fit, and the
    /// place after the last line break becomes the one before it, so that every location has a line to be shown.
    pub fn new(file: impl Into<String>, source: Arc<str>, span: Range<usize>) -> Self {
        let last_line_end = source
            .strip_suffix('\n')
            .map_or(source.len(), |text| text.strip_suffix('\r').unwrap_or(text).len());
        let start = source.floor_char_boundary(span.start);
        let start = if start == source.len() { last_line_end } else { start };
        let end = source.ceil_char_boundary(span.end.clamp(start, source.len()));
        Self { file: file.into(), source, span: start..end }
    }

    /// The line of the first byte, counted from 1.
    pub fn line(&self) -> usize {
        self.source[..self.span.start].matches('\n').count() + 1
    }

    /// The column of the first byte, in characters, counted from 1.
    pub fn column(&self) -> usize {
        let before = &self.source[..self.span.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        before[line_start..].chars().count() + 1
    }

    /// The text that is meant.
    pub fn text(&self) -> &str {
        &self.source[self.span.clone()]
    }
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file, self.line(), self.column())
    }
}

impl fmt::Debug for Location {
    /// Leaves the source out: it would bury everything else.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self} ({:?})", self.span)
    }
}

/// One thing to tell the user.
///
/// [`fmt::Display`] gives it in one line (`file:line:column: message`); [`Diagnostic::render`] gives it with the source
/// and a caret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// A stable identifier such as `dockerfile/unsupported`, for scripts and for searching.
    pub code: &'static str,
    /// What is wrong, as a lower-case fragment without a full stop.
    pub message: String,
    /// Where, if it is about a text.
    pub location: Option<Location>,
    /// Further facts, one sentence each.
    pub notes: Vec<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Something that ends the build.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    /// Something that is probably a mistake.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    /// Something worth knowing.
    pub fn notice(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Notice, code, message.into())
    }

    fn new(severity: Severity, code: &'static str, message: String) -> Self {
        Self { severity, code, message, location: None, notes: Vec::new(), help: None }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Says what to do, in place of an earlier advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The line counted from 1, if the diagnostic has a place.
    pub fn line(&self) -> Option<usize> {
        self.location.as_ref().map(Location::line)
    }

    /// The column in characters counted from 1, if the diagnostic has a place.
    pub fn column(&self) -> Option<usize> {
        self.location.as_ref().map(Location::column)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(out, "{location}: {}", self.message),
            None => out.write_str(&self.message),
        }
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_one_and_in_characters() {
        let source: Arc<str> = "FROM a\nRUN é x\r\n".into();
        for (span, line, column) in
            [(0..4, 1, 1), (5..6, 1, 6), (7..10, 2, 1), (14..15, 2, 7), (17..17, 2, 8), (6..6, 1, 7)]
        {
            let location = Location::new("Dockerfile", source.clone(), span.clone());
            assert_eq!((location.line(), location.column()), (line, column), "{span:?}");
        }
    }

    #[test]
    fn spans_are_made_to_fit() {
        let source: Arc<str> = "aé".into();
        assert_eq!(Location::new("f", source.clone(), 2..2).span, 1..3);
        assert_eq!(Location::new("f", source.clone(), 0..99).span, 0..3);
        assert_eq!(Location::new("f", source, 50..99).span, 3..3);
    }

    #[test]
    fn one_line_carries_place_and_cause() {
        let bare = Diagnostic::error("x/y", "cannot do");
        assert_eq!(bare.to_string(), "cannot do");
        assert_eq!(bare.line(), None);
        let placed = bare.at(Location::new("Dockerfile", "FROM a\nADD b c".into(), 7..10));
        assert_eq!(placed.to_string(), "Dockerfile:2:1: cannot do");
    }
}
