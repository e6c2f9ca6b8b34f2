// SPDX-License-Identifier: Apache-2.0
//! Runs the steps of one build: what all of them share, and what each needs from start to end.
//!
//! One [`Sandbox`] serves a whole build; its steps may run at the same time. It takes a build id, makes cgroups and sets
//! the network up at the first step that needs them, not before, and [`Sandbox::close`] removes all of it. The caller
//! mounts the root and keeps what is written to it.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use super::build_lock::{BuildLock, BuildLockError, is_live};
use super::cgroup::{CgroupError, Cgroups};
use super::hosts;
use super::network::{Network, NetworkError};
use super::output::OutputChunk;
use super::overlay::MountedRoot;
use super::runc::{ContainerPlace, Outcome, Runc, RuncError};
use super::scratch::{Scratch, ScratchError};
use super::spec::{self, DEFAULT_HOSTNAME, ExtraMount, MOUNT_DIRECTORIES, NetworkMode, RunRequest};
use super::stubs::{StubError, StubKind, Stubs};
use super::user::ResolvedUser;
use crate::image::ImagePath;

/// Why a step could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// runc, or the command that it should have executed.
    #[error(transparent)]
    Runc(#[from] RuncError),
    /// Scratch space.
    #[error("prepare the sandbox")]
    Scratch(#[from] ScratchError),
    /// Cgroups.
    #[error("prepare the sandbox")]
    Cgroup(#[from] CgroupError),
    /// The directory of live builds.
    #[error("prepare the sandbox")]
    BuildLock(#[from] BuildLockError),
    /// Mount points in the root.
    #[error("prepare the root")]
    Stub(#[from] StubError),
    /// The network of this build could not be removed. That it could not be made is a notice, not an error.
    #[error("remove the network")]
    Network(#[from] NetworkError),
    /// The OCI types refused a value.
    #[error("make the container's configuration")]
    Spec(#[from] oci_spec::OciSpecError),
    /// A file of the bundle, or one of the host's, could not be used.
    #[error("{operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SandboxError {
    let path = path.to_owned();
    move |source| SandboxError::File { operation, path, source }
}

/// Which network a step asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkChoice {
    /// The build's own behind a bridge; the host's where that cannot be.
    #[default]
    Default,
    /// The host's.
    Host,
    /// None at all.
    None,
}

/// One command to run.
#[derive(Debug, Clone)]
pub struct Step {
    /// Unique in the build, safe as a file name: it names the cgroup.
    pub name: String,
    /// The command; never empty.
    pub argv: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory, which the caller has made.
    pub cwd: ImagePath,
    /// Ids of the process.
    pub user: ResolvedUser,
    /// Host name, when the user gave one.
    pub hostname: Option<String>,
    /// Network.
    pub network: NetworkChoice,
    /// More lines for `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// The step's own mounts, and whether each target is a file or a directory.
    pub mounts: Vec<(ExtraMount, StubKind)>,
}

/// Where a [`Sandbox`] finds what it needs.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Directory for locks and network state, on a tmpfs that is empty after a boot: `/run/pushless`.
    pub run_dir: PathBuf,
    /// runc, when the user gave one.
    pub runc: Option<PathBuf>,
    /// The cgroup that steps belong below, from the root of each hierarchy; see [`Cgroups::discover`].
    pub cgroup_parent: Option<PathBuf>,
    /// Directories to look for CNI plugins in; [`super::network::PLUGIN_DIRECTORIES`] by default.
    pub cni_directories: Vec<PathBuf>,
}

/// What the network of a build turned out to be.
#[derive(Debug)]
enum BuildNetwork {
    Untried,
    Bridge { network: Box<Network>, resolv_conf: String },
    Host,
}

/// The sandbox of one build.
#[derive(Debug)]
pub struct Sandbox {
    options: SandboxOptions,
    scratch: Arc<Scratch>,
    runc: Runc,
    cgroups: Cgroups,
    lock: Arc<BuildLock>,
    network: Mutex<BuildNetwork>,
    notice: std::sync::Mutex<Option<String>>,
}

impl Sandbox {
    /// Finds runc, collects the cgroups of dead builds and makes those of this build.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn new(
        options: SandboxOptions,
        lock: Arc<BuildLock>,
        scratch: Arc<Scratch>,
    ) -> Result<Self, SandboxError> {
        let runc = Runc::discover(options.runc.as_deref())?;
        let cgroups = Cgroups::discover(&options.run_dir, options.cgroup_parent.as_deref())?;
        // A build whose state cannot be told counts as alive: its cgroups cost less than a running build.
        if let Err(error) = cgroups.collect(|build| matches!(is_live(&options.run_dir, build), Ok(false))) {
            tracing::warn!(%error, "cgroups of a dead build are left for a later one to collect");
        }
        cgroups.prepare(lock.id())?;
        let network = Mutex::new(BuildNetwork::Untried);
        Ok(Self { options, scratch, runc, cgroups, lock, network, notice: std::sync::Mutex::default() })
    }

    /// A sentence for the user about a network that is not the one asked for, once.
    pub fn take_notice(&self) -> Option<String> {
        self.notice.lock().expect("invariant: no panic while the notice is locked").take()
    }

    /// Runs one step in `root` until it ends or `cancel` completes. After a success the root holds what the command
    /// wrote and nothing else.
    ///
    /// # Errors
    /// [`SandboxError`]; a command that ran and failed is an [`Outcome`].
    pub async fn run(
        &self,
        root: &MountedRoot,
        step: &Step,
        output: mpsc::Sender<OutputChunk>,
        cancel: impl Future<Output = ()>,
    ) -> Result<Outcome, SandboxError> {
        let (network, resolv_conf) = self.network(step.network).await?;
        let bundle = self.scratch.bundle()?;
        let hostname = step.hostname.clone().unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned());
        let hosts_text = hosts::hosts_file(&hostname, &step.extra_hosts);
        let mut mounts = Vec::new();
        let mut targets: Vec<_> =
            MOUNT_DIRECTORIES.iter().map(|path| (ImagePath::new(path), StubKind::Directory)).collect();
        for (name, text) in [("resolv.conf", resolv_conf), ("hosts", hosts_text)] {
            let path = bundle.join(name);
            std::fs::write(&path, text).map_err(at("write", &path))?;
            let target = ImagePath::new("/etc").join(name);
            targets.push((target.clone(), StubKind::File));
            mounts.push(ExtraMount::read_only(path, target));
        }
        for (mount, kind) in &step.mounts {
            targets.push((mount.target.clone(), *kind));
            mounts.push(mount.clone());
        }
        let request = RunRequest {
            argv: step.argv.clone(),
            env: step.env.clone(),
            cwd: step.cwd.clone(),
            user: step.user.clone(),
            hostname,
            network,
            cgroup_path: self.cgroups.step_path(self.lock.id(), &step.name),
            cgroup_namespace: self.cgroups.namespace_supported(),
            rootfs: root.path().to_owned(),
            mounts,
        };
        let config = bundle.join("config.json");
        let text = serde_json::to_vec(&spec::runtime_spec(&request)?)
            .map_err(|error| at("write", &config)(error.into()))?;
        std::fs::write(&config, text).map_err(at("write", &config))?;
        let stubs = Stubs::place(root.fd().as_fd(), &targets)?;
        // Unique among the containers of this scratch space, whose runc state no other build sees.
        let id = format!("pushless-{}-{}", self.lock.id(), step.name);
        let state = self.scratch.runc_state();
        let place = ContainerPlace {
            state: &state,
            bundle: &bundle,
            id: &id,
            cgroups: &self.cgroups,
            build: self.lock.id(),
            step: &step.name,
        };
        let outcome = self.runc.run(place, output, cancel).await?;
        stubs.remove(root.fd().as_fd())?;
        std::fs::remove_dir_all(&bundle).map_err(at("remove", &bundle))?;
        Ok(outcome)
    }

    /// The network for a step, and the `/etc/resolv.conf` that goes with it.
    async fn network(&self, choice: NetworkChoice) -> Result<(NetworkMode, String), SandboxError> {
        let host_resolv_conf = || match std::fs::read_to_string("/etc/resolv.conf") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other.map_err(at("read", Path::new("/etc/resolv.conf"))),
        };
        match choice {
            NetworkChoice::Host => return Ok((NetworkMode::Host, host_resolv_conf()?)),
            NetworkChoice::None => return Ok((NetworkMode::None, host_resolv_conf()?)),
            NetworkChoice::Default => {}
        }
        let mut network = self.network.lock().await;
        if matches!(*network, BuildNetwork::Untried) {
            *network = self.set_up(host_resolv_conf()?).await;
        }
        match &*network {
            BuildNetwork::Bridge { network, resolv_conf } => {
                Ok((NetworkMode::Bridge(network.namespace().to_owned()), resolv_conf.clone()))
            }
            BuildNetwork::Untried | BuildNetwork::Host => Ok((NetworkMode::Host, host_resolv_conf()?)),
        }
    }

    async fn set_up(&self, host_resolv_conf: String) -> BuildNetwork {
        let upstream = std::fs::read_to_string(hosts::RESOLVED_UPSTREAM).ok();
        let Some(resolv_conf) = hosts::bridged_resolv_conf(&host_resolv_conf, upstream.as_deref()) else {
            self.tell(
                "every name server of this host is on a loopback or IPv6 address, out of a bridge's reach",
            );
            return BuildNetwork::Host;
        };
        let (options, scratch) = (self.options.clone(), Arc::clone(&self.scratch));
        let build = self.lock.id().to_owned();
        let made = tokio::task::spawn_blocking(move || {
            Network::up(&options.run_dir, &build, scratch.network_namespace(), &options.cni_directories)
        });
        match made.await.expect("invariant: setting a network up does not panic") {
            Ok(network) => BuildNetwork::Bridge { network: Box::new(network), resolv_conf },
            Err(error) => {
                self.tell(&chain(&error));
                BuildNetwork::Host
            }
        }
    }

    fn tell(&self, reason: &str) {
        let text = format!("RUN uses the host's network: {reason}");
        *self.notice.lock().expect("invariant: no panic while the notice is locked") = Some(text);
    }

    /// Removes the build's network and cgroups. The scratch space and the lock stay with the caller.
    ///
    /// # Errors
    /// [`SandboxError`]; a later build collects what is left.
    pub async fn close(self) -> Result<(), SandboxError> {
        if let BuildNetwork::Bridge { network, .. } = self.network.into_inner() {
            tokio::task::spawn_blocking(move || network.down())
                .await
                .expect("invariant: removing a network does not panic")?;
        }
        self.cgroups.remove_build(self.lock.id())?;
        Ok(())
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
