// SPDX-License-Identifier: Apache-2.0
//! Image records as CRI sees them.

use std::time::Duration;

use anyhow::{Context as _, bail};
use containerd_client::services::v1::{CreateImageRequest, Image};
use containerd_client::types;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::{ImageSpec, RemoveImageRequest};
use pushless::image::{ChainId, Descriptor, Digest, ImageReference};
use pushless::store::{Cri, ImageOutcome, Labels, StoreError, labels};

use super::{Bench, Outcome, descriptor, diff_id, equal, labelled, rooted};

const LIMIT: Duration = Duration::from_secs(10);

/// A runnable image: chain-id snapshot, config, manifest; no layer blob.
pub(super) struct Built {
    pub(super) config: Digest,
    pub(super) manifest: Descriptor,
    pub(super) chain: ChainId,
}

/// Builds as the engine does: the snapshot with its labels first, then what they refer to.
pub(super) async fn build(bench: &Bench, name: &str) -> anyhow::Result<Built> {
    let store = &bench.store;
    let layer = diff_id(name);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{layer}"]}}}}"#
    );
    let config_digest = Digest::of(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":1024}}]}}"#,
        config.len()
    );
    let manifest_descriptor = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    let given = rooted([
        labels::content_reference("config", config_digest),
        labels::content_reference("manifest", manifest_descriptor.digest),
    ]);
    let chain = bench.committed(name, None, &given).await?;
    let snapshot = labelled([(labels::GC_REF_SNAPSHOT, &chain.to_string())]);
    store.write_blob(config_digest, config.as_bytes(), &snapshot).await?;
    let children = Labels::from([labels::content_reference("config", config_digest)]);
    store.write_blob(manifest_descriptor.digest, manifest.as_bytes(), &children).await?;
    Ok(Built { config: config_digest, manifest: manifest_descriptor, chain })
}

pub(super) fn cri(bench: &Bench) -> anyhow::Result<Cri> {
    bench.store.cri().context("no CRI in k8s.io")
}

pub(super) fn reference(name: &str) -> anyhow::Result<ImageReference> {
    Ok(format!("lab.local/{name}:1").parse()?)
}

async fn channel(bench: &Bench) -> anyhow::Result<tonic::transport::Channel> {
    let socket = bench.socket.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
    Ok(endpoint.connect_with_connector(connector).await?)
}

async fn second_record(bench: &Bench, config: Digest) -> anyhow::Result<bool> {
    // CRI follows containerd's events: give it the time to do what it does.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(bench.store.image(&config.to_string()).await?.is_some())
}

pub(super) async fn the_snapshotter_is_told(bench: Bench) -> Outcome {
    let found = cri(&bench)?.snapshotter().await?;
    equal(found.as_deref(), Some("overlayfs"), "CRI's snapshotter")?;
    let discovery = pushless::store::Discovery::of_process();
    discovery.check_cri_snapshotter(found.as_deref())?;
    Ok(())
}

pub(super) async fn a_managed_image_has_one_record_and_its_configs_digest_as_id(bench: Bench) -> Outcome {
    let built = build(&bench, "managed").await?;
    let name = reference("managed")?;
    equal(cri(&bench)?.image_id(&name).await?, None, "CRI before")?;
    let outcome = bench.store.set_image(&name, &built.manifest, &labelled([("pushless.dev/x", "1")])).await?;
    equal(outcome, ImageOutcome::Created, "the first time")?;
    cri(&bench)?.wait_visible(&name, built.config, LIMIT).await?;
    equal(cri(&bench)?.image_id(&name).await?, Some(built.config.to_string()), "the id")?;
    let record = bench.store.image(&name.to_string()).await?.context("no record")?;
    equal(record.target, built.manifest, "the target")?;
    let wanted = labelled([(labels::CRI_IMAGE, labels::CRI_MANAGED), ("pushless.dev/x", "1")]);
    equal(record.labels, wanted, "the labels")?;
    equal(second_record(&bench, built.config).await?, false, "a second record")?;
    let listed = bench.store.images(&["name~=lab.local/managed"]).await?;
    equal(listed.len(), 1, "records of that name")
}

pub(super) async fn an_unmanaged_image_gets_a_second_record(bench: Bench) -> Outcome {
    // Shows that the check above can fail, and what the label is for.
    let built = build(&bench, "unmanaged").await?;
    let name = reference("unmanaged")?;
    let image = Image {
        name: name.to_string(),
        target: Some(types::Descriptor {
            media_type: built.manifest.media_type.clone(),
            digest: built.manifest.digest.to_string(),
            size: built.manifest.size_bytes.cast_signed(),
            annotations: <_>::default(),
        }),
        ..Image::default()
    };
    let request = CreateImageRequest { image: Some(image), source_date_epoch: None };
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("containerd-namespace", "k8s.io".parse()?);
    containerd_client::services::v1::images_client::ImagesClient::new(channel(&bench).await?)
        .create(request)
        .await?;
    cri(&bench)?.wait_visible(&name, built.config, LIMIT).await?;
    equal(second_record(&bench, built.config).await?, true, "a second record")?;
    equal(bench.store.delete_image(&built.config.to_string(), false).await?, true, "its removal")
}

