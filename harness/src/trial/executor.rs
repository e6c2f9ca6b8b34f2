// SPDX-License-Identifier: Apache-2.0
//! One attempt at one trial: a private folder, the steps, the checks after each build, and the look at what is left.
//!
//! Invariant: trouble of the harness or of its environment is an [`Interruption`], never a finding; a finding always
//! says something about the builder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shakedown_node::Inventory;
use shakedown_report::{AttemptFinished, Finding, PhaseTime, phase};

use super::builder::{BuilderError, ReadyBuilder};
use super::command::{Completion, End};
use super::judgement::{Identity, Interruption, Seen, finding, judge};
use super::node_side::{Image, NodeSide};
use super::residue;
use super::stage::{Column, ColumnState};
use super::{Cancellation, describe};
use crate::adapter::{BuildArguments, PlanError};
use crate::check::{BuildObservation, BuildRecord, ImageObservation, check_build, check_pod, read_stamps};
use crate::scenario::{BuildStep, Outcome, PodRun, Scenario, Step, Substitutions, Workspace};

/// How long CRI may take to see an image that is in the store.
const VISIBLE_LIMIT: Duration = Duration::from_secs(10);

/// Runs attempts on one node.
pub struct Executor<'a> {
    /// The node.
    pub node: NodeSide<'a>,
    /// Folder of the scenarios, for the contexts that they name.
    pub scenarios: &'a Path,
    /// The report's folder; logs go below it.
    pub out: &'a Path,
    /// Name of the run, the tag of every image.
    pub run: &'a str,
    /// Name of the base image, for `{base}`.
    pub base: &'a str,
    /// Ends commands when the run is cancelled.
    pub cancellation: &'a Cancellation,
}

/// The name of a trial's image: its own, so that no trial can see another's result.
pub(super) fn reference(scenario: &str, builder: &str, run: &str) -> String {
    format!("shakedown.test/t/{scenario}/{builder}:{run}")
}

impl Executor<'_> {
    /// Runs one attempt to its verdict; cleans up after it whatever the verdict is.
    pub async fn attempt(&self, scenario: &Scenario, column: &Column, attempt: u32) -> AttemptFinished {
        let began = Instant::now();
        let identity = Identity { scenario: scenario.id.value.as_str(), builder: column.name(), attempt };
        let mut seen = Seen::default();
        let end = self.run(scenario, column, identity, &mut seen).await;
        let wall_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        judge(identity, seen, end, wall_ms)
    }

    async fn run(
        &self,
        scenario: &Scenario,
        column: &Column,
        identity: Identity<'_>,
        seen: &mut Seen,
    ) -> Result<(), Interruption> {
        let builder = match &column.state {
            ColumnState::Ready(builder) => builder,
            ColumnState::Absent(absence) => return Err(Interruption::Absent(describe(absence))),
            ColumnState::Broken { reason, .. } => return Err(Interruption::Harness(reason.clone())),
        };
        let missing: Vec<_> = scenario.requires.difference(&builder.adapter().capabilities).collect();
        if !missing.is_empty() {
            let words: Vec<_> = missing.iter().map(|capability| capability.as_str()).collect();
            return Err(Interruption::Unsupported(format!("does not claim {}", words.join(", "))));
        }
        let before = residue::survey(&self.node).await?;
        let mut trial = Trial::begin(self, scenario, builder, identity)?;
        let end = trial.steps(seen).await;
        seen.logs.append(&mut trial.logs);
        let removed = self.node.remove_images(&trial.images).await;
        // What is left is told even when the steps were interrupted: a hang that leaks a mount is worth both words.
        let left = self.residue(&before, builder, &trial, seen).await;
        end.and(removed).and(left)
    }

    async fn residue(
        &self,
        before: &Inventory,
        builder: &ReadyBuilder,
        trial: &Trial<'_>,
        seen: &mut Seen,
    ) -> Result<(), Interruption> {
        let found = residue::since(before, &self.node, builder).await?;
        let mounted = found.iter().any(|finding| finding.assertion == "residue.mount");
        seen.findings.extend(found);
        if mounted {
            // A removal must never walk into what a builder left mounted; the node's end unmounts it first.
            return Ok(());
        }
        fs::remove_dir_all(&trial.folder)
            .map_err(|error| Interruption::Harness(format!("remove {}: {error}", trial.folder.display())))?;
        Ok(())
    }
}

