// SPDX-License-Identifier: Apache-2.0
//! Directories, commits, shared chain ids, unpacking.

use std::time::Duration;

use anyhow::Context as _;
use pushless::image::{ChainId, DiffId, Digest};
use pushless::store::{CommitOutcome, ErrorKind, Labels, SnapshotKind, StoreError, labels};

use super::{Bench, Outcome, descriptor, diff_id, equal, labelled, rooted};

pub(super) async fn the_directories_are_those_of_overlayfs(bench: Bench) -> Outcome {
    let store = &bench.store;
    let bottom = store.prepare("bottom", None, &Labels::new()).await?;
    let upper = bottom.upper.clone().context("no upper directory")?;
    equal((bottom.lower.len(), bottom.work), (0, None), "lower and work without a parent")?;
    std::fs::write(upper.join("file"), "content of the first layer")?;
    equal(store.mounts("bottom").await?.upper.as_ref(), Some(&upper), "the same directories again")?;
    let first = ChainId(diff_id("bottom").0);
    equal(store.commit(first, "bottom", &rooted([])).await?, CommitOutcome::Committed, "the commit")?;
    let usage = store.usage(&first.to_string()).await?;
    equal(usage.inodes >= 2 && usage.size_bytes >= 26, true, "usage")?;

    let next = store.prepare("next", Some(first), &Labels::new()).await?;
    equal(next.lower.as_slice(), std::slice::from_ref(&upper), "the lower of the second")?;
    equal(next.upper.is_some_and(|dir| dir.is_dir()), true, "its upper")?;
    equal(next.work.is_some_and(|dir| dir.is_dir()), true, "its work")?;
    let second = ChainId::extend(Some(first), diff_id("next"));
    store.commit(second, "next", &rooted([])).await?;
    let view = store.view("single", Some(first), &Labels::new()).await?;
    equal((view.lower, view.upper), (vec![upper.clone()], None), "a view of one layer")?;
    let view = store.view("double", Some(second), &Labels::new()).await?;
    equal((view.lower.len(), view.lower.last(), view.upper), (2, Some(&upper), None), "a view of two")?;
    let info = store.snapshot("double").await?.context("no view")?;
    equal((info.kind, info.parent), (SnapshotKind::View, Some(second.to_string())), "the view's record")?;

    let error = store.remove_snapshot(&first.to_string()).await.err().context("a parent is removed")?;
    equal(error.kind(), ErrorKind::FailedPrecondition, "removing a parent")?;
    let error = store.prepare("double", None, &Labels::new()).await.err().context("a key is taken twice")?;
    equal(error.is_already_exists(), true, "a key that is taken")?;
    let absent = ChainId(Digest::of(b"absent"));
    let error = store.prepare("orphan", Some(absent), &Labels::new()).await.err().context("prepared")?;
    equal(error.is_not_found(), true, "an absent parent")
}

pub(super) async fn labels_given_to_prepare_are_dropped_at_commit(bench: Bench) -> Outcome {
    let store = &bench.store;
    store.prepare("key", None, &labelled([(labels::BUILD, "build-1")])).await?;
    let found = store.snapshots(&["labels.\"pushless.dev/build\"==build-1"]).await?;
    equal(found.iter().map(|info| info.name.as_str()).collect(), vec!["key"], "active snapshots of a build")?;
    let active = &found[0];
    let wanted = labelled([(labels::BUILD, "build-1"), (labels::GC_ROOT, "true")]);
    equal((active.kind, &active.labels), (SnapshotKind::Active, &wanted), "the active snapshot")?;

    let chain = ChainId(diff_id("labels").0);
    let given =
        labelled([(labels::GC_ROOT, "true"), (&labels::step_key("ab12"), "x.y"), (labels::SIZE, "7")]);
    store.commit(chain, "key", &given).await?;
    let info = store.snapshot(&chain.to_string()).await?.context("not committed")?;
    equal((info.kind, &info.labels), (SnapshotKind::Committed, &given), "the committed snapshot")?;
    equal(info.created_at.is_some(), true, "its time")?;
    equal(store.snapshots(&["kind==active"]).await?.len(), 0, "active snapshots left")?;

    // Keys with dots and slashes are single field paths; others stay.
    store
        .update_snapshot_labels(
            &chain.to_string(),
            &labelled([("pushless.dev/key.cd34", "z")]),
            &["pushless.dev/key.ab12", "never.there"],
        )
        .await?;
    let info = store.snapshot(&chain.to_string()).await?.context("gone")?;
    let wanted = labelled([(labels::GC_ROOT, "true"), ("pushless.dev/key.cd34", "z"), (labels::SIZE, "7")]);
    equal(info.labels, wanted, "labels after an update by field paths")
}

pub(super) async fn an_active_snapshot_lives_by_its_label(bench: Bench) -> Outcome {
    let store = &bench.store;
    let upper = store.prepare("key", None, &Labels::new()).await?.upper.context("no upper directory")?;
    bench.collect().await?;
    equal(bench.has_snapshot("key").await? && upper.is_dir(), true, "after a collection")?;
    store.update_snapshot_labels("key", &Labels::new(), &[labels::GC_ROOT]).await?;
    bench.collect().await?;
    equal(bench.has_snapshot("key").await?, false, "after a collection without the label")
}

