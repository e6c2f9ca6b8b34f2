// SPDX-License-Identifier: Apache-2.0
//! What must hold after a build.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ImageFilePath, Mode, Pattern, Sha256};
use crate::adapter::ExitClass;
use crate::document::{Located, schema_as_written};

/// Everything that must hold after one build. An empty value asks for success and nothing more.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// How the build ends.
    #[serde(default)]
    pub outcome: Outcome,
    /// What the image says about itself.
    #[serde(default)]
    pub image: ImageExpect,
    /// What the image's file system holds.
    #[serde(default)]
    pub files: Vec<FileExpect>,
    /// The image id (digest of the config) is that of an earlier build of this scenario.
    #[serde(default)]
    pub same_image_as_step: Option<Located<String>>,
    /// The image id differs from that of an earlier build of this scenario.
    #[serde(default)]
    pub different_image_from_step: Option<Located<String>>,
    /// Which `RUN`s were executed anew and which came from the cache.
    #[serde(default)]
    pub executions: Vec<ExecutionExpect>,
    /// What the builder printed, standard output and error together.
    #[serde(default)]
    pub log: LogExpect,
    /// Pods made of the image, in this order.
    #[serde(default)]
    pub pods: Vec<PodRun>,
}

/// How a build ends.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Exit code 0, and the image is there.
    #[default]
    Success,
    /// Another exit code, with a message that names the cause.
    Failure(FailureExpect),
}

/// What a failing build must say.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureExpect {
    /// What kind of failure the exit code stands for; the adapter says which codes mean what.
    #[serde(default)]
    pub exit_class: Option<ExitClass>,
    /// Somewhere in the log.
    pub message_regex: Pattern,
}

/// What an image says about itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageExpect {
    /// Statements about the image config.
    #[serde(default)]
    pub config: Vec<ConfigAssertion>,
}

/// One statement about the image config (the JSON document of the OCI image specification, `config.md`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "ConfigAssertionDocument")]
pub struct ConfigAssertion {
    /// A JSON pointer (RFC 6901), such as `/config/Env`.
    pub pointer: String,
    /// What must be there.
    pub rule: ConfigRule,
}

/// What must be at a place of the image config.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigRule {
    /// Exactly this value, arrays in this order.
    Equals(serde_json::Value),
    /// An array with this element, an object with at least these members, or a text with this part.
    Contains(serde_json::Value),
    /// Nothing, null or an empty value: Go's `omitempty` makes no difference between them.
    Absent,
}

/// The flat form of a [`ConfigAssertion`]: exactly one of the rules.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ConfigAssertion")]
#[serde(deny_unknown_fields)]
struct ConfigAssertionDocument {
    /// A JSON pointer (RFC 6901), such as `/config/Env`.
    pointer: String,
    /// Exactly this value, arrays in this order.
    #[serde(default)]
    equals: Option<serde_json::Value>,
    /// An array with this element, an object with at least these members, or a text with this part.
    #[serde(default)]
    contains: Option<serde_json::Value>,
    /// `true`: nothing, null or an empty value.
    #[serde(default)]
    absent: bool,
}

schema_as_written!(ConfigAssertion, ConfigAssertionDocument);

impl TryFrom<ConfigAssertionDocument> for ConfigAssertion {
    type Error = String;

    fn try_from(document: ConfigAssertionDocument) -> Result<Self, String> {
        let pointer = document.pointer;
        if !pointer.starts_with('/') {
            return Err(format!("`{pointer}` is not a JSON pointer, which starts with a slash"));
        }
        let rule = match (document.equals, document.contains, document.absent) {
            (Some(value), None, false) => ConfigRule::Equals(value),
            (None, Some(value), false) => ConfigRule::Contains(value),
            (None, None, true) => ConfigRule::Absent,
            _ => return Err(format!("`{pointer}` needs exactly one of equals, contains, absent")),
        };
        Ok(Self { pointer, rule })
    }
}

/// What must be at a path of the image's file system.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "FileExpectDocument")]
pub struct FileExpect {
    /// Where to look; links are followed in the parents, never in the last component.
    pub path: ImageFilePath,
    /// What must be there.
    pub state: FileState,
}

/// Whether something must be at a path.
#[derive(Debug, Clone, PartialEq)]
pub enum FileState {
    /// Nothing, not even a dangling link.
    Absent,
    /// Something with these properties; what is not named is not compared.
    Present(Box<FileFacts>),
}

