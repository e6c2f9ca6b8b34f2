// SPDX-License-Identifier: Apache-2.0
//! Remembers the digests of files that have not changed since they were hashed.
//!
//! A record counts when everything in [`StatKey`] is equal *and* the file was hashed at least [`RACY_WINDOW`] after its
//! last change: a second change within the granularity of the clock would leave the same change time behind. The
//! records of one root are one file below the state directory, replaced as a whole by a rename; of two builds at the
//! same time the later one's is kept. A file that cannot be read, or has another version, is as good as none.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::image::ImagePath;

use super::entry::ContentDigest;
use super::error::ContextError;
use super::stat::{StatKey, Timestamp};
use super::stat_cache_file::{decode, encode};

/// A record is trusted when at least this much time passed from the file's last change to the moment of hashing.
/// Covers every file system's granularity (FAT's is the coarsest) and the kernel's coarse clock.
pub const RACY_WINDOW: Duration = Duration::from_secs(2);
/// A record of a file that no build asked for in this time is dropped when the cache is written anyway.
const KEPT_UNSEEN_S: i64 = 14 * 24 * 60 * 60;
/// A build that changed nothing writes nothing. Files that were hashed once more only because their record was racy are
/// worth a write when there are this many of them, or this many bytes.
const REFRESHED_FILES: usize = 64;
const REFRESHED_BYTES: u64 = 1024 * 1024;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now, by the clock that the kernel stamps files with.
    fn now(&self) -> Timestamp;
}

/// The kernel's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 makes every record racy, and that is what it should.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: since.as_secs().cast_signed(), nanoseconds: since.subsec_nanos() }
    }
}

/// The digests known for one root. Shared by the stages of a build.
pub struct StatCache {
    /// `None`: nothing is remembered.
    file: Option<PathBuf>,
    clock: Box<dyn Clock>,
    state: Mutex<Records>,
}

/// What is known, while the cache is locked.
#[derive(Debug, Default)]
pub(crate) struct Records {
    records: HashMap<Box<[u8]>, Record>,
    enabled: bool,
    /// Something differs from the file.
    changed: bool,
    refreshed_files: usize,
    refreshed_bytes: u64,
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: StatKey,
    pub(crate) hashed_at: Timestamp,
    pub(crate) digest: ContentDigest,
    pub(crate) capability: Option<Box<[u8]>>,
    /// Asked for by this process; not in the file.
    pub(crate) seen: bool,
}

impl StatCache {
    /// The records of the tree at `root` (as [`super::SourceTree::path`] has it), kept below `state_directory`.
    pub fn open(state_directory: &Path, root: &Path, clock: Box<dyn Clock>) -> Self {
        let name = blake3::hash(root.as_os_str().as_bytes()).to_hex();
        let file = state_directory.join("stat-cache").join(name.as_str());
        let records = match std::fs::read(&file) {
            Ok(bytes) => decode(&bytes).unwrap_or_else(|problem| {
                tracing::debug!(file = %file.display(), %problem, "stat cache is not usable, starting anew");
                HashMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(file = %file.display(), %error, "stat cache cannot be read, starting anew");
                }
                HashMap::new()
            }
        };
        let state = Mutex::new(Records { records, enabled: true, ..Records::default() });
        Self { file: Some(file), clock, state }
    }

    /// A cache that knows nothing and learns nothing.
    pub fn disabled() -> Self {
        Self { file: None, clock: Box::new(SystemClock), state: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Records are whole at every moment, so a panic elsewhere does no harm to them.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Records> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the records if it is worth it; says whether it did.
    ///
    /// Without a sync: should the machine go down, the checksum of the file tells, and the next build hashes again.
    ///
    /// # Errors
    /// [`ContextError::WriteStatCache`]. The build is right all the same.
    pub fn save(&self) -> Result<bool, ContextError> {
        let Some(path) = &self.file else { return Ok(false) };
        let mut state = self.lock();
        let refreshed = state.refreshed_files >= REFRESHED_FILES || state.refreshed_bytes >= REFRESHED_BYTES;
        if !state.changed && !refreshed {
            return Ok(false);
        }
        let oldest = self.now().seconds - KEPT_UNSEEN_S;
        state.records.retain(|_, record| record.seen || record.hashed_at.seconds >= oldest);
        let failed = |source| ContextError::WriteStatCache { path: path.clone(), source };
        write(path, &encode(&state.records)).map_err(failed)?;
        state.changed = false;
        (state.refreshed_files, state.refreshed_bytes) = (0, 0);
        Ok(true)
    }
}

impl fmt::Debug for StatCache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StatCache").field("file", &self.file).finish_non_exhaustive()
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

impl Records {
    /// What is known of the file at `path`, if its stat is still `key` and the record is not racy.
    pub(crate) fn lookup(&mut self, path: &ImagePath, key: &StatKey) -> Option<&Record> {
        let record = self.records.get_mut(path.relative().as_bytes())?;
        record.seen = true;
        (record.key == *key && !record.is_racy()).then_some(&*record)
    }

    /// Remembers what was read at `path` by a reader that began at `hashed_at`.
    pub(crate) fn record(
        &mut self,
        path: &ImagePath,
        key: StatKey,
        digest: ContentDigest,
        capability: Option<&[u8]>,
        hashed_at: Timestamp,
    ) {
        if !self.enabled {
            return;
        }
        let record = Record { key, hashed_at, digest, capability: capability.map(Box::from), seen: true };
        let old = self.records.get(path.relative().as_bytes());
        if old.is_some_and(|old| Record { hashed_at, seen: true, ..old.clone() } == record) {
            self.refreshed_files += 1;
            self.refreshed_bytes += key.size_bytes;
        } else {
            self.changed = true;
        }
        self.records.insert(path.relative().as_bytes().into(), record);
    }
}

impl Record {
    fn is_racy(&self) -> bool {
        let window_s = RACY_WINDOW.as_secs().cast_signed();
        let safe = Timestamp { seconds: self.key.ctime.seconds.saturating_add(window_s), ..self.key.ctime };
        self.hashed_at < safe
    }
}

#[cfg(test)]
mod tests;
