// SPDX-License-Identifier: Apache-2.0
//! From the mounts that containerd proposes for a snapshot to the directories that hold its files.
//!
//! Pure. The builder writes into a snapshot's upper directory itself and mounts overlays with its own options, so it
//! must understand every option that containerd would have used: one that is not known here is an error, never
//! ignored.

use std::path::{Path, PathBuf};

/// One mount as containerd describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The file system type, or `bind`.
    pub kind: String,
    /// The source of a bind mount.
    pub source: String,
    /// A place below the mount point; the overlayfs snapshotter leaves it empty.
    pub target: String,
    /// Options in fstab form.
    pub options: Vec<String>,
}

/// The directories of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotDirs {
    /// Read-only layers, topmost first, as overlayfs wants them.
    pub lower: Vec<PathBuf>,
    /// Where changes go; `None` for a view.
    pub upper: Option<PathBuf>,
    /// The overlay's work directory; `None` for a view, and for a snapshot without a parent, which needs no overlay.
    pub work: Option<PathBuf>,
}

/// Why the mounts of a snapshot cannot be turned into directories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountsError {
    /// The overlayfs snapshotter answers with one mount.
    #[error("read a snapshot's mounts: expected one mount, found {found}")]
    Count {
        /// Mounts in the answer.
        found: usize,
    },
    /// Neither an overlay nor a bind mount.
    #[error("read a snapshot's mounts: mount type {kind:?} is not supported")]
    Kind {
        /// The type in the answer.
        kind: String,
    },
    /// An option whose effect this builder does not reproduce.
    #[error("read a snapshot's mounts: {kind} mount option {option:?} is not supported")]
    Option {
        /// `overlay` or `bind`.
        kind: String,
        /// The option as containerd gave it.
        option: String,
    },
    /// The mount is meant for a place below the mount point.
    #[error("read a snapshot's mounts: mount target {target:?} is not supported")]
    Target {
        /// The target in the answer.
        target: String,
    },
    /// A directory is named relatively: also what is left when a path with a colon is split.
    #[error("read a snapshot's mounts: {name}={path:?} is not an absolute path")]
    Relative {
        /// Which directory.
        name: &'static str,
        /// The path in the answer.
        path: String,
    },
    /// Something that belongs to this kind of mount is missing, or is there twice.
    #[error("read a snapshot's mounts: {what}")]
    Shape {
        /// What is wrong.
        what: &'static str,
    },
}

/// Overlay options that change nothing for a builder which mounts with `index=off,redirect_dir=off,metacopy=off`.
///
/// - `index=off`: containerd's own default where the kernel knows the option; ours too.
/// - `redirect_dir=off`, `metacopy=off`: an administrator may configure what we mount with anyway.
/// - `volatile`: leaves out syncs while mounted; how files are stored is the same.
/// - `ro`, `rw`: whether the mount is writable follows from the upper directory.
///
/// Not among them: `userxattr` (opaque marks then live in `user.overlay.*`, where the layer writer does
/// not look), `index=on`, `redirect_dir=on` and `metacopy=on` (an upper directory is then not self-contained),
/// `uidmap` and `gidmap` (owners on disk are not those of the image).
const HARMLESS_OVERLAY: [&str; 6] = ["index=off", "redirect_dir=off", "metacopy=off", "volatile", "ro", "rw"];

impl SnapshotDirs {
    /// Reads the answer to Prepare, View or Mounts of the overlayfs snapshotter.
    ///
    /// A snapshot without a parent is a writable bind mount of its upper directory; a view of a single layer is a
    /// read-only bind mount of that layer; everything else is an overlay (containerd 1.6 and 2.x alike).
    ///
    /// # Errors
    /// [`MountsError`] for whatever is not exactly that.
    pub fn from_mounts(mounts: &[MountEntry]) -> Result<Self, MountsError> {
        let [mount] = mounts else { return Err(MountsError::Count { found: mounts.len() }) };
        if !mount.target.is_empty() {
            return Err(MountsError::Target { target: mount.target.clone() });
        }
        match mount.kind.as_str() {
            "overlay" => Self::overlay(mount),
            "bind" => Self::bind(mount),
            _ => Err(MountsError::Kind { kind: mount.kind.clone() }),
        }
    }

    fn overlay(mount: &MountEntry) -> Result<Self, MountsError> {
        let mut dirs = Self::default();
        for option in &mount.options {
            match option.split_once('=') {
                Some(("lowerdir", paths)) if dirs.lower.is_empty() => {
                    dirs.lower =
                        paths.split(':').map(|path| absolute("lowerdir", path)).collect::<Result<_, _>>()?;
                }
                Some(("upperdir", path)) if dirs.upper.is_none() => {
                    dirs.upper = Some(absolute("upperdir", path)?);
                }
                Some(("workdir", path)) if dirs.work.is_none() => {
                    dirs.work = Some(absolute("workdir", path)?);
                }
                Some(("lowerdir" | "upperdir" | "workdir", _)) => {
                    return Err(MountsError::Shape { what: "an overlay directory is given twice" });
                }
                _ if HARMLESS_OVERLAY.contains(&option.as_str()) => {}
                _ => return Err(unknown(mount, option)),
            }
        }
        if dirs.lower.is_empty() {
            return Err(MountsError::Shape { what: "the overlay has no lowerdir" });
        }
        if dirs.upper.is_some() != dirs.work.is_some() {
            return Err(MountsError::Shape { what: "the overlay has only one of upperdir and workdir" });
        }
        Ok(dirs)
    }

