// SPDX-License-Identifier: Apache-2.0
//! What a trial leaves behind: everything that was not there before it, except what the adapter declares as cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shakedown_node::{Inventory, Residue, ResidueKind};
use shakedown_report::Finding;

use super::builder::ReadyBuilder;
use super::judgement::{Interruption, RESIDUE};
use super::node_side::NodeSide;
use crate::adapter::plan_cache_paths;

/// Cgroups that builders make outside of the node's own.
const CGROUPS: [&str; 1] = ["/pushless"];

/// How long containerd's garbage collection and ending processes may take before what is left counts.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// What is there now.
pub(super) async fn survey(node: &NodeSide<'_>) -> Result<Inventory, Interruption> {
    node.inventory(&CGROUPS).await
}

/// What is there and was not there before. Waits a little for what goes by itself.
pub(super) async fn since(
    before: &Inventory,
    node: &NodeSide<'_>,
    builder: &ReadyBuilder,
) -> Result<Vec<Finding>, Interruption> {
    let limit = Instant::now() + SETTLE_LIMIT;
    let claim = Claim {
        paths: plan_cache_paths(builder.adapter(), builder.surroundings())
            .map_err(|error| Interruption::harness(&error))?,
        store: !builder.adapter().cache.containerd_label_prefixes.is_empty(),
    };
    loop {
        let added = before.diff(&survey(node).await?).added;
        let left: Vec<_> = added.into_iter().filter(|one| !claim.leaves_out(one)).collect();
        if left.is_empty() || Instant::now() > limit {
            return Ok(left.iter().map(finding).collect());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What an adapter declares as cache.
struct Claim {
    /// Folders; those of cgroups start at the root of each hierarchy.
    paths: Vec<PathBuf>,
    /// It keeps objects in containerd.
    store: bool,
}

impl Claim {
    /// Whether something is no residue. Who claims objects of containerd may leave snapshots and blobs, but nothing that
    /// is being worked on, and no image record; who claims a cgroup may leave it empty, but nothing below it.
    fn leaves_out(&self, residue: &Residue) -> bool {
        match residue.kind {
            ResidueKind::Process
            | ResidueKind::Mount
            | ResidueKind::ActiveSnapshot
            | ResidueKind::Lease
            | ResidueKind::Image
            | ResidueKind::Ingest => false,
            ResidueKind::Cgroup => {
                let folder = Path::new(&residue.name);
                let claimed =
                    |path: &PathBuf| path.strip_prefix("/").is_ok_and(|path| folder.ends_with(path));
                self.paths.iter().any(claimed) || is_foreign(folder)
            }
            ResidueKind::CommittedSnapshot | ResidueKind::Blob => self.store,
        }
    }
}

/// Whether a cgroup holds processes of another pid namespace, which show as 0 here (cgroups(7)): somebody else's build.
fn is_foreign(folder: &Path) -> bool {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let below = || fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    own.lines().any(|pid| pid == "0") || below().filter(|path| path.is_dir()).any(|path| is_foreign(&path))
}

fn finding(residue: &Residue) -> Finding {
    let kind = match residue.kind {
        ResidueKind::Process => "process",
        ResidueKind::Mount => "mount",
        ResidueKind::Cgroup => "cgroup",
        ResidueKind::ActiveSnapshot => "active_snapshot",
        ResidueKind::CommittedSnapshot => "snapshot",
        ResidueKind::Lease => "lease",
        ResidueKind::Image => "image",
        ResidueKind::Ingest => "ingest",
        ResidueKind::Blob => "blob",
    };
    Finding {
        assertion: format!("{RESIDUE}{kind}"),
        path: Some(residue.name.clone()),
        build: None,
        expected: "nothing after the trial that was not there before".to_owned(),
        found: residue.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_containerd_only_snapshots_and_blobs_can_be_claimed() {
        use ResidueKind::{ActiveSnapshot, Blob, CommittedSnapshot, Image, Ingest, Lease, Mount, Process};
        for kind in [Process, Mount, ActiveSnapshot, Lease, Image, Ingest, CommittedSnapshot, Blob] {
            let residue = Residue { kind, name: "x".to_owned() };
            assert!(!Claim { paths: Vec::new(), store: false }.leaves_out(&residue), "{residue}");
            let claimable = matches!(kind, CommittedSnapshot | Blob);
            assert_eq!(Claim { paths: Vec::new(), store: true }.leaves_out(&residue), claimable, "{residue}");
        }
    }

    #[test]
    fn a_claimed_cgroup_may_stay_and_nothing_below_it() {
        let claim = Claim { paths: vec!["/run-1/buildkit".into()], store: false };
        let leaves_out =
            |name: &str| claim.leaves_out(&Residue { kind: ResidueKind::Cgroup, name: name.to_owned() });
        assert!(leaves_out("/sys/fs/cgroup/cpu/run-1/buildkit"));
        assert!(!leaves_out("/sys/fs/cgroup/cpu/run-1/buildkit/step"));
        assert!(!leaves_out("/sys/fs/cgroup/cpu/run-1"));
    }

    #[test]
    fn a_cgroup_with_processes_of_others_is_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("build/step");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("cgroup.procs"), "").unwrap();
        assert!(!is_foreign(folder.path()));
        fs::write(below.join("cgroup.procs"), "0\n").unwrap();
        assert!(is_foreign(folder.path()));
        fs::write(below.join("cgroup.procs"), "17\n").unwrap();
        assert!(!is_foreign(folder.path()));
    }
}
