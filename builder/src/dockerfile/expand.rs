// SPDX-License-Identifier: Apache-2.0
//! Expansion of variables, quotes and escapes in the words of instructions. Pure: values come from a function.
//!
//! The rules are those of BuildKit's frontend 1.20, which are near a shell's, but not a shell's: there are no command
//! substitutions, `$$` and other special parameters are unset variables, a digit starts a name of digits, and in `${…}`
//! only `-`, `+`, `?` (each also after a colon), `#`, `##`, `%`, `%%`, `/` and `//` are known.

use std::ops::Range;

use super::ast::Word;
use super::pattern::{Pattern, PatternError, Reach};

/// How deep substitutions may stand in each other. The recursion is as deep as that.
const DEPTH_LIMIT: usize = 100;

/// Why a word cannot be expanded, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ExpandError {
    /// The reason.
    pub kind: ExpandErrorKind,
    /// The bytes of the Dockerfile that are at fault.
    pub span: Range<usize>,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// A quote is opened and never closed.
    #[error("unfinished {} quote", if *.0 == '"' { "double" } else { "single" })]
    UnfinishedQuote(char),
    /// `${a` or `${a:-b`.
    #[error("missing '}}' in substitution")]
    MissingBrace,
    /// `${a/b}`.
    #[error("missing '/' in substitution")]
    MissingSlash,
    /// `${}`, `${{` or `${:`.
    #[error("bad substitution")]
    BadSubstitution,
    /// `${a&b}`.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${a?message}` with `a` unset, or `${a:?message}` with `a` unset or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message that the Dockerfile gives, or what is wrong.
        message: String,
    },
    /// A pattern that cannot be read.
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    Pattern {
        /// The pattern after expansion.
        pattern: String,
        /// What is wrong with it.
        reason: PatternError,
    },
    /// More substitutions in each other than anyone writes.
    #[error("substitutions are nested more than {DEPTH_LIMIT} deep")]
    TooDeep,
}

/// Where the values of variables come from; `None` is an unset one.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands a word to one text: variables are replaced, quotes and escapes removed, white space is kept.
///
/// # Errors
///
/// Unfinished quotes and substitutions, unknown modifiers, bad patterns, and `?` modifiers that strike.
pub fn expand(word: &Word, escape: char, lookup: Lookup<'_>) -> Result<String, ExpandError> {
    Expander::new(word, escape, Some(lookup)).run().map(|sink| sink.text)
}

