// SPDX-License-Identifier: Apache-2.0
//! What one `RUN` needs, as the OCI `config.json` that runc reads.
//!
//! Pure. The container is BuildKit's (`executor/oci/spec*.go` as of 0.30, which starts from containerd's default spec):
//! fresh pid, mount, ipc and uts namespaces; containerd's default mounts without `/run`; masked and read-only
//! paths of `/proc` and `/sys`; fourteen capabilities that a user other than root loses at `execve`; no limits, no
//! terminal, and `no_new_privileges` unset, so `sudo` and set-user-id programs work. A seccomp filter is not set.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceCgroupBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxResourcesBuilder, Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};

use super::user::ResolvedUser;
use crate::image::ImagePath;

/// The host name that BuildKit gives to a `RUN`; programs bake it into what they write, so it is the same here.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Which network a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// The network namespace bound at this path.
    Bridge(PathBuf),
    /// The host's.
    Host,
    /// A new one with nothing but its loopback interface.
    None,
}

/// One more mount of a container, such as a secret or a cache directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraMount {
    /// Where, in the container.
    pub target: ImagePath,
    /// File system type as runc wants it: `bind`, `tmpfs`.
    pub kind: &'static str,
    /// A host path for `bind`, any word otherwise.
    pub source: PathBuf,
    /// Options in runc's words.
    pub options: Vec<String>,
}

impl ExtraMount {
    /// A read-only bind mount of a file or a tree.
    pub fn read_only(source: impl Into<PathBuf>, target: ImagePath) -> Self {
        let options = ["nosuid", "noexec", "nodev", "rbind", "ro"].map(str::to_owned).to_vec();
        Self { target, kind: "bind", source: source.into(), options }
    }
}

/// Everything that goes into one container's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// The command; never empty.
    pub argv: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory; must exist in the root, else runc makes it as root's.
    pub cwd: ImagePath,
    /// Ids of the process.
    pub user: ResolvedUser,
    /// Host name; [`DEFAULT_HOSTNAME`] unless the user says otherwise.
    pub hostname: String,
    /// Network.
    pub network: NetworkMode,
    /// Cgroup, as runc's `cgroupsPath`: absolute from the root of each hierarchy, relative from runc's own cgroup.
    pub cgroup_path: PathBuf,
    /// Whether to give the container a cgroup namespace. BuildKit does so on a unified hierarchy only, for the
    /// others answer `EINVAL` on hosts with unusual hierarchies (moby/buildkit#4108).
    pub cgroup_namespace: bool,
    /// The mounted root file system on the host.
    pub rootfs: PathBuf,
    /// Mounts after the default ones: hosts, resolv.conf, and the step's own.
    pub mounts: Vec<ExtraMount>,
}

