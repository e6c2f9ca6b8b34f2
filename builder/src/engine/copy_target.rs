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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;
    use crate::context::{IgnoreFile, StatCache, select};

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn context() -> tempfile::TempDir {
        let context = tempfile::tempdir().unwrap();
        let root = context.path();
        for path in ["a1", "a2", "d/f", "d/sub/g", "e/f", "e/h", "t/sub"] {
            write(root, path, path);
        }
        std::fs::create_dir(root.join("empty")).unwrap();
        std::fs::create_dir(root.join("links")).unwrap();
        write(root, "links/one", "");
        std::fs::hard_link(root.join("links/one"), root.join("links/two")).unwrap();
        std::fs::hard_link(root.join("a1"), root.join("b1")).unwrap();
        symlink("d/f", root.join("to-file")).unwrap();
        symlink("d", root.join("to-directory")).unwrap();
        symlink("nowhere", root.join("e/dangling")).unwrap();
        context
    }

    fn parents() -> tempfile::TempDir {
        let parents = tempfile::tempdir().unwrap();
        let root = parents.path();
        write(root, "etc/passwd", "");
        write(root, "there/keep", "");
        std::fs::create_dir_all(root.join("there/f")).unwrap();
        symlink("there", root.join("link")).unwrap();
        symlink("etc/passwd", root.join("file-link")).unwrap();
        symlink("new/place", root.join("dangling")).unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        std::fs::create_dir(root.join("linked")).unwrap();
        symlink("/etc", root.join("linked/sub")).unwrap();
        parents
    }

    /// What a COPY of `words` (the last one is the destination) in `/work` places: `path=content`, or the error.
    fn placed(context: &Path, parents: &Path, words: &str) -> String {
        let mut words: Vec<&str> = words.split(' ').collect();
        let destination = words.pop().unwrap();
        let tree = SourceTree::build_context(context, IgnoreFile::load(context, None).unwrap()).unwrap();
        let selected = select(&tree, &words, &StatCache::disabled()).unwrap();
        let target = Target::new(&ImagePath::new("/work"), destination, words.len());
        let view = View::new(std::fs::File::open(parents).unwrap()).unwrap();
        let made = Metadata::of_root(0o755, 0);
        match place(&selected, &target, &view, &Arc::new(tree), &made) {
            Err(error) => error.to_string(),
            Ok(entries) => entries.into_iter().map(shown).collect::<Vec<_>>().join(" "),
        }
    }

    fn shown(entry: LayerEntry) -> String {
        match entry.content {
            Content::Directory => format!("{}/", entry.path),
            Content::File { open, .. } => {
                let mut text = String::new();
                open().unwrap().read_to_string(&mut text).unwrap();
                format!("{}={text}", entry.path)
            }
            Content::Symlink(target) => format!("{}->{}", entry.path, target.display()),
            Content::Hardlink(target) => format!("{}=={target}", entry.path),
            other => format!("{} {other:?}", entry.path),
        }
    }

    /// Compared with BuildKit 0.8 (Docker 20.10), except for the two lines that say so.
    #[test]
    fn where_things_go() {
        let (context, parents) = (context(), parents());
        for (words, expected) in [
            // A file: under its own name in a directory, else as the destination.
            ("a1 /new", "/new=a1"),
            ("a1 /new/", "/new/a1=a1"),
            ("a1 /p/q/r", "/p/q/r=a1"),
            ("a1 /there", "/there/a1=a1"),
            ("a1 .", "/work/a1=a1"),
            ("a1 ./", "/work/a1=a1"),
            ("a1 n", "/work/n=a1"),
            ("a1 ..", "/a1=a1"),
            ("a1 /../../one", "/one=a1"),
            ("../../a1 /one", "/one=a1"),
            ("a1 /etc/passwd", "/etc/passwd=a1"),
            // Links in the destination are followed, inside the root.
            ("a1 /link", "/there/a1=a1"),
            ("a1 /link/x", "/there/x=a1"),
            ("a1 /absolute/x", "/etc/x=a1"),
            ("a1 /file-link", "/etc/passwd=a1"),
            ("a1 /dangling", "/new/place=a1"),
            // A source that is a link is what it leads to, under its own name.
            ("to-file /new", "/new=d/f"),
            ("to-file /new/", "/new/to-file=d/f"),
            ("to-directory /new", "/new/ /new/f=d/f /new/sub/ /new/sub/g=d/sub/g"),
            // A directory: its contents.
            ("d /new", "/new/ /new/f=d/f /new/sub/ /new/sub/g=d/sub/g"),
            ("d/ /new/", "/new/ /new/f=d/f /new/sub/ /new/sub/g=d/sub/g"),
            ("e /linked", "/linked/dangling->nowhere /linked/f=e/f /linked/h=e/h"),
            ("empty /new", "/new/"),
            ("empty /there", ""),
            ("empty /x/y/", "/x/y/"),
            // Several sources: the later one wins. BuildKit lets each replace the one before without the slash.
            ("a1 a2 /new/", "/new/a1=a1 /new/a2=a2"),
            ("a1 a2 /new", "/new/a1=a1 /new/a2=a2"),
            ("a[12] /new", "/new/a1=a1 /new/a2=a2"),
            ("a[1] /new", "/new=a1"),
            ("nothing* /new", ""),
            ("d/f e/f /new/", "/new/f=e/f"),
            ("d e /new", "/new/ /new/dangling->nowhere /new/f=e/f /new/h=e/h /new/sub/ /new/sub/g=d/sub/g"),
            // Hard links stay links within a source.
            ("links /new", "/new/ /new/one= /new/two==/new/one"),
            ("a1 b1 /new/", "/new/a1=a1 /new/b1=a1"),
            ("links links/two /new/", "/new/ /new/one= /new/two="),
            // What can't be.
            ("d /etc/passwd", "copy a directory to /etc/passwd: it is not a directory in the image"),
            ("d /linked", "copy a directory to /linked/sub: it is not a directory in the image"),
            ("d/f /there", "copy a file to /there/f: it is a directory in the image"),
            ("d /there", "copy a file to /there/f: it is a directory in the image"),
            ("d t /new", "copy a file to /new/sub: it is a directory in the image"),
            ("t d /new", "copy a directory to /new/sub: it is not a directory in the image"),
            ("a1 /etc/passwd/x", "copy to /etc/passwd/x: /etc/passwd is not a directory in the image"),
            ("a1 /etc/passwd/", "copy to /etc/passwd/a1: /etc/passwd is not a directory in the image"),
            ("a1 a2 /etc/passwd", "copy to /etc/passwd/a1: /etc/passwd is not a directory in the image"),
        ] {
            assert_eq!(placed(context.path(), parents.path(), words), expected, "COPY {words}");
        }
    }

    #[test]
    fn a_new_directory_has_default_metadata_and_those_below_their_own() {
        let (context, parents) = (context(), parents());
        for directory in ["d", "d/sub"] {
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(context.path().join(directory), mode).unwrap();
        }
        let ignore = IgnoreFile::load(context.path(), None).unwrap();
        let tree = SourceTree::build_context(context.path(), ignore).unwrap();
        let selected = select(&tree, &["d"], &StatCache::disabled()).unwrap();
        let view = View::new(std::fs::File::open(parents.path()).unwrap()).unwrap();
        let target = Target::new(&ImagePath::root(), "/new", 1);
        let made = Metadata::of_root(0o755, 42);
        let entries = place(&selected, &target, &view, &Arc::new(tree), &made).unwrap();
        let modes: Vec<_> = entries
            .iter()
            .filter(|entry| matches!(entry.content, Content::Directory))
            .map(|entry| (entry.path.to_string(), entry.metadata.mode))
            .collect();
        assert_eq!(modes, [("/new".to_owned(), 0o755), ("/new/sub".to_owned(), 0o700)]);
    }

    #[test]
    fn what_of_a_destination_decides_is_in_the_key() {
        let root = ImagePath::root();
        let key = |workdir: &ImagePath, text: &str, sources| Target::new(workdir, text, sources).key_bytes();
        assert_eq!(key(&root, "/a/", 1), key(&root, "a/.", 1));
        assert_eq!(key(&root, "/a/", 1), key(&root, "/a", 2));
        assert_ne!(key(&root, "/a", 1), key(&root, "/a/", 1));
        assert_ne!(key(&root, "a", 1), key(&ImagePath::new("/b"), "a", 1));
    }
}
