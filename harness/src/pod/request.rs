// SPDX-License-Identifier: Apache-2.0
//! What a pod is to do, and what it did. Pure.

use std::time::Duration;

/// A pod with one container.
#[derive(Debug, Clone)]
pub struct PodRequest {
    /// The pod's name, a DNS label.
    pub name: String,
    /// The image's name as a pod would write it.
    pub reference: String,
    /// The id that the image must have, `None` when any will do.
    pub expected_image_id: Option<String>,
    /// What replaces the image's entrypoint.
    pub command: Option<Vec<String>>,
    /// What replaces the image's arguments.
    pub args: Option<Vec<String>>,
    /// Variables beyond the image's.
    pub env: Vec<(String, String)>,
    /// What replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Share the node's network instead of getting an own one by CNI.
    pub host_network: bool,
    /// When to give up, from the first call to the container's end.
    pub timeout: Duration,
}

/// What a pod did.
#[derive(Debug, Clone)]
pub struct PodOutcome {
    /// How long each step took.
    pub phases: PodPhases,
    /// The exit code of the container's program.
    pub exit_code: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// The id of the image that the container was made from, as ImageStatus gave it.
    pub image_id_seen: String,
}

/// The steps of a pod's life, one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodPhases {
    /// ImageStatus.
    pub image_status: Duration,
    /// RunPodSandbox.
    pub sandbox: Duration,
    /// CreateContainer.
    pub create: Duration,
    /// StartContainer.
    pub start: Duration,
    /// From then until ContainerStatus said that it runs, or has run.
    pub running: Duration,
    /// From then until ContainerStatus said that it has ended.
    pub exited: Duration,
    /// StopPodSandbox and RemovePodSandbox.
    pub remove: Duration,
}

impl PodPhases {
    /// From the first call until the container ran: what a person waits for after an edit.
    pub fn until_running(&self) -> Duration {
        self.image_status + self.sandbox + self.create + self.start + self.running
    }
}

impl PodRequest {
    /// A pod that runs the image as it is, in an own network, for 30 s at most.
    pub fn new(name: impl Into<String>, reference: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reference: reference.into(),
            expected_image_id: None,
            command: None,
            args: None,
            env: Vec::new(),
            working_dir: None,
            host_network: false,
            timeout: Duration::from_secs(30),
        }
    }
}
