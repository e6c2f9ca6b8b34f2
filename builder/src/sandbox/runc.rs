// SPDX-License-Identifier: Apache-2.0
//! Finds runc and runs one container with it, from start to removal.
//!
//! A container belongs to the future that runs it: when that is dropped or cancelled, the processes are killed and
//! runc's state and the cgroup are removed before anything else happens. A command that failed and a runc that
//! failed are told apart by runc's log, for its exit code is 1 in both cases.
//!
//! This module must not know where a configuration comes from or what becomes of the root.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::cgroup::{CgroupError, Cgroups};
use super::kill::kill_tree;
use super::output::{LineBuffer, OutputChunk, Stream};

/// Where Kubernetes distributions keep a runc of their own, looked at after `PATH`.
const DISTRIBUTION_DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/var/lib/rancher/k3s/data/current/bin",
    "/var/lib/rancher/rke2/bin",
    "/snap/microk8s/current/bin",
    "/var/lib/k0s/bin",
    "/opt/containerd/bin",
];

/// How long an unfinished line is held back.
const LINE_PATIENCE: Duration = Duration::from_millis(100);

/// How runc begins the last line that it writes when it could not run a container.
const FAILURE_PREFIX: &str = "runc run failed: ";

/// Why a container could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RuncError {
    /// No runc anywhere.
    #[error("find runc: looked at {}", .looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NotFound {
        /// Every path tried.
        looked_at: Vec<PathBuf>,
    },
    /// The command is not in the image, or cannot be executed.
    #[error("execute {command}: {reason}")]
    CannotExecute {
        /// The first word of the command.
        command: String,
        /// What runc found.
        reason: String,
    },
    /// runc could not make the container.
    #[error("make the container: {message}")]
    Failed {
        /// runc's last error.
        message: String,
    },
    /// runc itself was ended by a signal.
    #[error("run runc: it was ended by {status}")]
    Died {
        /// How.
        status: ExitStatus,
    },
    /// A file or process of runc could not be used.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Program or file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The container's cgroup could not be emptied or removed.
    #[error("clean up the container")]
    Cgroup(#[from] CgroupError),
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuncError {
    let path = path.to_owned();
    move |source| RuncError::System { operation, path, source }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended with this code; 128 + the signal's number after a signal, as a shell reports it.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// It was cancelled and nothing of it is left.
    Cancelled,
}

impl Outcome {
    /// Whether the command succeeded.
    pub fn is_success(self) -> bool {
        self == Self::Exited { code: 0 }
    }

    /// The signal that a code above 128 stands for by convention; a command can also exit with such a code by itself.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Exited { code } => Some(code - 128).filter(|signal| (1..=64).contains(signal)),
            Self::Cancelled => None,
        }
    }
}

/// A runc that exists.
#[derive(Debug, Clone)]
pub struct Runc {
    path: PathBuf,
}

/// What runc is told about one container.
#[derive(Debug, Clone, Copy)]
pub struct ContainerPlace<'a> {
    /// runc's state directory.
    pub state: &'a Path,
    /// The bundle: holds `config.json`; runc's log is written beside it.
    pub bundle: &'a Path,
    /// Container id, unique in `state`.
    pub id: &'a str,
    /// The hierarchies, and the container's place in them.
    pub cgroups: &'a Cgroups,
    /// Build id.
    pub build: &'a str,
    /// Step name.
    pub step: &'a str,
}

