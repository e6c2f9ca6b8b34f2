// SPDX-License-Identifier: Apache-2.0
//! The tar stream of a layer from the overlay directory that holds it.
//!
//! The stream follows from the directory and one look per entry into the parents' view; nothing is written. The rules:
//!
//! - Everything in the directory that is no directory is a member, whether its content differs or not.
//! - A directory is a member when the parents have no directory there, or one with another mode, owner, capability or
//!   time (in whole seconds), or when it hides theirs. Its children are visited in any case.
//! - A deletion is a member when the parents have the name; one of something that never existed is dropped.
//! - A directory that hides the parents' (opaque) becomes a plain member plus one deletion for each of their names
//!   that is not in it, all the way down, because readers of tar streams agree on those but not on `.wh..wh..opq`.
//! - A socket cannot be a member. What it replaced is deleted.
//! - Further names of one file are hard links to the first in the order of paths.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use super::beneath;
use super::error::{LayerError, below, upper};
use super::metadata::{EntryKind, Stat};
use super::sink::{LayerDigest, LayerSink};
use super::tar::{CopyError, Member, TarWriter};
use super::upper::{Marks, refuse_whiteout_name};
use super::view::{View, look};
use super::xattr::Subject;
use crate::image::{DiffId, ImagePath};

/// Writes the stream of the layer in `upper_root`, as seen against the parents in `parents`.
///
/// Bind `upper_root` to the directory itself, not to a mounted overlay, and let nothing write to it meanwhile.
///
/// # Errors
/// What a layer cannot say ([`LayerError::WhiteoutName`], [`LayerError::OverlayAttribute`]), and failures to read
/// either side or to write to `sink`.
pub fn diff(
    upper_root: BorrowedFd<'_>,
    parents: &View,
    sink: &mut dyn LayerSink,
) -> Result<LayerDigest, LayerError> {
    let root = ImagePath::root();
    let mut walk = Walk { tar: TarWriter::new(sink), links: HashMap::new() };
    let open = beneath::child(upper_root, OsStr::new(".")).map_err(upper("open", &root))?;
    let marks = Marks::read(Subject::Open(open.as_fd()), &root)?;
    let parents = match parents.root() {
        None => Parents::Nothing,
        Some(root_below) => {
            let root_below = beneath::child(root_below, OsStr::new(".")).map_err(below("open", &root))?;
            Parents::of_directory(root_below, marks.opaque)
        }
    };
    walk.directory(&root, open.as_fd(), &parents)?;
    walk.tar.finish()
}

/// Reads a committed layer's directory again and compares its stream with the diff id on record. Changes nothing.
///
/// # Errors
/// [`LayerError::Mismatch`] when the directory has changed, and the errors of [`diff`].
pub fn verify(
    upper_root: BorrowedFd<'_>,
    parents: &View,
    expected: DiffId,
) -> Result<LayerDigest, LayerError> {
    let found = diff(upper_root, parents, &mut io::sink())?;
    if found.diff_id == expected {
        Ok(found)
    } else {
        Err(LayerError::Mismatch { expected, found: found.diff_id })
    }
}

/// What the parents have where a directory of the layer is.
enum Parents {
    /// No directory.
    Nothing,
    /// A directory that this one is merged with.
    Merged(OwnedFd),
    /// A directory that this one, or one above it, hides.
    Hidden(OwnedFd),
}

impl Parents {
    fn of_directory(directory: OwnedFd, hidden: bool) -> Self {
        if hidden { Self::Hidden(directory) } else { Self::Merged(directory) }
    }

    fn open(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Nothing => None,
            Self::Merged(directory) | Self::Hidden(directory) => Some(directory.as_fd()),
        }
    }

    fn look(&self, path: &ImagePath, name: &OsStr) -> Result<Option<Stat>, LayerError> {
        self.open().map_or(Ok(None), |directory| look(directory, name)).map_err(below("look at", path))
    }
}

