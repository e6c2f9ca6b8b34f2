// SPDX-License-Identifier: Apache-2.0
//! A daemon that a builder needs, as a value: started, known to be ready, and gone when dropped, with all its children.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use shakedown_node::ProcessMarker;

/// Between two probes.
const POLL: Duration = Duration::from_millis(10);

/// How long killed processes may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How much of the log an error carries.
const LOG_TAIL_BYTES: usize = 4096;

/// What says that a daemon is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitFor {
    /// The Unix socket at this path takes a connection.
    Socket(PathBuf),
    /// This command, run again and again, exits with code 0.
    Command(Vec<OsString>),
}

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct DaemonSpec {
    /// The program and its arguments; no shell in between.
    pub argv: Vec<OsString>,
    /// All its variables, for nothing is inherited; the ready command gets them too.
    pub env: BTreeMap<String, OsString>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Where its output goes.
    pub log_path: PathBuf,
    /// What says that it is ready.
    pub ready: WaitFor,
    /// How long that may take.
    pub limit: Duration,
}

/// A running daemon; killed with everything that it started when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    marker: ProcessMarker,
    spec: DaemonSpec,
    stopped: bool,
}

/// Why a daemon did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The command has no program.
    #[error("start a daemon: its command is empty")]
    NoProgram,
    /// A file or a program could not be used.
    #[error("{operation} {}", path.display())]
    System {
        /// The step that failed.
        operation: &'static str,
        /// The file or program.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("start {program}: it ended with {status}\n{log_tail}")]
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log_tail: String,
    },
    /// It was not ready in time, and has been killed.
    #[error("wait {} ms for {program}: {state}\n{log_tail}", limit.as_millis())]
    NotReady {
        /// The program.
        program: String,
        /// The limit that passed.
        limit: Duration,
        /// What the last probe said.
        state: String,
        /// The end of its log.
        log_tail: String,
    },
    /// Processes of it did not end on `SIGKILL`.
    #[error("end {program}: {pids:?} are still there")]
    Alive {
        /// The program.
        program: String,
        /// Their pids.
        pids: Vec<i32>,
    },
}

