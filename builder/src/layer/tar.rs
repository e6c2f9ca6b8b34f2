// SPDX-License-Identifier: Apache-2.0
//! The byte format of a layer: a POSIX.1-2001 (pax) tar stream in which every byte follows from the entries.
//!
//! The encoder is our own because a layer must come out the same for as long as its [`TAR_VERSION`] exists: a layer
//! whose stream was hashed but not stored is written again later, bit for bit. Numbers are zero-padded octal, user and
//! group names are empty, there is no prefix splitting by taste and no padding beyond the two closing blocks. A pax
//! header precedes a member only when its ustar header cannot say it all.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use super::error::{FoundBytes, LayerError};
use super::metadata::{EntryKind, Metadata};
use super::sink::{HashingSink, LayerDigest, LayerSink};
use crate::image::{DiffId, ImagePath};

/// The version of the byte format. It is raised with any change that alters a stream, and the writers of all earlier
/// versions stay.
pub const TAR_VERSION: u32 = 1;

/// What marks a deletion (OCI image specification, "Whiteouts").
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";

const BLOCK_BYTES: usize = 512;
/// Bytes are gathered to this size before they are hashed and handed on.
const BUFFER_BYTES: usize = 256 * 1024;
/// A read that has less room than this waits for an empty buffer.
const READ_BYTES: usize = 128 * 1024;
/// The largest number in an eight byte octal field.
const OCTAL_8: u64 = 0o777_7777;
/// The largest number in a twelve byte octal field: 8 GiB - 1.
const OCTAL_12: u64 = 0o777_7777_7777;

/// The type of a member and what its header holds because of it.
#[derive(Debug, Clone, Copy)]
pub enum Member<'a> {
    /// A directory.
    Directory,
    /// A regular file; [`TarWriter::content`] must follow.
    File {
        /// Length of the content.
        size_bytes: u64,
    },
    /// A symbolic link to this target.
    Symlink(&'a OsStr),
    /// Another name for an earlier member.
    Hardlink(&'a ImagePath),
    /// A named pipe or a device, as the kind says.
    Special(EntryKind),
}

/// What interrupted the copying of a file's content.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The origin could not be read.
    Read(io::Error),
    /// The copy on the side could not be written.
    Write(io::Error),
    /// The length is not what the header says.
    Size(FoundBytes),
    /// The stream's receiver failed.
    Sink(LayerError),
}

/// Writes one layer's stream.
pub struct TarWriter<'s> {
    sink: HashingSink<'s>,
    /// Always [`BUFFER_BYTES`] long; the first `filled` bytes wait for the sink.
    buffer: Box<[u8]>,
    filled: usize,
    entries: u64,
}

impl<'s> TarWriter<'s> {
    /// Starts a stream that goes to `sink`.
    pub fn new(sink: &'s mut dyn LayerSink) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { sink: HashingSink::new(Some(sink)), buffer, filled: 0, entries: 0 }
    }

