// SPDX-License-Identifier: Apache-2.0
//! A private containerd with a base image, and `pushless` driven through its command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::{ImageSpec, ListImagesRequest, RemoveImageRequest};
use libtest_mimic::Failed;
use pushless::image::{ChainId, Descriptor, DiffId, Digest};
use pushless::sandbox::build_lock::run_dir_suffix;
use pushless::store::{GcOutcome, Labels, Store};
use shakedown_node::{BaseImage, ContainerdBinaries, Node, NodeOptions, TestPlace};
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
    place: Arc<TestPlace>,
    alone: Mutex<()>,
}

impl Lab {
    pub fn start(name: &str, binaries: ContainerdBinaries, place: Arc<TestPlace>) -> Self {
        let dir = tempfile::Builder::new().prefix("pl-").tempdir().expect("a directory");
        Self::start_at(name, binaries, dir, place)
    }

    /// Another containerd of the same version, with everything below `parent`.
    pub fn start_in(other: &Self, parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("pl-").tempdir_in(parent).expect("a directory");
        let place = Arc::clone(&other.place);
        Self::start_at("a further containerd", other.node.binaries().clone(), dir, place)
    }

    fn start_at(name: &str, binaries: ContainerdBinaries, dir: TempDir, place: Arc<TestPlace>) -> Self {
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
        let lab = Self { runtime, node, dir, place, alone: Mutex::new(()) };
        lab.place.claim_cgroup(&lab.cgroup()).expect("a claim");
        lab
    }

