// SPDX-License-Identifier: Apache-2.0
//! Mount points that a root lacks: placed before a `RUN`, removed after it, so that they never reach its layer.
//!
//! runc would make them itself and leave them, together with changed times of the directories above. Placing them first
//! lets the times be put back before the command starts; so the times that a directory has afterwards are the
//! command's own doing. A stub that the command put something into stays. BuildKit removes the same ones
//! (`executor/stubs.go`) and gives parents back the time that they had before the removal.
//!
//! After a failed or cancelled `RUN` the whole upper directory is thrown away, so nothing has to be removed then.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::image::ImagePath;

/// How many symbolic links one path may go through before it counts as a loop.
const LINK_LIMIT: usize = 255;

/// What kind of thing is mounted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StubKind {
    /// A file is bound.
    File,
    /// A file system or a directory.
    Directory,
}

/// Why a mount point could not be placed or removed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} mount point {path}")]
pub struct StubError {
    operation: &'static str,
    path: ImagePath,
    #[source]
    source: io::Error,
}

fn at(operation: &'static str, path: &ImagePath) -> impl FnOnce(Errno) -> StubError {
    let path = path.clone();
    move |errno| StubError { operation, path, source: errno.into() }
}

/// The mount points that were placed, in the order of their making.
#[derive(Debug, Default)]
pub struct Stubs {
    placed: Vec<(ImagePath, StubKind)>,
}

impl Stubs {
    /// Makes what is missing of `targets` below `root`, parents included, and keeps the times of the directories that
    /// were there. Symbolic links are followed inside `root`, never out of it.
    ///
    /// A target below an earlier one is left out, for it lies inside what is mounted there. So is one whose path goes
    /// through a file: the mount itself fails and says so.
    ///
    /// # Errors
    /// [`StubError`] when the root cannot be written to.
    pub fn place(root: BorrowedFd<'_>, targets: &[(ImagePath, StubKind)]) -> Result<Self, StubError> {
        let mut stubs = Self::default();
        for (index, (target, kind)) in targets.iter().enumerate() {
            if targets[..index].iter().any(|(other, _)| other != target && target.starts_with(other)) {
                continue;
            }
            let missing = missing(root, target)?;
            for (position, path) in missing.iter().enumerate() {
                let kind = if position + 1 == missing.len() { *kind } else { StubKind::Directory };
                keeping_times_of_parent(root, path, || make(root, path, kind)).map_err(at("place", path))?;
                stubs.placed.push((path.clone(), kind));
            }
        }
        Ok(stubs)
    }

    /// Removes what is still empty.
    ///
    /// # Errors
    /// [`StubError`] when the root cannot be written to.
    pub fn remove(self, root: BorrowedFd<'_>) -> Result<(), StubError> {
        for (path, kind) in self.placed.iter().rev() {
            let removed = keeping_times_of_parent(root, path, || match kind {
                StubKind::Directory => rustix::fs::unlinkat(root, path.relative(), AtFlags::REMOVEDIR),
                StubKind::File => {
                    let size_bytes =
                        rustix::fs::statat(root, path.relative(), AtFlags::SYMLINK_NOFOLLOW)?.st_size;
                    if size_bytes > 0 {
                        return Err(Errno::NOTEMPTY);
                    }
                    rustix::fs::unlinkat(root, path.relative(), AtFlags::empty())
                }
            });
            match removed {
                // Filled, removed or replaced by the command: then it is the command's.
                Ok(())
                | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => {}
                Err(errno) => return Err(at("remove", path)(errno)),
            }
        }
        Ok(())
    }
}

fn make(root: BorrowedFd<'_>, path: &ImagePath, kind: StubKind) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o755);
    match kind {
        StubKind::Directory => rustix::fs::mkdirat(root, path.relative(), mode),
        StubKind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(root, path.relative(), flags, mode).map(drop)
        }
    }
}

/// Runs `change`, which adds or removes `path`, and gives the directory above its modification time back.
fn keeping_times_of_parent(
    root: BorrowedFd<'_>,
    path: &ImagePath,
    change: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), Errno> {
    let parent = path.parent().unwrap_or_default();
    let before = rustix::fs::statat(root, parent.relative(), AtFlags::SYMLINK_NOFOLLOW)?;
    change()?;
    rustix::fs::utimensat(root, parent.relative(), &modified(&before), AtFlags::SYMLINK_NOFOLLOW)
}

fn modified(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec.try_into().expect("invariant: nanoseconds are below 10^9"),
        },
    }
}

