// SPDX-License-Identifier: Apache-2.0
//! From all documents to those of one run. A name that nobody has is an error, not an empty selection.

use crate::adapter::Adapter;
use crate::scenario::Scenario;

use super::arguments::SelectionArguments;

/// The documents of one run.
#[derive(Debug)]
pub struct Selection {
    /// The scenarios, by id.
    pub scenarios: Vec<Scenario>,
    /// The adapters in the order of the columns.
    pub adapters: Vec<Adapter>,
}

/// A wrong selection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// No adapter has that name.
    #[error("select builder `{name}`: there is no such adapter (there are {})", known.join(", "))]
    NoSuchBuilder {
        /// The name given.
        name: String,
        /// The adapters there are.
        known: Vec<String>,
    },
    /// A name twice would plan every trial twice.
    #[error("select builder `{name}` twice")]
    Twice {
        /// The name given.
        name: String,
    },
}

impl Selection {
    /// Takes what the arguments ask for.
    ///
    /// # Errors
    /// [`SelectionError`]. An empty set of scenarios is no error here: the outcome says that nothing ran.
    pub fn of(
        scenarios: Vec<Scenario>,
        adapters: Vec<Adapter>,
        arguments: &SelectionArguments,
    ) -> Result<Self, SelectionError> {
        let matches = |scenario: &Scenario| match &arguments.filter {
            Some(text) => {
                scenario.id.value.as_str().contains(text.as_str())
                    || scenario.tags.iter().any(|tag| tag == text)
            }
            None => true,
        };
        let scenarios = scenarios.into_iter().filter(matches).collect();
        let adapters = choose(adapters, &arguments.builders, |adapter| &adapter.id.value)?;
        Ok(Self { scenarios, adapters })
    }
}

/// The named ones in the order of the names, or all with pushless, the reference of the comparisons, in front.
fn choose<T>(all: Vec<T>, names: &[String], name_of: impl Fn(&T) -> &str) -> Result<Vec<T>, SelectionError> {
    let mut all = all;
    if names.is_empty() {
        all.sort_by_key(|one| name_of(one) != "pushless");
        return Ok(all);
    }
    let known: Vec<String> = all.iter().map(|one| name_of(one).to_owned()).collect();
    let mut chosen = Vec::new();
    for name in names {
        match all.iter().position(|one| name_of(one) == name) {
            Some(place) => chosen.push(all.swap_remove(place)),
            None if known.contains(name) => return Err(SelectionError::Twice { name: name.clone() }),
            None => return Err(SelectionError::NoSuchBuilder { name: name.clone(), known }),
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_come_in_the_order_asked_for_and_the_reference_first_by_default() {
        let all = || vec!["buildah", "docker", "pushless"];
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let choose = |asked: &[&str]| choose(all(), &names(asked), |name| name);
        assert_eq!(choose(&[]).unwrap(), ["pushless", "buildah", "docker"]);
        assert_eq!(choose(&["docker", "buildah"]).unwrap(), ["docker", "buildah"]);
        assert_eq!(
            choose(&["kim"]).unwrap_err().to_string(),
            "select builder `kim`: there is no such adapter (there are buildah, docker, pushless)"
        );
        assert_eq!(choose(&["docker", "docker"]).unwrap_err().to_string(), "select builder `docker` twice");
    }
}
