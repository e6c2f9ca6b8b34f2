// SPDX-License-Identifier: Apache-2.0
//! Where the files of a COPY go: from selected sources to the entries of a layer.
//!
//! The rules are those of BuildKit's copy (observed on 0.8 to 0.13): the destination is resolved inside the parents' root,
//! links included; a new destination directory is 0755 and root's, whatever the source directory is; directories
//! merge; a directory never replaces a file nor a file a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::error::BuildError;
use crate::context::{EntryKind as SourceEntryKind, SelectedSource, SourceEntry, SourceKind, SourceTree};
use crate::diagnostic::Location;
use crate::image::ImagePath;
use crate::layer::{Content, EntryKind, LayerEntry, LayerError, Metadata, View};

/// The destination as the instruction gives it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    path: ImagePath,
    /// Written with a trailing slash or as `.`, or implied by more than one source.
    is_directory: bool,
}

impl Target {
    pub(crate) fn new(workdir: &ImagePath, text: &str, sources: usize) -> Self {
        let last = text.rsplit('/').next().unwrap_or_default();
        let is_directory = matches!(last, "" | "." | "..") || sources > 1;
        Self { path: workdir.join(text), is_directory }
    }

    /// What of the destination decides the result, for a step key.
    pub(crate) fn key_bytes(&self) -> Vec<u8> {
        let mut bytes = self.path.to_os_string().into_encoded_bytes();
        bytes.push(u8::from(self.is_directory));
        bytes
    }
}

/// A COPY that can't be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("copy a directory to {path}: it is not a directory in the image")]
    NotDirectory { path: ImagePath },
    #[error("copy a file to {path}: it is a directory in the image")]
    IsDirectory { path: ImagePath },
    #[error("copy to {path}: {parent} is not a directory in the image")]
    Below { path: ImagePath, parent: ImagePath },
    #[error(transparent)]
    View(#[from] LayerError),
}

impl PlaceError {
    pub(crate) fn at(self, location: &Location) -> BuildError {
        match self {
            Self::View(error) => BuildError::Layer(error),
            conflict => {
                BuildError::Copy { location: Box::new(location.clone()), reason: conflict.to_string() }
            }
        }
    }
}

/// An entry on its way into the layer.
struct Placed {
    entry: SourceEntry,
    /// Tells the hard link groups of different sources apart.
    source: usize,
}

/// The layer's entries, sorted, each path once; a later source wins.
pub(crate) fn place(
    selected: &[SelectedSource],
    target: &Target,
    parents: &View,
    tree: &Arc<SourceTree>,
    new_directories: &Metadata,
) -> Result<Vec<LayerEntry>, PlaceError> {
    let destination = parents.resolve(&target.path, true)?;
    let mut below = Below { parents, absent: None };
    let existing = below.kind(&destination)?;
    let into_directory = target.is_directory || selected.len() > 1 || existing == Some(EntryKind::Directory);
    let mut placed: BTreeMap<ImagePath, Option<Placed>> = BTreeMap::new();
    for (source, selection) in selected.iter().enumerate() {
        match selection.kind {
            SourceKind::File => {
                let path = if into_directory {
                    destination.child(&selection.base_name)
                } else {
                    destination.clone()
                };
                if let Some(entry) = selection.entries.first() {
                    insert(&mut placed, &mut below, path, Placed { entry: entry.clone(), source })?;
                }
            }
            SourceKind::Directory => {
                if existing.is_some_and(|kind| kind != EntryKind::Directory) {
                    return Err(PlaceError::NotDirectory { path: destination });
                }
                if existing.is_none() {
                    // A new destination: made even when there is nothing in the source.
                    placed.entry(destination.clone()).or_insert(None);
                }
                for entry in selection.entries.iter().filter(|entry| !entry.relative.is_root()) {
                    let path = destination.join(entry.relative.relative());
                    insert(&mut placed, &mut below, path, Placed { entry: entry.clone(), source })?;
                }
            }
        }
    }
    check_parents(&placed, &mut below)?;
    Ok(entries(placed, tree, new_directories))
}