    /// Waits until no other trial uses this lab.
    pub fn alone(&self) -> MutexGuard<'_, ()> {
        // A trial that failed by a panic has left nothing that the next one relies on.
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the base images back.
    pub fn seed(&self) -> Result<(), Failed> {
        for image in [BaseImage::busybox()?, BaseImage::pause()?] {
            self.block_on(self.node.seed(&image))?;
        }
        Ok(())
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

    /// The cgroup of this lab's builds, which its run directory gives a name of their own.
    pub fn cgroup(&self) -> String {
        format!("/pushless{}", run_dir_suffix(&self.run_dir()))
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
        self.build_by(self.command(), name, context, more)
    }

    /// As [`Lab::build`], with a command whose environment or user is another one.
    pub fn build_by(&self, mut command: Command, name: &str, context: &Context, more: &[&str]) -> Ran {
        let stats = context.path().with_extension("stats");
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
        self.ctr_in("k8s.io", arguments)
    }

    /// What `ctr` prints in another namespace.
    pub fn ctr_in(&self, namespace: &str, arguments: &[&str]) -> Result<String, Failed> {
        let output = self.node.ctr().args(["--namespace", namespace]).args(arguments).output()?;
        if !output.status.success() {
            return Err(format!("ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn store(&self) -> Result<Store, Failed> {
        let _inside = self.runtime.enter();
        Ok(Store::connect(&self.node.address(), "k8s.io")?)
    }

    /// The digest of the manifest behind a name.
    pub fn target(&self, name: &str) -> Result<String, Failed> {
        let record = self.block_on(self.store()?.image(name))?;
        Ok(record.ok_or_else(|| format!("no image {name}"))?.target.digest.to_string())
    }

    /// The image's manifest.
    fn manifest(&self, name: &str) -> Result<serde_json::Value, Failed> {
        self.document(&self.target(name)?)
    }

    fn document(&self, digest: &str) -> Result<serde_json::Value, Failed> {
        let raw = self.block_on(self.store()?.read_content(digest.parse()?, 1 << 20))?;
        Ok(serde_json::from_slice(&raw)?)
    }

    /// The image's config.
    pub fn config(&self, name: &str) -> Result<serde_json::Value, Failed> {
        let manifest = self.manifest(name)?;
        self.document(manifest["config"]["digest"].as_str().ok_or("no config")?)
    }

    /// The digest of the image's config.
    pub fn config_digest(&self, name: &str) -> Result<String, Failed> {
        Ok(self.manifest(name)?["config"]["digest"].as_str().ok_or("no config")?.to_owned())
    }

    /// The image's diff ids, lowest first.
    pub fn diff_ids(&self, name: &str) -> Result<Vec<String>, Failed> {
        let config = self.config(name)?;
        let ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        Ok(ids.iter().filter_map(|id| id.as_str()).map(str::to_owned).collect())
    }

    /// The name of the image's top snapshot.
    pub fn chain_id(&self, name: &str) -> Result<String, Failed> {
        let diff_ids = self.diff_ids(name)?;
        let diff_ids = diff_ids.iter().map(|id| id.parse().map(DiffId)).collect::<Result<Vec<_>, _>>()?;
        Ok(ChainId::stack(&diff_ids).last().ok_or("no layers")?.to_string())
    }

    /// Whether manifest, config and every layer blob of the image are there.
    pub fn is_complete(&self, name: &str) -> Result<bool, Failed> {
        let manifest = self.manifest(name)?;
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().ok_or("no digest")?.parse()?;
            if self.block_on(self.store()?.content_info(digest))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for a garbage collection.
    pub fn collect_garbage(&self) -> Result<(), Failed> {
        let outcome = self.block_on(self.store()?.request_gc(Duration::from_secs(30)))?;
        if outcome == GcOutcome::Finished { Ok(()) } else { Err("the collection takes too long".into()) }
    }

    /// An image like `from` with another config, under `name`.
    pub fn derive(
        &self,
        name: &str,
        from: &str,
        edit: impl FnOnce(&mut serde_json::Value),
    ) -> Result<(), Failed> {
        let mut config = self.config(from)?;
        edit(&mut config);
        let config = serde_json::to_vec(&config)?;
        let mut manifest = self.manifest(from)?;
        manifest["config"]["digest"] = Digest::of(&config).to_string().into();
        manifest["config"]["size"] = config.len().into();
        let manifest = serde_json::to_vec(&manifest)?;
        let target = Descriptor::new(
            "application/vnd.oci.image.manifest.v1+json",
            Digest::of(&manifest),
            manifest.len() as u64,
        );
        let store = self.store()?;
        let children = serde_json::from_slice::<serde_json::Value>(&manifest)?;
        let layers = children["layers"].as_array().cloned().unwrap_or_default();
        let mut labels = Labels::new();
        for (number, blob) in layers.iter().chain([&children["config"]]).enumerate() {
            let digest = blob["digest"].as_str().ok_or("no digest")?;
            labels.insert(format!("containerd.io/gc.ref.content.{number}"), digest.to_owned());
        }
        self.block_on(async {
            // Else a collection could come before the name.
            store.create_lease("derive", &Labels::new(), None).await?;
            let held = store.under_lease("derive")?;
            held.write_blob(Digest::of(&config), &config, &Labels::new()).await?;
            held.write_blob(Digest::of(&manifest), &manifest, &labels).await?;
            store.set_image(&name.parse()?, &target, &Labels::new()).await?;
            store.delete_lease("derive", false).await?;
            Ok(())
        })
    }

    /// The id that CRI knows for `name`.
    pub fn cri_id(&self, name: &str) -> Result<Option<String>, Failed> {
        let store = self.store()?;
        let cri = store.cri().ok_or("no CRI")?;
        Ok(self.block_on(cri.image_id(&name.parse()?))?)
    }

    /// Removes every image as a kubelet does that needs the space.
    pub fn cri_remove_all(&self) -> Result<(), Failed> {
        self.block_on(async {
            let mut images = ImageServiceClient::new(self.node.channel().await?);
            let listed = images.list_images(ListImagesRequest::default()).await?.into_inner().images;
            for image in listed {
                let image = Some(ImageSpec { image: image.id, ..ImageSpec::default() });
                images.remove_image(RemoveImageRequest { image }).await?;
            }
            Ok(())
        })
    }

    /// Makes every record of the step index one of another boot.
    pub fn forget_boots(&self) -> Result<(), Failed> {
        let mut next = vec![self.state_dir()];
        while let Some(path) = next.pop() {
            if path.is_symlink() {
                let record = std::fs::read_link(&path)?.display().to_string();
                let (record, _) = record.rsplit_once(' ').ok_or("a record has a boot")?;
                std::fs::remove_file(&path)?;
                std::os::unix::fs::symlink(format!("{record} 0000000000000000"), &path)?;
            } else if path.is_dir() {
                next.extend(std::fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
            }
        }
        Ok(())
    }

    /// The file `name` with this content in the directory of some snapshot.
    pub fn find_in_snapshots(&self, name: &str, content: &str) -> Result<PathBuf, Failed> {
        let snapshots = self.node.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        for snapshot in std::fs::read_dir(snapshots)?.flatten() {
            let path = snapshot.path().join("fs").join(name);
            if std::fs::read_to_string(&path).is_ok_and(|found| found == content) {
                return Ok(path);
            }
        }
        Err(format!("no snapshot holds {name}").into())
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

    /// Calls that write, as the figures have them; every call counts as one where there are no figures.
    pub fn writes(&self) -> u64 {
        self.stats.as_ref().map_or(u64::MAX, |stats| stats.writes)
    }

    /// Calls that read.
    pub fn reads(&self) -> u64 {
        self.stats.as_ref().map_or(u64::MAX, |stats| stats.reads)
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