/// Bounding, effective and permitted set: `a80425fb`.
const CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Target, type, source, options.
type DefaultMount = (&'static str, &'static str, &'static str, &'static [&'static str]);

const MOUNTS: [DefaultMount; 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
];

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The directories of a container's root that the default mounts need; the others lie inside these.
pub const MOUNT_DIRECTORIES: [&str; 3] = ["/proc", "/dev", "/sys"];

/// The configuration of one container.
///
/// # Errors
/// When a builder of the OCI types refuses a value, which their present version does for no value given here.
pub fn runtime_spec(request: &RunRequest) -> Result<Spec, OciSpecError> {
    let user = UserBuilder::default()
        .uid(request.user.uid)
        .gid(request.user.gid)
        .additional_gids(request.user.supplementary.clone())
        .build()?;
    let held: HashSet<Capability> = CAPABILITIES.into();
    let none = HashSet::new();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(held.clone())
        .effective(held.clone())
        .permitted(held)
        .inheritable(none.clone())
        .ambient(none)
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(request.argv.clone())
        .env(request.env.clone())
        .cwd(PathBuf::from(request.cwd.to_os_string()))
        .capabilities(capabilities)
        .no_new_privileges(false)
        .build()?;
    // The type's own default is a limit of 1024 open files; the builder cannot say "none".
    process.set_rlimits(None);
    let root = RootBuilder::default().path(request.rootfs.clone()).readonly(false).build()?;
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .process(process)
        .hostname(request.hostname.clone())
        .mounts(mounts(request)?)
        .linux(linux(request)?)
        .build()?;
    spec.set_annotations(None);
    Ok(spec)
}

fn mounts(request: &RunRequest) -> Result<Vec<Mount>, OciSpecError> {
    let build = |target: &Path, kind: &str, source: &Path, options: Vec<String>| {
        MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()
    };
    let default = MOUNTS.into_iter().map(|(target, kind, source, options)| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        build(Path::new(target), kind, Path::new(source), options)
    });
    let extra = request.mounts.iter().map(|mount| {
        build(Path::new(&mount.target.to_os_string()), mount.kind, &mount.source, mount.options.clone())
    });
    default.chain(extra).collect()
}

fn linux(request: &RunRequest) -> Result<oci_spec::runtime::Linux, OciSpecError> {
    let mut wanted = vec![
        (LinuxNamespaceType::Pid, None),
        (LinuxNamespaceType::Mount, None),
        (LinuxNamespaceType::Ipc, None),
        (LinuxNamespaceType::Uts, None),
    ];
    match &request.network {
        NetworkMode::Bridge(path) => wanted.push((LinuxNamespaceType::Network, Some(path))),
        NetworkMode::None => wanted.push((LinuxNamespaceType::Network, None)),
        NetworkMode::Host => {}
    }
    if request.cgroup_namespace {
        wanted.push((LinuxNamespaceType::Cgroup, None));
    }
    let namespaces = wanted
        .into_iter()
        .map(|(kind, path)| {
            let builder = LinuxNamespaceBuilder::default().typ(kind);
            match path {
                Some(path) => builder.path(path.as_path()),
                None => builder,
            }
            .build()
        })
        .collect::<Result<Vec<_>, _>>()?;
    // Deny first; runc adds the devices that every container may use.
    let devices = vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?];
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(LinuxResourcesBuilder::default().devices(devices).build()?)
        .cgroups_path(request.cgroup_path.clone())
        .masked_paths(MASKED.map(str::to_owned).to_vec())
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
        .build()?;
    linux.set_seccomp(None).set_devices(None);
    Ok(linux)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RunRequest {
        RunRequest {
            argv: ["/bin/sh", "-c", "make"].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned(), "A=b c".to_owned()],
            cwd: ImagePath::new("/src"),
            user: ResolvedUser { uid: 1000, gid: 2000, supplementary: vec![2000, 44], home: "/".to_owned() },
            hostname: DEFAULT_HOSTNAME.to_owned(),
            network: NetworkMode::Bridge("/run/net".into()),
            cgroup_path: "/pushless/0123456789ab/4".into(),
            cgroup_namespace: true,
            rootfs: "/run/root".into(),
            mounts: vec![ExtraMount::read_only("/run/hosts", ImagePath::new("/etc/hosts"))],
        }
    }

    /// The OCI types hold capabilities in a set without order.
    fn json(request: &RunRequest) -> serde_json::Value {
        let mut value =
            serde_json::to_value(runtime_spec(request).expect("a configuration")).expect("serialisable");
        let sets = value["process"]["capabilities"].as_object_mut().expect("an object");
        for set in sets.values_mut() {
            set.as_array_mut().expect("a list").sort_by_key(ToString::to_string);
        }
        value
    }

    #[test]
    fn the_whole_configuration() {
        let text = serde_json::to_string_pretty(&json(&request())).expect("serialisable");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_capabilities_are_those_of_the_reference() {
        let bits = |capability: Capability| match capability {
            Capability::Chown => 0,
            Capability::DacOverride => 1,
            Capability::Fowner => 3,
            Capability::Fsetid => 4,
            Capability::Kill => 5,
            Capability::Setgid => 6,
            Capability::Setuid => 7,
            Capability::Setpcap => 8,
            Capability::NetBindService => 10,
            Capability::NetRaw => 13,
            Capability::SysChroot => 18,
            Capability::Mknod => 27,
            Capability::AuditWrite => 29,
            Capability::Setfcap => 31,
            other => unreachable!("{other:?} is not in the set"),
        };
        let mask = CAPABILITIES.into_iter().fold(0_u32, |mask, capability| mask | 1 << bits(capability));
        assert_eq!(format!("{mask:x}"), "a80425fb");
    }

    #[test]
    fn networks_are_namespaces() {
        for (network, namespace) in [
            (NetworkMode::Host, None),
            (NetworkMode::None, Some(serde_json::json!({"type": "network"}))),
            (
                NetworkMode::Bridge("/n/1".into()),
                Some(serde_json::json!({"type": "network", "path": "/n/1"})),
            ),
        ] {
            let value = json(&RunRequest { network, ..request() });
            let namespaces = value["linux"]["namespaces"].as_array().expect("a list").clone();
            assert_eq!(namespaces.into_iter().find(|found| found["type"] == "network"), namespace);
        }
    }
}