    fn bind(mount: &MountEntry) -> Result<Self, MountsError> {
        let mut writable = None;
        for option in &mount.options {
            match option.as_str() {
                "rw" => writable = Some(true),
                "ro" => writable = Some(false),
                // How deep the bind goes does not matter: a snapshot's directory holds no mounts.
                "bind" | "rbind" => {}
                _ => return Err(unknown(mount, option)),
            }
        }
        let source = absolute("source", &mount.source)?;
        match writable {
            Some(true) => Ok(Self { upper: Some(source), ..Self::default() }),
            Some(false) => Ok(Self { lower: vec![source], ..Self::default() }),
            None => Err(MountsError::Shape { what: "the bind mount is neither ro nor rw" }),
        }
    }
}

fn absolute(name: &'static str, path: &str) -> Result<PathBuf, MountsError> {
    if Path::new(path).is_absolute() {
        Ok(PathBuf::from(path))
    } else {
        Err(MountsError::Relative { name, path: path.to_owned() })
    }
}

fn unknown(mount: &MountEntry, option: &str) -> MountsError {
    MountsError::Option { kind: mount.kind.clone(), option: option.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> MountEntry {
        MountEntry {
            kind: kind.to_owned(),
            source: source.to_owned(),
            target: String::new(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        }
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_the_overlayfs_snapshotter_answers() {
        let work = Some(PathBuf::from("/s/9/work"));
        let upper = Some(PathBuf::from("/s/9/fs"));
        let table = [
            (
                mount(
                    "overlay",
                    "overlay",
                    &["index=off", "workdir=/s/9/work", "upperdir=/s/9/fs", "lowerdir=/s/2/fs:/s/1/fs"],
                ),
                SnapshotDirs { lower: paths(&["/s/2/fs", "/s/1/fs"]), upper: upper.clone(), work },
            ),
            (
                mount("overlay", "overlay", &["lowerdir=/s/2/fs:/s/1/fs", "index=off", "volatile"]),
                SnapshotDirs { lower: paths(&["/s/2/fs", "/s/1/fs"]), upper: None, work: None },
            ),
            (mount("bind", "/s/9/fs", &["rw", "rbind"]), SnapshotDirs { upper, ..SnapshotDirs::default() }),
            (
                mount("bind", "/s/1/fs", &["ro", "rbind"]),
                SnapshotDirs { lower: paths(&["/s/1/fs"]), ..SnapshotDirs::default() },
            ),
        ];
        for (given, wanted) in table {
            assert_eq!(SnapshotDirs::from_mounts(std::slice::from_ref(&given)), Ok(wanted), "{given:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let lower = "lowerdir=/s/1/fs";
        let table = [
            (
                mount("overlay", "", &[lower, "userxattr"]),
                "overlay mount option \"userxattr\" is not supported",
            ),
            (
                mount("overlay", "", &[lower, "index=on"]),
                "overlay mount option \"index=on\" is not supported",
            ),
            (
                mount("overlay", "", &[lower, "metacopy=on"]),
                "overlay mount option \"metacopy=on\" is not supported",
            ),
            (
                mount("overlay", "", &[lower, "redirect_dir=on"]),
                "overlay mount option \"redirect_dir=on\" is not supported",
            ),
            (
                mount("overlay", "", &["uidmap=0:1:2", lower]),
                "overlay mount option \"uidmap=0:1:2\" is not supported",
            ),
            (
                mount("overlay", "", &["lowerdir+=/s/1/fs"]),
                "overlay mount option \"lowerdir+=/s/1/fs\" is not supported",
            ),
            (mount("overlay", "", &["lowerdir=/a:b/fs"]), "lowerdir=\"b/fs\" is not an absolute path"),
            (mount("overlay", "", &[lower, lower]), "an overlay directory is given twice"),
            (
                mount("overlay", "", &[lower, "upperdir=/u"]),
                "the overlay has only one of upperdir and workdir",
            ),
            (mount("overlay", "", &["upperdir=/u", "workdir=/w"]), "the overlay has no lowerdir"),
            (mount("bind", "/s/1/fs", &["rbind"]), "the bind mount is neither ro nor rw"),
            (mount("bind", "/s/1/fs", &["ro", "noexec"]), "bind mount option \"noexec\" is not supported"),
            (mount("bind", "fs", &["ro"]), "source=\"fs\" is not an absolute path"),
            (mount("erofs", "/s/1/layer.erofs", &["ro"]), "mount type \"erofs\" is not supported"),
        ];
        for (given, wanted) in table {
            let error = SnapshotDirs::from_mounts(std::slice::from_ref(&given)).unwrap_err();
            assert_eq!(error.to_string(), format!("read a snapshot's mounts: {wanted}"));
        }
        let error = SnapshotDirs::from_mounts(&[]).unwrap_err();
        assert_eq!(error.to_string(), "read a snapshot's mounts: expected one mount, found 0");
        let below = MountEntry { target: "sub".to_owned(), ..mount("bind", "/s", &["ro"]) };
        let error = SnapshotDirs::from_mounts(&[below]).unwrap_err();
        assert_eq!(error.to_string(), "read a snapshot's mounts: mount target \"sub\" is not supported");
    }
}
