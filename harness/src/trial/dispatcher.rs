// SPDX-License-Identifier: Apache-2.0
//! A whole run: brings node and builders up, gives every planned trial its turn, measures, and puts everything away.
//!
//! Invariant: once the header is written, every planned trial gets a verdict and the footer follows, also when the run
//! is cancelled. What cannot be put away is trouble of the harness and reported as such.

use std::path::PathBuf;
use std::time::Instant;

use shakedown_node::{BaseImage, ContainerdBinaries, Leftovers, LeftoversError};
use shakedown_report::{
    AttemptFinished, Counts, Ending, Event, FoldError, Level, PlannedTrial, Report, RunFinished, RunStarted,
    SCHEMA_VERSION, TrialStarted, Verdict, fold, settle,
};

use super::bench::Measured;
use super::executor::Executor;
use super::host::host;
use super::judgement::{Identity, Interruption, Seen, chain, judge};
use super::node_side::NodeSide;
use super::stage::Column;
use super::{Cancellation, Candidate, Journal, JournalError};
use crate::adapter::Environment;
use crate::cluster::{Cluster, ClusterError, ClusterOptions};
use crate::latency::{Driver, MonotonicClock};
use crate::scenario::{self, Scenario};

/// Rounds of a measurement that are thrown away.
const WARM_UP_ROUNDS: u32 = 1;

