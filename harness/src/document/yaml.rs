// SPDX-License-Identifier: Apache-2.0
//! YAML text to a typed value; the library's errors to ours.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_saphyr::Error as YamlError;

use super::{DocumentError, Invalid};

/// Reads and parses one file.
///
/// # Errors
/// [`DocumentError::Read`] when the file cannot be read as UTF-8, [`DocumentError::Invalid`] as [`parse`].
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<(T, String), DocumentError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| DocumentError::Read { file: file.to_owned(), source })?;
    let value = parse(file, &text)?;
    Ok((value, text))
}

/// Parses `text`; `file` only names it in errors.
///
/// Strings that YAML would read as another type (`1`, `yes`, `0644`) must be quoted, so that nobody's build argument
/// `010` turns into 8. Duplicate keys, merge keys and unknown tags are errors.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Box<Invalid>> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        no_schema: true,
        reject_unsupported_tags: true,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Box::new(explain(file, text, error.without_snippet())))
}

/// A document as JSON, for comparing it with a schema.
#[cfg(test)]
pub(crate) fn parse_untyped(text: &str) -> serde_json::Value {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).expect("valid YAML")
}

/// All YAML files below `root`, sorted, as paths relative to it.
///
/// # Errors
/// [`DocumentError::Read`] when a folder cannot be listed.
pub fn files_under(root: &Path) -> Result<Vec<PathBuf>, DocumentError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let absolute = root.join(&folder);
        let unreadable = |source| DocumentError::Read { file: absolute.clone(), source };
        for entry in std::fs::read_dir(&absolute).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = folder.join(entry.file_name());
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn explain(file: &Path, text: &str, error: &YamlError) -> Invalid {
    let (line, column) = error.location().map_or((0, 0), |place| {
        let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
        (number(place.line()), number(place.column()))
    });
    let at = |message: String| Invalid::new(file, text, line, column, message);
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            at(format!("unknown key `{field}`")).with_allowed(field, expected)
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            at(format!("unknown word `{variant}`")).with_allowed(variant, expected)
        }
        YamlError::SerdeMissingField { field, .. } => at(format!("the key `{field}` is missing")),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            at(format!("the key `{key}` is given twice"))
        }
        YamlError::QuotingRequired { value, .. } => {
            at(format!("`{value}` is text here, but YAML reads it as another type"))
                .with_help(format!("write it in quotes: \"{value}\""))
        }
        YamlError::Message { msg, .. } => at(msg.clone()),
        YamlError::SerdeInvalidType { unexpected, expected, .. }
        | YamlError::SerdeInvalidValue { unexpected, expected, .. } => {
            at(format!("found {unexpected}, expected {expected}"))
        }
        other => {
            // The library's own words end with the place, which is shown by the snippet.
            let words = other.to_string();
            let place = format!(" at line {line}, column {column}");
            at(words.strip_suffix(&place).unwrap_or(&words).to_owned())
        }
    }
}