struct Walk<'s> {
    tar: TarWriter<'s>,
    /// The first path of each file that has more than one name.
    links: HashMap<((u32, u32), u64), ImagePath>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        path: &ImagePath,
        open: BorrowedFd<'_>,
        parents: &Parents,
    ) -> Result<(), LayerError> {
        // Sorted by name, so that the walk goes in the order of paths. `true`: in the layer's directory.
        let mut names: BTreeMap<OsString, bool> = BTreeMap::new();
        if let Parents::Hidden(hidden) = parents {
            let hidden = beneath::names(hidden.as_fd()).map_err(below("list", path))?;
            names.extend(hidden.into_iter().map(|name| (name, false)));
        }
        let own = beneath::names(open).map_err(upper("list", path))?;
        names.extend(own.into_iter().map(|name| (name, true)));
        for (name, own) in names {
            let child = path.child(&name);
            let found = if own { Stat::at(open, &name).map_err(upper("look at", &child))? } else { None };
            match found {
                // A socket cannot be in a layer, but it does replace what was there.
                None | Some(Stat { kind: EntryKind::Socket, .. }) => self.deletion(&child, &name, parents)?,
                Some(stat) if stat.kind.is_whiteout() => self.deletion(&child, &name, parents)?,
                Some(stat) => {
                    refuse_whiteout_name(&child)?;
                    if stat.kind == EntryKind::Directory {
                        self.subdirectory(&child, &name, open, &stat, parents)?;
                    } else {
                        self.file(&child, &name, open, &stat)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn deletion(&mut self, path: &ImagePath, name: &OsStr, parents: &Parents) -> Result<(), LayerError> {
        if parents.look(path, name)?.is_some() { self.tar.whiteout(path) } else { Ok(()) }
    }

    fn subdirectory(
        &mut self,
        path: &ImagePath,
        name: &OsStr,
        holder: BorrowedFd<'_>,
        stat: &Stat,
        above: &Parents,
    ) -> Result<(), LayerError> {
        let open = beneath::child(holder, name).map_err(upper("open", path))?;
        let marks = Marks::read(Subject::Open(open.as_fd()), path)?;
        let metadata = stat.metadata(marks.capability);
        let hides = marks.opaque || matches!(above, Parents::Hidden(_));
        let counterpart = match (above.open(), above.look(path, name)?) {
            (Some(directory), Some(found)) if found.kind == EntryKind::Directory => {
                Some((beneath::child(directory, name).map_err(below("open", path))?, found))
            }
            _ => None,
        };
        let (parents, unchanged) = match counterpart {
            None => (Parents::Nothing, false),
            Some((directory, found)) => {
                let capability = Subject::Open(directory.as_fd()).capability();
                let capability = capability.map_err(below("read the attributes of", path))?;
                let same = found.metadata(capability) == metadata;
                (Parents::of_directory(directory, hides), same && !hides)
            }
        };
        if !unchanged {
            self.tar.member(path, &metadata, Member::Directory)?;
        }
        self.directory(path, open.as_fd(), &parents)
    }

    fn file(
        &mut self,
        path: &ImagePath,
        name: &OsStr,
        holder: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(), LayerError> {
        let regular = match stat.kind {
            EntryKind::Regular => Some(File::from(beneath::file(holder, name).map_err(upper("open", path))?)),
            _ => None,
        };
        let subject =
            regular.as_ref().map_or(Subject::Named(holder, name), |open| Subject::Open(open.as_fd()));
        let metadata = stat.metadata(Marks::of_file(subject, path)?.capability);
        if stat.links > 1 {
            if let Some(first) = self.links.get(&(stat.device, stat.inode)) {
                return self.tar.member(path, &metadata, Member::Hardlink(first));
            }
            self.links.insert((stat.device, stat.inode), path.clone());
        }
        if let Some(mut open) = regular {
            let size_bytes = stat.size_bytes;
            self.tar.member(path, &metadata, Member::File { size_bytes })?;
            return self.tar.content(size_bytes, &mut open, &mut io::sink()).map_err(|error| match error {
                CopyError::Read(source) | CopyError::Write(source) => upper("read", path)(source),
                CopyError::Size(found) => {
                    LayerError::SizeChanged { path: path.clone(), expected_bytes: size_bytes, found }
                }
                CopyError::Sink(error) => error,
            });
        }
        if stat.kind == EntryKind::Symlink {
            let target =
                rustix::fs::readlinkat(holder, name, Vec::new()).map_err(upper("read the link", path))?;
            let target = OsString::from_vec(target.into_bytes());
            return self.tar.member(path, &metadata, Member::Symlink(&target));
        }
        self.tar.member(path, &metadata, Member::Special(stat.kind))
    }
}
