// SPDX-License-Identifier: Apache-2.0
//! The first stage of the parser: bytes of the file to logical lines.
//!
//! It joins continued lines, drops comments and blank lines (also those inside a continuation), and sets aside the
//! bodies of heredocs. It must not know what an instruction means, only which ones may carry a heredoc.

use std::ops::Range;

use super::error::{Fault, SyntaxError};
use super::heredoc::{self, Heredoc};
use super::text::{LogicalLine, Text};

/// The longest physical line that BuildKit's frontend reads, in bytes, its line break not counted.
const LINE_LIMIT_BYTES: usize = 65535;

/// One line of the file.
#[derive(Debug, Clone)]
pub(super) struct PhysicalLine {
    /// The text without its line break (`\n` or `\r\n`).
    pub(super) content: Range<usize>,
    /// The length without the `\n`, in bytes.
    size_bytes: usize,
}

/// The lines of `source`. An empty file has none, and a line break at the end starts no further one.
pub(super) fn physical_lines(source: &str) -> PhysicalLines<'_> {
    PhysicalLines { source, position: 0 }
}

#[derive(Debug, Clone)]
pub(super) struct PhysicalLines<'a> {
    source: &'a str,
    position: usize,
}

impl Iterator for PhysicalLines<'_> {
    type Item = PhysicalLine;

    fn next(&mut self) -> Option<PhysicalLine> {
        let rest = &self.source[self.position..];
        if rest.is_empty() {
            return None;
        }
        let start = self.position;
        let length = rest.find('\n').unwrap_or(rest.len());
        self.position = (start + length + 1).min(self.source.len());
        let content = start..start + rest[..length].trim_end_matches('\r').len();
        Some(PhysicalLine { content, size_bytes: length })
    }
}

/// A logical line and the heredocs that it announces, their bodies found.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    line: LogicalLine,
    /// In the order of their markers.
    pub(super) heredocs: Vec<Heredoc>,
}

impl Statement {
    /// The text of the instruction, trimmed; never empty.
    pub(super) fn text(&self) -> Text<'_> {
        self.line.trimmed()
    }
}

/// Splits the whole file.
pub(super) fn statements(source: &str, escape: char) -> Result<Vec<Statement>, Fault> {
    let mut lines = physical_lines(source);
    let mut statements = Vec::new();
    while let Some(first) = next_line(&mut lines)? {
        let text = &source[first.content.clone()];
        let blank = text.len() - text.trim_start().len();
        if is_comment(text) || blank == text.len() {
            continue;
        }
        let mut line = LogicalLine::default();
        let (kept, mut continued) = strip_continuation(&text[blank..], escape);
        line.push(kept, first.content.start + blank);
        while continued {
            let Some(next) = next_line(&mut lines)? else { break };
            let text = &source[next.content.clone()];
            if is_comment(text) || text.trim().is_empty() {
                continue;
            }
            let kept;
            (kept, continued) = strip_continuation(text, escape);
            line.push(kept, next.content.start);
        }
        if line.trimmed().is_empty() {
            continue;
        }
        let mut heredocs = heredoc::markers(line.trimmed())?;
        for heredoc in &mut heredocs {
            heredoc.body = heredoc_body(source, &mut lines, heredoc)?;
        }
        statements.push(Statement { line, heredocs });
    }
    Ok(statements)
}

fn next_line(lines: &mut PhysicalLines<'_>) -> Result<Option<PhysicalLine>, Fault> {
    let line = lines.next();
    if let Some(line) = &line
        && line.size_bytes > LINE_LIMIT_BYTES
    {
        let error = SyntaxError::LineTooLong { limit_bytes: LINE_LIMIT_BYTES };
        return Err(Fault::new(error, line.content.start..line.content.start));
    }
    Ok(line)
}

/// The lines up to the one that is the heredoc's name.
fn heredoc_body(
    source: &str,
    lines: &mut PhysicalLines<'_>,
    heredoc: &Heredoc,
) -> Result<Range<usize>, Fault> {
    let start = lines.position;
    while let Some(line) = next_line(lines)? {
        let text = &source[line.content.clone()];
        let text = if heredoc.strip_tabs { text.trim_start_matches('\t') } else { text };
        if text == heredoc.name {
            return Ok(start..line.content.start);
        }
    }
    Err(Fault::new(SyntaxError::UnterminatedHeredoc { name: heredoc.name.clone() }, heredoc.marker.clone()))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The line without its continuation mark, and whether it had one: the escape character, once, before nothing but
/// blanks and tabs. A doubled one is text.
fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(kept) if !kept.ends_with(escape) => (kept, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str, escape: char) -> Vec<String> {
        let statements = statements(source, escape).unwrap_or_else(|fault| panic!("{source:?}: {fault:?}"));
        statements.iter().map(|statement| statement.text().as_str().to_owned()).collect()
    }

    #[test]
    fn joining_and_dropping() {
        for (source, expected) in [
            ("", &[][..]),
            ("\n \t\n\r\n", &[]),
            ("# a\n  # b\nFROM a\n", &["FROM a"]),
            ("FROM a\nRUN b", &["FROM a", "RUN b"]),
            ("FROM a\r\nRUN b\r\n", &["FROM a", "RUN b"]),
            ("  FROM a  \n", &["FROM a"]),
            ("RUN a \\\n  b", &["RUN a   b"]),
            ("RUN a\\\nb", &["RUN ab"]),
            ("RUN a \\  \t\n b", &["RUN a  b"]),
            ("RUN a \\\r\n b\r\n", &["RUN a  b"]),
            ("RUN a \\\n# comment\n  # another\n b", &["RUN a  b"]),
            ("RUN a \\\n\n  \n b", &["RUN a  b"]),
            ("RUN a \\\n\\\n b", &["RUN a  b"]),
            ("RUN a \\\\\nRUN b", &["RUN a \\\\", "RUN b"]),
            ("RUN a \\\\\\\nRUN b", &["RUN a \\\\\\", "RUN b"]),
            ("RUN a \\", &["RUN a"]),
            ("RUN a \\\n# the end", &["RUN a"]),
            ("\\\nRUN a", &["RUN a"]),
            ("\\", &[]),
            ("RUN a # not a comment", &["RUN a # not a comment"]),
            ("RUN a `\nRUN b", &["RUN a `", "RUN b"]),
        ] {
            assert_eq!(texts(source, '\\'), expected, "{source:?}");
        }
        assert_eq!(texts("RUN a `\nb c:\\\nRUN d", '`'), ["RUN a b c:\\", "RUN d"]);
    }

    #[test]
    fn heredoc_bodies_are_set_aside() {
        let source = "RUN <<A cat <<-B\none\n# two\nA\n\tthree \\\n\tB\nRUN c\nCOPY <<X /x\nX\n";
        let statements = statements(source, '\\').unwrap();
        let bodies: Vec<Vec<&str>> = statements
            .iter()
            .map(|statement| statement.heredocs.iter().map(|heredoc| &source[heredoc.body.clone()]).collect())
            .collect();
        assert_eq!(bodies, [vec!["one\n# two\n", "\tthree \\\n"], vec![], vec![""]]);
    }

    #[test]
    fn a_line_may_be_65535_bytes_long() {
        let longest = format!("RUN {}\nRUN b", "x".repeat(65531));
        assert_eq!(texts(&longest, '\\').len(), 2);
        let too_long = format!("FROM a\nRUN {}", "x".repeat(65532));
        let fault = statements(&too_long, '\\').unwrap_err();
        assert_eq!(fault.error, SyntaxError::LineTooLong { limit_bytes: 65535 });
        assert_eq!(fault.span, 7..7);
    }
}