/// What a run is to do.
#[derive(Debug)]
pub struct Request {
    /// The scenarios, in order.
    pub scenarios: Vec<Scenario>,
    /// Folder of the scenarios, for the contexts that they name.
    pub scenarios_folder: PathBuf,
    /// The builders, in the order of the columns.
    pub candidates: Vec<Candidate>,
    /// sha256 (hex) over the documents.
    pub suite_sha256: String,
    /// The containerd to start.
    pub binaries: ContainerdBinaries,
    /// Where the node's directory is made.
    pub parent_dir: PathBuf,
    /// The report's folder; exists.
    pub out: PathBuf,
    /// Rounds of each measurement that count; `None` not to measure.
    pub rounds: Option<u32>,
    /// Attempts after a failed one.
    pub retries: u32,
    /// Seed of every random choice.
    pub seed: u64,
    /// Command line, for the report.
    pub argv: Vec<String>,
    /// Keep the node's directory.
    pub keep: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Conclusion {
    /// The report.
    pub report: Report,
    /// What could not be put away, in words; empty after an orderly run.
    pub trouble: Vec<String>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The stream of events could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What killed runs have left could not be collected.
    #[error(transparent)]
    Leftovers(#[from] LeftoversError),
    /// The cluster did not start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The writer's own stream is not a whole run: a defect of the harness.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The harness's part of the node could not be set up.
    #[error("set up the node: {0}")]
    Setup(String),
}

/// Runs everything; `tell` gets one line per trial and measurement.
///
/// # Errors
/// [`RunError`] when there cannot be a report.
pub async fn conduct(
    request: &Request,
    journal: &mut Journal,
    cancellation: &Cancellation,
    mut tell: impl FnMut(&str),
) -> Result<Conclusion, RunError> {
    let began = Instant::now();
    let collected = Leftovers::collect(&request.parent_dir)?;
    if !collected.runs.is_empty() {
        tell(&format!("collected what {} killed runs had left", collected.runs.len()));
    }
    let cluster = Cluster::start(ClusterOptions {
        binaries: request.binaries.clone(),
        parent_dir: request.parent_dir.clone(),
        keep: request.keep,
    })
    .await?;
    tell(&format!(
        "containerd {} is ready after {} ms in {}",
        request.binaries.version().text,
        cluster.node().start_ms(),
        cluster.node().dir().display()
    ));
    let mut trouble = Vec::new();
    let result = on_cluster(request, &cluster, journal, cancellation, began, &mut trouble, &mut tell).await;
    let stopped = cluster.stop().await;
    result?;
    trouble.extend(stopped.err().map(|error| format!("stop the node: {}", chain(&error))));
    Ok(Conclusion { report: fold(journal.events())?, trouble })
}

async fn on_cluster(
    request: &Request,
    cluster: &Cluster,
    journal: &mut Journal,
    cancellation: &Cancellation,
    began: Instant,
    trouble: &mut Vec<String>,
    tell: &mut impl FnMut(&str),
) -> Result<(), RunError> {
    let environment = Environment::of_this_process();
    let logs = request.out.join("logs");
    let mut columns = Vec::new();
    for candidate in &request.candidates {
        let column = Column::prepare(candidate, cluster, &logs, &environment, cancellation).await;
        columns.push(column);
    }
    let mut run = Run { request, cluster, columns: &columns, journal, cancellation, began, tell };
    let result = run.everything().await;
    for column in columns {
        trouble.extend(column.put_away().await);
    }
    result
}

/// One run on a node that is up.
struct Run<'a, T> {
    request: &'a Request,
    cluster: &'a Cluster,
    columns: &'a [Column],
    journal: &'a mut Journal,
    cancellation: &'a Cancellation,
    began: Instant,
    tell: &'a mut T,
}

impl<T: FnMut(&str)> Run<'_, T> {
    async fn everything(&mut self) -> Result<(), RunError> {
        let run = self.cluster.node().run_id().to_string();
        let planned = plan(&self.request.scenarios, self.columns);
        self.journal.record(Event::RunStarted(RunStarted {
            schema_version: SCHEMA_VERSION,
            run: run.clone(),
            started_at: jiff::Timestamp::now()
                .round(jiff::Unit::Second)
                .map_or_else(|_| jiff::Timestamp::now().to_string(), |timestamp| timestamp.to_string()),
            shakedown_version: env!("CARGO_PKG_VERSION").to_owned(),
            argv: self.request.argv.clone(),
            seed: self.request.seed,
            suite_sha256: self.request.suite_sha256.clone(),
            host: host(&self.request.binaries, SNAPSHOTTER),
            builders: self.columns.iter().map(Column::describe).collect(),
            planned: planned.clone(),
        }))?;
        let executor = Executor {
            node: NodeSide::of(self.cluster),
            scenarios: &self.request.scenarios_folder,
            out: &self.request.out,
            run: &run,
            base: BaseImage::BUSYBOX,
            cancellation: self.cancellation,
        };
        let mut verdicts = Vec::new();
        for scenario in &self.request.scenarios {
            for column in self.columns {
                let verdict =
                    self.trial(&executor, scenario, column, verdicts.len() + 1, planned.len()).await?;
                verdicts.push(verdict);
            }
        }
        if let Some(rounds) = self.request.rounds {
            for (index, scenario) in self.request.scenarios.iter().enumerate() {
                let own = &verdicts[index * self.columns.len()..][..self.columns.len()];
                self.measure(&executor, scenario, own, rounds).await?;
            }
        }
        self.journal.record(Event::RunFinished(RunFinished {
            ending: self.cancellation.get().unwrap_or(Ending::Completed),
            wall_ms: millis(self.began),
            counts: Counts::of(verdicts),
        }))?;
        Ok(())
    }

    /// One trial with its attempts.
    async fn trial(
        &mut self,
        executor: &Executor<'_>,
        scenario: &Scenario,
        column: &Column,
        number: usize,
        total: usize,
    ) -> Result<Verdict, RunError> {
        let (id, builder) = (scenario.id.value.as_str(), column.name());
        let mut verdicts = Vec::new();
        for attempt in 1..=self.request.retries + 1 {
            let finished = if self.cancellation.get().is_some() {
                let identity = Identity { scenario: id, builder, attempt };
                judge(identity, Seen::default(), Err(Interruption::Cancelled), 0)
            } else {
                self.journal.record(Event::TrialStarted(TrialStarted {
                    scenario: id.to_owned(),
                    builder: builder.to_owned(),
                    attempt,
                    at_ms: millis(self.began),
                }))?;
                executor.attempt(scenario, column, attempt).await
            };
            (self.tell)(&line(&finished, number, total));
            verdicts.push(finished.verdict);
            self.journal.record(Event::AttemptFinished(finished))?;
            if !deserves_retry(verdicts.last().copied()) {
                break;
            }
        }
        Ok(settle(&verdicts))
    }

