// SPDX-License-Identifier: Apache-2.0
//! Builder flags: `--name=value` between the keyword and the arguments.
//!
//! Each instruction states its flags as a table, so a flag that the table does not know is an error, never ignored.

use std::ops::Range;

use super::ast::Word;
use super::error::{Fault, SyntaxError};
use super::text::Text;
use crate::diagnostic::closest;

/// A flag as it is written, quotes and escapes removed.
#[derive(Debug)]
pub(super) struct RawFlag<'a> {
    text: Text<'a>,
    plain: String,
}

/// What an instruction knows about one of its flags.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlagRule {
    pub(super) name: &'static str,
    pub(super) kind: FlagKind,
    /// Whether the engine can honour it. Clearing this is all that a flag needs to be refused.
    pub(super) supported: bool,
}

/// How a flag is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// Once, with a value.
    Value,
    /// Any number of times, with a value.
    Repeated,
    /// Once, bare or with `true` or `false`.
    Switch,
}

/// A flag that fits its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// The value; of a switch `true` or `false`.
    pub(super) value: Word,
    /// The whole flag in the file.
    pub(super) span: Range<usize>,
}

/// Splits the flags off. They end at the first word that does not start with `--`, or after a lone `--`.
///
/// Quotes and the backslash (also under another escape directive) protect white space and vanish.
pub(super) fn split(text: Text<'_>) -> (Vec<RawFlag<'_>>, Text<'_>) {
    let raw = text.as_str();
    let mut flags = Vec::new();
    let mut start = 0;
    loop {
        start += raw[start..].len() - raw[start..].trim_start().len();
        if !raw[start..].starts_with("--") {
            return (flags, text.from(start));
        }
        let (plain, length) = plain_word(&raw[start..]);
        let end = start + length;
        if plain == "--" {
            return (flags, text.from(end).trim());
        }
        flags.push(RawFlag { text: text.slice(start..end), plain });
        start = end;
    }
}

/// The first word without its quotes and escapes, and its length as written.
fn plain_word(raw: &str) -> (String, usize) {
    let mut plain = String::new();
    let mut quote = None;
    let mut letters = raw.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (None, _) if letter.is_whitespace() => return (plain, at),
            (None, '\'' | '"') => quote = Some(letter),
            (Some(opening), _) if opening == letter => quote = None,
            (_, '\\') => plain.extend(letters.next().map(|(_, letter)| letter)),
            _ => plain.push(letter),
        }
    }
    (plain, raw.len())
}

/// Checks the flags of `keyword` against its table.
pub(super) fn check(
    keyword: &'static str,
    raw: &[RawFlag<'_>],
    rules: &[FlagRule],
) -> Result<Vec<Flag>, Fault> {
    let mut flags: Vec<Flag> = Vec::new();
    for given in raw {
        let span = given.text.span();
        let fault = |error| Err(Fault::new(error, span.clone()));
        let plain = &given.plain["--".len()..];
        let (name, value) = match plain.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (plain, None),
        };
        let Some(rule) = rules.iter().find(|rule| rule.name == name) else {
            let suggestion = closest(name, rules.iter().map(|rule| rule.name));
            return fault(SyntaxError::UnknownFlag { keyword, name: name.to_owned(), suggestion });
        };
        let name = rule.name;
        if rule.kind != FlagKind::Repeated && flags.iter().any(|flag| flag.name == name) {
            return fault(SyntaxError::DuplicateFlag { name });
        }
        let value = match (rule.kind, value) {
            (FlagKind::Switch, None) => "true".to_owned(),
            (FlagKind::Switch, Some(value)) => match value.to_ascii_lowercase() {
                value if value == "true" || value == "false" => value,
                _ => return fault(SyntaxError::SwitchValue { name, value: value.to_owned() }),
            },
            (_, Some(value)) => value.to_owned(),
            (_, None) => return fault(SyntaxError::MissingFlagValue { name }),
        };
        if !rule.supported {
            return Err(Fault::unsupported(format!("{keyword} --{name}"), span));
        }
        let value_span = given.text.split_once('=').map_or(span.clone(), |(_, value)| value.span());
        flags.push(Flag { name, value: Word { raw: value, span: value_span }, span });
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::super::text::LogicalLine;
    use super::*;

    fn split_text(raw: &str) -> (Vec<String>, String) {
        let mut line = LogicalLine::default();
        line.push(raw, 0);
        let (flags, rest) = split(line.trimmed());
        (flags.into_iter().map(|flag| flag.plain).collect(), rest.as_str().to_owned())
    }

    #[test]
    fn flags_end_at_the_first_other_word() {
        for (raw, flags, rest) in [
            ("a --b", &[][..], "a --b"),
            ("--a=1 --b c --d", &["--a=1", "--b"], "c --d"),
            ("--a -- --b", &["--a"], "--b"),
            ("--a --", &["--a"], ""),
            ("--a", &["--a"], ""),
            ("-a b", &[], "-a b"),
            ("--a='x y' z", &["--a=x y"], "z"),
            ("--a=\"x 'y\" z", &["--a=x 'y"], "z"),
            ("--a=x\\ y z", &["--a=x y"], "z"),
            ("--a='x", &["--a=x"], ""),
            ("", &[], ""),
        ] {
            let expected = (flags.iter().map(|&flag| flag.to_owned()).collect(), rest.to_owned());
            assert_eq!(split_text(raw), expected, "{raw}");
        }
    }

    #[test]
    fn flags_are_checked_against_the_table() {
        let rules = [
            FlagRule { name: "one", kind: FlagKind::Value, supported: true },
            FlagRule { name: "many", kind: FlagKind::Repeated, supported: true },
            FlagRule { name: "switch", kind: FlagKind::Switch, supported: true },
            FlagRule { name: "later", kind: FlagKind::Value, supported: false },
        ];
        for (raw, expected) in [
            ("--one=a --many=b --many=c --switch x", Ok("one=a many=b many=c switch=true")),
            ("--switch=FALSE", Ok("switch=false")),
            ("--one=", Ok("one=")),
            ("--one=a=b", Ok("one=a=b")),
            ("--one", Err("missing value: --one=…")),
            ("--one=a --one=b", Err("duplicate flag: --one")),
            ("--switch=1", Err("--switch is true or false, not \"1\"")),
            ("--swich", Err("unknown flag for COPY: --swich (did you mean --switch?)")),
            ("--One=a", Err("unknown flag for COPY: --One (did you mean --one?)")),
            ("--xyzzy=a", Err("unknown flag for COPY: --xyzzy")),
            ("--later=1", Err("COPY --later is not supported yet")),
        ] {
            let mut line = LogicalLine::default();
            line.push(raw, 0);
            let outcome = check("COPY", &split(line.trimmed()).0, &rules)
                .map(|flags| {
                    let flags: Vec<_> =
                        flags.iter().map(|flag| format!("{}={}", flag.name, flag.value.raw)).collect();
                    flags.join(" ")
                })
                .map_err(|fault| fault.error.to_string());
            assert_eq!(outcome.as_deref().map_err(String::as_str), expected, "{raw}");
        }
    }
}
