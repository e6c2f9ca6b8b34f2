// SPDX-License-Identifier: Apache-2.0
//! What each trial does inside the private namespaces. A failed expectation panics, which the watcher outside sees.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confine::{Confinement, enter};
use pushless::image::ImagePath;
use pushless::sandbox::build_lock::{BuildLock, dead_builds, run_dir_suffix};
use pushless::sandbox::executor::{NetworkChoice, Sandbox, SandboxError, SandboxOptions, Step};
use pushless::sandbox::network::{PLUGIN_DIRECTORIES, remove_unused};
use pushless::sandbox::output::{OutputChunk, Stream};
use pushless::sandbox::overlay::{MountedRoot, mount_root, mount_view};
use pushless::sandbox::runc::{Outcome, RuncError};
use pushless::sandbox::scratch::Scratch;
use pushless::sandbox::user::resolve_user;
use shakedown_testing::is_running;
use tokio::sync::mpsc;

type Play = for<'a> fn(&'a mut Build) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

pub(crate) const TRIALS: &[(&str, Play)] = &[
    ("exit_codes_and_signals_come_out", |build| Box::pin(exit_codes(build))),
    ("output_comes_whole_and_by_stream", |build| Box::pin(output(build))),
    ("a_partial_line_is_seen_before_it_ends", |build| Box::pin(partial_line(build))),
    ("environment_directory_user_and_host_name_hold", |build| Box::pin(surroundings(build))),
    ("capabilities_and_limits_are_the_reference's", |build| Box::pin(capabilities(build))),
    ("a_missing_command_is_named", |build| Box::pin(missing_command(build))),
    ("cancelling_kills_at_once_and_leaves_no_cgroup", |build| Box::pin(cancel(build))),
    ("a_dropped_run_is_killed_too", |build| Box::pin(dropped(build))),
    ("a_run_of_true_writes_nothing", |build| Box::pin(writes_nothing(build))),
    ("an_existing_hosts_file_is_not_copied_up", |build| Box::pin(not_copied_up(build))),
    ("a_root_of_120_layers", |build| Box::pin(many_layers(build))),
    ("views_are_read_only", |build| Box::pin(views(build))),
    ("the_default_network_is_a_bridge", |build| Box::pin(bridge(build))),
    ("two_builds_share_the_bridge", |build| Box::pin(two_builds(build))),
    ("a_dead_build's_network_is_released", |build| Box::pin(dead_network(build))),
    ("without_plugins_the_host's_network_and_a_notice", |build| Box::pin(fallback(build))),
    ("no_network_and_the_host's_network", |build| Box::pin(chosen_networks(build))),
    ("how_long_a_run_takes", |build| Box::pin(durations(build))),
];

/// Enters the namespaces and plays `role`.
pub(crate) fn play(role: &str, directory: &Path) {
    enter(Confinement { network: true, reap_orphans: false }).expect("namespaces");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut build = Build::new(directory, &PLUGIN_DIRECTORIES.map(PathBuf::from));
        match role {
            "sleeps" => {
                let step = Step { network: NetworkChoice::Host, ..shell("sleep 1000 & echo asleep; wait") };
                let root = build.root();
                let (sender, mut receiver) = mpsc::channel(8);
                let run = build.sandbox().run(&root, &step, sender, std::future::pending());
                tokio::spawn(async move {
                    while let Some(chunk) = receiver.recv().await {
                        print!("{}", String::from_utf8_lossy(&chunk.bytes));
                    }
                });
                run.await.expect("runs for ever");
            }
            "next build" => {
                let dead = dead_builds(&build.run_dir).expect("a listing");
                assert_eq!(dead.len(), 1, "the killed build is found");
                for build in dead {
                    build.forget().expect("forgotten");
                }
            }
            _ => {
                let (_, play) = TRIALS.iter().find(|(name, _)| *name == role).expect("such a trial");
                play(&mut build).await;
            }
        }
        build.close().await;
    });
}

