// SPDX-License-Identifier: Apache-2.0
//! Parser directives: the comments at the very top that change how the rest is read.
//!
//! ```text
//! # syntax=docker/dockerfile:1
//! # escape=`
//! # check=skip=all
//! ```
//!
//! Scanning stops at the first line that is none: a blank one, an ordinary comment, an unknown key, an instruction.

use super::error::{Fault, SyntaxError};
use super::lines::physical_lines;

/// What the directives say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directives {
    /// The character that continues lines and escapes others.
    pub(super) escape: char,
    /// The values of `syntax` and `check` with their spans, in the order of the file.
    pub(super) accepted: Vec<Accepted>,
}

/// A directive that is understood and has no effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) key: &'static str,
    pub(super) span: std::ops::Range<usize>,
}

const KEYS: [&str; 3] = ["syntax", "escape", "check"];

pub(super) fn directives(source: &str) -> Result<Directives, Fault> {
    let mut seen = [false; KEYS.len()];
    let mut found = Directives { escape: '\\', accepted: Vec::new() };
    for line in physical_lines(source) {
        let text = &source[line.content.clone()];
        let Some((key, value)) = key_and_value(text) else { break };
        let key = key.to_ascii_lowercase();
        let Some(index) = KEYS.iter().position(|known| *known == key) else { break };
        let start = line.content.start + (value.as_ptr().addr() - text.as_ptr().addr());
        let span = start..start + value.len();
        if std::mem::replace(&mut seen[index], true) {
            return Err(Fault::new(SyntaxError::DuplicateDirective { key: KEYS[index] }, line.content));
        }
        if key == "escape" {
            found.escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => return Err(Fault::new(SyntaxError::EscapeDirective { value: value.to_owned() }, span)),
            };
        } else {
            found.accepted.push(Accepted { key: KEYS[index], span });
        }
    }
    Ok(found)
}

/// `key` and `value` of `# key = value`. The key is letters and digits, the value is not empty.
fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let named = key.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (named && !value.is_empty()).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_end_at_the_first_other_line() {
        for (source, escape, accepted) in [
            ("", '\\', 0),
            ("# escape=`\nFROM a", '`', 0),
            ("  #  ESCAPE  =  `  \r\nFROM a", '`', 0),
            ("# syntax=x\n# escape=`\n# check=skip=all;error=true\n", '`', 2),
            ("\n# escape=`", '\\', 0),
            ("# a comment\n# escape=`", '\\', 0),
            ("# unknown=1\n# escape=`", '\\', 0),
            ("# escape=\n# escape=`", '\\', 0),
            ("#!/usr/bin/env x\n# escape=`", '\\', 0),
            ("FROM a\n# escape=`", '\\', 0),
            ("# 1syntax=x\n# escape=`", '\\', 0),
        ] {
            let found = directives(source).unwrap();
            assert_eq!((found.escape, found.accepted.len()), (escape, accepted), "{source:?}");
        }
    }

    #[test]
    fn spans_point_at_the_value() {
        let source = "# escape=`\n#syntax = docker/dockerfile:1 \n";
        let found = directives(source).unwrap();
        assert_eq!(&source[found.accepted[0].span.clone()], "docker/dockerfile:1");
    }
}
