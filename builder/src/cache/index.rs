// SPDX-License-Identifier: Apache-2.0
//! The local index from step keys to results: one symbolic link per key, whose target is the record itself.
//!
//! A symbolic link is made and replaced atomically, read in one system call and shared by processes without a lock.
//! The index may be behind or ahead of containerd: a record whose snapshot is gone is dropped by whoever notices.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::StepKey;
use crate::image::{ChainId, DiffId, Digest};

/// What a step led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRecord {
    /// The snapshot that holds the result.
    pub chain: ChainId,
    /// The layer that the step added.
    pub diff_id: DiffId,
    /// The layer's uncompressed size.
    pub size_bytes: u64,
    /// When the step was executed, in seconds since the epoch; it goes into the image's history.
    pub created_s: i64,
    /// The boot in which the layer was written or last found whole.
    pub boot: BootId,
}

/// Tells one boot of this machine from another.
///
/// The files of a layer are not synced when they are written, so what a layer holds after a power cut is only known
/// once it has been hashed again. A record of another boot says that this is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId(u64);

impl BootId {
    /// The id that stands for the kernel's `boot_id` text.
    pub fn of(text: &str) -> Self {
        let hash = blake3::hash(text.trim().as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Self(u64::from_le_bytes(first))
    }

    /// Reads an id as [`fmt::Display`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// The index could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct IndexError {
    /// What was tried.
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: std::io::Error,
}

/// `1 <chain hex> <diff hex> <size> <created> <boot>`: the leading number is the format's version.
const FORMAT_VERSION: &str = "1";

impl fmt::Display for StepRecord {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, diff_id, size_bytes, created_s, boot } = self;
        let (chain, diff_id) = (chain.0.hex(), diff_id.0.hex());
        write!(out, "{FORMAT_VERSION} {chain} {diff_id} {size_bytes} {created_s} {boot}")
    }
}

impl StepRecord {
    /// Reads what [`fmt::Display`] wrote; `None` for a format that this version does not know.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let digest = |hex: &str| format!("sha256:{hex}").parse::<Digest>().ok();
        if parts.next()? != FORMAT_VERSION {
            return None;
        }
        let record = Self {
            chain: ChainId(digest(parts.next()?)?),
            diff_id: DiffId(digest(parts.next()?)?),
            size_bytes: parts.next()?.parse().ok()?,
            created_s: parts.next()?.parse().ok()?,
            boot: BootId::parse(parts.next()?)?,
        };
        parts.next().is_none().then_some(record)
    }
}

/// The index of one store.
#[derive(Debug, Clone)]
pub struct StepIndex {
    dir: PathBuf,
}

impl StepIndex {
    /// The index in `dir`, which need not exist yet.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Whether an index was ever written here. If not, the caller fills it from the labels of the snapshots.
    pub fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// The record of `key`, unless there is none or only one of another format.
    pub fn get(&self, key: StepKey) -> Option<StepRecord> {
        let target = std::fs::read_link(self.path(key)).ok()?;
        StepRecord::parse(target.to_str()?)
    }

    /// Sets the record of `key`.
    ///
    /// # Errors
    /// When the link can't be written.
    pub fn put(&self, key: StepKey, record: &StepRecord) -> Result<(), IndexError> {
        let path = self.path(key);
        let shard = path.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(shard).map_err(at("create directory", shard))?;
        // The process id keeps two builds apart that write the same key: the later rename wins, both are right.
        let mut temporary = path.clone().into_os_string();
        temporary.push(format!(".{}.{:?}", std::process::id(), std::thread::current().id()));
        let temporary = PathBuf::from(temporary);
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(at("remove", &temporary)(error));
            }
            _ => {}
        }
        std::os::unix::fs::symlink(record.to_string(), &temporary).map_err(at("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(at("write", &path))
    }

    /// Makes an empty index, so that [`Self::exists`] holds from now on.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn create(&self) -> Result<(), IndexError> {
        std::fs::create_dir_all(&self.dir).map_err(at("create directory", &self.dir))
    }

    /// Forgets `key`.
    ///
    /// # Errors
    /// When the link exists and can't be removed.
    pub fn remove(&self, key: StepKey) -> Result<(), IndexError> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Every readable record.
    ///
    /// # Errors
    /// When a directory of the index can't be listed.
    pub fn all(&self) -> Result<Vec<(StepKey, StepRecord)>, IndexError> {
        let mut found = Vec::new();
        for shard in list(&self.dir)? {
            for path in list(&shard)? {
                let key = path.file_name().map(OsStr::as_bytes).map(String::from_utf8_lossy);
                let (Some(key), Ok(target)) = (key, std::fs::read_link(&path)) else { continue };
                let record = target.to_str().and_then(StepRecord::parse);
                if let (Ok(key), Some(record)) = (key.parse(), record) {
                    found.push((key, record));
                }
            }
        }
        Ok(found)
    }

    fn path(&self, key: StepKey) -> PathBuf {
        let name = key.to_string();
        self.dir.join(&name[..2]).join(name)
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, IndexError> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(at("list", dir)(error)),
    }
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> IndexError {
    let path = path.to_path_buf();
    move |source| IndexError { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KeyBuilder;

    fn record(size_bytes: u64) -> StepRecord {
        StepRecord {
            chain: ChainId(Digest::of(b"chain")),
            diff_id: DiffId(Digest::of(b"diff")),
            size_bytes,
            created_s: -5,
            boot: BootId::of("boot"),
        }
    }

    #[test]
    fn records_come_back_and_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let index = StepIndex::new(dir.path().join("steps"));
        let key = KeyBuilder::new("run", None).finish();
        assert!(!index.exists());
        assert_eq!(index.get(key), None);
        index.put(key, &record(1)).unwrap();
        index.put(key, &record(2)).unwrap();
        assert!(index.exists());
        assert_eq!(index.get(key), Some(record(2)));
        assert_eq!(index.all().unwrap(), [(key, record(2))]);
        index.remove(key).unwrap();
        index.remove(key).unwrap();
        assert_eq!(index.get(key), None);
    }

    #[test]
    fn other_formats_count_as_absent() {
        let good = record(3).to_string();
        assert_eq!(StepRecord::parse(&good), Some(record(3)));
        for bad in
            [String::new(), good.replacen('1', "2", 1), format!("{good} 1"), good.replace(" 3 ", " x ")]
        {
            assert_eq!(StepRecord::parse(&bad), None, "{bad}");
        }
    }
}
