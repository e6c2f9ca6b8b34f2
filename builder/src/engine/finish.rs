// SPDX-License-Identifier: Apache-2.0
//! The end of a build: config, manifest, image name, and the proof that CRI shows it.

use std::time::{Duration, Instant};

use super::base::ImageLayer;
use super::error::BuildError;
use super::stage::{Build, StageImage, StageRun};
use crate::image::{
    ChainId, Descriptor, Digest, Document, ImageConfig, ImageReference, Manifest, media_type,
};
use crate::store::{Cri, ErrorKind, Labels, labels};

/// How long CRI may take to follow an image's new id. Its answer usually comes within milliseconds.
const VISIBLE_LIMIT: Duration = Duration::from_secs(10);
/// After this time it is looked whether the name still leads to the image.
const VISIBLE_LOOK: Duration = Duration::from_millis(250);
/// The lease of an image without any layer, should the process die.
const LEASE_LIMIT: Duration = Duration::from_secs(600);

/// A finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltImage {
    /// The digest of the config: what CRI calls the image id.
    pub image_id: Digest,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// Whether CRI was asked and showed this very id.
    pub visible: bool,
}

/// The two documents of an image.
struct Documents {
    config: Document<ImageConfig>,
    manifest: Document<Manifest>,
}

impl Documents {
    fn of(image: &StageImage) -> Self {
        let config = Document::write(image.config.clone());
        let layers = image.layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let manifest = Document::write(Manifest::oci(Descriptor::of(media_type::CONFIG, &config), layers));
        Self { config, manifest }
    }
}

/// Gives the stage's image its name, unless the name leads to this very image already.
pub(crate) async fn finish(run: &mut StageRun<'_>) -> Result<BuiltImage, BuildError> {
    let build = run.build;
    let name = &build.session.request.name;
    let documents = Documents::of(&run.image);
    let built = |visible| BuiltImage {
        image_id: documents.config.digest(),
        manifest: documents.manifest.digest(),
        visible,
    };
    let target = Descriptor::of(media_type::MANIFEST, &documents.manifest);
    let record = build.session.store.image(&name.to_string()).await?;
    let unchanged = run.pending.is_none()
        && record.is_some_and(|record| {
            record.target.digest == target.digest
                && record.labels.get(labels::CRI_IMAGE).map(String::as_str) == Some(labels::CRI_MANAGED)
                && !record.labels.contains_key(labels::GC_EXPIRE)
        });
    if unchanged {
        // The record holds its blobs, so what is left to prove is the snapshot that pods start from.
        check_top(build, &run.image).await?;
    } else {
        build.session.check_cancelled()?;
        let lent_to = write(run, &documents).await?;
        build.session.store.set_image(name, &target, &image_labels()).await?;
        if let Some(chain) = lent_to {
            let holders = holders(&documents);
            let holders: Vec<&str> = holders.keys().map(String::as_str).collect();
            build.session.store.update_snapshot_labels(&chain.to_string(), &Labels::new(), &holders).await?;
        }
    }
    let visible = match &build.session.cri {
        Some(cri) => {
            let shown = wait_visible(build, cri, name, &documents);
            build.session.unless_cancelled(shown).await?
        }
        None => false,
    };
    Ok(built(visible))
}

/// Waits until CRI shows the image; `false` when another build has given its name away meanwhile, which is no failure
/// of either: the later one has the name.
async fn wait_visible(
    build: &Build,
    cri: &Cri,
    name: &ImageReference,
    documents: &Documents,
) -> Result<bool, BuildError> {
    let deadline = Instant::now() + VISIBLE_LIMIT;
    loop {
        let limit = VISIBLE_LOOK.min(deadline.saturating_duration_since(Instant::now()));
        let hidden = match cri.wait_visible(name, documents.config.digest(), limit).await {
            Err(error) if error.kind() == ErrorKind::NotVisible => error,
            other => return Ok(other.map(|()| true)?),
        };
        let record = build.session.store.image(&name.to_string()).await?;
        if record.is_some_and(|record| record.target.digest != documents.manifest.digest()) {
            build.session.events.notice(format!("{name} was given to another image meanwhile"));
            return Ok(false);
        }
        if Instant::now() >= deadline {
            return Err(hidden.into());
        }
    }
}

