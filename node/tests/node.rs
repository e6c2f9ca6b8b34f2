// SPDX-License-Identifier: Apache-2.0
//! The promises of a private node on real containerds: [`ContainerdBinaries::both`]. Needs root; as a plain user, or
//! without that containerd, a trial is reported as ignored with the reason.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use confine::Confinement;
use libtest_mimic::{Arguments, Failed};
use shakedown_node::{BaseImage, ContainerdBinaries, Leftovers, Node, NodeError, NodeOptions, TestPlace};
use shakedown_testing::trial;

/// Makes this binary start a node in the directory that it names, and wait.
const VICTIM: &str = "SHAKEDOWN_TEST_VICTIM_DIR";
/// Which containerd the victim starts.
const VICTIM_CONTAINERD: &str = "SHAKEDOWN_TEST_VICTIM_CONTAINERD";

fn main() -> ExitCode {
    let plain_user = shakedown_testing::root("run containerd");
    if plain_user.is_none() {
        confine::enter(Confinement { network: true, reap_orphans: true }).expect("namespaces");
    }
    if let Some(dir) = std::env::var_os(VICTIM) {
        victim(Path::new(&dir));
        return ExitCode::FAILURE;
    }
    let _place = TestPlace::enter().expect("a place");
    let mut trials = Vec::new();
    for (name, binaries) in ContainerdBinaries::both() {
        let missing = plain_user.clone().or_else(|| binaries.as_ref().err().map(ToString::to_string));
        for (title, run) in TRIALS {
            let binaries = binaries.as_ref().ok().cloned();
            let body = move || run(&binaries.ok_or("no such containerd")?);
            trials.push(trial(format!("{name}::{title}"), missing.as_deref(), body));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Body = fn(&ContainerdBinaries) -> Result<(), Failed>;

const TRIALS: [(&str, Body); 6] = [
    ("start_and_stop_leave_nothing", start_and_stop),
    ("dropping_leaves_nothing", dropping),
    ("a_seeded_image_is_visible_to_pods", seeding),
    ("two_nodes_run_side_by_side", side_by_side),
    ("a_killed_run_is_collected_and_a_live_one_is_not", killed),
    ("a_containerd_that_ends_shows_its_log", broken),
];

fn start_and_stop(binaries: &ContainerdBinaries) -> Result<(), Failed> {
    let parent = parent()?;
    block_on(async {
        let node = Node::start(NodeOptions::new(binaries.clone(), parent.path())).await?;
        println!("containerd {} ready after {} ms", node.binaries().version(), node.start_ms());
        let traces = Traces::of(&node);
        // Outside of any pod, so CRI's calls do not end it.
        start_task(&node).await?;
        traces.expect_present()?;
        let began = Instant::now();
        node.stop().await?;
        println!("stopped in {} ms", began.elapsed().as_millis());
        traces.expect_gone()
    })
}

fn dropping(binaries: &ContainerdBinaries) -> Result<(), Failed> {
    let parent = parent()?;
    block_on(async {
        let node = Node::start(NodeOptions::new(binaries.clone(), parent.path())).await?;
        let traces = Traces::of(&node);
        start_task(&node).await?;
        traces.expect_present()?;
        drop(node);
        traces.expect_gone()
    })
}

fn seeding(binaries: &ContainerdBinaries) -> Result<(), Failed> {
    let parent = parent()?;
    block_on(async {
        let node = Node::start(NodeOptions::new(binaries.clone(), parent.path())).await?;
        for image in [BaseImage::busybox()?, BaseImage::pause()?] {
            let began = Instant::now();
            node.seed(&image).await?;
            println!("seeded {} in {} ms", image.reference(), began.elapsed().as_millis());
        }
        let absent = node.wait_until_visible("shakedown.test/absent:1", "sha256:0", Duration::ZERO).await;
        match absent {
            Err(NodeError::NotVisible { found: None, .. }) => {}
            other => return Err(format!("an absent image gave {other:?}").into()),
        }
        Ok(node.stop().await?)
    })
}

fn side_by_side(binaries: &ContainerdBinaries) -> Result<(), Failed> {
    let parent = parent()?;
    block_on(async {
        let options = NodeOptions::new(binaries.clone(), parent.path());
        let (one, two) = tokio::join!(Node::start(options.clone()), Node::start(options));
        let (one, two) = (one?, two?);
        one.seed(&BaseImage::busybox()?).await?;
        let listed = two.ctr().args(["images", "list", "--quiet"]).output()?;
        if !listed.stdout.is_empty() {
            return Err("an image of one node is in the other".into());
        }
        let (one_traces, two_traces) = (Traces::of(&one), Traces::of(&two));
        one.stop().await?;
        one_traces.expect_gone()?;
        two.seed(&BaseImage::busybox()?).await?;
        two.stop().await?;
        two_traces.expect_gone()
    })
}

fn killed(binaries: &ContainerdBinaries) -> Result<(), Failed> {
    let parent = parent()?;
    let mut victim = Command::new(std::env::current_exe()?)
        .env(VICTIM, parent.path())
        .env(VICTIM_CONTAINERD, binaries.containerd())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(victim.stdout.take().ok_or("no pipe")?).lines();
    let mut line = || lines.next().ok_or("the victim ended")?.map_err(Failed::from);
    let (dir, cgroup) = (PathBuf::from(line()?), line()?);
    if !Leftovers::collect(parent.path())?.runs.is_empty() || !dir.exists() {
        return Err("a live run was collected".into());
    }
    victim.kill()?;
    victim.wait()?;
    if !dir.exists() || cgroup_directories(&cgroup)? == 0 {
        return Err("there is nothing to collect, so this proves nothing".into());
    }
    // The kernel needs a moment to tear the namespaces down; the lock goes with the last process.
    let limit = Instant::now() + Duration::from_secs(2);
    let collected = loop {
        let collected = Leftovers::collect(parent.path())?;
        if !collected.runs.is_empty() || Instant::now() > limit {
            break collected;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if processes_naming("", &dir)? > 0 {
        return Err("a process outlived its supervisor".into());
    }
    if collected.runs.len() != 1 || dir.exists() || cgroup_directories(&cgroup)? != 0 {
        return Err(format!("after collecting {collected:?} something is left of {}", dir.display()).into());
    }
    match fs::read_dir(parent.path())?.count() {
        0 => Ok(()),
        left => Err(format!("{left} files are left").into()),
    }
}

/// Runs a container whose command names the node, so that a look for the node's processes finds it.
async fn start_task(node: &Node) -> Result<(), Failed> {
    node.seed(&BaseImage::busybox()?).await?;
    let script = format!("sleep 1000; : {}", node.dir().display());
    // The id is the node's: runc's state of containers that are not CRI's is shared by the nodes of this process.
    let started = node
        .ctr()
        .args(["run", "--detach", "--cgroup", &format!("{}/task", node.cgroup_parent())])
        .args([BaseImage::BUSYBOX, &node.run_id().to_string(), "sh", "-c", &script])
        .output()?;
    if !started.status.success() {
        return Err(String::from_utf8_lossy(&started.stderr).into_owned().into());
    }
    let limit = Instant::now() + Duration::from_secs(2);
    while processes_naming("sh -c sleep 1000", node.dir())? == 0 {
        if Instant::now() > limit {
            return Err("the task does not run".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Runs a node with a task until it is killed.
fn victim(parent: &Path) {
    block_on(async {
        let containerd = std::env::var_os(VICTIM_CONTAINERD).ok_or("no containerd named")?;
        let binaries = ContainerdBinaries::at(Path::new(&containerd))?;
        let node = Node::start(NodeOptions::new(binaries, parent)).await?;
        start_task(&node).await?;
        println!("{}\n{}", node.dir().display(), node.cgroup_parent());
        std::io::stdout().flush()?;
        std::future::pending::<Result<(), Failed>>().await
    })
    .expect("the victim waits for its death");
}

fn broken(binaries: &ContainerdBinaries) -> Result<(), Failed> {
    let parent = parent()?;
    block_on(async {
        let mut options = NodeOptions::new(binaries.clone(), parent.path());
        options.log_level = "no-such-level";
        match Node::start(options).await {
            Err(NodeError::Ended { log_tail, .. }) if log_tail.contains("no-such-level") => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err("containerd took a log level that does not exist".into()),
        }
        match fs::read_dir(parent.path())?.count() {
            0 => Ok(()),
            left => Err(format!("{left} files are left").into()),
        }
    })
}

/// Where a node would leave something.
struct Traces {
    dir: PathBuf,
    lock: PathBuf,
    cgroup: String,
}

impl Traces {
    fn of(node: &Node) -> Self {
        Self {
            dir: node.dir().to_owned(),
            lock: node.dir().with_extension("lock"),
            cgroup: node.cgroup_parent(),
        }
    }

    /// Proves that each look at a trace can find it.
    fn expect_present(&self) -> Result<(), Failed> {
        let missing = [
            ("directory", self.dir.exists()),
            ("lock", self.lock.exists()),
            ("cgroup", cgroup_directories(&self.cgroup)? > 0),
            ("process", self.processes()? > 0),
            ("mount", self.mounts()? > 0),
            ("shim directory", mounted("/run/containerd")?),
        ];
        named(&missing, false, "is missing")
    }

    fn expect_gone(&self) -> Result<(), Failed> {
        let left = [
            ("directory", self.dir.exists()),
            ("lock", self.lock.exists()),
            ("cgroup", cgroup_directories(&self.cgroup)? > 0),
            ("process", self.processes()? > 0),
            ("mount", self.mounts()? > 0),
        ];
        named(&left, true, "is left")
    }

    fn processes(&self) -> Result<usize, Failed> {
        processes_naming("", &self.dir)
    }

    fn mounts(&self) -> Result<usize, Failed> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let prefix = format!("{}/", self.dir.display());
        Ok(mounts
            .lines()
            .filter(|line| line.split(' ').nth(1).unwrap_or_default().starts_with(&prefix))
            .count())
    }
}

fn named(facts: &[(&str, bool)], bad: bool, complaint: &str) -> Result<(), Failed> {
    match facts.iter().find(|(_, value)| *value == bad) {
        Some((name, _)) => Err(format!("the {name} {complaint}").into()),
        None => Ok(()),
    }
}

/// How many processes have a command line with `text` and the directory in it.
fn processes_naming(text: &str, dir: &Path) -> Result<usize, Failed> {
    let dir = dir.display().to_string();
    let mut found = 0;
    for entry in fs::read_dir("/proc")? {
        let command = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        found += usize::from(command.contains(text) && command.contains(&dir));
    }
    Ok(found)
}

fn cgroup_directories(name: &str) -> Result<usize, Failed> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        fields.next()?.starts_with("cgroup").then(|| format!("{point}{name}"))
    });
    Ok(points.filter(|dir| Path::new(dir).exists()).count())
}

fn mounted(point: &str) -> Result<bool, Failed> {
    Ok(fs::read_to_string("/proc/self/mounts")?.lines().any(|line| line.split(' ').nth(1) == Some(point)))
}

fn parent() -> Result<tempfile::TempDir, Failed> {
    let mut builder = tempfile::Builder::new();
    Ok(builder.prefix("sdn-").permissions(fs::Permissions::from_mode(0o755)).tempdir()?)
}

fn block_on<T>(body: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(body)
}
