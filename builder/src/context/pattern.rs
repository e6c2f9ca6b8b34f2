// SPDX-License-Identifier: Apache-2.0
//! The two dialects of path patterns in a build: wildcards of `COPY` sources, and lines of ignore files.
//!
//! Both are read by the rules of Go's `filepath.Match` (Go 1.26): `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` do
//! not, `\` takes the next character literally. The ignore dialect adds `**` as moby/patternmatcher has it (5a6d842).
//! Its odd corners are kept because people's files depend on them; each is told where it is coded. Three accidents of
//! its translation to regular expressions are not kept: a letter after a backslash stays that letter (there `\d` is a
//! digit), `^` outside of a class is itself, and `[[:alpha:]]` is what `filepath.Match` reads, not a POSIX class.
//!
//! Paths are bytes. Where a rule speaks of characters, each byte that is not part of valid UTF-8 counts as one U+FFFD,
//! as in Go. This module must not know files.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::OnceLock;

use regex::Regex;

/// A compiled pattern, matched against clean relative paths such as `src/main.rs`.
#[derive(Debug)]
pub struct Pattern {
    tokens: Vec<Token>,
    matcher: Matcher,
    /// What the first one, two ... components of a path must match, for [`Pattern::can_match_below`].
    stems: OnceLock<Stems>,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse pattern {pattern:?}: {problem}")]
pub struct PatternError {
    /// The pattern, with U+FFFD for what is not UTF-8.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: PatternProblem,
}

/// What can be wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternProblem {
    /// `[` without its `]`.
    #[error("the character class is not closed by ]")]
    UnclosedClass,
    /// `[]`, `[^]`, or a `]` or `-` where a character must stand, as in `[-x]` and `[x-]`.
    #[error("a character is missing in the character class (write \\- or \\] for a literal - or ])")]
    MissingCharacter,
    /// `[z-a]`; only the ignore dialect minds.
    #[error("a range in the character class ends before it begins")]
    ReversedRange,
    /// `\` at the end.
    #[error("the backslash at the end escapes nothing")]
    TrailingBackslash,
    /// Bytes in a class that are not a character.
    #[error("the character class holds bytes that are not UTF-8")]
    ClassNotUtf8,
    /// The pattern does not fit the memory limit of its automaton.
    #[error("the pattern is too large")]
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(Vec<u8>),
    /// `?`
    AnyCharacter,
    /// `*`
    AnyRun,
    /// `**` in the ignore dialect, together with a slash directly after it.
    AnyDepth {
        slash: bool,
    },
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

#[derive(Debug)]
enum Matcher {
    Everything,
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    /// The last components.
    Tail(Vec<u8>),
    Expression(Regex),
}

#[derive(Debug)]
struct Stems {
    /// `matchers[k]` matches what the first `k + 1` components of a matching path can be.
    matchers: Vec<Option<Matcher>>,
    /// Whether every matching path has exactly `matchers.len() + 1` components.
    bounded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Glob,
    Ignore,
}

impl Pattern {
    /// A wildcard of a `COPY` source: `filepath.Match`, where `**` is no more than `*`.
    pub fn glob(pattern: &[u8]) -> Result<Self, PatternError> {
        Self::compile(pattern, Dialect::Glob)
    }

    /// A line of an ignore file, already cleaned and without its `!`.
    pub fn ignore(pattern: &[u8]) -> Result<Self, PatternError> {
        Self::compile(pattern, Dialect::Ignore)
    }

