// SPDX-License-Identifier: Apache-2.0
//! Finds a builder's programs on this machine and asks for the version.
//!
//! A builder that is not installed is no error: it is reported as absent, with what was looked at and how to get it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::template::Segment;
use super::{Adapter, Invocation, Placeholder, Program, Template, Usable};

/// What discovery looks at besides the file system.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// All variables of the harness.
    pub variables: BTreeMap<String, OsString>,
    /// The folder of the harness's own program, for `{beside}`.
    pub beside: PathBuf,
}

impl Environment {
    /// The environment of this process. Variables whose names are not UTF-8 are left out: no adapter can name them.
    pub fn of_this_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        let own = std::env::current_exe().ok();
        let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        Self { variables, beside }
    }
}

/// A program that a builder needs is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("find the program `{program}`")]
pub struct Absence {
    /// Its name in the adapter.
    pub program: String,
    /// How a person gets it.
    pub install_hint: String,
    /// The environment variable that would name it.
    pub environment_override: String,
    /// What was found and not taken.
    pub rejected: Vec<Rejection>,
}

/// A candidate that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The candidate.
    pub path: PathBuf,
    /// Why not, as a fragment.
    pub reason: String,
}

/// Finds all the programs of an adapter.
///
/// # Errors
/// The first program, by name, for which no candidate is usable.
pub fn discover(adapter: &Adapter, environment: &Environment) -> Result<BTreeMap<String, PathBuf>, Absence> {
    let find_one = |(name, program): (&String, &Program)| {
        find(program, environment).map(|path| (name.clone(), path)).map_err(|rejected| Absence {
            program: name.clone(),
            install_hint: program.install_hint.clone(),
            environment_override: program.environment_override.clone(),
            rejected,
        })
    };
    adapter.discover.iter().map(find_one).collect()
}

fn find(program: &Program, environment: &Environment) -> Result<PathBuf, Vec<Rejection>> {
    let mut rejected = Vec::new();
    let forced = environment.variables.get(&program.environment_override).filter(|path| !path.is_empty());
    let paths = match forced {
        Some(path) => vec![PathBuf::from(path)],
        None => program.candidates.iter().flat_map(|candidate| places(candidate, environment)).collect(),
    };
    for path in paths {
        let runnable =
            path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        // What is simply not there needs no word, unless a person named it.
        if !runnable && forced.is_none() && !path.exists() {
            continue;
        }
        let verdict = match &program.usable {
            _ if !runnable => Err("not an executable file".to_owned()),
            Some(usable) => ask(usable, &path, environment),
            None => Ok(()),
        };
        match verdict {
            Ok(()) => return Ok(path),
            Err(reason) => rejected.push(Rejection { path, reason }),
        }
    }
    Err(rejected)
}

/// The paths that a candidate stands for: itself when it has a slash, else its name in every folder of PATH.
fn places(candidate: &Template, environment: &Environment) -> Vec<PathBuf> {
    let Some(text) = expand(candidate, &Placeholder::Beside, environment.beside.as_os_str()) else {
        return Vec::new();
    };
    let path = Path::new(&text);
    if path.components().count() > 1 {
        return vec![path.to_owned()];
    }
    let folders = environment.variables.get("PATH").map(OsString::as_os_str).unwrap_or_default();
    std::env::split_paths(folders)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(path))
        .collect()
}

fn ask(usable: &Usable, candidate: &Path, environment: &Environment) -> Result<(), String> {
    let argv: Option<Vec<OsString>> = usable
        .argv
        .iter()
        .map(|argument| expand(argument, &Placeholder::Candidate, candidate.as_os_str()))
        .collect();
    let Some(argv) = argv else {
        return Err("its question has other placeholders than {candidate}".to_owned());
    };
    let mut env: BTreeMap<String, OsString> =
        usable.environment.iter().map(|(name, value)| (name.clone(), value.into())).collect();
    if let Some(path) = environment.variables.get("PATH") {
        env.insert("PATH".to_owned(), path.clone());
    }
    let invocation = Invocation { argv, env, cwd: PathBuf::from("/") };
    let output =
        run(&mut invocation.command()).map_err(|error| format!("`{invocation}` did not start: {error}"))?;
    if usable.regex.regex().is_match(&printed(&output)) {
        return Ok(());
    }
    Err(format!("`{invocation}` does not print /{}/", usable.regex))
}

