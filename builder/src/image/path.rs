// SPDX-License-Identifier: Apache-2.0
//! A path inside an image's root file system, kept apart from paths of the host.
//!
//! Names in an image are bytes, not text: Linux allows anything but `/` and NUL, so nothing here demands UTF-8.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// An absolute, lexically clean path inside an image: no `.`, no `..`, no doubled or trailing slash.
///
/// Ordering is by component, so a directory sorts directly before everything below it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ImagePath {
    /// Components joined by `/`, without the leading one; empty for the root.
    bytes: Vec<u8>,
}

impl ImagePath {
    /// The root directory, `/`.
    pub const fn root() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Cleans `path`, taking a relative one as relative to the root. `..` at the root stays at the root, as the kernel
    /// has it.
    pub fn new(path: impl AsRef<OsStr>) -> Self {
        Self::root().join(path)
    }

    /// `path` as seen from here: an absolute one replaces this path, a relative one is appended and cleaned.
    pub fn join(&self, path: impl AsRef<OsStr>) -> Self {
        let path = path.as_ref().as_bytes();
        let mut joined = if path.first() == Some(&b'/') { Self::root() } else { self.clone() };
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => joined.pop(),
                name => joined.push(name),
            }
        }
        joined
    }

    /// This path with one more component. `name` must be a single file name.
    pub fn child(&self, name: &OsStr) -> Self {
        let mut path = self.clone();
        path.push(name.as_bytes());
        path
    }

    fn push(&mut self, name: &[u8]) {
        if !self.bytes.is_empty() {
            self.bytes.push(b'/');
        }
        self.bytes.extend_from_slice(name);
    }

    fn pop(&mut self) {
        let cut = self.bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.bytes.truncate(cut);
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        (!self.is_root()).then(|| {
            let mut parent = self.clone();
            parent.pop();
            parent
        })
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&OsStr> {
        self.components().next_back()
    }

    /// The components from the top; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &OsStr> {
        self.bytes.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(OsStr::from_bytes)
    }

    /// Every directory above this path, the root first, this path not included.
    pub fn ancestors(&self) -> Vec<Self> {
        let mut above = Vec::new();
        let mut next = self.parent();
        while let Some(path) = next {
            next = path.parent();
            above.push(path);
        }
        above.reverse();
        above
    }

    /// Whether `self` is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || (self.bytes.starts_with(&other.bytes)
                && matches!(self.bytes.get(other.bytes.len()), None | Some(b'/')))
    }

    /// The path without its leading slash, as tar members are named and `openat` wants it; `.` for the root.
    pub fn relative(&self) -> &OsStr {
        OsStr::from_bytes(if self.is_root() { b"." } else { &self.bytes })
    }

    /// The absolute path as the image sees it.
    pub fn to_os_string(&self) -> OsString {
        let mut text = Vec::with_capacity(self.bytes.len() + 1);
        text.push(b'/');
        text.extend_from_slice(&self.bytes);
        OsString::from_vec(text)
    }
}

impl Ord for ImagePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.components().cmp(other.components())
    }
}

impl PartialOrd for ImagePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "/{}", String::from_utf8_lossy(&self.bytes))
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning() {
        for (given, clean) in [
            ("", "/"),
            (".", "/"),
            ("/", "/"),
            ("..", "/"),
            ("a/./b//c/", "/a/b/c"),
            ("/a/../../b", "/b"),
            ("a/..", "/"),
        ] {
            assert_eq!(ImagePath::new(given).to_string(), clean, "{given}");
        }
    }

    #[test]
    fn joining_respects_absolute_paths() {
        let app = ImagePath::new("/app");
        assert_eq!(app.join("src").to_string(), "/app/src");
        assert_eq!(app.join("/src").to_string(), "/src");
        assert_eq!(app.join("../src").to_string(), "/src");
    }

    #[test]
    fn a_directory_sorts_directly_before_what_it_holds() {
        let mut paths = ["/a-b", "/a/z", "/a", "/a.b", "/"].map(ImagePath::new);
        paths.sort();
        assert_eq!(paths.map(|path| path.to_string()), ["/", "/a", "/a/z", "/a-b", "/a.b"]);
    }

    #[test]
    fn prefixes_end_at_a_component() {
        assert!(ImagePath::new("/a/b").starts_with(&ImagePath::new("/a")));
        assert!(!ImagePath::new("/ab").starts_with(&ImagePath::new("/a")));
        assert!(ImagePath::new("/ab").starts_with(&ImagePath::root()));
    }

    #[test]
    fn ancestors_start_at_the_root() {
        let above = ImagePath::new("/a/b/c").ancestors();
        assert_eq!(above, ["/", "/a", "/a/b"].map(ImagePath::new));
        assert!(ImagePath::root().ancestors().is_empty());
    }
}
