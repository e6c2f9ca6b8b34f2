// SPDX-License-Identifier: Apache-2.0
//! Processes as `/proc` shows them (proc(5)).

use std::fs;

/// All processes below `pid`, whichever of its threads started them.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

/// Whether a process is there and has not ended.
///
/// One that has ended stays visible until its parent looks, and the parent of an orphan, the system's process 1, may
/// take seconds for that.
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name before the state is in parentheses and may hold some itself.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let (state, threads) = (fields.first(), fields.get(17));
    // While the first thread of a process is a zombie, the others may still run.
    !(matches!(state, Some(&("Z" | "X"))) && threads.is_none_or(|count| matches!(*count, "0" | "1")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_process_that_has_ended_is_not_running_even_before_it_is_waited_for() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(is_running(child.id()));
        assert!(descendants(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        let limit = Instant::now() + Duration::from_secs(10);
        while is_running(child.id()) {
            assert!(Instant::now() < limit, "a killed process still runs");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(fs::exists(format!("/proc/{}", child.id())).unwrap(), "it has not been waited for");
        child.wait().unwrap();
        assert!(!is_running(child.id()));
    }
}
