// SPDX-License-Identifier: Apache-2.0
//! A builder made ready: its folders, its daemons, its base images; and the commands it is driven by.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shakedown_node::BaseImage;

use super::command::{self, CommandError, Completion, End, Execution};
use super::{Cancellation, Candidate};
use crate::adapter::{
    self, Adapter, BuildArguments, DaemonPlan, Invocation, PlanError, PlannedReadiness, Surroundings,
    VersionError, plan_build, plan_deliver, plan_down, plan_prune, plan_seed, plan_up, plan_version,
};
use crate::cluster::{Cluster, Daemon, DaemonError, DaemonSpec, WaitFor};

/// The namespace of containerd that a kubelet reads.
pub const NAMESPACE: &str = "k8s.io";

/// How long a command of the lifecycle may take.
const LIFECYCLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a daemon may take to end after SIGTERM.
const TERM_LIMIT: Duration = Duration::from_secs(20);

/// How much of a log an error carries.
const LOG_TAIL_BYTES: usize = 2048;

/// Between the request to end and the kill.
const GRACE: Duration = Duration::from_secs(10);

/// A builder that can build now.
pub struct ReadyBuilder {
    adapter: Adapter,
    surroundings: Surroundings,
    version: String,
    logs: PathBuf,
    daemons: Vec<Daemon>,
}

/// Why a builder that is installed could not be made ready, driven or put away. Says nothing about what it builds.
#[derive(Debug, thiserror::Error)]
pub enum BuilderError {
    /// A folder or file of the harness could not be made.
    #[error("create {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The adapter does not give a command.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A daemon did not start or end.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A command could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The run was cancelled meanwhile.
    #[error("make the builder ready: cancelled")]
    Cancelled,
    /// The version could not be found.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A command of the lifecycle failed.
    #[error("{purpose} with `{invocation}`: {end}\n{log_tail}")]
    Lifecycle {
        /// What the command is for.
        purpose: &'static str,
        /// The command.
        invocation: String,
        /// How it ended.
        end: End,
        /// The end of its standard error.
        log_tail: String,
    },
}

impl ReadyBuilder {
    /// Makes the folders, starts the daemons and loads the base images.
    ///
    /// # Errors
    /// [`BuilderError`]; daemons that had been started are ended again.
    pub async fn start(
        candidate: &Candidate,
        programs: &BTreeMap<String, PathBuf>,
        cluster: &Cluster,
        logs: &Path,
        environment: &BTreeMap<String, OsString>,
        cancellation: &Cancellation,
    ) -> Result<Self, BuilderError> {
        let node = cluster.node();
        let home = node.dir().join("builders").join(candidate.name());
        let surroundings = Surroundings {
            programs: programs.clone(),
            state: home.join("state"),
            scratch: home.join("tmp"),
            containerd: node.address(),
            namespace: NAMESPACE.to_owned(),
            cgroup: node.cgroup_parent(),
            environment: environment.clone(),
        };
        let logs = logs.join(candidate.name());
        for folder in [&surroundings.state, &surroundings.scratch, &logs] {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let mut builder = Self {
            adapter: candidate.adapter.clone(),
            surroundings,
            version: String::new(),
            logs,
            daemons: Vec::new(),
        };
        match builder.bring_up(cluster.base_images(), cancellation).await {
            Ok(()) => Ok(builder),
            Err(error) => {
                builder.stop().await?;
                Err(error)
            }
        }
    }

    /// The adapter.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.adapter.id.value
    }

    /// What the builder says about itself.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the builder works.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Whether images have to be brought to the node.
    pub fn delivers(&self) -> bool {
        !self.adapter.deliver.is_empty()
    }

    /// The command of one build.
    ///
    /// # Errors
    /// [`PlanError::Unsupported`] when the adapter does not claim what an argument needs.
    pub fn plan(&self, arguments: &BuildArguments) -> Result<Invocation, PlanError> {
        plan_build(&self.adapter, arguments, &self.surroundings)
    }

    /// Runs one build; its output goes to `<log>.stdout` and `<log>.stderr`.
    ///
    /// # Errors
    /// [`CommandError`]; a build that fails is no error.
    pub async fn build(
        &self,
        invocation: Invocation,
        log: &Path,
        limit: Duration,
        cancellation: &Cancellation,
    ) -> Result<Completion, CommandError> {
        command::run(&execution(invocation, log, limit), cancellation).await
    }

