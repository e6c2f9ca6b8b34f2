// SPDX-License-Identifier: Apache-2.0
//! Runs pods by the calls that a kubelet makes: ImageStatus, RunPodSandbox, CreateContainer with the image's *id*,
//! StartContainer, ContainerStatus, StopPodSandbox, RemovePodSandbox (Kubernetes 1.34, `pkg/kubelet/kuberuntime`).
//!
//! Invariant: a pod that was begun is removed, however its run ends. PullImage is never called.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ImageSpec, ImageStatusRequest, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RemoveImageRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest,
};
use tonic::transport::Channel;

use super::{ContainerLog, PodError, PodOutcome, PodPhases, PodRequest};

/// Between two looks at a container's state.
const POLL: Duration = Duration::from_millis(2);

/// How long the removal of a pod may take after its run has ended or failed.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);

/// The container's name in its pod, and its log's.
const CONTAINER: &str = "main";
const LOG_FILE: &str = "main.log";

/// What a kubelet hides of `/proc` and `/sys` from an unprivileged container (Kubernetes 1.34, `pkg/securitycontext`).
const MASKED_PATHS: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// What it makes read-only (same place).
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A connection to CRI that runs pods.
#[derive(Debug, Clone)]
pub struct PodRuntime {
    channel: Channel,
    cgroup_parent: String,
    log_parent: PathBuf,
}

/// What CRI tells of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The digest of its config.
    pub id: String,
    /// Its names, in full form.
    pub repo_tags: Vec<String>,
    /// Its names by digest.
    pub repo_digests: Vec<String>,
    /// The size of its blobs in bytes.
    pub size_bytes: u64,
    /// The user that its programs run as, when it is a number.
    pub uid: Option<i64>,
    /// The user that its programs run as, when it is a name; else empty.
    pub username: String,
}

impl PodRuntime {
    /// Connects to the socket at `address`. Pods get the runtime's own cgroup and logs in the temporary directory.
    ///
    /// # Errors
    /// [`PodError::Connect`].
    pub async fn connect(address: &Path) -> Result<Self, PodError> {
        let channel = containerd_client::connect(address)
            .await
            .map_err(|source| PodError::Connect { address: address.to_owned(), source })?;
        Ok(Self { channel, cgroup_parent: String::new(), log_parent: std::env::temp_dir() })
    }

    /// Puts pods below this cgroup, which someone else removes.
    #[must_use]
    pub fn with_cgroup_parent(mut self, cgroup_parent: impl Into<String>) -> Self {
        self.cgroup_parent = cgroup_parent.into();
        self
    }

    /// Makes the directories of logs below this one, which someone else removes.
    #[must_use]
    pub fn with_log_parent(mut self, log_parent: impl Into<PathBuf>) -> Self {
        self.log_parent = log_parent.into();
        self
    }

    /// What CRI knows of an image, `None` if it does not know it. One call, no waiting.
    ///
    /// # Errors
    /// [`PodError::Call`].
    pub async fn image_status(&self, reference: &str) -> Result<Option<ImageFacts>, PodError> {
        let request = ImageStatusRequest { image: Some(image_spec(reference)), verbose: false };
        let answer = ImageServiceClient::new(self.channel.clone())
            .image_status(request)
            .await
            .map_err(PodError::call("ask CRI for ImageStatus"))?;
        Ok(answer.into_inner().image.map(|image| ImageFacts {
            id: image.id,
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            size_bytes: image.size,
            uid: image.uid.map(|uid| uid.value),
            username: image.username,
        }))
    }

    /// Makes CRI forget an image, as the kubelet's garbage collection does. An absent one is no error.
    ///
    /// # Errors
    /// [`PodError::Call`].
    pub async fn remove_image(&self, reference: &str) -> Result<(), PodError> {
        let request = RemoveImageRequest { image: Some(image_spec(reference)) };
        ImageServiceClient::new(self.channel.clone())
            .remove_image(request)
            .await
            .map_err(PodError::call("ask CRI for RemoveImage"))?;
        Ok(())
    }

