// SPDX-License-Identifier: Apache-2.0
//! Finding and removing the cgroups of a run, on cgroup v1 (a directory per hierarchy) and v2 (one).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mounts;

/// How long a cgroup may stay busy after its last process was killed.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The directories of the cgroup `name` and of those below it, in all hierarchies, children after their parents.
pub(crate) fn directories(name: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for mount in mounts::all()? {
        if matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2") {
            collect(&mount.point.join(name.trim_start_matches('/')), &mut found)?;
        }
    }
    Ok(found)
}

/// The processes in the cgroup `name` and below, as this pid namespace numbers them.
pub(crate) fn members(name: &str) -> io::Result<Vec<i32>> {
    let mut members = Vec::new();
    for dir in directories(name)? {
        match fs::read_to_string(dir.join("cgroup.procs")) {
            // Zero stands for a process outside of this pid namespace.
            Ok(text) => {
                members
                    .extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0));
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    members.sort_unstable();
    members.dedup();
    Ok(members)
}

/// Whether `name` is that of one cgroup directly below the root: a slash and a plain component.
///
/// An empty name would be the root itself, and with it everything on the machine.
pub(crate) fn is_removable(name: &str) -> bool {
    let component = name.strip_prefix('/').unwrap_or_default();
    !matches!(component, "" | "." | "..") && !component.contains(['/', '\n'])
}

/// Kills what is left in the cgroup `name` and removes it with everything below.
///
/// Any other name than [`is_removable`] allows is refused.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    if !is_removable(name) {
        let reason = format!("{name:?} does not name one cgroup below the root");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let limit = Instant::now() + DRAIN_LIMIT;
    loop {
        for pid in members(name)? {
            crate::processes::kill(pid);
        }
        let mut busy = None;
        for dir in directories(name)?.iter().rev() {
            match fs::remove_dir(dir) {
                Err(error) if !is_gone(&error) => busy = Some(error),
                _ => {}
            }
        }
        match busy {
            None => return Ok(()),
            Some(error) if Instant::now() > limit => return Err(error),
            // The kernel says EBUSY until the last exit is through.
            Some(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) => return Ok(()),
        entries => entries?,
    };
    found.push(dir.to_owned());
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// A cgroup may vanish between being listed and being read: the second answer is then ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_root_nor_a_path_is_removed() {
        for name in ["", "/", "/.", "/..", "a", "/a/b", "/a\nb"] {
            assert_eq!(remove(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(is_removable("/shakedown-n00000000"));
    }
}
