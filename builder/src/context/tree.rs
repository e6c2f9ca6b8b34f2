// SPDX-License-Identifier: Apache-2.0
//! A directory that sources are copied from, and the only way to anything in it.
//!
//! Every path is opened below the root's descriptor by `openat2` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_SYMLINKS`.
//! Links are followed here, one component at a time, so that an absolute link and one full of `..` count from the root,
//! and so that the ignore rules are asked about each link on the way: in the reference a link that is ignored never
//! reaches the builder. No entry outside of the root can be reached, whatever changes meanwhile.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::image::ImagePath;

use super::entry::SourceEntry;
use super::error::{ContextError, IgnoredBy};
use super::ignore::{IgnoreFile, IgnoreMatcher, IgnoreVerdict};
use super::stat::Metadata;

/// As many links as BuildKit follows (containerd/continuity, `fs.RootPath`).
const LINK_LIMIT: usize = 255;

/// A directory whose entries can be selected.
#[derive(Debug)]
pub struct SourceTree {
    root: OwnedFd,
    path: PathBuf,
    /// `Some` for a build context, also without an ignore file.
    ignore: Option<IgnoreFile>,
}

/// A path with all links followed.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) path: ImagePath,
    pub(crate) metadata: Metadata,
    pub(crate) verdict: IgnoreVerdict,
}

/// A name in a directory, as `getdents` tells it.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) name: CString,
    /// [`FileType::Unknown`] on file systems that do not tell.
    pub(crate) file_type: FileType,
}

impl Name {
    pub(crate) fn os_str(&self) -> &OsStr {
        OsStr::from_bytes(self.name.as_bytes())
    }
}

impl SourceTree {
    /// The build context at `path`: everything belongs to 0:0, and what `ignore` hides is not there.
    ///
    /// # Errors
    /// [`ContextError::OpenTree`] when `path` is not a directory that can be opened.
    pub fn build_context(path: &Path, ignore: IgnoreFile) -> Result<Self, ContextError> {
        Self::open(path, Some(ignore))
    }

    /// The root file system of a stage or an image, mounted at `path`: owners are kept, no ignore file applies.
    ///
    /// # Errors
    /// [`ContextError::OpenTree`] when `path` is not a directory that can be opened.
    pub fn root_file_system(path: &Path) -> Result<Self, ContextError> {
        Self::open(path, None)
    }

    fn open(path: &Path, ignore: Option<IgnoreFile>) -> Result<Self, ContextError> {
        let failed = |source| ContextError::OpenTree { path: path.to_owned(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let path = std::fs::canonicalize(path).map_err(failed)?;
        Ok(Self { root, path, ignore })
    }

    /// The root on the host, without links: what a stat cache is kept for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is a build context, where owners do not count.
    pub(crate) fn is_build_context(&self) -> bool {
        self.ignore.is_some()
    }

    pub(crate) fn matcher(&self) -> Option<&IgnoreMatcher> {
        self.ignore.as_ref().map(|file| &file.matcher).filter(|matcher| !matcher.is_empty())
    }

    /// Opens a file of a selection to read it. A socket reads as empty.
    ///
    /// # Errors
    /// [`ContextError::Entry`] when it is gone, has become a link, or cannot be read.
    pub fn open_entry(&self, entry: &SourceEntry) -> Result<File, ContextError> {
        let opened = if entry.is_socket() {
            rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        } else {
            self.open_file(&entry.path)
        };
        Ok(opened.map_err(failed("open", &entry.path))?.into())
    }

    /// Opens what should be a regular file. Should it have become a pipe meanwhile, this does not wait for a writer.
    pub(crate) fn open_file(&self, path: &ImagePath) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    fn open_at(&self, path: &ImagePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::io::retry_on_intr(|| {
            rustix::fs::openat2(
                &self.root,
                path.relative(),
                flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            )
        })
    }

    /// A directory, to ask about its file system.
    pub(crate) fn open_directory(&self, path: &ImagePath) -> Result<(OwnedFd, Metadata), Errno> {
        let directory = self.open_at(path, OFlags::PATH | OFlags::DIRECTORY)?;
        let metadata = Metadata::of(&directory)?;
        Ok((directory, metadata))
    }

    /// The names in a directory, sorted by bytes, with the descriptor they were read from.
    pub(crate) fn read_directory(&self, path: &ImagePath) -> Result<(OwnedFd, Vec<Name>), Errno> {
        let directory = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut names = Vec::new();
        let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push(Name { name: entry.file_name().to_owned(), file_type: entry.file_type() });
            }
        }
        names.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok((directory, names))
    }

