// SPDX-License-Identifier: Apache-2.0
//! Where a tar stream goes: counted and hashed on the way, then to whoever stores it, or to nobody.

use std::io;

use sha2::{Digest as _, Sha256};

use crate::image::{DiffId, Digest};

/// A receiver of a tar stream. Every [`io::Write`] is one; [`io::sink`] discards.
pub trait LayerSink {
    /// Takes the next bytes, all of them.
    ///
    /// # Errors
    /// Whatever keeps the receiver from storing them; the stream ends there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl<W: io::Write> LayerSink for W {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }
}

/// The names and sizes of a finished tar stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerDigest {
    /// The digest of the uncompressed stream. As nothing is compressed, the blob's digest too.
    pub diff_id: DiffId,
    /// Length of the stream.
    pub size_bytes: u64,
    /// Number of members: files, directories, links and whiteouts.
    pub entries: u64,
}

/// Hashes and counts what passes, and hands it on when there is someone to hand it to.
pub struct HashingSink<'s> {
    hasher: Sha256,
    size_bytes: u64,
    inner: Option<&'s mut dyn LayerSink>,
}

impl<'s> HashingSink<'s> {
    /// A fresh sum over nothing.
    pub fn new(inner: Option<&'s mut dyn LayerSink>) -> Self {
        Self { hasher: Sha256::new(), size_bytes: 0, inner }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Those of the inner sink.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        self.inner.as_mut().map_or(Ok(()), |inner| inner.write(bytes))
    }

    /// The digest of everything that passed, and its length in bytes.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_raw(self.hasher.finalize().into()), self.size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_hashed_counted_and_handed_on() {
        let mut stored = Vec::new();
        let mut sink = HashingSink::new(Some(&mut stored));
        sink.push(b"one").unwrap();
        sink.push(b"two").unwrap();
        assert_eq!(sink.finish(), (Digest::of(b"onetwo"), 6));
        assert_eq!(stored, b"onetwo");
    }
}
