// SPDX-License-Identifier: Apache-2.0
//! Splitting arguments into words, before any expansion. Quotes stay in the words; expansion removes them.

use super::text::Text;

/// Words separated by blanks, quotes without meaning: EXPOSE, FROM, COPY.
pub(super) fn blank_separated(text: Text<'_>) -> Vec<Text<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some((word, after)) = rest.split_blank() {
        if !word.is_empty() {
            words.push(word);
        }
        rest = after;
    }
    if !rest.is_empty() {
        words.push(rest);
    }
    words
}

/// Words in which quotes and the escape character protect white space: ENV, LABEL, ARG.
///
/// Nothing can be escaped in single quotes. An unfinished quote reaches to the end; expansion will complain about it.
/// An escape character at the very end is dropped.
pub(super) fn quoted(text: Text<'_>, escape: char) -> Vec<Text<'_>> {
    let raw = text.as_str();
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut end = raw.len();
    let mut letters = raw.char_indices();
    while let Some((at, letter)) = letters.next() {
        if quote.is_none() && letter.is_whitespace() {
            words.extend(start.take().map(|start| text.slice(start..at)));
            continue;
        }
        start.get_or_insert(at);
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(opening), _) if opening == letter => quote = None,
            (None | Some('"'), _) if letter == escape => end = letters.next().map_or(at, |_| end),
            _ => {}
        }
    }
    if let Some(start) = start
        && start < end
    {
        words.push(text.slice(start..end));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::text::LogicalLine;
    use super::*;

    fn split(raw: &str, escape: char) -> Vec<String> {
        let mut line = LogicalLine::default();
        line.push(raw, 0);
        quoted(line.trimmed(), escape).into_iter().map(|word| word.as_str().to_owned()).collect()
    }

    #[test]
    fn quotes_and_escapes_keep_words_together() {
        for (raw, words) in [
            ("", &[][..]),
            ("a=1 b=2", &["a=1", "b=2"]),
            ("a='x y' b", &["a='x y'", "b"]),
            (r#"a="x \" y" b"#, &[r#"a="x \" y""#, "b"]),
            (r"a=x\ y b", &[r"a=x\ y", "b"]),
            (r"a='\' b=c", &[r"a='\'", "b=c"]),
            (r#"a="'" b='"'"#, &[r#"a="'""#, r#"b='"'"#]),
            (r#""" ''"#, &[r#""""#, "''"]),
            (r"a \", &["a"]),
            (r"a b\", &["a", "b"]),
            ("a='x y", &["a='x y"]),
            ("a=`\tb", &["a=`", "b"]),
        ] {
            assert_eq!(split(raw, '\\'), words, "{raw}");
        }
        assert_eq!(split(r"a=c:\ b=` c", '`'), [r"a=c:\", "b=` c"]);
    }

    #[test]
    fn blanks_only() {
        let mut line = LogicalLine::default();
        line.push("a\t 'b  c' \u{a0}d", 0);
        let words: Vec<&str> = blank_separated(line.trimmed()).into_iter().map(Text::as_str).collect();
        assert_eq!(words, ["a", "'b", "c'", "\u{a0}d"]);
    }
}
