// SPDX-License-Identifier: Apache-2.0
//! Where the cgroups of a build lie, and how they are killed and removed.
//!
//! Every step has `/pushless/<build>/<step>` in each hierarchy, below this process's own cgroup when it runs in a pod, so
//! that the pod's limits hold. runc makes the directories with its cgroupfs driver on every host: systemd would be
//! asked for a scope by process id, and the ids of our private pid namespace are not those that systemd sees.
//!
//! Cgroup directories are the one thing of a `RUN` that outlives the death of a build; [`Cgroups::collect`] removes those
//! of dead builds. This module must not know how a build is found to be dead.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use super::build_lock::run_dir_suffix;

/// Name of the directory that holds the builds, in each hierarchy, before the run directory's suffix.
const NAME: &str = "pushless";

/// How long killed processes may take to leave their cgroup.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for those of a dead build, whose processes the kernel is about to end or nobody can.
const PATIENCE_WITH_THE_DEAD: Duration = Duration::from_millis(100);

/// Why cgroups cannot be read, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or directory could not be used.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A process outlived its kill signal, as one in uninterruptible sleep does.
    #[error("kill the processes of cgroup {path}: some are still there after {} s", PATIENCE.as_secs())]
    Unkillable {
        /// The cgroup's directory.
        path: PathBuf,
    },
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::System { operation, path, source }
}

/// The hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// `pushless` in each hierarchy.
    bases: Vec<PathBuf>,
    /// The same as runc wants it.
    runc_base: PathBuf,
    unified: bool,
}

/// `parent` without its leading slash and without any way up.
fn below_root(parent: &Path) -> PathBuf {
    parent.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

struct MountedHierarchy<'a> {
    device: &'a str,
    root: &'a str,
    mount_point: &'a str,
    /// `None` for a unified hierarchy.
    controllers: Option<Vec<&'a str>>,
}

impl Cgroups {
    /// Reads which hierarchies are mounted and where this process is in them. Builds of different run directories have
    /// different names there, see [`run_dir_suffix`]. `parent` is where the user wants them, from the root of each
    /// hierarchy; by default that is the root, in a pod the pod's own cgroup.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn discover(run_dir: &Path, parent: Option<&Path>) -> Result<Self, CgroupError> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(at("read", Path::new(path)));
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || own.contains("kubepods");
        let name = format!("{NAME}{}", run_dir_suffix(run_dir));
        Ok(match parent {
            Some(parent) => Self::new(&mounts, &own, false, &below_root(parent).join(name)),
            None => Self::new(&mounts, &own, in_pod, Path::new(&name)),
        })
    }

    /// Pure part of [`Cgroups::discover`], from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    fn new(mounts: &str, own: &str, in_pod: bool, name: &Path) -> Self {
        let mut seen = Vec::new();
        let mut bases = Vec::new();
        let mut unified = None;
        for hierarchy in mounts.lines().filter_map(hierarchy) {
            if seen.contains(&hierarchy.device) {
                continue;
            }
            seen.push(hierarchy.device);
            let mut base = PathBuf::from(hierarchy.mount_point);
            if in_pod {
                base.push(own_directory(&hierarchy, own));
            }
            base.push(name);
            if hierarchy.controllers.is_none() && hierarchy.mount_point == "/sys/fs/cgroup" {
                unified = base.strip_prefix("/sys/fs/cgroup").ok().map(Path::to_owned);
            }
            bases.push(base);
        }
        let runc_base = match &unified {
            Some(relative) => Path::new("/").join(relative),
            // On version 1 runc itself takes a relative path as below its own cgroup of each hierarchy.
            None if in_pod => name.into(),
            None => Path::new("/").join(name),
        };
        Self { bases, runc_base, unified: unified.is_some() }
    }

    /// The `cgroupsPath` of a step.
    pub fn step_path(&self, build: &str, step: &str) -> PathBuf {
        self.runc_base.join(build).join(step)
    }

    /// Whether a container gets a cgroup namespace; see [`super::spec::RunRequest::cgroup_namespace`].
    pub fn namespace_supported(&self) -> bool {
        self.unified && Path::new("/proc/self/ns/cgroup").exists()
    }

    /// Makes the build's directory, so that no collector of another build can remove the one above while runc makes a
    /// step's.
    ///
    /// # Errors
    /// When a hierarchy that can be written to refuses.
    pub fn prepare(&self, build: &str) -> Result<(), CgroupError> {
        for base in &self.bases {
            let path = base.join(build);
            loop {
                match std::fs::create_dir_all(&path) {
                    Ok(()) => break,
                    // runc passes read-only hierarchies over too, as long as the one for devices is not among them.
                    Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => break,
                    // Another build's collector removed the directory above in between.
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound
                            && base.parent().is_some_and(Path::exists) => {}
                    Err(error) => return Err(at("make cgroup", &path)(error)),
                }
            }
        }
        Ok(())
    }

    /// Kills every process of a step and waits until none is left. No process at all is no error.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn kill(&self, build: &str, step: &str) -> Result<(), CgroupError> {
        for base in &self.bases {
            let path = base.join(build).join(step);
            let limit = Instant::now() + PATIENCE;
            while kill_once(&path)? {
                if Instant::now() > limit {
                    return Err(CgroupError::Unkillable { path });
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Removes what is left of a step's cgroups; runc has usually done so.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn remove_step(&self, build: &str, step: &str) -> Result<(), CgroupError> {
        self.bases.iter().try_for_each(|base| remove_tree(&base.join(build).join(step), PATIENCE))
    }

    /// Removes the build's cgroups, and those above when no other build has any.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn remove_build(&self, build: &str) -> Result<(), CgroupError> {
        self.bases.iter().try_for_each(|base| {
            remove_tree(&base.join(build), PATIENCE)?;
            remove_if_empty(base)
        })
    }

    /// Removes the cgroups of every build that `is_dead`.
    ///
    /// # Errors
    /// [`CgroupError`]; a cgroup that still has processes is one.
    pub fn collect(&self, is_dead: impl Fn(&str) -> bool) -> Result<(), CgroupError> {
        for base in &self.bases {
            for path in children(base)? {
                let dead = path.file_name().and_then(|name| name.to_str()).is_some_and(&is_dead);
                if dead {
                    remove_tree(&path, PATIENCE_WITH_THE_DEAD)?;
                }
            }
            remove_if_empty(base)?;
        }
        Ok(())
    }
}

