// SPDX-License-Identifier: Apache-2.0
//! Starts one private containerd with CRI, and stops it so that nothing of it remains.
//!
//! Readiness is an answer (Version and CRI's Status), never a pause. Invariant: everything the node makes lies below its
//! directory, in its cgroup, or in the namespaces that this process entered.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::tonic;
use k8s_cri::v1::StatusRequest;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Channel;

use crate::base_image::BaseImage;
use crate::binaries::ContainerdBinaries;
use crate::config::{self, Config};
use crate::run_directory::{RunDirectory, RunDirectoryError, RunId};
use crate::shim_directory::ShimDirectory;
use crate::teardown::{self, TeardownError};

/// `sizeof(sun_path)` is 108 with the final zero byte (unix(7)).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// Between two looks at a containerd that is starting or stopping.
const POLL: Duration = Duration::from_millis(5);

/// How long a containerd may take to end after `SIGTERM`.
const TERM_LIMIT: Duration = Duration::from_secs(5);

/// How much of the log an error carries.
const LOG_TAIL_BYTES: usize = 4096;

/// How a node is started.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// containerd's programs.
    pub binaries: ContainerdBinaries,
    /// Where the node's directory is made. Short, for a socket's path has a limit, and on a file system that overlayfs
    /// takes as an upper directory. Owned by the calling user and writable by nobody else.
    pub parent_dir: PathBuf,
    /// Give pods a network of their own by CNI; else only pods in the host's network can run.
    pub cni: bool,
    /// containerd's log level.
    pub log_level: &'static str,
    /// How long the node may take until CRI says it is ready.
    pub ready_limit: Duration,
    /// Leave the directory behind when the node stops, for a look at it. Nobody collects it later.
    pub keep: bool,
}

/// A running containerd; stopped and removed when dropped.
#[derive(Debug)]
pub struct Node {
    run: RunDirectory,
    daemon: Child,
    options: NodeOptions,
    start_ms: u64,
    removed: bool,
    /// Released after everything else.
    _shims: ShimDirectory,
}

/// Why a node did not start, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The process is not inside `confine::enter`, so a kill would leave processes and mounts behind.
    #[error("start a node outside of private namespaces")]
    NotConfined,
    /// A network for pods was asked for outside of a private network namespace: its bridge would stay on the host.
    #[error("start a node with CNI outside of a private network namespace")]
    NoPrivateNetwork,
    /// No CNI plugins are installed.
    #[error("find the CNI plugin bridge: not in /usr/lib/cni, /opt/cni/bin or /usr/libexec/cni")]
    NoCniPlugins,
    /// The socket's path would be longer than the kernel takes.
    #[error("place a socket at {}: its path has {length_bytes} bytes, {SOCKET_PATH_MAX_BYTES} at most", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length.
        length_bytes: usize,
    },
    /// The node's directory could not be made or removed.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// A file, a mount or a process of the node could not be made.
    #[error("{operation} {}", path.display())]
    System {
        /// The step that failed.
        operation: &'static str,
        /// The file, directory or program concerned.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// containerd ended before it was ready.
    #[error("start containerd: it ended with {status}\n{log_tail}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log_tail: String,
    },
    /// containerd did not become ready in time.
    #[error("wait {} ms for containerd: {state}\n{log_tail}", limit.as_millis())]
    NotReady {
        /// The limit that passed.
        limit: Duration,
        /// What it answered last.
        state: String,
        /// The end of its log.
        log_tail: String,
    },
    /// The socket did not take a connection.
    #[error("connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The reason.
        #[source]
        source: tonic::transport::Error,
    },
    /// An image could not be imported.
    #[error("import image {reference}: {stderr}")]
    Import {
        /// The image's name.
        reference: String,
        /// What `ctr` said.
        stderr: String,
    },
    /// An imported image did not become visible to pods.
    #[error("wait for CRI to see image {reference} as {wanted}: it has {found:?}")]
    NotVisible {
        /// The image's name.
        reference: String,
        /// The id that was imported.
        wanted: String,
        /// The id that CRI answered last.
        found: Option<String>,
    },
    /// A call was refused.
    #[error("{operation}")]
    Call {
        /// The call.
        operation: &'static str,
        /// containerd's answer.
        #[source]
        source: Box<tonic::Status>,
    },
    /// Something of the node stayed.
    #[error(transparent)]
    Teardown(#[from] TeardownError),
}

impl NodeOptions {
    /// A node with a network for pods, 30 s to start, and nothing kept.
    pub fn new(binaries: ContainerdBinaries, parent_dir: impl Into<PathBuf>) -> Self {
        Self {
            binaries,
            parent_dir: parent_dir.into(),
            cni: true,
            log_level: "info",
            ready_limit: Duration::from_secs(30),
            keep: false,
        }
    }
}