    /// Whether `text` has a wildcard at all. A backslash hides the byte after it (BuildKit, `containsWildcards`).
    pub fn is_wildcard(text: &[u8]) -> bool {
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'*' | b'?' | b'[' => return true,
                b'\\' => _ = bytes.next(),
                _ => {}
            }
        }
        false
    }

    fn compile(pattern: &[u8], dialect: Dialect) -> Result<Self, PatternError> {
        let wrong =
            |problem| PatternError { pattern: String::from_utf8_lossy(pattern).into_owned(), problem };
        let tokens = tokenize(pattern, dialect).map_err(wrong)?;
        let matcher = Matcher::new(&tokens).map_err(wrong)?;
        Ok(Self { tokens, matcher, stems: OnceLock::new() })
    }

    /// Whether the whole of `path` matches. Parent directories are the business of the ignore matcher.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.matcher.matches(path)
    }

    /// Whether some path strictly below `directory` could match. `false` is certain, `true` may be too careful.
    pub fn can_match_below(&self, directory: &[u8]) -> bool {
        let stems = self.stems.get_or_init(|| Stems::new(&self.tokens));
        let depth = 1 + directory.iter().filter(|byte| **byte == b'/').count();
        let matches = |components: usize, path: &[u8]| {
            stems.matchers[components - 1].as_ref().is_none_or(|stem| stem.matches(path))
        };
        if depth <= stems.matchers.len() {
            return matches(depth, directory);
        }
        if stems.bounded {
            return false;
        }
        // The part of unknown depth begins above this directory: only what comes before it can be compared.
        let known = stems.matchers.len();
        known == 0 || matches(known, first_components(directory, known))
    }
}

fn first_components(path: &[u8], count: usize) -> &[u8] {
    let end = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').nth(count - 1);
    end.map_or(path, |(end, _)| &path[..end])
}

impl Stems {
    fn new(tokens: &[Token]) -> Self {
        let mut matchers = Vec::new();
        let mut seen: Vec<Token> = Vec::new();
        for token in tokens {
            match token {
                Token::Literal(bytes) => {
                    let mut parts = bytes.split(|byte| *byte == b'/');
                    seen.extend(parts.next().map(|part| Token::Literal(part.to_vec())));
                    for part in parts {
                        // A stem is shorter than a pattern that compiled; were it refused, it would match all.
                        matchers.push(Matcher::new(&merged(&seen)).ok());
                        seen.push(Token::Literal(b"/".to_vec()));
                        seen.push(Token::Literal(part.to_vec()));
                    }
                }
                Token::AnyCharacter | Token::AnyRun => seen.push(token.clone()),
                Token::Class { .. } if !token.matches_slash() => seen.push(token.clone()),
                Token::AnyDepth { .. } | Token::Class { .. } => return Self { matchers, bounded: false },
            }
        }
        Self { matchers, bounded: true }
    }
}

/// Neighbouring literals as one, as [`Matcher::new`] wants them.
fn merged(tokens: &[Token]) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    for token in tokens {
        match (out.last_mut(), token) {
            (Some(Token::Literal(before)), Token::Literal(bytes)) => before.extend_from_slice(bytes),
            (_, token) => out.push(token.clone()),
        }
    }
    out.retain(|token| *token != Token::Literal(Vec::new()));
    out
}

impl Token {
    fn matches_slash(&self) -> bool {
        match self {
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&'/')) != *negated
            }
            Self::AnyDepth { .. } => true,
            Self::Literal(bytes) => bytes.contains(&b'/'),
            Self::AnyCharacter | Self::AnyRun => false,
        }
    }
}

fn tokenize(pattern: &[u8], dialect: Dialect) -> Result<Vec<Token>, PatternProblem> {
    let mut tokens = Vec::new();
    let mut literal = Vec::new();
    let mut rest = pattern;
    while let [first, after @ ..] = rest {
        rest = after;
        let token = match first {
            b'*' if dialect == Dialect::Ignore && rest.first() == Some(&b'*') => {
                rest = &rest[1..];
                let slash = rest.first() == Some(&b'/');
                if slash {
                    rest = &rest[1..];
                }
                Token::AnyDepth { slash }
            }
            b'*' => Token::AnyRun,
            b'?' => Token::AnyCharacter,
            b'[' => {
                let (class, after) = class(rest, dialect)?;
                rest = after;
                class
            }
            b'\\' => {
                let [escaped, after @ ..] = rest else { return Err(PatternProblem::TrailingBackslash) };
                literal.push(*escaped);
                rest = after;
                continue;
            }
            byte => {
                literal.push(*byte);
                continue;
            }
        };
        if !literal.is_empty() {
            tokens.push(Token::Literal(std::mem::take(&mut literal)));
        }
        tokens.push(token);
    }
    if !literal.is_empty() {
        tokens.push(Token::Literal(literal));
    }
    Ok(tokens)
}

