// SPDX-License-Identifier: Apache-2.0
//! Content addresses: SHA-256 digests, and the two that must never be mixed up with blob digests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some bytes, written `sha256:<64 hex digits>`.
///
/// The OCI image specification registers sha512 too; no tool in this field emits it, so another algorithm is refused
/// when text is parsed instead of being carried along half-supported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse digest {text:?}: expected sha256: and 64 lower-case hex digits")]
pub struct DigestError {
    /// The text as it was given.
    pub text: String,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest from the raw output of a hasher.
    pub const fn from_raw(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first twelve hex digits, as tools show an image id.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || DigestError { text: text.to_owned() };
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        if hex.len() != 64 {
            return Err(wrong());
        }
        let mut raw = [0; 32];
        for (byte, pair) in raw.iter_mut().zip(hex.chunks_exact(2)) {
            let nibble = |digit: u8| match digit {
                b'0'..=b'9' => Ok(digit - b'0'),
                b'a'..=b'f' => Ok(digit - b'a' + 10),
                _ => Err(wrong()),
            };
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(raw))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of a layer's *uncompressed* tar stream (OCI image specification, `rootfs.diff_ids`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The name of a stack of layers: what containerd calls a committed snapshot of an unpacked image.
///
/// OCI image specification, "Layer ChainID": the first layer's chain id is its diff id; each further one is the digest
/// of `<parent chain id> <diff id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The chain that results from putting `layer` onto `parent` (`None`: onto nothing, as in `FROM scratch`).
    pub fn extend(parent: Option<ChainId>, layer: DiffId) -> ChainId {
        match parent {
            None => ChainId(layer.0),
            Some(parent) => ChainId(Digest::of(format!("{parent} {layer}").as_bytes())),
        }
    }

    /// The chain ids of every prefix of `layers`, lowest first.
    pub fn stack(layers: &[DiffId]) -> Vec<ChainId> {
        layers
            .iter()
            .scan(None, |parent, layer| {
                let chain = Self::extend(*parent, *layer);
                *parent = Some(chain);
                Some(chain)
            })
            .collect()
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short(), "e3b0c44298fc");
    }

    #[test]
    fn other_texts_are_refused() {
        let upper = Digest::of(b"").to_string().to_uppercase();
        for text in ["", "sha256:", "sha512:00", "e3b0", &upper, "sha256:zz"] {
            assert!(text.parse::<Digest>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn a_chain_starts_with_the_diff_id_itself() {
        let (one, two) = (DiffId(Digest::of(b"1")), DiffId(Digest::of(b"2")));
        let stack = ChainId::stack(&[one, two]);
        assert_eq!(stack[0], ChainId(one.0));
        assert_eq!(stack[1], ChainId(Digest::of(format!("{one} {two}").as_bytes())));
    }
}