/// The directories, topmost first, and the final name that `target` lacks below `root`, free of symbolic links.
fn missing(root: BorrowedFd<'_>, target: &ImagePath) -> Result<Vec<ImagePath>, StubError> {
    let mut left: VecDeque<OsString> = target.components().map(OsString::from).collect();
    let mut current = ImagePath::root();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            current = current.parent().unwrap_or_default();
            continue;
        }
        let next = current.child(&name);
        let found = match rustix::fs::statat(root, next.relative(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => {
                let mut path = next;
                let mut missing = vec![path.clone()];
                for name in left {
                    path = path.join(&name);
                    missing.push(path.clone());
                }
                return Ok(missing);
            }
            Err(Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(at("look for", target)(errno)),
        };
        if found != FileType::Symlink {
            current = next;
            continue;
        }
        links += 1;
        if links > LINK_LIMIT {
            return Err(at("look for", target)(Errno::LOOP));
        }
        let text =
            rustix::fs::readlinkat(root, next.relative(), Vec::new()).map_err(at("look for", target))?;
        let text = text.into_bytes();
        if text.first() == Some(&b'/') {
            current = ImagePath::root();
        }
        for part in text.split(|byte| *byte == b'/').rev().filter(|part| !matches!(*part, b"" | b".")) {
            left.push_front(OsString::from_vec(part.to_vec()));
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn targets() -> Vec<(ImagePath, StubKind)> {
        [
            ("/proc", StubKind::Directory),
            ("/etc/hosts", StubKind::File),
            ("/etc/resolv.conf", StubKind::File),
            ("/proc/inside", StubKind::Directory),
        ]
        .map(|(path, kind)| (ImagePath::new(path), kind))
        .into()
    }

    fn age(path: &Path) {
        let past = SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 123);
        File::open(path).expect("a directory").set_modified(past).expect("times");
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a listing");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("utf-8")).collect();
        names.sort();
        names
    }

    fn mtime(path: &Path) -> (i64, i64) {
        let metadata = path.metadata().expect("metadata");
        (metadata.mtime(), metadata.mtime_nsec())
    }

    #[test]
    fn an_untouched_root_is_as_before_in_names_and_times() {
        let root = tempfile::tempdir().expect("a directory");
        age(root.path());
        let fd = File::open(root.path()).expect("a directory");
        let stubs = Stubs::place(fd.as_fd(), &targets()).expect("stubs");
        assert_eq!(names(root.path()), ["etc", "proc"]);
        assert_eq!(names(&root.path().join("etc")), ["hosts", "resolv.conf"]);
        assert!(names(&root.path().join("proc")).is_empty());
        assert_eq!(mtime(root.path()), (1_000_000, 123));
        stubs.remove(fd.as_fd()).expect("removed");
        assert!(names(root.path()).is_empty());
        assert_eq!(mtime(root.path()), (1_000_000, 123));
    }

    #[test]
    fn what_the_command_made_stays_and_keeps_its_time() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("etc")).expect("a directory");
        let fd = File::open(root.path()).expect("a directory");
        let stubs = Stubs::place(fd.as_fd(), &targets()).expect("stubs");
        std::fs::write(root.path().join("etc/made"), "").expect("a file");
        std::fs::write(root.path().join("proc/made"), "").expect("a file");
        age(&root.path().join("etc"));
        stubs.remove(fd.as_fd()).expect("removed");
        assert_eq!(names(root.path()), ["etc", "proc"]);
        assert_eq!(names(&root.path().join("etc")), ["made"]);
        assert_eq!(mtime(&root.path().join("etc")), (1_000_000, 123));
    }

    #[test]
    fn links_lead_inside_the_root_and_what_exists_is_left_alone() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("etc")).expect("a directory");
        std::fs::write(root.path().join("etc/hosts"), "127.0.0.1 localhost\n").expect("a file");
        std::os::unix::fs::symlink("../../../run/resolve/stub", root.path().join("etc/resolv.conf"))
            .expect("a link");
        std::os::unix::fs::symlink("/var/proc", root.path().join("proc")).expect("a link");
        let fd = File::open(root.path()).expect("a directory");
        let stubs = Stubs::place(fd.as_fd(), &targets()).expect("stubs");
        assert!(root.path().join("run/resolve/stub").is_file());
        assert!(root.path().join("var/proc").is_dir());
        stubs.remove(fd.as_fd()).expect("removed");
        assert_eq!(names(root.path()), ["etc", "proc"]);
        assert_eq!(names(&root.path().join("etc")), ["hosts", "resolv.conf"]);
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let root = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("proc", root.path().join("proc")).expect("a link");
        let fd = File::open(root.path()).expect("a directory");
        let error = Stubs::place(fd.as_fd(), &targets()).expect_err("a loop");
        assert_eq!(error.to_string(), "look for mount point /proc");
    }
}
