// SPDX-License-Identifier: Apache-2.0
//! The parent layers as one read-only root: what a layer is compared with and what destinations resolve in.
//!
//! Nothing here ever leaves the root, whatever the symbolic links inside say, and nothing is written. The root is an
//! open directory: a read-only overlay of the parents, the directory of an only parent, or nothing for `FROM scratch`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{Mode, OFlags};

use super::beneath;
use super::error::{LayerError, below};
use super::metadata::{EntryKind, Metadata, Stat};
use super::xattr::Subject;
use crate::image::ImagePath;

/// How many symbolic links a path may cross (Linux, `MAXSYMLINKS`).
const LINK_LIMIT: usize = 40;

/// A read-only root.
#[derive(Debug)]
pub struct View {
    root: Option<OwnedFd>,
}

impl View {
    /// The view with nothing in it but its root.
    pub const fn empty() -> Self {
        Self { root: None }
    }

    /// The view of an open directory; an `O_PATH` descriptor will do.
    ///
    /// # Errors
    /// [`LayerError::Below`] when the directory cannot be read.
    pub fn new(root: impl AsFd) -> Result<Self, LayerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(root, ".", flags, Mode::empty()).map_err(below("open", &ImagePath::root()))?;
        Ok(Self { root: Some(root) })
    }

    /// The open root, when there is anything in it.
    pub(super) fn root(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd)
    }

    /// What is at `path`, without following any symbolic link: `None` when a directory on the way is missing or is
    /// something else than a directory. The root of an empty view has no answer either.
    ///
    /// # Errors
    /// [`LayerError::Below`] when the kernel refuses to look.
    pub fn lstat(&self, path: &ImagePath) -> Result<Option<Stat>, LayerError> {
        let Some(root) = self.root() else { return Ok(None) };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Stat::of(root).map(Some).map_err(below("look at", path));
        };
        let Some(parent) = self.directory(&parent)? else { return Ok(None) };
        look(parent.as_fd(), name).map_err(below("look at", path))
    }

    /// What a layer would record of `path`, capabilities included.
    ///
    /// # Errors
    /// As [`View::lstat`].
    pub fn metadata(&self, path: &ImagePath) -> Result<Option<(Stat, Metadata)>, LayerError> {
        let Some(root) = self.root() else { return Ok(None) };
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            let read = || {
                let stat = Stat::of(root)?;
                Ok((stat, stat.metadata(Subject::Open(root).capability()?)))
            };
            return read().map(Some).map_err(below::<io::Error>("look at", path));
        };
        let Some(parent) = self.directory(&above)? else { return Ok(None) };
        let read = || {
            let Some(stat) = look(parent.as_fd(), name)? else { return Ok(None) };
            let capability = Subject::Named(parent.as_fd(), name).capability()?;
            Ok(Some((stat, stat.metadata(capability))))
        };
        read().map_err(below::<io::Error>("look at", path))
    }

    /// Follows the symbolic links of `path` as a process inside the root would, the last component only when
    /// `follow_last` says so.
    ///
    /// What does not exist is kept as it stands, so the answer tells where the path would be made. The answer holds no
    /// symbolic link but, without `follow_last`, its last component.
    ///
    /// # Errors
    /// [`LayerError::Loop`] after 40 links, [`LayerError::Below`] when the kernel refuses to look.
    pub fn resolve(&self, path: &ImagePath, follow_last: bool) -> Result<ImagePath, LayerError> {
        // Components still to walk, the next one last.
        let mut ahead: Vec<OsString> = path.components().rev().map(OsStr::to_owned).collect();
        let mut here = ImagePath::root();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                here = here.parent().unwrap_or_default();
                continue;
            }
            let next = here.child(&name);
            let is_link = self.lstat(&next)?.is_some_and(|stat| stat.kind == EntryKind::Symlink);
            if !is_link || (ahead.is_empty() && !follow_last) {
                here = next;
                continue;
            }
            links += 1;
            if links > LINK_LIMIT {
                return Err(LayerError::Loop { path: path.clone(), limit: LINK_LIMIT });
            }
            let target = self.read_link(&next)?.into_vec();
            if target.first() == Some(&b'/') {
                here = ImagePath::root();
            }
            let parts = target.split(|byte| *byte == b'/').rev();
            ahead.extend(
                parts
                    .filter(|part| !part.is_empty() && *part != b".")
                    .map(|part| OsString::from_vec(part.to_vec())),
            );
        }
        Ok(here)
    }

    /// The names in the directory `path`, sorted by their bytes.
    ///
    /// # Errors
    /// [`LayerError::Below`] with `NotFound` when `path` is no directory. The root of an empty view is an empty one.
    pub fn read_dir(&self, path: &ImagePath) -> Result<Vec<OsString>, LayerError> {
        if self.root.is_none() && path.is_root() {
            return Ok(Vec::new());
        }
        let directory = self.directory(path)?.ok_or_else(|| missing("list", path))?;
        let mut names = beneath::names(directory.as_fd()).map_err(below("list", path))?;
        let mut failure = None;
        names.retain(|name| match look(directory.as_fd(), name) {
            Ok(found) => found.is_some(),
            Err(error) => {
                failure.get_or_insert(error);
                true
            }
        });
        failure.map_or(Ok(names), |error| Err(below("list", path)(error)))
    }

    /// Opens the regular file `path` for reading; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`LayerError::Below`], with `NotFound` when there is no such regular file.
    pub fn open(&self, path: &ImagePath) -> Result<File, LayerError> {
        let (parent, name) = self.place("open", path)?;
        match look(parent.as_fd(), name).map_err(below("open", path))? {
            Some(Stat { kind: EntryKind::Regular, .. }) => {}
            _ => return Err(missing("open", path)),
        }
        Ok(File::from(beneath::file(parent.as_fd(), name).map_err(below("open", path))?))
    }

    /// The target of the symbolic link `path`.
    ///
    /// # Errors
    /// [`LayerError::Below`], with `NotFound` when there is nothing.
    pub fn read_link(&self, path: &ImagePath) -> Result<OsString, LayerError> {
        let (parent, name) = self.place("read the link", path)?;
        let target = rustix::fs::readlinkat(&parent, name, Vec::new());
        Ok(OsString::from_vec(target.map_err(below("read the link", path))?.into_bytes()))
    }

    fn directory(&self, path: &ImagePath) -> Result<Option<OwnedFd>, LayerError> {
        match self.root() {
            None => Ok(None),
            Some(root) => beneath::directory(root, path).map_err(below("open", path)),
        }
    }

    fn place<'p>(
        &self,
        operation: &'static str,
        path: &'p ImagePath,
    ) -> Result<(OwnedFd, &'p OsStr), LayerError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(missing(operation, path));
        };
        Ok((self.directory(&parent)?.ok_or_else(|| missing(operation, path))?, name))
    }
}

