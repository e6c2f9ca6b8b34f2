// SPDX-License-Identifier: Apache-2.0
//! Finds and reads the ignore file of a build.
//!
//! The file beside the Dockerfile, `<name of the Dockerfile>.dockerignore`, replaces the one in the root of the context
//! also when it is empty. The Dockerfile and the ignore file are read whether or not patterns hide them; a `COPY` of
//! them obeys the patterns like any other (BuildKit 73ed6825, `frontend/dockerui/config.go`).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::super::error::ContextError;
use super::super::pattern::PatternProblem;
use super::matcher::{IgnoreMatcher, IgnoreRule};

/// The name of the ignore file in the root of a context.
const ROOT_NAME: &str = ".dockerignore";
/// Go's `bufio.Scanner` gives up on a longer line; so nobody has one.
const LINE_LIMIT_BYTES: usize = 64 * 1024;
/// More than any ignore file, less than what would hurt.
const FILE_LIMIT_BYTES: u64 = 1024 * 1024;

/// The ignore file of a build: where it is, and what it says.
#[derive(Debug, Default)]
pub struct IgnoreFile {
    /// On the host; `None` when there is none.
    pub path: Option<PathBuf>,
    /// Hides nothing when there is no file.
    pub matcher: IgnoreMatcher,
}

/// What can be wrong with a line of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreProblem {
    /// `!` with nothing behind it, or with nothing but the root.
    #[error("the ! names no pattern to bring back")]
    LoneNegation,
    /// The pattern is malformed.
    #[error("pattern {pattern:?}: {problem}")]
    Pattern {
        /// Cleaned, without the `!`, with U+FFFD for what is not UTF-8.
        pattern: String,
        /// What is wrong with it.
        problem: PatternProblem,
    },
    /// Longer than 64 KiB.
    #[error("the line is longer than {LINE_LIMIT_BYTES} bytes")]
    LineTooLong,
}

impl IgnoreFile {
    /// Reads `<dockerfile_path>.dockerignore`, or else `.dockerignore` in `context_root`; having neither is fine.
    ///
    /// The one in the context is never looked for outside of it: a symbolic link counts as seen from the root of the
    /// context, as for any other file there.
    ///
    /// # Errors
    /// [`ContextError::ReadIgnoreFile`] when a file is there but unreadable, [`ContextError::IgnoreLine`] for its lines.
    pub fn load(context_root: &Path, dockerfile_path: Option<&Path>) -> Result<Self, ContextError> {
        if let Some(dockerfile) = dockerfile_path {
            let mut name = OsString::from(dockerfile);
            name.push(ROOT_NAME);
            let path = PathBuf::from(name);
            if let Some(text) = read(&path, open_beside(&path))? {
                return Self::parse(&text, path);
            }
        }
        let path = context_root.join(ROOT_NAME);
        match read(&path, open_in_root(context_root))? {
            Some(text) => Self::parse(&text, path),
            None => Ok(Self::default()),
        }
    }

    /// Reads the lines of an ignore file; `path` is for messages.
    ///
    /// # Errors
    /// [`ContextError::IgnoreLine`] for the first line that is wrong.
    pub fn parse(text: &[u8], path: PathBuf) -> Result<Self, ContextError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            match rule(line, index + 1) {
                Ok(rule) => rules.extend(rule),
                Err(problem) => return Err(ContextError::IgnoreLine { path, line: index + 1, problem }),
            }
        }
        Ok(Self { path: Some(path), matcher: IgnoreMatcher::new(rules) })
    }
}

