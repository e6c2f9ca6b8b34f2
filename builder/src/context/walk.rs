// SPDX-License-Identifier: Apache-2.0
//! Walks a tree: everything below a directory, or what a wildcard matches.
//!
//! One `openat2` per directory, one `statx` per entry, and no other call for an entry that is not a link. Directories
//! are read in the order of their names, parents first, which is the order of [`ImagePath`]. An entry that vanishes
//! between being listed and being looked at was never there, as in the reference.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::image::ImagePath;

use super::entry::{EntryKind, SourceEntry};
use super::error::ContextError;
use super::ignore::{IgnoreTrail, IgnoreVerdict};
use super::pattern::Pattern;
use super::stat::Metadata;
use super::tree::{Name, SourceTree, failed, read_link};

/// File systems of this machine, by `f_type`, whose change times tell every change: ext2 to ext4, XFS, Btrfs, F2FS,
/// ZFS, bcachefs, tmpfs, ramfs, overlay, JFS, NILFS, EROFS, SquashFS. On any other (FUSE and virtiofs, 9p, NFS, SMB,
/// Ceph, shared folders of virtual machines) somebody else may write, under a clock of his own: contents are hashed.
const LOCAL: [rustix::fs::FsWord; 13] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x2FC1_2FC1,
    0xCA45_1A4E,
    0x0102_1994,
    0x8584_58F6,
    0x794C_7630,
    0x3153_464A,
    0x3434,
    0xE0F5_E1E2,
    0x7371_7368,
];

/// One walk over a tree. Holds what it learns about the file systems it meets.
pub(crate) struct Walk<'tree> {
    tree: &'tree SourceTree,
    /// By `st_dev`: whether an unchanged stat means unchanged contents.
    local: HashMap<u64, bool>,
}

/// An entry with what only the selection needs to know of it.
pub(crate) struct Walked {
    pub(crate) entry: SourceEntry,
    pub(crate) links: u32,
}

impl<'tree> Walk<'tree> {
    pub(crate) fn new(tree: &'tree SourceTree) -> Self {
        Self { tree, local: HashMap::new() }
    }

    /// Whether the stat of a file on `device` can stand for its contents.
    pub(crate) fn trusts(&self, device: u64) -> bool {
        self.local.get(&device).copied().unwrap_or(false)
    }

    fn learn(&mut self, directory: &OwnedFd, device: u64) {
        self.local.entry(device).or_insert_with(|| {
            rustix::fs::fstatfs(directory.as_fd()).is_ok_and(|stat| LOCAL.contains(&stat.f_type))
        });
    }

    /// Learns about the file system of a single file, through the directory that holds it.
    pub(crate) fn learn_parent_of(&mut self, file: &ImagePath) -> Result<(), ContextError> {
        let parent = file.parent().unwrap_or_default();
        let (directory, metadata) = self.tree.open_directory(&parent).map_err(failed("open", &parent))?;
        self.learn(&directory, metadata.key.device);
        Ok(())
    }