/// Expands a word and splits the result at white space, except in quotes. Empty words vanish, also quoted ones.
///
/// # Errors
///
/// Those of [`expand`].
pub fn expand_words(word: &Word, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>, ExpandError> {
    Expander::new(word, escape, Some(lookup)).run().map(Sink::into_words)
}

/// The variables that a word refers to, in order and without repetition, also those in the words of modifiers that may
/// not be used. What cannot be expanded refers to those before the mistake.
pub fn variables(word: &Word, escape: char) -> Vec<String> {
    let mut expander = Expander::new(word, escape, None);
    // A mistake ends the search; whoever expands the word reports it.
    let _ = expander.run();
    let mut names: Vec<String> = Vec::new();
    for name in expander.names {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// What is built up: the text, and the same split into words.
#[derive(Default)]
struct Sink {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Sink {
    /// Text whose white space separates words.
    fn push_open(&mut self, letter: char) {
        self.text.push(letter);
        if !letter.is_whitespace() {
            self.word.push(letter);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    /// Text whose white space belongs to the word.
    fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn into_words(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

/// Which part of a substitution is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    End,
    Slash,
    Brace,
}

struct Expander<'a> {
    word: &'a Word,
    position: usize,
    escape: char,
    /// Where values come from. `None` only collects names: nothing is evaluated then, so nothing can be missing.
    lookup: Option<Lookup<'a>>,
    names: Vec<String>,
    /// Whether escapes stay in the text. They do in patterns, which have a use for them.
    keep_escapes: bool,
    depth: usize,
}

impl<'a> Expander<'a> {
    fn new(word: &'a Word, escape: char, lookup: Option<Lookup<'a>>) -> Self {
        Self { word, position: 0, escape, lookup, names: Vec::new(), keep_escapes: false, depth: 0 }
    }

    fn run(&mut self) -> Result<Sink, ExpandError> {
        self.text(Until::End, 0)
    }

    fn peek(&self) -> Option<char> {
        self.word.raw[self.position..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.position += letter.len_utf8();
        Some(letter)
    }

    fn take(&mut self, letter: char) -> bool {
        let taken = self.peek() == Some(letter);
        if taken {
            self.position += letter.len_utf8();
        }
        taken
    }

    #[cold]
    fn error(&self, kind: ExpandErrorKind, start: usize) -> ExpandError {
        ExpandError { kind, span: self.word.part(start..self.position) }
    }

    /// Reads up to and over the end of this part. `start` is where the substitution began.
    fn text(&mut self, until: Until, start: usize) -> Result<Sink, ExpandError> {
        let mut sink = Sink::default();
        while let Some(letter) = self.peek() {
            match letter {
                '/' if until == Until::Slash => {
                    self.position += 1;
                    return Ok(sink);
                }
                '}' if until == Until::Brace => {
                    self.position += 1;
                    return Ok(sink);
                }
                '\'' => sink.push_quoted(self.single_quoted()?),
                '"' => sink.push_quoted(&self.double_quoted()?),
                '$' => self.substitution()?.chars().for_each(|letter| sink.push_open(letter)),
                _ if letter == self.escape => {
                    self.next();
                    if self.keep_escapes {
                        sink.push_quoted(letter.encode_utf8(&mut [0; 4]));
                    }
                    // An escape character at the very end escapes nothing and is dropped.
                    if let Some(letter) = self.next() {
                        sink.push_quoted(letter.encode_utf8(&mut [0; 4]));
                    }
                }
                _ => {
                    self.next();
                    sink.push_open(letter);
                }
            }
        }
        match until {
            Until::End => Ok(sink),
            Until::Slash => Err(self.error(ExpandErrorKind::MissingSlash, start)),
            Until::Brace => Err(self.error(ExpandErrorKind::MissingBrace, start)),
        }
    }

    /// Reads a part of a substitution, with escapes kept or not.
    fn part(&mut self, until: Until, start: usize, keep_escapes: bool) -> Result<String, ExpandError> {
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let sink = self.text(until, start);
        self.keep_escapes = outer;
        sink.map(|sink| sink.text)
    }

    /// `'…'`: everything is literal, nothing can be escaped.
    fn single_quoted(&mut self) -> Result<&'a str, ExpandError> {
        let start = self.position;
        let rest = &self.word.raw[start + 1..];
        match rest.find('\'') {
            Some(length) => {
                self.position = start + 1 + length + 1;
                Ok(&rest[..length])
            }
            None => {
                self.position = self.word.raw.len();
                Err(self.error(ExpandErrorKind::UnfinishedQuote('\''), start))
            }
        }
    }

    /// `"…"`: variables are replaced, the escape character takes the meaning from `"`, `$` and itself only.
    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.position;
        self.next();
        let mut text = String::new();
        while let Some(letter) = self.peek() {
            if letter == '$' {
                text.push_str(&self.substitution()?);
                continue;
            }
            self.next();
            if letter == '"' {
                return Ok(text);
            }
            match self.peek() {
                Some(escaped)
                    if letter == self.escape && (escaped == '"' || escaped == '$' || escaped == letter) =>
                {
                    if self.keep_escapes {
                        text.push(letter);
                    }
                    self.next();
                    text.push(escaped);
                }
                _ => text.push(letter),
            }
        }
        Err(self.error(ExpandErrorKind::UnfinishedQuote('"'), start))
    }

    /// `$name` or `${…}`. A dollar sign before anything else is itself.
    fn substitution(&mut self) -> Result<String, ExpandError> {
        let start = self.position;
        self.next();
        if !self.take('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        if self.depth == DEPTH_LIMIT {
            return Err(self.error(ExpandErrorKind::TooDeep, start));
        }
        self.depth += 1;
        let value = self.braced(start);
        self.depth -= 1;
        value
    }

    fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        if let Some(letter @ ('{' | '}' | ':')) = self.peek() {
            self.take(letter);
            return Err(self.error(ExpandErrorKind::BadSubstitution, start));
        }
        let name = self.name();
        let modifier_start = self.position;
        let colon = self.take(':');
        let Some(modifier) = self.next() else {
            return Err(self.error(ExpandErrorKind::MissingBrace, start));
        };
        match modifier {
            '}' if !colon => Ok(self.value(&name).unwrap_or_default()),
            '-' | '+' | '?' => {
                let word = self.part(Until::Brace, start, false)?;
                self.choose(&name, colon, modifier, word, start)
            }
            '#' | '%' if !colon => {
                let reach = if self.take(modifier) { Reach::Longest } else { Reach::Shortest };
                let text = self.part(Until::Brace, start, true)?;
                self.with_pattern(&name, &text, start, |pattern, value| match modifier {
                    '#' => pattern.trim_start(value, reach),
                    _ => pattern.trim_end(value, reach),
                })
            }
            '/' if !colon => {
                let every = self.take('/');
                let text = self.part(Until::Slash, start, true)?;
                let replacement = self.part(Until::Brace, start, true)?;
                self.with_pattern(&name, &text, start, |pattern, value| {
                    pattern.replace(value, &replacement, every)
                })
            }
            _ => {
                let written = self.word.raw[modifier_start..self.position].to_owned();
                Err(self.error(ExpandErrorKind::UnsupportedModifier(written), start))
            }
        }
    }

    /// `-`, `+` and `?`; with a colon an empty value counts as unset.
    fn choose(
        &mut self,
        name: &str,
        colon: bool,
        modifier: char,
        word: String,
        start: usize,
    ) -> Result<String, ExpandError> {
        let value = self.value(name);
        let present = value.as_ref().is_some_and(|value| !colon || !value.is_empty());
        match modifier {
            '-' if present => Ok(value.unwrap_or_default()),
            '-' => Ok(word),
            '+' if present => Ok(word),
            '+' => Ok(String::new()),
            _ if present || self.lookup.is_none() => Ok(value.unwrap_or_default()),
            _ => {
                let message = match value {
                    _ if !word.is_empty() => word,
                    None => "is not allowed to be unset".to_owned(),
                    Some(_) => "is not allowed to be empty".to_owned(),
                };
                Err(self.error(ExpandErrorKind::Required { name: name.to_owned(), message }, start))
            }
        }
    }

    fn with_pattern(
        &mut self,
        name: &str,
        text: &str,
        start: usize,
        apply: impl FnOnce(&Pattern, &str) -> Result<String, PatternError>,
    ) -> Result<String, ExpandError> {
        let value = self.value(name).unwrap_or_default();
        if self.lookup.is_none() {
            return Ok(value);
        }
        Pattern::parse(text).and_then(|pattern| apply(&pattern, &value)).map_err(|reason| {
            self.error(ExpandErrorKind::Pattern { pattern: text.to_owned(), reason }, start)
        })
    }

    fn value(&mut self, name: &str) -> Option<String> {
        match self.lookup {
            Some(lookup) => lookup(name),
            None => {
                self.names.push(name.to_owned());
                None
            }
        }
    }

    /// A name: letters, digits and `_`; or digits only, if it starts with one; or one special parameter. May be empty.
    fn name(&mut self) -> String {
        let rest = &self.word.raw[self.position..];
        let end = |stop: fn(char) -> bool| rest.find(stop).unwrap_or(rest.len());
        let length = match rest.chars().next() {
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            Some(digit) if digit.is_ascii_digit() => end(|letter| !letter.is_ascii_digit()),
            _ => end(|letter| !letter.is_alphanumeric() && letter != '_'),
        };
        self.position += length;
        rest[..length].to_owned()
    }
}

#[cfg(test)]
mod tests;