    /// Brings one image to the node; returns how long the commands took, in microseconds.
    ///
    /// # Errors
    /// [`BuilderError::Lifecycle`] with the command that failed.
    pub async fn deliver(
        &self,
        reference: &str,
        log: &Path,
        limit: Duration,
        cancellation: &Cancellation,
    ) -> Result<u64, BuilderError> {
        let commands = plan_deliver(&self.adapter, reference, &self.surroundings)?;
        self.all("deliver the image", commands, log, limit, cancellation).await
    }

    /// Empties the builder's cache.
    ///
    /// # Errors
    /// [`BuilderError::Lifecycle`] with the command that failed.
    pub async fn prune(&self, cancellation: &Cancellation) -> Result<(), BuilderError> {
        let commands = plan_prune(&self.adapter, &self.surroundings)?;
        self.all("prune the cache", commands, &self.logs.join("prune"), LIFECYCLE_LIMIT, cancellation)
            .await?;
        Ok(())
    }

    /// Runs the last commands and ends the daemons in reverse order.
    ///
    /// # Errors
    /// The first [`BuilderError`]; the rest is ended all the same.
    pub async fn stop(mut self) -> Result<(), BuilderError> {
        let commands = plan_down(&self.adapter, &self.surroundings)?;
        // A cancelled run is put away like any other.
        let never = Cancellation::default();
        let log = self.logs.join("down");
        let down = self.all("put the builder away", commands, &log, LIFECYCLE_LIMIT, &never).await;
        let mut result = down.map(drop);
        while let Some(daemon) = self.daemons.pop() {
            let ended = daemon.stop(TERM_LIMIT).await.map_err(BuilderError::from);
            result = result.and(ended);
        }
        result
    }

    async fn bring_up(
        &mut self,
        bases: &[BaseImage],
        cancellation: &Cancellation,
    ) -> Result<(), BuilderError> {
        for (number, plan) in plan_up(&self.adapter, &self.surroundings)?.into_iter().enumerate() {
            let daemon =
                Daemon::start(daemon_spec(plan, self.logs.join(format!("daemon-{}.log", number + 1))));
            // A start that is dropped half-way ends what it started.
            self.daemons.push(tokio::select! {
                daemon = daemon => daemon?,
                _ = cancellation.wait() => return Err(BuilderError::Cancelled),
            });
        }
        self.version =
            adapter::detect_version(&self.adapter, &plan_version(&self.adapter, &self.surroundings)?)?;
        if self.adapter.seed.is_empty() {
            return Ok(());
        }
        for base in bases {
            let archive = self.surroundings.scratch.join("base.tar");
            base.write_to(&archive).map_err(at(&archive))?;
            let commands = plan_seed(&self.adapter, &archive, &self.surroundings)?;
            let log = self.logs.join("seed");
            self.all("load the base image", commands, &log, LIFECYCLE_LIMIT, cancellation).await?;
            fs::remove_file(&archive).map_err(at(&archive))?;
        }
        Ok(())
    }

    /// Runs commands one after the other; returns how long they took, in microseconds.
    async fn all(
        &self,
        purpose: &'static str,
        commands: Vec<Invocation>,
        log: &Path,
        limit: Duration,
        cancellation: &Cancellation,
    ) -> Result<u64, BuilderError> {
        let mut wall_us = 0;
        for invocation in commands {
            let line = invocation.to_string();
            let execution = execution(invocation, log, limit);
            let done = command::run(&execution, cancellation).await?;
            if done.end != End::Exited(0) {
                return Err(BuilderError::Lifecycle {
                    purpose,
                    invocation: line,
                    end: done.end,
                    log_tail: tail(&execution.stderr),
                });
            }
            wall_us += done.wall_us;
        }
        Ok(wall_us)
    }
}

fn daemon_spec(plan: DaemonPlan, log_path: PathBuf) -> DaemonSpec {
    let Invocation { argv, env, cwd } = plan.invocation;
    let ready = match plan.ready {
        PlannedReadiness::Socket(path) => WaitFor::Socket(path),
        PlannedReadiness::Command(invocation) => WaitFor::Command(invocation.argv),
    };
    DaemonSpec { argv, env, directory: cwd, log_path, ready, limit: Duration::from_secs(plan.limit_s) }
}

/// The end of a log, for an error message.
fn tail(log: &Path) -> String {
    match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..])
            .trim_end()
            .to_owned(),
        Err(error) => format!("(no log: {error})"),
    }
}

fn execution(invocation: Invocation, log: &Path, limit: Duration) -> Execution {
    let with = |suffix: &str| {
        let mut path = log.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    Execution { invocation, stdout: with(".stdout"), stderr: with(".stderr"), limit, grace: GRACE }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BuilderError {
    move |source| BuilderError::Folder { path: path.to_owned(), source }
}