    /// Writes the header of a member. `path` must not be the root.
    ///
    /// # Errors
    /// [`LayerError::Sink`].
    pub fn member(
        &mut self,
        path: &ImagePath,
        metadata: &Metadata,
        member: Member<'_>,
    ) -> Result<(), LayerError> {
        let mut name = path.relative().as_bytes().to_vec();
        let (kind, link, size_bytes) = match member {
            Member::Directory => {
                name.push(b'/');
                (b'5', &[][..], 0)
            }
            Member::File { size_bytes } => (b'0', &[][..], size_bytes),
            Member::Symlink(target) => (b'2', target.as_bytes(), 0),
            Member::Hardlink(target) => (b'1', target.relative().as_bytes(), 0),
            Member::Special(EntryKind::CharDevice { .. }) => (b'3', &[][..], 0),
            Member::Special(EntryKind::BlockDevice { .. }) => (b'4', &[][..], 0),
            Member::Special(_) => (b'6', &[][..], 0),
        };
        let device = match member {
            Member::Special(
                EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor },
            ) => (major, minor),
            _ => (0, 0),
        };
        let fields = Fields { name: &name, link, kind, size_bytes, device };
        self.entries += 1;
        self.header(&fields, &metadata.storable())
    }

    /// Writes the mark that `path` is deleted.
    ///
    /// # Errors
    /// [`LayerError::Sink`].
    pub fn whiteout(&mut self, path: &ImagePath) -> Result<(), LayerError> {
        let mut name = path.parent().filter(|parent| !parent.is_root()).map_or(Vec::new(), |parent| {
            let mut name = parent.relative().as_bytes().to_vec();
            name.push(b'/');
            name
        });
        name.extend_from_slice(WHITEOUT_PREFIX);
        name.extend_from_slice(path.file_name().unwrap_or_default().as_bytes());
        let fields = Fields { name: &name, link: &[], kind: b'0', size_bytes: 0, device: (0, 0) };
        self.entries += 1;
        self.header(&fields, &Metadata::of_root(0, 0))
    }

    /// Writes the content of the file whose header was just written, reading each byte once: what `origin` gives goes
    /// into the stream and to `copy`.
    pub(super) fn content(
        &mut self,
        size_bytes: u64,
        origin: &mut impl Read,
        copy: &mut impl Write,
    ) -> Result<(), CopyError> {
        let mut done = 0;
        while done < size_bytes {
            let remaining = usize::try_from(size_bytes - done).unwrap_or(usize::MAX);
            if self.buffer.len() - self.filled < remaining.min(READ_BYTES) {
                self.flush().map_err(CopyError::Sink)?;
            }
            let end = self.buffer.len().min(self.filled.saturating_add(remaining));
            let room = &mut self.buffer[self.filled..end];
            let count = match origin.read(room) {
                Ok(0) => return Err(CopyError::Size(FoundBytes::Only(done))),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Read(error)),
            };
            copy.write_all(&room[..count]).map_err(CopyError::Write)?;
            self.filled += count;
            done += count as u64;
        }
        loop {
            match origin.read(&mut [0]) {
                Ok(0) => break,
                Ok(_) => return Err(CopyError::Size(FoundBytes::More)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CopyError::Read(error)),
            }
        }
        self.pad(size_bytes).map_err(CopyError::Sink)
    }

    /// Closes the stream.
    ///
    /// # Errors
    /// [`LayerError::Sink`].
    pub fn finish(mut self) -> Result<LayerDigest, LayerError> {
        self.push(&[0; 2 * BLOCK_BYTES])?;
        self.flush()?;
        let (digest, size_bytes) = self.sink.finish();
        Ok(LayerDigest { diff_id: DiffId(digest), size_bytes, entries: self.entries })
    }

    fn header(&mut self, fields: &Fields<'_>, metadata: &Metadata) -> Result<(), LayerError> {
        let records = fields.pax_records(metadata);
        if !records.is_empty() {
            let size_bytes = records.len() as u64;
            let pax = Fields { name: b"PaxHeader", link: &[], kind: b'x', size_bytes, device: (0, 0) };
            self.push(&pax.block(&Metadata::of_root(0, 0)))?;
            self.push(&records)?;
            self.pad(size_bytes)?;
        }
        self.push(&fields.block(metadata))
    }

    fn pad(&mut self, size_bytes: u64) -> Result<(), LayerError> {
        let over = (size_bytes % BLOCK_BYTES as u64) as usize;
        if over == 0 { Ok(()) } else { self.push(&[0; BLOCK_BYTES][over..]) }
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        while !bytes.is_empty() {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let count = bytes.len().min(self.buffer.len() - self.filled);
            self.buffer[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LayerError> {
        let filled = std::mem::take(&mut self.filled);
        self.sink.push(&self.buffer[..filled]).map_err(|source| LayerError::Sink { source })
    }
}

/// What a header says besides the metadata.
struct Fields<'a> {
    name: &'a [u8],
    link: &'a [u8],
    kind: u8,
    size_bytes: u64,
    device: (u32, u32),
}

impl Fields<'_> {
    /// The records for everything that the ustar fields cannot hold, sorted by keyword.
    fn pax_records(&self, metadata: &Metadata) -> Vec<u8> {
        let mut records = Vec::new();
        let number = |records: &mut Vec<u8>, keyword, value: u64, limit| {
            if value > limit {
                record(records, keyword, value.to_string().as_bytes());
            }
        };
        if let Some(capability) = &metadata.capability {
            record(&mut records, "SCHILY.xattr.security.capability", capability);
        }
        number(&mut records, "gid", metadata.gid.into(), OCTAL_8);
        if self.link.len() > 100 || !self.link.is_ascii() {
            record(&mut records, "linkpath", self.link);
        }
        number(&mut records, "mtime", metadata.mtime_s.unsigned_abs(), OCTAL_12);
        if split(self.name).is_none() {
            record(&mut records, "path", self.name);
        }
        number(&mut records, "size", self.size_bytes, OCTAL_12);
        number(&mut records, "uid", metadata.uid.into(), OCTAL_8);
        records
    }

    /// The 512 bytes of the ustar header. A number that went into a pax record is zero here, a name is cut short.
    fn block(&self, metadata: &Metadata) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        let (prefix, name) = split(self.name).unwrap_or((&[], self.name));
        put_text(&mut block[0..100], name);
        put_octal(&mut block[100..108], metadata.mode.into());
        put_octal(&mut block[108..116], metadata.uid.into());
        put_octal(&mut block[116..124], metadata.gid.into());
        put_octal(&mut block[124..136], self.size_bytes);
        put_octal(&mut block[136..148], metadata.mtime_s.unsigned_abs());
        block[156] = self.kind;
        put_text(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        put_octal(&mut block[329..337], self.device.0.into());
        put_octal(&mut block[337..345], self.device.1.into());
        put_text(&mut block[345..500], prefix);
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        // Six digits, NUL, space: the one field with its own ending (POSIX.1-1988).
        put_octal(&mut block[148..155], sum);
        block
    }
}

/// `name` as ustar's prefix and name, split at the first slash that makes both fit; `None` when it does not fit or is
/// not ASCII.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((&[], name));
    }
    // The slash itself is dropped, and the slash that ends a directory's name must stay with the name.
    let last = name.len() - 1;
    let slash = (name.len() - 101..last).find(|at| name[*at] == b'/')?;
    (1..=155).contains(&slash).then(|| (&name[..slash], &name[slash + 1..]))
}

/// Fills a field with as much of `text` as is ASCII and fits; the rest is in a pax record.
fn put_text(field: &mut [u8], text: &[u8]) {
    for (byte, letter) in field.iter_mut().zip(text.iter().filter(|letter| letter.is_ascii())) {
        *byte = *letter;
    }
}

/// Zero-padded octal digits and a NUL; zero for a number that does not fit, which is then in a pax record.
fn put_octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let mut rest = if number >> (3 * digits) == 0 { number } else { 0 };
    for byte in field[..digits].iter_mut().rev() {
        *byte = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    field[digits] = 0;
}

/// Appends `<length> <keyword>=<value>\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {keyword}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}
