// SPDX-License-Identifier: Apache-2.0
//! Facts about the machine, for the head of the report.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use shakedown_node::ContainerdBinaries;
use shakedown_report::Host;

/// Looks at the machine. A fact that cannot be told is `unknown` or 0: it is information, not a condition.
pub fn host(binaries: &ContainerdBinaries, snapshotter: &str) -> Host {
    let system = rustix::system::uname();
    Host {
        kernel: system.release().to_string_lossy().into_owned(),
        architecture: system.machine().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u64),
        memory_bytes: memory_bytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        cgroup: cgroup(Path::new("/sys/fs/cgroup")).to_owned(),
        containerd: binaries.version().text.clone(),
        runc: runc_version(binaries).unwrap_or_else(|| "unknown".to_owned()),
        snapshotter: snapshotter.to_owned(),
    }
}

/// The version of the runc that containerd finds, if there is one.
pub fn runc_version(binaries: &ContainerdBinaries) -> Option<String> {
    let output = Command::new("runc")
        .arg("--version")
        .env("PATH", binaries.search_path())
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "runc version 1.1.5+ds1", the first line since 1.0.
    text.lines().next()?.strip_prefix("runc version ").map(|version| version.trim().to_owned())
}

/// `MemTotal` of proc(5), which is given in kB of 1024 bytes.
fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib =
        line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|number| number.trim().parse().ok());
    kib.unwrap_or(0_u64) * 1024
}

/// The unified hierarchy has `cgroup.controllers` in its root (cgroups(7)); systemd's hybrid mode mounts it below
/// `unified`.
fn cgroup(root: &Path) -> &'static str {
    if root.join("cgroup.controllers").exists() {
        "v2"
    } else if root.join("unified/cgroup.controllers").exists() {
        "hybrid"
    } else {
        "v1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_bytes("MemTotal:       24669756 kB\nMemFree: 1 kB\n"), 24_669_756 * 1024);
        assert_eq!(memory_bytes(""), 0);
    }

    #[test]
    fn the_three_cgroup_modes_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(cgroup(root.path()), "v1");
        fs::create_dir(root.path().join("unified")).unwrap();
        fs::write(root.path().join("unified/cgroup.controllers"), "").unwrap();
        assert_eq!(cgroup(root.path()), "hybrid");
        fs::write(root.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(cgroup(root.path()), "v2");
    }
}
