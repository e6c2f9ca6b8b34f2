// SPDX-License-Identifier: Apache-2.0
//! The bytes of a stat cache on disk.
//!
//! A magic word with the version of the format, the number of records, the records (integers in little-endian order,
//! paths and capabilities with their length before them), and BLAKE3 of all that. A reader takes a file of its own
//! version that is whole, and nothing else: there is nothing in it that cannot be computed again.

use std::collections::HashMap;

use super::entry::ContentDigest;
use super::stat::{StatKey, Timestamp};
use super::stat_cache::Record;

/// Its last byte is the version.
const MAGIC: [u8; 8] = *b"plstat\0\x01";
const CHECKSUM_BYTES: usize = 32;
/// A record with an empty path and no capability.
const RECORD_BYTES: usize = 4 + 8 + 3 * 4 + 3 * 12 + 2 * 8 + 32 + 1;
/// Where a record has no capability: longer ones do not exist.
const NO_CAPABILITY: u8 = u8::MAX;

/// Why a file is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("it is of another version or kind")]
    Version,
    #[error("it is torn")]
    Torn,
}

pub(crate) fn encode(records: &HashMap<Box<[u8]>, Record>) -> Vec<u8> {
    let paths: usize = records.keys().map(|path| path.len()).sum();
    let mut out = Vec::with_capacity(MAGIC.len() + 8 + records.len() * RECORD_BYTES + paths + CHECKSUM_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(records.len() as u64).to_le_bytes());
    for (path, record) in records {
        // A path has at most 4096 bytes, so its length fits.
        out.extend_from_slice(&(path.len() as u32).to_le_bytes());
        out.extend_from_slice(path);
        let key = &record.key;
        out.extend_from_slice(&key.size_bytes.to_le_bytes());
        for number in [key.mode, key.uid, key.gid] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for time in [key.mtime, key.ctime, record.hashed_at] {
            out.extend_from_slice(&time.seconds.to_le_bytes());
            out.extend_from_slice(&time.nanoseconds.to_le_bytes());
        }
        out.extend_from_slice(&key.inode.to_le_bytes());
        out.extend_from_slice(&key.device.to_le_bytes());
        out.extend_from_slice(&record.digest.0);
        match record.capability.as_deref() {
            None => out.push(NO_CAPABILITY),
            Some(capability) => {
                out.push(capability.len() as u8);
                out.extend_from_slice(capability);
            }
        }
    }
    let checksum = blake3::hash(&out);
    out.extend_from_slice(checksum.as_bytes());
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Result<HashMap<Box<[u8]>, Record>, FormatError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(FormatError::Version);
    }
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FormatError::Torn)?;
    if blake3::hash(body) != *checksum {
        return Err(FormatError::Torn);
    }
    let mut reader = Reader(body.get(MAGIC.len()..).ok_or(FormatError::Torn)?);
    let count = usize::try_from(reader.u64()?).map_err(|_| FormatError::Torn)?;
    if count > reader.0.len() / RECORD_BYTES {
        return Err(FormatError::Torn);
    }
    let mut records = HashMap::with_capacity(count);
    for _ in 0..count {
        let (path, record) = reader.record()?;
        records.insert(path, record);
    }
    if reader.0.is_empty() { Ok(records) } else { Err(FormatError::Torn) }
}

struct Reader<'bytes>(&'bytes [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FormatError::Torn)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn slice(&mut self, count: usize) -> Result<Box<[u8]>, FormatError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(FormatError::Torn)?;
        self.0 = rest;
        Ok(taken.into())
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Result<Timestamp, FormatError> {
        Ok(Timestamp { seconds: self.take().map(i64::from_le_bytes)?, nanoseconds: self.u32()? })
    }

    fn record(&mut self) -> Result<(Box<[u8]>, Record), FormatError> {
        let length = self.u32()? as usize;
        let path = self.slice(length)?;
        let size_bytes = self.u64()?;
        let (mode, uid, gid) = (self.u32()?, self.u32()?, self.u32()?);
        let (mtime, ctime, hashed_at) = (self.time()?, self.time()?, self.time()?);
        let (inode, device) = (self.u64()?, self.u64()?);
        let digest = ContentDigest(self.take()?);
        let capability = match self.take()? {
            [NO_CAPABILITY] => None,
            [length] => Some(self.slice(length.into())?),
        };
        let key = StatKey { size_bytes, mode, uid, gid, mtime, ctime, inode, device };
        Ok((path, Record { key, hashed_at, digest, capability, seen: false }))
    }
}
