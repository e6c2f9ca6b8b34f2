// SPDX-License-Identifier: Apache-2.0
//! Finds and removes what builds that were killed have left: active snapshots, cgroups, network addresses.
//!
//! A build that makes snapshots leaves a marker with its id in the store's state directory until it has removed them. A
//! marker whose build holds no lock any more belongs to a dead one. Looking costs two directory reads when nothing died.

use std::io;
use std::path::PathBuf;

use super::error::BuildError;
use super::layer_step::join;
use super::session::{NodePaths, plugin_directories};
use crate::cache::StateDir;
use crate::sandbox::build_lock;
use crate::sandbox::cgroup::Cgroups;
use crate::sandbox::network::Network;
use crate::store::{Store, labels};

fn marker(state: &StateDir, build: &str) -> PathBuf {
    state.active().join(build)
}

/// Says that `build` is about to make snapshots in this store.
pub(crate) fn announce(state: &StateDir, build: &str) -> Result<(), BuildError> {
    let path = marker(state, build);
    let write = || {
        std::fs::create_dir_all(state.active())?;
        std::fs::write(&path, b"")
    };
    write().map_err(|source| BuildError::Marker { path: path.clone(), source })
}

/// Says that nothing of `build` is left in this store.
pub(crate) fn retract(state: &StateDir, build: &str) -> Result<(), BuildError> {
    let path = marker(state, build);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BuildError::Marker { path, source }),
        _ => Ok(()),
    }
}

/// Removes what dead builds have left. Does nothing, and calls nobody, when no build has died.
pub(crate) async fn collect(store: &Store, paths: &NodePaths) -> Result<(), BuildError> {
    let NodePaths { state, run_dir, .. } = paths;
    for build in announced(state)? {
        if build_lock::is_live(run_dir, &build)? {
            continue;
        }
        tracing::info!(build, "removing what a killed build has left");
        let filter = format!("labels.\"{}\"==\"{build}\"", labels::BUILD);
        for snapshot in store.snapshots(&[&filter]).await? {
            store.remove_snapshot(&snapshot.name).await?;
        }
        for ingest in store.ingests(&[&format!("ref~=^pushless-{build}-")]).await? {
            store.abort_ingest(&ingest.reference).await?;
        }
        retract(state, &build)?;
    }
    let dead = build_lock::dead_builds(run_dir)?;
    if dead.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = dead.iter().map(build_lock::DeadBuild::id).collect();
    Cgroups::discover(run_dir, paths.cgroup_parent.as_deref())?.collect(|build| ids.contains(&build))?;
    let directory = run_dir.to_owned();
    let collected = tokio::task::spawn_blocking(move || Network::collect(&directory, &plugin_directories()));
    join(collected.await)??;
    for build in dead {
        build.forget()?;
    }
    Ok(())
}

fn announced(state: &StateDir) -> Result<Vec<String>, BuildError> {
    let path = state.active();
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(BuildError::Marker { path, source }),
    };
    entries
        .map(|entry| match entry {
            Ok(entry) => Ok(entry.file_name().to_string_lossy().into_owned()),
            Err(source) => Err(BuildError::Marker { path: path.clone(), source }),
        })
        .collect()
}
