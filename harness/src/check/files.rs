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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::document;

    /// An image root inside a folder that also holds what must never be seen.
    fn example() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("dir/sub")).expect("folders");
        fs::write(folder.path().join("outside"), "outside").expect("a file");
        fs::write(root.join("dir/file"), "text\n").expect("a file");
        fs::write(root.join("target"), "inside").expect("a file");
        fs::write(root.join("long"), "x".repeat(400)).expect("a file");
        fs::set_permissions(root.join("dir/file"), fs::Permissions::from_mode(0o4750)).expect("a mode");
        symlink("../outside", root.join("up")).expect("a link");
        symlink("/dir", root.join("absolute")).expect("a link");
        symlink("../../../dir", root.join("far")).expect("a link");
        symlink("/../outside", root.join("escape")).expect("a link");
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), 0o600.into()).expect("a pipe");
        folder
    }

    fn findings(root: &ImageRoot, text: &str) -> Vec<String> {
        let expect: FileExpect = document::parse(Path::new("file.yaml"), text)
            .unwrap_or_else(|error| panic!("{}", error.render()));
        check_file(&expect, root).expect("readable files").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_property_holds_and_is_seen_to_fail() {
        let folder = example();
        let root = ImageRoot::open(&folder.path().join("root")).expect("a root");
        let digest = Sha256::of(b"text\n");
        let holds = format!("{{path: /dir/file, type: file, mode: \"4750\", sha256: {digest}}}\n");
        for (text, expected) in [
            (holds.as_str(), &[][..]),
            ("{path: /, type: directory}", &[]),
            ("{path: /dir/file, text: \"text\\n\"}", &[]),
            ("{path: /dir/file, regex: ^t.xt$}", &[]),
            ("{path: /dir, entries: [sub, file]}", &[]),
            ("{path: /up, type: symlink, link_target: ../outside}", &[]),
            ("{path: /nothing, absent: true}", &[]),
            ("{path: /dir/file/below, absent: true}", &[]),
            // Links in the parents are followed as inside a chroot.
            ("{path: /absolute/file, type: file}", &[]),
            ("{path: /far/file, type: file}", &[]),
            ("{path: /nothing, type: file}", &["file.present /nothing: expected something, found nothing"]),
            ("{path: /up, absent: true}", &["file.absent /up: expected nothing, found a symbolic link"]),
            ("{path: /dir, type: file}", &["file.type /dir: expected a regular file, found a folder"]),
            ("{path: /dir/file, mode: \"0750\"}", &["file.mode /dir/file: expected 0750, found 4750"]),
            (
                "{path: /dir/file, text: text}",
                &[r#"file.content /dir/file: expected "text", found "text\n""#],
            ),
            (
                "{path: /dir/file, regex: ^ext}",
                &[r#"file.content /dir/file: expected a match of /^ext/, found "text\n""#],
            ),
            ("{path: /dir, text: a}", &["file.content /dir: expected a regular file, found a folder"]),
            // Reading a pipe would wait for ever.
            ("{path: /pipe, text: a}", &["file.content /pipe: expected a regular file, found a named pipe"]),
            (
                "{path: /escape, text: outside}",
                &["file.content /escape: expected a regular file, found a symbolic link"],
            ),
            (
                "{path: /up, link_target: outside}",
                &[r#"file.link_target /up: expected "outside", found "../outside""#],
            ),
            (
                "{path: /dir, link_target: outside}",
                &[r#"file.link_target /dir: expected "outside", found a folder"#],
            ),
            (
                "{path: /dir, entries: [file]}",
                &[r#"file.entries /dir: expected ["file"], found ["file", "sub"]"#],
            ),
            ("{path: /pipe, entries: []}", &["file.entries /pipe: expected [], found a named pipe"]),
        ] {
            assert_eq!(findings(&root, text), expected, "{text}");
        }
        let other = Sha256::of(b"other");
        assert_eq!(
            findings(&root, &format!("{{path: /dir/file, sha256: {other}}}")),
            [format!("file.content /dir/file: expected sha256 {other}, found sha256 {digest}")]
        );
        let long = findings(&root, "{path: /long, text: x}").concat();
        assert!(long.ends_with("\" (the first 300 of 400 characters)"), "{long}");
    }

    #[test]
    fn owners_and_times_hold_and_are_seen_to_fail() {
        let folder = example();
        let path = folder.path().join("root/target");
        let root = ImageRoot::open(&folder.path().join("root")).expect("a root");
        let found = path.metadata().expect("a file");
        let (uid, gid, mtime) = (found.uid(), found.gid(), found.mtime());
        let text = |plus: u32| {
            let mtime = mtime + i64::from(plus);
            format!("{{path: /target, uid: {}, gid: {}, mtime_s: {mtime}}}", uid + plus, gid + plus)
        };
        assert_eq!(findings(&root, &text(0)), [""; 0]);
        assert_eq!(
            findings(&root, &text(1)),
            [
                format!("file.uid /target: expected {}, found {uid}", uid + 1),
                format!("file.gid /target: expected {}, found {gid}", gid + 1),
                format!("file.mtime /target: expected {}, found {mtime}", mtime + 1),
            ]
        );
    }

    #[test]
    fn nothing_outside_the_root_is_ever_read() {
        let folder = example();
        let root = ImageRoot::open(&folder.path().join("root")).expect("a root");
        symlink("..", folder.path().join("root/parent")).expect("a link");
        assert_eq!(findings(&root, "{path: /parent/outside, absent: true}"), [""; 0]);
        assert_eq!(findings(&root, "{path: /parent/target, text: inside}"), [""; 0]);
    }
}
