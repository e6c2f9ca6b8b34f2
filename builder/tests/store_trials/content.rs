// SPDX-License-Identifier: Apache-2.0
//! Blobs, ingests, leases, namespaces.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use pushless::image::Digest;
use pushless::store::{BlobOutcome, ErrorKind, Labels, StoreError, labels};

use super::{Bench, Outcome, equal, labelled, rooted};

pub(super) async fn a_blob_is_written_in_one_call_and_labelled_when_it_exists(bench: Bench) -> Outcome {
    let (store, bytes) = (&bench.store, b"{\"a\":1}");
    let digest = Digest::of(bytes);
    let before = store.counts().snapshot();
    let first = labelled([(labels::GC_ROOT, "true"), ("a.b/c.d", "old"), ("foreign", "stays")]);
    equal(store.write_blob(digest, bytes, &first).await?, BlobOutcome::Written, "the first write")?;
    equal(store.counts().snapshot().since(&before).calls.values().sum(), 1_u64, "calls of a write")?;
    let second = labelled([("a.b/c.d", "new"), ("more", "1")]);
    equal(store.write_blob(digest, bytes, &second).await?, BlobOutcome::AlreadyThere, "the second write")?;
    let info = store.content_info(digest).await?.context("the blob is gone")?;
    let wanted =
        labelled([(labels::GC_ROOT, "true"), ("a.b/c.d", "new"), ("foreign", "stays"), ("more", "1")]);
    equal(info.labels, wanted, "labels after the second write")?;
    equal(info.size_bytes, 7, "its size")?;
    equal(store.read_content(digest, 7).await?.as_slice(), bytes.as_slice(), "its bytes")?;
    let error = store.read_content(digest, 6).await.err().context("the limit does not hold")?;
    equal(error.to_string(), format!("read content {digest}: more than 6 bytes"), "beyond the limit")?;

    let listed = store.list_content(&["labels.more==1"]).await?;
    equal(listed.len(), 1, "blobs found by label")?;
    store.update_content_labels(digest, &Labels::new(), &["a.b/c.d", "more"]).await?;
    let info = store.content_info(digest).await?.context("the blob is gone")?;
    equal(
        info.labels,
        labelled([(labels::GC_ROOT, "true"), ("foreign", "stays")]),
        "labels after a removal",
    )?;

    store.update_content_labels(digest, &Labels::new(), &[]).await?;
    let info = store.content_info(digest).await?.context("the blob is gone")?;
    equal(info.labels.len(), 2, "labels after an update of nothing")?;

    let wrong = Digest::of(b"something else");
    let error =
        store.write_blob(wrong, bytes, &Labels::new()).await.err().context("a wrong digest is taken")?;
    equal(error.kind(), ErrorKind::FailedPrecondition, "a wrong digest")?;
    equal(store.delete_content(digest).await?, true, "the first removal")?;
    equal(store.delete_content(digest).await?, false, "the second removal")?;
    equal(store.content_info(digest).await?.is_none(), true, "the removed blob is gone")?;
    let error = store.read_content(digest, 10).await.err().context("a removed blob is read")?;
    equal(error.is_not_found(), true, "reading a removed blob")
}

pub(super) async fn a_stream_becomes_a_blob_when_it_is_committed(bench: Bench) -> Outcome {
    for size in [0, 1, 1 << 20, (9 << 20) + 17] {
        let bytes: Vec<u8> =
            (0..size).map(|index: usize| (index.wrapping_mul(size + 7) >> 3) as u8).collect();
        let digest = Digest::of(&bytes);
        let (mut sink, writer) = bench.store.content_writer("layer");
        let again = bytes.clone();
        let streamed = tokio::task::spawn_blocking(move || {
            for piece in again.chunks(100_003) {
                sink.write_all(piece)?;
            }
            sink.finish()
        })
        .await??;
        equal(streamed.size_bytes(), size as u64, "bytes handed over")?;
        // The commit may come much later than the bytes.
        tokio::time::sleep(Duration::from_millis(50)).await;
        equal(bench.has_blob(digest).await?, false, "a blob before the commit")?;
        let given = rooted([("k".to_owned(), "v".to_owned())]);
        equal(writer.commit(streamed, digest, &given).await?, BlobOutcome::Written, "the commit")?;
        let info = bench.store.content_info(digest).await?.context("no blob after the commit")?;
        equal((info.size_bytes, info.labels), (size as u64, given), "size and labels")?;
        equal(bench.store.read_content(digest, 1 << 30).await? == bytes, true, "the same bytes")?;
    }
    equal(bench.store.ingests(&[]).await?, Vec::new(), "ingests left")
}