impl Node {
    /// Starts containerd and waits until CRI is ready.
    ///
    /// Must be called inside [`confine::enter`], with a private network if `options.cni`.
    ///
    /// # Errors
    /// [`NodeError`]; whatever had been started or made is gone again.
    pub async fn start(options: NodeOptions) -> Result<Self, NodeError> {
        let began = Instant::now();
        let confinement = confine::entered().ok_or(NodeError::NotConfined)?;
        if options.cni && !confinement.network {
            return Err(NodeError::NoPrivateNetwork);
        }
        let run = RunDirectory::create(&options.parent_dir)?;
        let prepared = prepare(&run, &options).and_then(|()| {
            let shims = ShimDirectory::enter().map_err(at("mount", Path::new("/run/containerd")))?;
            Ok((shims, spawn(&run, &options)?))
        });
        let (shims, daemon) = match prepared {
            Ok(started) => started,
            Err(error) => {
                run.remove()?;
                return Err(error);
            }
        };
        let mut node = Self { run, daemon, options, start_ms: 0, removed: false, _shims: shims };
        node.wait_until_ready(began).await?;
        node.start_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(node)
    }

    /// containerd's gRPC socket, as `CONTAINERD_ADDRESS` wants it.
    pub fn address(&self) -> PathBuf {
        Config::socket(self.run.path())
    }

    /// The node's directory.
    pub fn dir(&self) -> &Path {
        self.run.path()
    }

    /// containerd's persistent data.
    pub fn root(&self) -> PathBuf {
        Config::root(self.run.path())
    }

    /// containerd's volatile data.
    pub fn state(&self) -> PathBuf {
        Config::state(self.run.path())
    }

    /// containerd's log.
    pub fn log_path(&self) -> PathBuf {
        self.run.path().join("containerd.log")
    }

    /// The cgroup that pods must be put into (`linux.cgroup_parent` of a pod sandbox): it is removed with the node.
    pub fn cgroup_parent(&self) -> String {
        self.run.id().cgroup()
    }

    /// The name of this run.
    pub fn run_id(&self) -> &RunId {
        self.run.id()
    }

    /// The programs that the node runs.
    pub fn binaries(&self) -> &ContainerdBinaries {
        &self.options.binaries
    }

    /// Time from the call of [`Node::start`] until CRI was ready, in milliseconds.
    pub fn start_ms(&self) -> u64 {
        self.start_ms
    }

    /// containerd's pid, as this pid namespace numbers it.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// A new connection to the socket.
    ///
    /// # Errors
    /// [`NodeError::Connect`].
    pub async fn channel(&self) -> Result<Channel, NodeError> {
        let path = self.address();
        containerd_client::connect(&path).await.map_err(|source| NodeError::Connect { path, source })
    }

    /// A command that runs this node's `ctr` in the namespace `k8s.io`.
    pub fn ctr(&self) -> Command {
        let mut command = Command::new(self.options.binaries.ctr());
        command.arg("--address").arg(self.address()).args(["--namespace", "k8s.io"]);
        command
    }