fn insert(
    placed: &mut BTreeMap<ImagePath, Option<Placed>>,
    below: &mut Below<'_>,
    path: ImagePath,
    new: Placed,
) -> Result<(), PlaceError> {
    let is_directory = new.entry.kind == SourceEntryKind::Directory;
    let there = match placed.get(&path) {
        Some(Some(earlier)) => Some(earlier.entry.kind == SourceEntryKind::Directory),
        Some(None) => Some(true),
        None => below.kind(&path)?.map(|kind| kind == EntryKind::Directory),
    };
    match there {
        Some(false) if is_directory => return Err(PlaceError::NotDirectory { path }),
        Some(true) if !is_directory => return Err(PlaceError::IsDirectory { path }),
        _ => {}
    }
    placed.insert(path, Some(new));
    Ok(())
}

/// Everything above an entry must be a directory, here or in the parents.
fn check_parents(
    placed: &BTreeMap<ImagePath, Option<Placed>>,
    below: &mut Below<'_>,
) -> Result<(), PlaceError> {
    let mut checked: Option<ImagePath> = None;
    for path in placed.keys() {
        let Some(parent) = path.parent() else { continue };
        if checked.as_ref() == Some(&parent) {
            continue;
        }
        for above in parent.ancestors().into_iter().chain([parent.clone()]) {
            let is_directory = match placed.get(&above) {
                Some(Some(entry)) => entry.entry.kind == SourceEntryKind::Directory,
                Some(None) => true,
                None => below.kind(&above)?.is_none_or(|kind| kind == EntryKind::Directory),
            };
            if !is_directory && !above.is_root() {
                return Err(PlaceError::Below { path: path.clone(), parent: above });
            }
        }
        checked = Some(parent);
    }
    Ok(())
}

fn entries(
    placed: BTreeMap<ImagePath, Option<Placed>>,
    tree: &Arc<SourceTree>,
    new_directories: &Metadata,
) -> Vec<LayerEntry> {
    let mut first_of_group = BTreeMap::new();
    let mut entries = Vec::with_capacity(placed.len());
    for (path, placed) in placed {
        let Some(Placed { entry, source }) = placed else {
            let metadata = new_directories.clone();
            entries.push(LayerEntry { path, metadata, content: Content::Directory });
            continue;
        };
        let metadata = Metadata {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime_s: entry.mtime_s,
            capability: entry.capability.clone(),
        };
        let linked = entry.hardlink_group.map(|group| (source, group));
        let content = match linked.and_then(|group| first_of_group.get(&group).cloned()) {
            Some(first) => Content::Hardlink(first),
            None => {
                if let Some(group) = linked {
                    first_of_group.insert(group, path.clone());
                }
                content(entry, tree)
            }
        };
        entries.push(LayerEntry { path, metadata, content });
    }
    entries
}

fn content(entry: SourceEntry, tree: &Arc<SourceTree>) -> Content {
    match entry.kind.clone() {
        SourceEntryKind::Directory => Content::Directory,
        SourceEntryKind::File { size_bytes } => {
            let tree = tree.clone();
            Content::File {
                size_bytes,
                open: Box::new(move || {
                    let file = tree.open_entry(&entry).map_err(io::Error::other)?;
                    Ok(Box::new(Unchanged { file, entry }))
                }),
            }
        }
        SourceEntryKind::Symlink { target } => Content::Symlink(target),
        SourceEntryKind::Fifo => Content::Fifo,
        SourceEntryKind::CharDevice { major, minor } => Content::CharDevice { major, minor },
        SourceEntryKind::BlockDevice { major, minor } => Content::BlockDevice { major, minor },
    }
}

/// Reads a file and, at its end, makes sure that it still is the one that was hashed for the step key.
struct Unchanged {
    file: File,
    entry: SourceEntry,
}

impl Read for Unchanged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        if length == 0 && !buffer.is_empty() && !self.entry.unchanged(&self.file)? {
            return Err(io::Error::other("the file was changed during the build"));
        }
        Ok(length)
    }
}

/// Asks the parents' view, but not for what lies below a directory that it does not have.
struct Below<'v> {
    parents: &'v View,
    absent: Option<ImagePath>,
}

impl Below<'_> {
    fn kind(&mut self, path: &ImagePath) -> Result<Option<EntryKind>, LayerError> {
        if self.absent.as_ref().is_some_and(|absent| path.starts_with(absent)) {
            return Ok(None);
        }
        let stat = self.parents.lstat(path)?;
        if stat.is_none() {
            self.absent = Some(path.clone());
        }
        Ok(stat.map(|stat| stat.kind))
    }
}
