// SPDX-License-Identifier: Apache-2.0
//! Files of an image against what a scenario says about them.

use rustix::fs::Stat;

use super::{Assertion, CheckError, Finding, ImageRoot};
use crate::scenario::{FileContentRule, FileExpect, FileFacts, FileState, FileType, Mode, Sha256};

/// How much of a text a finding quotes, in characters.
const QUOTED: usize = 300;

/// Compares one path.
pub(super) fn check_file(expect: &FileExpect, root: &ImageRoot) -> Result<Vec<Finding>, CheckError> {
    let path = expect.path.as_str();
    let found = root.stat(&expect.path)?;
    match (&expect.state, found) {
        (FileState::Absent, None) => Ok(Vec::new()),
        (FileState::Absent, Some(stat)) => {
            let what = kind_of(&stat).map_or("something", word);
            Ok(vec![Finding::new(Assertion::FileAbsent, "nothing", what).at(path)])
        }
        (FileState::Present(_), None) => {
            Ok(vec![Finding::new(Assertion::FilePresent, "something", "nothing").at(path)])
        }
        (FileState::Present(facts), Some(stat)) => {
            let mut findings = check_facts(expect, facts, &stat, root)?;
            for finding in &mut findings {
                finding.path = Some(path.to_owned());
            }
            Ok(findings)
        }
    }
}

fn check_facts(
    expect: &FileExpect,
    facts: &FileFacts,
    stat: &Stat,
    root: &ImageRoot,
) -> Result<Vec<Finding>, CheckError> {
    let mut findings = Vec::new();
    let mut compare = |assertion, expected: Option<String>, found: String| {
        if let Some(expected) = expected
            && expected != found
        {
            findings.push(Finding::new(assertion, expected, found));
        }
    };
    let kind = kind_of(stat);
    let kind_word = kind.map_or("something unknown", word);
    compare(Assertion::FileType, facts.kind.map(|kind| word(kind).to_owned()), kind_word.to_owned());
    let mode = Mode::from_bits(stat.st_mode);
    compare(Assertion::FileMode, facts.mode.map(|mode| mode.to_string()), mode.to_string());
    compare(Assertion::FileUid, facts.uid.map(|uid| uid.to_string()), stat.st_uid.to_string());
    compare(Assertion::FileGid, facts.gid.map(|gid| gid.to_string()), stat.st_gid.to_string());
    compare(Assertion::FileMtime, facts.mtime_s.map(|mtime| mtime.to_string()), stat.st_mtime.to_string());
    if let Some(target) = &facts.link_target {
        let found = match kind {
            Some(FileType::Symlink) => quote(&root.link_target(&expect.path)?.to_string_lossy()),
            _ => kind_word.to_owned(),
        };
        compare(Assertion::FileLinkTarget, Some(quote(target)), found);
    }
    if let Some(entries) = &facts.entries {
        let found = match kind {
            Some(FileType::Directory) => format!("{:?}", root.entries(&expect.path)?),
            _ => kind_word.to_owned(),
        };
        compare(Assertion::FileEntries, Some(format!("{entries:?}")), found);
    }
    if let Some(rule) = &facts.content {
        let finding = match kind {
            Some(FileType::File) => check_content(rule, &root.read(&expect.path)?),
            _ => Some(Finding::new(Assertion::FileContent, "a regular file", kind_word)),
        };
        findings.extend(finding);
    }
    Ok(findings)
}

fn check_content(rule: &FileContentRule, bytes: &[u8]) -> Option<Finding> {
    let text = String::from_utf8_lossy(bytes);
    let (holds, expected, found) = match rule {
        FileContentRule::Text(expected) => (bytes == expected.as_bytes(), quote(expected), quote(&text)),
        FileContentRule::Regex(pattern) => {
            (pattern.regex().is_match(&text), format!("a match of /{pattern}/"), quote(&text))
        }
        FileContentRule::Sha256(expected) => {
            let found = Sha256::of(bytes);
            (found == *expected, format!("sha256 {expected}"), format!("sha256 {found}"))
        }
    };
    (!holds).then(|| Finding::new(Assertion::FileContent, expected, found))
}

/// A text in quotes, cut when it is long.
pub(super) fn quote(text: &str) -> String {
    let total = text.chars().count();
    if total <= QUOTED {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(QUOTED).collect();
    format!("{start:?} (the first {QUOTED} of {total} characters)")
}

fn kind_of(stat: &Stat) -> Option<FileType> {
    use rustix::fs::FileType as Kernel;
    match Kernel::from_raw_mode(stat.st_mode) {
        Kernel::RegularFile => Some(FileType::File),
        Kernel::Directory => Some(FileType::Directory),
        Kernel::Symlink => Some(FileType::Symlink),
        Kernel::Fifo => Some(FileType::Fifo),
        Kernel::CharacterDevice => Some(FileType::CharacterDevice),
        Kernel::BlockDevice => Some(FileType::BlockDevice),
        Kernel::Socket => Some(FileType::Socket),
        Kernel::Unknown => None,
    }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::File => "a regular file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Socket => "a socket",
    }
}
