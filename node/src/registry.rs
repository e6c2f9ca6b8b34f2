// SPDX-License-Identifier: Apache-2.0
//! A private image registry, so that pulling can be tried without any network.
//!
//! Runs Debian's `docker-registry` (distribution 2.8) with its storage in a directory of its own, on a loopback port
//! that the kernel chooses, and on no other. Invariant: a [`Registry`] has answered `GET /v2/`. This module knows a
//! node only as somebody who pushes; which registries containerd trusts without TLS is containerd's affair.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::binaries::{self, BinariesError};
use crate::node::Node;

/// The program, and the name of its package in Debian and Ubuntu.
const PROGRAM: &str = "docker-registry";

/// How long the program may take until it answers.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at a registry that is starting.
const POLL: Duration = Duration::from_millis(5);

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What the program logs before the address once it listens.
const LISTENING: &str = "listening on ";

/// A running registry; ended and its storage removed when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: SocketAddr,
    dir: TempDir,
}

/// Why a registry did not start, or did not take an image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The program is not installed.
    #[error(transparent)]
    Program(#[from] BinariesError),
    /// The process is not inside `confine::enter`, so a kill would leave the registry behind.
    #[error("start a registry outside of private namespaces")]
    NotConfined,
    /// A file or the process could not be made or removed.
    #[error("{operation} {}", path.display())]
    System {
        /// The step that failed.
        operation: &'static str,
        /// The file, directory or program concerned.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The program ended before it answered.
    #[error("start {PROGRAM}: it ended with {status}\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What it logged.
        log: String,
    },
    /// The program did not answer in time.
    #[error("wait {} ms for {PROGRAM} to answer\n{log}", READY_LIMIT.as_millis())]
    NotReady {
        /// What it logged.
        log: String,
    },
    /// An image could not be pushed.
    #[error("push image {local} as {remote}: {stderr}")]
    Push {
        /// The image's name in containerd.
        local: String,
        /// Its name in the registry.
        remote: String,
        /// What `ctr` said.
        stderr: String,
    },
}

impl Registry {
    /// Where the program is.
    ///
    /// # Errors
    /// [`RegistryError::Program`] when it is not installed.
    pub fn find() -> Result<PathBuf, RegistryError> {
        Ok(binaries::in_path(PROGRAM)?)
    }

    /// Starts an empty registry with everything below `parent_dir`, and blocks until it answers.
    ///
    /// Must be called inside [`confine::enter`]; in a private network nobody outside reaches it.
    ///
    /// # Errors
    /// [`RegistryError`]; whatever had been started or made is gone again.
    pub fn start(parent_dir: &Path) -> Result<Self, RegistryError> {
        let program = Self::find()?;
        confine::entered().ok_or(RegistryError::NotConfined)?;
        let dir = tempfile::Builder::new()
            .prefix("registry-")
            .tempdir_in(parent_dir)
            .map_err(at("create a directory in", parent_dir))?;
        let config_path = dir.path().join("config.yml");
        fs::write(&config_path, config(&dir.path().join("data"))).map_err(at("write", &config_path))?;
        let log_path = log_path(&dir);
        let log = File::create(&log_path).map_err(at("create", &log_path))?;
        let copy = log.try_clone().map_err(at("share", &log_path))?;
        let process = Command::new(&program)
            .arg("serve")
            .arg(&config_path)
            // Any key of the configuration can be overridden by a variable REGISTRY_….
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .map_err(at("start", &program))?;
        // From here on dropping ends the process. The address is not looked at before it is known.
        let mut registry = Self { process, address: (Ipv4Addr::LOCALHOST, 0).into(), dir };
        registry.wait_until_ready(&program)?;
        Ok(registry)
    }

    /// The full name of `path` (`base:1`) in this registry: `127.0.0.1:<port>/base:1`.
    pub fn reference(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// Pushes the image that `node` has as `local`, with every platform of it, and returns its name here.
    ///
    /// # Errors
    /// [`RegistryError::Push`] with `ctr`'s words.
    pub fn push(&self, node: &Node, local: &str, path: &str) -> Result<String, RegistryError> {
        let remote = self.reference(path);
        let output = node
            .ctr()
            .args(["images", "push", "--plain-http", &remote, local])
            .output()
            .map_err(at("start", node.binaries().ctr()))?;
        if output.status.success() {
            return Ok(remote);
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(RegistryError::Push { local: local.to_owned(), remote, stderr })
    }

    /// What the registry has logged so far: one JSON object for each line, one line for each request.
    pub fn log(&self) -> String {
        fs::read(log_path(&self.dir)).map_or_else(
            |error| format!("no log: {error}"),
            |text| String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Ends the process and removes its storage. Nothing listens at the address any more.
    ///
    /// # Errors
    /// [`RegistryError::System`] when the process or the directory stays.
    pub fn stop(mut self) -> Result<(), RegistryError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), RegistryError> {
        // Nothing in it is worth an orderly end. An error means that it has ended and was waited for.
        let _ = self.process.kill();
        self.process.wait().map_err(at("wait for", Path::new(PROGRAM)))?;
        match fs::remove_dir_all(self.dir.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(at("remove", self.dir.path())),
        }
    }

    fn wait_until_ready(&mut self, program: &Path) -> Result<(), RegistryError> {
        let limit = Instant::now() + READY_LIMIT;
        loop {
            let ended = self.process.try_wait().map_err(at("wait for", program))?;
            if let Some(status) = ended {
                return Err(RegistryError::Ended { status, log: self.log() });
            }
            if let Some(address) = listening_on(&self.log())
                && answers(address).unwrap_or(false)
            {
                self.address = address;
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(RegistryError::NotReady { log: self.log() });
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("could not remove the registry at {}: {error}", self.address);
        }
    }
}

/// The configuration file. YAML, of which JSON is a part. Without the keys `debug`, `notifications` and `health` the
/// program opens no other port and calls nobody.
fn config(storage: &Path) -> String {
    serde_json::json!({
        "version": "0.1",
        "log": { "level": "info", "formatter": "json", "accesslog": { "disabled": true } },
        "storage": {
            "filesystem": { "rootdirectory": storage },
            "maintenance": { "uploadpurging": { "enabled": false } },
        },
        // Port 0: the kernel chooses one that is free, so two registries never want the same.
        "http": { "addr": "127.0.0.1:0", "secret": "only for uploads within one process" },
    })
    .to_string()
}

fn log_path(dir: &TempDir) -> PathBuf {
    dir.path().join("registry.log")
}

/// The address in the log's line `{…"msg":"listening on 127.0.0.1:33363"…}`, once that line is whole.
fn listening_on(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(LISTENING)?;
    let (address, _) = rest.split_once('"')?;
    address.parse().ok()
}

/// Whether `GET /v2/` is answered with 200 (OCI distribution specification v1.1, end-1).
fn answers(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    move |source| RegistryError::System { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_a_whole_line_only() {
        let line = r#"{"level":"info","msg":"listening on 127.0.0.1:33363","version":"2.8.2+ds1"}"#;
        assert_eq!(listening_on(line), "127.0.0.1:33363".parse().ok());
        assert_eq!(listening_on(&line[..line.len() - 30]), None);
        assert_eq!(listening_on(r#"{"msg":"redis not configured"}"#), None);
    }

    #[test]
    fn nothing_starts_outside_of_private_namespaces() {
        let dir = tempfile::tempdir().unwrap();
        let error = Registry::start(dir.path()).expect_err("unit tests are not confined");
        assert!(
            matches!(error, RegistryError::NotConfined | RegistryError::Program(_)),
            "neither absent nor unconfined: {error}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
