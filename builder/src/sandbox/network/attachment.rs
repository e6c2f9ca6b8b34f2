// SPDX-License-Identifier: Apache-2.0
//! Attaches a build to the bridge and detaches it.
//!
//! All builds share one bridge, one subnet and one directory of address leases below `<run_dir>/network`, changed only
//! under its lock. `attached/<build>` is written before an address is asked for, so whatever a killed build leaves has a
//! name; the next build to attach releases it.
//!
//! Bridge and packet filter rules stay when the last build detaches, as those of other container tools do: to remove them
//! takes 50 to 90 ms, to make them again 10 to 20 ms, and a build with one `RUN` takes about as long. [`remove_unused`]
//! removes them, and a boot does. Two builds at once cannot take the network from each other: an attached build that
//! lives keeps all of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::build_lock::{BuildLockError, is_live, run_dir_suffix};
use super::cni::{Plugins, Verb};
use super::link::{self, Namespace};
use super::masquerade;
use super::subnet::Subnet;

/// Name of the bridge's link, before the run directory's suffix; the kernel allows 15 bytes.
fn bridge_name(run_dir: &Path) -> String {
    match run_dir_suffix(run_dir).as_str() {
        "" => "pushless0".to_owned(),
        suffix => format!("pushl{suffix}"),
    }
}

/// Where CNI plugins are: the specification's place, Debian's, Fedora's, and those of Kubernetes distributions.
pub const PLUGIN_DIRECTORIES: [&str; 6] = [
    "/opt/cni/bin",
    "/usr/lib/cni",
    "/usr/libexec/cni",
    "/var/lib/rancher/k3s/data/current/bin",
    "/var/lib/rancher/k3s/data/cni",
    "/snap/microk8s/current/opt/cni/bin",
];

/// Why the network of a build could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Not one directory with the plugins.
    #[error(
        "find the CNI plugins bridge and host-local in {}",
        .looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoPlugins {
        /// Directories looked at.
        looked_at: Vec<PathBuf>,
    },
    /// Every candidate overlaps a route of the host.
    #[error("find a subnet that no route of this host overlaps")]
    NoSubnet,
    /// A plugin answered with an error.
    #[error("run the CNI plugin bridge: {message}")]
    Plugin {
        /// Its message.
        message: String,
    },
    /// iptables refused the rules.
    #[error("set packet filter rules: {message}")]
    PacketFilter {
        /// Its message.
        message: String,
    },
    /// The locks of builds cannot be read.
    #[error("tell live builds from dead ones")]
    BuildLock(#[from] BuildLockError),
    /// A file, program or link could not be used.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Its name.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError {
    let path = path.to_owned();
    move |source| NetworkError::System { operation, path, source }
}

/// The network of one build. [`Network::down`] removes it; when dropped, only what the kernel removes by itself goes, and
/// the rest is left to the next build.
#[derive(Debug)]
pub struct Network {
    state: StateDirectory,
    build: String,
    plugins: Plugins,
    config: serde_json::Value,
    namespace: Namespace,
}

impl Network {
    /// Makes a network namespace at `namespace` and attaches it to the bridge. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// [`NetworkError`]; nothing of this build is left then.
    pub fn up(
        run_dir: &Path,
        build: &str,
        namespace: PathBuf,
        directories: &[PathBuf],
    ) -> Result<Self, NetworkError> {
        let plugins = Plugins::discover(directories)?;
        let state = StateDirectory::new(run_dir);
        let _locked = state.lock()?;
        let namespace = Namespace::new(namespace)?;
        let alone = state.release_dead(&plugins)?;
        let made = state.raise_bridge(alone).and_then(|subnet| {
            let config = state.config(subnet);
            state.attach(build)?;
            plugins.bridge(Verb::Add, build, namespace.path(), &config)?;
            Ok(config)
        });
        match made {
            Ok(config) => Ok(Self { state, build: build.to_owned(), plugins, config, namespace }),
            Err(error) => {
                // The cause matters more than what cannot be tidied up after it; the next build tries again.
                if let Err(error) = state.detach(build).and_then(|()| state.remove_if_unused(build).map(drop))
                {
                    tracing::warn!(%error, "a network that could not be made is not removed");
                }
                Err(error)
            }
        }
    }