/// Reads a class whose `[` has been taken; returns it and what follows its `]`.
fn class(mut rest: &[u8], dialect: Dialect) -> Result<(Token, &[u8]), PatternProblem> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    let mut empty = true;
    loop {
        if rest.first() == Some(&b']') && !empty {
            return Ok((Token::Class { negated, ranges }, &rest[1..]));
        }
        let (low, after) = class_character(rest)?;
        let (high, after) = match after {
            [b'-', after @ ..] => class_character(after)?,
            _ => (low, after),
        };
        if low <= high {
            ranges.push((low, high));
        } else if dialect == Dialect::Ignore {
            // `filepath.Match` lets it pass as a range that holds nothing; the regular expression does not compile.
            return Err(PatternProblem::ReversedRange);
        }
        empty = false;
        rest = after;
    }
}

fn class_character(rest: &[u8]) -> Result<(char, &[u8]), PatternProblem> {
    let rest = match rest {
        [] => return Err(PatternProblem::UnclosedClass),
        [b'-' | b']', ..] => return Err(PatternProblem::MissingCharacter),
        [b'\\', after @ ..] => after,
        _ => rest,
    };
    let chunk = rest.utf8_chunks().next().ok_or(PatternProblem::UnclosedClass)?;
    let character = chunk.valid().chars().next().ok_or(PatternProblem::ClassNotUtf8)?;
    match &rest[character.len_utf8()..] {
        [] => Err(PatternProblem::UnclosedClass),
        after => Ok((character, after)),
    }
}

impl Matcher {
    fn new(tokens: &[Token]) -> Result<Self, PatternProblem> {
        use Token::{AnyDepth, Literal};
        Ok(match tokens {
            [] => Self::Exact(Vec::new()),
            [Literal(bytes)] => Self::Exact(bytes.clone()),
            [AnyDepth { .. }] => Self::Everything,
            // `a/**` is everything below `a` but not `a` itself; `a**` is everything that starts with an `a`.
            [Literal(bytes), AnyDepth { .. }] => Self::Prefix(bytes.clone()),
            // `**/a` is `a` at any depth. `**a` is whatever *ends* in `a`; with one more wildcard behind it, as in
            // `**a*`, it is not (see `expression`).
            [AnyDepth { slash: true }, Literal(bytes)] => Self::Tail(bytes.clone()),
            [AnyDepth { slash: false }, Literal(bytes)] => Self::Suffix(bytes.clone()),
            tokens => Self::Expression(expression(tokens)?),
        })
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Everything => true,
            Self::Exact(text) => path == text,
            Self::Prefix(start) => path.starts_with(start),
            Self::Suffix(end) => path.ends_with(end),
            Self::Tail(end) => path
                .strip_suffix(end.as_slice())
                .is_some_and(|before| matches!(before.last(), None | Some(b'/'))),
            Self::Expression(expression) => expression.is_match(&characters(path)),
        }
    }
}

fn expression(tokens: &[Token]) -> Result<Regex, PatternProblem> {
    let mut text = String::from("(?s)^");
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Literal(bytes) => text.push_str(&regex::escape(&characters(bytes))),
            Token::AnyCharacter => text.push_str("[^/]"),
            Token::AnyRun => text.push_str("[^/]*"),
            Token::AnyDepth { .. } if index + 1 == tokens.len() => text.push_str(".*"),
            // Also without a slash behind the stars: `a**b` is `ab`, `a/b` and `ax/y/b`, but not `axb`.
            Token::AnyDepth { .. } => text.push_str("(?:.*/)?"),
            Token::Class { negated, ranges } if ranges.is_empty() => {
                text.push_str(if *negated { "." } else { r"[^\s\S]" });
            }
            Token::Class { negated, ranges } => {
                text.push_str(if *negated { "[^" } else { "[" });
                for (low, high) in ranges {
                    // Writing into a String cannot fail.
                    let _ = write!(text, r"\u{{{:x}}}-\u{{{:x}}}", u32::from(*low), u32::from(*high));
                }
                text.push(']');
            }
        }
    }
    text.push('$');
    Regex::new(&text).map_err(|_| PatternProblem::TooLarge)
}

/// `path` as characters, every stray byte as one U+FFFD.
fn characters(path: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(path) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests;
