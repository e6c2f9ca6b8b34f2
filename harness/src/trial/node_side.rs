// SPDX-License-Identifier: Apache-2.0
//! What the trial asks of the node: what an image is, whether pods see it, and what a pod of it does.
//!
//! Separates what says something about an image from trouble of the node: the first is a value, the second an
//! [`Interruption`].

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use shakedown_node::{BaseImage, Inventory, Node};
use shakedown_report::{PhaseTime, phase};

use super::judgement::Interruption;
use crate::check::{self, PodObservation};
use crate::cluster::Cluster;
use crate::pod::{
    ImageRoot, ImageStore, ImageStoreError, PodError, PodOutcome, PodPhases, PodRequest, PodRuntime,
    StoreTier,
};
use crate::scenario::{PodRun, Substitutions};

/// Between two questions to CRI.
const POLL: Duration = Duration::from_millis(2);

/// One node, as the trial sees it.
#[derive(Debug, Clone)]
pub struct NodeSide<'a> {
    node: &'a Node,
    store: &'a ImageStore,
    pods: &'a PodRuntime,
    base_ids: Vec<&'a str>,
}

/// An image on the node, with its file system to look into.
pub(super) struct Image {
    /// The digest of its config.
    pub(super) id: String,
    /// Its config.
    pub(super) config: Value,
    /// Its file system.
    pub(super) root: check::ImageRoot,
    mounted: ImageRoot,
}

/// What became of a pod.
pub(super) struct PodSeen {
    /// Its steps up to the running container.
    pub(super) phases: Vec<PhaseTime>,
    end: PodEnd,
}

enum PodEnd {
    ImageAbsent,
    NotRun(String),
    Exited { code: i32, stdout: String, stderr: String },
}

impl<'a> NodeSide<'a> {
    /// The node of a cluster.
    pub fn of(cluster: &'a Cluster) -> Self {
        let base_ids = cluster.base_images().iter().map(BaseImage::id).collect();
        Self { node: cluster.node(), store: cluster.store(), pods: cluster.pods(), base_ids }
    }

    /// Everything that is on the node now, in this process's mount and pid namespaces, and in the cgroups of builders.
    pub(super) async fn inventory(&self, cgroups: &[&str]) -> Result<Inventory, Interruption> {
        let everywhere = [Path::new("/")];
        Inventory::take(self.node, &everywhere, cgroups).await.map_err(|error| Interruption::harness(&error))
    }

    /// The id of the image that a name stands for in the store, whatever CRI thinks.
    pub(super) async fn image_id(&self, reference: &str) -> Result<Option<String>, Interruption> {
        match self.store.image_id(reference).await {
            Ok(id) => Ok(Some(id)),
            Err(ImageStoreError::NoImage { .. }) => Ok(None),
            Err(error) => Err(Interruption::harness(&error)),
        }
    }

    /// What of an image is in the stores.
    pub(super) async fn store_tier(&self, reference: &str) -> Result<Option<StoreTier>, Interruption> {
        StoreTier::inspect(self.store, reference).await.map_err(|error| Interruption::harness(&error))
    }