pub(super) async fn two_commits_of_one_chain_id_are_both_right(bench: Bench) -> Outcome {
    let other = bench.other()?;
    for round in 0..20 {
        let chain = ChainId(diff_id(&format!("round {round}")).0);
        bench.store.prepare("one", None, &Labels::new()).await?;
        other.prepare("two", None, &Labels::new()).await?;
        let (first, second) =
            (rooted([("a.one".to_owned(), "1".to_owned())]), rooted([("b.two".to_owned(), "2".to_owned())]));
        let (one, two) =
            tokio::join!(bench.store.commit(chain, "one", &first), other.commit(chain, "two", &second));
        let outcome = (one?, two?);
        let expected = [
            (CommitOutcome::Committed, CommitOutcome::AlreadyThere),
            (CommitOutcome::AlreadyThere, CommitOutcome::Committed),
        ];
        equal(expected.contains(&outcome), true, "exactly one was first")?;
        let info = bench.store.snapshot(&chain.to_string()).await?.context("not there")?;
        let wanted = labelled([(labels::GC_ROOT, "true"), ("a.one", "1"), ("b.two", "2")]);
        equal((info.kind, info.labels), (SnapshotKind::Committed, wanted), "labels of both")?;
        equal(bench.store.snapshots(&["kind==active"]).await?, Vec::new(), "active snapshots left")?;
    }
    // A name that is not a committed snapshot is no success.
    let chain = ChainId(diff_id("taken").0);
    bench.store.prepare(&chain.to_string(), None, &Labels::new()).await?;
    bench.store.prepare("one", None, &Labels::new()).await?;
    let error = bench.store.commit(chain, "one", &Labels::new()).await.err().context("committed")?;
    equal(matches!(error, StoreError::Answer { .. }), true, "a name taken by an active snapshot")
}

pub(super) async fn a_commit_onto_a_taken_chain_id_leases_it_only_in_2(bench: Bench) -> Outcome {
    let store = &bench.store;
    store.create_lease("lease", &Labels::new(), None).await?;
    let leased = store.under_lease("lease")?;
    let chain = bench.committed("shared", None, &rooted([])).await?;
    leased.prepare("mine", None, &Labels::new()).await?;
    let given = rooted([]);
    equal(leased.commit(chain, "mine", &given).await?, CommitOutcome::AlreadyThere, "the second commit")?;
    equal(store.snapshots(&["kind==active"]).await?, Vec::new(), "active snapshots left")?;
    // So nobody may rely on the lease: the labels set afterwards are what keeps the snapshot.
    store.update_snapshot_labels(&chain.to_string(), &Labels::new(), &[labels::GC_ROOT]).await?;
    bench.collect().await?;
    equal(bench.has_snapshot(&chain.to_string()).await?, bench.second, "the snapshot by the lease alone")?;
    store.delete_lease("lease", true).await?;
    equal(bench.has_snapshot(&chain.to_string()).await?, false, "the snapshot without the lease")
}

fn layer(name: &str, content: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    header.set_uid(7);
    archive.append_data(&mut header, name, content.as_bytes()).expect("in memory");
    archive.into_inner().expect("in memory")
}

pub(super) async fn layers_in_the_content_store_are_unpacked(bench: Bench) -> Outcome {
    let store = &bench.store;
    let mut layers = Vec::new();
    for bytes in [layer("first", "1"), layer("second", "2"), layer("first", "3")] {
        store.write_blob(Digest::of(&bytes), &bytes, &rooted([])).await?;
        layers
            .push((descriptor("application/vnd.oci.image.layer.v1.tar", &bytes), DiffId(Digest::of(&bytes))));
    }
    let chains = ChainId::stack(&layers.iter().map(|(_, diff_id)| *diff_id).collect::<Vec<_>>());
    let given = rooted([("who".to_owned(), "unpack".to_owned())]);
    equal(store.unpack(&layers[..2], &given).await?, 2, "layers unpacked")?;
    bench.collect().await?;
    equal(bench.has_snapshot(&chains[0].to_string()).await?, true, "the lower one after a collection")?;
    equal(store.unpack(&layers, &given).await?, 1, "layers unpacked on top")?;
    let before = store.counts().snapshot();
    equal(store.unpack(&layers, &given).await?, 0, "layers unpacked again")?;
    equal(store.counts().snapshot().since(&before).writes(), 0, "writes of an unpacking without work")?;
    bench.collect().await?;
    let info = store.snapshot(&chains[2].to_string()).await?.context("the top is gone")?;
    equal((info.kind, info.labels), (SnapshotKind::Committed, given), "the top")?;
    let view = store.view("look", Some(chains[2]), &Labels::new()).await?;
    equal(
        std::fs::read_to_string(view.lower[0].join("first"))?,
        "3".to_owned(),
        "the file of the top layer",
    )?;
    equal(std::fs::read_to_string(view.lower[1].join("second"))?, "2".to_owned(), "the file of the middle")?;

    let wrong = [(layers[1].0.clone(), layers[0].1)];
    // The first chain id is there, so the wrong pair must be above it.
    let error = store.unpack(&[layers[0].clone(), wrong[0].clone()], &Labels::new()).await;
    equal(matches!(error, Err(StoreError::DiffId { .. })), true, "a layer that the config does not name")?;
    equal(store.snapshots(&["kind==active"]).await?, Vec::new(), "active snapshots left")?;
    let absent = (descriptor("application/vnd.oci.image.layer.v1.tar", b"absent"), diff_id("absent"));
    let error = store.unpack(&[absent], &Labels::new()).await.err().context("unpacked")?;
    equal(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable), true, "an absent blob")?;
    tokio::time::sleep(Duration::from_millis(1)).await;
    equal(store.snapshots(&["kind==active"]).await?, Vec::new(), "active snapshots left")
}
