// SPDX-License-Identifier: Apache-2.0
//! Snapshots are the only pins: what their labels keep through a garbage collection, and what they let go.

use std::time::Duration;

use anyhow::Context as _;
use pushless::image::Digest;
use pushless::store::{GcOutcome, Labels, labels};

use super::{Bench, Outcome, equal, rooted};

pub(super) async fn a_root_keeps_its_parents(bench: Bench) -> Outcome {
    // containerd also collects unasked, so every snapshot starts as a root.
    let bottom = bench.committed("bottom", None, &rooted([])).await?;
    let middle = bench.committed("middle", Some(bottom), &rooted([])).await?;
    let top = bench.committed("top", Some(middle), &rooted([])).await?;
    let beside = bench.committed("beside", Some(middle), &rooted([])).await?;
    for chain in [bottom, middle, beside] {
        bench.store.update_snapshot_labels(&chain.to_string(), &Labels::new(), &[labels::GC_ROOT]).await?;
    }
    bench.collect().await?;
    for chain in [bottom, middle, top] {
        equal(bench.has_snapshot(&chain.to_string()).await?, true, "the root and its parents")?;
    }
    // The collection did work: what nothing keeps is gone.
    equal(bench.has_snapshot(&beside.to_string()).await?, false, "a snapshot without a root")
}

pub(super) async fn a_blob_may_come_after_the_label_that_keeps_it(bench: Bench) -> Outcome {
    let store = &bench.store;
    let [layer, config, manifest, loose] = [&b"layer"[..], b"config", b"manifest", b"loose"];
    let given = rooted([
        labels::content_reference("layer", Digest::of(layer)),
        labels::content_reference("config", Digest::of(config)),
        labels::content_reference("manifest", Digest::of(manifest)),
    ]);
    let chain = bench.committed("pin", None, &given).await?;
    bench.collect().await?;
    equal(bench.has_snapshot(&chain.to_string()).await?, true, "references to nothing do no harm")?;
    for bytes in [layer, config, manifest, loose] {
        store.write_blob(Digest::of(bytes), bytes, &Labels::new()).await?;
    }
    bench.collect().await?;
    for bytes in [layer, config, manifest] {
        equal(bench.has_blob(Digest::of(bytes)).await?, true, "a referenced blob")?;
    }
    equal(bench.has_blob(Digest::of(loose)).await?, false, "a blob that nothing refers to")
}

pub(super) async fn a_label_removed_by_field_path_lets_everything_go(bench: Bench) -> Outcome {
    let store = &bench.store;
    let blob = Digest::of(b"blob");
    let given = rooted([labels::content_reference("layer", blob), ("other".to_owned(), "1".to_owned())]);
    let chain = bench.committed("pin", None, &given).await?.to_string();
    store.write_blob(blob, b"blob", &Labels::new()).await?;
    bench.collect().await?;
    equal(bench.has_blob(blob).await?, true, "the blob while the label is there")?;
    store.update_snapshot_labels(&chain, &Labels::new(), &[labels::GC_ROOT]).await?;
    let left = store.snapshot(&chain).await?.context("gone without a collection")?.labels;
    equal(left.contains_key(labels::GC_ROOT), false, "the removed label")?;
    equal(left.len(), 2, "labels left")?;
    bench.collect().await?;
    equal(bench.has_snapshot(&chain).await?, false, "the snapshot")?;
    equal(bench.has_blob(blob).await?, false, "its blob")
}

pub(super) async fn a_collection_goes_on_without_the_caller(bench: Bench) -> Outcome {
    let blob = Digest::of(b"garbage");
    let mut early = 0;
    for _ in 0..10 {
        bench.store.write_blob(blob, b"garbage", &Labels::new()).await?;
        if bench.store.request_gc(Duration::from_micros(200)).await? == GcOutcome::Requested {
            early += 1;
        }
        let limit = tokio::time::Instant::now() + Duration::from_secs(5);
        while bench.has_blob(blob).await? {
            equal(tokio::time::Instant::now() < limit, true, "the collection takes place")?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    equal(early > 0, true, "the caller had gone at least once")
}
