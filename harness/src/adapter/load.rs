// SPDX-License-Identifier: Apache-2.0
//! Adapter files to adapters.

use std::path::Path;

use super::Adapter;
use crate::document::{self, DocumentError, Invalid};

/// Reads one adapter.
///
/// # Errors
/// [`DocumentError::Read`] when the file cannot be read, [`DocumentError::Invalid`] for the first mistake in it.
pub fn load(file: &Path) -> Result<Adapter, DocumentError> {
    let (adapter, text) = document::read::<Adapter>(file)?;
    if file.file_stem().is_none_or(|stem| stem != adapter.id.as_str()) {
        let message = format!("the id `{}` is not the file's name", adapter.id.value);
        return Err(Box::new(Invalid::new(file, &text, adapter.id.line, adapter.id.column, message)).into());
    }
    adapter.check(file, &text)?;
    Ok(adapter)
}

/// Reads every adapter in a folder, sorted by id. All mistakes are reported, not only the first file's.
///
/// # Errors
/// One error per file that cannot be used.
pub fn load_all(root: &Path) -> Result<Vec<Adapter>, Vec<DocumentError>> {
    let files = document::files_under(root).map_err(|error| vec![error])?;
    let (mut adapters, mut errors) = (Vec::new(), Vec::new());
    for file in &files {
        match load(&root.join(file)) {
            Ok(adapter) => adapters.push(adapter),
            Err(error) => errors.push(error),
        }
    }
    adapters.sort_by(|left, right| left.id.value.cmp(&right.id.value));
    if errors.is_empty() { Ok(adapters) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_adapter_in_the_tree_is_valid() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../adapters");
        let adapters = load_all(&root).unwrap_or_else(|errors| {
            panic!("{}", errors.iter().map(DocumentError::render).collect::<String>())
        });
        let ids: Vec<&str> = adapters.iter().map(|adapter| adapter.id.as_str()).collect();
        assert_eq!(ids, ["docker", "pushless"]);
    }

    /// The rendered refusal of the adapter in the tree after one replacement.
    fn refusal(from: &str, to: &str) -> String {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../adapters/pushless.yaml");
        let text = std::fs::read_to_string(tree).expect("the adapter");
        assert!(text.contains(from), "{from}");
        let file = Path::new("pushless.yaml");
        let text = text.replacen(from, to, 1);
        let checked = document::parse::<Adapter>(file, &text).and_then(|adapter| adapter.check(file, &text));
        checked.expect_err("the adapter is wrong").render()
    }

    #[test]
    fn mistakes_are_shown_with_place_and_remedy() {
        let refusals = [
            ("\"{ref}\"", "\"{rev}\""),
            ("[--target, \"{value}\"]", "[--target, \"{key}\"]"),
            ("prune, --all]", "prune, \"{ref}\"]"),
            ("\"{program.pushless}\", version", "\"{program.docker}\", version"),
            ("    - \"{options}\"\n", ""),
            ("    no_cache: [--no-cache]\n", ""),
            ("    no_cache: [--no-cache]\n", "    no_cache: []\n"),
            ("  - build.target\n", ""),
            ("  - build.target\n", "  - build.targets\n"),
            ("(\\d+\\.\\d+\\.\\d+\\S*)", "version"),
            ("1: [step_failed]", "1: [steps_failed]"),
            ("driver: exec", "driver: shell"),
            ("lifecycle:", "livecycle:"),
        ]
        .map(|(from, to)| refusal(from, to))
        .join("\n");
        insta::assert_snapshot!(refusals);
    }
}
