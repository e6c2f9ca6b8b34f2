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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(fill: impl FnOnce(&mut TarWriter<'_>)) -> (Vec<u8>, LayerDigest) {
        let mut bytes = Vec::new();
        let mut writer = TarWriter::new(&mut bytes);
        fill(&mut writer);
        let digest = writer.finish().unwrap();
        (bytes, digest)
    }

    fn field(block: &[u8], at: std::ops::Range<usize>) -> String {
        String::from_utf8(block[at].to_vec()).unwrap().replace('\0', ".")
    }

    #[test]
    fn an_empty_layer_is_two_zero_blocks() {
        let (bytes, digest) = stream(|_| ());
        assert_eq!(bytes, [0; 1024]);
        // The diff id of every empty layer that any tool has ever made.
        assert_eq!(
            digest.diff_id.to_string(),
            "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
        );
        assert_eq!((digest.size_bytes, digest.entries), (1024, 0));
    }

    #[test]
    fn every_field_of_a_header_is_as_documented() {
        let metadata = Metadata { mode: 0o4755, uid: 1000, gid: 8, mtime_s: 1_700_000_000, capability: None };
        let (bytes, _) = stream(|tar| {
            let path = ImagePath::new("/usr/bin/tool");
            tar.member(&path, &metadata, Member::File { size_bytes: 5 }).unwrap();
            tar.content(5, &mut &b"hello"[..], &mut io::sink()).unwrap();
        });
        assert_eq!(bytes.len(), 4 * 512);
        for (range, text) in [
            (0..14, "usr/bin/tool.."),
            (100..108, "0004755."),
            (108..116, "0001750."),
            (116..124, "0000010."),
            (124..136, "00000000005."),
            (136..148, "14524770400."),
            (148..156, "011550. "),
            (156..157, "0"),
            (157..159, ".."),
            (257..265, "ustar.00"),
            (265..329, &".".repeat(64)),
            (329..345, "0000000.0000000."),
            (345..500, &".".repeat(155)),
        ] {
            assert_eq!(field(&bytes, range.clone()), text, "bytes {range:?}");
        }
        assert_eq!(field(&bytes, 512..520), "hello...");
    }

    #[test]
    fn the_stream_of_version_1_never_changes() {
        let owner = Metadata {
            mode: 0o7777,
            uid: 3_000_000,
            gid: 3_000_000,
            mtime_s: 9_000_000_000,
            capability: None,
        };
        let plain = Metadata::of_root(0o755, 1);
        let (_, digest) = stream(|tar| {
            let mut put = |path: &str, metadata: &Metadata, member: Member<'_>| {
                tar.member(&ImagePath::new(path), metadata, member).unwrap();
            };
            put("/a", &plain, Member::Directory);
            put("/a/\u{e4}", &owner, Member::Directory);
            put(&format!("/a/{}", "n".repeat(101)), &plain, Member::Directory);
            put(
                &format!("/a/{}/{}", "d".repeat(60), "n".repeat(60)),
                &plain,
                Member::Symlink(OsStr::new("x")),
            );
            put("/a/l", &plain, Member::Symlink(OsStr::new(&"t".repeat(101))));
            put("/b", &plain, Member::Hardlink(&ImagePath::new("/a/l")));
            put("/c", &plain, Member::Special(EntryKind::CharDevice { major: 4, minor: 70_000 }));
            put("/d", &plain, Member::Special(EntryKind::BlockDevice { major: 8, minor: 1 }));
            put(
                "/e",
                &Metadata { capability: Some(vec![0, 1, 255]), ..plain.clone() },
                Member::Special(EntryKind::Fifo),
            );
            tar.whiteout(&ImagePath::new("/gone")).unwrap();
            tar.whiteout(&ImagePath::new("/a/gone")).unwrap();
        });
        // Changing this value means changing TAR_VERSION and keeping the old writer.
        assert_eq!(TAR_VERSION, 1);
        assert_eq!(
            digest.diff_id.to_string(),
            "sha256:51289bbc61178e768f951ac9f4aa15b5a9466cfd51cc382798da5b02c32d901a"
        );
        assert_eq!(digest.entries, 11);
    }

    #[test]
    fn what_ustar_cannot_say_is_a_pax_record() {
        let fields = |name, link, size_bytes| Fields { name, link, kind: b'0', size_bytes, device: (0, 0) };
        let long = [b'x'; 101];
        let text = |fields: Fields<'_>, metadata: &Metadata| {
            String::from_utf8_lossy(&fields.pax_records(metadata)).into_owned()
        };
        let plain = Metadata::of_root(0o644, 0);
        assert_eq!(text(fields(b"short", b"", 0), &plain), "");
        assert_eq!(text(fields("\u{e4}".as_bytes(), b"", 0), &plain), "11 path=\u{e4}\n");
        assert_eq!(text(fields(b"a", &long, 0), &plain), format!("115 linkpath={}\n", "x".repeat(101)));
        assert_eq!(text(fields(b"a", b"", OCTAL_12), &plain), "");
        assert_eq!(text(fields(b"a", b"", OCTAL_12 + 1), &plain), "19 size=8589934592\n");
        let far = Metadata { uid: 2_097_152, gid: 4_000_000_000, mtime_s: 9_000_000_000, ..plain };
        assert_eq!(
            text(fields(b"a", b"", 0), &far),
            "18 gid=4000000000\n20 mtime=9000000000\n15 uid=2097152\n"
        );
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for (length, start) in [(1, "6 k="), (4, "9 k="), (5, "11 k="), (93, "99 k="), (94, "101 k=")] {
            let mut records = Vec::new();
            record(&mut records, "k", &vec![b'v'; length]);
            assert!(records.starts_with(start.as_bytes()), "{}", String::from_utf8_lossy(&records));
            assert_eq!(records.len().to_string(), start.split(' ').next().unwrap());
        }
    }

    #[test]
    fn a_file_of_another_length_is_an_error() {
        for (size_bytes, found) in [(4, FoundBytes::More), (6, FoundBytes::Only(5))] {
            stream(|tar| {
                let error = tar.content(size_bytes, &mut &b"hello"[..], &mut io::sink()).unwrap_err();
                assert!(matches!(error, CopyError::Size(size) if size == found), "{error:?}");
            });
        }
    }

    #[test]
    fn contents_cross_the_buffer_unharmed() {
        let content: Vec<u8> = (0..3 * BUFFER_BYTES + 77).map(|at| (at % 251) as u8).collect();
        let mut copy = Vec::new();
        let (bytes, digest) = stream(|tar| {
            let size_bytes = content.len() as u64;
            tar.member(&ImagePath::new("a"), &Metadata::of_root(0o644, 0), Member::File { size_bytes })
                .unwrap();
            tar.content(size_bytes, &mut content.as_slice(), &mut copy).unwrap();
        });
        assert_eq!(copy, content);
        assert_eq!(&bytes[512..512 + content.len()], content);
        assert_eq!(digest.size_bytes, bytes.len() as u64);
        assert_eq!(bytes.len() % 512, 0);
        assert_eq!(digest.diff_id.0, crate::image::Digest::of(&bytes));
    }

    proptest! {
        /// An independent reader finds what was written.
        #[test]
        fn another_reader_agrees(
            names in prop::collection::vec("[a-z\u{e4}]{1,90}", 1..4),
            target in "[a-z/\u{e4}]{1,140}",
            mode in 0_u32..0o10000,
            uid in 0_u32..u32::MAX,
            mtime_s in 0_i64..9_223_372_036,
            // This reader splits records at every newline, also at one inside a value.
            capability in prop::option::of(prop::collection::vec(11_u8.., 1..30)),
        ) {
            let path = ImagePath::new(names.join("/"));
            let metadata = Metadata { mode, uid, gid: uid / 2, mtime_s, capability };
            let (bytes, _) = stream(|tar| {
                tar.member(&path, &metadata, Member::Symlink(OsStr::new(&target))).unwrap();
            });
            let mut archive = ::tar::Archive::new(bytes.as_slice());
            let mut entries = archive.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            let extensions: Vec<(String, Vec<u8>)> = entry
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .map(|record| record.unwrap())
                .map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec()))
                .collect();
            let number = |key: &str, header: u64| {
                let record = extensions.iter().find(|(name, _)| name == key);
                record.map_or(header, |(_, value)| std::str::from_utf8(value).unwrap().parse().unwrap())
            };
            let header = entry.header();
            prop_assert_eq!(&*entry.path_bytes(), path.relative().as_bytes());
            prop_assert_eq!(&*entry.link_name_bytes().unwrap(), target.as_bytes());
            prop_assert_eq!(header.mode().unwrap(), mode);
            prop_assert_eq!(number("uid", header.uid().unwrap()), u64::from(uid));
            prop_assert_eq!(number("gid", header.gid().unwrap()), u64::from(uid / 2));
            prop_assert_eq!(number("mtime", header.mtime().unwrap()), mtime_s.unsigned_abs());
            let found = extensions.iter().find(|(name, _)| name == "SCHILY.xattr.security.capability");
            prop_assert_eq!(found.map(|(_, value)| value.clone()), metadata.capability);
            prop_assert!(entries.next().is_none());
        }
    }
}
