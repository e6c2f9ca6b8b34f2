// SPDX-License-Identifier: Apache-2.0
//! Runs one command of a builder: own process group, output to files, and an end in two phases when it takes too long.
//!
//! Invariant: when [`run`] returns, or when its future is dropped, no process of the group is left. The caller learns
//! what had to be done for that.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use shakedown_node::ProcessMarker;
use tokio::process::{Child, Command};

use super::Cancellation;
use crate::adapter::Invocation;

/// Between two looks at a process group that is ending.
const POLL: Duration = Duration::from_millis(5);

/// How long orphans of an ended command may take to end by themselves before they count as survivors.
const ORPHAN_LIMIT: Duration = Duration::from_millis(500);

/// How long killed processes may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// One command of a builder, with what the harness adds to it.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Program, arguments, environment and folder.
    pub invocation: Invocation,
    /// Where standard output goes.
    pub stdout: PathBuf,
    /// Where standard error goes.
    pub stderr: PathBuf,
    /// How long it may take before it is asked to end.
    pub limit: Duration,
    /// How long it may take to end when asked, before it is killed.
    pub grace: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that the harness did not send.
    Signalled(i32),
    /// It reached its limit. `killed` when it did not end in the grace period either.
    TimedOut {
        /// Whether SIGKILL was needed.
        killed: bool,
    },
    /// The run was cancelled, and the command ended because of that.
    Cancelled,
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(out, "exit code {code}"),
            Self::Signalled(signal) => write!(out, "ended by signal {signal}"),
            Self::TimedOut { killed: false } => out.write_str("over its limit, ended by SIGTERM"),
            Self::TimedOut { killed: true } => out.write_str("over its limit, ended by SIGKILL only"),
            Self::Cancelled => out.write_str("cancelled"),
        }
    }
}

/// What a command left in the way of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// How it ended.
    pub end: End,
    /// From just before the start until the end was seen, by the monotonic clock.
    pub wall_us: u64,
    /// Processes of its group outlived it and were killed.
    pub survivors: bool,
}

/// Why a command could not be run; nothing is said about the builder.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A log file could not be made.
    #[error("create log {}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The program could not be started.
    #[error("start {program}")]
    Start {
        /// The program.
        program: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to say how it ended.
    #[error("wait for {program}")]
    Wait {
        /// The program.
        program: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Killed processes are still there.
    #[error("end the processes of {program}: group {group} is still there {} s after SIGKILL", KILL_LIMIT.as_secs())]
    Unkillable {
        /// The program.
        program: String,
        /// The process group.
        group: i32,
    },
}

/// Runs a command to its end.
///
/// # Errors
/// [`CommandError`]; a command that runs and fails is no error but an [`End`].
pub async fn run(execution: &Execution, cancellation: &Cancellation) -> Result<Completion, CommandError> {
    let program = program_of(&execution.invocation);
    let marker = ProcessMarker::unique();
    let mut command = Command::from(execution.invocation.command());
    command
        .stdin(Stdio::null())
        .stdout(create(&execution.stdout)?)
        .stderr(create(&execution.stderr)?)
        .env(ProcessMarker::VARIABLE, marker.value())
        .process_group(0);
    let began = Instant::now();
    let mut child =
        command.spawn().map_err(|source| CommandError::Start { program: program.clone(), source })?;
    let mut group = Group::of(&child, &program, marker);
    let waited = tokio::select! {
        status = child.wait() => Waited::Ended(status),
        () = tokio::time::sleep(execution.limit) => Waited::Limit,
        _ = cancellation.wait() => Waited::Cancelled,
    };
    let wait_failed = |source| CommandError::Wait { program: program.clone(), source };
    let end = match waited {
        Waited::Ended(status) => end_of(status.map_err(wait_failed)?),
        Waited::Limit => {
            let killed = end_in_two_phases(&mut child, &group, execution.grace).await.map_err(wait_failed)?;
            End::TimedOut { killed }
        }
        Waited::Cancelled => {
            end_in_two_phases(&mut child, &group, execution.grace).await.map_err(wait_failed)?;
            End::Cancelled
        }
    };
    let wall_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let survivors = group.end().await?;
    Ok(Completion { end, wall_us, survivors })
}

enum Waited {
    Ended(io::Result<ExitStatus>),
    Limit,
    Cancelled,
}

fn program_of(invocation: &Invocation) -> String {
    invocation.argv.first().map_or_else(String::new, |program| program.to_string_lossy().into_owned())
}

/// Opened to append: commands of one purpose share a log.
fn create(path: &Path) -> Result<File, CommandError> {
    let file = File::options().create(true).append(true).open(path);
    file.map_err(|source| CommandError::Log { path: path.to_owned(), source })
}

fn end_of(status: ExitStatus) -> End {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        // Neither is only possible for a stopped process, which `wait` does not report.
        (None, None) => End::Signalled(0),
    }
}

/// TERM to the whole group, the grace period, then KILL. Returns whether the kill was needed.
async fn end_in_two_phases(child: &mut Child, group: &Group, grace: Duration) -> io::Result<bool> {
    group.signal(Signal::TERM);
    if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
        status?;
        return Ok(false);
    }
    group.signal(Signal::KILL);
    child.wait().await?;
    Ok(true)
}

/// A command's processes: its group, and what left the group but still has the marker in its environment. They are
/// killed when this value goes away early.
struct Group {
    id: Option<Pid>,
    program: String,
    marker: ProcessMarker,
}

