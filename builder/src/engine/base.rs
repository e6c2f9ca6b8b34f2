// SPDX-License-Identifier: Apache-2.0
//! What a stage starts from when it starts from an image: found in containerd, else pulled through CRI, and pinned.
//!
//! A base that was used once stays usable offline: its snapshot is pinned with references to manifest, config and
//! layers, and remembers under which names it was used, so that it is found even after the kubelet's image collection
//! has removed the image record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, OnceCell};

use super::error::BuildError;
use super::session::Session;
use crate::diagnostic::Location;
use crate::image::{
    ChainId, Descriptor, DiffId, Digest, Document, ImageConfig, ImageReference, Index, Manifest,
    ManifestOrIndex, Platform,
};
use crate::store::{Labels, labels};

/// Manifests and configs are documents of a few kilobytes; what is larger is not one.
const DOCUMENT_LIMIT_BYTES: u64 = 8 << 20;

/// A layer as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageLayer {
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: DiffId,
}

/// An image to build on, ready in the snapshotter.
#[derive(Debug)]
pub(crate) struct BaseImage {
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<ImageLayer>,
    pub(crate) chain: Option<ChainId>,
}

/// The bases of one build, each resolved once however many stages use it.
#[derive(Debug, Default)]
pub(crate) struct Bases {
    cells: Mutex<BTreeMap<ImageReference, Arc<OnceCell<Arc<BaseImage>>>>>,
}

impl Bases {
    /// The base called `reference`; `location` is the word of the Dockerfile that names it.
    pub(crate) async fn get(
        &self,
        session: &Session,
        reference: &ImageReference,
        location: &Location,
    ) -> Result<Arc<BaseImage>, BuildError> {
        let cell = self.cells.lock().await.entry(reference.clone()).or_default().clone();
        let base =
            cell.get_or_try_init(|| async { resolve(session, reference, location).await.map(Arc::new) });
        base.await.cloned()
    }
}

/// Finds the image, else pulls it. What was found but turns out to be gone in part (collected meanwhile, or removed by
/// hand) is pulled, too.
async fn resolve(
    session: &Session,
    reference: &ImageReference,
    location: &Location,
) -> Result<BaseImage, BuildError> {
    let platform = Platform::of_this_node();
    let state = match local(session, reference, &platform, location).await? {
        Local::Usable(manifest) => match take(session, reference, *manifest, &platform, location).await {
            Err(BuildError::Store(error)) if error.is_not_found() => {
                "is in containerd without all of its content".to_owned()
            }
            done => return done,
        },
        Local::Lacking(state) => state,
    };
    if let Some(target) = remembered(session, reference).await? {
        let taken = async {
            let manifest = read_manifest(session, reference, target, &platform, location).await?;
            take(session, reference, manifest, &platform, location).await
        };
        match taken.await {
            Err(BuildError::Store(error)) if error.is_not_found() => {}
            done => return done,
        }
    }
    let target = pull(session, reference, &state, location).await?;
    let manifest = read_manifest(session, reference, target, &platform, location).await?;
    take(session, reference, manifest, &platform, location).await
}