fn open_beside(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn open_in_root(context_root: &Path) -> io::Result<File> {
    let root =
        rustix::fs::open(context_root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat2(root, ROOT_NAME, flags, Mode::empty(), ResolveFlags::IN_ROOT)?.into())
}

/// The bytes of an opened ignore file; `None` when it does not exist.
fn read(path: &Path, opened: io::Result<File>) -> Result<Option<Vec<u8>>, ContextError> {
    let failed = |source| ContextError::ReadIgnoreFile { path: path.to_owned(), source };
    let file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let mut text = Vec::new();
    file.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_LIMIT_BYTES {
        let reason = format!("it has more than {FILE_LIMIT_BYTES} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
    }
    Ok(Some(text))
}

/// One line; `None` for a comment or an empty one.
///
/// Moby cleans a line twice, in `ignorefile.ReadAll` and again in `patternmatcher.New`, and looks for the `!` both
/// times. What follows from that is kept: `/!a` and `./!a` negate, `!/` names nothing.
fn rule(line: &[u8], number: usize) -> Result<Option<IgnoreRule>, IgnoreProblem> {
    if line.len() >= LINE_LIMIT_BYTES {
        return Err(IgnoreProblem::LineTooLong);
    }
    if line.starts_with(b"#") {
        return Ok(None);
    }
    let line = trim(line);
    let (negated, line) = match line.strip_prefix(b"!") {
        Some(rest) => (true, trim(rest)),
        None => (false, line),
    };
    let mut pattern = match line {
        [] if negated => return Err(IgnoreProblem::LoneNegation),
        [] => return Ok(None),
        line => clean(line),
    };
    if pattern.len() > 1 && pattern[0] == b'/' {
        pattern.remove(0);
    }
    if negated {
        pattern.insert(0, b'!');
    }
    let pattern = clean(trim(&pattern));
    let (negated, pattern) = match pattern.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, pattern.as_slice()),
    };
    if negated && pattern.is_empty() {
        return Err(IgnoreProblem::LoneNegation);
    }
    match IgnoreRule::new(pattern, negated, number) {
        Ok(rule) => Ok(Some(rule)),
        Err(error) => Err(IgnoreProblem::Pattern { pattern: error.pattern, problem: error.problem }),
    }
}

/// Without white space at both ends: Unicode's when the line is UTF-8, else ASCII's.
fn trim(line: &[u8]) -> &[u8] {
    std::str::from_utf8(line).map_or_else(|_| line.trim_ascii(), |text| text.trim().as_bytes())
}

