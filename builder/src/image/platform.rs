// SPDX-License-Identifier: Apache-2.0
//! What an image runs on: operating system, architecture and its variant, in Go's names.
//!
//! The aliases and the order of variants are containerd's (`github.com/containerd/platforms` v1.0, `database.go` and
//! `compare.go`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::document::null_as_default;

/// A platform. Values made by [`Platform::new`] and by parsing text are normalised; one read from JSON is as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64` ...
    #[serde(default)]
    pub architecture: String,
    /// `linux` ...
    #[serde(default)]
    pub os: String,
    /// Version of the operating system (Windows only in practice).
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
    pub os_version: String,
    /// Features that the operating system must have.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "null_as_default")]
    pub os_features: Vec<String>,
    /// `v8`, `v7` ...; empty for the usual one.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub variant: String,
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse platform {text:?}: expected os/architecture or os/architecture/variant")]
pub struct PlatformError {
    /// The text as it was given.
    pub text: String,
}

impl Platform {
    /// A platform in its normal form: `x86_64` becomes `amd64`, `aarch64` and `arm64/v8` become `arm64`, `armhf`
    /// becomes `arm/v7`.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = os.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("powerpc64le", variant) => ("ppc64le", variant),
            (architecture, variant) => return Self::plain(os, architecture, variant),
        };
        Self::plain(os, architecture, variant)
    }

    fn plain(os: String, architecture: &str, variant: &str) -> Self {
        Self {
            os: if os == "macos" { "darwin".to_owned() } else { os },
            architecture: architecture.to_owned(),
            os_version: String::new(),
            os_features: Vec::new(),
            variant: variant.to_owned(),
        }
    }

    /// The platform that this program was compiled for. Rust's names are Go's after normalisation, but for the byte
    /// order of PowerPC and the width of x86.
    pub fn of_this_node() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "x86" => "386",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }

    /// This platform in its normal form, without version and features of the operating system.
    pub fn normalised(&self) -> Self {
        Self::new(&self.os, &self.architecture, &self.variant)
    }

    /// How well something made for `offered` runs here: 0 is best, `None` not at all.
    ///
    /// Architecture and system must be equal. A node runs its own variant and lower ones, and prefers the highest of
    /// those. One that does not tell its variant counts as `amd64/v1`, `arm64/v8` and `arm/v7`.
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        let (here, offered) = (self.normalised(), offered.normalised());
        if here.os != offered.os || here.architecture != offered.architecture {
            return None;
        }
        if here.variant == offered.variant {
            return Some(0);
        }
        let level = |platform: &Self| match (platform.architecture.as_str(), platform.variant.as_str()) {
            ("amd64", "") => Some(1000),
            ("arm64", "") => Some(8000),
            ("amd64" | "arm" | "arm64", variant) => variant_level(variant),
            _ => None,
        };
        level(&here)?.checked_sub(level(&offered)?)
    }
}

/// `v8.2` as 8002: a number to compare by.
fn variant_level(variant: &str) -> Option<u32> {
    let (major, minor) =
        variant.strip_prefix('v')?.split_once('.').unwrap_or((variant.strip_prefix('v')?, "0"));
    major.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(minor.parse().ok()?)
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(out, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split('/').collect();
        let sound = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(sound) {
            return Err(PlatformError { text: text.to_owned() });
        }
        match parts.as_slice() {
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(PlatformError { text: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_the_normal_form() {
        for (given, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(given.parse::<Platform>().map(|platform| platform.to_string()), Ok(normal.to_owned()));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/a b"] {
            let message = text.parse::<Platform>().unwrap_err().to_string();
            let expected = "expected os/architecture or os/architecture/variant";
            assert_eq!(message, format!("parse platform {text:?}: {expected}"));
        }
    }

    #[test]
    fn a_node_runs_its_own_variant_and_lower_ones() {
        for (here, offered, rank) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1000)),
            ("linux/amd64/v3", "linux/amd64", Some(2000)),
            ("linux/arm/v7", "linux/arm/v6", Some(1000)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v8.2", "linux/arm64", Some(2)),
            ("linux/arm64", "linux/amd64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/riscv64", "linux/riscv64/rva23", None),
        ] {
            let parse = |text: &str| text.parse::<Platform>().unwrap();
            assert_eq!(parse(here).rank(&parse(offered)), rank, "{offered} on {here}");
        }
    }

    #[test]
    fn this_node_has_go_names() {
        let node = Platform::of_this_node();
        assert_eq!(node, node.normalised());
        assert!(!matches!(node.architecture.as_str(), "x86_64" | "aarch64"));
    }
}
