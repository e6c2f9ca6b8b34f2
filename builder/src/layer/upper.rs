// SPDX-License-Identifier: Apache-2.0
//! What overlayfs leaves in an upper directory besides the files, and what of it may be there.
//!
//! With `redirect_dir=off,metacopy=off,index=off` Linux (6.18 looked at) writes `trusted.overlay.opaque` = `y`
//! on a directory that replaces another, and three attributes of bookkeeping for itself: `origin` (where a copied-up
//! entry came from), `impure` (a directory holds entries with an origin) and `uuid` (on the root). Anything else, such
//! as `redirect`, `metacopy` or `nlink`, changes what the directory means, so it is an error.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::error::{LayerError, upper};
use super::tar::WHITEOUT_PREFIX;
use super::xattr::{CAPABILITY, Subject};
use crate::image::ImagePath;

const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const BOOKKEEPING: [&[u8]; 3] =
    [b"trusted.overlay.origin", b"trusted.overlay.impure", b"trusted.overlay.uuid"];
/// Attributes that the host's security modules put on every file they see, also on those that containerd unpacks.
const HOST_POLICY: [&[u8]; 5] =
    [b"security.selinux", b"security.SMACK64", b"security.apparmor", b"security.ima", b"security.evm"];

/// The extended attributes of one entry, sorted by what they mean.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// A directory that hides everything the parents have under its name.
    pub(super) opaque: bool,
    /// File capabilities.
    pub(super) capability: Option<Vec<u8>>,
    /// Attributes that no layer carries.
    pub(super) others: Vec<OsString>,
}

impl Marks {
    /// Reads the marks of `subject`, which is the entry `path`.
    pub(super) fn read(subject: Subject<'_>, path: &ImagePath) -> Result<Self, LayerError> {
        let reading = || upper("read the attributes of", path);
        let mut marks = Self::default();
        for name in subject.names().map_err(reading())? {
            match name.as_bytes() {
                attribute if attribute == CAPABILITY.as_bytes() => {
                    marks.capability = subject.capability().map_err(reading())?;
                }
                OPAQUE => {
                    if subject.value(&name).map_err(reading())?.as_deref() != Some(b"y") {
                        return Err(LayerError::OverlayAttribute { path: path.clone(), name });
                    }
                    marks.opaque = true;
                }
                attribute if BOOKKEEPING.contains(&attribute) => {}
                attribute if attribute.starts_with(OVERLAY_PREFIX) => {
                    return Err(LayerError::OverlayAttribute { path: path.clone(), name });
                }
                attribute if HOST_POLICY.contains(&attribute) => {}
                _ => marks.others.push(name),
            }
        }
        Ok(marks)
    }

    /// As [`Marks::read`] for what is no directory: hiding makes no sense there.
    pub(super) fn of_file(subject: Subject<'_>, path: &ImagePath) -> Result<Self, LayerError> {
        let marks = Self::read(subject, path)?;
        if marks.opaque {
            let name = OsStr::from_bytes(OPAQUE).to_owned();
            return Err(LayerError::OverlayAttribute { path: path.clone(), name });
        }
        Ok(marks)
    }
}

/// Refuses names that would be read as the mark of a deletion.
pub(super) fn refuse_whiteout_name(path: &ImagePath) -> Result<(), LayerError> {
    let marked = path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT_PREFIX));
    if marked { Err(LayerError::WhiteoutName { path: path.clone() }) } else { Ok(()) }
}