impl Daemon {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// [`DaemonError`]; it is gone again then.
    pub async fn start(spec: DaemonSpec) -> Result<Self, DaemonError> {
        let began = Instant::now();
        let marker = ProcessMarker::unique();
        let child = spawn(&spec, &marker)?;
        let mut daemon = Self { child, marker, spec, stopped: false };
        loop {
            if let Some(status) = daemon.child.try_wait().map_err(daemon.failed("wait for"))? {
                let log_tail = daemon.log_tail();
                return Err(DaemonError::Ended { program: daemon.program(), status, log_tail });
            }
            let Err(state) = daemon.probe().await else { return Ok(daemon) };
            if began.elapsed() > daemon.spec.limit {
                return Err(DaemonError::NotReady {
                    program: daemon.program(),
                    limit: daemon.spec.limit,
                    state,
                    log_tail: daemon.log_tail(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text =
            fs::read(&self.spec.log_path).unwrap_or_else(|error| format!("no log: {error}").into_bytes());
        String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }

    /// Asks it to end by `SIGTERM`, waits for `grace`, and kills what is left of it and of its children.
    ///
    /// # Errors
    /// [`DaemonError::Alive`] when something survives.
    pub async fn stop(mut self, grace: Duration) -> Result<(), DaemonError> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // ESRCH: it has ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let limit = Instant::now() + grace;
        while Instant::now() < limit && matches!(self.child.try_wait(), Ok(None)) {
            tokio::time::sleep(POLL).await;
        }
        self.kill()
    }

    /// `Err` says in words why it is not ready.
    async fn probe(&self) -> Result<(), String> {
        match &self.spec.ready {
            WaitFor::Socket(path) => match tokio::net::UnixStream::connect(path).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
            WaitFor::Command(argv) => {
                let Some((program, args)) = argv.split_first() else {
                    return Err("the command that probes it is empty".to_owned());
                };
                let mut command = tokio::process::Command::new(program);
                command.args(args).env_clear().envs(&self.spec.env).stdin(Stdio::null());
                command.env(ProcessMarker::VARIABLE, self.marker.value()).current_dir(&self.spec.directory);
                let program = program.display();
                match tokio::time::timeout(self.spec.limit, command.kill_on_drop(true).output()).await {
                    Err(_) => Err(format!("{program} did not end")),
                    Ok(Err(error)) => Err(format!("{program}: {error}")),
                    Ok(Ok(output)) if output.status.success() => Ok(()),
                    Ok(Ok(output)) => {
                        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                        Err(format!("{program} ended with {}: {words}", output.status))
                    }
                }
            }
        }
    }

    fn kill(&mut self) -> Result<(), DaemonError> {
        self.stopped = true;
        // An error means that it has ended and was waited for.
        let _ = self.child.kill();
        self.child.wait().map_err(self.failed("wait for"))?;
        let limit = Instant::now() + KILL_LIMIT;
        while self.marker.kill_all().map_err(self.failed("list the processes of"))? > 0 {
            if Instant::now() > limit {
                let pids = self.marker.processes().map_err(self.failed("list the processes of"))?;
                return Err(DaemonError::Alive { program: self.program(), pids });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn program(&self) -> String {
        self.spec.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> DaemonError + use<> {
        let path = PathBuf::from(self.program());
        move |source| DaemonError::System { operation, path, source }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.stopped
            && let Err(error) = self.kill()
        {
            tracing::warn!("could not end a daemon: {error}");
        }
    }
}

fn spawn(spec: &DaemonSpec, marker: &ProcessMarker) -> Result<Child, DaemonError> {
    use std::os::unix::process::CommandExt as _;
    let (program, args) = spec.argv.split_first().ok_or(DaemonError::NoProgram)?;
    let at = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| DaemonError::System { operation, path, source }
    };
    let log = File::create(&spec.log_path).map_err(at("create", &spec.log_path))?;
    let copy = log.try_clone().map_err(at("share", &spec.log_path))?;
    Command::new(program)
        .args(args)
        .env_clear()
        .envs(&spec.env)
        .env(ProcessMarker::VARIABLE, marker.value())
        .current_dir(&spec.directory)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(copy)
        .process_group(0)
        .spawn()
        .map_err(at("start", Path::new(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, script: &str, ready: WaitFor) -> DaemonSpec {
        DaemonSpec {
            argv: ["/bin/sh", "-c", script].map(OsString::from).into(),
            env: [
                ("DIR".to_owned(), dir.as_os_str().to_owned()),
                ("PATH".to_owned(), "/usr/bin:/bin".into()),
            ]
            .into(),
            directory: dir.to_owned(),
            log_path: dir.join("log"),
            ready,
            limit: Duration::from_secs(10),
        }
    }

    fn command(script: &str) -> WaitFor {
        WaitFor::Command(["/bin/sh", "-c", script].map(OsString::from).into())
    }

    #[tokio::test]
    async fn a_daemon_ends_with_the_children_that_left_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let script = "setsid sh -c 'sleep 1000 & touch $DIR/ready; wait' & wait";
        let daemon = Daemon::start(spec(dir.path(), script, command("test -e $DIR/ready"))).await.unwrap();
        let marker = daemon.marker.clone();
        assert!(marker.processes().unwrap().len() >= 3);
        daemon.stop(Duration::ZERO).await.unwrap();
        assert_eq!(marker.processes().unwrap(), Vec::<i32>::new());
    }

    #[tokio::test]
    async fn a_daemon_that_ends_shows_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let ready = WaitFor::Socket(dir.path().join("none.sock"));
        let error = Daemon::start(spec(dir.path(), "echo oh no; exit 3", ready)).await.unwrap_err();
        assert_eq!(error.to_string(), "start /bin/sh: it ended with exit status: 3\noh no\n");
    }

    #[tokio::test]
    async fn a_daemon_that_is_never_ready_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path(), "echo waiting; sleep 1000", command("echo nothing >&2; exit 1"));
        spec.limit = Duration::from_millis(200);
        let error = Daemon::start(spec).await.unwrap_err();
        let wanted = "wait 200 ms for /bin/sh: /bin/sh ended with exit status: 1: nothing\nwaiting\n";
        assert_eq!(error.to_string(), wanted);
    }

    #[tokio::test]
    async fn a_socket_that_listens_is_ready() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let daemon = Daemon::start(spec(dir.path(), "sleep 1000", WaitFor::Socket(path))).await.unwrap();
        assert!(daemon.pid() > 0);
        drop(daemon);
    }
}
