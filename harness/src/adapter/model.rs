// SPDX-License-Identifier: Apache-2.0
//! The adapter document and the rules that span several of its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Argument, Capability, ExitClass, Placeholder};
use crate::document::{ApiVersion, Invalid, Located};
use crate::scenario::Pattern;

/// One builder and how it is driven.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// Tells an adapter from other documents.
    pub kind: AdapterKind,
    /// A word, equal to the file's name without `.yaml`.
    pub id: Located<String>,
    /// The builder's name for people.
    pub title: String,
    /// How the harness talks to the builder.
    pub driver: Driver,
    /// The programs it takes, by the names that `{program.NAME}` uses.
    pub discover: BTreeMap<String, Program>,
    /// How its version is found; runs after the lifecycle's `up`.
    pub version: VersionRule,
    /// What it claims to be able to do.
    pub capabilities: BTreeSet<Capability>,
    /// What its commands see of the environment.
    #[serde(default)]
    pub environment: EnvironmentRule,
    /// Daemons, and the command that empties its cache.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// How base images get into the builder's own store; nothing when it builds from the node's.
    #[serde(default)]
    pub seed: Vec<Vec<Argument>>,
    /// How it builds.
    pub build: BuildTemplate,
    /// How an image gets from the builder to the node, once per name; nothing when it is there already. Timed as its
    /// own phase.
    #[serde(default)]
    pub deliver: Vec<Vec<Argument>>,
    /// What its exit codes stand for, as far as it tells failures apart. A code that may stand for several has several.
    #[serde(default)]
    pub exit_classes: BTreeMap<i32, BTreeSet<ExitClass>>,
    /// What it keeps between builds. All else that stays behind is residue.
    #[serde(default)]
    pub cache: CacheClaim,
}

/// The value of `kind` in an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum AdapterKind {
    /// An adapter.
    Adapter,
}

/// How the harness talks to a builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// Through its command line, one process per command.
    Exec,
}

/// How one program is found.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// An environment variable with the path; when set, nothing else is looked at.
    pub environment_override: String,
    /// Paths, and names that are looked up in every folder of PATH, in order of preference.
    pub candidates: Vec<Argument>,
    /// What a candidate must answer to be taken; an executable file is enough without it.
    #[serde(default)]
    pub usable: Option<Usable>,
    /// How a person gets the program.
    pub install_hint: String,
}

/// A question to a candidate that needs no daemon.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Usable {
    /// The command, with `{candidate}`.
    pub argv: Vec<Argument>,
    /// Added to the environment of the command.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Must be found in what the command prints, whatever its exit code.
    pub regex: Pattern,
}

/// How a version is found.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionRule {
    /// The command.
    pub argv: Vec<Argument>,
    /// Its first group, in what the command prints, is the version.
    pub regex: Pattern,
}

/// What a builder's commands see of the environment: nothing but this.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentRule {
    /// Variables taken from the harness's environment when they are set there.
    #[serde(default)]
    pub inherit: BTreeSet<String>,
    /// Variables with these values.
    #[serde(default)]
    pub set: BTreeMap<String, Argument>,
}

/// Daemons, and the command that empties the cache.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// Daemons, started in this order and ended in the opposite one with SIGTERM.
    #[serde(default)]
    pub up: Vec<DaemonStep>,
    /// Commands before the daemons are ended.
    #[serde(default)]
    pub down: Vec<Vec<Argument>>,
    /// Commands that leave nothing cached.
    #[serde(default)]
    pub prune: Vec<Vec<Argument>>,
}

/// One daemon.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DaemonStep {
    /// The command; it stays in the foreground.
    pub argv: Vec<Argument>,
    /// When it is ready.
    pub ready: Readiness,
    /// How long that may take, in seconds.
    pub limit_s: u64,
}

/// When a daemon is ready.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Readiness {
    /// A connection to this unix socket is accepted.
    Socket(Argument),
    /// This command ends with exit code 0.
    Command(Vec<Argument>),
}

/// How a builder builds.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildTemplate {
    /// The command; its element `{options}` becomes the options that a build needs.
    pub argv: Vec<Argument>,
    /// The options. One that is missing is not supported.
    #[serde(default)]
    pub options: BuildOptions,
}

/// The command-line options for the arguments of a build. Each is there exactly when its capability is claimed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildOptions {
    /// For each build argument, with `{key}` and `{value}`.
    #[serde(default)]
    pub build_arg: Option<Vec<Argument>>,
    /// For the target stage, with `{value}`.
    #[serde(default)]
    pub target: Option<Vec<Argument>>,
    /// To take nothing from the cache.
    #[serde(default)]
    pub no_cache: Option<Vec<Argument>>,
    /// For each further name, with `{value}`.
    #[serde(default)]
    pub tag: Option<Vec<Argument>>,
}

