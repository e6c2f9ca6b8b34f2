// SPDX-License-Identifier: Apache-2.0
//! Between containerd's messages and this builder's types.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::snapshots::{Info as WireSnapshot, Kind};
use containerd_client::services::v1::{Image, Info as WireContent, Status as WireIngest};
use containerd_client::types;
use prost_types::{FieldMask, Timestamp};

use super::content::ContentInfo;
use super::images::ImageRecord;
use super::ingest::Ingest;
use super::labels::Labels;
use super::mounts::MountEntry;
use super::snapshots::{SnapshotInfo, SnapshotKind};
use crate::image::{Descriptor, Digest};

/// What is malformed in a message; becomes [`super::StoreError::Answer`].
pub(super) type Malformed = String;

pub(super) fn to_wire_labels(labels: &Labels) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The field paths that touch exactly these labels. containerd cuts off `labels.` and takes the rest as the key, dots
/// included.
pub(super) fn label_mask<'a>(keys: impl IntoIterator<Item = &'a str>) -> FieldMask {
    FieldMask { paths: keys.into_iter().map(|key| format!("labels.{key}")).collect() }
}

/// containerd writes Go's zero time (year 1) for a moment that it does not know.
pub(super) fn to_system_time(timestamp: Option<Timestamp>) -> Option<SystemTime> {
    let timestamp = timestamp?;
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let nanos = u32::try_from(timestamp.nanos).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

fn to_digest(text: &str) -> Result<Digest, Malformed> {
    text.parse().map_err(|error| format!("{error}"))
}

fn to_size(size: i64) -> Result<u64, Malformed> {
    u64::try_from(size).map_err(|_| format!("a size of {size} bytes"))
}

pub(super) fn to_wire_descriptor(descriptor: &Descriptor) -> Result<types::Descriptor, Malformed> {
    let size = i64::try_from(descriptor.size_bytes)
        .map_err(|_| format!("a size of {} bytes", descriptor.size_bytes))?;
    Ok(types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size,
        annotations: HashMap::new(),
    })
}

pub(super) fn to_image(image: Image) -> Result<ImageRecord, Malformed> {
    let target = image.target.ok_or_else(|| "the image has no target".to_owned())?;
    Ok(ImageRecord {
        name: image.name,
        target: Descriptor::new(&target.media_type, to_digest(&target.digest)?, to_size(target.size)?),
        labels: image.labels.into_iter().collect(),
        updated_at: to_system_time(image.updated_at),
    })
}

pub(super) fn to_content(info: WireContent) -> Result<ContentInfo, Malformed> {
    Ok(ContentInfo {
        digest: to_digest(&info.digest)?,
        size_bytes: to_size(info.size)?,
        labels: info.labels.into_iter().collect(),
        created_at: to_system_time(info.created_at),
    })
}

pub(super) fn to_ingest(status: WireIngest) -> Result<Ingest, Malformed> {
    Ok(Ingest {
        reference: status.r#ref,
        written_bytes: to_size(status.offset)?,
        started_at: to_system_time(status.started_at),
        updated_at: to_system_time(status.updated_at),
    })
}

pub(super) fn to_snapshot(info: WireSnapshot) -> Result<SnapshotInfo, Malformed> {
    let kind = match info.kind() {
        Kind::Active => SnapshotKind::Active,
        Kind::View => SnapshotKind::View,
        Kind::Committed => SnapshotKind::Committed,
        Kind::Unknown => return Err(format!("snapshot kind {}", info.kind)),
    };
    Ok(SnapshotInfo {
        name: info.name,
        parent: Some(info.parent).filter(|parent| !parent.is_empty()),
        kind,
        labels: info.labels.into_iter().collect(),
        created_at: to_system_time(info.created_at),
    })
}

pub(super) fn to_mounts(mounts: Vec<types::Mount>) -> Vec<MountEntry> {
    mounts
        .into_iter()
        .map(|mount| MountEntry {
            kind: mount.r#type,
            source: mount.source,
            target: mount.target,
            options: mount.options,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_dots_stays_one_field_path() {
        assert_eq!(label_mask(["a.b/c.d"]).paths, ["labels.a.b/c.d"]);
    }

    #[test]
    fn the_zero_time_is_no_time() {
        let zero = Timestamp { seconds: -62_135_596_800, nanos: 0 };
        assert_eq!(to_system_time(Some(zero)), None);
        let one = Timestamp { seconds: 1, nanos: 5 };
        assert_eq!(to_system_time(Some(one)), Some(SystemTime::UNIX_EPOCH + Duration::new(1, 5)));
    }

    #[test]
    fn a_malformed_digest_or_size_is_said() {
        let info = WireContent { digest: "sha256:0".to_owned(), ..WireContent::default() };
        assert!(to_content(info).unwrap_err().starts_with("parse digest"));
        let info = WireContent { digest: Digest::of(b"").to_string(), size: -1, ..WireContent::default() };
        assert_eq!(to_content(info).unwrap_err(), "a size of -1 bytes");
    }
}