/// One line of `mountinfo`, if it is a cgroup file system.
fn hierarchy(line: &str) -> Option<MountedHierarchy<'_>> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let (device, root, mount_point) = (mount.next()?, mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let controllers = match file_system.next()? {
        "cgroup2" => None,
        "cgroup" => Some(file_system.nth(1)?.split(',').collect()),
        _ => return None,
    };
    Some(MountedHierarchy { device, root, mount_point, controllers })
}

/// This process's cgroup relative to the mount point; empty when it lies outside of what is mounted.
fn own_directory(hierarchy: &MountedHierarchy<'_>, own: &str) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let same = match &hierarchy.controllers {
            None => controllers.is_empty(),
            Some(mounted) => controllers.split(',').any(|controller| mounted.contains(&controller)),
        };
        same.then(|| Path::new(path))
    });
    let inside =
        path.and_then(|path| path.strip_prefix(hierarchy.root).or_else(|_| path.strip_prefix("/")).ok());
    inside
        .filter(|path| path.components().all(|part| matches!(part, Component::Normal(_))))
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// Sends `SIGKILL` to all processes below `path`; whether there were any.
fn kill_once(path: &Path) -> Result<bool, CgroupError> {
    let mut any = false;
    for child in children(path)? {
        any |= kill_once(&child)?;
    }
    let list = match std::fs::read_to_string(path.join("cgroup.procs")) {
        Err(error) if gone(&error) => return Ok(any),
        other => other.map_err(at("read the processes of cgroup", path))?,
    };
    for pid in list.lines().filter_map(|line| line.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
        any = true;
        match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(at("kill a process of cgroup", path)(errno.into())),
        }
    }
    Ok(any)
}

