// SPDX-License-Identifier: Apache-2.0
//! The record of what builds led to: per image name, the chains that each build used, newest last.
//!
//! Pruning keeps the newest results of every name, so the record decides what is cheap to go back to. It is written
//! only when a build led to something else than the one before it: a rebuild without a change writes nothing.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::image::{ChainId, Digest};

/// One build's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildResult {
    /// Format version, 1.
    version: u32,
    /// The full image name that was built.
    pub name: String,
    /// The manifest, if the build came that far; a failed build keeps its finished steps for the next try.
    pub manifest: Option<Digest>,
    /// The top of every stage that took part, bases included by their descendants. Sorted, without repeats.
    pub chains: Vec<ChainId>,
    /// When it was recorded, in nanoseconds since the epoch; also its identity within the name.
    #[serde(default)]
    pub recorded_ns: u64,
}

impl BuildResult {
    /// The outcome of a build of `name`, not yet recorded.
    pub fn new(name: String, manifest: Option<Digest>, mut chains: Vec<ChainId>) -> Self {
        chains.sort_unstable();
        chains.dedup();
        Self { version: 1, name, manifest, chains, recorded_ns: 0 }
    }

    fn same_outcome(&self, other: &Self) -> bool {
        self.manifest == other.manifest && self.chains == other.chains
    }
}

/// The record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct ResultsError {
    /// What was tried.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: std::io::Error,
}

/// The results of one store, a directory per image name.
#[derive(Debug, Clone)]
pub struct ResultLog {
    dir: PathBuf,
}

impl ResultLog {
    /// The record in `dir`, which need not exist yet.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Adds `result` unless the newest one of its name is the same; an older equal one is replaced. Says whether
    /// anything was written.
    ///
    /// # Errors
    /// When the directory can't be read or written.
    pub fn record(&self, mut result: BuildResult) -> Result<bool, ResultsError> {
        let dir = self.name_dir(&result.name);
        let earlier = read_dir(&dir)?;
        if earlier.last().is_some_and(|newest| newest.same_outcome(&result)) {
            return Ok(false);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let newest = earlier.last().map_or(0, |newest| newest.recorded_ns);
        // Never older than the newest one, whatever the clock did meanwhile.
        result.recorded_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(newest + 1);
        std::fs::create_dir_all(&dir).map_err(at("create directory", &dir))?;
        let path = dir.join(file_name(result.recorded_ns));
        let temporary = dir.join(format!(".{}", std::process::id()));
        let text = serde_json::to_vec(&result).map_err(|error| at("write", &path)(error.into()))?;
        std::fs::write(&temporary, text).map_err(at("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(at("write", &path))?;
        for same in earlier.iter().filter(|earlier| earlier.same_outcome(&result)) {
            self.remove(same)?;
        }
        Ok(true)
    }

    /// Every result of every name, oldest first.
    ///
    /// # Errors
    /// When a directory can't be read.
    pub fn all(&self) -> Result<Vec<BuildResult>, ResultsError> {
        let mut found = Vec::new();
        for name in list(&self.dir)? {
            found.extend(read_dir(&name)?);
        }
        found.sort_by_key(|result| result.recorded_ns);
        Ok(found)
    }

    /// How many results `name` has.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn count(&self, name: &str) -> Result<usize, ResultsError> {
        Ok(list(&self.name_dir(name))?.len())
    }

    /// Forgets one result.
    ///
    /// # Errors
    /// When its file exists and can't be removed.
    pub fn remove(&self, result: &BuildResult) -> Result<(), ResultsError> {
        let dir = self.name_dir(&result.name);
        let path = dir.join(file_name(result.recorded_ns));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(at("remove", &path)(error));
            }
            _ => {}
        }
        // Only the last result's removal empties the directory; every other time this fails, as it should.
        let _ = std::fs::remove_dir(&dir);
        Ok(())
    }

    fn name_dir(&self, name: &str) -> PathBuf {
        self.dir.join(&blake3::hash(name.as_bytes()).to_hex()[..16])
    }
}

fn file_name(recorded_ns: u64) -> String {
    format!("{recorded_ns:020}")
}

/// The results of one name, oldest first. A file of another format is passed over: it is no result of this version.
fn read_dir(dir: &Path) -> Result<Vec<BuildResult>, ResultsError> {
    let mut found = Vec::new();
    for path in list(dir)? {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at("read", &path)(error)),
        };
        match serde_json::from_slice::<BuildResult>(&text) {
            Ok(result) if result.version == 1 => found.push(result),
            Ok(_) => {}
            Err(error) => tracing::debug!(path = %path.display(), %error, "pass over an unreadable result"),
        }
    }
    found.sort_by_key(|result| result.recorded_ns);
    Ok(found)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, ResultsError> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .flatten()
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
            .map(|entry| entry.path())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(at("list", dir)(error)),
    }
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ResultsError {
    let path = path.to_path_buf();
    move |source| ResultsError { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, number: u8) -> BuildResult {
        let digest = Digest::of(&[number]);
        BuildResult::new(name.to_owned(), Some(digest), vec![ChainId(digest), ChainId(digest)])
    }

    #[test]
    fn an_unchanged_rebuild_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::new(dir.path().join("results"));
        assert!(log.record(result("a", 1)).unwrap());
        assert!(!log.record(result("a", 1)).unwrap());
        assert!(log.record(result("a", 2)).unwrap());
        assert!(log.record(result("b", 1)).unwrap());
        assert_eq!(log.count("a").unwrap(), 2);
        assert_eq!(log.all().unwrap().len(), 3);
    }

    #[test]
    fn going_back_makes_an_old_result_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::new(dir.path().to_path_buf());
        for number in [1, 2, 1] {
            assert!(log.record(result("a", number)).unwrap());
        }
        let kept: Vec<_> = log.all().unwrap().into_iter().map(|result| result.manifest).collect();
        assert_eq!(kept, [Some(Digest::of(&[2])), Some(Digest::of(&[1]))]);
    }

    #[test]
    fn removing_the_last_result_removes_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::new(dir.path().to_path_buf());
        log.record(result("a", 1)).unwrap();
        let recorded = log.all().unwrap();
        log.remove(&recorded[0]).unwrap();
        log.remove(&recorded[0]).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
