// SPDX-License-Identifier: Apache-2.0
//! A builder's own daemon: started in a process group, waited for, and ended with everything it started.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::Cancellation;
use super::command::{self, CommandError, End, Execution, Group, create, end_in_two_phases, program_of};
use crate::adapter::{DaemonPlan, PlannedReadiness};

/// Between two looks at a daemon that is starting.
const POLL: Duration = Duration::from_millis(25);

/// How long one question to a starting daemon may take.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How long a daemon may take to end after SIGTERM.
const TERM_LIMIT: Duration = Duration::from_secs(20);

/// How much of the log an error carries.
const LOG_TAIL_BYTES: usize = 2048;

/// A running daemon. Its process group is killed when this value is dropped without [`Daemon::stop`].
pub(super) struct Daemon {
    program: String,
    child: Child,
    group: Group,
}

/// Why a daemon did not start or end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A command around the daemon could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It ended before it was ready.
    #[error("start {program}: it ended with {status}\n{log_tail}")]
    Ended {
        /// The daemon.
        program: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log_tail: String,
    },
    /// It was not ready in time.
    #[error("wait {limit_s} s for {program} to be ready\n{log_tail}")]
    NotReady {
        /// The daemon.
        program: String,
        /// The limit.
        limit_s: u64,
        /// The end of its log.
        log_tail: String,
    },
    /// The run was cancelled meanwhile.
    #[error("wait for {program} to be ready: cancelled")]
    Cancelled {
        /// The daemon.
        program: String,
    },
}

impl Daemon {
    /// Starts the daemon and waits until it is ready; both its streams go to `log`.
    pub(super) async fn start(
        plan: &DaemonPlan,
        log: &Path,
        cancellation: &Cancellation,
    ) -> Result<Self, DaemonError> {
        let program = program_of(&plan.invocation);
        let stdout = create(log)?;
        let stderr =
            stdout.try_clone().map_err(|source| CommandError::Log { path: log.to_owned(), source })?;
        let child = Command::from(plan.invocation.command())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(|source| CommandError::Start { program: program.clone(), source })?;
        let group = Group::of(&child, &program);
        let mut daemon = Self { program, child, group };
        match daemon.wait_until_ready(plan, log, cancellation).await {
            Ok(()) => Ok(daemon),
            Err(error) => {
                daemon.stop().await?;
                Err(error)
            }
        }
    }

    /// Ends the daemon, and kills what it leaves in its process group.
    pub(super) async fn stop(mut self) -> Result<(), DaemonError> {
        let waited = end_in_two_phases(&mut self.child, &self.group, TERM_LIMIT).await;
        waited.map_err(|source| CommandError::Wait { program: self.program.clone(), source })?;
        self.group.end().await?;
        Ok(())
    }

    async fn wait_until_ready(
        &mut self,
        plan: &DaemonPlan,
        log: &Path,
        cancellation: &Cancellation,
    ) -> Result<(), DaemonError> {
        let limit = Instant::now() + Duration::from_secs(plan.limit_s);
        let program = || self.program.clone();
        loop {
            let ended = self.child.try_wait();
            if let Some(status) = ended.map_err(|source| CommandError::Wait { program: program(), source })? {
                let status = status.to_string();
                return Err(DaemonError::Ended { program: program(), status, log_tail: tail(log) });
            }
            if is_ready(&plan.ready, log, cancellation).await? {
                return Ok(());
            }
            if cancellation.get().is_some() {
                return Err(DaemonError::Cancelled { program: program() });
            }
            if Instant::now() > limit {
                return Err(DaemonError::NotReady {
                    program: program(),
                    limit_s: plan.limit_s,
                    log_tail: tail(log),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn is_ready(
    ready: &PlannedReadiness,
    log: &Path,
    cancellation: &Cancellation,
) -> Result<bool, CommandError> {
    match ready {
        PlannedReadiness::Socket(path) => Ok(UnixStream::connect(path).await.is_ok()),
        PlannedReadiness::Command(invocation) => {
            let beside = |name: &str| log.with_extension(name);
            let probe = Execution {
                invocation: invocation.clone(),
                stdout: beside("ready.stdout"),
                stderr: beside("ready.stderr"),
                limit: PROBE_LIMIT,
                grace: Duration::from_secs(1),
            };
            Ok(command::run(&probe, cancellation).await?.end == End::Exited(0))
        }
    }
}

/// The end of a log, for an error message.
pub(super) fn tail(log: &Path) -> String {
    match std::fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..])
            .trim_end()
            .to_owned(),
        Err(error) => format!("(no log: {error})"),
    }
}

/// Names the log of the daemon with this number.
pub(super) fn log_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("daemon-{}.log", number + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Invocation;

    fn plan(folder: &Path, script: &str, limit_s: u64) -> DaemonPlan {
        let shell = |script: &str| Invocation {
            argv: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
            env: [("PATH".to_owned(), "/usr/bin:/bin".into())].into(),
            cwd: folder.to_owned(),
        };
        DaemonPlan {
            invocation: shell(script),
            ready: PlannedReadiness::Command(shell("test -e ready")),
            limit_s,
        }
    }

    fn start(script: &str, limit_s: u64) -> (Result<(), DaemonError>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path(), script, limit_s);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async {
            let log = folder.path().join("daemon.log");
            Daemon::start(&plan, &log, &Cancellation::default()).await?.stop().await
        });
        (result, folder)
    }

    #[test]
    fn a_daemon_is_waited_for_and_ended_by_term() {
        let script = "trap 'touch ended; exit 0' TERM; touch ready; while :; do sleep 0.01; done";
        let (result, folder) = start(script, 20);
        result.unwrap();
        assert!(folder.path().join("ended").exists());
    }

    #[test]
    fn a_daemon_that_ends_early_or_never_gets_ready_shows_the_end_of_its_log() {
        let (result, _folder) = start("echo no socket; exit 3", 20);
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "start /bin/sh: it ended with exit status: 3\nno socket");
        let (result, _folder) = start("echo waiting; sleep 100", 0);
        assert_eq!(result.unwrap_err().to_string(), "wait 0 s for /bin/sh to be ready\nwaiting");
    }
}
