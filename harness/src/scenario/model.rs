// SPDX-License-Identifier: Apache-2.0
//! The scenario itself and the rules that span several of its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Bench, BenchKind, Context, ContextPath, Expect, FileContent, ImageFilePath, Mutation, Outcome, ScenarioId,
};
use crate::adapter::Capability;
use crate::document::{ApiVersion, Invalid, Located};

/// One scenario: a build context, a Dockerfile, steps, and what must hold after each.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// Tells a scenario from other documents.
    pub kind: ScenarioKind,
    /// `area/name`, equal to the file's path.
    pub id: Located<ScenarioId>,
    /// What must hold, as one sentence.
    pub title: String,
    /// Where that is written down: a URL or a section of a document.
    pub spec: String,
    /// How much it weighs.
    pub level: Level,
    /// Words to select scenarios by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What a builder must be able to do; without it the scenario is unsupported and does not run.
    #[serde(default)]
    pub requires: BTreeSet<Capability>,
    /// What the builder is given besides the Dockerfile.
    #[serde(default)]
    pub context: Context,
    /// The Dockerfile of all builds that name no other.
    pub dockerfile: Dockerfile,
    /// Builds and changes of the context, in this order.
    pub steps: Vec<Step>,
    /// Measurements; a scenario with them belongs to the latency suites.
    #[serde(default)]
    pub bench: Option<Bench>,
    /// How long one build or pod may take before it counts as hanging, in seconds.
    #[serde(default = "default_limit_s")]
    pub limit_s: u64,
}

fn default_limit_s() -> u64 {
    120
}

/// The value of `kind` in a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ScenarioKind {
    /// A scenario.
    Scenario,
}

/// How much a scenario weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A failure makes the run red.
    Must,
    /// A failure is a warning.
    Should,
    /// Builders may differ; the difference is reported.
    May,
    /// Reported without judgement.
    Info,
}

/// Where a Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Dockerfile {
    /// Its text; it is put beside the context, not into it. `{base}` and `{ref}` are replaced.
    Text(String),
    /// A file of the build context, taken as it is.
    Path(ContextPath),
}

/// One step of a scenario.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A build, and what must hold after it.
    Build(Box<BuildStep>),
    /// Changes of the build context.
    Mutate(Vec<Mutation>),
}

/// One build. The arguments are those of Tilt's `docker_build`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildStep {
    /// A word by which later steps name this build.
    #[serde(default)]
    pub name: Option<Located<String>>,
    /// Build arguments.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// The stage to build; the last one when not given.
    #[serde(default)]
    pub target: Option<String>,
    /// Take nothing from the cache.
    #[serde(default)]
    pub no_cache: bool,
    /// More names for the image; `{ref}` is replaced.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Another Dockerfile than the scenario's.
    #[serde(default)]
    pub dockerfile: Option<Dockerfile>,
    /// What must hold afterwards.
    #[serde(default)]
    pub expect: Expect,
}

impl Scenario {
    /// The builds, in order.
    pub fn builds(&self) -> impl Iterator<Item = &BuildStep> {
        self.steps.iter().filter_map(|step| match step {
            Step::Build(build) => Some(build.as_ref()),
            Step::Mutate(_) => None,
        })
    }

    /// Every stamp that some build compares. They are read after each successful build, for later ones refer to them.
    pub fn stamps(&self) -> BTreeSet<&ImageFilePath> {
        self.builds()
            .flat_map(|build| &build.expect.executions)
            .map(|execution| &execution.stamp.value)
            .collect()
    }

    /// Checks the rules that serde cannot see. `text` is the document, for the snippet.
    pub(super) fn check(&self, file: &Path, text: &str) -> Result<(), Box<Invalid>> {
        let at = |line, column, message: String| Box::new(Invalid::new(file, text, line, column, message));
        let top = |message| Box::new(Invalid::of_document(file, message));
        if self.builds().next().is_none() {
            return Err(top("a scenario needs at least one build step".to_owned()));
        }
        let mut named = BTreeMap::new();
        let mut built_before = false;
        for build in self.builds() {
            let expect = &build.expect;
            for reference in
                [&expect.same_image_as_step, &expect.different_image_from_step].into_iter().flatten()
            {
                if named.get(&reference.value).copied() != Some(true) {
                    let message = format!("no earlier successful build is named `{}`", reference.value);
                    let known: Vec<&str> = named.keys().map(String::as_str).collect();
                    return Err(Box::new(
                        Invalid::new(file, text, reference.line, reference.column, message)
                            .with_allowed(&reference.value, &known),
                    ));
                }
            }
            let succeeds = matches!(expect.outcome, Outcome::Success);
            if !succeeds
                && (!expect.files.is_empty()
                    || !expect.image.config.is_empty()
                    || !expect.executions.is_empty())
            {
                return Err(top("a build that must fail has no image to look into".to_owned()));
            }
            if !built_before && let Some(stale) = expect.executions.iter().find(|execution| !execution.fresh)
            {
                let message = "the first build has no earlier stamp: `fresh: false` cannot hold".to_owned();
                return Err(at(stale.stamp.line, stale.stamp.column, message));
            }
            if let Some(name) = &build.name
                && named.insert(name.value.clone(), succeeds).is_some()
            {
                let message = format!("two builds are named `{}`", name.value);
                return Err(at(name.line, name.column, message));
            }
            built_before |= succeeds;
        }
        let Some(bench) = &self.bench else { return Ok(()) };
        if bench.cases.is_empty() {
            return Err(top("bench has no cases".to_owned()));
        }
        let mut ids = BTreeSet::new();
        for case in &bench.cases {
            let id = &case.id;
            if !ids.insert(&id.value) {
                return Err(at(id.line, id.column, format!("two measurements are named `{}`", id.value)));
            }
            if matches!(&case.kind, BenchKind::Edit(mutations) if !mutations.iter().any(writes_nonce)) {
                let message = format!(
                    "the edit `{}` writes no {{nonce}}: its second round would change nothing",
                    id.value
                );
                return Err(at(id.line, id.column, message));
            }
        }
        Ok(())
    }
}

fn writes_nonce(mutation: &Mutation) -> bool {
    const NONCE: &[u8] = b"{nonce}";
    matches!(mutation, Mutation::Write(file)
        if matches!(&file.content, FileContent::Bytes(bytes)
            if bytes.windows(NONCE.len()).any(|window| window == NONCE)))
}
