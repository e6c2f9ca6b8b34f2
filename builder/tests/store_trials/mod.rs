// SPDX-License-Identifier: Apache-2.0
//! What is tried on each containerd.

mod content;
mod cri;
mod latency;
mod pins;
mod snapshots;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::anyhow;
use pushless::image::{ChainId, Descriptor, DiffId, Digest};
use pushless::store::{GcOutcome, Labels, Store, labels};

pub(crate) type Outcome = anyhow::Result<()>;
pub(crate) type Run = fn(Bench) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

macro_rules! trial {
    ($module:ident::$body:ident) => {
        trial!($module::$body, false)
    };
    ($module:ident::$body:ident, on request) => {
        trial!($module::$body, true)
    };
    ($module:ident::$body:ident, $on_request:literal) => {
        (
            concat!(stringify!($module), "/", stringify!($body)),
            |bench| Box::pin($module::$body(bench)),
            $on_request,
        )
    };
}

/// Name, body, and whether it runs on request only (`--ignored`).
pub(crate) const TRIALS: &[(&str, Run, bool)] = &[
    trial!(content::a_blob_is_written_in_one_call_and_labelled_when_it_exists),
    trial!(content::a_stream_becomes_a_blob_when_it_is_committed),
    trial!(content::a_dropped_or_wrong_stream_leaves_no_ingest),
    trial!(content::two_writers_of_one_blob_do_not_disturb_each_other),
    trial!(content::a_lease_holds_what_is_made_under_it),
    trial!(content::a_namespace_needs_no_preparation),
    trial!(snapshots::the_directories_are_those_of_overlayfs),
    trial!(snapshots::labels_given_to_prepare_are_dropped_at_commit),
    trial!(snapshots::an_active_snapshot_lives_by_its_label),
    trial!(snapshots::two_commits_of_one_chain_id_are_both_right),
    trial!(snapshots::a_commit_onto_a_taken_chain_id_leases_it_only_in_2),
    trial!(snapshots::layers_in_the_content_store_are_unpacked),
    trial!(pins::a_root_keeps_its_parents),
    trial!(pins::a_blob_may_come_after_the_label_that_keeps_it),
    trial!(pins::a_label_removed_by_field_path_lets_everything_go),
    trial!(pins::a_collection_goes_on_without_the_caller),
    trial!(cri::the_snapshotter_is_told),
    trial!(cri::a_managed_image_has_one_record_and_its_configs_digest_as_id),
    trial!(cri::an_unmanaged_image_gets_a_second_record),
    trial!(cri::remove_image_takes_no_cached_layer),
    trial!(cri::an_update_keeps_foreign_labels),
    trial!(cri::a_moved_name_becomes_visible),
    trial!(cri::a_wrong_id_is_reported_with_both),
    trial!(cri::looking_writes_nothing),
    trial!(latency::of_the_main_calls, on request),
];

/// A connection into a namespace of the trial's own.
pub(crate) struct Bench {
    pub(crate) socket: PathBuf,
    pub(crate) store: Store,
    /// Whether this is a containerd 2.x.
    pub(crate) second: bool,
}

impl Bench {
    pub(crate) fn new(socket: PathBuf, second: bool, trial: &str) -> anyhow::Result<Self> {
        let namespace = if trial.starts_with("cri/") || trial.starts_with("latency/") {
            "k8s.io".to_owned()
        } else {
            Digest::of(trial.as_bytes()).short()
        };
        let store = Store::connect(&socket, &namespace)?;
        Ok(Self { socket, store, second })
    }

    /// A second connection, as another process would have.
    pub(crate) fn other(&self) -> anyhow::Result<Store> {
        Ok(Store::connect(&self.socket, self.store.namespace())?)
    }

    pub(crate) async fn collect(&self) -> Outcome {
        equal(self.store.request_gc(Duration::from_secs(30)).await?, GcOutcome::Finished, "a collection")
    }

    /// Commits an empty snapshot under a chain id and returns that.
    pub(crate) async fn committed(
        &self,
        name: &str,
        parent: Option<ChainId>,
        given: &Labels,
    ) -> anyhow::Result<ChainId> {
        let chain = ChainId::extend(parent, diff_id(name));
        let key = format!("active-{name}");
        self.store.prepare(&key, parent, &Labels::new()).await?;
        self.store.commit(chain, &key, given).await?;
        Ok(chain)
    }

    pub(crate) async fn has_snapshot(&self, name: &str) -> anyhow::Result<bool> {
        Ok(self.store.snapshot(name).await?.is_some())
    }

    pub(crate) async fn has_blob(&self, digest: Digest) -> anyhow::Result<bool> {
        Ok(self.store.content_info(digest).await?.is_some())
    }
}

pub(crate) fn diff_id(name: &str) -> DiffId {
    DiffId(Digest::of(name.as_bytes()))
}

pub(crate) fn labelled<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

pub(crate) fn rooted(more: impl IntoIterator<Item = (String, String)>) -> Labels {
    more.into_iter().chain([labels::gc_root()]).collect()
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
}

#[expect(clippy::needless_pass_by_value, reason = "the callers compare temporaries")]
pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(found: T, wanted: T, what: &str) -> Outcome {
    if found == wanted { Ok(()) } else { Err(anyhow!("{what}: found {found:?}, wanted {wanted:?}")) }
}
