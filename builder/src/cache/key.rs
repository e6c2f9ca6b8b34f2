// SPDX-License-Identifier: Apache-2.0
//! Step keys: one hash over everything that decides what a step produces.
//!
//! A key starts from the parent's *chain id*, not from the recipe that led there: two recipes with the same layers
//! share their cache. Fields are hashed with their length in front, so that no two different lists of fields can run
//! into the same bytes.

use std::fmt;
use std::str::FromStr;

use crate::image::ChainId;

/// Raised whenever the meaning of a field changes, so that keys of older versions no longer match.
const KEY_VERSION: u8 = 1;

/// The identity of a step's inputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepKey([u8; 32]);

/// A text that is not a step key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse step key {text:?}: expected 64 lower-case hex digits")]
pub struct StepKeyError {
    /// The text as it was found.
    pub text: String,
}

impl fmt::Display for StepKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for StepKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for StepKey {
    type Err = StepKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || StepKeyError { text: text.to_owned() };
        if text.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(wrong());
        }
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| wrong())
    }
}

/// Collects the fields of a step key.
#[derive(Debug, Clone)]
pub struct KeyBuilder {
    hasher: blake3::Hasher,
}

impl KeyBuilder {
    /// The key of a step of `kind` (such as `run`) on top of `parent`; `None` for the empty root file system.
    pub fn new(kind: &str, parent: Option<ChainId>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[KEY_VERSION]);
        let builder = Self { hasher }.field("kind", kind);
        match parent {
            Some(parent) => builder.field("parent", parent.to_string()),
            None => builder.field("parent", "scratch"),
        }
    }

    /// Adds one named value.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.update(name.as_bytes());
        self.update(value.as_ref());
        self
    }

    /// Adds a named list; its length is part of the key.
    #[must_use]
    pub fn list<T: AsRef<[u8]>>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        let values: Vec<T> = values.into_iter().collect();
        self.update(name.as_bytes());
        self.hasher.update(&(values.len() as u64).to_le_bytes());
        for value in values {
            self.update(value.as_ref());
        }
        self
    }

    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// The key over all fields so far.
    pub fn finish(&self) -> StepKey {
        StepKey(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn neighbouring_fields_cannot_run_into_each_other() {
        let one = KeyBuilder::new("run", None).field("a", "bc").finish();
        let two = KeyBuilder::new("run", None).field("ab", "c").finish();
        assert_ne!(one, two);
        let one = KeyBuilder::new("run", None).list("argv", ["a", "b"]).finish();
        let two = KeyBuilder::new("run", None).list("argv", ["a"]).field("b", "").finish();
        assert_ne!(one, two);
    }

    #[test]
    fn the_parent_is_part_of_the_key() {
        let parent = ChainId(Digest::of(b"x"));
        assert_ne!(KeyBuilder::new("run", None).finish(), KeyBuilder::new("run", Some(parent)).finish());
    }

    #[test]
    fn text_round_trips() {
        let key = KeyBuilder::new("run", None).finish();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("".parse::<StepKey>().is_err());
        assert!(key.to_string().to_uppercase().parse::<StepKey>().is_err());
    }
}
