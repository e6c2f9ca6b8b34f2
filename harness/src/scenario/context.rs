// SPDX-License-Identifier: Apache-2.0
//! What a build context consists of and how it changes between builds.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ContextPath, Mode};
use crate::document::schema_as_written;

/// The build context: a folder of the scenarios tree, single files, or both (the files are laid over the folder).
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// A folder below the scenarios folder, such as `contexts/app`; copied with modes and symbolic links.
    #[serde(default)]
    pub directory: Option<ContextPath>,
    /// Files, folders and links, made in this order. Missing parents are made with mode 0755.
    #[serde(default)]
    pub files: Vec<ContextFile>,
}

/// One entry of the build context.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "ContextFileDocument")]
pub struct ContextFile {
    /// Where it is.
    pub path: ContextPath,
    /// What it is.
    pub content: FileContent,
    /// Permission bits; 0644 for files and 0755 for folders when not given. Links have none.
    pub mode: Option<Mode>,
    /// Owner; the harness's own when not given.
    pub uid: Option<u32>,
    /// Group; the harness's own when not given.
    pub gid: Option<u32>,
    /// Time of the last change in seconds since 1970.
    pub mtime_s: Option<i64>,
}

/// What an entry of the build context is.
#[derive(Debug, Clone, PartialEq)]
pub enum FileContent {
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A file with bytes that only the seed decides.
    Random(RandomBytes),
    /// A symbolic link with this target, which need not exist.
    Symlink(String),
    /// An empty folder.
    Directory,
}

/// Incompressible bytes that are the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomBytes {
    /// How many.
    pub size_bytes: usize,
    /// Which ones.
    pub seed: u64,
}

impl RandomBytes {
    /// The bytes: outputs of SplitMix64, little endian. The generator is written out here because scenarios may quote
    /// digests of what it gives.
    pub fn bytes(self) -> Vec<u8> {
        let mut state = self.seed;
        let mut bytes = Vec::with_capacity(self.size_bytes + 8);
        while bytes.len() < self.size_bytes {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        bytes.truncate(self.size_bytes);
        bytes
    }
}

/// The flat form in which a [`ContextFile`] is written: exactly one kind of content.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ContextFile")]
#[serde(deny_unknown_fields)]
struct ContextFileDocument {
    path: ContextPath,
    #[serde(default)]
    text: Option<String>,
    /// Bytes in base64, for what is no text.
    #[serde(default)]
    base64: Option<String>,
    #[serde(default)]
    random_bytes: Option<RandomBytes>,
    /// The target of a symbolic link.
    #[serde(default)]
    symlink: Option<String>,
    /// `true` makes an empty folder.
    #[serde(default)]
    directory: bool,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
    #[serde(default)]
    mtime_s: Option<i64>,
}

schema_as_written!(ContextFile, ContextFileDocument);

impl TryFrom<ContextFileDocument> for ContextFile {
    type Error = String;

    fn try_from(document: ContextFileDocument) -> Result<Self, String> {
        let mut contents = Vec::new();
        contents.extend(document.text.map(|text| FileContent::Bytes(text.into_bytes())));
        if let Some(encoded) = document.base64 {
            contents.push(FileContent::Bytes(decode_base64(&encoded)?));
        }
        contents.extend(document.random_bytes.map(FileContent::Random));
        contents.extend(document.symlink.map(FileContent::Symlink));
        contents.extend(document.directory.then_some(FileContent::Directory));
        let count = contents.len();
        let (Some(content), 1) = (contents.pop(), count) else {
            return Err(format!(
                "`{}` needs exactly one of text, base64, random_bytes, symlink, directory; it has {count}",
                document.path
            ));
        };
        if matches!(content, FileContent::Symlink(_)) && document.mode.is_some() {
            return Err(format!("`{}` is a symbolic link, which has no mode", document.path));
        }
        Ok(Self {
            path: document.path,
            content,
            mode: document.mode,
            uid: document.uid,
            gid: document.gid,
            mtime_s: document.mtime_s,
        })
    }
}

/// Base64 of RFC 4648, section 4, padded; white space between the letters is skipped.
fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    const WRONG: &str = "not base64 (RFC 4648, with padding)";
    let letters: Vec<u8> = text.bytes().filter(|letter| !letter.is_ascii_whitespace()).collect();
    if !letters.len().is_multiple_of(4) {
        return Err(WRONG.to_owned());
    }
    let body = letters.strip_suffix(b"==").or_else(|| letters.strip_suffix(b"=")).unwrap_or(&letters);
    let mut bytes = Vec::with_capacity(body.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0u32);
    for &letter in body {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(WRONG.to_owned()),
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    if bits == 0 { Ok(bytes) } else { Err(WRONG.to_owned()) }
}

/// One change of the build context between two builds.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mutation {
    /// Writes a file, a folder or a link, replacing what is there.
    Write(ContextFile),
    /// Removes a file, a link or a folder with all it holds.
    Delete {
        /// What to remove; it must be there.
        path: ContextPath,
    },
    /// Changes nothing but the time of the last change.
    Touch {
        /// What to touch.
        path: ContextPath,
        /// The new time in seconds since 1970.
        mtime_s: i64,
    },
    /// Changes nothing but the permission bits.
    Chmod {
        /// What to change.
        path: ContextPath,
        /// The new bits.
        mode: Mode,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_and_malformed_text_refused() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v\nYmFy", Some(b"foobar")),
            ("AP+/", Some(b"\x00\xff\xbf")),
            ("Zg", None),
            ("Zh==", None),
            ("Zm$v", None),
            ("====", None),
        ] {
            assert_eq!(decode_base64(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn random_bytes_are_fixed_by_their_seed() {
        let bytes = RandomBytes { size_bytes: 11, seed: 0 }.bytes();
        // The first outputs of SplitMix64 for seed 0 are e220a8397b1dcdaf and 6e789e6aa1b965f4.
        assert_eq!(bytes, [0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2, 0xf4, 0x65, 0xb9]);
        assert_ne!(RandomBytes { size_bytes: 11, seed: 1 }.bytes(), bytes);
    }
}