    /// Gives back the addresses of builds that died attached; the bridge stays, as after any build. Does nothing where
    /// no build was ever attached.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn collect(run_dir: &Path, directories: &[PathBuf]) -> Result<(), NetworkError> {
        let state = StateDirectory::new(run_dir);
        if !state.root.is_dir() {
            return Ok(());
        }
        let plugins = Plugins::discover(directories)?;
        let _locked = state.lock()?;
        state.release_dead(&plugins).map(drop)
    }

    /// The path of the namespace, for the OCI configuration.
    pub fn namespace(&self) -> &Path {
        self.namespace.path()
    }

    /// Detaches this build and gives its address back.
    ///
    /// # Errors
    /// [`NetworkError`]; the next build releases what is left.
    pub fn down(self) -> Result<(), NetworkError> {
        let _locked = self.state.lock()?;
        if self.state.attached()?.iter().all(|build| *build == self.build) {
            self.state.forget_leases()?;
        } else {
            // The interface goes with the namespace; what has to be given back is the address.
            self.plugins.bridge(Verb::Del, &self.build, Path::new(""), &self.config)?;
        }
        self.state.detach(&self.build)
    }
}

/// Removes the bridge, its rules and `<run_dir>/network`, unless a live build is attached; whether they are gone now.
/// `build` is the caller's id.
///
/// # Errors
/// [`NetworkError`].
pub fn remove_unused(run_dir: &Path, build: &str) -> Result<bool, NetworkError> {
    let state = StateDirectory::new(run_dir);
    if !state.root.exists() {
        return Ok(true);
    }
    let _locked = state.lock()?;
    state.remove_if_unused(build)
}

/// `<run_dir>/network`.
#[derive(Debug)]
struct StateDirectory {
    run_dir: PathBuf,
    root: PathBuf,
    bridge: String,
}