    /// Measures one scenario with the builders that have passed it: only a builder that is right is timed.
    async fn measure(
        &mut self,
        executor: &Executor<'_>,
        scenario: &Scenario,
        verdicts: &[Verdict],
        rounds: u32,
    ) -> Result<(), RunError> {
        let builders: Vec<_> = self
            .columns
            .iter()
            .zip(verdicts)
            .filter(|(_, verdict)| **verdict == Verdict::Pass)
            .filter_map(|(column, _)| column.ready())
            .collect();
        if builders.is_empty() || scenario.bench.is_none() || self.cancellation.get().is_some() {
            return Ok(());
        }
        let begun = Measured::begin(executor, scenario, &builders);
        let Some(mut measured) = begun.map_err(setup)? else { return Ok(()) };
        let names: Vec<_> = builders.iter().map(|builder| builder.name().to_owned()).collect();
        (self.tell)(&format!(
            "measuring {} with {}: {rounds} rounds and {WARM_UP_ROUNDS} to warm up",
            scenario.id.value.as_str(),
            names.join(", ")
        ));
        let driver = Driver {
            bench: scenario.id.value.as_str().to_owned(),
            builders: names,
            cases: measured.cases(),
            warm_up: WARM_UP_ROUNDS,
            measured: rounds,
            seed: self.request.seed,
        };
        let mut written = Ok(());
        let journal = &mut *self.journal;
        driver
            .run(&mut measured, &MonotonicClock::default(), |event| {
                let recorded = journal.record(event);
                if written.is_ok() {
                    written = recorded;
                }
            })
            .await;
        written?;
        measured.end().await.map_err(setup)
    }
}

/// The snapshotter that the node's CRI unpacks into: containerd's default, which the node's configuration keeps.
const SNAPSHOTTER: &str = "overlayfs";

fn setup(interruption: Interruption) -> RunError {
    RunError::Setup(match interruption {
        Interruption::Harness(reason) => reason,
        other => format!("{other:?}"),
    })
}

/// Every scenario with every builder, in the order of the run.
fn plan(scenarios: &[Scenario], columns: &[Column]) -> Vec<PlannedTrial> {
    let each = |scenario: &Scenario| {
        let level = match scenario.level {
            scenario::Level::Must => Level::Must,
            scenario::Level::Should => Level::Should,
            scenario::Level::May => Level::May,
            scenario::Level::Info => Level::Info,
        };
        let id = scenario.id.value.as_str().to_owned();
        columns.iter().map(move |column| PlannedTrial {
            scenario: id.clone(),
            builder: column.name().to_owned(),
            level,
        })
    };
    scenarios.iter().flat_map(each).collect()
}

/// What a second attempt could change.
fn deserves_retry(verdict: Option<Verdict>) -> bool {
    matches!(verdict, Some(Verdict::Fail | Verdict::Timeout | Verdict::Error))
}

fn line(finished: &AttemptFinished, number: usize, total: usize) -> String {
    let width = total.to_string().len();
    let reason = finished.reason.as_ref().and_then(|reason| reason.lines().next()).unwrap_or_default();
    let separator = if reason.is_empty() { "" } else { "  " };
    format!(
        "[{number:>width$}/{total}] {:<11} {:>6} ms  {} · {}{separator}{reason}",
        finished.verdict, finished.wall_ms, finished.scenario, finished.builder
    )
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