pub(super) async fn a_dropped_or_wrong_stream_leaves_no_ingest(bench: Bench) -> Outcome {
    let store = &bench.store;
    let (mut sink, writer) = store.content_writer("layer");
    let mut sink =
        tokio::task::spawn_blocking(move || sink.write_all(&[1; 3 << 20]).map(|()| sink)).await??;
    let reference = writer.reference().to_owned();
    let filter = format!("ref=={reference}");
    let limit = tokio::time::Instant::now() + Duration::from_secs(5);
    while store.ingests(&[&filter]).await?.first().is_none_or(|ingest| ingest.written_bytes < 2 << 20) {
        equal(tokio::time::Instant::now() < limit, true, "the ingest is seen to grow")?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(writer);
    while !store.ingests(&[&filter]).await?.is_empty() {
        equal(tokio::time::Instant::now() < limit, true, "the ingest goes with its writer")?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let error = tokio::task::spawn_blocking(move || {
        loop {
            if let Err(error) = sink.write_all(&[1; 1 << 20]) {
                return error;
            }
        }
    });
    equal(error.await?.kind(), std::io::ErrorKind::BrokenPipe, "writing after the writer is gone")?;

    let (sink, writer) = store.content_writer("layer");
    let streamed = sink.finish()?;
    let error = writer.commit(streamed, Digest::of(b"x"), &Labels::new()).await.err().context("taken")?;
    equal(error.kind(), ErrorKind::FailedPrecondition, "a wrong digest")?;
    let (_sink, writer) = store.content_writer("layer");
    writer.abort().await?;
    equal(store.ingests(&[]).await?, Vec::new(), "ingests left")
}

pub(super) async fn two_writers_of_one_blob_do_not_disturb_each_other(bench: Bench) -> Outcome {
    let other = bench.other()?;
    for round in 0..10_u8 {
        let bytes = vec![round; 300_000];
        let digest = Digest::of(&bytes);
        let (first, second) =
            (rooted([("one".to_owned(), "1".to_owned())]), rooted([("two".to_owned(), "2".to_owned())]));
        let (one, two) = tokio::join!(
            bench.store.write_blob(digest, &bytes, &first),
            other.write_blob(digest, &bytes, &second)
        );
        let (one, two) = (one?, two?);
        equal((one, two) != (BlobOutcome::AlreadyThere, BlobOutcome::AlreadyThere), true, "somebody wrote")?;
        let (mut sink, writer) = other.content_writer("layer");
        let again = bytes.clone();
        let streamed =
            tokio::task::spawn_blocking(move || sink.write_all(&again).and_then(|()| sink.finish()))
                .await??;
        let third = rooted([("three".to_owned(), "3".to_owned())]);
        equal(writer.commit(streamed, digest, &third).await?, BlobOutcome::AlreadyThere, "the third")?;
        let found = bench.store.content_info(digest).await?.context("the blob is gone")?.labels;
        let wanted = labelled([(labels::GC_ROOT, "true"), ("one", "1"), ("three", "3"), ("two", "2")]);
        equal(found, wanted, "labels of all")?;
    }
    equal(bench.store.ingests(&[]).await?, Vec::new(), "ingests left")
}

pub(super) async fn a_lease_holds_what_is_made_under_it(bench: Bench) -> Outcome {
    let store = &bench.store;
    store.create_lease("held", &labelled([("a.b", "c")]), Some(Duration::from_secs(600))).await?;
    let error = store.create_lease("held", &Labels::new(), None).await.err().context("taken twice")?;
    equal(error.is_already_exists(), true, "a lease of the same name")?;
    let digest = Digest::of(b"leased");
    store.under_lease("held")?.write_blob(digest, b"leased", &Labels::new()).await?;
    bench.collect().await?;
    equal(bench.has_blob(digest).await?, true, "a leased blob after a collection")?;
    equal(store.delete_lease("held", true).await?, true, "the removal of the lease")?;
    equal(bench.has_blob(digest).await?, false, "the blob after its lease")?;
    equal(store.delete_lease("held", false).await?, false, "a second removal")
}

pub(super) async fn a_namespace_needs_no_preparation(bench: Bench) -> Outcome {
    let fresh = pushless::store::Store::connect(&bench.socket, "never.seen-before")?;
    fresh.write_blob(Digest::of(b"x"), b"x", &rooted([])).await?;
    fresh.prepare("key", None, &Labels::new()).await?;
    fresh.ensure_namespace().await?;
    fresh.ensure_namespace().await?;
    equal(fresh.cri().is_none(), true, "CRI is only in k8s.io")?;
    equal(fresh.remove_snapshot("key").await?, true, "removal")?;
    equal(fresh.remove_snapshot("key").await?, false, "second removal")?;
    let error = pushless::store::Store::connect(&bench.socket, "a b").err().context("a bad name is taken")?;
    equal(matches!(error, StoreError::Namespace { .. }), true, "a bad name")
}
