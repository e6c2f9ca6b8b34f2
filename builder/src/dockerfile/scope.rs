// SPDX-License-Identifier: Apache-2.0
//! The variables that a stage sees while it is built, and what of them goes into the image.
//!
//! Two lists are kept apart. The *build environment* holds ENV and ARG alike and the last writer wins, as BuildKit
//! behaves: `ENV a=1` then `ARG a=2` shows 2 to a later RUN (its documentation says that ENV always wins). The *image
//! environment* holds ENV only. Values of ARGs never reach it.

use std::collections::BTreeMap;

use super::ast::{ArgDeclaration, Word};
use super::expand::{ExpandError, expand, expand_words};

/// What RUN finds in `PATH` when neither the base image nor the Dockerfile sets it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Build arguments that need no ARG: RUN sees them, while image, history and cache keys do not.
const PROXY_ARGS: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Whether `name` is a proxy argument, in capitals or small letters, which may be given without an ARG.
pub fn is_proxy_arg(name: &str) -> bool {
    PROXY_ARGS.iter().any(|known| name == *known || name == known.to_ascii_lowercase())
}

/// The variables of one stage. A stage that starts from another one continues with a clone of its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// ENV, names unique, in the order of first appearance.
    image_env: Vec<(String, String)>,
    /// ENV and ARG, names unique, in the order of first appearance.
    build_env: Vec<(String, String)>,
    /// The ARGs declared so far, names unique, with the value that each declaration gave.
    declared: Vec<(String, Option<String>)>,
    global_args: BTreeMap<String, String>,
    build_args: BTreeMap<String, String>,
    escape: char,
}

impl Scope {
    /// The scope at the start of a stage. `base_env` holds the `K=V` lines of the base image's config (nothing for
    /// scratch), `global_args` those of the plan (platform arguments included), `build_args` those of the command line.
    pub fn new(
        base_env: &[String],
        global_args: &BTreeMap<String, String>,
        build_args: &BTreeMap<String, String>,
        escape: char,
    ) -> Self {
        let mut env = Vec::new();
        for line in base_env {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            assign(&mut env, name, value.to_owned());
        }
        Self {
            image_env: env.clone(),
            build_env: env,
            declared: Vec::new(),
            global_args: global_args.clone(),
            build_args: build_args.clone(),
            escape,
        }
    }

    /// Applies a whole ARG instruction and returns the names with the values they got, for history.
    ///
    /// A default may refer to the arguments before it in the same instruction. It is not looked at when the command
    /// line gives a value, so one that would fail does no harm then.
    ///
    /// # Errors
    ///
    /// A default that cannot be expanded.
    pub fn apply_arg(
        &mut self,
        declarations: &[ArgDeclaration],
    ) -> Result<Vec<(String, Option<String>)>, ExpandError> {
        declarations
            .iter()
            .map(|declaration| {
                let default = match &declaration.default {
                    Some(default) if !self.build_args.contains_key(&declaration.name) => {
                        Some(self.expand(default)?)
                    }
                    _ => None,
                };
                let value = self.declare_arg(&declaration.name, default);
                Ok((declaration.name.clone(), value))
            })
            .collect()
    }

    /// Applies a whole ENV instruction and returns the expanded pairs, for history. Every name and value sees the
    /// environment as it was before the instruction.
    ///
    /// # Errors
    ///
    /// A name or value that cannot be expanded; nothing is changed then.
    pub fn apply_env(&mut self, pairs: &[(Word, Word)]) -> Result<Vec<(String, String)>, ExpandError> {
        let pairs = self.expand_pairs(pairs)?;
        for (name, value) in &pairs {
            self.set_env(name, value);
        }
        Ok(pairs)
    }

    /// Expands the pairs of a LABEL.
    ///
    /// # Errors
    ///
    /// A name or value that cannot be expanded.
    pub fn expand_pairs(&self, pairs: &[(Word, Word)]) -> Result<Vec<(String, String)>, ExpandError> {
        pairs.iter().map(|(name, value)| Ok((self.expand(name)?, self.expand(value)?))).collect()
    }

    /// Expands a word with the variables in scope.
    ///
    /// # Errors
    ///
    /// Those of [`expand`].
    pub fn expand(&self, word: &Word) -> Result<String, ExpandError> {
        expand(word, self.escape, &|name| self.lookup(name).map(str::to_owned))
    }

    /// Expands a word of EXPOSE, which may become several or none.
    ///
    /// # Errors
    ///
    /// Those of [`expand_words`].
    pub fn expand_words(&self, word: &Word) -> Result<Vec<String>, ExpandError> {
        expand_words(word, self.escape, &|name| self.lookup(name).map(str::to_owned))
    }

    /// Declares an argument and returns the value it got: the command line's, else `default` (already expanded), else
    /// the global one. Without any it stays what it was: a bare ARG does not unset an ENV.
    pub fn declare_arg(&mut self, name: &str, default: Option<String>) -> Option<String> {
        let value =
            self.build_args.get(name).cloned().or(default).or_else(|| self.global_args.get(name).cloned());
        if let Some(value) = &value {
            assign(&mut self.build_env, name, value.clone());
        }
        assign(&mut self.declared, name, value.clone());
        value
    }

    /// Sets an ENV variable.
    pub fn set_env(&mut self, name: &str, value: &str) {
        assign(&mut self.image_env, name, value.to_owned());
        assign(&mut self.build_env, name, value.to_owned());
    }

    /// The value that expansion sees.
    pub fn lookup(&self, name: &str) -> Option<&str> {
        get(&self.build_env, name)
    }

    /// The environment for the image config: ENV only. A replaced variable keeps its position.
    pub fn env(&self) -> &[(String, String)] {
        &self.image_env
    }

    /// The environment of a RUN: ENV, ARG and a `PATH` if there is none. Proxy arguments are apart, see
    /// [`Scope::proxy_env`], for they belong to no cache key.
    pub fn run_env(&self) -> Vec<(String, String)> {
        let mut env = self.build_env.clone();
        if self.lookup("PATH").is_none() {
            env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        env
    }

    /// The proxy variables that a RUN gets on top of [`Scope::run_env`]: those of the command line, in capitals and in
    /// small letters, except where the stage sets the variable itself.
    pub fn proxy_env(&self) -> Vec<(String, String)> {
        let mut env = Vec::new();
        for name in PROXY_ARGS {
            let lower = name.to_ascii_lowercase();
            let Some(value) = self.build_args.get(name).or_else(|| self.build_args.get(&lower)) else {
                continue;
            };
            for spelling in [name.to_owned(), lower] {
                if self.lookup(&spelling).is_none() {
                    env.push((spelling, value.clone()));
                }
            }
        }
        env
    }

    /// The arguments for the `|N k=v` prefix of RUN in history: each declared one, first position kept, with the value
    /// that is in force; empty when it has none.
    pub fn history_args(&self) -> Vec<(String, String)> {
        self.declared
            .iter()
            .map(|(name, value)| {
                let value = self.lookup(name).or(value.as_deref()).unwrap_or_default();
                (name.clone(), value.to_owned())
            })
            .collect()
    }
}

fn get<'a>(list: &'a [(String, String)], name: &str) -> Option<&'a str> {
    list.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn assign<V>(list: &mut Vec<(String, V)>, name: &str, value: V) {
    match list.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => list.push((name.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests;