/// The image of `manifest`, unpacked and pinned.
async fn take(
    session: &Session,
    reference: &ImageReference,
    manifest: Document<Manifest>,
    platform: &Platform,
    location: &Location,
) -> Result<BaseImage, BuildError> {
    let config = read(session, manifest.value().config.digest).await?;
    let config = Document::<ImageConfig>::parse(config).map_err(|source| BuildError::BaseImage {
        reference: reference.clone(),
        location: Box::new(location.clone()),
        source,
    })?;
    let found = config.value().platform();
    if !found.architecture.is_empty() && platform.rank(&found).is_none() {
        // As in BuildKit, where a single manifest of another platform is a warning: its files may be all that is wanted.
        session
            .events
            .notice(format!("{reference} is for {found}, not for {platform}: its programs may not run"));
    }
    let diff_ids = config.value().rootfs.diff_ids.clone();
    let descriptors = &manifest.value().layers;
    if descriptors.len() != diff_ids.len() {
        return Err(BuildError::BaseLayers {
            reference: reference.clone(),
            location: Box::new(location.clone()),
            descriptors: descriptors.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let layers: Vec<ImageLayer> = descriptors
        .iter()
        .zip(diff_ids)
        .map(|(descriptor, diff_id)| ImageLayer { descriptor: descriptor.clone(), diff_id })
        .collect();
    let chain = pin(session, reference, manifest.digest(), manifest.value().config.digest, &layers).await?;
    Ok(BaseImage { config: config.value().clone(), layers, chain })
}

/// What containerd has under a name.
enum Local {
    Usable(Box<Document<Manifest>>),
    /// Nothing for this node; the text goes on after the image's name.
    Lacking(String),
}

async fn local(
    session: &Session,
    reference: &ImageReference,
    platform: &Platform,
    location: &Location,
) -> Result<Local, BuildError> {
    let Some(target) = find_local(session, reference).await? else {
        return Ok(Local::Lacking("is not in containerd".to_owned()));
    };
    let read = read_manifest(session, reference, target, platform, location).await;
    // A pull for another platform leaves records without content for this one; so does containerd 2.4 when it refuses
    // a pull for want of this platform. The registry may have it, perhaps by now.
    match read {
        Err(BuildError::BasePlatform { offered, .. }) if session.cri.is_some() && !offered.is_empty() => {
            Ok(Local::Lacking(format!("is in containerd for {}, not for {platform}", offered.join(", "))))
        }
        Err(BuildError::Store(error)) if error.is_not_found() && session.cri.is_some() => {
            Ok(Local::Lacking(format!("is in containerd without its manifest for {platform}")))
        }
        read => read.map(|manifest| Local::Usable(Box::new(manifest))),
    }
}

/// The record under the full name, or under the very text that an importing tool may have stored without normalising.
async fn find_local(session: &Session, reference: &ImageReference) -> Result<Option<Descriptor>, BuildError> {
    let mut names = vec![reference.to_string()];
    for other in [reference.familiar(), reference.familiar().trim_end_matches(":latest").to_owned()] {
        if !names.contains(&other) {
            names.push(other);
        }
    }
    for name in &names {
        if let Some(record) = session.store.image(name).await? {
            return Ok(Some(record.target));
        }
    }
    let Some(digest) = reference.digest() else { return Ok(None) };
    // A pinned name is met by any record of the same repository that leads to the digest.
    let records = session.store.images(&[&format!("target.digest=={digest}")]).await?;
    let same_repository = |name: &str| {
        name.parse::<ImageReference>()
            .is_ok_and(|name| name.host() == reference.host() && name.path() == reference.path())
    };
    Ok(records.into_iter().find(|record| same_repository(&record.name)).map(|record| record.target))
}

/// What this name led to the last time, if that is still pinned.
async fn remembered(session: &Session, reference: &ImageReference) -> Result<Option<Descriptor>, BuildError> {
    let label = base_label(reference);
    let snapshots = session.store.snapshots(&[&format!("labels.\"{label}\"")]).await?;
    let newest = snapshots
        .iter()
        .filter_map(|snapshot| {
            let (digest, used_s) = snapshot.labels.get(&label)?.split_once(' ')?;
            Some((used_s.parse::<u64>().ok()?, digest.parse::<Digest>().ok()?))
        })
        .max_by_key(|(used_s, _)| *used_s);
    let Some((_, digest)) = newest else { return Ok(None) };
    let info = session.store.content_info(digest).await?;
    Ok(info.map(|info| Descriptor::new(crate::image::media_type::MANIFEST, digest, info.size_bytes)))
}

async fn pull(
    session: &Session,
    reference: &ImageReference,
    state: &str,
    location: &Location,
) -> Result<Descriptor, BuildError> {
    let location = || Box::new(location.clone());
    let Some(cri) = &session.cri else {
        return Err(BuildError::BaseAbsent {
            reference: reference.clone(),
            location: location(),
            namespace: session.store.namespace().to_owned(),
        });
    };
    session.events.notice(format!("{reference} {state}; pulling it through CRI"));
    let pulled = session.cancel.unless_raised(cri.pull(reference)).await.ok_or(BuildError::Cancelled)?;
    pulled.map_err(|source| BuildError::Pull {
        reference: reference.clone(),
        location: location(),
        source,
    })?;
    find_local(session, reference).await?.ok_or_else(|| BuildError::BaseAbsent {
        reference: reference.clone(),
        location: location(),
        namespace: session.store.namespace().to_owned(),
    })
}

async fn read_manifest(
    session: &Session,
    reference: &ImageReference,
    target: Descriptor,
    platform: &Platform,
    location: &Location,
) -> Result<Document<Manifest>, BuildError> {
    let wrong = |source| BuildError::BaseImage {
        reference: reference.clone(),
        location: Box::new(location.clone()),
        source,
    };
    let mut target = target;
    // An index may hold an index, but hardly one in one in one.
    for _ in 0..3 {
        let raw = read(session, target.digest).await?;
        match ManifestOrIndex::parse(raw, &target.media_type).map_err(wrong)? {
            ManifestOrIndex::Manifest(manifest) => return Ok(*manifest),
            ManifestOrIndex::Index(index) => target = choose(&index, platform, reference, location)?,
        }
    }
    Err(BuildError::BaseNesting { reference: reference.clone(), location: Box::new(location.clone()) })
}

fn choose(
    index: &Document<Index>,
    platform: &Platform,
    reference: &ImageReference,
    location: &Location,
) -> Result<Descriptor, BuildError> {
    index.value().choose(platform).cloned().ok_or_else(|| BuildError::BasePlatform {
        reference: reference.clone(),
        location: Box::new(location.clone()),
        platform: platform.to_string(),
        offered: index
            .value()
            .manifests
            .iter()
            .filter_map(|manifest| manifest.platform.as_ref())
            .map(ToString::to_string)
            .collect(),
    })
}

async fn read(session: &Session, digest: Digest) -> Result<Vec<u8>, BuildError> {
    Ok(session.store.read_content(digest, DOCUMENT_LIMIT_BYTES).await?)
}

/// Makes sure that the base is unpacked and stays: writes nothing when that was so before.
async fn pin(
    session: &Session,
    reference: &ImageReference,
    manifest: Digest,
    config: Digest,
    layers: &[ImageLayer],
) -> Result<Option<ChainId>, BuildError> {
    let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
    let Some(chain) = ChainId::stack(&diff_ids).last().copied() else { return Ok(None) };
    let name_label = base_label(reference);
    let present = session.store.snapshot(&chain.to_string()).await?;
    if let Some(snapshot) = &present
        && snapshot.labels.contains_key(labels::GC_ROOT)
        && snapshot.labels.get(&name_label).is_some_and(|value| value.starts_with(&manifest.to_string()))
    {
        return Ok(Some(chain));
    }
    let used_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Images that differ in nothing but their configs share this snapshot: each has references of its own.
    let own = &manifest.hex()[..16];
    let mut pins = Labels::from([
        labels::gc_root(),
        labels::content_reference(&format!("base.{own}.manifest"), manifest),
        labels::content_reference(&format!("base.{own}.config"), config),
        (name_label, format!("{manifest} {used_s}")),
    ]);
    for (number, layer) in layers.iter().enumerate() {
        pins.extend([labels::content_reference(&format!("base.{own}.l{number}"), layer.descriptor.digest)]);
    }
    if present.is_none() {
        session.events.notice(format!("unpacking {reference}"));
    }
    // Writes nothing but the labels when everything is there, also when that changes meanwhile.
    let layers: Vec<_> = layers.iter().map(|layer| (layer.descriptor.clone(), layer.diff_id)).collect();
    session.store.unpack(&layers, &pins).await?;
    // Until the labels were set nothing but the image record held the two, and a kubelet may have removed it since it
    // was read. From here on they stay, if they are there.
    for digest in [manifest, config] {
        read(session, digest).await?;
    }
    Ok(Some(chain))
}

/// A label key must not grow with the name, so it carries a hash of it.
fn base_label(reference: &ImageReference) -> String {
    format!("{}{}", labels::BASE_PREFIX, &blake3::hash(reference.to_string().as_bytes()).to_hex()[..16])
}