    /// Imports a base image and waits until CRI sees it under its name and id.
    ///
    /// # Errors
    /// [`NodeError::Import`] with `ctr`'s words, [`NodeError::NotVisible`] after 10 s.
    pub async fn seed(&self, image: &BaseImage) -> Result<(), NodeError> {
        let archive = self.run.path().join("seed.tar");
        image.write_to(&archive).map_err(at("write", &archive))?;
        let mut import = tokio::process::Command::from(self.ctr());
        import.args(["images", "import", "--digests=false"]).arg(&archive).kill_on_drop(true);
        let output = import.output().await.map_err(at("start", self.options.binaries.ctr()))?;
        fs::remove_file(&archive).map_err(at("remove", &archive))?;
        if !output.status.success() {
            return Err(NodeError::Import {
                reference: image.reference().to_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        self.wait_until_visible(image.reference(), image.id(), Duration::from_secs(10)).await
    }

    /// Waits until CRI's ImageStatus gives `id` for `reference`: CRI learns of images by events, a little later.
    ///
    /// # Errors
    /// [`NodeError::NotVisible`] when `limit` passes.
    pub async fn wait_until_visible(
        &self,
        reference: &str,
        id: &str,
        limit: Duration,
    ) -> Result<(), NodeError> {
        let mut client = ImageServiceClient::new(self.channel().await?);
        let limit = Instant::now() + limit;
        loop {
            let found = image_id(&mut client, reference).await?;
            if found.as_deref() == Some(id) {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(NodeError::NotVisible {
                    reference: reference.to_owned(),
                    wanted: id.to_owned(),
                    found,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Removes all pods and tasks, stops containerd, and removes mounts, cgroups and the directory.
    ///
    /// # Errors
    /// What could not be removed; the rest is gone.
    pub async fn stop(mut self) -> Result<(), NodeError> {
        if let Err(error) = crate::workloads::remove_all(&self).await {
            // Not the end: whatever runs is killed below.
            tracing::warn!("could not remove the pods of {}: {error}", self.run.id());
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id().cast_signed()) {
            // ESRCH: it has ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let limit = Instant::now() + TERM_LIMIT;
        while Instant::now() < limit && matches!(self.daemon.try_wait(), Ok(None)) {
            tokio::time::sleep(POLL).await;
        }
        self.remove()
    }

    /// The end of containerd's log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_else(|error| format!("no log: {error}").into_bytes());
        let tail = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    async fn wait_until_ready(&mut self, began: Instant) -> Result<(), NodeError> {
        loop {
            let ended = self.daemon.try_wait().map_err(at("wait for", self.options.binaries.containerd()))?;
            if let Some(status) = ended {
                return Err(NodeError::Ended { status, log_tail: self.log_tail() });
            }
            let state = match self.readiness().await {
                Ok(()) => return Ok(()),
                Err(state) => state,
            };
            if began.elapsed() > self.options.ready_limit {
                let limit = self.options.ready_limit;
                return Err(NodeError::NotReady { limit, state, log_tail: self.log_tail() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `Err` says in words what is not ready yet.
    async fn readiness(&self) -> Result<(), String> {
        let channel = self.channel().await.map_err(|error| error.to_string())?;
        let mut version = VersionClient::new(channel.clone());
        version.version(()).await.map_err(|status| format!("Version: {}", status.message()))?;
        let mut cri = RuntimeServiceClient::new(channel);
        let status = cri.status(StatusRequest { verbose: false }).await;
        let status = status.map_err(|status| format!("CRI Status: {}", status.message()))?.into_inner();
        let conditions = status.status.unwrap_or_default().conditions;
        for condition in conditions {
            let wanted = condition.r#type == "RuntimeReady"
                || (self.options.cni && condition.r#type == "NetworkReady");
            if wanted && !condition.status {
                return Err(format!("{}: {} {}", condition.r#type, condition.reason, condition.message));
            }
        }
        Ok(())
    }

    /// The synchronous part of stopping: kills what is left and removes every trace.
    fn remove(&mut self) -> Result<(), NodeError> {
        self.removed = true;
        // An error means that it has ended and was waited for.
        let _ = self.daemon.kill();
        self.daemon.wait().map_err(at("wait for", self.options.binaries.containerd()))?;
        teardown::end_processes(&self.run)?;
        teardown::remove_traces(&self.run)?;
        if self.options.keep {
            tracing::info!("kept {}", self.run.path().display());
            self.run.forget()?;
        } else {
            self.run.remove()?;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(error) = self.remove() {
            tracing::warn!("could not remove node {}: {error}", self.run.id());
        }
    }
}

fn prepare(run: &RunDirectory, options: &NodeOptions) -> Result<(), NodeError> {
    let dir = run.path();
    let path = Config::socket(dir);
    let length_bytes = path.as_os_str().len();
    if length_bytes > SOCKET_PATH_MAX_BYTES {
        return Err(NodeError::SocketPath { path, length_bytes });
    }
    let cni_plugins = match (options.cni, options.binaries.cni_dir()) {
        (false, _) => None,
        (true, None) => return Err(NodeError::NoCniPlugins),
        (true, Some(plugins)) => Some(plugins),
    };
    for below in ["tmp", "opt"] {
        let path = dir.join(below);
        fs::create_dir(&path).map_err(at("create directory", &path))?;
    }
    let conf_dir = Config::cni_conf_dir(dir);
    fs::create_dir(&conf_dir).map_err(at("create directory", &conf_dir))?;
    if options.cni {
        let conflist = conf_dir.join("10-shakedown.conflist");
        fs::write(&conflist, config::conflist(dir, run.id())).map_err(at("write", &conflist))?;
    }
    let config = Config {
        version: options.binaries.version().config_version(),
        dir,
        sandbox_image: BaseImage::PAUSE,
        cni_plugins,
        log_level: options.log_level,
    };
    let path = dir.join("config.toml");
    fs::write(&path, config.text()).map_err(at("write", &path))
}

fn spawn(run: &RunDirectory, options: &NodeOptions) -> Result<Child, NodeError> {
    use std::os::unix::process::CommandExt as _;
    let log_path = run.path().join("containerd.log");
    let log = File::create(&log_path).map_err(at("create", &log_path))?;
    let copy = log.try_clone().map_err(at("share", &log_path))?;
    let containerd = options.binaries.containerd();
    Command::new(containerd)
        .arg("--config")
        .arg(run.path().join("config.toml"))
        .env("PATH", options.binaries.search_path())
        .env("TMPDIR", run.path().join("tmp"))
        // A service manager's readiness socket is not for this containerd.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(copy)
        // Ctrl-C is for the starter, which then stops the node in order.
        .process_group(0)
        .spawn()
        .map_err(at("start", containerd))
}

async fn image_id(
    client: &mut ImageServiceClient<Channel>,
    reference: &str,
) -> Result<Option<String>, NodeError> {
    let image = k8s_cri::v1::ImageSpec { image: reference.to_owned(), ..Default::default() };
    let request = k8s_cri::v1::ImageStatusRequest { image: Some(image), verbose: false };
    let answer = client.image_status(request).await.map_err(|source| NodeError::Call {
        operation: "ask CRI for ImageStatus",
        source: Box::new(source),
    })?;
    Ok(answer.into_inner().image.map(|image| image.id))
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NodeError {
    move |source| NodeError::System { operation, path: path.to_owned(), source }
}