fn expand(template: &Template, known: &Placeholder, value: &OsStr) -> Option<OsString> {
    let mut out = OsString::new();
    for segment in template.segments() {
        match segment {
            Segment::Literal(text) => out.push(text),
            Segment::Placeholder(placeholder) if placeholder == known => out.push(value),
            Segment::Placeholder(_) => return None,
        }
    }
    Some(out)
}

/// Why a version could not be found.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The command did not start.
    #[error("start `{invocation}`")]
    Start {
        /// The command.
        invocation: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The command did not print a version.
    #[error("find /{pattern}/ in what `{invocation}` prints: {printed:?}")]
    Missing {
        /// The command.
        invocation: String,
        /// What was looked for.
        pattern: String,
        /// What it printed.
        printed: String,
    },
}

/// Runs the version command and takes the version out of what it prints.
///
/// # Errors
/// When the command does not start or prints something else.
pub fn detect_version(adapter: &Adapter, invocation: &Invocation) -> Result<String, VersionError> {
    let output = run(&mut invocation.command())
        .map_err(|source| VersionError::Start { invocation: invocation.to_string(), source })?;
    let printed = printed(&output);
    let captures = adapter.version.regex.regex().captures(&printed);
    captures.and_then(|groups| groups.get(1)).map(|group| group.as_str().to_owned()).ok_or_else(|| {
        VersionError::Missing {
            invocation: invocation.to_string(),
            pattern: adapter.version.regex.as_str().to_owned(),
            printed: printed.clone(),
        }
    })
}

fn run(command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).output()
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::adapter::Adapter;
    use crate::document;

    /// A folder with programs that answer to `--help` with their words.
    fn programs(folder: &Path, programs: &[(&str, &str, u32)]) {
        for (name, words, mode) in programs {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, format!("#!/bin/sh\necho {words}\nexit 1\n")).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("a mode");
        }
    }

    fn adapter() -> Adapter {
        let text = "{api_version: shakedown/v1, kind: Adapter, id: t, title: T, driver: exec, capabilities: [], \
                    version: {argv: [\"{program.tool}\"], regex: 'v([0-9]+)'}, build: {argv: [\"{options}\"]}, \
                    discover: {tool: {environment_override: TOOL, install_hint: get it, \
                    candidates: [\"{beside}/tool\", tool], \
                    usable: {argv: [\"{candidate}\", --help], regex: good}}}}";
        document::parse(Path::new("t.yaml"), text).unwrap_or_else(|error| panic!("{}", error.render()))
    }

    #[test]
    fn the_first_usable_candidate_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        programs(
            folder.path(),
            &[
                ("beside/tool", "bad", 0o755),
                ("one/tool", "good", 0o644),
                ("two/tool", "good v12", 0o755),
                ("three/tool", "good v13", 0o755),
                ("named", "good", 0o755),
            ],
        );
        let path = std::env::join_paths([at("none"), at("one"), at("two"), at("three")]).expect("a PATH");
        let mut environment =
            Environment { variables: BTreeMap::from([("PATH".to_owned(), path)]), beside: at("beside") };
        // The programs are shell scripts without external commands, so this PATH is enough for them.
        let found = discover(&adapter(), &environment).expect("a usable program");
        assert_eq!(found, BTreeMap::from([("tool".to_owned(), at("two/tool"))]));
        let version = Invocation { argv: vec![at("two/tool").into()], env: BTreeMap::new(), cwd: "/".into() };
        assert_eq!(detect_version(&adapter(), &version).expect("a version"), "12");
        let silent = Invocation { argv: vec![at("named").into()], ..version };
        let error = detect_version(&adapter(), &silent).expect_err("no version").to_string();
        assert!(error.starts_with("find /v([0-9]+)/ in what `"), "{error}");

        environment.variables.insert("TOOL".to_owned(), at("named").into());
        assert_eq!(discover(&adapter(), &environment).expect("a usable program")["tool"], at("named"));

        environment.variables.insert("TOOL".to_owned(), at("missing").into());
        let absence = discover(&adapter(), &environment).expect_err("what is named is missing");
        assert_eq!(
            absence.rejected,
            [Rejection { path: at("missing"), reason: "not an executable file".to_owned() }]
        );

        environment.variables.clear();
        let absence = discover(&adapter(), &environment).expect_err("only the bad one is left");
        let line = format!("`{} --help` does not print /good/", at("beside/tool").display());
        assert_eq!(absence.rejected, [Rejection { path: at("beside/tool"), reason: line }]);
        assert_eq!((absence.program.as_str(), absence.install_hint.as_str()), ("tool", "get it"));
    }
}
