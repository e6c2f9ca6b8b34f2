// SPDX-License-Identifier: Apache-2.0
//! Every scenario with every builder that is installed, on one private containerd: `docker/copy/modes_and_owners`.
//!
//! As a plain user, or without the builder, a trial is reported as ignored with the reason; what a builder does not
//! claim is ignored while it runs. Filters, lists and formats are those of the standard test binary.
//!
//! Pushless is taken from beside this program's folder, where `cargo test --workspace` puts it before any test runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use confine::Confinement;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use shakedown::adapter::{self, Environment};
use shakedown::cluster::{Cluster, ClusterOptions};
use shakedown::scenario::{self, Scenario};
use shakedown::trial::{Cancellation, Candidate, Column, Executor, NodeSide, chain, describe};
use shakedown_node::{BaseImage, ContainerdBinaries, TestPlace};
use shakedown_report::Verdict;
use tokio::runtime::Runtime;

/// The builders whose absence is a failure, separated by spaces.
const REQUIRED: &str = "SHAKEDOWN_TEST_REQUIRE";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let scenarios = or_exit(scenario::load_all(&root.join("scenarios")));
    let adapters = or_exit(adapter::load_all(&root.join("adapters")));
    let environment = environment();
    let candidates: Vec<_> =
        adapters.into_iter().map(|adapter| Candidate::look_for(adapter, &environment)).collect();
    let plain_user = shakedown_testing::root("run containerd");
    if plain_user.is_none() {
        // While there is one thread, and before anything is started: it all ends with this process.
        confine::enter(Confinement { network: true, reap_orphans: true }).expect("private namespaces");
    }
    let _place = TestPlace::enter().expect("a place");
    let stage = Arc::new(Stage::new(root.join("scenarios"), candidates.clone(), environment));
    let required = std::env::var(REQUIRED).unwrap_or_default();
    let mut trials = Vec::new();
    for (column, candidate) in candidates.iter().enumerate() {
        let missing = plain_user.clone().or_else(|| {
            let absence = candidate.programs.as_ref().err()?;
            Some(format!("{}; help: {}", describe(absence), absence.install_hint))
        });
        let required = plain_user.is_none() && required.split(' ').any(|name| name == candidate.name());
        for scenario in &scenarios {
            let name = format!("{}/{}", candidate.name(), scenario.id.value.as_str());
            let (stage, scenario, missing) = (Arc::clone(&stage), scenario.clone(), missing.clone());
            trials.push(Trial::ignorable_test(name, move || match missing {
                Some(reason) if required => Err(reason.into()),
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => stage.run(&scenario, column),
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The closures, and with them their shares in the stage, went with the trials.
    if let Some(stage) = Arc::into_inner(stage) {
        stage.put_away();
    }
    conclusion.exit_code()
}

fn or_exit<T>(loaded: Result<Vec<T>, Vec<shakedown::document::DocumentError>>) -> Vec<T> {
    loaded.unwrap_or_else(|errors| {
        for error in errors {
            eprint!("{}", error.render());
        }
        std::process::exit(2)
    })
}

/// A test binary lies in `target/<profile>/deps`; the programs of the workspace are one folder above.
fn environment() -> Environment {
    let mut environment = Environment::of_this_process();
    if let Some(above) = environment.beside.parent() {
        environment.beside = above.to_owned();
    }
    environment
}

/// The node and the builders, made ready by the first trial that runs.
struct Stage {
    scenarios: PathBuf,
    candidates: Vec<Candidate>,
    environment: Environment,
    ready: OnceLock<Result<Ready, String>>,
    /// One trial at a time: residue is found by comparing the node before and after.
    turn: Mutex<()>,
    cancellation: Cancellation,
}

struct Ready {
    runtime: Runtime,
    cluster: Cluster,
    columns: Vec<Column>,
    out: tempfile::TempDir,
}

impl Stage {
    fn new(scenarios: PathBuf, candidates: Vec<Candidate>, environment: Environment) -> Self {
        Self {
            scenarios,
            candidates,
            environment,
            ready: OnceLock::new(),
            turn: Mutex::new(()),
            cancellation: Cancellation::default(),
        }
    }

    fn run(&self, scenario: &Scenario, column: usize) -> Result<Completion, Failed> {
        // A panic in another trial says nothing about the node.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = self.ready.get_or_init(|| self.make_ready()).as_ref()?;
        let executor = Executor {
            node: NodeSide::of(&ready.cluster),
            scenarios: &self.scenarios,
            out: ready.out.path(),
            run: "conformance",
            base: BaseImage::BUSYBOX,
            cancellation: &self.cancellation,
        };
        let finished = ready.runtime.block_on(executor.attempt(scenario, &ready.columns[column], 1));
        let reason = finished.reason.unwrap_or_default();
        match finished.verdict {
            Verdict::Pass => Ok(Completion::Completed),
            Verdict::Unsupported => Ok(Completion::ignored_with(reason)),
            verdict => {
                let mut text = format!("{verdict}: {reason}");
                for finding in finished.findings {
                    let path = finding.path.unwrap_or_default();
                    text.push_str(&format!(
                        "\n{} {path}\n    expected {}\n    found    {}",
                        finding.assertion, finding.expected, finding.found
                    ));
                }
                for log in finished.logs {
                    let log = ready.out.path().join(log);
                    let content = std::fs::read_to_string(&log).unwrap_or_default();
                    if !content.is_empty() {
                        text.push_str(&format!("\n--- {}\n{content}", log.display()));
                    }
                }
                Err(text.into())
            }
        }
    }

    fn make_ready(&self) -> Result<Ready, String> {
        let shown = |error: &dyn std::error::Error| chain(error);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| shown(&error))?;
        let out = tempfile::tempdir().map_err(|error| shown(&error))?;
        let binaries = ContainerdBinaries::find("SHAKEDOWN_CONTAINERD").map_err(|error| shown(&error))?;
        // The place of this program, and a short name: dockerd's sockets lie deep below.
        let parent_dir = std::env::temp_dir().join("n");
        let (cluster, columns) = runtime.block_on(async {
            let options = ClusterOptions { binaries, parent_dir, keep: false };
            let cluster = Cluster::start(options).await.map_err(|error| shown(&error))?;
            let mut columns = Vec::new();
            for candidate in &self.candidates {
                let logs = out.path().join("logs");
                let prepared =
                    Column::prepare(candidate, &cluster, &logs, &self.environment, &self.cancellation);
                columns.push(prepared.await);
            }
            Ok::<_, String>((cluster, columns))
        })?;
        Ok(Ready { runtime, cluster, columns, out })
    }

    fn put_away(self) {
        let Some(Ok(Ready { runtime, cluster, columns, .. })) = self.ready.into_inner() else { return };
        runtime.block_on(async {
            for column in columns {
                if let Some(trouble) = column.put_away().await {
                    eprintln!("{trouble}");
                }
            }
            if let Err(error) = cluster.stop().await {
                eprintln!("stop the cluster: {}", chain(&error));
            }
        });
    }
}