/// What belongs to one attempt while it runs.
struct Trial<'a> {
    executor: &'a Executor<'a>,
    scenario: &'a Scenario,
    builder: &'a ReadyBuilder,
    workspace: Workspace,
    folder: PathBuf,
    log_folder: PathBuf,
    /// Every image that a build was asked to make, by name, and every one that was seen, by id: CRI keeps a record of
    /// its own for an id, which outlives the name's move to the next image.
    images: Vec<String>,
    records: Vec<BuildRecord>,
    builds: u32,
    logs: Vec<String>,
}

impl<'a> Trial<'a> {
    fn begin(
        executor: &'a Executor<'a>,
        scenario: &'a Scenario,
        builder: &'a ReadyBuilder,
        identity: Identity<'_>,
    ) -> Result<Self, Interruption> {
        let slug = identity.scenario.replace('/', ".");
        let name = format!("{slug}.{}", identity.attempt);
        let folder = builder.surroundings().scratch.join(&name);
        let log_folder = Path::new("logs").join(builder.name()).join(name);
        for folder in [&folder, &executor.out.join(&log_folder)] {
            fs::create_dir_all(folder)
                .map_err(|error| Interruption::Harness(format!("create {}: {error}", folder.display())))?;
        }
        let substitutions = Substitutions {
            base: executor.base.to_owned(),
            reference: reference(identity.scenario, identity.builder, executor.run),
            nonce: None,
        };
        let workspace = Workspace::lay_out(scenario, executor.scenarios, &folder, substitutions)
            .map_err(|error| Interruption::harness(&error))?;
        Ok(Self {
            executor,
            scenario,
            builder,
            workspace,
            folder,
            log_folder,
            images: Vec::new(),
            records: Vec::new(),
            builds: 0,
            logs: Vec::new(),
        })
    }