/// The name of the cgroup of the builds whose run directory is below `directory`.
pub(crate) fn cgroup(directory: &Path) -> String {
    format!("pushless{}", run_dir_suffix(&directory.join("run")))
}

/// The cgroups of the builds whose run directory is below `directory`.
pub(crate) fn cgroups(directory: &Path) -> Vec<PathBuf> {
    let name = cgroup(directory);
    let mut found = Vec::new();
    let hierarchies =
        std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|entry| entry.path());
    for path in std::iter::once(PathBuf::from("/sys/fs/cgroup")).chain(hierarchies) {
        found.extend(Some(path.join(&name)).filter(|path| path.exists()));
    }
    found
}

/// One build with a base layer that holds busybox.
pub(crate) struct Build {
    directory: PathBuf,
    run_dir: PathBuf,
    scratch: Arc<Scratch>,
    sandbox: Option<Sandbox>,
    number: usize,
}

impl Build {
    fn new(directory: &Path, cni_directories: &[PathBuf]) -> Self {
        let bin = directory.join("base/bin");
        std::fs::create_dir_all(&bin).expect("a directory");
        if !bin.join("busybox").exists() {
            std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox");
            for applet in
                ["sh", "true", "cat", "id", "sleep", "ip", "ping", "stat", "seq", "pwd", "env", "hostname"]
            {
                std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("an applet");
            }
        }
        let run_dir = directory.join("run");
        let scratch = Arc::new(Scratch::new(&run_dir).expect("scratch space"));
        let mut build = Self { directory: directory.to_owned(), run_dir, scratch, sandbox: None, number: 0 };
        build.sandbox = Some(build.another_sandbox(cni_directories));
        build
    }

    fn another_sandbox(&self, cni_directories: &[PathBuf]) -> Sandbox {
        let lock = Arc::new(BuildLock::acquire(&self.run_dir).expect("a lock"));
        let options = SandboxOptions {
            cgroup_parent: None,
            run_dir: self.run_dir.clone(),
            runc: None,
            cni_directories: cni_directories.to_vec(),
        };
        Sandbox::new(options, lock, Arc::clone(&self.scratch)).expect("a sandbox")
    }

    fn sandbox(&self) -> &Sandbox {
        self.sandbox.as_ref().expect("open until closed")
    }

    fn upper(&self) -> PathBuf {
        self.directory.join(format!("upper{}", self.number))
    }

    /// A fresh writable root above the base.
    fn root(&mut self) -> MountedRoot {
        self.root_above(&[self.directory.join("base")])
    }

    fn root_above(&mut self, lower: &[PathBuf]) -> MountedRoot {
        self.number += 1;
        let work = self.directory.join(format!("work{}", self.number));
        for path in [&self.upper(), &work] {
            std::fs::create_dir(path).expect("a directory");
        }
        mount_root(&self.scratch, lower, &self.upper(), &work).expect("a root")
    }

    /// Runs `step` in a fresh root: outcome, standard output, standard error.
    async fn run(&mut self, step: Step) -> (Result<Outcome, SandboxError>, String, String) {
        let root = self.root();
        run_in(self.sandbox(), &root, step).await
    }

    async fn close(mut self) {
        let Some(sandbox) = self.sandbox.take() else { return };
        sandbox.close().await.expect("closed");
        assert!(remove_unused(&self.run_dir, "test").expect("removed"));
        assert!(!self.run_dir.join("network").exists(), "the network's state is gone");
        assert_eq!(cgroups(&self.directory), Vec::<PathBuf>::new());
    }
}

