// SPDX-License-Identifier: Apache-2.0
//! The small typed words of a scenario. Each checks itself while it is read, so a mistake has its place.

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path};

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Gives a word read from a string its `Deserialize` (through `FromStr`-like `parse`) and its JSON Schema.
macro_rules! word {
    ($name:ident, $pattern:expr, $description:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(self.as_str())
            }
        }
    };
}

/// `area/name`, the scenario's path below the scenarios folder without `.yaml`; unique by construction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScenarioId(String);

impl ScenarioId {
    /// Reads an id.
    ///
    /// # Errors
    /// What is wrong with it, as a fragment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let word = |part: &str| {
            part.starts_with(|letter: char| letter.is_ascii_lowercase())
                && part
                    .chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        };
        match text.split_once('/') {
            Some((area, name)) if word(area) && word(name) => Ok(Self(text.to_owned())),
            _ => Err(format!("the id `{text}` is not area/name in lower-case letters, digits and `_`")),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash.
    pub fn area(&self) -> &str {
        self.0.split_once('/').map_or("", |(area, _)| area)
    }
}

word!(ScenarioId, "^[a-z][a-z0-9_]*/[a-z][a-z0-9_]*$", "area/name, equal to the file's path without .yaml");

/// A path below the build context: relative, without `.` and `..`, `/` between the components.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextPath(String);

impl ContextPath {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it, as a fragment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
        if text.is_empty() || !plain || text.ends_with('/') || text.contains("//") || text.contains("/./") {
            return Err(format!("`{text}` is not a relative path without `.` and `..`"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

word!(ContextPath, "^[^/]", "a path below the build context, without . and ..");

/// An absolute path inside an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageFilePath(String);

impl ImageFilePath {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it, as a fragment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/').skip(1);
        let plain = text == "/" || parts.all(|part| !matches!(part, "" | "." | ".."));
        if !text.starts_with('/') || !plain {
            return Err(format!("`{text}` is not an absolute path without `.` and `..`"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text, with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path relative to the image's root; `.` for the root itself.
    pub fn relative(&self) -> &Path {
        match self.0.trim_start_matches('/') {
            "" => Path::new("."),
            path => Path::new(path),
        }
    }
}

word!(ImageFilePath, "^/", "an absolute path inside the image, without . and ..");

/// All 12 permission bits, written as a quoted octal number: `"4755"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// Reads an octal number of three or four digits.
    ///
    /// # Errors
    /// What is wrong with it, as a fragment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        match u32::from_str_radix(text, 8) {
            Ok(bits) if octal => Ok(Self(bits)),
            _ => Err(format!("`{text}` is not a mode of three or four octal digits")),
        }
    }

    /// The bits that `mode` of a file holds besides its type.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & 0o7777)
    }

    /// The number itself.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04o}", self.0)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-7]{3,4}$",
            "description": "permission bits in octal, in quotes; all 12 bits are compared"
        })
    }
}

/// A regular expression in multi-line mode: `^` and `$` match at lines.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// The last line of the compiler's complaint.
    pub fn parse(text: &str) -> Result<Self, String> {
        regex::RegexBuilder::new(text).multi_line(true).build().map(Self).map_err(|error| {
            let complaint = error.to_string();
            let last = complaint.lines().last().unwrap_or_default();
            format!("not a regular expression: {}", last.trim_start_matches("error: "))
        })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The compiled expression.
    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

word!(Pattern, ".", "a regular expression (Rust's regex syntax), multi-line");

/// A sha256 as 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha256(String);

impl Sha256 {
    /// Reads the digits.
    ///
    /// # Errors
    /// What is wrong with them, as a fragment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let hex = text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if hex { Ok(Self(text.to_owned())) } else { Err("a sha256 has 64 lower-case hex digits".to_owned()) }
    }

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(bytes);
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

word!(Sha256, "^[0-9a-f]{64}$", "a sha256 in hex");

/// What stands for the placeholders of a scenario's free texts.
///
/// Only these exact words are replaced: `{base}` (the base image that every builder has), `{ref}` (the name the image
/// is built under) and `{nonce}` (different in every round of a measurement). All other braces stay, for a Dockerfile
/// has its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Substitutions {
    /// For `{base}`.
    pub base: String,
    /// For `{ref}`.
    pub reference: String,
    /// For `{nonce}`; without one the word stays as it is.
    pub nonce: Option<String>,
}

impl Substitutions {
    /// `text` with the placeholders replaced, in one pass: what was put in is not looked at again.
    pub fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            let words = [
                ("{base}", Some(&self.base)),
                ("{ref}", Some(&self.reference)),
                ("{nonce}", self.nonce.as_ref()),
            ];
            let found = words.into_iter().find_map(|(word, value)| Some((rest.strip_prefix(word)?, value?)));
            if let Some((after, value)) = found {
                out.push_str(value);
                rest = after;
            } else {
                out.push('{');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_words_say_why() {
        let path = |text: &str| ContextPath::parse(text).map(|_| ());
        let absolute = |text: &str| ImageFilePath::parse(text).map(|_| ());
        for (found, message) in [
            (
                ScenarioId::parse("Args/x").map(|_| ()),
                "the id `Args/x` is not area/name in lower-case letters, digits and `_`",
            ),
            (
                ScenarioId::parse("a/b/c").map(|_| ()),
                "the id `a/b/c` is not area/name in lower-case letters, digits and `_`",
            ),
            (path("../x"), "`../x` is not a relative path without `.` and `..`"),
            (path("/x"), "`/x` is not a relative path without `.` and `..`"),
            (path("a//b"), "`a//b` is not a relative path without `.` and `..`"),
            (path(""), "`` is not a relative path without `.` and `..`"),
            (absolute("x"), "`x` is not an absolute path without `.` and `..`"),
            (absolute("/a/../b"), "`/a/../b` is not an absolute path without `.` and `..`"),
            (Mode::parse("888").map(|_| ()), "`888` is not a mode of three or four octal digits"),
            (Mode::parse("07777").map(|_| ()), "`07777` is not a mode of three or four octal digits"),
            (Mode::parse("+55").map(|_| ()), "`+55` is not a mode of three or four octal digits"),
            (Pattern::parse("a(").map(|_| ()), "not a regular expression: unclosed group"),
            (Sha256::parse("abc").map(|_| ()), "a sha256 has 64 lower-case hex digits"),
        ] {
            assert_eq!(found, Err(message.to_owned()));
        }
    }

    #[test]
    fn a_mode_keeps_all_twelve_bits() {
        assert_eq!(Mode::parse("4755").map(Mode::bits), Ok(0o4755));
        assert_eq!(Mode::from_bits(0o104_755).to_string(), "4755");
        assert_eq!(Mode::parse("644").map(|mode| mode.to_string()), Ok("0644".to_owned()));
    }

    #[test]
    fn placeholders_are_replaced_once_and_other_braces_stay() {
        let words = Substitutions { base: "{ref}".to_owned(), reference: "r".to_owned(), nonce: None };
        for (text, expected) in [
            ("FROM {base}", "FROM {ref}"),
            ("RUN echo ${X} {ref}{ref}{", "RUN echo ${X} rr{"),
            ("{{base}}", "{{ref}}"),
            ("{nonce} {other}", "{nonce} {other}"),
        ] {
            assert_eq!(words.apply(text), expected);
        }
        let round = Substitutions { nonce: Some("7".to_owned()), ..words };
        assert_eq!(round.apply("v{nonce}"), "v7");
    }
}
