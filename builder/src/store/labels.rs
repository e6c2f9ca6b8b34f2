// SPDX-License-Identifier: Apache-2.0
//! Every label key that this builder reads or writes, and what containerd makes of it.
//!
//! Snapshots are the only pins: a committed snapshot carries [`GC_ROOT`] and names the blobs that belong to it by
//! [`content_reference`]; the blobs may be written afterwards. Labels given to Prepare belong to the active snapshot
//! alone and are dropped at Commit, so what shall last is given to Commit.

use std::collections::BTreeMap;

use crate::image::Digest;

/// Labels of one object, by key.
pub type Labels = BTreeMap<String, String>;

/// Largest sum of the bytes of a key and its value that containerd accepts (`labels.Validate`, 1.6 and 2.x).
pub const SIZE_LIMIT_BYTES: usize = 4096;

/// Makes a snapshot or blob a root of garbage collection: it stays, and so does what it refers to, a snapshot's
/// parents included. Any non-empty value counts; [`TRUE`] is what is written here.
pub const GC_ROOT: &str = "containerd.io/gc.root";
/// The value of [`GC_ROOT`].
pub const TRUE: &str = "true";
/// Moment (RFC 3339) after which a lease no longer holds anything.
pub const GC_EXPIRE: &str = "containerd.io/gc.expire";
/// Prefix of references to blobs; see [`content_reference`].
pub const GC_REF_CONTENT_PREFIX: &str = "containerd.io/gc.ref.content.";
/// On an image config: the chain id of the snapshot that the config's layers unpack to. Keeps the snapshot as long as
/// the config stays; the suffix is the snapshotter's name.
pub const GC_REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.overlayfs";

/// Marks an image record as one that CRI knows. Without it CRI adds a second record, `sha256:<config>`, which pins
/// the build for ever, and answers several times more slowly (1.6.20 and 2.4.2).
pub const CRI_IMAGE: &str = "io.cri-containerd.image";
/// The value of [`CRI_IMAGE`].
pub const CRI_MANAGED: &str = "managed";

/// On a chain-id snapshot: the diff id of its own layer.
pub const DIFF_ID: &str = "pushless.dev/diff-id";
/// On a chain-id snapshot: the size in bytes of its own layer's tar stream.
pub const SIZE: &str = "pushless.dev/size";
/// On a chain-id snapshot: the version of the tar writer that produced the layer's stream.
pub const TAR_VERSION: &str = "pushless.dev/tar-version";
/// On a chain-id snapshot: the kernel's boot id at the time of the commit; another boot has to check the files again.
pub const BOOT_ID: &str = "pushless.dev/boot-id";
/// On a chain-id snapshot: when it was committed (RFC 3339).
pub const CREATED: &str = "pushless.dev/created";
/// Prefix of the step keys that a chain-id snapshot answers; see [`step_key`].
pub const KEY_PREFIX: &str = "pushless.dev/key.";
/// On an active snapshot, given to Prepare: the build that works in it, so that a later build can collect it.
pub const BUILD: &str = "pushless.dev/build";
/// On an image record that this builder wrote: the builder's version.
pub const IMAGE: &str = "pushless.dev/built-by";
/// On the top snapshot of a base image: followed by a hash of the name that it was used under; the value is the
/// manifest's digest and the moment of use in seconds since the epoch.
pub const BASE_PREFIX: &str = "pushless.dev/base.";

/// Why a label cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// containerd refuses it.
    #[error("label {key}: key and value are {size_bytes} bytes, the limit is {SIZE_LIMIT_BYTES}")]
    TooLong {
        /// The label's key.
        key: String,
        /// Bytes of key and value together.
        size_bytes: usize,
    },
    /// containerd takes an empty value for a removal, without an error.
    #[error("label {key}: the value is empty, which containerd takes for a removal")]
    Empty {
        /// The label's key.
        key: String,
    },
}

/// The label [`GC_ROOT`], ready to be put among others.
pub fn gc_root() -> (String, String) {
    (GC_ROOT.to_owned(), TRUE.to_owned())
}

/// A reference that keeps `blob` as long as the labelled object stays. `name` tells references of one object apart
/// (`layer`, `config`, `manifest`); containerd ignores it.
pub fn content_reference(name: &str, blob: Digest) -> (String, String) {
    (format!("{GC_REF_CONTENT_PREFIX}{name}"), blob.to_string())
}

/// The key of the label that says that a snapshot is the result of the step with this key.
pub fn step_key(hex: &str) -> String {
    format!("{KEY_PREFIX}{hex}")
}

/// Checks what containerd would refuse or silently drop.
///
/// # Errors
/// [`LabelError`] for the first label, by key, that cannot be stored.
pub fn check(labels: &Labels) -> Result<(), LabelError> {
    for (key, value) in labels {
        if value.is_empty() {
            return Err(LabelError::Empty { key: key.clone() });
        }
        let size_bytes = key.len() + value.len();
        if size_bytes > SIZE_LIMIT_BYTES {
            return Err(LabelError::TooLong { key: key.clone(), size_bytes });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Labels {
        Labels::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_limit_counts_key_and_value() {
        assert_eq!(check(&one("k", &"v".repeat(SIZE_LIMIT_BYTES - 1))), Ok(()));
        let error = check(&one("k", &"v".repeat(SIZE_LIMIT_BYTES))).unwrap_err();
        assert_eq!(error.to_string(), "label k: key and value are 4097 bytes, the limit is 4096");
    }

    #[test]
    fn an_empty_value_is_refused() {
        let error = check(&one("k", "")).unwrap_err();
        assert_eq!(error.to_string(), "label k: the value is empty, which containerd takes for a removal");
    }

    #[test]
    fn references_carry_their_name_in_the_key() {
        let blob = Digest::of(b"");
        assert_eq!(
            content_reference("layer", blob),
            ("containerd.io/gc.ref.content.layer".to_owned(), blob.to_string())
        );
    }
}
