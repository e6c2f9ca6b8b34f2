// SPDX-License-Identifier: Apache-2.0
//! From the sources of a `COPY` to the entries that it copies.
//!
//! The rules are BuildKit's (73ed6825, with fsutil 6d9dc2e): a source is cleaned into the root, so `..` leads nowhere; a
//! trailing slash says nothing; a link that *is* the source is followed, links below a directory stay links; a directory
//! means its contents. Components before the first one with a wildcard are taken literally, backslashes included. A
//! wildcard may match nothing; what is named without one must be there.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;

use crate::image::ImagePath;

use super::entry::{EntryKind, HardlinkGroup, SelectedSource, SourceEntry, SourceKind};
use super::error::ContextError;
use super::hash::{Hashed, hash_files};
use super::pattern::Pattern;
use super::stat_cache::StatCache;
use super::tree::SourceTree;
use super::walk::{Walk, Walked, walked};

/// Says what `COPY sources… destination` takes from `tree`: one [`SelectedSource`] per source, or per match of a
/// wildcard, in the order of the instruction, matches sorted.
///
/// Contents are read only for files that `cache` does not know unchanged; the cache learns them, and is not saved. This
/// blocks, on several threads when much has to be hashed: call it from a blocking thread.
///
/// # Errors
/// [`ContextError::NotFound`] for a source without wildcards (or the part of one before its first wildcard) that is not
/// there, [`ContextError::SourcePattern`] for a malformed one, and what the kernel refuses.
pub fn select<S: AsRef<OsStr>>(
    tree: &SourceTree,
    sources: &[S],
    cache: &StatCache,
) -> Result<Vec<SelectedSource>, ContextError> {
    let mut walk = Walk::new(tree);
    let mut selected = Vec::new();
    let mut groups = 0;
    for source in sources {
        for path in expand(tree, &mut walk, source.as_ref())? {
            let (kind, found) = take(tree, &mut walk, &path)?;
            selected.push(SelectedSource {
                pattern: source.as_ref().to_owned(),
                base_name: path.file_name().unwrap_or_default().to_owned(),
                kind,
                entries: link(found, &mut groups),
            });
        }
    }
    digest(tree, &walk, cache, &mut selected)?;
    for source in &mut selected {
        // A file that vanished between the walk and its hash was never there; nobody named it.
        source
            .entries
            .retain(|entry| !matches!(entry.kind, EntryKind::File { .. }) || entry.digest.is_some());
        if source.entries.is_empty() {
            return Err(ContextError::NotFound { path: ImagePath::new(&source.pattern), ignored_by: None });
        }
    }
    Ok(selected)
}

/// The paths that one source names; the last component of each may be a link.
fn expand(tree: &SourceTree, walk: &mut Walk<'_>, source: &OsStr) -> Result<Vec<ImagePath>, ContextError> {
    let wanted = ImagePath::new(source);
    let components: Vec<&OsStr> = wanted.components().collect();
    let Some(first) = components.iter().position(|name| Pattern::is_wildcard(name.as_bytes())) else {
        return Ok(vec![wanted]);
    };
    let tail: Vec<&[u8]> = components[first..].iter().map(|name| name.as_bytes()).collect();
    let pattern = Pattern::glob(&tail.join(&b'/'))?;
    let base = components[..first].iter().fold(ImagePath::root(), |base, name| base.child(name));
    let resolved = tree.resolve(&base)?;
    if !walk.is_visible(&resolved.path, &resolved.verdict)? {
        return Err(ContextError::NotFound { path: base, ignored_by: tree.ignored_by(&resolved.path) });
    }
    walk.matches(&resolved.path, &resolved.verdict.trail, &pattern)
}

/// What lies at `wanted`, with everything below it.
fn take(
    tree: &SourceTree,
    walk: &mut Walk<'_>,
    wanted: &ImagePath,
) -> Result<(SourceKind, Vec<Walked>), ContextError> {
    let resolved = tree.resolve(wanted)?;
    let hidden = resolved.verdict.ignored;
    let mut found = vec![walked(tree, ImagePath::root(), resolved.path.clone(), &resolved.metadata, None)];
    let is_directory = resolved.metadata.key.file_type() == FileType::Directory;
    if is_directory {
        walk.below(&resolved.path, &ImagePath::root(), &resolved.verdict.trail, &mut found)?;
    } else {
        walk.learn_parent_of(&resolved.path)?;
    }
    if hidden && found.len() == 1 {
        return Err(ContextError::NotFound {
            path: wanted.clone(),
            ignored_by: tree.ignored_by(&resolved.path),
        });
    }
    Ok((if is_directory { SourceKind::Directory } else { SourceKind::File }, found))
}

/// Finds the entries that are one file. As in the reference this ends at the source: what two sources of one
/// instruction share is copied twice.
fn link(found: Vec<Walked>, groups: &mut u32) -> Vec<SourceEntry> {
    let shared = |walked: &Walked| {
        let stat = &walked.entry.stat;
        (walked.links > 1 && stat.file_type() == FileType::RegularFile).then_some((stat.device, stat.inode))
    };
    let mut names: HashMap<(u64, u64), (u32, Option<HardlinkGroup>)> = HashMap::new();
    for file in found.iter().filter_map(shared) {
        names.entry(file).or_default().0 += 1;
    }
    found
        .into_iter()
        .map(|mut walked| {
            if let Some((2.., group)) = shared(&walked).and_then(|file| names.get_mut(&file)) {
                walked.entry.hardlink_group = Some(*group.get_or_insert_with(|| {
                    let group = HardlinkGroup(*groups);
                    *groups += 1;
                    group
                }));
            }
            walked.entry
        })
        .collect()
}

/// Fills in the digest and the capability of every file: from the cache, or from its contents.
fn digest(
    tree: &SourceTree,
    walk: &Walk<'_>,
    cache: &StatCache,
    selected: &mut [SelectedSource],
) -> Result<(), ContextError> {
    let mut unknown = Vec::new();
    {
        let mut known = cache.lock();
        for entry in selected.iter_mut().flat_map(|source| &mut source.entries) {
            if !matches!(entry.kind, EntryKind::File { .. }) {
                continue;
            }
            let record =
                if walk.trusts(entry.stat.device) { known.lookup(&entry.path, &entry.stat) } else { None };
            match record {
                Some(record) => {
                    entry.digest = Some(record.digest);
                    entry.capability = record.capability.as_deref().map(<[u8]>::to_vec);
                }
                None => unknown.push(entry),
            }
        }
    }
    // Taken before the first byte is read: what is written from here on gets a later change time, or a racy one.
    let moment = cache.now();
    let hashed = hash_files(tree, &unknown)?;
    let mut known = cache.lock();
    for (entry, hashed) in unknown.into_iter().zip(hashed) {
        let Some(Hashed { digest, capability, stat }) = hashed else { continue };
        entry.digest = Some(digest);
        entry.capability = capability;
        if entry.is_socket() {
            continue;
        }
        // The file may have been written to since the walk: the digest belongs to what is there now.
        entry.kind = EntryKind::File { size_bytes: stat.size_bytes };
        entry.mode = stat.mode & 0o7777;
        entry.mtime_s = stat.mtime.seconds;
        if !tree.is_build_context() {
            (entry.uid, entry.gid) = (stat.uid, stat.gid);
        }
        entry.stat = stat;
        if walk.trusts(stat.device) {
            known.record(&entry.path, stat, digest, entry.capability.as_deref(), moment);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
