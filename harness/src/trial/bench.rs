// SPDX-License-Identifier: Apache-2.0
//! What the latency driver asks for, carried out by builders on a node.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use shakedown_report::{PhaseTime, phase};

use super::Cancellation;
use super::builder::ReadyBuilder;
use super::command::End;
use super::executor::{Executor, build_arguments, reference};
use super::judgement::{Interruption, chain};
use super::node_side::NodeSide;
use crate::check::check_pod;
use crate::latency::{Subject, Timing, Visit};
use crate::scenario::{Bench, BenchKind, BuildStep, Scenario, Substitutions, Workspace};

/// The pod as one phase of a turn; its steps are recorded instead.
const POD: &str = "pod";

/// How long CRI may take to see an image that is in the store.
const VISIBLE_LIMIT: Duration = Duration::from_secs(10);

/// One measured scenario on all builders.
pub(super) struct Measured<'a> {
    node: NodeSide<'a>,
    scenario: &'a Scenario,
    bench: &'a Bench,
    build: &'a BuildStep,
    builders: Vec<Place<'a>>,
    cancellation: &'a Cancellation,
    /// Ids of the images that were seen; CRI keeps a record of its own for each.
    ids: Vec<String>,
}

/// Where one builder is measured.
struct Place<'a> {
    builder: &'a ReadyBuilder,
    workspace: Workspace,
    folder: PathBuf,
    log: PathBuf,
}

/// Why a turn gave no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Missed(String);

impl From<Interruption> for Missed {
    fn from(interruption: Interruption) -> Self {
        Self(match interruption {
            Interruption::Absent(reason)
            | Interruption::Unsupported(reason)
            | Interruption::Timeout { reason, .. }
            | Interruption::Harness(reason) => reason,
            Interruption::Cancelled => "the run was cancelled".to_owned(),
        })
    }
}

impl<'a> Measured<'a> {
    /// Lays out a build context per builder. `None` when the scenario measures nothing.
    pub(super) fn begin(
        executor: &Executor<'a>,
        scenario: &'a Scenario,
        builders: &[&'a ReadyBuilder],
    ) -> Result<Option<Self>, Interruption> {
        let Some((bench, build)) = scenario.bench.as_ref().zip(scenario.builds().next()) else {
            return Ok(None);
        };
        let slug = scenario.id.value.as_str().replace('/', ".");
        let mut places = Vec::new();
        for builder in builders {
            let folder = builder.surroundings().scratch.join(format!("{slug}.measured"));
            let logs = executor.out.join("logs").join(builder.name()).join(format!("{slug}.measured"));
            for folder in [&folder, &logs] {
                fs::create_dir_all(folder).map_err(|error| {
                    Interruption::Harness(format!("create {}: {error}", folder.display()))
                })?;
            }
            let id = format!("{}.measured", scenario.id.value.as_str());
            let substitutions = Substitutions {
                base: executor.base.to_owned(),
                reference: reference(&id, builder.name(), executor.run),
                nonce: Some("0".to_owned()),
            };
            let workspace = Workspace::lay_out(scenario, executor.scenarios, &folder, substitutions)
                .map_err(|error| Interruption::harness(&error))?;
            places.push(Place { builder, workspace, folder, log: logs.join("build") });
        }
        let (node, cancellation) = (executor.node.clone(), executor.cancellation);
        Ok(Some(Self { node, scenario, bench, build, builders: places, cancellation, ids: Vec::new() }))
    }

    /// The ids of the cases.
    pub(super) fn cases(&self) -> Vec<String> {
        self.bench.cases.iter().map(|case| case.id.value.clone()).collect()
    }

    /// Removes the images and folders.
    pub(super) async fn end(self) -> Result<(), Interruption> {
        self.node.remove_images(&self.ids).await?;
        for place in &self.builders {
            self.node.remove_images(std::slice::from_ref(&place.workspace.substitutions().reference)).await?;
            fs::remove_dir_all(&place.folder).map_err(|error| {
                Interruption::Harness(format!("remove {}: {error}", place.folder.display()))
            })?;
        }
        Ok(())
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.scenario.limit_s)
    }

    /// Returns how long the command took: its log and the look at what it left running are in no window.
    async fn build(&self, place: &Place<'_>) -> Result<u64, Missed> {
        let arguments = build_arguments(&place.workspace, self.scenario, self.build)?;
        let invocation = place.builder.plan(&arguments).map_err(|error| Missed(chain(&error)))?;
        let done = place.builder.build(invocation, &place.log, self.limit(), self.cancellation).await;
        let done = done.map_err(|error| Missed(chain(&error)))?;
        match done.end {
            End::Exited(0) => Ok(done.wall_us),
            end => Err(Missed(end.to_string())),
        }
    }
}

impl Subject for Measured<'_> {
    type Error = Missed;

    async fn prepare(&mut self, visit: Visit) -> Result<(), Missed> {
        let failed = |error: &dyn std::error::Error| Missed(chain(error));
        match &self.bench.cases[visit.case].kind {
            BenchKind::Cold => {
                let builder = self.builders[visit.builder].builder;
                builder.prune(self.cancellation).await.map_err(|error| failed(&error))?;
            }
            BenchKind::Noop => {
                self.build(&self.builders[visit.builder]).await?;
            }
            BenchKind::Edit(mutations) => {
                self.build(&self.builders[visit.builder]).await?;
                let workspace = &mut self.builders[visit.builder].workspace;
                workspace.set_nonce(visit.turn.to_string());
                workspace.mutate(mutations).map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    fn phases(&self, visit: Visit) -> Vec<&'static str> {
        let mut phases = vec![phase::BUILD];
        if self.builders[visit.builder].builder.delivers() {
            phases.push(phase::DELIVER);
        }
        phases.push(phase::VISIBLE);
        if self.bench.cases[visit.case].pod.is_some() {
            phases.push(POD);
        }
        phases
    }

    async fn run(&mut self, visit: Visit, phase: &'static str) -> Result<Timing, Missed> {
        let place = &self.builders[visit.builder];
        let words = place.workspace.substitutions();
        let name = &words.reference;
        match (phase, &self.bench.cases[visit.case].pod) {
            (phase::DELIVER, _) => {
                let log = place.log.with_file_name("deliver");
                let delivered = place.builder.deliver(name, &log, self.limit(), self.cancellation).await;
                return Ok(step(phase, delivered.map_err(|error| Missed(chain(&error)))?));
            }
            (phase::VISIBLE, _) => {
                let id = self
                    .node
                    .image_id(name)
                    .await?
                    .ok_or_else(|| Missed("no image on the node".to_owned()))?;
                self.node.wait_visible(name, &id, VISIBLE_LIMIT).await?.map_err(Missed)?;
                self.ids.push(id);
            }
            (POD, Some(pod)) => {
                let seen = self.node.run_pod(pod, words, self.limit()).await?;
                // A pod of an older image is no sample.
                if let Some(finding) = check_pod(&pod.expect, &seen.observation(), words).first() {
                    return Err(Missed(finding.to_string()));
                }
                return Ok(Timing::Steps(seen.phases));
            }
            _ => return Ok(step(phase, self.build(place).await?)),
        }
        Ok(Timing::Window)
    }

    async fn clean_up(&mut self, _: Visit) -> Result<(), Missed> {
        Ok(())
    }

    fn is_cancelled(&self) -> bool {
        self.cancellation.get().is_some()
    }
}

fn step(phase: &str, wall_us: u64) -> Timing {
    Timing::Steps(vec![PhaseTime { phase: phase.to_owned(), wall_us }])
}
