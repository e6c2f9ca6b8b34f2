// SPDX-License-Identifier: Apache-2.0
//! Pods on real private containerds: [`ContainerdBinaries::both`]. Needs root; as a plain user, or without that
//! containerd, a trial is reported as ignored with the reason.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use confine::Confinement;
use libtest_mimic::{Arguments, Failed};
use shakedown::cluster::{Cluster, ClusterOptions};
use shakedown::pod::{ImageRoot, PodError, PodRequest, StoreTier};
use shakedown_node::{BaseImage, ContainerdBinaries, Inventory, ResidueKind, TestPlace};
use shakedown_testing::trial;

fn main() -> ExitCode {
    let plain_user = shakedown_testing::root("run containerd");
    if plain_user.is_none() {
        confine::enter(Confinement { network: true, reap_orphans: true }).expect("namespaces");
    }
    let _place = TestPlace::enter().expect("a place");
    let mut trials = Vec::new();
    for (name, binaries) in ContainerdBinaries::both() {
        let missing = plain_user.clone().or_else(|| binaries.as_ref().err().map(ToString::to_string));
        for (title, run) in TRIALS {
            let binaries = binaries.as_ref().ok().cloned();
            let body = move || on_a_cluster(binaries.ok_or("no such containerd")?, run);
            trials.push(trial(format!("{name}::{title}"), missing.as_deref(), body));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Body = for<'a> fn(&'a Cluster) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Failed>> + 'a>>;

const TRIALS: [(&str, Body); 9] = [
    ("a_pod_prints_and_exits_with_its_code", |cluster| Box::pin(prints(cluster))),
    ("long_lines_and_a_missing_newline_come_out_exactly", |cluster| Box::pin(exact_output(cluster))),
    ("an_absent_image_is_never_pulled", |cluster| Box::pin(absent(cluster))),
    ("another_image_than_the_one_built_is_refused", |cluster| Box::pin(wrong(cluster))),
    ("a_program_that_cannot_start_is_told_apart", |cluster| Box::pin(unstartable(cluster))),
    ("a_pod_that_hangs_is_removed", |cluster| Box::pin(hangs(cluster))),
    ("a_pod_has_its_own_network_or_the_nodes", |cluster| Box::pin(networks(cluster))),
    ("the_stores_and_the_root_of_an_image_can_be_read", |cluster| Box::pin(stores(cluster))),
    ("an_image_of_sixty_layers_can_be_mounted", |cluster| Box::pin(many_layers(cluster))),
];

fn on_a_cluster(binaries: ContainerdBinaries, body: Body) -> Result<(), Failed> {
    let mut builder = tempfile::Builder::new();
    let parent = builder.prefix("sdp-").permissions(std::fs::Permissions::from_mode(0o755)).tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut options = ClusterOptions::new(binaries);
        options.parent_dir = parent.path().to_owned();
        let cluster = Cluster::start(options).await?;
        let before = inventory(&cluster).await?;
        let outcome = body(&cluster).await;
        let difference = before.diff(&inventory(&cluster).await?);
        cluster.stop().await?;
        outcome?;
        let left: Vec<_> = difference.added.iter().map(ToString::to_string).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}").into()) }
    })
}

/// Without processes: other trials run at the same time.
async fn inventory(cluster: &Cluster) -> Result<Inventory, Failed> {
    let mut inventory = Inventory::take(cluster.node(), &[cluster.node().dir()], &["/pushless"]).await?;
    inventory.forget(ResidueKind::Process);
    Ok(inventory)
}

fn shell(name: &str, script: &str) -> PodRequest {
    let mut request = PodRequest::new(name, BaseImage::BUSYBOX);
    request.command = Some(["sh", "-c", script].map(str::to_owned).into());
    request
}

