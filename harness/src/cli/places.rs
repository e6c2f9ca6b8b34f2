// SPDX-License-Identifier: Apache-2.0
//! Where scenarios and adapters are found when no flag says so.
//!
//! First the working directory, then the folders above the program, nearest first: that finds the documents of a
//! checkout from `target/release/shakedown`, and those of an installation from `<prefix>/bin`, in
//! `<prefix>/share/shakedown`. No path is baked in at compile time: a binary that was moved must not read the documents
//! of another checkout.

use std::path::{Path, PathBuf};

use super::DocumentArguments;
use crate::adapter::{self, Adapter};
use crate::document::DocumentError;
use crate::scenario::{self, Scenario};

/// The two folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Folder of the scenarios.
    pub scenarios: PathBuf,
    /// Folder of the adapters.
    pub adapters: PathBuf,
}

/// Why the documents cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// No folder of that name.
    #[error("find the folder {name}: not in {}", tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NotFound {
        /// `scenarios` or `adapters`; also the name of the flag.
        name: &'static str,
        /// The folders that were tried.
        tried: Vec<PathBuf>,
    },
    /// Documents with mistakes.
    #[error("read {} invalid documents", .0.len())]
    Invalid(Vec<DocumentError>),
}

impl PlacesError {
    /// The whole story for a terminal.
    pub fn render(&self) -> String {
        match self {
            Self::NotFound { name, .. } => format!("error: {self}\nhelp: name it with --{name} DIR\n"),
            Self::Invalid(errors) => errors.iter().map(DocumentError::render).collect::<Vec<_>>().join("\n"),
        }
    }
}

impl Places {
    /// Finds both folders.
    ///
    /// # Errors
    /// [`PlacesError::NotFound`] with what was tried.
    pub fn find(arguments: &DocumentArguments) -> Result<Self, PlacesError> {
        let program = std::env::current_exe().unwrap_or_default();
        let working_directory = std::env::current_dir().unwrap_or_default();
        let find = |name, given: Option<&PathBuf>| match given {
            Some(folder) => Ok(folder.clone()),
            None => search(name, &working_directory, &program),
        };
        Ok(Self {
            scenarios: find("scenarios", arguments.scenarios.as_ref())?,
            adapters: find("adapters", arguments.adapters.as_ref())?,
        })
    }

    /// Reads every document, and shows all mistakes at once.
    ///
    /// # Errors
    /// [`PlacesError::Invalid`].
    pub fn load(&self) -> Result<(Vec<Scenario>, Vec<Adapter>), PlacesError> {
        match (scenario::load_all(&self.scenarios), adapter::load_all(&self.adapters)) {
            (Ok(scenarios), Ok(adapters)) => Ok((scenarios, adapters)),
            (scenarios, adapters) => {
                let errors = scenarios.err().into_iter().chain(adapters.err()).flatten();
                Err(PlacesError::Invalid(errors.collect()))
            }
        }
    }
}

fn search(name: &'static str, working_directory: &Path, program: &Path) -> Result<PathBuf, PlacesError> {
    let above = program.ancestors().skip(1);
    let below = above.flat_map(|folder| [folder.to_owned(), folder.join("share/shakedown")]);
    let tried: Vec<_> =
        std::iter::once(working_directory.to_owned()).chain(below).map(|folder| folder.join(name)).collect();
    let found = tried.iter().find(|folder| folder.is_dir()).cloned();
    found.ok_or(PlacesError::NotFound { name, tried })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_working_directory_comes_first_then_the_nearest_folder_above_the_program() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["work", "checkout/target/release", "prefix/bin", "prefix/share/shakedown/scenarios"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let built = at("checkout/target/release/shakedown");
        let error = search("scenarios", &at("work"), &built).unwrap_err();
        let head = format!("find the folder scenarios: not in {}", at("work/scenarios").display());
        assert!(error.to_string().starts_with(&head), "{error}");
        assert!(error.render().ends_with("help: name it with --scenarios DIR\n"));

        fs::create_dir(at("checkout/scenarios")).unwrap();
        assert_eq!(search("scenarios", &at("work"), &built).unwrap(), at("checkout/scenarios"));
        let installed = at("prefix/bin/shakedown");
        let found = search("scenarios", &at("work"), &installed).unwrap();
        assert_eq!(found, at("prefix/share/shakedown/scenarios"));

        fs::create_dir(at("work/scenarios")).unwrap();
        assert_eq!(search("scenarios", &at("work"), &built).unwrap(), at("work/scenarios"));
    }
}
