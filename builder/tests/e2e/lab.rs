// SPDX-License-Identifier: Apache-2.0
//! A private containerd with a base image, and `pushless` driven through its command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use libtest_mimic::Failed;
use shakedown_node::{BaseImage, ContainerdBinaries, Node, NodeOptions};
use tempfile::TempDir;

/// The base image of every trial.
pub const BASE: &str = "shakedown.test/busybox:1";

/// Numbers the containers of [`Lab::look`].
static LOOKS: AtomicU64 = AtomicU64::new(0);

/// One containerd for all trials of its version.
pub struct Lab {
    runtime: tokio::runtime::Runtime,
    node: Node,
    dir: TempDir,
}

impl Lab {
    pub fn start(name: &str, binaries: ContainerdBinaries) -> Self {
        let dir = tempfile::Builder::new().prefix("pl-").tempdir().expect("a directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let node = runtime.block_on(async {
            let node =
                Node::start(NodeOptions::new(binaries, dir.path().join("n"))).await.expect("containerd");
            for image in [BaseImage::busybox(), BaseImage::pause()] {
                node.seed(&image.expect("busybox-static")).await.expect("a base image");
            }
            node
        });
        eprintln!("{name}: {} ready after {} ms", node.binaries().containerd().display(), node.start_ms());
        Self { runtime, node, dir }
    }

    pub fn stop(self) {
        let Self { runtime, node, .. } = self;
        runtime.block_on(node.stop()).expect("nothing is left");
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// `pushless` with this lab's containerd and directories.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushless"));
        command
            .env("CONTAINERD_ADDRESS", self.node.address())
            .env("PUSHLESS_STATE_DIR", self.state_dir())
            .env("PUSHLESS_RUN_DIR", self.run_dir())
            .env_remove("CONTAINERD_NAMESPACE")
            .env_remove("CONTAINERD_SNAPSHOTTER");
        command
    }

    pub fn pushless(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command().args(arguments).output().expect("pushless starts"))
    }

    /// Builds `context` as `name` with plain progress; `more` are further flags.
    pub fn build(&self, name: &str, context: &Context, more: &[&str]) -> Ran {
        let stats = context.path().with_extension("stats");
        let mut command = self.command();
        command.env("PUSHLESS_STATS", &stats);
        command.args(["build", "--progress", "plain", "-t", name]).args(more).arg(context.path());
        let mut ran = Ran::of(command.output().expect("pushless starts"));
        if let Ok(text) = std::fs::read(&stats) {
            ran.stats = Some(serde_json::from_slice(&text).expect("figures"));
            std::fs::remove_file(&stats).expect("the figures go");
        }
        ran
    }

    /// Runs `argv` on the image's root file system through containerd, without CRI, and returns its output.
    pub fn look(&self, name: &str, argv: &[&str]) -> Result<String, Failed> {
        let id = format!("look-{}", LOOKS.fetch_add(1, Ordering::Relaxed));
        let output = self
            .node
            .ctr()
            .args(["run", "--rm", "--cgroup", &format!("{}/{id}", self.node.cgroup_parent()), name, &id])
            .args(argv)
            .output()?;
        if !output.status.success() {
            return Err(format!("look into {name}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `ctr` prints.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String, Failed> {
        let output = self.node.ctr().args(arguments).output()?;
        if !output.status.success() {
            return Err(format!("ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The figures that `PUSHLESS_STATS` names.
#[derive(Debug, serde::Deserialize)]
pub struct Stats {
    pub calls: BTreeMap<String, u64>,
    pub reads: u64,
    pub writes: u64,
}

/// How a run of `pushless` ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub stats: Option<Stats>,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            stats: None,
        }
    }

    pub fn success(self) -> Result<Self, Failed> {
        self.exits(0)
    }

    pub fn exits(self, code: i32) -> Result<Self, Failed> {
        if self.code == Some(code) {
            return Ok(self);
        }
        Err(format!("exit {:?} instead of {code}\n{}\n{}", self.code, self.stdout, self.stderr).into())
    }

    /// How many steps were executed and how many came from the cache.
    pub fn steps(&self) -> (usize, usize) {
        let count = |mark: &str| {
            self.stderr.lines().filter(|line| line.starts_with('#') && line.contains(mark)).count()
        };
        (count(" DONE "), count(" CACHED"))
    }

    pub fn says(self, text: &str) -> Result<Self, Failed> {
        if self.stderr.contains(text) || self.stdout.contains(text) {
            return Ok(self);
        }
        Err(format!("{text:?} is not said in\n{}\n{}", self.stdout, self.stderr).into())
    }

    pub fn last_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

/// A build context in a directory of its own.
pub struct Context {
    dir: TempDir,
}

impl Context {
    pub fn new(dockerfile: &str) -> Self {
        let context = Self { dir: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(context.path()).expect("the context");
        context.write("Dockerfile", dockerfile);
        context
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
}
