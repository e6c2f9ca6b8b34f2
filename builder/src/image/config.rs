// SPDX-License-Identifier: Apache-2.0
//! The image config: how to run an image, which layers it has and how they came to be.
//!
//! Field order is that of the Go structs in the OCI image specification v1.1 (`specs-go/v1/config.go`), with Docker's
//! `Healthcheck`, `OnBuild` and `Shell` after them. Reading takes what Docker and OCI tools have ever written: absent
//! keys, `null` and unknown keys, the last of which are not carried over into a config that is built on this one, as
//! `BuildKit` has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::{Deserializer, IgnoredAny};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};

use super::document::null_as_default;
use super::{DiffId, Document, DocumentError, Platform};

/// An image config (`application/vnd.oci.image.config.v1+json`, and Docker's of the same shape).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339, carried as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub author: String,
    /// CPU architecture in Go's names.
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    /// Operating system in Go's names.
    #[serde(deserialize_with = "null_as_default")]
    pub os: String,
    /// Version of the operating system (Windows only in practice).
    #[serde(
        rename = "os.version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub os_version: String,
    /// Features that the operating system must have.
    #[serde(
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub os_features: Vec<String>,
    /// Variant of the architecture, such as `v8`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub variant: String,
    /// What a container is started with.
    #[serde(deserialize_with = "null_as_default")]
    pub config: RunConfig,
    /// The layers.
    #[serde(deserialize_with = "null_as_default")]
    pub rootfs: Rootfs,
    /// How the image came to be, the oldest step first.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub history: Vec<History>,
}

/// What a container of the image is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// User, as `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub user: String,
    /// Ports, as `80/tcp`.
    #[serde(skip_serializing_if = "NameSet::is_empty", deserialize_with = "null_as_default")]
    pub exposed_ports: NameSet,
    /// `NAME=value` pairs in the order of their first definition.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// The arguments that a user replaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Directories that want a volume.
    #[serde(skip_serializing_if = "NameSet::is_empty", deserialize_with = "null_as_default")]
    pub volumes: NameSet,
    /// Where the program starts.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Free key-value pairs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub stop_signal: String,
    /// Windows only: the command line is one escaped string.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub args_escaped: bool,
    /// How to tell whether the program is well (Docker's extension).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for a build that starts from this image (Docker's extension).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub on_build: Vec<String>,
    /// The shell of instructions in shell form (Docker's extension).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub shell: Vec<String>,
}

/// Docker's health check. Durations are in nanoseconds; 0 inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// Empty: inherit. `NONE`: off. Else `CMD` or `CMD-SHELL` and the command.
    #[serde(rename = "Test", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(rename = "Interval", skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub interval_ns: i64,
    /// Time after which a check counts as failed.
    #[serde(rename = "Timeout", skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub timeout_ns: i64,
    /// Time in which failures do not count.
    #[serde(rename = "StartPeriod", skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub start_period_ns: i64,
    /// Time between two checks during the start period.
    #[serde(rename = "StartInterval", skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub start_interval_ns: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(rename = "Retries", skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rootfs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for Rootfs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step that made the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339, carried as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub created_by: String,
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub author: String,
    /// Anything else.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub empty_layer: bool,
}

/// A set of names in Go's JSON form, `{"name":{}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameSet(pub BTreeSet<String>);

impl NameSet {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for NameSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for name in &self.0 {
            map.serialize_entry(name, &BTreeMap::<String, String>::new())?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for NameSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(map.into_keys().collect()))
    }
}

impl ImageConfig {
    /// The platform that the image is for.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, &self.variant)
    }

    /// Counts the history entries that have a layer and the layers: equal in a sound config.
    pub fn history_and_layers(&self) -> (usize, usize) {
        let with_layer = self.history.iter().filter(|step| !step.empty_layer).count();
        (with_layer, self.rootfs.diff_ids.len())
    }
}

impl Document<ImageConfig> {
    /// Parses a config. Nothing is demanded of its history, see [`Document::check_history`].
    ///
    /// # Errors
    /// [`DocumentError::Parse`].
    pub fn parse(raw: Vec<u8>) -> Result<Self, DocumentError> {
        Self::parse_as("image config", raw)
    }