impl Runc {
    /// The runc at `flag`; without one the first of `PATH` and the distributions' directories.
    ///
    /// # Errors
    /// [`RuncError::NotFound`] with every path looked at.
    pub fn discover(flag: Option<&Path>) -> Result<Self, RuncError> {
        let candidates = match flag {
            Some(path) => vec![path.to_owned()],
            None => {
                let searched = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&searched)
                    .chain(DISTRIBUTION_DIRECTORIES.map(PathBuf::from))
                    .map(|directory| directory.join("runc"))
                    .collect()
            }
        };
        Self::first_of(candidates)
    }

    fn first_of(candidates: Vec<PathBuf>) -> Result<Self, RuncError> {
        let executable = |path: &&PathBuf| {
            path.is_file() && rustix::fs::access(path.as_path(), rustix::fs::Access::EXEC_OK).is_ok()
        };
        match candidates.iter().find(executable) {
            Some(path) => Ok(Self { path: path.clone() }),
            None => Err(RuncError::NotFound { looked_at: candidates }),
        }
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the container that `place` describes until it ends or `cancel` completes.
    ///
    /// Output is sent as it comes; when the receiver is gone it is read on and dropped, so the command never blocks on
    /// a reader that left. Standard input is `/dev/null`.
    ///
    /// # Errors
    /// [`RuncError`]; nothing of the container is left then, unless cleaning up is what failed.
    pub async fn run(
        &self,
        place: ContainerPlace<'_>,
        output: mpsc::Sender<OutputChunk>,
        cancel: impl Future<Output = ()>,
    ) -> Result<Outcome, RuncError> {
        let log = place.bundle.join("log.json");
        let mut child = Command::new(&self.path)
            .arg("--root")
            .arg(place.state)
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json", "run", "--bundle"])
            .arg(place.bundle)
            .arg(place.id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(at("start", &self.path))?;
        // Declared after the child, so it is dropped before it, while runc's process id is still its own.
        let runc = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let mut remains = Remains { place, runc, armed: true };
        let mut relay = Relay::new(&mut child, output);
        let cancelled = tokio::select! {
            () = relay.run() => false,
            () = cancel => true,
        };
        if cancelled {
            remains.clear()?;
            child.wait().await.map_err(at("wait for", &self.path))?;
            return Ok(Outcome::Cancelled);
        }
        let held = relay.held.take();
        let output = relay.output.clone();
        let status = child.wait().await.map_err(at("wait for", &self.path))?;
        remains.runc = None;
        remains.clear()?;
        let failure = if status.success() { None } else { last_error(&log)? };
        if let Some(message) = failure {
            return Err(classify(&message));
        }
        if let Some(chunk) = held {
            // The command wrote it, not runc. A receiver that left has no use for it.
            let _ = output.send(chunk).await;
        }
        status.code().map(|code| Outcome::Exited { code }).ok_or(RuncError::Died { status })
    }
}

/// What is left of a container, removed at the latest when this is dropped.
struct Remains<'a> {
    place: ContainerPlace<'a>,
    /// runc itself, until it has ended and been waited for.
    runc: Option<Pid>,
    armed: bool,
}

impl Remains<'_> {
    /// Kills what still runs, then removes the cgroup and runc's state. Blocks for some milliseconds when there is something
    /// to do, for microseconds after a container that ended by itself.
    ///
    /// `runc delete --force` would do the same, but it takes longer and answers with success when it removed nothing,
    /// as it does while a process that is about to die keeps the cgroup busy.
    fn clear(&mut self) -> Result<(), RuncError> {
        self.armed = false;
        let ContainerPlace { state, id, cgroups, build, step, .. } = self.place;
        if let Some(runc) = self.runc.take() {
            kill_tree(runc).map_err(at("kill", Path::new("runc")))?;
        }
        cgroups.kill(build, step)?;
        cgroups.remove_step(build, step)?;
        let state = state.join(id);
        match std::fs::remove_dir_all(&state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &state)(error)),
            _ => Ok(()),
        }
    }
}

impl Drop for Remains<'_> {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = self.clear()
        {
            tracing::warn!(%error, "a dropped container is not cleaned up");
        }
    }
}

/// Carries the output of one container to the receiver.
struct Relay {
    stdout: Option<tokio::process::ChildStdout>,
    stderr: Option<tokio::process::ChildStderr>,
    lines: [LineBuffer; 2],
    output: mpsc::Sender<OutputChunk>,
    /// The last line of standard error, if it looks like runc's own: whose it is, is known when runc has ended.
    held: Option<OutputChunk>,
}

impl Relay {
    fn new(child: &mut Child, output: mpsc::Sender<OutputChunk>) -> Self {
        let lines = [LineBuffer::new(Stream::Stdout), LineBuffer::new(Stream::Stderr)];
        Self { stdout: child.stdout.take(), stderr: child.stderr.take(), lines, output, held: None }
    }

