// SPDX-License-Identifier: Apache-2.0
//! Logical lines: what remains of physical lines once continuations are joined and comments dropped, with the way
//! back from every byte to the file.
//!
//! Invariant: pieces are sorted by their logical offset, the first starts at 0, and each copies its bytes unchanged,
//! so a span of the logical text starts and ends on character boundaries of the source.

use std::ops::Range;

use super::ast::Word;

/// One instruction's text as the language sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct LogicalLine {
    text: String,
    pieces: Vec<Piece>,
}

/// `text[logical..]` was copied from `source[source..]` up to the next piece.
#[derive(Debug, Clone, Copy)]
struct Piece {
    logical: usize,
    source: usize,
}

impl LogicalLine {
    /// Appends `text`, which stands at byte `source` of the file.
    pub(super) fn push(&mut self, text: &str, source: usize) {
        if !text.is_empty() || self.pieces.is_empty() {
            self.pieces.push(Piece { logical: self.text.len(), source });
            self.text.push_str(text);
        }
    }

    /// The whole line without surrounding white space.
    pub(super) fn trimmed(&self) -> Text<'_> {
        Text { line: self, start: 0, end: self.text.len() }.trim()
    }

    fn source_span(&self, logical: Range<usize>) -> Range<usize> {
        let find = |offset: usize| {
            let after = self.pieces.partition_point(|piece| piece.logical <= offset);
            let piece = self.pieces[after.saturating_sub(1)];
            piece.source + (offset - piece.logical)
        };
        let start = find(logical.start);
        // The end belongs to the piece of the last byte, not to the one that starts there.
        let end = if logical.is_empty() { start } else { find(logical.end - 1) + 1 };
        start..end
    }
}

/// A part of a logical line that knows where it stands in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    line: &'a LogicalLine,
    start: usize,
    end: usize,
}

impl<'a> Text<'a> {
    pub(super) fn as_str(self) -> &'a str {
        &self.line.text[self.start..self.end]
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The bytes of the file from the first to the last of this text, line breaks and comments in between included.
    pub(super) fn span(self) -> Range<usize> {
        self.line.source_span(self.start..self.end)
    }

    /// A part of this text; offsets count from its own start.
    pub(super) fn slice(self, range: Range<usize>) -> Self {
        let (start, end) = (self.start + range.start, self.start + range.end);
        debug_assert!(start <= end && end <= self.end);
        Self { line: self.line, start, end }
    }

    pub(super) fn from(self, start: usize) -> Self {
        self.slice(start..self.end - self.start)
    }

    pub(super) fn trim(self) -> Self {
        let text = self.as_str();
        let start = text.len() - text.trim_start().len();
        self.slice(start..start.max(text.trim_end().len()))
    }

    pub(super) fn word(self) -> Word {
        Word { raw: self.as_str().to_owned(), span: self.span() }
    }

    /// The text before and after the first `letter`.
    pub(super) fn split_once(self, letter: char) -> Option<(Self, Self)> {
        let at = self.as_str().find(letter)?;
        Some((self.slice(0..at), self.from(at + letter.len_utf8())))
    }

    /// The text before and after the first run of blanks; `None` without one.
    pub(super) fn split_blank(self) -> Option<(Self, Self)> {
        let text = self.as_str();
        let at = text.find(is_blank)?;
        let rest = text[at..].find(|letter| !is_blank(letter)).map_or(text.len(), |length| at + length);
        Some((self.slice(0..at), self.from(rest)))
    }
}

/// What separates the words of an instruction. Wider white space (a no-break space, say) does not.
pub(super) fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined() -> LogicalLine {
        // The file would be `RUN a \⏎# c⏎  b\⏎c`.
        let mut line = LogicalLine::default();
        line.push("RUN a ", 0);
        line.push("  b", 12);
        line.push("c", 17);
        line
    }

    #[test]
    fn spans_lead_back_over_joined_lines() {
        let line = joined();
        let text = line.trimmed();
        assert_eq!(text.as_str(), "RUN a   bc");
        assert_eq!(text.span(), 0..18);
        assert_eq!(text.slice(4..5).span(), 4..5);
        assert_eq!(text.slice(5..6).span(), 5..6);
        assert_eq!(text.slice(8..9).span(), 14..15);
        assert_eq!(text.slice(8..10).span(), 14..18);
        assert_eq!(text.slice(9..10).span(), 17..18);
        assert_eq!(text.from(10).span(), 18..18);
    }

    #[test]
    fn splitting_at_blanks() {
        let line = joined();
        let (keyword, rest) = line.trimmed().split_blank().unwrap();
        assert_eq!((keyword.as_str(), rest.as_str()), ("RUN", "a   bc"));
        let (first, rest) = rest.split_blank().unwrap();
        assert_eq!((first.as_str(), rest.as_str()), ("a", "bc"));
        assert!(rest.split_blank().is_none());
    }

    #[test]
    fn trimming_a_blank_line_leaves_nothing() {
        let mut line = LogicalLine::default();
        line.push(" \t ", 7);
        assert!(line.trimmed().is_empty());
    }
}