impl StateDirectory {
    fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), root: run_dir.join("network"), bridge: bridge_name(run_dir) }
    }

    /// Locks the directory, making it when absent. The lock goes with the directory, so a lock on one that was removed
    /// in the meantime is none.
    fn lock(&self) -> Result<File, NetworkError> {
        let path = self.root.join("lock");
        loop {
            let attached = self.root.join("attached");
            std::fs::create_dir_all(&attached).map_err(at("make directory", &attached))?;
            let file = match OpenOptions::new().write(true).create(true).truncate(false).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(at("open", &path))?,
            };
            file.lock().map_err(at("lock", &path))?;
            if file.metadata().map_err(at("look at", &path))?.nlink() == 1 && attached.is_dir() {
                return Ok(file);
            }
        }
    }

    /// Configuration of the plugin for every build of this bridge.
    fn config(&self, subnet: Subnet) -> serde_json::Value {
        serde_json::json!({
            "cniVersion": "0.4.0",
            "name": "pushless",
            "type": "bridge",
            "bridge": self.bridge,
            "isGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": self.root.join("leases"),
                "ranges": [[{"subnet": subnet.to_string()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        })
    }

    /// The subnet of the bridge, if there is one.
    fn subnet(&self) -> Result<Option<Subnet>, NetworkError> {
        let path = self.root.join("subnet");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Subnet::parse(text.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// Makes the rules of the bridge, whose link the plugin makes, unless they are there. What an earlier build left is
    /// made anew when `alone` and somebody has taken the subnet or the rules away since.
    fn raise_bridge(&self, alone: bool) -> Result<Subnet, NetworkError> {
        let routes = Path::new("/proc/net/route");
        let routes = std::fs::read_to_string(routes).map_err(at("read", routes))?;
        if let Some(subnet) = self.subnet()? {
            if !alone || (subnet.is_free(&routes, &self.bridge) && masquerade::present(&self.bridge, subnet)?)
            {
                return Ok(subnet);
            }
            if let Err(error) = self.dismantle() {
                tracing::debug!(%error, "the network that earlier builds left was not whole");
            }
        }
        let subnet = Subnet::choose(&routes, &self.bridge).ok_or(NetworkError::NoSubnet)?;
        // The record comes first: rules without one could not be found again.
        let path = self.root.join("subnet");
        std::fs::write(&path, subnet.to_string()).map_err(at("write", &path))?;
        masquerade::add(&self.bridge, subnet)?;
        Ok(subnet)
    }

    fn attached(&self) -> Result<Vec<String>, NetworkError> {
        let path = self.root.join("attached");
        let mut builds = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(at("list", &path))? {
            let name = entry.map_err(at("list", &path))?.file_name();
            builds.push(name.to_string_lossy().into_owned());
        }
        Ok(builds)
    }

    fn attach(&self, build: &str) -> Result<(), NetworkError> {
        let path = self.root.join("attached").join(build);
        std::fs::write(&path, "").map_err(at("write", &path))
    }

    fn detach(&self, build: &str) -> Result<(), NetworkError> {
        absent(std::fs::remove_file, &self.root.join("attached").join(build))
    }

    /// Gives back the addresses of builds that died attached; their interfaces went with their namespaces. Whether no live
    /// build is attached.
    fn release_dead(&self, plugins: &Plugins) -> Result<bool, NetworkError> {
        let mut dead = Vec::new();
        let mut alone = true;
        for build in self.attached()? {
            if is_live(&self.run_dir, &build)? {
                alone = false;
            } else {
                dead.push(build);
            }
        }
        if alone {
            self.forget_leases()?;
        }
        let subnet = self.subnet()?;
        for build in &dead {
            if let Some(subnet) = subnet.filter(|_| !alone) {
                plugins.bridge(Verb::Del, build, Path::new(""), &self.config(subnet))?;
            }
            self.detach(build)?;
        }
        Ok(alone)
    }

    /// Gives back all addresses at once.
    fn forget_leases(&self) -> Result<(), NetworkError> {
        absent(std::fs::remove_dir_all, &self.root.join("leases"))
    }

    /// Removes everything, and the directory too, when no live build is attached.
    fn remove_if_unused(&self, build: &str) -> Result<bool, NetworkError> {
        for other in self.attached()? {
            if is_live(&self.run_dir, &other)? {
                return Ok(false);
            }
        }
        let dismantled = self.dismantle();
        // A build that is waiting for the lock makes the directory anew as soon as it is gone from here.
        let aside = self.run_dir.join(format!("network-{build}"));
        std::fs::rename(&self.root, &aside).map_err(at("move aside", &self.root))?;
        std::fs::remove_dir_all(&aside).map_err(at("remove", &aside))?;
        dismantled.map(|()| true)
    }

    /// Removes bridge, rules, leases and the record of the subnet; goes on after an error and returns the first.
    fn dismantle(&self) -> Result<(), NetworkError> {
        let bridge = link::remove_bridge(&self.bridge).map_err(at("remove bridge", Path::new(&self.bridge)));
        let rules = self.subnet().and_then(|subnet| match subnet {
            Some(subnet) => masquerade::remove(&self.bridge, subnet),
            None => Ok(()),
        });
        let leases = self.forget_leases();
        let record = absent(std::fs::remove_file, &self.root.join("subnet"));
        bridge.and(rules).and(leases).and(record)
    }
}

/// Removes `path`; that it does not exist is no error.
fn absent(remove: impl FnOnce(PathBuf) -> io::Result<()>, path: &Path) -> Result<(), NetworkError> {
    match remove(path.to_owned()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}