/// Looks at a name; a bare whiteout, as an only parent's directory can hold it, is nothing.
pub(super) fn look(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Stat>> {
    Ok(Stat::at(directory, name)?.filter(|stat| !stat.kind.is_whiteout()))
}

fn missing(operation: &'static str, path: &ImagePath) -> LayerError {
    below(operation, path)(io::Error::from(io::ErrorKind::NotFound))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root beside which a secret lies, with links of every kind.
    fn sample() -> (tempfile::TempDir, View) {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(place.path().join("secret"), "outside").unwrap();
        fs::write(root.join("usr/bin/tool"), "tool").unwrap();
        for (target, link) in [
            ("usr/bin", "bin"),
            ("/usr", "absolute"),
            ("../../../../secret", "escape"),
            ("/usr/new/deep", "dangling"),
            ("two", "one"),
            ("one", "two"),
            ("../bin/tool", "usr/up"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let view = View::new(fs::File::open(&root).unwrap()).unwrap();
        (place, view)
    }

    #[test]
    fn links_resolve_inside_the_root() {
        let (_place, view) = sample();
        for (path, follow_last, resolved) in [
            ("/", true, "/"),
            ("/bin/tool", true, "/usr/bin/tool"),
            ("/bin", false, "/bin"),
            ("/bin", true, "/usr/bin"),
            ("/absolute/bin/tool", false, "/usr/bin/tool"),
            ("/escape", true, "/secret"),
            ("/escape/x/y", true, "/secret/x/y"),
            ("/dangling/tail", true, "/usr/new/deep/tail"),
            ("/usr/up", true, "/usr/bin/tool"),
            ("/not/there/at/all", true, "/not/there/at/all"),
            ("/usr/bin/tool/below", true, "/usr/bin/tool/below"),
        ] {
            let found = view.resolve(&ImagePath::new(path), follow_last).unwrap();
            assert_eq!(found.to_string(), resolved, "{path}");
        }
    }

    #[test]
    fn circles_end_with_an_error() {
        let (_place, view) = sample();
        let error = view.resolve(&ImagePath::new("/one"), true).unwrap_err();
        assert_eq!(error.to_string(), "resolve /one in the parent layers: more than 40 symbolic links");
        assert_eq!(view.resolve(&ImagePath::new("/one"), false).unwrap(), ImagePath::new("/one"));
    }

    #[test]
    fn looking_never_follows_links() {
        let (_place, view) = sample();
        assert_eq!(view.lstat(&ImagePath::new("/bin/tool")).unwrap(), None);
        assert_eq!(view.lstat(&ImagePath::new("/escape")).unwrap().unwrap().kind, EntryKind::Symlink);
        assert_eq!(view.lstat(&ImagePath::new("/usr/bin/tool/below")).unwrap(), None);
        assert!(view.open(&ImagePath::new("/escape")).is_err());
        assert!(view.read_dir(&ImagePath::new("/bin")).is_err());
        let mut text = String::new();
        view.open(&ImagePath::new("/usr/bin/tool")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "tool");
        assert_eq!(view.read_dir(&ImagePath::new("/usr")).unwrap(), ["bin", "up"]);
    }

    #[test]
    fn an_empty_view_has_an_empty_root() {
        let view = View::empty();
        assert_eq!(view.lstat(&ImagePath::new("/a")).unwrap(), None);
        assert_eq!(view.resolve(&ImagePath::new("/a/b"), true).unwrap(), ImagePath::new("/a/b"));
        assert!(view.read_dir(&ImagePath::root()).unwrap().is_empty());
        assert!(view.read_dir(&ImagePath::new("/a")).is_err());
    }
}