    /// Follows every link of `wanted`, the last component's included, and says what is there.
    ///
    /// The verdict is that of the resolved path. It may say "ignored": whether a hidden directory is there depends on
    /// what lies below it.
    pub(crate) fn resolve(&self, wanted: &ImagePath) -> Result<Resolved, ContextError> {
        let mut todo: Vec<OsString> = wanted.components().rev().map(OsStr::to_owned).collect();
        let mut at = ImagePath::root();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                at = at.parent().unwrap_or_default();
                continue;
            }
            let next = at.child(&name);
            let file = self.open_at(&next, OFlags::PATH).map_err(|errno| self.miss(errno, wanted, &next))?;
            let stat = Metadata::of(&file).map_err(failed("look at", &next))?;
            if stat.key.file_type() != FileType::Symlink {
                at = next;
                continue;
            }
            if let Some(by) = self.ignored_by(&next) {
                return Err(ContextError::NotFound { path: wanted.clone(), ignored_by: Some(by) });
            }
            links += 1;
            if links > LINK_LIMIT {
                return Err(ContextError::TooManyLinks { path: wanted.clone(), limit: LINK_LIMIT });
            }
            let target = read_link(&file, c"").map_err(failed("read link", &next))?;
            if target.as_bytes().first() == Some(&b'/') {
                at = ImagePath::root();
            }
            let parts = target.as_bytes().split(|byte| *byte == b'/').rev();
            todo.extend(
                parts
                    .filter(|part| !matches!(*part, b"" | b"."))
                    .map(|part| OsStr::from_bytes(part).to_owned()),
            );
        }
        let file = self.open_at(&at, OFlags::PATH).map_err(|errno| self.miss(errno, wanted, &at))?;
        let metadata = Metadata::of(&file).map_err(failed("look at", &at))?;
        let verdict = self.verdict(&at);
        Ok(Resolved { path: at, metadata, verdict })
    }

    pub(crate) fn verdict(&self, path: &ImagePath) -> IgnoreVerdict {
        self.matcher().map(|matcher| matcher.verdict(path)).unwrap_or_default()
    }

    fn miss(&self, errno: Errno, wanted: &ImagePath, at: &ImagePath) -> ContextError {
        match errno {
            Errno::NOENT | Errno::NOTDIR => ContextError::NotFound { path: wanted.clone(), ignored_by: None },
            errno => failed("open", at)(errno),
        }
    }

    /// The rule that hides `path`, if one does.
    pub(crate) fn ignored_by(&self, path: &ImagePath) -> Option<IgnoredBy> {
        let ignore = self.ignore.as_ref()?;
        let verdict = ignore.matcher.verdict(path);
        let rule = ignore.matcher.rule(verdict.decided_by.filter(|_| verdict.ignored)?)?;
        Some(IgnoredBy {
            file: ignore.path.clone().unwrap_or_default(),
            line: rule.line(),
            pattern: rule.text().to_owned(),
            path: path.clone(),
        })
    }
}

/// Where the link `name` of `directory` points, or the link that `directory` itself is when `name` is empty.
pub(crate) fn read_link(directory: impl AsFd, name: &CStr) -> Result<OsString, Errno> {
    let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
    Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
}

pub(crate) fn failed(operation: &'static str, path: &ImagePath) -> impl FnOnce(Errno) -> ContextError {
    move |errno| ContextError::Entry { operation, path: path.clone(), source: errno.into() }
}
