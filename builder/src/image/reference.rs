// SPDX-License-Identifier: Apache-2.0
//! Image names: the familiar form that people write and the full form that containerd stores.
//!
//! The rules are those of the `distribution/reference` grammar (v0.6): a first component without a dot, a colon and
//! other than `localhost` is no registry host, and `docker.io/library/` is put before a bare name. CRI looks names up
//! in the full form, so an image stored under the familiar one would be invisible to pods.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// A fully normalised image name: `host/path[:tag][@digest]`, with `:latest` filled in when neither was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse image reference {text:?}: {reason}")]
pub struct ReferenceError {
    /// The text as it was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ImageReference {
    /// The registry host, `docker.io` when none was written.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository path, `library/` included for official images.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if the name has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the name is pinned.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The short form that people write: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
            None => full,
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| ReferenceError { text: text.to_owned(), reason };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|_| wrong("the part after @ is not a sha256 digest"))?))
            }
            None => (text, None),
        };
        if name.is_empty() {
            return Err(wrong("the name is empty"));
        }
        if digest.is_none() && name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("64 hex digits are an image id, not a name"));
        }
        let (host, rest) = match name.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.chars().any(|letter| letter.is_ascii_uppercase()) =>
            {
                (first, rest)
            }
            _ => ("docker.io", name),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if !is_host(host) {
            return Err(wrong("the registry host is malformed"));
        }
        if path.chars().any(|letter| letter.is_ascii_uppercase()) {
            return Err(wrong("the repository path must be in lower case"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(wrong("the repository path has a malformed component"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("the tag is malformed"));
        }
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let path = if host == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if host.len() + 1 + path.len() > 255 {
            return Err(wrong("the name is longer than 255 characters"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_owned(), path, tag, digest })
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label_ok = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(label_ok)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes.chunk_by(|left, right| alphanumeric(*left) == alphanumeric(*right)).all(|run| {
        alphanumeric(run[0]) || matches!(run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-')
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn familiar_names_become_full_ones() {
        let pinned = format!("busybox@{}", Digest::of(b""));
        for (given, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
            ("registry.test/a__b-c.d:V_1", "registry.test/a__b-c.d:V_1"),
            (&pinned, &format!("docker.io/library/{pinned}")),
        ] {
            assert_eq!(
                given.parse::<ImageReference>().map(|name| name.to_string()),
                Ok(full.to_owned()),
                "{given}"
            );
        }
    }

    #[test]
    fn the_familiar_form_comes_back() {
        for (given, familiar) in [
            ("busybox", "busybox:latest"),
            ("me/app:1", "me/app:1"),
            ("registry.test/app", "registry.test/app:latest"),
        ] {
            assert_eq!(given.parse::<ImageReference>().map(|name| name.familiar()), Ok(familiar.to_owned()));
        }
    }

    #[test]
    fn malformed_names_say_why() {
        let id = "a".repeat(64);
        for (given, reason) in [
            ("", "the name is empty"),
            ("App", "the repository path must be in lower case"),
            ("a//b", "the repository path has a malformed component"),
            ("a..b", "the repository path has a malformed component"),
            ("app:", "the tag is malformed"),
            ("app:-x", "the tag is malformed"),
            ("app@sha256:1", "the part after @ is not a sha256 digest"),
            ("-bad.host/app", "the registry host is malformed"),
            (&id, "64 hex digits are an image id, not a name"),
        ] {
            assert_eq!(given.parse::<ImageReference>().map_err(|error| error.reason), Err(reason), "{given}");
        }
    }
}