    /// Checks that exactly as many history entries have a layer as there are layers.
    ///
    /// The history is optional in the OCI image specification and some tools write none at all, which passes.
    ///
    /// # Errors
    /// [`DocumentError::History`] with both counts.
    pub fn check_history(&self) -> Result<(), DocumentError> {
        let (history, layers) = self.value().history_and_layers();
        if self.value().history.is_empty() || history == layers {
            return Ok(());
        }
        Err(DocumentError::History { digest: self.digest(), history, layers })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    /// Keys in Docker's order, with everything that must not stop the reader.
    const DOCKER: &str = r#"{"architecture":"arm64","config":{"Hostname":"","AttachStdin":false,"User":"1:2",
        "ExposedPorts":{"80/tcp":{},"443/tcp":null},"Tty":false,"Env":["PATH=/bin","A=\u003cb\u003e"],"Cmd":null,
        "Healthcheck":{"Test":["CMD","true"],"Interval":5000000000,"Retries":3},"Volumes":null,"WorkingDir":"/w",
        "Entrypoint":["/e"],"OnBuild":["RUN x"],"Labels":{"b":"2","a":"1"},"StopSignal":"SIGINT","Shell":["/bin/sh"]},
        "container":"0123","created":"2024-01-02T03:04:05.123456789Z","docker_version":"20.10","id":null,
        "history":[{"created":"2024-01-01T00:00:00Z","created_by":"ADD x"},{"created_by":"CMD","empty_layer":true}],
        "os":"linux","rootfs":{"type":"layers",
        "diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"variant":"v8"}"#;

    #[test]
    fn a_docker_config_is_read_and_written_in_the_order_of_oci() {
        let read = Document::<ImageConfig>::parse(DOCKER.as_bytes().to_vec()).unwrap();
        assert_eq!(read.raw(), DOCKER.as_bytes());
        assert_eq!(read.digest(), Digest::of(DOCKER.as_bytes()));
        assert_eq!(read.value().platform().to_string(), "linux/arm64");
        read.check_history().unwrap();

        let written = Document::write(read.value().clone());
        insta::assert_snapshot!(str::from_utf8(written.raw()).unwrap(), @r#"{"created":"2024-01-02T03:04:05.123456789Z","architecture":"arm64","os":"linux","variant":"v8","config":{"User":"1:2","ExposedPorts":{"443/tcp":{},"80/tcp":{}},"Env":["PATH=/bin","A=<b>"],"Entrypoint":["/e"],"WorkingDir":"/w","Labels":{"a":"1","b":"2"},"StopSignal":"SIGINT","Healthcheck":{"Test":["CMD","true"],"Interval":5000000000,"Retries":3},"OnBuild":["RUN x"],"Shell":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"history":[{"created":"2024-01-01T00:00:00Z","created_by":"ADD x"},{"created_by":"CMD","empty_layer":true}]}"#);
        assert_eq!(written.digest(), Digest::of(written.raw()));
        let again = Document::<ImageConfig>::parse(written.raw().to_vec()).unwrap();
        assert_eq!(again, written);
    }

    #[test]
    fn an_empty_config_has_only_what_the_specification_demands() {
        let written = Document::write(ImageConfig::default());
        insta::assert_snapshot!(str::from_utf8(written.raw()).unwrap(), @r#"{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#);
        for sparse in ["{}", r#"{"config":null,"rootfs":null,"history":null,"created":null,"os":null}"#] {
            let read = Document::<ImageConfig>::parse(sparse.as_bytes().to_vec()).unwrap();
            assert_eq!(*read.value(), ImageConfig::default());
        }
    }

    #[test]
    fn the_history_must_count_the_layers() {
        let history = |empty: &[bool]| {
            empty
                .iter()
                .map(|empty_layer| History { empty_layer: *empty_layer, ..History::default() })
                .collect()
        };
        let layer = DiffId(Digest::of(b""));
        for (empty, layers, sound) in [
            (&[][..], 2, true),
            (&[false, true, false], 2, true),
            (&[false], 2, false),
            (&[true], 1, false),
            (&[false], 0, false),
        ] {
            let rootfs = Rootfs { diff_ids: vec![layer; layers], ..Rootfs::default() };
            let config = ImageConfig { history: history(empty), rootfs, ..ImageConfig::default() };
            let checked = Document::write(config).check_history();
            assert_eq!(checked.is_ok(), sound, "{empty:?} with {layers} layers: {checked:?}");
        }
    }

    #[test]
    fn what_is_no_config_says_so() {
        let error = Document::<ImageConfig>::parse(b"[1]".to_vec()).unwrap_err();
        assert!(error.to_string().starts_with("parse image config sha256:"), "{error}");
    }
}