    /// Waits until CRI gives this very id for the name; the inner error is what it gives instead.
    pub(super) async fn wait_visible(
        &self,
        reference: &str,
        id: &str,
        limit: Duration,
    ) -> Result<Result<(), String>, Interruption> {
        let limit = Instant::now() + limit;
        loop {
            let status =
                self.pods.image_status(reference).await.map_err(|error| Interruption::harness(&error))?;
            let found = match status {
                Some(image) if image.id == id => return Ok(Ok(())),
                Some(image) => image.id,
                None => "no such image".to_owned(),
            };
            if Instant::now() > limit {
                return Ok(Err(found));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Reads the config of an image and mounts its file system.
    pub(super) async fn look_into(&self, reference: &str) -> Result<Image, Interruption> {
        let trouble = |error: &dyn std::error::Error| Interruption::harness(error);
        let id = self.store.image_id(reference).await.map_err(|error| trouble(&error))?;
        let config = self.store.image_config(reference).await.map_err(|error| trouble(&error))?;
        let mounted = ImageRoot::mount(self.store, reference).await.map_err(|error| trouble(&error))?;
        let root = check::ImageRoot::open(mounted.path()).map_err(|error| trouble(&error))?;
        Ok(Image { id, config, root, mounted })
    }

    /// Runs a pod to its end and removes it.
    pub(super) async fn run_pod(
        &self,
        pod: &PodRun,
        words: &Substitutions,
        limit: Duration,
    ) -> Result<PodSeen, Interruption> {
        let replacement = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
        let mut request = PodRequest::new("trial", words.apply(&pod.image));
        request.command = replacement(&pod.command);
        request.args = replacement(&pod.args);
        request.timeout = limit;
        let (phases, end) = match self.pods.run_pod(&request).await {
            Ok(outcome) => (steps(&outcome.phases), exited(outcome)),
            Err(PodError::ImageAbsent { .. }) => (Vec::new(), PodEnd::ImageAbsent),
            Err(
                error @ (PodError::CreateFailed { .. }
                | PodError::StartFailed { .. }
                | PodError::Timeout { .. }),
            ) => (Vec::new(), PodEnd::NotRun(error.to_string())),
            Err(error) => return Err(Interruption::harness(&error)),
        };
        Ok(PodSeen { phases, end })
    }

    /// Removes images, by name or id; an absent one is no trouble.
    ///
    /// CRI removes every name of the image that it is asked for, and an image that only says `FROM base` is the base
    /// image: of such a one only the record of that name goes.
    pub(super) async fn remove_images(&self, names: &[String]) -> Result<(), Interruption> {
        for name in names {
            let status = self.pods.image_status(name).await.map_err(|error| Interruption::harness(&error))?;
            let Some(image) = status else { continue };
            if !self.base_ids.contains(&image.id.as_str()) {
                self.pods.remove_image(name).await.map_err(|error| Interruption::harness(&error))?;
            } else if *name != image.id {
                self.remove_record(name).await?;
            }
        }
        Ok(())
    }

    async fn remove_record(&self, name: &str) -> Result<(), Interruption> {
        let mut command = tokio::process::Command::from(self.node.ctr());
        let output = command.args(["images", "rm", "--sync", name]).kill_on_drop(true).output().await;
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(Interruption::Harness(format!("remove the image record {name}: {words}")))
            }
            Err(error) => Err(Interruption::harness(&error)),
        }
    }
}

impl Image {
    /// Unmounts the file system.
    pub(super) async fn close(self) -> Result<(), Interruption> {
        drop(self.root);
        self.mounted.close().await.map_err(|error| Interruption::harness(&error))
    }
}

impl PodSeen {
    /// The form that the checks take.
    pub(super) fn observation(&self) -> PodObservation<'_> {
        match &self.end {
            PodEnd::ImageAbsent => PodObservation::ImageAbsent,
            PodEnd::NotRun(reason) => PodObservation::NotRun { reason },
            PodEnd::Exited { code, stdout, stderr } => PodObservation::Exited { code: *code, stdout, stderr },
        }
    }
}

fn exited(outcome: PodOutcome) -> PodEnd {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    PodEnd::Exited { code: outcome.exit_code, stdout: text(outcome.stdout), stderr: text(outcome.stderr) }
}

/// The steps until the container runs. The question for the image belongs to the sandbox: a kubelet asks both for a pod.
fn steps(phases: &PodPhases) -> Vec<PhaseTime> {
    let times = [
        (phase::SANDBOX, phases.image_status + phases.sandbox),
        (phase::CREATE, phases.create),
        (phase::START, phases.start),
        (phase::RUNNING, phases.running),
    ];
    let step = |(name, time): (&str, Duration)| PhaseTime {
        phase: name.to_owned(),
        wall_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
    };
    times.map(step).into()
}