impl Group {
    fn of(child: &Child, program: &str, marker: ProcessMarker) -> Self {
        // A child's own group has the child's pid as its number, as `process_group(0)` asked for.
        let id = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Self { id, program: program.to_owned(), marker }
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // ESRCH: it has ended by itself.
            let _ = kill_process_group(id, signal);
        }
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
        if let Err(error) = self.marker.kill_all() {
            tracing::warn!("could not list the processes of {}: {error}", self.program);
        }
    }

    /// Whether a process of the command still runs. Zombies do not: whoever inherited them reaps them when it likes.
    fn exists(&self) -> bool {
        let in_group =
            self.id.is_some_and(|id| test_kill_process_group(id).is_ok() && has_running_member(id));
        // A /proc that cannot be read must not pass for an empty one.
        in_group || self.marker.processes().map_or(true, |found| !found.is_empty())
    }

    /// Waits for the last process, and kills what stays; returns whether that was needed.
    async fn end(&mut self) -> Result<bool, CommandError> {
        let gone = self.gone_within(ORPHAN_LIMIT).await;
        if !gone {
            self.kill();
            if !self.gone_within(KILL_LIMIT).await {
                let group = self.id.map_or(0, Pid::as_raw_pid);
                return Err(CommandError::Unkillable { program: self.program.clone(), group });
            }
        }
        self.id = None;
        Ok(!gone)
    }

    async fn gone_within(&self, limit: Duration) -> bool {
        let limit = Instant::now() + limit;
        while self.exists() {
            if Instant::now() > limit {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}

/// Looks for the group in every `/proc/<pid>/stat`: after the name in parentheses come state, parent and group (proc(5)).
fn has_running_member(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok()).any(
        |stat| {
            let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
            let (state, _parent, found) = (fields.next(), fields.next(), fields.next());
            found.and_then(|found| found.parse().ok()) == Some(group.as_raw_pid()) && state != Some("Z")
        },
    )
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use shakedown_report::Ending;

    use super::*;

    fn execution(folder: &Path, script: &str) -> Execution {
        Execution {
            invocation: Invocation {
                argv: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
                env: [("GREETING".to_owned(), "hello".into()), ("PATH".to_owned(), "/usr/bin:/bin".into())]
                    .into(),
                cwd: folder.to_owned(),
            },
            stdout: folder.join("stdout"),
            stderr: folder.join("stderr"),
            limit: Duration::from_secs(20),
            grace: Duration::from_secs(20),
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn end(script: &str, change: impl FnOnce(&mut Execution)) -> Completion {
        let folder = tempfile::tempdir().unwrap();
        let mut execution = execution(folder.path(), script);
        change(&mut execution);
        block_on(run(&execution, &Cancellation::default())).unwrap()
    }

    #[test]
    fn output_exit_code_and_environment_are_the_commands_own() {
        let folder = tempfile::tempdir().unwrap();
        let execution = execution(folder.path(), "echo $GREETING; echo ${HOME-none} >&2; pwd; exit 7");
        let done = block_on(run(&execution, &Cancellation::default())).unwrap();
        assert_eq!((done.end, done.survivors), (End::Exited(7), false));
        let text = std::fs::read_to_string(folder.path().join("stdout")).unwrap();
        assert_eq!(text, format!("hello\n{}\n", folder.path().display()));
        assert_eq!(std::fs::read_to_string(folder.path().join("stderr")).unwrap(), "none\n");
    }

    #[test]
    fn a_signal_from_elsewhere_is_told_from_an_exit_code() {
        assert_eq!(end("kill -SEGV $$", |_| {}).end, End::Signalled(libc::SIGSEGV));
    }

    #[test]
    fn a_command_over_its_limit_is_asked_to_end() {
        let done = end("trap 'exit 0' TERM; while :; do sleep 0.01; done", |execution| {
            execution.limit = Duration::from_millis(50);
        });
        assert_eq!((done.end, done.survivors), (End::TimedOut { killed: false }, false));
    }

    #[test]
    fn a_command_that_does_not_listen_is_killed_with_its_children() {
        let done = end("trap '' TERM; while :; do sleep 0.01; done", |execution| {
            execution.limit = Duration::from_millis(50);
            execution.grace = Duration::from_millis(50);
        });
        assert_eq!((done.end, done.survivors), (End::TimedOut { killed: true }, false));
    }

    #[test]
    fn what_outlives_the_command_is_found_and_killed() {
        let done = end("sleep 1000 & exit 0", |_| {});
        assert_eq!((done.end, done.survivors), (End::Exited(0), true));
        let done = end("setsid sleep 1000 & exit 0", |_| {});
        assert_eq!((done.end, done.survivors), (End::Exited(0), true), "a group of its own does not hide it");
    }

    #[test]
    fn a_cancellation_ends_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let execution = execution(folder.path(), "sleep 1000");
        let cancellation = Cancellation::default();
        let other = cancellation.clone();
        let done = block_on(async move {
            let cancel = async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                other.cancel(Ending::Interrupted);
            };
            tokio::join!(run(&execution, &cancellation), cancel).0.unwrap()
        });
        assert_eq!(done.end, End::Cancelled);
    }

    #[test]
    fn a_missing_program_is_an_error_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut execution = execution(folder.path(), "");
        execution.invocation.argv = vec!["/nonexistent/builder".into()];
        let error = block_on(run(&execution, &Cancellation::default())).unwrap_err();
        assert_eq!(error.to_string(), "start /nonexistent/builder");
    }
}
