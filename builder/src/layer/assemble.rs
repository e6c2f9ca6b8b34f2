// SPDX-License-Identifier: Apache-2.0
//! A layer from a list of entries: onto disk and into the tar stream in one pass.
//!
//! Each byte is read once. What is written to disk carries exactly the values of the stream, so [`super::diff`] of the
//! directory gives the same stream again; a property test holds the two together.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid, makedev};

use super::beneath;
use super::entry::{Content, LayerEntry};
use super::error::{LayerError, upper};
use super::metadata::{EntryKind, Metadata, Stat};
use super::normalise::{only_mtime, settle_root};
use super::sink::{LayerDigest, LayerSink};
use super::tar::{CopyError, Member, TarWriter};
use super::upper::refuse_whiteout_name;
use super::view::View;
use super::xattr::Subject;
use crate::image::ImagePath;

/// `chown` takes this number as "leave it as it is", so it is nobody's.
const NO_ID: u32 = u32::MAX;

/// Writes `entries`, sorted by path and each path once, into the empty directory `upper_root` and their tar stream to
/// `sink`.
///
/// A directory above an entry that is not in the list is made with the metadata of the parents' directory, whose time
/// keeps its fraction of a second, or with `new_directories` where the parents have none. A directory that is equal to
/// the parents' is made but is no member of the stream. A type may replace another one: an entry that is a directory
/// hides a file of the parents and the other way round; only a directory on a directory merges.
///
/// An entry for the root must be a directory and is otherwise without effect: no unpacker applies metadata to the
/// root. It becomes what [`super::normalise`] makes of it.
///
/// # Errors
/// Entries that no layer can hold, sources and directories that cannot be read or written, a failing `sink`. What was
/// written until then stays behind.
pub fn assemble(
    entries: impl IntoIterator<Item = LayerEntry>,
    upper_root: BorrowedFd<'_>,
    parents: &View,
    new_directories: &Metadata,
    sink: &mut dyn LayerSink,
) -> Result<LayerDigest, LayerError> {
    let root = ImagePath::root();
    let open = beneath::child(upper_root, OsStr::new(".")).map_err(upper("open", &root))?;
    let mut assembly = Assembly {
        tar: TarWriter::new(sink),
        parents,
        new_directories: new_directories.storable(),
        root: open,
        stack: Vec::new(),
        links: HashMap::new(),
    };
    let mut previous: Option<ImagePath> = None;
    for entry in entries {
        if let Some(previous) = previous.filter(|previous| *previous >= entry.path) {
            return Err(LayerError::Order { path: entry.path, previous });
        }
        previous = Some(entry.path.clone());
        assembly.entry(entry)?;
    }
    assembly.finish()
}

/// A directory that is being filled.
struct Open {
    path: ImagePath,
    directory: OwnedFd,
    /// Set when everything in it is there.
    times: Timestamps,
}

struct Assembly<'a> {
    tar: TarWriter<'a>,
    parents: &'a View,
    new_directories: Metadata,
    root: OwnedFd,
    /// The directories from below the root down to the one being filled.
    stack: Vec<Open>,
    /// The first path of each file that got a second name.
    links: HashMap<((u32, u32), u64), ImagePath>,
}

