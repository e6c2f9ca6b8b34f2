// SPDX-License-Identifier: Apache-2.0
//! Looks into an image's root file system without ever leaving it.
//!
//! An image is not to be trusted: its links may point anywhere. Every path is resolved by the kernel as a process in a
//! chroot would see it (`openat2` with `RESOLVE_IN_ROOT`), and the last component is never followed.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, readlinkat};
use rustix::io::Errno;

use crate::scenario::ImageFilePath;

/// The root folder of an image.
#[derive(Debug)]
pub struct ImageRoot {
    folder: OwnedFd,
    path: PathBuf,
}

/// A comparison that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path} below {root}", root = root.display())]
pub struct CheckError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// The path in the image.
    pub path: String,
    /// The image's root folder.
    pub root: PathBuf,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl ImageRoot {
    /// Opens the folder in which an image's file system can be seen.
    ///
    /// # Errors
    /// When it is not a folder that can be opened.
    pub fn open(path: &Path) -> Result<Self, CheckError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(|errno| CheckError {
            operation: "open",
            path: "/".to_owned(),
            root: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self { folder, path: path.to_owned() })
    }

    /// What is at a path, as `lstat` sees it; nothing when it or one of its parents is not there.
    pub(super) fn stat(&self, path: &ImageFilePath) -> Result<Option<Stat>, CheckError> {
        match self.open_at(path, OFlags::PATH) {
            Ok(file) => fstat(&file).map(Some).map_err(self.failed("look at", path)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.failed("look at", path)(errno)),
        }
    }

    /// The bytes of a regular file; the caller has made sure that it is one.
    pub(super) fn read(&self, path: &ImageFilePath) -> Result<Vec<u8>, CheckError> {
        let file =
            self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(self.failed("read", path))?;
        let mut bytes = Vec::new();
        std::fs::File::from(file).read_to_end(&mut bytes).map_err(|source| {
            self.failed("read", path)(Errno::from_io_error(&source).unwrap_or(Errno::IO))
        })?;
        Ok(bytes)
    }

    /// The target of a symbolic link.
    pub(super) fn link_target(&self, path: &ImageFilePath) -> Result<OsString, CheckError> {
        let link = self.open_at(path, OFlags::PATH).map_err(self.failed("read the link", path))?;
        let target = readlinkat(&link, "", Vec::new()).map_err(self.failed("read the link", path))?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// The names in a folder, sorted.
    pub(super) fn entries(&self, path: &ImageFilePath) -> Result<Vec<String>, CheckError> {
        let folder =
            self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(self.failed("list", path))?;
        let mut names = Vec::new();
        for entry in Dir::new(folder).map_err(self.failed("list", path))? {
            let entry = entry.map_err(self.failed("list", path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn open_at(&self, path: &ImageFilePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&self.folder, path.relative(), flags, Mode::empty(), resolve) {
                // The kernel gives up when something in the tree is renamed meanwhile (openat2(2)).
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    fn failed(&self, operation: &'static str, path: &ImageFilePath) -> impl FnOnce(Errno) -> CheckError {
        let (root, path) = (self.path.clone(), path.to_string());
        move |errno| CheckError { operation, path, root, source: errno.into() }
    }
}