/// What a builder keeps between builds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheClaim {
    /// Folders.
    #[serde(default)]
    pub paths: Vec<Argument>,
    /// Objects in containerd with a label that starts so.
    #[serde(default)]
    pub containerd_label_prefixes: Vec<String>,
}

/// Which placeholders have a meaning in which command, besides those that always have one.
#[derive(Clone, Copy)]
struct Scope(&'static [Placeholder]);

impl Adapter {
    /// Checks the rules that serde cannot see. `text` is the document, for the snippet.
    pub(super) fn check(&self, file: &Path, text: &str) -> Result<(), Box<Invalid>> {
        use Placeholder::{Archive, Candidate, Context, Dockerfile, Key, Options, Reference, Value};
        let check = Check { adapter: self, file, text };
        for program in self.discover.values() {
            check.command(&program.candidates, Scope(&[Placeholder::Beside]))?;
            if let Some(usable) = &program.usable {
                check.command(&usable.argv, Scope(&[Candidate]))?;
            }
        }
        let Lifecycle { up, down, prune } = &self.lifecycle;
        for daemon in up {
            check.command(&daemon.argv, Scope(&[]))?;
            match &daemon.ready {
                Readiness::Socket(path) => check.argument(path, Scope(&[]))?,
                Readiness::Command(command) => check.command(command, Scope(&[]))?,
            }
        }
        for command in down.iter().chain(prune).chain([&self.version.argv, &self.cache.paths]) {
            check.arguments(command, Scope(&[]))?;
        }
        for value in self.environment.set.values() {
            check.argument(value, Scope(&[]))?;
        }
        for command in &self.seed {
            check.command(command, Scope(&[Archive]))?;
        }
        for command in &self.deliver {
            check.command(command, Scope(&[Reference]))?;
        }
        check.command(&self.build.argv, Scope(&[Reference, Dockerfile, Context, Options]))?;
        if self.build.argv.iter().filter(|argument| argument.is_options()).count() != 1 {
            return Err(check.top("build.argv needs the element `{options}` once".to_owned()));
        }
        let BuildOptions { build_arg, target, no_cache, tag } = &self.build.options;
        for (option, capability, scope) in [
            (build_arg, Capability::BuildArgs, Scope(&[Key, Value])),
            (target, Capability::BuildTarget, Scope(&[Value])),
            (no_cache, Capability::BuildNoCache, Scope(&[])),
            (tag, Capability::BuildTags, Scope(&[Value])),
        ] {
            check.command(option.as_deref().unwrap_or_default(), scope).or_else(|error| {
                // An option that is not there is no command that is empty.
                if option.is_none() { Ok(()) } else { Err(error) }
            })?;
            if option.is_some() != self.capabilities.contains(&capability) {
                let message =
                    format!("the capability `{capability}` and its option in build.options go together");
                return Err(check.top(message));
            }
        }
        if self.version.regex.regex().captures_len() < 2 {
            return Err(check.top("version.regex needs a group around the version".to_owned()));
        }
        Ok(())
    }
}

/// Points at what is wrong in a document.
struct Check<'a> {
    adapter: &'a Adapter,
    file: &'a Path,
    text: &'a str,
}

impl Check<'_> {
    fn top(&self, message: String) -> Box<Invalid> {
        Box::new(Invalid::of_document(self.file, message))
    }

    fn command(&self, arguments: &[Argument], scope: Scope) -> Result<(), Box<Invalid>> {
        if arguments.is_empty() {
            return Err(self.top("a command is empty".to_owned()));
        }
        self.arguments(arguments, scope)
    }

    fn arguments(&self, arguments: &[Argument], scope: Scope) -> Result<(), Box<Invalid>> {
        arguments.iter().try_for_each(|argument| self.argument(argument, scope))
    }

    fn argument(&self, argument: &Argument, scope: Scope) -> Result<(), Box<Invalid>> {
        use Placeholder::{Cgroup, Containerd, Namespace, Program, Scratch, State};
        for placeholder in argument.placeholders() {
            let message = match placeholder {
                State | Scratch | Containerd | Namespace | Cgroup => continue,
                Program(name) if self.adapter.discover.contains_key(name) => continue,
                Program(name) => format!("no program `{name}` is declared in discover"),
                other if scope.0.contains(other) => continue,
                other => format!("`{other}` has no meaning in this command"),
            };
            return Err(Box::new(Invalid::new(
                self.file,
                self.text,
                argument.line,
                argument.column,
                message,
            )));
        }
        Ok(())
    }
}