async fn run_in(
    sandbox: &Sandbox,
    root: &MountedRoot,
    step: Step,
) -> (Result<Outcome, SandboxError>, String, String) {
    let (sender, mut receiver) = mpsc::channel::<OutputChunk>(8);
    let collected = tokio::spawn(async move {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(chunk) = receiver.recv().await {
            if chunk.stream == Stream::Stdout { out.extend(chunk.bytes) } else { err.extend(chunk.bytes) }
        }
        (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    });
    let outcome = sandbox.run(root, &step, sender, std::future::pending()).await;
    let (out, err) = collected.await.expect("output");
    (outcome, out, err)
}

fn shell(script: &str) -> Step {
    Step {
        name: "1".to_owned(),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: ImagePath::root(),
        user: resolve_user("", b"", b"").expect("root"),
        hostname: None,
        network: NetworkChoice::None,
        extra_hosts: Vec::new(),
        mounts: Vec::new(),
    }
}

fn code(outcome: Result<Outcome, SandboxError>) -> i32 {
    match outcome.expect("a command that ran") {
        Outcome::Exited { code } => code,
        Outcome::Cancelled => panic!("cancelled"),
    }
}

async fn exit_codes(build: &mut Build) {
    for (script, wanted) in [("true", 0), ("exit 3", 3), ("exit 255", 255)] {
        assert_eq!(code(build.run(shell(script)).await.0), wanted, "{script}");
    }
    let killed = build.run(shell("busybox sh -c 'kill -SEGV $$'; exit $?")).await.0.expect("ran");
    assert_eq!(killed.signal(), Some(libc::SIGSEGV));
}

async fn output(build: &mut Build) {
    let (outcome, out, err) = build.run(shell("seq 1 20000; echo problem >&2; echo -n end; exit 1")).await;
    let lines: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(code(outcome), 1);
    assert_eq!(out, lines + "end");
    assert_eq!(err, "problem\n");
    let (outcome, _, err) = build.run(shell("echo runc run failed: really >&2; exit 1")).await;
    assert_eq!(code(outcome), 1, "what the command says is not runc's word");
    assert_eq!(err, "runc run failed: really\n");
}

async fn partial_line(build: &mut Build) {
    let root = build.root();
    let (sender, mut receiver) = mpsc::channel(8);
    let step = shell("echo -n 'continue? '; sleep 1000");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = build.sandbox().run(&root, &step, sender, async {
        stopped.await.expect("a word");
    });
    let watch = async {
        assert_eq!(receiver.recv().await.expect("output").bytes, "continue? ".as_bytes());
        stop.send(()).expect("still running");
    };
    assert_eq!(tokio::join!(run, watch).0.expect("cancelled"), Outcome::Cancelled);
}

async fn surroundings(build: &mut Build) {
    let passwd = b"app:x:1000:2000::/home/app:/bin/sh\n";
    let group = b"app:x:2000:\nvideo:x:44:app\n";
    let root = build.root();
    std::fs::create_dir_all(root.path().join("srv/app")).expect("a directory");
    let step = Step {
        env: vec!["PATH=/bin".to_owned(), "GREETING=hello there".to_owned()],
        cwd: ImagePath::new("/srv/app"),
        user: resolve_user("app", passwd, group).expect("a user"),
        extra_hosts: vec![("db".to_owned(), "10.9.8.7".parse().expect("an address"))],
        ..shell("pwd; echo $GREETING; id -u; id -g; id -G; hostname; cat /etc/hosts; echo x >/etc/hosts")
    };
    let (outcome, out, err) = run_in(build.sandbox(), &root, step).await;
    assert_eq!(
        out,
        "/srv/app\nhello there\n1000\n2000\n2000 44\nbuildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n10.9.8.7\tdb\n"
    );
    assert_ne!(code(outcome), 0);
    assert!(err.contains("/etc/hosts"), "{err}");
}

async fn capabilities(build: &mut Build) {
    let script = "cat /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n; umask; cat /proc/sys/kernel/hostname";
    let (outcome, out, _) = build.run(shell(script)).await;
    assert_eq!(code(outcome), 0);
    for wanted in ["CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t0", "\n0022\n"] {
        assert!(out.contains(wanted), "{wanted} in {out}");
    }
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(out.contains(&format!("{set}:\t00000000a80425fb")), "{set} in {out}");
    }
    let user = resolve_user("1000", b"", b"").expect("a user");
    let (_, out, _) = build.run(Step { user, ..shell("cat /proc/self/status") }).await;
    assert!(out.contains("CapEff:\t0000000000000000") && out.contains("CapBnd:\t00000000a80425fb"), "{out}");
}

