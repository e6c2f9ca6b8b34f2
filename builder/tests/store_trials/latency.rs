// SPDX-License-Identifier: Apache-2.0
//! How long the main calls take; a measurement to look at, without a limit that could fail.

use std::io::Write;
use std::time::{Duration, Instant};

use pushless::image::{ChainId, Digest};
use pushless::store::{Labels, Store};

use super::cri::{build, cri, reference};
use super::{Bench, Outcome, diff_id, rooted};

const ROUNDS: usize = 100;

/// Median and 90th percentile of some samples, in milliseconds.
fn print(what: &str, mut samples: Vec<Duration>) {
    samples.sort();
    let ms = |index: usize| samples[index.min(samples.len() - 1)].as_secs_f64() * 1e3;
    println!("{what:42} median {:8.3} ms   p90 {:8.3} ms", ms(samples.len() / 2), ms(samples.len() * 9 / 10));
}

async fn measure<F>(what: &str, rounds: usize, mut call: impl FnMut(usize) -> F) -> Outcome
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut samples = Vec::new();
    for round in 0..rounds {
        let start = Instant::now();
        call(round).await?;
        samples.push(start.elapsed());
    }
    print(what, samples);
    Ok(())
}

pub(super) async fn of_the_main_calls(bench: Bench) -> Outcome {
    let (store, cri) = (&bench.store, &cri(&bench)?);
    let built = &build(&bench, "latency").await?;
    let other = &build(&bench, "latency-2").await?;
    let name = &reference("latency")?;
    store.set_image(name, &built.manifest, &Labels::new()).await?;
    cri.wait_visible(name, built.config, Duration::from_secs(10)).await?;
    let chain = &built.chain.to_string();
    let full = &name.to_string();

    measure("connect and first call (snapshot stat)", ROUNDS, |_| async {
        let fresh = Store::connect(&bench.socket, "k8s.io")?;
        fresh.snapshot(chain).await?;
        Ok(())
    })
    .await?;
    measure("snapshot stat", ROUNDS, |_| async { store.snapshot(chain).await.map(drop).map_err(Into::into) })
        .await?;
    measure("content info", ROUNDS, |_| async {
        store.content_info(built.config).await.map(drop).map_err(Into::into)
    })
    .await?;
    measure("read a small blob", ROUNDS, |_| async {
        store.read_content(built.config, 1 << 20).await.map(drop).map_err(Into::into)
    })
    .await?;
    measure("image get", ROUNDS, |_| async { store.image(full).await.map(drop).map_err(Into::into) }).await?;
    measure("CRI ImageStatus", ROUNDS, |_| async { cri.image_id(name).await.map(drop).map_err(Into::into) })
        .await?;
    measure("CRI snapshotter (ImageFsInfo)", ROUNDS, |_| async {
        cri.snapshotter().await.map(drop).map_err(Into::into)
    })
    .await?;
    measure("prepare + commit", ROUNDS, |round| async move {
        let key = format!("latency-{round}");
        store.prepare(&key, None, &Labels::new()).await?;
        let committed = ChainId(diff_id(&key).0);
        store.commit(committed, &key, &rooted([])).await?;
        Ok(())
    })
    .await?;
    measure("prepare + commit onto a taken chain id", ROUNDS, |round| async move {
        let key = format!("latency-{round}");
        store.prepare(&key, None, &Labels::new()).await?;
        store.commit(ChainId(diff_id(&key).0), &key, &rooted([])).await?;
        Ok(())
    })
    .await?;
    measure("write_blob 1 KiB", ROUNDS, |round| async move {
        let bytes = [round as u8; 1024];
        store.write_blob(Digest::of(&bytes), &bytes, &rooted([])).await?;
        Ok(())
    })
    .await?;
    measure("write_blob 1 KiB, already there", ROUNDS, |round| async move {
        let bytes = [round as u8; 1024];
        store.write_blob(Digest::of(&bytes), &bytes, &rooted([])).await?;
        Ok(())
    })
    .await?;
    measure("set_image (moved)", ROUNDS, |round| async move {
        let target = if round % 2 == 0 { &other.manifest } else { &built.manifest };
        store.set_image(name, target, &Labels::new()).await?;
        Ok(())
    })
    .await?;
    measure("set_image (moved) + wait_visible", ROUNDS, |round| async move {
        let target = if round % 2 == 0 { other } else { built };
        store.set_image(name, &target.manifest, &Labels::new()).await?;
        cri.wait_visible(name, target.config, Duration::from_secs(10)).await?;
        Ok(())
    })
    .await?;
    measure("lease create + delete", ROUNDS, |round| async move {
        let id = format!("latency-{round}");
        store.create_lease(&id, &Labels::new(), None).await?;
        store.delete_lease(&id, false).await?;
        Ok(())
    })
    .await?;
    stream(store, "stream and commit 64 KiB", 20, 64 << 10).await?;
    stream(store, "stream and commit 64 MiB", 3, 64 << 20).await?;
    measure("request_gc, waited for", 10, |_| async {
        store.request_gc(Duration::from_secs(30)).await.map(drop).map_err(Into::into)
    })
    .await
}

/// The digest is computed beforehand: what is measured is containerd and the way to it.
async fn stream(store: &Store, what: &str, rounds: u8, size: usize) -> Outcome {
    let mut samples = Vec::new();
    for round in 0..rounds {
        let bytes = vec![round; size];
        let digest = Digest::of(&bytes);
        let start = Instant::now();
        let (mut sink, writer) = store.content_writer("latency");
        let streamed = tokio::task::spawn_blocking(move || {
            sink.write_all(&bytes)?;
            sink.finish()
        });
        writer.commit(streamed.await??, digest, &Labels::new()).await?;
        samples.push(start.elapsed());
    }
    print(what, samples);
    Ok(())
}
