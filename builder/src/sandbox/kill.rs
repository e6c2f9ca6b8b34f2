// SPDX-License-Identifier: Apache-2.0
//! Ends a child process together with everything that it has started, whatever it is doing at that moment.
//!
//! runc may be killed while a container is half made: its helper has then left the process group and is not yet in the
//! cgroup, so neither finds it. But all descendants stay in our own pid namespace, and runc is their reaper. It is
//! stopped first, so it can start nothing new, then its descendants are killed until none lives, then runc itself.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `/proc/<pid>/stat` says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    ended: bool,
}

/// Kills `child`, which must be a child of this process that has not been waited for, and all its descendants, and
/// returns when they have ended. The exit status of `child` is left to whoever started it.
///
/// # Errors
/// When `/proc` cannot be read, or something does not end within 5 s ([`io::ErrorKind::TimedOut`]).
pub(super) fn kill_tree(child: Pid) -> io::Result<()> {
    kill_process(child, Signal::STOP)?;
    // Reports once every thread has stopped, or that there is nothing left to stop.
    wait(child, WaitIdOptions::STOPPED | WaitIdOptions::EXITED)?;
    let limit = Instant::now() + PATIENCE;
    loop {
        let alive = descendants(&processes()?, child.as_raw_nonzero().get());
        if alive.is_empty() {
            break;
        }
        if Instant::now() > limit {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for id in alive.into_iter().filter_map(Pid::from_raw) {
            match kill_process(id, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    kill_process(child, Signal::KILL)?;
    wait(child, WaitIdOptions::EXITED)
}

fn wait(child: Pid, options: WaitIdOptions) -> io::Result<()> {
    loop {
        match waitid(WaitId::Pid(child), options | WaitIdOptions::NOWAIT) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            // A process that went in the meantime cannot be read, and is none.
            found
                .extend(std::fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(process));
        }
    }
    Ok(found)
}

/// `pid (name) state ppid …`; a name may hold blanks and parentheses.
fn process(stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split(' ');
    let ended = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    Some(Process { id: before.split(' ').next()?.parse().ok()?, parent, ended })
}

/// Those below `root` that have not ended; what lies below an ended one has another parent by then.
fn descendants(all: &[Process], root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            all.iter().filter(|process| process.parent == parent && !process.ended).map(|process| process.id),
        );
        next += 1;
    }
    found.remove(0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_process() {
        let process = |stat| process(stat).map(|process| (process.id, process.parent, process.ended));
        assert_eq!(process("12 (sh) S 7 12 12 0"), Some((12, 7, false)));
        assert_eq!(process("13 (a) Z 1) Z 12 0"), Some((13, 12, true)));
        assert_eq!(process(""), None);
    }

    #[test]
    fn a_tree_dies_with_its_leaves() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap '' TERM; sleep 1000 & setsid sleep 1001 & wait"])
            .spawn()
            .expect("a shell");
        let id = child.id().cast_signed();
        let limit = Instant::now() + Duration::from_secs(10);
        let below = loop {
            let below = descendants(&processes().expect("/proc"), id);
            if below.len() == 2 {
                break below;
            }
            assert!(Instant::now() < limit, "{below:?}");
        };
        kill_tree(Pid::from_raw(id).expect("a pid")).expect("killed");
        let left = processes().expect("/proc");
        assert!(!left.iter().any(|process| below.contains(&process.id) && !process.ended));
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().expect("the status is still there").signal(), Some(libc::SIGKILL));
    }
}