async fn missing_command(build: &mut Build) {
    for (command, wanted) in [
        ("nosuch", "execute nosuch: executable file not found in $PATH"),
        ("/bin/none", "execute /bin/none: stat /bin/none: no such file or directory"),
        ("/bin", "execute /bin: permission denied"),
    ] {
        let step = Step { argv: vec![command.to_owned()], ..shell("") };
        let (outcome, out, err) = build.run(step).await;
        let error = outcome.expect_err("nothing to execute");
        assert!(matches!(&error, SandboxError::Runc(RuncError::CannotExecute { .. })), "{error:?}");
        assert_eq!(error.to_string(), wanted);
        assert_eq!((out.as_str(), err.as_str()), ("", ""), "runc's own words are not the command's output");
    }
}

async fn cancel(build: &mut Build) {
    for delay_ms in [0, 1, 3, 5, 8, 12, 20, 50, 200] {
        let root = build.root();
        let (sender, _receiver) = mpsc::channel(8);
        let step = shell("trap '' TERM INT; sleep 1000 & sleep 1000; true");
        let delay = Duration::from_millis(delay_ms);
        let start = Instant::now();
        let outcome = build.sandbox().run(&root, &step, sender, tokio::time::sleep(delay)).await;
        assert_eq!(outcome.expect("cancelled"), Outcome::Cancelled);
        println!(
            "cancelled after {delay_ms} ms: gone after {} ms more",
            (start.elapsed() - delay).as_millis()
        );
        nothing_runs(build, "1");
    }
}

async fn dropped(build: &mut Build) {
    for wait_ms in [5, 100] {
        let root = build.root();
        let (sender, _receiver) = mpsc::channel(8);
        let step = shell("sleep 1000; true");
        let run = build.sandbox().run(&root, &step, sender, std::future::pending());
        tokio::time::timeout(Duration::from_millis(wait_ms), run).await.expect_err("it would run for ever");
        nothing_runs(build, "1");
    }
}

/// No cgroup of the step, no state of runc, and no process but this one.
fn nothing_runs(build: &Build, step: &str) {
    for path in cgroups(&build.directory) {
        for build in std::fs::read_dir(path).expect("a cgroup").flatten() {
            assert!(!build.path().join(step).exists(), "{}", build.path().display());
        }
    }
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let others: Vec<u32> = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1 && is_running(*pid))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let state: Vec<_> =
        std::fs::read_dir(build.scratch.runc_state()).expect("a directory").flatten().collect();
    assert!(state.is_empty(), "{state:?}");
}

async fn writes_nothing(build: &mut Build) {
    // Without a lower directory the upper one is the root itself.
    for lower in [vec![build.directory.join("base")], Vec::new()] {
        let bare = lower.is_empty();
        let root = build.root_above(&lower);
        if bare {
            std::fs::create_dir(build.upper().join("bin")).expect("a directory");
            std::fs::copy("/bin/busybox", build.upper().join("bin/true")).expect("busybox");
        }
        let upper = build.upper();
        let before = times(&upper);
        let (outcome, ..) = run_in(build.sandbox(), &root, shell_free("/bin/true")).await;
        assert_eq!(code(outcome), 0);
        drop(root);
        let wanted: &[&str] = if bare { &["bin"] } else { &[] };
        assert_eq!(names(&upper), wanted);
        assert_eq!(times(&upper), before);
    }
}

fn shell_free(program: &str) -> Step {
    Step { argv: vec![program.to_owned()], ..shell("") }
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).expect("a listing").flatten();
    entries.map(|entry| entry.file_name().into_string().expect("text")).collect()
}