    async fn steps(&mut self, seen: &mut Seen) -> Result<(), Interruption> {
        for step in &self.scenario.steps {
            match step {
                Step::Mutate(mutations) => {
                    self.workspace.mutate(mutations).map_err(|error| Interruption::harness(&error))?;
                }
                Step::Build(build) => self.build(build, seen).await?,
            }
            // After a build that is not what it should be, the next ones have nothing to stand on.
            if !seen.findings.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn build(&mut self, build: &BuildStep, seen: &mut Seen) -> Result<(), Interruption> {
        self.builds += 1;
        let arguments = build_arguments(&self.workspace, self.scenario, build)?;
        let invocation = self.builder.plan(&arguments).map_err(|error| match error {
            PlanError::Unsupported { capability, .. } => {
                Interruption::Unsupported(format!("does not claim {capability}"))
            }
            PlanError::Unknown { .. } => Interruption::harness(&error),
        })?;
        self.images.push(arguments.reference.clone());
        self.images.extend(arguments.tags.iter().cloned());
        let log = self.log("build");
        let done = self
            .builder
            .build(invocation, &self.executor.out.join(&log), self.limit(), self.executor.cancellation)
            .await
            .map_err(|error| Interruption::harness(&error))?;
        let exit_code = self.exit_code(done, seen)?;
        seen.phases.push(PhaseTime { phase: phase::BUILD.to_owned(), wall_us: done.wall_us });
        let text = self.read_log(&log)?;
        let delivered = exit_code == Some(0) && build.expect.outcome == Outcome::Success;
        let image = if delivered { self.bring_to_node(&arguments, seen).await? } else { None };
        if delivered && !seen.findings.is_empty() {
            return Ok(()); // It did not get to the node: looking for it there would only repeat that.
        }
        let observed = BuildObservation {
            exit_code,
            log: &text,
            exit_classes: &self.builder.adapter().exit_classes,
            image: image.as_ref().map(|image| ImageObservation {
                id: &image.id,
                config: &image.config,
                root: &image.root,
            }),
        };
        let findings = check_build(&build.expect, &observed, &self.records)
            .map_err(|error| Interruption::harness(&error))?;
        let failed = !findings.is_empty();
        seen.findings.extend(findings.into_iter().map(|found| finding(found, Some(self.builds))));
        if let Some(image) = image {
            self.remember(build, &image)?;
            image.close().await?;
        }
        if failed {
            return Ok(());
        }
        for pod in &build.expect.pods {
            self.pod(pod, seen).await?;
        }
        Ok(())
    }

    /// Turns what is no exit code into its word; a death by a signal stays a fact for the checks.
    fn exit_code(&self, done: Completion, seen: &mut Seen) -> Result<Option<i32>, Interruption> {
        if done.survivors {
            seen.findings.push(Finding {
                assertion: "residue.process".to_owned(),
                path: None,
                build: Some(self.builds),
                expected: "no process of the builder's command after its end".to_owned(),
                found: "processes that outlived it and had to be killed".to_owned(),
            });
        }
        match done.end {
            End::Exited(code) => Ok(Some(code)),
            End::Signalled(_) => {
                seen.crashed = true;
                Ok(None)
            }
            End::TimedOut { killed } => {
                let reason = format!("build {} took longer than {} s", self.builds, self.scenario.limit_s);
                Err(Interruption::Timeout { reason, hang: killed })
            }
            End::Cancelled => Err(Interruption::Cancelled),
        }
    }

    /// Delivers every name of the build and looks into the image that the first one stands for.
    async fn bring_to_node(
        &mut self,
        arguments: &BuildArguments,
        seen: &mut Seen,
    ) -> Result<Option<Image>, Interruption> {
        if self.builder.delivers() {
            let mut wall_us = 0;
            for reference in std::iter::once(&arguments.reference).chain(&arguments.tags) {
                let log = self.log("deliver");
                let out = self.executor.out.join(&log);
                let delivered =
                    self.builder.deliver(reference, &out, self.limit(), self.executor.cancellation).await;
                match delivered {
                    Ok(took_us) => wall_us += took_us,
                    Err(error) => {
                        let found = self.undelivered(error)?;
                        seen.findings.push(found);
                        return Ok(None);
                    }
                }
            }
            seen.phases.push(PhaseTime { phase: phase::DELIVER.to_owned(), wall_us });
        }
        let began = Instant::now();
        let Some(id) = self.executor.node.image_id(&arguments.reference).await? else { return Ok(None) };
        self.images.push(id.clone());
        if let Err(found) = self.executor.node.wait_visible(&arguments.reference, &id, VISIBLE_LIMIT).await? {
            seen.findings.push(Finding {
                assertion: "image.visible".to_owned(),
                path: None,
                build: Some(self.builds),
                expected: format!("CRI's ImageStatus with {id} within {} s", VISIBLE_LIMIT.as_secs()),
                found,
            });
            return Ok(None);
        }
        seen.phases.push(PhaseTime { phase: phase::VISIBLE.to_owned(), wall_us: micros(began) });
        if !self.is_runnable(&arguments.reference, seen).await? {
            return Ok(None);
        }
        self.executor.node.look_into(&arguments.reference).await.map(Some)
    }

    /// Looks at the lowest tier: an image whose layers are not unpacked makes the first pod wait for that, or fail.
    async fn is_runnable(&self, reference: &str, seen: &mut Seen) -> Result<bool, Interruption> {
        let Some(tier) = self.executor.node.store_tier(reference).await? else { return Ok(false) };
        let count = |list: &[String]| u64::try_from(list.len()).unwrap_or(u64::MAX);
        seen.metrics.insert("layers".to_owned(), count(&tier.chain_ids));
        seen.metrics.insert("layer_blobs_missing".to_owned(), count(&tier.missing_blobs));
        if !tier.is_runnable() {
            seen.findings.push(Finding {
                assertion: "store.runnable".to_owned(),
                path: None,
                build: Some(self.builds),
                expected: "the config and the snapshot of every layer".to_owned(),
                found: format!("no config or no snapshot of {}", tier.missing_snapshots.join(", ")),
            });
        }
        Ok(tier.is_runnable())
    }

    /// A delivery that fails says something about the builder's image only when its command ran and refused.
    fn undelivered(&self, error: BuilderError) -> Result<Finding, Interruption> {
        let BuilderError::Lifecycle { invocation, end, log_tail, .. } = error else {
            return Err(Interruption::harness(&error));
        };
        match end {
            End::Cancelled => Err(Interruption::Cancelled),
            End::TimedOut { killed } => {
                let reason = format!("`{invocation}` took longer than {} s", self.scenario.limit_s);
                Err(Interruption::Timeout { reason, hang: killed })
            }
            End::Exited(_) | End::Signalled(_) => Ok(Finding {
                assertion: "image.deliver".to_owned(),
                path: None,
                build: Some(self.builds),
                expected: format!("`{invocation}` brings the image to the node"),
                found: format!("{end}: {log_tail}"),
            }),
        }
    }

    fn remember(&mut self, build: &BuildStep, image: &Image) -> Result<(), Interruption> {
        let stamps = read_stamps(&image.root, self.scenario.stamps())
            .map_err(|error| Interruption::harness(&error))?;
        let name = build.name.as_ref().map(|name| name.value.clone());
        self.records.push(BuildRecord { name, image_id: image.id.clone(), stamps });
        Ok(())
    }

    async fn pod(&mut self, pod: &PodRun, seen: &mut Seen) -> Result<(), Interruption> {
        let ran = tokio::select! {
            ran = self.executor.node.run_pod(pod, self.workspace.substitutions(), self.limit()) => ran?,
            _ = self.executor.cancellation.wait() => return Err(Interruption::Cancelled),
        };
        seen.phases.extend(ran.phases.iter().cloned());
        let findings = check_pod(&pod.expect, &ran.observation(), self.workspace.substitutions());
        seen.findings.extend(findings.into_iter().map(|found| finding(found, Some(self.builds))));
        Ok(())
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.scenario.limit_s)
    }

    /// A log file of this build, relative to the report's folder and without the stream's suffix.
    fn log(&mut self, what: &str) -> PathBuf {
        let log = self.log_folder.join(format!("{what}-{}", self.builds));
        for stream in ["stdout", "stderr"] {
            let name = format!("{}.{stream}", log.display());
            if !self.logs.contains(&name) {
                self.logs.push(name);
            }
        }
        log
    }

    /// Both streams, standard output first.
    fn read_log(&self, log: &Path) -> Result<String, Interruption> {
        let mut text = String::new();
        for stream in ["stdout", "stderr"] {
            let path = self.executor.out.join(format!("{}.{stream}", log.display()));
            let bytes = fs::read(&path)
                .map_err(|error| Interruption::Harness(format!("read {}: {error}", path.display())))?;
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        Ok(text)
    }
}

/// The arguments of a build, with the placeholders replaced.
pub(super) fn build_arguments(
    workspace: &Workspace,
    scenario: &Scenario,
    build: &BuildStep,
) -> Result<BuildArguments, Interruption> {
    let words = workspace.substitutions();
    Ok(BuildArguments {
        reference: words.reference.clone(),
        dockerfile: workspace.dockerfile(scenario, build).map_err(|error| Interruption::harness(&error))?,
        context: workspace.context(),
        args: build.args.clone(),
        target: build.target.clone(),
        no_cache: build.no_cache,
        tags: build.tags.iter().map(|tag| words.apply(tag)).collect(),
    })
}

pub(super) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