    /// Until both streams end.
    async fn run(&mut self) {
        let (mut out, mut err) = (vec![0; 32 * 1024], vec![0; 32 * 1024]);
        while self.stdout.is_some() || self.stderr.is_some() {
            let holding = self.lines.iter().any(LineBuffer::is_holding);
            let chunk = tokio::select! {
                count = read(&mut self.stdout, &mut out) => self.lines[0].push(&out[..count]),
                count = read(&mut self.stderr, &mut err) => self.lines[1].push(&err[..count]),
                () = tokio::time::sleep(LINE_PATIENCE), if holding => {
                    self.flush().await;
                    None
                }
            };
            if let Some(chunk) = chunk {
                self.send(chunk).await;
            }
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        for index in 0..self.lines.len() {
            if let Some(chunk) = self.lines[index].flush() {
                self.send(chunk).await;
            }
        }
    }

    async fn send(&mut self, mut chunk: OutputChunk) {
        if chunk.stream == Stream::Stderr {
            if let Some(held) = self.held.take() {
                // More came after it, so runc did not write it.
                let _ = self.output.send(held).await;
            }
            let text = &chunk.bytes[..];
            let last =
                text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            if text[last..].starts_with(FAILURE_PREFIX.as_bytes()) {
                let line = chunk.bytes.split_off(last);
                self.held = Some(OutputChunk { stream: Stream::Stderr, bytes: line });
            }
        }
        if !chunk.bytes.is_empty() {
            // A receiver that left is no reason to stop the command.
            let _ = self.output.send(chunk).await;
        }
    }
}

/// Reads once; a stream that ends or fails is closed, one that is closed never answers.
async fn read<R: AsyncRead + Unpin>(stream: &mut Option<R>, buffer: &mut [u8]) -> usize {
    let Some(open) = stream else { return std::future::pending().await };
    let count = open.read(buffer).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "output of a container could not be read");
        0
    });
    if count == 0 {
        *stream = None;
    }
    count
}

/// The last error in runc's log, if it wrote one.
fn last_error(log: &Path) -> Result<Option<String>, RuncError> {
    let text = match std::fs::read_to_string(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(at("read", log))?,
    };
    Ok(error_in_log(&text))
}

fn error_in_log(text: &str) -> Option<String> {
    text.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|record| record["level"] == "error" || record["level"] == "fatal")
        .and_then(|record| record["msg"].as_str().map(str::to_owned))
}

/// Whether it was the command that could not be executed: `… exec: "name": reason`.
fn classify(message: &str) -> RuncError {
    let message = message.strip_prefix(FAILURE_PREFIX).unwrap_or(message);
    let executed = message
        .split_once("unable to start container process: exec: \"")
        .and_then(|(_, rest)| rest.split_once("\": "))
        .map(|(command, reason)| RuncError::CannotExecute {
            command: command.to_owned(),
            reason: reason.to_owned(),
        });
    executed.unwrap_or_else(|| RuncError::Failed { message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_command_and_of_runc() {
        for (log, wanted) in [
            (
                r#"{"level":"error","msg":"runc run failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH","time":"t"}"#,
                Some("execute nosuch: executable file not found in $PATH"),
            ),
            (
                r#"{"level":"error","msg":"runc run failed: unable to start container process: exec: \"/bin\": permission denied"}"#,
                Some("execute /bin: permission denied"),
            ),
            (
                "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"rootfs: no such file\"}\n",
                Some("make the container: rootfs: no such file"),
            ),
            (r#"{"level":"warning","msg":"cgroup is busy"}"#, None),
            ("not json", None),
            ("", None),
        ] {
            let found = error_in_log(log).map(|message| classify(&message).to_string());
            assert_eq!(found.as_deref(), wanted);
        }
    }

    #[test]
    fn a_missing_runc_lists_where_it_was_looked_for() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("plain"), "").expect("a file");
        let error =
            Runc::first_of(vec!["/no/runc".into(), directory.path().join("plain")]).expect_err("no runc");
        let plain = directory.path().join("plain");
        assert_eq!(error.to_string(), format!("find runc: looked at /no/runc, {}", plain.display()));
        assert_eq!(
            Runc::discover(Some(Path::new("/no/such"))).expect_err("no runc").to_string(),
            "find runc: looked at /no/such"
        );
    }

    #[test]
    fn codes_above_128_stand_for_signals() {
        for (code, signal) in
            [(0, None), (1, None), (128, None), (137, Some(9)), (143, Some(15)), (255, None)]
        {
            assert_eq!(Outcome::Exited { code }.signal(), signal, "{code}");
        }
    }
}