fn times(path: &Path) -> (i64, i64) {
    let metadata = path.metadata().expect("metadata");
    (metadata.mtime(), metadata.mtime_nsec())
}

async fn not_copied_up(build: &mut Build) {
    let lower = build.directory.join("with-etc");
    for directory in ["etc", "proc", "dev", "sys", "bin"] {
        std::fs::create_dir_all(lower.join(directory)).expect("a directory");
    }
    for file in ["etc/hosts", "etc/resolv.conf"] {
        std::fs::write(lower.join(file), "the image's own\n").expect("a file");
    }
    std::fs::copy("/bin/busybox", lower.join("bin/sh")).expect("busybox");
    let root = build.root_above(std::slice::from_ref(&lower));
    let (outcome, out, _) = run_in(
        build.sandbox(),
        &root,
        shell("busybox cat /etc/hosts || sh -c 'read a </etc/hosts; echo $a'"),
    )
    .await;
    assert_eq!(code(outcome), 0);
    assert!(out.contains("localhost"), "the bound file is seen: {out}");
    drop(root);
    assert!(names(&build.upper()).is_empty());
}

async fn many_layers(build: &mut Build) {
    let mut lower: Vec<_> = (0..120)
        .map(|number| {
            let layer = build
                .directory
                .join(format!("a-layer-with-a-name-of-the-length-that-snapshots-have-{number}/fs"));
            std::fs::create_dir_all(&layer).expect("a directory");
            std::fs::write(layer.join(format!("file{number}")), "").expect("a file");
            std::fs::write(layer.join("topmost"), number.to_string()).expect("a file");
            layer
        })
        .collect();
    let view = mount_view(&build.scratch, &lower).expect("a view of 120");
    assert_eq!(std::fs::read_to_string(view.path().join("topmost")).expect("a file"), "0");
    assert_eq!(names(view.path()).len(), 121);
    drop(view);
    lower.push(build.directory.join("base"));
    let root = build.root_above(&lower);
    let (outcome, out, _) = run_in(
        build.sandbox(),
        &root,
        shell("cat /topmost; echo; seq 0 119 | while read n; do test -e /file$n || exit 1; done"),
    )
    .await;
    assert_eq!((code(outcome), out.as_str()), (0, "0\n"));
}

async fn views(build: &mut Build) {
    let base = build.directory.join("base");
    let other = build.directory.join("other");
    std::fs::create_dir(&other).expect("a directory");
    for lower in [Vec::new(), vec![base.clone()], vec![other, base]] {
        let view = mount_view(&build.scratch, &lower).expect("a view");
        assert_eq!(view.path().join("bin/busybox").exists(), !lower.is_empty());
        let error = std::fs::write(view.path().join("new"), "").expect_err("read-only");
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let stat = rustix::fs::fstat(view.fd()).expect("a root");
        assert_eq!(stat.st_ino, view.path().metadata().expect("a root").ino());
        view.unmount().expect("unmounted");
    }
}

async fn bridge(build: &mut Build) {
    let step = Step {
        network: NetworkChoice::Default,
        ..shell("ip -4 -o addr show eth0; ip route; ping -c 1 -W 2 10.213.77.1")
    };
    let (outcome, out, err) = build.run(step.clone()).await;
    assert_eq!(build.sandbox().take_notice(), None);
    assert_eq!(code(outcome), 0, "{out}{err}");
    assert!(out.contains("10.213.77.2/24") && out.contains("default via 10.213.77.1"), "{out}");
    let (_, again, _) = build.run(step).await;
    assert!(again.contains("10.213.77.2/24"), "one network serves all steps: {again}");
    assert!(rules().contains("MASQUERADE"));
    build.sandbox.take().expect("open").close().await.expect("closed");
    assert!(!build.run_dir.join("network/leases").exists(), "the address is given back");
    unused_network_goes(build);
}

