// SPDX-License-Identifier: Apache-2.0
//! Reads files to digest them, on several threads when there is enough to read.
//!
//! A digest is only given out together with the stat it belongs to: the same before the first byte and after the last.

use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::entry::{ContentDigest, SourceEntry};
use super::error::ContextError;
use super::stat::StatKey;
use super::tree::{SourceTree, failed};

/// The largest value that the kernel writes for `security.capability` has 24 bytes (`VFS_CAP_REVISION_3`).
const CAPABILITY_LIMIT_BYTES: usize = 64;
/// How often a file that changes under the reader's hands is begun again.
const ATTEMPTS: usize = 5;
/// Beyond this many the disk is the limit.
const THREADS: usize = 8;
/// Fewer files, or fewer bytes, than these are done before a thread has started.
const ALONE_FILES: usize = 32;
const ALONE_BYTES: u64 = 512 * 1024;
const BUFFER_BYTES: usize = 128 * 1024;

/// What was found in a file.
pub(crate) struct Hashed {
    pub(crate) digest: ContentDigest,
    pub(crate) capability: Option<Vec<u8>>,
    pub(crate) stat: StatKey,
}

/// Digests `entries`, all of them files; `None` for one that is gone. Of several errors the first entry's is returned.
pub(crate) fn hash_files(
    tree: &SourceTree,
    entries: &[&mut SourceEntry],
) -> Result<Vec<Option<Hashed>>, ContextError> {
    let bytes: u64 = entries.iter().map(|entry| entry.stat.size_bytes).sum();
    let alone = entries.len() < ALONE_FILES && (entries.len() < 2 || bytes < ALONE_BYTES);
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS).min(entries.len());
    if alone || threads < 2 {
        let mut buffer = vec![0; BUFFER_BYTES];
        return entries.iter().map(|entry| hash_file(tree, entry, &mut buffer)).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(entries.len()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; BUFFER_BYTES];
                let mut mine = Vec::new();
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(entry) = entries.get(index)
                {
                    let hashed = hash_file(tree, entry, &mut buffer);
                    if hashed.is_err() {
                        // Nobody begins another file; those below this one are begun already.
                        next.store(entries.len(), Ordering::Relaxed);
                    }
                    mine.push((index, hashed));
                }
                done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(&mut mine);
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, hashed)| hashed).collect()
}

fn hash_file(
    tree: &SourceTree,
    entry: &SourceEntry,
    buffer: &mut [u8],
) -> Result<Option<Hashed>, ContextError> {
    let path = &entry.path;
    if entry.is_socket() {
        let digest = ContentDigest(*blake3::hash(b"").as_bytes());
        return Ok(Some(Hashed { digest, capability: None, stat: entry.stat }));
    }
    let file: File = match tree.open_file(path) {
        Ok(file) => file.into(),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(failed("open", path)(errno)),
    };
    let mut before = StatKey::of(&file).map_err(failed("look at", path))?;
    for _ in 0..ATTEMPTS {
        if before.file_type() != FileType::RegularFile {
            break;
        }
        let digest = contents(&file, buffer).map_err(|source| ContextError::Entry {
            operation: "read",
            path: path.clone(),
            source,
        })?;
        let capability = capability(&file).map_err(failed("read security.capability of", path))?;
        let after = StatKey::of(&file).map_err(failed("look at", path))?;
        if before == after {
            return Ok(Some(Hashed { digest, capability, stat: after }));
        }
        before = after;
    }
    Err(ContextError::Changing { path: path.clone() })
}

fn contents(file: &File, buffer: &mut [u8]) -> std::io::Result<ContentDigest> {
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    loop {
        match file.read_at(buffer, offset) {
            Ok(0) => return Ok(ContentDigest(*hasher.finalize().as_bytes())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The file's capabilities. Asked of every file that is read, whether executable or not: the descriptor is open, and
/// setting one moves the change time, so that the answer can be kept with the digest.
fn capability(file: &File) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = Vec::with_capacity(CAPABILITY_LIMIT_BYTES);
    match rustix::fs::fgetxattr(file, c"security.capability", rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
