// SPDX-License-Identifier: Apache-2.0
//! The head of a run: what ran where, with which builders, and what was planned; and how the run ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the event stream and of the report. A reader refuses any other.
pub const SCHEMA_VERSION: u32 = 1;

/// The first event of every stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunStarted {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The name of the run, unique on this host; part of every image name.
    pub run: String,
    /// Wall-clock time of the start, RFC 3339 in UTC. All other times of the stream are monotonic.
    pub started_at: String,
    /// Version of the harness.
    pub shakedown_version: String,
    /// Command line of the harness.
    pub argv: Vec<String>,
    /// Seed of every random choice of the run.
    pub seed: u64,
    /// sha256 (hex) over the selected scenarios and adapters, so that reports are compared only when alike.
    pub suite_sha256: String,
    /// The machine.
    pub host: Host,
    /// The builders of the run, in the order of the columns.
    pub builders: Vec<Builder>,
    /// Every trial that must have a verdict in the end.
    pub planned: Vec<PlannedTrial>,
}

/// Facts about the machine that the figures depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Machine, as `uname -m` prints it.
    pub architecture: String,
    /// Processors that this process may use.
    pub cpus: u64,
    /// Main memory.
    pub memory_bytes: u64,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup: String,
    /// Version of the containerd that the run started.
    pub containerd: String,
    /// Version of runc.
    pub runc: String,
    /// Snapshotter that the images are unpacked into.
    pub snapshotter: String,
}

/// One column of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// The adapter's name.
    pub name: String,
    /// Whether the builder is there.
    pub presence: Presence,
}

/// Whether a builder is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Presence {
    /// Found and asked for its version.
    Present {
        /// What the builder says about itself.
        version: String,
        /// Path of the program.
        program: String,
        /// sha256 (hex) of the program's bytes.
        program_sha256: String,
    },
    /// Found, but it could not be made ready: its daemon did not start, or its version could not be asked for.
    Broken {
        /// Path of the program.
        program: String,
        /// What went wrong.
        reason: String,
    },
    /// Not found.
    Absent {
        /// Where it was looked for, or why it cannot be used.
        reason: String,
        /// What brings it, for instance a package.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
}

/// How binding a scenario is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A failure makes the run red.
    #[default]
    Must,
    /// A failure is shown and leaves the exit code alone.
    Should,
    /// Optional behaviour.
    May,
    /// Recorded for information.
    Info,
}

/// A trial that the run has promised to report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedTrial {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the builder.
    pub builder: String,
    /// How binding the scenario is.
    pub level: Level,
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Every planned trial had its turn.
    Completed,
    /// Ctrl-C (SIGINT).
    Interrupted,
    /// SIGTERM.
    Terminated,
}