/// Writes what is missing. The top snapshot is labelled with references to both documents before they are written, so
/// they are never without a holder.
///
/// Returns the snapshot if it was there before: it holds the documents only until the image has its name, else it would
/// collect references of all images that end in it for as long as it lives.
async fn write(run: &mut StageRun<'_>, documents: &Documents) -> Result<Option<ChainId>, BuildError> {
    let build = run.build;
    let store = &build.session.store;
    check_hits(build, &run.image).await?;
    let holders = holders(documents);
    let layer = run.commit_snapshot(holders.clone()).await?;
    let lent_to = match (&layer, run.image.chain) {
        (Some(layer), _) if layer.is_new() => None,
        (_, chain) => chain,
    };
    let lease = match (&layer, run.image.chain) {
        (Some(_), _) => None,
        (None, Some(chain)) => {
            let held = store.update_snapshot_labels(&chain.to_string(), &holders, &[]).await;
            held.map_err(|error| build.session.or_stale(BuildError::Store(error)))?;
            None
        }
        (None, None) => {
            // Nothing below could hold the documents of an image without layers.
            let lease = format!("pushless-{}", build.session.build_id().await?);
            store.create_lease(&lease, &Labels::new(), Some(LEASE_LIMIT)).await?;
            Some(lease)
        }
    };
    let writer = match &lease {
        Some(lease) => store.under_lease(lease)?,
        None => store.clone(),
    };
    let config_labels: Labels = run
        .image
        .chain
        .map(|chain| (labels::GC_REF_SNAPSHOT.to_owned(), chain.to_string()))
        .into_iter()
        .collect();
    let manifest_labels = manifest_references(documents, &run.image.layers);
    let layer = async {
        match layer {
            Some(layer) => layer.store(&build.session).await,
            None => Ok(()),
        }
    };
    let config = async {
        let config = &documents.config;
        writer.write_blob(config.digest(), config.raw(), &config_labels).await.map_err(BuildError::from)
    };
    let manifest = async {
        let manifest = &documents.manifest;
        writer.write_blob(manifest.digest(), manifest.raw(), &manifest_labels).await.map_err(BuildError::from)
    };
    let written = tokio::try_join!(layer, config, manifest);
    let Some(lease) = lease else { return written.map(|_| lent_to) };
    // The name is set before the lease goes, for the lease is all that holds the documents. It goes in any case.
    let named = match written {
        Ok(_) => {
            let target = Descriptor::of(media_type::MANIFEST, &documents.manifest);
            store.set_image(&build.session.request.name, &target, &image_labels()).await.map_err(Into::into)
        }
        Err(error) => Err(error),
    };
    let released = store.delete_lease(&lease, false).await;
    named?;
    released?;
    Ok(None)
}

/// What an image record says of its builder, so that it can list its own.
fn image_labels() -> Labels {
    Labels::from([(labels::IMAGE.to_owned(), env!("CARGO_PKG_VERSION").to_owned())])
}

/// The labels by which the top snapshot holds manifest and config. Their keys are this image's own: two images on one
/// snapshot do not take each other's.
fn holders(documents: &Documents) -> Labels {
    let own = &documents.manifest.digest().hex()[..16];
    Labels::from([
        labels::content_reference(&format!("image.{own}.config"), documents.config.digest()),
        labels::content_reference(&format!("image.{own}.manifest"), documents.manifest.digest()),
    ])
}

fn manifest_references(documents: &Documents, layers: &[ImageLayer]) -> Labels {
    let mut references = Labels::from([labels::content_reference("config", documents.config.digest())]);
    for (number, layer) in layers.iter().enumerate() {
        references.extend([labels::content_reference(&format!("l.{number}"), layer.descriptor.digest)]);
    }
    references
}

/// The snapshot of an image that is there already; its parents exist as long as it does.
async fn check_top(build: &Build, image: &StageImage) -> Result<(), BuildError> {
    let Some(chain) = image.chain else { return Ok(()) };
    if build.session.store.snapshot(&chain.to_string()).await?.is_some() {
        return Ok(());
    }
    Err(build.session.stale())
}

/// Cached layers must still have their blobs, else the image would not be complete.
async fn check_hits(build: &Build, image: &StageImage) -> Result<(), BuildError> {
    let mut questions = tokio::task::JoinSet::new();
    for record in &image.hits {
        let (store, blob) = (build.session.store.clone(), record.diff_id.0);
        questions.spawn(async move { store.content_info(blob).await });
    }
    while let Some(answer) = questions.join_next().await {
        if super::layer_step::join(answer)??.is_none() {
            return Err(build.session.stale());
        }
    }
    Ok(())
}
