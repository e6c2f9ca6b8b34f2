// SPDX-License-Identifier: Apache-2.0
//! Patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` is any text, `?` any character, a backslash takes the meaning
//! away from `*`, `?`, itself, `}` and `/`. There are no bracket classes. Neither wildcard matches a line break.

use regex::Regex;

/// A pattern that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    AnyText,
    AnyLetter,
    Literal(char),
}

/// How much of the text a `*` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Shortest,
    Longest,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A backslash before a letter that has no special meaning.
    #[error("invalid escape \\{0}")]
    Escape(char),
    /// A backslash at the end.
    #[error("it ends in a backslash")]
    Unfinished,
    /// More wildcards than the matcher takes.
    #[error("it is too large")]
    TooLarge,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut tokens = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            tokens.push(match letter {
                '*' => Token::AnyText,
                '?' => Token::AnyLetter,
                '\\' => match letters.next() {
                    Some(letter @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(letter),
                    Some(letter) => return Err(PatternError::Escape(letter)),
                    None => return Err(PatternError::Unfinished),
                },
                letter => Token::Literal(letter),
            });
        }
        Ok(Self(tokens))
    }

    /// `value` without the start that matches.
    pub(super) fn trim_start(&self, value: &str, reach: Reach) -> Result<String, PatternError> {
        let matcher = regex(self.0.iter(), true, reach)?;
        Ok(matcher.find(value).map_or(value, |found| &value[found.end()..]).to_owned())
    }

    /// `value` without the end that matches. Both are turned round, so that the shortest end is found, not the first.
    pub(super) fn trim_end(&self, value: &str, reach: Reach) -> Result<String, PatternError> {
        let matcher = regex(self.0.iter().rev(), true, reach)?;
        let reversed: String = value.chars().rev().collect();
        let cut = matcher.find(&reversed).map_or(0, |found| found.end());
        Ok(value[..value.len() - cut].to_owned())
    }

    /// `value` with the first or every longest match replaced. `replacement` is taken literally.
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        every: bool,
    ) -> Result<String, PatternError> {
        let matcher = regex(self.0.iter(), false, Reach::Longest)?;
        let limit = usize::from(!every);
        Ok(matcher.replacen(value, limit, regex::NoExpand(replacement)).into_owned())
    }
}

fn regex<'a>(
    tokens: impl Iterator<Item = &'a Token>,
    anchored: bool,
    reach: Reach,
) -> Result<Regex, PatternError> {
    let mut source = String::from(if anchored { "^" } else { "" });
    for token in tokens {
        match token {
            Token::AnyText if reach == Reach::Longest => source.push_str(".*"),
            Token::AnyText => source.push_str(".*?"),
            Token::AnyLetter => source.push('.'),
            Token::Literal(letter) => source.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&source).map_err(|_| PatternError::TooLarge)
}