fn children(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if gone(&error) => return Ok(Vec::new()),
        other => other.map_err(at("list cgroup", path))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = match entry {
            Err(error) if gone(&error) => break,
            other => other.map_err(at("list cgroup", path))?,
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes directories from the bottom up; a cgroup is busy until its last process is gone, which may take a moment.
fn remove_tree(path: &Path, patience: Duration) -> Result<(), CgroupError> {
    for child in children(path)? {
        remove_tree(&child, patience)?;
    }
    let limit = Instant::now() + patience;
    loop {
        match std::fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < limit => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(at("remove cgroup", path)(error)),
        }
    }
}

fn remove_if_empty(path: &Path) -> Result<(), CgroupError> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error)
            if gone(&error)
                || matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty) =>
        {
            Ok(())
        }
        Err(error) => Err(at("remove cgroup", path)(error)),
    }
}

/// A cgroup that vanishes while it is read answers either way.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION_1: &str = "\
24 1 0:22 / /sys rw - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:28 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn a_parent_that_the_user_names_holds_in_every_hierarchy() {
        let parent = below_root(Path::new("/ci/../job-1/"));
        let cgroups = Cgroups::new(VERSION_1, "5:cpu:/elsewhere\n", false, &parent.join(NAME));
        assert_eq!(cgroups.step_path("b", "1"), Path::new("/ci/job-1/pushless/b/1"));
        assert!(cgroups.bases.iter().all(|base| base.ends_with("ci/job-1/pushless")), "{:?}", cgroups.bases);
    }

    #[test]
    fn version_1_on_a_host() {
        let own = "2:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/x\n0::/user.slice\n";
        let cgroups = Cgroups::new(VERSION_1, own, false, Path::new(NAME));
        assert_eq!(
            cgroups.bases,
            ["unified/pushless", "cpu,cpuacct/pushless", "systemd/pushless"]
                .map(|path| Path::new("/sys/fs/cgroup").join(path))
        );
        assert_eq!(cgroups.step_path("b", "3"), Path::new("/pushless/b/3"));
        assert!(!cgroups.unified);
    }

    #[test]
    fn version_1_in_a_pod() {
        let own = "2:cpu,cpuacct:/kubepods/pod1/c1\n1:name=systemd:/kubepods/pod1/c1\n0::/\n";
        let cgroups = Cgroups::new(VERSION_1, own, true, Path::new(NAME));
        assert_eq!(
            cgroups.bases,
            [
                "unified/pushless",
                "cpu,cpuacct/kubepods/pod1/c1/pushless",
                "systemd/kubepods/pod1/c1/pushless"
            ]
            .map(|path| Path::new("/sys/fs/cgroup").join(path))
        );
        assert_eq!(cgroups.step_path("b", "3"), Path::new("pushless/b/3"));
    }

    #[test]
    fn a_mounted_subtree_hides_the_path_above_it() {
        let mounts = "31 30 0:27 /kubepods/pod1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let cgroups = Cgroups::new(mounts, "0::/kubepods/pod1/c1\n", true, Path::new(NAME));
        assert_eq!(cgroups.bases, [Path::new("/sys/fs/cgroup/c1/pushless")]);
        assert_eq!(cgroups.step_path("b", "3"), Path::new("/c1/pushless/b/3"));
    }

    #[test]
    fn a_unified_hierarchy() {
        let mounts = "31 30 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        for (own, in_pod, path) in [
            ("0::/init.scope\n", false, "/pushless/b/3"),
            ("0::/\n", true, "/pushless/b/3"),
            ("0::/kubepods.slice/c1\n", true, "/kubepods.slice/c1/pushless/b/3"),
            ("0::/../../elsewhere\n", true, "/pushless/b/3"),
        ] {
            let cgroups = Cgroups::new(mounts, own, in_pod, Path::new(NAME));
            assert!(cgroups.unified);
            assert_eq!(cgroups.step_path("b", "3"), Path::new(path), "{own}");
        }
    }

    #[test]
    fn only_dead_builds_are_collected() {
        let root = tempfile::tempdir().expect("a directory");
        let base = root.path().join(NAME);
        for path in ["live/1", "dead/1/inner", "dead/2"] {
            std::fs::create_dir_all(base.join(path)).expect("a directory");
        }
        let cgroups = Cgroups { bases: vec![base.clone()], runc_base: "/".into(), unified: false };
        cgroups.collect(|build| build == "dead").expect("collected");
        assert!(base.join("live/1").is_dir());
        assert!(!base.join("dead").exists());
        cgroups.remove_build("live").expect("removed");
        assert!(!base.exists());
        cgroups.collect(|_| true).expect("nothing to do");
    }
}
