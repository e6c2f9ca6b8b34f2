// SPDX-License-Identifier: Apache-2.0
//! Finds and removes what builds that were killed have left: active snapshots, cgroups, network addresses.
//!
//! A build that makes snapshots leaves a marker with its id in the store's state directory until it has removed them. A
//! marker that nobody holds a lock on any more belongs to a dead one. Looking costs two directory reads when nothing died.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::error::BuildError;
use super::event::EventSink;
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

/// The sign that a build may have snapshots of its own in a store: a file with the build's id, locked while it lives.
///
/// The lock lies in the store's own state directory, not in the run directory: builds that share the store share the
/// former, but containers, for one, may each have a `/run` of their own.
#[derive(Debug)]
pub(crate) struct Marker {
    path: PathBuf,
    locked: File,
}

impl Marker {
    /// Says that `build` is about to make snapshots in this store.
    pub(crate) fn announce(state: &StateDir, build: &str) -> Result<Self, BuildError> {
        let path = marker(state, build);
        let write = || {
            std::fs::create_dir_all(state.active())?;
            loop {
                let file = File::options().create(true).append(true).open(&path)?;
                file.lock()?;
                // A collector that came between the two steps above has taken it for a dead build's and removed it.
                if file.metadata()?.nlink() == 1 {
                    return Ok(file);
                }
            }
        };
        let locked = write().map_err(|source| BuildError::Marker { path: path.clone(), source })?;
        Ok(Self { path, locked })
    }

    /// The marker `path` of a build that has died, held for the caller; `None` while it lives, or once it is collected.
    fn of_dead(path: PathBuf) -> Result<Option<Self>, BuildError> {
        let open = || match File::options().append(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(file) => match file.try_lock() {
                Ok(()) => Ok((file.metadata()?.nlink() == 1).then_some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            },
        };
        let locked = open().map_err(|source| BuildError::Marker { path: path.clone(), source })?;
        Ok(locked.map(|locked| Self { path, locked }))
    }

    /// Whether the dead build's traces were removed once before.
    fn was_seen(&self) -> Result<bool, BuildError> {
        let metadata = self.locked.metadata();
        Ok(metadata.map_err(|source| BuildError::Marker { path: self.path.clone(), source })?.len() > 0)
    }

    fn note_seen(&self) -> Result<(), BuildError> {
        let noted = (&self.locked).write_all(b"seen\n");
        noted.map_err(|source| BuildError::Marker { path: self.path.clone(), source })
    }

    /// Says that nothing of the build is left in this store.
    pub(crate) fn retract(&self) -> Result<(), BuildError> {
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(BuildError::Marker { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

/// Removes what dead builds have left. Does nothing, and calls nobody, when no build has died. Says whether it must be
/// called once more, at the end of the build.
pub(crate) async fn collect(
    store: &Store,
    paths: &NodePaths,
    events: &EventSink,
) -> Result<bool, BuildError> {
    let NodePaths { state, run_dir, .. } = paths;
    let mut look_again = false;
    for build in announced(state)? {
        let Some(dead) = Marker::of_dead(marker(state, &build))? else { continue };
        tracing::info!(build, "removing what a killed build has left");
        let filter = format!("labels.\"{}\"==\"{build}\"", labels::BUILD);
        for snapshot in store.snapshots(&[&filter]).await? {
            store.remove_snapshot(&snapshot.name).await?;
        }
        for ingest in store.ingests(&[&format!("ref~=^pushless-{build}-")]).await? {
            store.abort_ingest(&ingest.reference).await?;
        }
        // containerd may still be at work on the dead build's last request when it is looked at for the first time.
        if dead.was_seen()? {
            dead.retract()?;
        } else {
            dead.note_seen()?;
            look_again = true;
        }
    }
    let dead = build_lock::dead_builds(run_dir)?;
    if dead.is_empty() {
        return Ok(look_again);
    }
    if let Err(error) = collect_host(paths, &dead).await {
        // The dead keep their lock files, so the next build tries again.
        events.notice(format!("what a killed build has left is not all removed: {error}"));
        return Ok(look_again);
    }
    for build in dead {
        build.forget()?;
    }
    Ok(look_again)
}

/// The cgroups and the network of dead builds. That they can't be removed hinders no other build.
async fn collect_host(paths: &NodePaths, dead: &[build_lock::DeadBuild]) -> Result<(), BuildError> {
    let ids: Vec<&str> = dead.iter().map(build_lock::DeadBuild::id).collect();
    Cgroups::discover(&paths.run_dir, paths.cgroup_parent.as_deref())?
        .collect(|build| ids.contains(&build))?;
    let directory = paths.run_dir.clone();
    let collected = tokio::task::spawn_blocking(move || Network::collect(&directory, &plugin_directories()));
    Ok(join(collected.await)??)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_marker_is_alive_while_it_is_held_and_collected_once() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(root.path()), Path::new("/run/x.sock"), "k8s.io", "overlayfs");
        assert_eq!(announced(&state).unwrap(), Vec::<String>::new());
        let held = Marker::announce(&state, "a").unwrap();
        assert_eq!(announced(&state).unwrap(), ["a"]);
        assert!(Marker::of_dead(marker(&state, "a")).unwrap().is_none());
        drop(held);
        let dead = Marker::of_dead(marker(&state, "a")).unwrap().unwrap();
        assert!(Marker::of_dead(marker(&state, "a")).unwrap().is_none(), "another collector keeps away");
        assert!(!dead.was_seen().unwrap());
        dead.note_seen().unwrap();
        drop(dead);
        let dead = Marker::of_dead(marker(&state, "a")).unwrap().unwrap();
        assert!(dead.was_seen().unwrap());
        dead.retract().unwrap();
        dead.retract().unwrap();
        assert!(Marker::of_dead(marker(&state, "a")).unwrap().is_none());
        assert_eq!(announced(&state).unwrap(), Vec::<String>::new());
    }
}