    /// Runs a pod until its container ends, and removes it.
    ///
    /// # Errors
    /// [`PodError`]. The pod is removed in any case, unless this future is dropped half-way.
    pub async fn run_pod(&self, request: &PodRequest) -> Result<PodOutcome, PodError> {
        let deadline = Deadline::new(request);
        let mut phases = PodPhases::default();
        let mut clock = Instant::now();
        let image = deadline
            .hold("ask for the image", self.image_status(&request.reference))
            .await??
            .ok_or_else(|| PodError::ImageAbsent { reference: request.reference.clone() })?;
        if let Some(expected) = &request.expected_image_id
            && *expected != image.id
        {
            return Err(PodError::WrongImage {
                reference: request.reference.clone(),
                expected: expected.clone(),
                found: image.id,
            });
        }
        phases.image_status = lap(&mut clock);
        let log_dir = tempfile::Builder::new()
            .prefix("pod-")
            .tempdir_in(&self.log_parent)
            .map_err(|source| PodError::LogDirectory { name: request.name.clone(), source })?;
        let sandbox = self.sandbox_config(request, log_dir.path());
        let mut cri = RuntimeServiceClient::new(self.channel.clone());
        let run = RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: String::new() };
        // Not under the deadline: CRI would go on making a sandbox that no one here knows of. It has limits of its own.
        let sandbox_id = cri
            .run_pod_sandbox(run)
            .await
            .map_err(|source| PodError::SandboxFailed {
                name: request.name.clone(),
                source: Box::new(source),
            })?
            .into_inner()
            .pod_sandbox_id;
        phases.sandbox = lap(&mut clock);
        let ended =
            self.run_container(request, &image.id, sandbox, &sandbox_id, &deadline, &mut phases).await;
        // The log is complete when the container has ended, and goes with the sandbox.
        let log = ContainerLog::read(&log_dir.path().join(LOG_FILE));
        clock = Instant::now();
        let removed = self.remove_pod(&request.name, &sandbox_id).await;
        phases.remove = lap(&mut clock);
        let status = ended?;
        let log = log?;
        removed?;
        Ok(PodOutcome {
            phases,
            exit_code: status.exit_code,
            stdout: log.stdout,
            stderr: log.stderr,
            image_id_seen: image.id,
        })
    }

    async fn run_container(
        &self,
        request: &PodRequest,
        image_id: &str,
        sandbox: PodSandboxConfig,
        sandbox_id: &str,
        deadline: &Deadline<'_>,
        phases: &mut PodPhases,
    ) -> Result<ContainerStatus, PodError> {
        let mut cri = RuntimeServiceClient::new(self.channel.clone());
        let mut clock = Instant::now();
        let create = CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(container_config(request, image_id)),
            sandbox_config: Some(sandbox),
        };
        let created = deadline.hold("create its container", cri.create_container(create)).await?;
        let container_id = created
            .map_err(|source| PodError::CreateFailed {
                name: request.name.clone(),
                source: Box::new(source),
            })?
            .into_inner()
            .container_id;
        phases.create = lap(&mut clock);
        let start = StartContainerRequest { container_id: container_id.clone() };
        deadline.hold("start its container", cri.start_container(start)).await?.map_err(|source| {
            PodError::StartFailed { name: request.name.clone(), source: Box::new(source) }
        })?;
        phases.start = lap(&mut clock);
        let mut ran = false;
        loop {
            let ask = ContainerStatusRequest { container_id: container_id.clone(), verbose: false };
            let answer = deadline.hold("wait for its container", cri.container_status(ask)).await?;
            let status = answer.map_err(PodError::call("ask CRI for ContainerStatus"))?.into_inner().status;
            let status = status.unwrap_or_default();
            let (running, exited) = match status.state() {
                ContainerState::ContainerRunning => (true, false),
                ContainerState::ContainerExited => (true, true),
                ContainerState::ContainerCreated | ContainerState::ContainerUnknown => (false, false),
            };
            if running && !ran {
                ran = true;
                phases.running = lap(&mut clock);
            }
            if exited {
                phases.exited = lap(&mut clock);
                return Ok(status);
            }
            deadline.hold("wait for its container", tokio::time::sleep(POLL)).await?;
        }
    }

    /// StopPodSandbox kills what still runs; both calls may be repeated, and know no absent pod as an error.
    async fn remove_pod(&self, name: &str, sandbox_id: &str) -> Result<(), PodError> {
        let mut cri = RuntimeServiceClient::new(self.channel.clone());
        let id = sandbox_id.to_owned();
        let removal = async {
            cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() })
                .await
                .map_err(PodError::call("ask CRI for StopPodSandbox"))?;
            cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id })
                .await
                .map_err(PodError::call("ask CRI for RemovePodSandbox"))
        };
        let late = |_| PodError::Timeout { name: name.to_owned(), limit: REMOVE_LIMIT, phase: "be removed" };
        tokio::time::timeout(REMOVE_LIMIT, removal).await.map_err(late)?.map(drop)
    }

    fn sandbox_config(&self, request: &PodRequest, log_dir: &Path) -> PodSandboxConfig {
        /// A kubelet gives every pod a uid of its own; CRI refuses a second pod with the same name and uid.
        static PODS: AtomicU64 = AtomicU64::new(0);
        let uid = format!("{}-{}", std::process::id(), PODS.fetch_add(1, Ordering::Relaxed));
        let labels = [
            ("io.kubernetes.pod.name", request.name.clone()),
            ("io.kubernetes.pod.namespace", "default".to_owned()),
            ("io.kubernetes.pod.uid", uid.clone()),
        ];
        let metadata = PodSandboxMetadata {
            name: request.name.clone(),
            uid,
            namespace: "default".to_owned(),
            attempt: 0,
        };
        let security_context = LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(request)),
            ..Default::default()
        };
        PodSandboxConfig {
            metadata: Some(metadata),
            // A pod in the node's network has the node's host name.
            hostname: if request.host_network { String::new() } else { request.name.clone() },
            log_directory: log_dir.to_string_lossy().into_owned(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                security_context: Some(security_context),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn container_config(request: &PodRequest, image_id: &str) -> ContainerConfig {
    let security_context = LinuxContainerSecurityContext {
        namespace_options: Some(namespaces(request)),
        masked_paths: MASKED_PATHS.map(str::to_owned).into(),
        readonly_paths: READONLY_PATHS.map(str::to_owned).into(),
        ..Default::default()
    };
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: CONTAINER.to_owned(), attempt: 0 }),
        // A kubelet resolves the name once and creates the container from the id (imageRef).
        image: Some(ImageSpec { user_specified_image: request.reference.clone(), ..image_spec(image_id) }),
        command: request.command.clone().unwrap_or_default(),
        args: request.args.clone().unwrap_or_default(),
        working_dir: request.working_dir.clone().unwrap_or_default(),
        envs: request
            .env
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        labels: [("io.kubernetes.container.name".to_owned(), CONTAINER.to_owned())].into(),
        log_path: LOG_FILE.to_owned(),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources::default()),
            security_context: Some(security_context),
        }),
        ..Default::default()
    }
}

fn namespaces(request: &PodRequest) -> NamespaceOption {
    let network = if request.host_network { NamespaceMode::Node } else { NamespaceMode::Pod };
    NamespaceOption {
        network: network.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..Default::default() }
}

/// The time since `clock` was set, which is set anew.
fn lap(clock: &mut Instant) -> Duration {
    let now = Instant::now();
    now.duration_since(std::mem::replace(clock, now))
}

/// One limit for all steps of a run.
struct Deadline<'a> {
    name: &'a str,
    limit: Duration,
    ends: tokio::time::Instant,
}

impl<'a> Deadline<'a> {
    fn new(request: &'a PodRequest) -> Self {
        Self {
            name: &request.name,
            limit: request.timeout,
            ends: tokio::time::Instant::now() + request.timeout,
        }
    }

    async fn hold<T>(&self, phase: &'static str, step: impl Future<Output = T>) -> Result<T, PodError> {
        tokio::time::timeout_at(self.ends, step).await.map_err(|_| PodError::Timeout {
            name: self.name.to_owned(),
            limit: self.limit,
            phase,
        })
    }
}