    /// Appends everything below `directory` that is not ignored. `relative` is the directory's place below the source.
    pub(crate) fn below(
        &mut self,
        directory: &ImagePath,
        relative: &ImagePath,
        trail: &IgnoreTrail,
        out: &mut Vec<Walked>,
    ) -> Result<(), ContextError> {
        let (descriptor, names) =
            self.tree.read_directory(directory).map_err(failed("read directory", directory))?;
        let own = Metadata::of(&descriptor).map_err(failed("look at", directory))?;
        self.learn(&descriptor, own.key.device);
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let path = directory.child(name.os_str());
            let verdict = self.descend(trail, &path);
            if verdict.ignored && !matches!(name.file_type, FileType::Directory | FileType::Unknown) {
                continue;
            }
            let metadata = match Metadata::at(&descriptor, &name.name) {
                Ok(metadata) => metadata,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed("look at", &path)(errno)),
            };
            let is_directory = metadata.key.file_type() == FileType::Directory;
            if verdict.ignored && (!is_directory || self.may_skip(&path, &verdict)) {
                continue;
            }
            let target = match metadata.key.file_type() {
                FileType::Symlink => match read_link(&descriptor, &name.name) {
                    Ok(target) => Some(target),
                    Err(Errno::NOENT | Errno::INVAL) => continue,
                    Err(errno) => return Err(failed("read link", &path)(errno)),
                },
                _ => None,
            };
            let relative = relative.child(name.os_str());
            let walked = walked(self.tree, relative, path, &metadata, target);
            found.push((walked, is_directory.then_some(verdict)));
        }
        // Closed before descending: the depth of a tree must not be limited by the number of descriptors.
        drop(descriptor);
        for (walked, directory) in found {
            let Some(verdict) = directory else {
                out.push(walked);
                continue;
            };
            let (path, relative) = (walked.entry.path.clone(), walked.entry.relative.clone());
            let before = out.len();
            out.push(walked);
            match self.below(&path, &relative, &verdict.trail, out) {
                Ok(()) => {}
                Err(ContextError::Entry { path: failing, source, .. })
                    if failing == path && is_gone(&source, verdict.ignored) =>
                {
                    out.truncate(before);
                    continue;
                }
                Err(error) => return Err(error),
            }
            // An ignored directory is there only for the sake of what comes back below it.
            if verdict.ignored && out.len() == before + 1 {
                out.truncate(before);
            }
        }
        Ok(())
    }

    /// The paths below `base` that `pattern` matches, in order. Links are matched by their names and not walked through;
    /// nothing is looked for below a match (fsutil 6d9dc2e, `resolveWildcards`).
    pub(crate) fn matches(
        &mut self,
        base: &ImagePath,
        trail: &IgnoreTrail,
        pattern: &Pattern,
    ) -> Result<Vec<ImagePath>, ContextError> {
        let mut out = Vec::new();
        self.matches_below(base, &ImagePath::root(), trail, pattern, &mut out)?;
        Ok(out)
    }

    fn matches_below(
        &mut self,
        directory: &ImagePath,
        relative: &ImagePath,
        trail: &IgnoreTrail,
        pattern: &Pattern,
        out: &mut Vec<ImagePath>,
    ) -> Result<(), ContextError> {
        use std::os::unix::ffi::OsStrExt;
        let (descriptor, names) = match self.tree.read_directory(directory) {
            Ok(read) => read,
            // A file, or gone meanwhile: nothing matches below it.
            Err(Errno::NOTDIR | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("read directory", directory)(errno)),
        };
        let mut found = Vec::new();
        for name in names {
            let path = directory.child(name.os_str());
            let relative = relative.child(name.os_str());
            let matches = pattern.matches(relative.relative().as_bytes());
            if !matches && !pattern.can_match_below(relative.relative().as_bytes()) {
                continue;
            }
            let is_directory = match is_directory(&descriptor, &name) {
                Ok(is_directory) => is_directory,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed("look at", &path)(errno)),
            };
            let verdict = self.descend(trail, &path);
            if verdict.ignored && !is_directory {
                continue;
            }
            found.push((path, relative, matches, is_directory, verdict));
        }
        drop(descriptor);
        for (path, relative, matches, is_directory, verdict) in found {
            if matches {
                if self.is_visible(&path, &verdict)? {
                    out.push(path);
                }
            } else if is_directory && !self.may_skip(&path, &verdict) {
                self.matches_below(&path, &relative, &verdict.trail, pattern, out)?;
            }
        }
        Ok(())
    }

    /// Whether a path is there as far as the ignore rules go: not hidden, or a directory with something visible in it.
    pub(crate) fn is_visible(
        &mut self,
        path: &ImagePath,
        verdict: &IgnoreVerdict,
    ) -> Result<bool, ContextError> {
        if !verdict.ignored {
            return Ok(true);
        }
        if self.may_skip(path, verdict) {
            return Ok(false);
        }
        let mut found = Vec::new();
        self.below(path, &ImagePath::root(), &verdict.trail, &mut found)?;
        Ok(!found.is_empty())
    }

    fn descend(&self, trail: &IgnoreTrail, path: &ImagePath) -> IgnoreVerdict {
        self.tree.matcher().map(|matcher| matcher.descend(trail, path)).unwrap_or_default()
    }

    fn may_skip(&self, path: &ImagePath, verdict: &IgnoreVerdict) -> bool {
        self.tree.matcher().is_some_and(|matcher| matcher.may_skip(path, verdict))
    }
}

/// Whether a directory that was listed is gone now, or hidden and closed to us: then nobody asked for it.
fn is_gone(source: &std::io::Error, ignored: bool) -> bool {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::NotFound => true,
        ErrorKind::PermissionDenied => ignored,
        _ => false,
    }
}

fn is_directory(parent: &OwnedFd, name: &Name) -> Result<bool, Errno> {
    Ok(match name.file_type {
        FileType::Unknown => Metadata::at(parent, &name.name)?.key.file_type() == FileType::Directory,
        known => known == FileType::Directory,
    })
}

/// The entry that `metadata` describes; its digest, capability and links are filled in by the selection.
pub(crate) fn walked(
    tree: &SourceTree,
    relative: ImagePath,
    path: ImagePath,
    metadata: &Metadata,
    target: Option<std::ffi::OsString>,
) -> Walked {
    let key = metadata.key;
    let (major, minor) = (metadata.device_major, metadata.device_minor);
    let kind = match (key.file_type(), target) {
        (FileType::Symlink, Some(target)) => EntryKind::Symlink { target },
        (FileType::Directory, _) => EntryKind::Directory,
        (FileType::Fifo, _) => EntryKind::Fifo,
        (FileType::CharacterDevice, _) => EntryKind::CharDevice { major, minor },
        (FileType::BlockDevice, _) => EntryKind::BlockDevice { major, minor },
        (FileType::Socket, _) => EntryKind::File { size_bytes: 0 },
        _ => EntryKind::File { size_bytes: key.size_bytes },
    };
    let own = |id| if tree.is_build_context() { 0 } else { id };
    let entry = SourceEntry {
        relative,
        path,
        mode: if matches!(kind, EntryKind::Symlink { .. }) { 0o777 } else { key.mode & 0o7777 },
        kind,
        uid: own(key.uid),
        gid: own(key.gid),
        mtime_s: key.mtime.seconds,
        capability: None,
        hardlink_group: None,
        digest: None,
        stat: key,
    };
    Walked { entry, links: metadata.links }
}
