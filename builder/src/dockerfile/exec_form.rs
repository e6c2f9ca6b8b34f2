// SPDX-License-Identifier: Apache-2.0
//! The exec form: arguments written as a JSON array of strings.
//!
//! Anything that is no valid JSON array is the shell form, without a word. A valid array with something else than
//! strings in it is an error, for that is never what was meant.

use std::ops::Range;

use super::ast::Word;
use super::error::{Fault, SyntaxError};
use super::text::Text;

/// The strings of the exec form; `None` if `text` is the shell form. A word's span covers its quotes.
pub(super) fn parse(text: Text<'_>) -> Result<Option<Vec<Word>>, Fault> {
    let raw = text.as_str();
    if !raw.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(raw) else { return Ok(None) };
    let mut spans = string_spans(raw).into_iter();
    values
        .into_iter()
        .map(|value| match (value, spans.next()) {
            (serde_json::Value::String(raw), Some(span)) => Ok(Word { raw, span: text.slice(span).span() }),
            _ => Err(Fault::new(SyntaxError::ExecFormNotStrings, text.span())),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Where the string tokens of valid JSON stand, quotes included.
fn string_spans(json: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut bytes = json.bytes().enumerate();
    while let Some((start, byte)) = bytes.next() {
        if byte != b'"' {
            continue;
        }
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next()),
                b'"' => {
                    spans.push(start..at + 1);
                    break;
                }
                _ => {}
            }
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::super::text::LogicalLine;
    use super::*;

    fn parsed(raw: &str) -> Result<Option<Vec<String>>, SyntaxError> {
        let mut line = LogicalLine::default();
        line.push(raw, 0);
        let words = parse(line.trimmed()).map_err(|fault| fault.error)?;
        Ok(words.map(|words| words.into_iter().map(|word| word.raw).collect()))
    }

    #[test]
    fn exec_or_shell() {
        let strings = |words: &[&str]| Ok(Some(words.iter().map(|&word| word.to_owned()).collect()));
        for (raw, expected) in [
            ("[]", strings(&[])),
            (r#"["a", "b c"]"#, strings(&["a", "b c"])),
            (r#" [ "a" ] "#, strings(&["a"])),
            (r#"["a\"b", "\u00e9"]"#, strings(&["a\"b", "é"])),
            ("['a']", Ok(None)),
            (r#"["a",]"#, Ok(None)),
            (r#"["a"] b"#, Ok(None)),
            (r#"["a" "b"]"#, Ok(None)),
            ("[ -f x ]", Ok(None)),
            ("echo [\"a\"]", Ok(None)),
            (r#"{"a": "b"}"#, Ok(None)),
            (r#"["a", 1]"#, Err(SyntaxError::ExecFormNotStrings)),
            ("[null]", Err(SyntaxError::ExecFormNotStrings)),
            (r#"[["a"]]"#, Err(SyntaxError::ExecFormNotStrings)),
        ] {
            assert_eq!(parsed(raw), expected, "{raw}");
        }
    }

    #[test]
    fn spans_cover_the_quoted_token() {
        let mut line = LogicalLine::default();
        let raw = r#"["a\"", "b"]"#;
        line.push(raw, 10);
        let words = parse(line.trimmed()).unwrap().unwrap();
        assert_eq!(words[0].span, 11..16);
        assert_eq!(words[1].span, 18..21);
    }
}