impl Assembly<'_> {
    fn entry(&mut self, entry: LayerEntry) -> Result<(), LayerError> {
        let LayerEntry { path, metadata, content } = entry;
        refuse_whiteout_name(&path)?;
        let (Some(holder), Some(name)) = (path.parent(), path.file_name()) else {
            return if matches!(content, Content::Directory) {
                Ok(())
            } else {
                Err(LayerError::RootNotDirectory)
            };
        };
        self.enter(&holder, &path)?;
        if metadata.uid == NO_ID || metadata.gid == NO_ID {
            return Err(LayerError::Owner { path });
        }
        let metadata = metadata.storable();
        match content {
            Content::Directory => {
                let unchanged = match self.parents.metadata(&path)? {
                    Some((stat, below)) => stat.kind == EntryKind::Directory && below == metadata,
                    None => false,
                };
                let times = only_mtime(metadata.mtime_s, 0);
                self.directory(&path, name, &metadata, times, !unchanged)
            }
            Content::File { size_bytes, open } => {
                let mut source =
                    open().map_err(|source| LayerError::Source { path: path.clone(), source })?;
                self.file(&path, name, &metadata, size_bytes, &mut source)
            }
            Content::Bytes(bytes) => {
                self.file(&path, name, &metadata, bytes.len() as u64, &mut bytes.as_slice())
            }
            Content::Symlink(target) => {
                let metadata = Metadata { mode: 0o777, ..metadata };
                rustix::fs::symlinkat(&target, self.holder(), name)
                    .map_err(upper("make the symbolic link", &path))?;
                self.dress(&path, name, &metadata, false)?;
                self.tar.member(&path, &metadata, Member::Symlink(&target))
            }
            Content::Hardlink(target) => self.hardlink(&path, name, &target),
            Content::Fifo => self.special(&path, name, &metadata, EntryKind::Fifo),
            Content::CharDevice { major, minor } => {
                self.special(&path, name, &metadata, EntryKind::CharDevice { major, minor })
            }
            Content::BlockDevice { major, minor } => {
                self.special(&path, name, &metadata, EntryKind::BlockDevice { major, minor })
            }
        }
    }

    /// The directory being filled.
    fn holder(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root.as_fd(), |open| open.directory.as_fd())
    }

    /// Makes `holder` the directory being filled: leaves the directories that it is not in and makes the missing ones.
    /// `path` is the entry that needs it.
    fn enter(&mut self, holder: &ImagePath, path: &ImagePath) -> Result<(), LayerError> {
        while self.stack.last().is_some_and(|open| !holder.starts_with(&open.path)) {
            self.leave()?;
        }
        let made = self.stack.last().map_or(0, |open| open.path.components().count());
        let mut next = self.stack.last().map_or(ImagePath::root(), |open| open.path.clone());
        for name in holder.components().skip(made) {
            next = next.child(name);
            refuse_whiteout_name(&next)?;
            if Stat::at(self.holder(), name).map_err(upper("look at", &next))?.is_some() {
                // An earlier entry of this layer; were it a directory, it would be on the stack.
                return Err(LayerError::ParentNotDirectory { path: path.clone(), parent: next });
            }
            match self.parents.metadata(&next)? {
                Some((stat, metadata)) if stat.kind == EntryKind::Directory => {
                    let times = only_mtime(stat.mtime_s, stat.mtime_ns);
                    self.directory(&next, name, &metadata, times, false)?;
                }
                Some(_) => {
                    return Err(LayerError::ParentNotDirectory { path: path.clone(), parent: next });
                }
                None => {
                    let metadata = self.new_directories.clone();
                    let times = only_mtime(metadata.mtime_s, 0);
                    self.directory(&next, name, &metadata, times, true)?;
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), LayerError> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        rustix::fs::futimens(&open.directory, &open.times).map_err(upper("set the time of", &open.path))
    }

    fn directory(
        &mut self,
        path: &ImagePath,
        name: &OsStr,
        metadata: &Metadata,
        times: Timestamps,
        is_member: bool,
    ) -> Result<(), LayerError> {
        let make = || {
            rustix::fs::mkdirat(self.holder(), name, Mode::RWXU)?;
            let directory = beneath::child(self.holder(), name)?;
            dress_open(directory.as_fd(), metadata)?;
            Ok(directory)
        };
        let directory = make().map_err(upper::<io::Error>("make the directory", path))?;
        self.stack.push(Open { path: path.clone(), directory, times });
        if is_member { self.tar.member(path, metadata, Member::Directory) } else { Ok(()) }
    }

    fn file(
        &mut self,
        path: &ImagePath,
        name: &OsStr,
        metadata: &Metadata,
        size_bytes: u64,
        source: &mut impl io::Read,
    ) -> Result<(), LayerError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.holder(), name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(upper("make the file", path))?;
        let mut file = File::from(file);
        self.tar.member(path, metadata, Member::File { size_bytes })?;
        self.tar.content(size_bytes, source, &mut file).map_err(|error| match error {
            CopyError::Read(source) => LayerError::Source { path: path.clone(), source },
            CopyError::Write(source) => upper("write", path)(source),
            CopyError::Size(found) => {
                LayerError::SizeChanged { path: path.clone(), expected_bytes: size_bytes, found }
            }
            CopyError::Sink(error) => error,
        })?;
        dress_open(file.as_fd(), metadata).map_err(upper("set the metadata of", path))?;
        rustix::fs::futimens(&file, &only_mtime(metadata.mtime_s, 0)).map_err(upper("set the time of", path))
    }

    fn special(
        &mut self,
        path: &ImagePath,
        name: &OsStr,
        metadata: &Metadata,
        kind: EntryKind,
    ) -> Result<(), LayerError> {
        if kind.is_whiteout() {
            return Err(LayerError::WhiteoutDevice { path: path.clone() });
        }
        let (file_type, device) = match kind {
            EntryKind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
            EntryKind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        rustix::fs::mknodat(self.holder(), name, file_type, Mode::empty(), device)
            .map_err(upper("make the special file", path))?;
        self.dress(path, name, metadata, true)?;
        self.tar.member(path, metadata, Member::Special(kind))
    }

    fn hardlink(&mut self, path: &ImagePath, name: &OsStr, target: &ImagePath) -> Result<(), LayerError> {
        let wrong = || LayerError::HardlinkTarget { path: path.clone(), target: target.clone() };
        let (Some(holder), Some(target_name)) = (target.parent(), target.file_name()) else {
            return Err(wrong());
        };
        let holder = beneath::directory(self.root.as_fd(), &holder)
            .map_err(upper("open", &holder))?
            .ok_or_else(wrong)?;
        let stat = Stat::at(holder.as_fd(), target_name)
            .map_err(upper("look at", target))?
            .filter(|stat| stat.kind != EntryKind::Directory)
            .ok_or_else(wrong)?;
        let capability =
            Subject::Named(holder.as_fd(), target_name).capability().map_err(upper("look at", target))?;
        rustix::fs::linkat(&holder, target_name, self.holder(), name, AtFlags::empty())
            .map_err(upper("make the hard link", path))?;
        // A link to a link leads to the file's first name.
        let first = self.links.entry((stat.device, stat.inode)).or_insert_with(|| target.clone());
        self.tar.member(path, &stat.metadata(capability), Member::Hardlink(first))
    }

    /// Sets the metadata of what cannot be opened for it. A symbolic link has no mode of its own.
    fn dress(
        &self,
        path: &ImagePath,
        name: &OsStr,
        metadata: &Metadata,
        has_mode: bool,
    ) -> Result<(), LayerError> {
        let dress = || {
            let (uid, gid) = owner(metadata);
            rustix::fs::chownat(self.holder(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            if let Some(capability) = &metadata.capability {
                Subject::Named(self.holder(), name).set_capability(capability)?;
            }
            if has_mode {
                rustix::fs::chmodat(
                    self.holder(),
                    name,
                    Mode::from_raw_mode(metadata.mode),
                    AtFlags::empty(),
                )?;
            }
            let times = only_mtime(metadata.mtime_s, 0);
            rustix::fs::utimensat(self.holder(), name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(())
        };
        dress().map_err(upper::<io::Error>("set the metadata of", path))
    }

    fn finish(mut self) -> Result<LayerDigest, LayerError> {
        while !self.stack.is_empty() {
            self.leave()?;
        }
        settle_root(self.root.as_fd())?;
        self.tar.finish()
    }
}

/// Owner, capabilities, mode: in this order, for a change of owner drops capabilities and the set-id bits.
fn dress_open(open: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<()> {
    let (uid, gid) = owner(metadata);
    rustix::fs::fchown(open, uid, gid)?;
    if let Some(capability) = &metadata.capability {
        Subject::Open(open).set_capability(capability)?;
    }
    rustix::fs::fchmod(open, Mode::from_raw_mode(metadata.mode))?;
    Ok(())
}

fn owner(metadata: &Metadata) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))
}