/// Go's `filepath.Clean`: no doubled or trailing slash, no `.`, and `..` takes back the component before it. A relative
/// path keeps the `..` at its start, so it can never match; nothing left is `.`.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => _ = parts.pop(),
                _ if rooted => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImagePath;

    fn parse(text: &str) -> Result<IgnoreFile, ContextError> {
        IgnoreFile::parse(text.as_bytes(), PathBuf::from("/c/.dockerignore"))
    }

    #[test]
    fn lines_are_cleaned() {
        for (line, rules) in [
            ("", vec![]),
            ("   \t", vec![]),
            ("# comment", vec![]),
            (" # no comment", vec!["# no comment"]),
            ("a#b", vec!["a#b"]),
            ("  docs  ", vec!["docs"]),
            ("docs\r", vec!["docs"]),
            ("\u{a0}docs\u{2003}", vec!["docs"]),
            ("docs/", vec!["docs"]),
            ("/docs", vec!["docs"]),
            ("//docs//x/", vec!["docs/x"]),
            ("./docs/./x", vec!["docs/x"]),
            ("a/../docs", vec!["docs"]),
            ("../docs", vec!["../docs"]),
            ("/../docs", vec!["docs"]),
            ("!docs", vec!["!docs"]),
            ("! docs", vec!["!docs"]),
            ("!/docs/", vec!["!docs"]),
            ("!!docs", vec!["!!docs"]),
            ("\\!docs", vec!["\\!docs"]),
            ("/!docs", vec!["!docs"]),
            ("./!docs", vec!["!docs"]),
            ("/ docs", vec!["docs"]),
            (".", vec!["."]),
            ("/", vec!["/"]),
            ("**/", vec!["**"]),
            ("a/**/", vec!["a/**"]),
            ("\u{feff}docs", vec!["docs"]),
            ("docs\n\n# x\n!docs/README.md\n", vec!["docs", "!docs/README.md"]),
        ] {
            let file = parse(line).expect(line);
            let read: Vec<&str> = file.matcher.rules().map(IgnoreRule::text).collect();
            assert_eq!(read, rules, "{line:?}");
        }
    }

    #[test]
    fn wrong_lines_name_their_number() {
        for (text, message) in [
            ("!", "read ignore file /c/.dockerignore: line 1: the ! names no pattern to bring back"),
            ("a\n\n  !  ", "read ignore file /c/.dockerignore: line 3: the ! names no pattern to bring back"),
            ("!/", "read ignore file /c/.dockerignore: line 1: the ! names no pattern to bring back"),
            (
                "# x\n!a[",
                "read ignore file /c/.dockerignore: line 2: pattern \"a[\": the character class is not closed by ]",
            ),
            (
                "[z-a]",
                "read ignore file /c/.dockerignore: line 1: pattern \"[z-a]\": a range in the character class ends before it begins",
            ),
            (
                "a\\",
                "read ignore file /c/.dockerignore: line 1: pattern \"a\\\\\": the backslash at the end escapes nothing",
            ),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), message);
        }
        let long = "a".repeat(LINE_LIMIT_BYTES);
        assert!(matches!(
            parse(&long),
            Err(ContextError::IgnoreLine { problem: IgnoreProblem::LineTooLong, line: 1, .. })
        ));
    }

    #[test]
    fn the_file_beside_the_dockerfile_replaces_the_one_in_the_root() {
        let context = tempfile::tempdir().expect("temp dir");
        let elsewhere = tempfile::tempdir().expect("temp dir");
        let dockerfile = elsewhere.path().join("app.Dockerfile");
        let ignored = |name: &str| {
            let file = IgnoreFile::load(context.path(), Some(&dockerfile)).expect("loads");
            file.matcher.is_ignored(&ImagePath::new(name))
        };
        assert!(!ignored("a"), "no file at all");
        std::fs::write(context.path().join(".dockerignore"), "a").expect("write");
        assert!(ignored("a"));
        std::fs::write(elsewhere.path().join("app.Dockerfile.dockerignore"), "b").expect("write");
        assert!(ignored("b") && !ignored("a"));
        std::fs::write(elsewhere.path().join("app.Dockerfile.dockerignore"), "").expect("write");
        assert!(!ignored("b") && !ignored("a"), "an empty file replaces too");
    }

    #[test]
    fn what_is_not_a_readable_file_is_an_error() {
        let context = tempfile::tempdir().expect("temp dir");
        let path = context.path().join(".dockerignore");
        std::fs::create_dir(&path).expect("mkdir");
        let error = IgnoreFile::load(context.path(), None).expect_err("a directory");
        assert_eq!(error.to_string(), format!("read ignore file {}", path.display()));
        std::fs::remove_dir(&path).expect("rmdir");

        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("fifo");
        IgnoreFile::load(context.path(), None).expect_err("a fifo, and it does not block");
        std::fs::remove_file(&path).expect("rm");

        std::fs::write(&path, vec![b'\n'; FILE_LIMIT_BYTES as usize + 1]).expect("write");
        IgnoreFile::load(context.path(), None).expect_err("too large");
    }

    #[test]
    fn a_link_to_the_outside_is_not_followed() {
        let outside = tempfile::tempdir().expect("temp dir");
        std::fs::write(outside.path().join("patterns"), "a").expect("write");
        let context = tempfile::tempdir().expect("temp dir");
        let link = context.path().join(".dockerignore");
        std::os::unix::fs::symlink(outside.path().join("patterns"), &link).expect("symlink");
        let file = IgnoreFile::load(context.path(), None).expect("a dangling link is no file");
        assert!(file.path.is_none());
        std::fs::remove_file(&link).expect("rm");
        std::fs::write(context.path().join("inside"), "a").expect("write");
        std::os::unix::fs::symlink("/inside", &link).expect("symlink");
        let file = IgnoreFile::load(context.path(), None).expect("absolute links count from the root");
        assert!(file.matcher.is_ignored(&ImagePath::new("a")));
    }
}
