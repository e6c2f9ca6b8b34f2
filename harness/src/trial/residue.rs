// SPDX-License-Identifier: Apache-2.0
//! What a trial leaves behind: everything that was not there before it, except what the adapter declares as cache.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use shakedown_node::{Inventory, Residue, ResidueKind};
use shakedown_report::Finding;

use super::builder::ReadyBuilder;
use super::judgement::{Interruption, RESIDUE};
use super::node_side::NodeSide;

/// Cgroups that builders make outside of the node's own.
const CGROUPS: [&str; 1] = ["/pushless"];

/// How long containerd's garbage collection and ending processes may take before what is left counts.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// What is there now.
pub(super) async fn survey(node: NodeSide<'_>) -> Result<Inventory, Interruption> {
    node.inventory(&CGROUPS).await
}

/// What is there and was not there before. Waits a little for what goes by itself.
pub(super) async fn since(
    before: &Inventory,
    node: NodeSide<'_>,
    builder: &ReadyBuilder,
) -> Result<Vec<Finding>, Interruption> {
    let limit = Instant::now() + SETTLE_LIMIT;
    let claims_store = !builder.adapter().cache.containerd_label_prefixes.is_empty();
    loop {
        let added = before.diff(&survey(node).await?).added;
        let left: Vec<_> = added.into_iter().filter(|one| counts(one, claims_store)).collect();
        if left.is_empty() || Instant::now() > limit {
            return Ok(left.iter().map(finding).collect());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether something counts as residue. An adapter that claims objects of containerd as its cache may leave snapshots and
/// blobs, but nothing that is being worked on, and no image record.
fn counts(residue: &Residue, claims_store: bool) -> bool {
    match residue.kind {
        ResidueKind::Process
        | ResidueKind::Mount
        | ResidueKind::ActiveSnapshot
        | ResidueKind::Lease
        | ResidueKind::Image
        | ResidueKind::Ingest => true,
        ResidueKind::Cgroup => !is_foreign(Path::new(&residue.name)),
        ResidueKind::CommittedSnapshot | ResidueKind::Blob => !claims_store,
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
    fn only_snapshots_and_blobs_can_be_claimed_as_cache() {
        use ResidueKind::{ActiveSnapshot, Blob, CommittedSnapshot, Image, Ingest, Lease, Mount, Process};
        for kind in [Process, Mount, ActiveSnapshot, Lease, Image, Ingest, CommittedSnapshot, Blob] {
            let residue = Residue { kind, name: "x".to_owned() };
            assert!(counts(&residue, false), "{residue}");
            let claimable = matches!(kind, CommittedSnapshot | Blob);
            assert_eq!(counts(&residue, true), !claimable, "{residue}");
        }
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