async fn prints(cluster: &Cluster) -> Result<(), Failed> {
    let mut request = shell("prints", "echo out $GREETING; pwd; echo err >&2; exit 3");
    request.env = vec![("GREETING".to_owned(), "hello".to_owned())];
    request.working_dir = Some("/tmp".to_owned());
    request.expected_image_id = cluster
        .base_images()
        .iter()
        .find(|image| image.reference() == BaseImage::BUSYBOX)
        .map(|image| image.id().to_owned());
    for host_network in [true, false, true, false] {
        request.host_network = host_network;
        let outcome = cluster.pods().run_pod(&request).await?;
        let version = cluster.node().binaries().version();
        println!("containerd {version}, host network {host_network}: {:?}", outcome.phases);
        equal(outcome.exit_code, 3)?;
        equal(String::from_utf8(outcome.stdout)?.as_str(), "out hello\n/tmp\n")?;
        equal(String::from_utf8(outcome.stderr)?.as_str(), "err\n")?;
        equal(Some(&outcome.image_id_seen), request.expected_image_id.as_ref())?;
    }
    Ok(())
}

async fn exact_output(cluster: &Cluster) -> Result<(), Failed> {
    let script = "head -c 50000 /dev/zero | tr '\\0' x; echo; printf 'no newline'";
    let outcome = cluster.pods().run_pod(&shell("exact", script)).await?;
    let mut wanted = vec![b'x'; 50_000];
    wanted.extend_from_slice(b"\nno newline");
    equal(outcome.stdout == wanted, true)
}

async fn absent(cluster: &Cluster) -> Result<(), Failed> {
    let request = PodRequest::new("absent", "shakedown.test/absent:1");
    match cluster.pods().run_pod(&request).await {
        Err(PodError::ImageAbsent { reference }) => equal(reference.as_str(), "shakedown.test/absent:1"),
        other => Err(format!("got {other:?}").into()),
    }
}

async fn wrong(cluster: &Cluster) -> Result<(), Failed> {
    let mut request = shell("wrong", "true");
    request.expected_image_id = Some("sha256:0".to_owned());
    match cluster.pods().run_pod(&request).await {
        Err(PodError::WrongImage { expected, .. }) => equal(expected.as_str(), "sha256:0"),
        other => Err(format!("got {other:?}").into()),
    }
}

async fn unstartable(cluster: &Cluster) -> Result<(), Failed> {
    let mut request = shell("unstartable", "");
    request.command = Some(vec!["/no/such/program".to_owned()]);
    match cluster.pods().run_pod(&request).await {
        Err(PodError::StartFailed { source, .. }) if source.message().contains("/no/such/program") => Ok(()),
        other => Err(format!("got {other:?}").into()),
    }
}

async fn hangs(cluster: &Cluster) -> Result<(), Failed> {
    let mut request = shell("hangs", "sleep 1000");
    request.timeout = Duration::from_millis(1500);
    match cluster.pods().run_pod(&request).await {
        Err(PodError::Timeout { phase: "wait for its container", .. }) => Ok(()),
        other => Err(format!("got {other:?}").into()),
    }
}

async fn networks(cluster: &Cluster) -> Result<(), Failed> {
    let script = "ip -o -4 addr show | wc -l";
    let own = cluster.pods().run_pod(&shell("own", script)).await?;
    equal(String::from_utf8(own.stdout)?.trim(), "2")?;
    // The loopback address, and those of the bridges that pods on their own networks have made.
    let mut request = shell("node", "ip -o link show | grep -c ' sdn'");
    request.host_network = true;
    let node = cluster.pods().run_pod(&request).await?;
    equal(String::from_utf8(node.stdout)?.trim() != "0", true)
}

