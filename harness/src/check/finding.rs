// SPDX-License-Identifier: Apache-2.0
//! What a comparison found wrong.

use std::fmt;

/// One expectation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which kind of expectation.
    pub assertion: Assertion,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// Where: a path in the image or a JSON pointer into its config.
    pub path: Option<String>,
}

impl Finding {
    /// A finding about the build or the pod as a whole.
    pub fn new(assertion: Assertion, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { assertion, expected: expected.into(), found: found.into(), path: None }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.assertion)?;
        if let Some(path) = &self.path {
            write!(out, " {path}")?;
        }
        write!(out, ": expected {}, found {}", self.expected, self.found)
    }
}

/// Declares the kinds of assertions with the words that reports use, so that no list of them can be incomplete.
macro_rules! assertions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// A kind of expectation. The word is stable: reports and lists of expected failures refer to it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Assertion {
            $($(#[$doc])* $name,)+
        }

        impl Assertion {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word that reports use.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

assertions! {
    /// The build succeeds, or fails in an orderly way, as it should.
    Outcome = "build.outcome",
    /// The exit code stands for the right kind of failure.
    ExitClass = "build.exit_class",
    /// The message of a failure names the cause.
    Message = "build.message",
    /// A text is in the log.
    LogContains = "log.contains",
    /// A text is not in the log.
    LogAbsent = "log.absent",
    /// A successful build leaves an image.
    ImagePresent = "image.present",
    /// The image id is that of an earlier build.
    ImageSame = "image.same",
    /// The image id differs from that of an earlier build.
    ImageDifferent = "image.different",
    /// A value in the image config.
    ImageConfig = "image.config",
    /// Something is at a path.
    FilePresent = "file.present",
    /// Nothing is at a path.
    FileAbsent = "file.absent",
    /// The kind of a file.
    FileType = "file.type",
    /// All 12 permission bits.
    FileMode = "file.mode",
    /// The owner.
    FileUid = "file.uid",
    /// The group.
    FileGid = "file.gid",
    /// The time of the last change.
    FileMtime = "file.mtime",
    /// The content of a regular file.
    FileContent = "file.content",
    /// The target of a symbolic link.
    FileLinkTarget = "file.link_target",
    /// The names in a folder.
    FileEntries = "file.entries",
    /// A `RUN` was executed by this build.
    ExecutionFresh = "execution.fresh",
    /// A `RUN` was taken from the cache.
    ExecutionCached = "execution.cached",
    /// The node does not have the image.
    PodImageAbsent = "pod.image_absent",
    /// A container was made and ran to its end.
    PodExited = "pod.exited",
    /// The exit code of a container.
    PodExitCode = "pod.exit_code",
    /// What a container printed to standard output.
    PodStdout = "pod.stdout",
    /// What a container printed to standard error.
    PodStderr = "pod.stderr",
}

impl fmt::Display for Assertion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The comparisons' own tests, whose quoted findings show that an assertion has been seen to fail.
    const SOURCES: [&str; 4] = [
        include_str!("build.rs"),
        include_str!("files.rs"),
        include_str!("config.rs"),
        include_str!("pod.rs"),
    ];

    #[test]
    fn every_assertion_is_seen_to_fail_by_some_test() {
        for assertion in Assertion::ALL {
            let quoted = [
                format!("{assertion}: expected"),
                format!("{assertion} /"),
                format!("{assertion} {{pointer}}"),
            ];
            assert!(
                SOURCES.iter().any(|source| quoted.iter().any(|text| source.contains(text))),
                "no test shows a finding of {assertion}"
            );
        }
    }
}
