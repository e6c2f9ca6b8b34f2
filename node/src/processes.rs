// SPDX-License-Identifier: Apache-2.0
//! The processes of this pid namespace, and killing those that belong to a node.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What `/proc/<pid>` tells of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// The command name, at most 15 bytes (proc(5)).
    pub(crate) comm: String,
}

/// Every process that is not a zombie; kernel threads are not visible in a pid namespace.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since the listing.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        found.extend(parse_stat(pid, &stat));
    }
    Ok(found)
}

/// Reads `<pid> (<comm>) <state> <parent> …`; the name may itself hold spaces and parentheses.
fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(") ")?;
    let (_, comm) = head.split_once('(')?;
    let mut fields = tail.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    Some(Process { pid, parent: fields.next()?.parse().ok()?, comm: comm.to_owned() })
}

/// A variable in the environment of a program and of everything that it starts, by which they can be found and killed.
///
/// Stronger than a process group, which a daemon leaves with `setsid`, and than the tree of parents, which it leaves by
/// a double fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessMarker {
    value: String,
}

impl ProcessMarker {
    /// The variable's name.
    pub const VARIABLE: &'static str = "SHAKEDOWN_PROCESS_MARKER";

    /// A marker that no other program of this machine has.
    pub fn unique() -> Self {
        Self { value: crate::run_directory::RunId::random().to_string() }
    }

    /// The variable's value.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Every process with the marker, and the children of those, which may have an environment of their own.
    ///
    /// # Errors
    /// `/proc` could not be listed.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let entry = format!("{}={}", Self::VARIABLE, self.value);
        family(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
        })
    }

    /// Sends `SIGKILL` to all of them once, and says how many there were.
    ///
    /// # Errors
    /// As [`ProcessMarker::processes`].
    pub fn kill_all(&self) -> io::Result<usize> {
        let found = self.processes()?;
        found.iter().copied().for_each(kill);
        Ok(found.len())
    }
}

/// The shims that serve the containerd at `socket`, and every process below them.
pub(crate) fn shims_and_their_children(socket: &Path) -> io::Result<Vec<i32>> {
    // A container's first process is a child of its shim.
    family(|pid| is_shim_of(pid, socket))
}

/// The processes that `belongs` picks, and their descendants.
fn family(belongs: impl Fn(i32) -> bool) -> io::Result<Vec<i32>> {
    let processes = all()?;
    let mut family: HashSet<i32> =
        processes.iter().map(|process| process.pid).filter(|pid| belongs(*pid)).collect();
    // One round per generation finds them all.
    loop {
        let before = family.len();
        for process in &processes {
            if family.contains(&process.parent) {
                family.insert(process.pid);
            }
        }
        if family.len() == before {
            return Ok(family.into_iter().collect());
        }
    }
}

fn is_shim_of(pid: i32, socket: &Path) -> bool {
    let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = command.split(|byte| *byte == 0);
    let program = words.next().and_then(|first| Path::new(OsStr::from_bytes(first)).file_name());
    program.is_some_and(|name| name.as_bytes().starts_with(b"containerd-shim"))
        && words.any(|word| word == socket.as_os_str().as_bytes())
}

/// Sends `SIGKILL`; a process that has ended already is no error.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // ESRCH is what is wanted, and root is never refused.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_in_spite_of_its_name() {
        let wanted = Process { pid: 7, parent: 1, comm: "a) (b".to_owned() };
        assert_eq!(parse_stat(7, "7 (a) (b) S 1 7 7 0"), Some(wanted));
        assert_eq!(parse_stat(7, "7 (dead) Z 1 7 7 0"), None);
    }

    #[test]
    fn this_process_is_listed() {
        let own = std::process::id().cast_signed();
        assert!(all().unwrap().iter().any(|process| process.pid == own));
        assert!(!is_shim_of(own, Path::new("/c.sock")));
    }
}
