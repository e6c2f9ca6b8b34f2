// SPDX-License-Identifier: Apache-2.0
//! Heredocs: `<<NAME`, `<<-NAME`, `3<<NAME` as a word of RUN, COPY or ADD, also below ONBUILD.
//!
//! The exec form holds none. Quotes around a whole word hide it; quotes around the name only turn expansion off.

use std::ops::Range;

use super::error::{Fault, SyntaxError};
use super::exec_form;
use super::flag;
use super::text::Text;

/// A heredoc: its marker on the instruction's line and its body below.
///
/// ```text
/// RUN 3<<-"EOF" cat
///     ~~~~~~~~~ marker; file descriptor 3, tabs stripped, not expanded
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The line that ends the body, quotes removed.
    pub name: String,
    /// The marker's bytes in the file.
    pub marker: Range<usize>,
    /// The body's bytes in the file, the last line break included, the terminator not.
    pub body: Range<usize>,
    /// Whether leading tabs are removed from the body and before the terminator.
    pub strip_tabs: bool,
    /// Whether variables in the body are expanded (where the instruction expands at all).
    pub expands: bool,
    /// The file descriptor that the shell is to give it.
    pub file_descriptor: Option<u32>,
}

/// The heredocs that an instruction announces; the bodies are still empty.
pub(super) fn markers(line: Text<'_>) -> Result<Vec<Heredoc>, Fault> {
    let Some(arguments) = arguments(line) else { return Ok(Vec::new()) };
    if !arguments.as_str().contains("<<") || exec_form::parse(arguments).is_ok_and(|form| form.is_some()) {
        return Ok(Vec::new());
    }
    shell_words(arguments)?.into_iter().filter_map(|word| marker(word).transpose()).collect()
}

/// What follows the keyword and flags of an instruction that may carry heredocs.
fn arguments(mut line: Text<'_>) -> Option<Text<'_>> {
    loop {
        let (keyword, rest) = line.split_blank()?;
        line = flag::split(rest).1;
        let keyword = keyword.as_str().to_ascii_uppercase();
        match keyword.as_str() {
            "RUN" | "COPY" | "ADD" => return Some(line),
            "ONBUILD" => {}
            _ => return None,
        }
    }
}

/// Splits as a shell would, keeping quotes. The escape character is always the backslash here, whatever the directive
/// says, for the line is the shell's.
fn shell_words(text: Text<'_>) -> Result<Vec<Text<'_>>, Fault> {
    let raw = text.as_str();
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut letters = raw.char_indices();
    while let Some((at, letter)) = letters.next() {
        if quote.is_none() && letter.is_whitespace() {
            words.extend(start.take().map(|start| text.slice(start..at)));
            continue;
        }
        start.get_or_insert(at);
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some((letter, at)),
            (Some((opening, _)), _) if opening == letter => quote = None,
            (None | Some(('"', _)), '\\') => {
                letters.next();
            }
            _ => {}
        }
    }
    if let Some((quote, at)) = quote {
        return Err(Fault::new(SyntaxError::HeredocQuote { quote }, text.slice(at..at + 1).span()));
    }
    words.extend(start.map(|start| text.from(start)));
    Ok(words)
}

/// The heredoc that a word stands for, if it does.
fn marker(word: Text<'_>) -> Result<Option<Heredoc>, Fault> {
    let raw = word.as_str();
    let digits = raw.len() - raw.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let Some(rest) = raw[digits..].strip_prefix("<<") else { return Ok(None) };
    let (strip_tabs, quoted) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if quoted.is_empty() || quoted.contains('<') {
        return Ok(None);
    }
    let file_descriptor = match &raw[..digits] {
        "" => None,
        number => Some(number.parse().map_err(|_| {
            Fault::new(SyntaxError::HeredocDescriptor { number: number.to_owned() }, word.span())
        })?),
    };
    let name = unquote(quoted);
    let expands = name == quoted;
    Ok(Some(Heredoc { name, marker: word.span(), body: 0..0, strip_tabs, expands, file_descriptor }))
}

/// Removes quotes and escapes; the word is known to be balanced.
fn unquote(word: &str) -> String {
    let mut plain = String::new();
    let mut quote = None;
    let mut letters = word.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(opening), _) if opening == letter => quote = None,
            (None | Some('"'), '\\') => plain.extend(letters.next()),
            _ => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::text::LogicalLine;
    use super::*;

    fn found(line: &str) -> Vec<Heredoc> {
        let mut logical = LogicalLine::default();
        logical.push(line, 0);
        markers(logical.trimmed()).unwrap()
    }

    #[test]
    fn which_words_are_heredocs() {
        for (line, names) in [
            ("RUN <<EOF", &["EOF"][..]),
            ("run <<-EOF cat", &["EOF"]),
            ("RUN cat <<A 3<<'B' > /f", &["A", "B"]),
            ("COPY <<a.txt <<b.txt /", &["a.txt", "b.txt"]),
            ("ADD --chown=1 <<f /", &["f"]),
            ("ONBUILD RUN <<EOF", &["EOF"]),
            ("RUN --mount=type=cache,target=/x <<EOF", &["EOF"]),
            ("RUN <<\"A B\"", &["A B"]),
            ("RUN cat <<<word", &[]),
            ("RUN echo '<<EOF'", &[]),
            ("RUN echo \"<<EOF\"", &[]),
            ("RUN echo \\<<EOF", &[]),
            ("RUN echo $((1 << 2))", &[]),
            ("RUN echo a<<b", &[]),
            ("RUN << EOF", &[]),
            ("RUN [\"cat\", \"<<EOF\"]", &[]),
            ("ENV a=<<EOF", &[]),
            ("CMD <<EOF", &[]),
            ("RUN", &[]),
        ] {
            let found: Vec<String> = found(line).into_iter().map(|heredoc| heredoc.name).collect();
            assert_eq!(found, names, "{line}");
        }
    }

    #[test]
    fn marks_and_descriptors() {
        let heredoc = &found("RUN cat 3<<-\"EOF\" x")[0];
        assert_eq!(
            (heredoc.strip_tabs, heredoc.expands, heredoc.file_descriptor, heredoc.marker.clone()),
            (true, false, Some(3), 8..17)
        );
        assert!(found("RUN <<EOF")[0].expands);
        assert!(!found("RUN <<E\\OF")[0].expands);
    }
}