/// The bridge and its rules stay after the last build and go when asked.
fn unused_network_goes(build: &Build) {
    // The kernel removes a namespace's interfaces in the background.
    let limit = Instant::now() + Duration::from_secs(5);
    while links().len() != 2 {
        assert!(Instant::now() < limit, "lo and the bridge: {:?}", links());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rules().matches("pushl").count(), 3, "{}", rules());
    assert!(remove_unused(&build.run_dir, "test").expect("removed"));
    assert_eq!(links(), ["lo"]);
    assert!(!rules().contains("MASQUERADE") && !rules().contains("pushl"), "{}", rules());
    assert!(!build.run_dir.join("network").exists());
}

async fn two_builds(build: &mut Build) {
    let directories = PLUGIN_DIRECTORIES.map(PathBuf::from);
    let second = build.another_sandbox(&directories);
    let step = Step {
        network: NetworkChoice::Default,
        ..shell("ip -4 -o addr show eth0; ping -c 1 -W 2 10.213.77.1")
    };
    let (first_root, second_root) = (build.root(), build.root());
    let (one, two) = tokio::join!(
        run_in(build.sandbox(), &first_root, step.clone()),
        run_in(&second, &second_root, step.clone())
    );
    assert_eq!((code(one.0), code(two.0)), (0, 0), "{}{}", one.1, two.1);
    assert_ne!(one.1, two.1, "two addresses");
    build.sandbox.take().expect("open").close().await.expect("closed");
    let (outcome, out, _) = run_in(&second, &second_root, step.clone()).await;
    assert_eq!(code(outcome), 0, "the network outlives the first build: {out}");
    let third = build.another_sandbox(&directories);
    let (outcome, out, _) = run_in(&third, &first_root, step).await;
    assert_eq!(code(outcome), 0, "{out}");
    second.close().await.expect("closed");
    assert!(!remove_unused(&build.run_dir, "test").expect("an answer"), "the third is still attached");
    third.close().await.expect("closed");
    unused_network_goes(build);
}

async fn dead_network(build: &mut Build) {
    let directories = PLUGIN_DIRECTORIES.map(PathBuf::from);
    let step = Step { network: NetworkChoice::Default, ..shell("ip -4 -o addr show eth0") };
    let (_, out, _) = build.run(step.clone()).await;
    assert!(out.contains("10.213.77.2/"), "{out}");
    // Dropping it without closing is what a kill leaves behind. Somebody flushes the packet filter on top.
    drop(build.sandbox.take());
    assert!(build.run_dir.join("network/leases").exists());
    for table in ["nat", "filter"] {
        let status = std::process::Command::new("iptables").args(["-t", table, "-F"]).status();
        assert!(status.expect("iptables").success());
    }
    let root = build.root();
    let next = build.another_sandbox(&directories);
    let (outcome, out, _) = run_in(&next, &root, step).await;
    assert_eq!(code(outcome), 0);
    assert!(out.contains("10.213.77.2/"), "the address was given back: {out}");
    next.close().await.expect("closed");
    unused_network_goes(build);
}

async fn fallback(build: &mut Build) {
    build.sandbox.take().expect("open").close().await.expect("closed");
    let sandbox = build.another_sandbox(std::slice::from_ref(&build.directory));
    let root = build.root();
    let step = Step { network: NetworkChoice::Default, ..shell("ip -o link") };
    for notice in [true, false] {
        let (outcome, out, _) = run_in(&sandbox, &root, step.clone()).await;
        assert_eq!(code(outcome), 0);
        assert!(!out.contains("eth0"), "{out}");
        let wanted = format!(
            "RUN uses the host's network: find the CNI plugins bridge and host-local in {}",
            build.directory.display()
        );
        assert_eq!(sandbox.take_notice(), notice.then_some(wanted), "one notice");
    }
    sandbox.close().await.expect("closed");
}