pub(super) async fn remove_image_takes_no_cached_layer(bench: Bench) -> Outcome {
    let built = build(&bench, "removed").await?;
    let name = reference("removed")?;
    bench.store.set_image(&name, &built.manifest, &Labels::new()).await?;
    cri(&bench)?.wait_visible(&name, built.config, LIMIT).await?;
    let image = Some(ImageSpec { image: name.to_string(), ..ImageSpec::default() });
    ImageServiceClient::new(channel(&bench).await?).remove_image(RemoveImageRequest { image }).await?;
    bench.collect().await?;
    equal(bench.store.image(&name.to_string()).await?.is_none(), true, "the record is gone")?;
    equal(cri(&bench)?.image_id(&name).await?, None, "CRI's answer")?;
    equal(bench.has_snapshot(&built.chain.to_string()).await?, true, "the snapshot")?;
    equal(bench.has_blob(built.config).await?, true, "the config")?;
    equal(bench.has_blob(built.manifest.digest).await?, true, "the manifest")?;
    // A build that hits its cache only has to set the name again.
    bench.store.set_image(&name, &built.manifest, &Labels::new()).await?;
    cri(&bench)?.wait_visible(&name, built.config, LIMIT).await?;
    equal(bench.store.delete_image(&name.to_string(), true).await?, true, "our own removal")?;
    equal(bench.store.delete_image(&name.to_string(), true).await?, false, "a second one")
}

pub(super) async fn an_update_keeps_foreign_labels(bench: Bench) -> Outcome {
    let (one, two) = (build(&bench, "update-1").await?, build(&bench, "update-2").await?);
    let name = reference("update")?;
    bench
        .store
        .set_image(&name, &one.manifest, &labelled([("foreign.label/x", "stays"), ("ours", "1")]))
        .await?;
    let outcome = bench.store.set_image(&name, &two.manifest, &labelled([("ours", "2")])).await?;
    equal(outcome, ImageOutcome::Updated, "the second time")?;
    let record = bench.store.image(&name.to_string()).await?.context("no record")?;
    equal(record.target, two.manifest, "the target")?;
    let wanted =
        labelled([(labels::CRI_IMAGE, labels::CRI_MANAGED), ("foreign.label/x", "stays"), ("ours", "2")]);
    equal(record.labels, wanted, "the labels")
}

pub(super) async fn a_moved_name_becomes_visible(bench: Bench) -> Outcome {
    let builds = [build(&bench, "moved-1").await?, build(&bench, "moved-2").await?];
    let name = reference("moved")?;
    let cri = cri(&bench)?;
    let mut stale = 0;
    for round in 0..40 {
        let built = &builds[round % 2];
        bench.store.set_image(&name, &built.manifest, &Labels::new()).await?;
        if cri.image_id(&name).await? != Some(built.config.to_string()) {
            stale += 1;
        }
        cri.wait_visible(&name, built.config, LIMIT).await?;
        equal(cri.image_id(&name).await?, Some(built.config.to_string()), "the id after the wait")?;
    }
    println!("a first answer was stale in {stale} of 40 rounds");
    for built in &builds {
        equal(second_record(&bench, built.config).await?, false, "a second record")?;
    }
    Ok(())
}

pub(super) async fn a_wrong_id_is_reported_with_both(bench: Bench) -> Outcome {
    let built = build(&bench, "wrong").await?;
    let name = reference("wrong")?;
    bench.store.set_image(&name, &built.manifest, &Labels::new()).await?;
    let cri = cri(&bench)?;
    cri.wait_visible(&name, built.config, LIMIT).await?;
    let limit = Duration::from_millis(80);
    let start = std::time::Instant::now();
    let error = cri.wait_visible(&name, Digest::of(b"other"), limit).await.err().context("visible")?;
    equal(start.elapsed() < Duration::from_secs(2), true, "the limit")?;
    let (StoreError::NotVisible { expected, found, .. }, own) = (&error, built.config.to_string()) else {
        bail!("{error}");
    };
    equal((*expected, found.as_ref()), (Digest::of(b"other"), Some(&own)), "both ids")?;
    let absent = reference("absent")?;
    let error = cri.wait_visible(&absent, built.config, limit).await.err().context("visible")?;
    equal(matches!(error, StoreError::NotVisible { found: None, .. }), true, "an absent name")
}

pub(super) async fn looking_writes_nothing(bench: Bench) -> Outcome {
    let built = build(&bench, "looked-at").await?;
    let name = reference("looked-at")?;
    bench.store.set_image(&name, &built.manifest, &Labels::new()).await?;
    let cri = cri(&bench)?;
    cri.wait_visible(&name, built.config, LIMIT).await?;
    let before = bench.store.counts().snapshot();
    bench.store.image(&name.to_string()).await?;
    bench.store.images(&[]).await?;
    bench.store.snapshot(&built.chain.to_string()).await?;
    bench.store.snapshots(&[]).await?;
    bench.store.usage(&built.chain.to_string()).await?;
    bench.store.content_info(built.config).await?;
    bench.store.read_content(built.config, 1 << 20).await?;
    bench.store.list_content(&[]).await?;
    bench.store.ingests(&[]).await?;
    cri.image_id(&name).await?;
    cri.available().await?;
    cri.snapshotter().await?;
    let calls = bench.store.counts().snapshot().since(&before);
    equal((calls.reads(), calls.writes()), (12, 0), &calls.to_string())
}