/// The properties of a file that are compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileFacts {
    /// What kind of file it is.
    pub kind: Option<FileType>,
    /// All 12 permission bits.
    pub mode: Option<Mode>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of the last change in seconds since 1970.
    pub mtime_s: Option<i64>,
    /// The content of a regular file.
    pub content: Option<FileContentRule>,
    /// The target of a symbolic link.
    pub link_target: Option<String>,
    /// The names in a folder: all of them, in any order.
    pub entries: Option<DirectoryEntries>,
}

/// All the names in a folder, sorted.
pub type DirectoryEntries = Vec<String>;

/// What a regular file must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum FileContentRule {
    /// Exactly this text.
    Text(String),
    /// Bytes with this digest.
    Sha256(Sha256),
    /// A text in which this is found.
    Regex(Pattern),
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
}

/// The flat form of a [`FileExpect`].
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "FileExpect")]
#[serde(deny_unknown_fields)]
struct FileExpectDocument {
    path: ImageFilePath,
    /// `true`: nothing may be there.
    #[serde(default)]
    absent: bool,
    #[serde(default, rename = "type")]
    kind: Option<FileType>,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
    /// Time of the last change in seconds since 1970.
    #[serde(default)]
    mtime_s: Option<i64>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    sha256: Option<Sha256>,
    #[serde(default)]
    regex: Option<Pattern>,
    #[serde(default)]
    link_target: Option<String>,
    /// All the names in the folder, in any order.
    #[serde(default)]
    entries: Option<Vec<String>>,
}

schema_as_written!(FileExpect, FileExpectDocument);

impl TryFrom<FileExpectDocument> for FileExpect {
    type Error = String;

    fn try_from(document: FileExpectDocument) -> Result<Self, String> {
        let path = document.path;
        let mut contents = Vec::new();
        contents.extend(document.text.map(FileContentRule::Text));
        contents.extend(document.sha256.map(FileContentRule::Sha256));
        contents.extend(document.regex.map(FileContentRule::Regex));
        if contents.len() > 1 {
            return Err(format!("`{path}` has more than one of text, sha256, regex"));
        }
        let entries = document.entries.map(|mut names| {
            names.sort();
            names
        });
        let facts = FileFacts {
            kind: document.kind,
            mode: document.mode,
            uid: document.uid,
            gid: document.gid,
            mtime_s: document.mtime_s,
            content: contents.pop(),
            link_target: document.link_target,
            entries,
        };
        let state = match (document.absent, facts == FileFacts::default()) {
            (true, true) => FileState::Absent,
            (true, false) => return Err(format!("`{path}` is absent and has properties at once")),
            (false, true) => return Err(format!("`{path}` has nothing to compare; name at least its type")),
            (false, false) => FileState::Present(Box::new(facts)),
        };
        Ok(Self { path, state })
    }
}

/// Whether a `RUN` was executed by this build, told by a file that it writes.
///
/// The `RUN` copies `/proc/sys/kernel/random/uuid`, which differs at every reading, to the stamp. No builder has to be
/// asked, and time plays no part.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecutionExpect {
    /// The file the `RUN` writes.
    pub stamp: Located<ImageFilePath>,
    /// `true`: the stamp differs from those of all earlier builds. `false`: it is that of the last successful build.
    pub fresh: bool,
}

/// What the builder must and must not print.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogExpect {
    /// Texts that must be there.
    #[serde(default)]
    pub contains: Vec<String>,
    /// Texts that must not be there.
    #[serde(default)]
    pub absent: Vec<String>,
}

/// One pod, made as a kubelet would make it, with the policy never to pull.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PodRun {
    /// The image's name; `{ref}`, the image just built, when not given.
    #[serde(default = "own_reference")]
    pub image: String,
    /// Replaces the image's entrypoint, as `command` of a Kubernetes container does; its `Cmd` is then ignored.
    #[serde(default)]
    pub command: Vec<String>,
    /// Replaces the image's `Cmd`, as `args` of a Kubernetes container does.
    #[serde(default)]
    pub args: Vec<String>,
    /// What becomes of it.
    pub expect: PodExpect,
}

fn own_reference() -> String {
    "{ref}".to_owned()
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PodExpect {
    /// The node does not have the image, and no container is made.
    ImageAbsent,
    /// The container runs to its end.
    Exited(PodExit),
}

/// How a container ends and what it printed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PodExit {
    /// Exit code.
    #[serde(default)]
    pub code: i32,
    /// Exactly what was printed to standard output.
    #[serde(default)]
    pub stdout: Option<String>,
    /// Somewhere in standard output.
    #[serde(default)]
    pub stdout_regex: Option<Pattern>,
    /// Exactly what was printed to standard error.
    #[serde(default)]
    pub stderr: Option<String>,
}
