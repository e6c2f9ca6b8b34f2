// SPDX-License-Identifier: Apache-2.0
//! Scenario files to scenarios.

use std::path::Path;

use super::Scenario;
use crate::document::{self, DocumentError, Invalid};

/// The folder below the scenarios folder that holds build contexts, not scenarios.
const CONTEXTS: &str = "contexts";

/// Reads one scenario; `file` is relative to `root` and decides the id.
///
/// # Errors
/// [`DocumentError::Read`] when the file cannot be read, [`DocumentError::Invalid`] for the first mistake in it.
pub fn load(root: &Path, file: &Path) -> Result<Scenario, DocumentError> {
    let absolute = root.join(file);
    let (scenario, text) = document::read::<Scenario>(&absolute)?;
    let expected = file.with_extension("");
    if Path::new(scenario.id.as_str()) != expected {
        let message = format!("the id `{}` is not the file's path", scenario.id.value);
        return Err(Box::new(
            Invalid::new(&absolute, &text, scenario.id.line, scenario.id.column, message)
                .with_help(format!("write `id: {}`", expected.display())),
        )
        .into());
    }
    scenario.check(&absolute, &text)?;
    Ok(scenario)
}

/// Reads every scenario below `root`, sorted by id. All mistakes are reported, not only the first file's.
///
/// # Errors
/// One error per file that cannot be used.
pub fn load_all(root: &Path) -> Result<Vec<Scenario>, Vec<DocumentError>> {
    let files = document::files_under(root).map_err(|error| vec![error])?;
    let (mut scenarios, mut errors) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|file| !file.starts_with(CONTEXTS)) {
        match load(root, file) {
            Ok(scenario) => scenarios.push(scenario),
            Err(error) => errors.push(error),
        }
    }
    scenarios.sort_by(|left, right| left.id.value.cmp(&right.id.value));
    if errors.is_empty() { Ok(scenarios) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::super::ScenarioId;
    use super::*;

    fn parse(text: &str) -> Result<Scenario, Box<Invalid>> {
        let file = Path::new("a/b.yaml");
        let scenario: Scenario = document::parse(file, text)?;
        scenario.check(file, text)?;
        Ok(scenario)
    }

    const HEAD: &str = "api_version: shakedown/v1\nkind: Scenario\nid: a/b\ntitle: t\nspec: s\nlevel: must\n\
                        dockerfile: {text: FROM scratch}\n";

    /// The rendered refusal of a document with [`HEAD`] and `rest`.
    fn refusal(rest: &str) -> String {
        parse(&format!("{HEAD}{rest}")).expect_err("the document is wrong").render()
    }

    #[test]
    fn mistakes_are_shown_with_place_and_remedy() {
        let refusals =             [
                "steps: [{build: {tagret: x}}]\n",
                "steps: [{bild: {}}]\n",
                "context:\n  files:\n    - path: a\n      txet: b\nsteps: [{build: {}}]\n",
                "context:\n  files:\n    - path: ../a\n      text: b\nsteps: [{build: {}}]\n",
                "context:\n  files:\n    - path: a\n      text: b\n      symlink: c\nsteps: [{build: {}}]\n",
                "requires: [build.arg]\nsteps: [{build: {}}]\n",
                "steps:\n  - build:\n      args:\n        A: 010\n",
                "steps:\n  - build:\n      expect:\n        files:\n          - {path: /a, mode: 0644}\n",
                "steps:\n  - build:\n      expect:\n        files:\n          - {path: /a, mode: \"9\"}\n",
                "steps:\n  - build:\n      expect:\n        files:\n          - {path: /a, absent: true, uid: 0}\n",
                "steps:\n  - build:\n      expect:\n        files:\n          - {path: /a}\n",
                "steps:\n  - build:\n      expect:\n        outcome: {failure: {message_regex: \"a(\"}}\n",
                "steps:\n  - build:\n      expect:\n        image: {config: [{pointer: /a, equals: 1, absent: true}]}\n",
                "steps:\n  - build:\n      name: one\n  - build:\n      expect:\n        same_image_as_step: on\n",
                "steps:\n  - build:\n      name: one\n  - build:\n      name: one\n",
                "steps:\n  - build:\n      expect:\n        executions: [{stamp: /s, fresh: false}]\n",
                "steps:\n  - build:\n      no_cache: yes\n",
                "steps: []\n",
                "steps: [{build: {}}]\nsteps: [{build: {}}]\n",
                "steps: [{build: {}}]\nbench: {cases: [{id: e, kind: {edit: [{write: {path: a, text: b}}]}}]}\n",
                "steps: [{build: {}\n",
                "",
            ]
            .map(refusal)
            .join("\n");
        insta::assert_snapshot!(refusals);
    }

    #[test]
    fn the_smallest_scenario_asks_for_success() {
        let scenario = parse(&format!("{HEAD}steps: [{{build: {{}}}}]\n")).expect("a valid scenario");
        let build = scenario.builds().next().expect("one build");
        assert_eq!(build.expect, super::super::Expect::default());
        assert_eq!(scenario.limit_s, 120);
    }

    #[test]
    fn the_id_is_the_path() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(root.path().join("a")).expect("a folder");
        std::fs::write(root.path().join("a/c.yaml"), format!("{HEAD}steps: [{{build: {{}}}}]\n"))
            .expect("a file");
        let errors = load_all(root.path()).expect_err("the id is a/b");
        let rendered = errors.iter().map(DocumentError::render).collect::<String>();
        assert!(rendered.contains("error: the id `a/b` is not the file's path"), "{rendered}");
        assert!(rendered.contains("help: write `id: a/c`"), "{rendered}");
    }

    #[test]
    fn an_id_has_an_area() {
        assert_eq!(ScenarioId::parse("args/x").map(|id| id.area().to_owned()), Ok("args".to_owned()));
    }

    #[test]
    fn every_scenario_in_the_tree_is_valid() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let scenarios = load_all(&root).unwrap_or_else(|errors| {
            panic!("{}", errors.iter().map(DocumentError::render).collect::<String>())
        });
        let (benches, checks): (Vec<_>, Vec<_>) =
            scenarios.iter().partition(|scenario| scenario.bench.is_some());
        assert_eq!((checks.len(), benches.len()), (32, 2), "a scenario came or went; commit the new numbers");
    }
}