async fn stores(cluster: &Cluster) -> Result<(), Failed> {
    let facts = cluster.pods().image_status(BaseImage::BUSYBOX).await?.ok_or("the image is absent")?;
    equal(facts.repo_tags, vec![BaseImage::BUSYBOX.to_owned()])?;
    let tier = StoreTier::inspect(cluster.store(), BaseImage::BUSYBOX).await?.ok_or("no record")?;
    equal((tier.is_runnable(), tier.is_complete()), (true, true))?;
    equal(&tier.image_id, &facts.id)?;
    equal(StoreTier::inspect(cluster.store(), "shakedown.test/absent:1").await?, None)?;
    let config = cluster.store().image_config(BaseImage::BUSYBOX).await?;
    equal(config["config"]["Cmd"][0].as_str(), Some("sh"))?;

    let root = ImageRoot::mount(cluster.store(), BaseImage::BUSYBOX).await?;
    let mode = std::fs::metadata(root.path().join("tmp"))?.permissions().mode();
    equal(mode & 0o7777, 0o1777)?;
    equal(std::fs::read_link(root.path().join("bin/ls"))?.as_path(), Path::new("/bin/busybox"))?;
    let written = std::fs::write(root.path().join("new"), "");
    equal(written.map_err(|error| error.kind()), Err(std::io::ErrorKind::ReadOnlyFilesystem))?;
    let path = root.path().to_owned();
    root.close().await?;
    equal(path.exists(), false)?;

    // Without its layer's blob, the image still runs; it is no longer complete.
    let layer = &tier.chain_ids[0];
    let removed = cluster.node().ctr().args(["content", "rm", layer]).output()?;
    equal(removed.status.success(), true)?;
    let tier = StoreTier::inspect(cluster.store(), BaseImage::BUSYBOX).await?.ok_or("no record")?;
    equal((tier.is_runnable(), tier.is_complete()), (true, false))?;
    equal(&tier.missing_blobs, &tier.chain_ids)?;
    equal(cluster.pods().run_pod(&shell("no-blob", "exit 7")).await?.exit_code, 7)
}

/// More layers than fit into one page of mount options by their full paths.
async fn many_layers(cluster: &Cluster) -> Result<(), Failed> {
    let layers: Vec<Vec<u8>> = (0..60)
        .map(|number| {
            let removed = format!(".wh.file-{}", number - 30);
            let mut files = vec![(format!("file-{number}"), "x")];
            if number == 59 {
                files.push((removed, ""));
            }
            tar_of(&files)
        })
        .collect::<Result<_, _>>()?;
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let names: Vec<_> = (0..60).map(|number| format!("{number}/layer.tar")).collect();
    let reference = "shakedown.test/layers:1";
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [reference], "Layers": names }]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes)
    };
    for (name, layer) in names.iter().zip(&layers) {
        put(name, layer)?;
    }
    put("config.json", config.to_string().as_bytes())?;
    put("manifest.json", manifest.to_string().as_bytes())?;
    let path = cluster.node().dir().join("layers.tar");
    std::fs::write(&path, archive.into_inner()?)?;
    let imported = cluster.node().ctr().args(["images", "import"]).arg(&path).output()?;
    if !imported.status.success() {
        return Err(String::from_utf8_lossy(&imported.stderr).into_owned().into());
    }
    let id = cluster.store().image_id(reference).await?;
    let root = ImageRoot::mount(cluster.store(), reference).await?;
    let mut found: Vec<_> = std::fs::read_dir(root.path())?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<_>>()?;
    found.sort();
    let mut wanted: Vec<_> =
        (0..60).filter(|number| *number != 29).map(|number| format!("file-{number}").into()).collect();
    wanted.sort();
    root.close().await?;
    // By CRI, which also removes the record that it made of the id.
    cluster.node().wait_until_visible(reference, &id, Duration::from_secs(10)).await?;
    cluster.pods().remove_image(reference).await?;
    equal::<Vec<std::ffi::OsString>>(found, wanted)
}

fn tar_of(files: &[(String, &str)]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes())?;
    }
    tar.into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "the callers compare temporaries")]
fn equal<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), Failed> {
    if found == wanted { Ok(()) } else { Err(format!("found {found:?}, wanted {wanted:?}").into()) }
}