async fn chosen_networks(build: &mut Build) {
    let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
    let script = "busybox readlink /proc/self/ns/net; ip -o link";
    let (_, host, _) = build.run(Step { network: NetworkChoice::Host, ..shell(script) }).await;
    assert!(host.starts_with(&own.display().to_string()), "{host}");
    let (_, none, _) = build.run(shell(script)).await;
    assert!(!none.starts_with(&own.display().to_string()), "{none}");
    assert_eq!(none.lines().count(), 2, "{none}");
}

fn rules() -> String {
    let list = |table: &str| {
        let output =
            std::process::Command::new("iptables").args(["-t", table, "-S"]).output().expect("iptables");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    list("nat") + &list("filter")
}

fn links() -> Vec<String> {
    let devices = std::fs::read_to_string("/proc/net/dev").expect("devices");
    devices
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Prints medians; asserts nothing about time.
async fn durations(build: &mut Build) {
    let median = |mut all: Vec<Duration>| {
        all.sort();
        all[all.len() / 2].as_micros()
    };
    for (name, network) in
        [("none", NetworkChoice::None), ("host", NetworkChoice::Host), ("bridge", NetworkChoice::Default)]
    {
        let (mut mounts, mut runs, mut unmounts) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..15 {
            let start = Instant::now();
            let root = build.root();
            mounts.push(start.elapsed());
            let start = Instant::now();
            let step = Step { network, ..shell_free("/bin/true") };
            assert_eq!(code(run_in(build.sandbox(), &root, step).await.0), 0);
            runs.push(start.elapsed());
            let start = Instant::now();
            drop(root);
            unmounts.push(start.elapsed());
        }
        let first = runs[0].as_micros();
        let best = runs.iter().min().expect("runs").as_micros();
        println!(
            "run true, network {name}: first {first} us, best {best} us, median {} us; mount {} us, unmount {} us",
            median(runs),
            median(mounts),
            median(unmounts)
        );
    }
    // The same container without anything of ours around it: what runc itself takes.
    let root = build.root();
    let bundle = build.directory.join("bundle");
    std::fs::create_dir(&bundle).expect("a directory");
    let runc = |arguments: &[&str]| {
        let status = std::process::Command::new("runc").args(arguments).current_dir(&bundle).status();
        assert!(status.expect("runc").success());
    };
    runc(&["spec"]);
    let config = std::fs::read_to_string(bundle.join("config.json")).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["root"]["path"] = root.path().to_str().expect("text").into();
    config["linux"]["cgroupsPath"] = format!("/pushless{}/bare/1", run_dir_suffix(&build.run_dir)).into();
    std::fs::write(bundle.join("config.json"), config.to_string()).expect("a configuration");
    let state = build.scratch.runc_state();
    let mut bare = Vec::new();
    for _ in 0..15 {
        let start = Instant::now();
        runc(&["--root", state.to_str().expect("text"), "run", "bare"]);
        bare.push(start.elapsed());
    }
    drop(root);
    println!(
        "runc alone: best {} us, median {} us",
        bare.iter().min().expect("runs").as_micros(),
        median(bare)
    );
    for path in cgroups(&build.directory) {
        std::fs::remove_dir(path.join("bare")).expect("an empty cgroup");
    }
    let start = Instant::now();
    build.sandbox.take().expect("open").close().await.expect("closed");
    println!("close with a bridge: {} us", start.elapsed().as_micros());
    let root = build.root();
    let mut firsts = Vec::new();
    for _ in 0..7 {
        let sandbox = build.another_sandbox(&PLUGIN_DIRECTORIES.map(PathBuf::from));
        let start = Instant::now();
        let step = Step { network: NetworkChoice::Default, ..shell_free("/bin/true") };
        assert_eq!(code(run_in(&sandbox, &root, step).await.0), 0);
        firsts.push(start.elapsed());
        sandbox.close().await.expect("closed");
    }
    println!("first run true of a build on a standing bridge: median {} us", median(firsts));
}
