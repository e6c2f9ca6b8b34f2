// SPDX-License-Identifier: Apache-2.0
//! A whole tree as values that can be compared, and a tar stream as lines that can be read.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use pushless::image::ImagePath;

/// Everything about a file that two unpackers must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Type, content, target or device number.
    pub(crate) what: String,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime_s: i64,
    pub(crate) capability: Option<Vec<u8>>,
    /// The first of the names of a file with several.
    pub(crate) first_name: Option<ImagePath>,
}

pub(crate) type Tree = BTreeMap<ImagePath, Node>;

/// Reads everything below `root`, the root included.
pub(crate) fn scan(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut names = HashMap::new();
    visit(root, &ImagePath::root(), &mut tree, &mut names);
    tree
}

fn visit(root: &Path, path: &ImagePath, tree: &mut Tree, names: &mut HashMap<(u64, u64), ImagePath>) {
    let real = root.join(path.relative());
    let stat = fs::symlink_metadata(&real).unwrap_or_else(|error| panic!("{path} was just listed: {error}"));
    let file_type = stat.file_type();
    let what = if file_type.is_dir() {
        "directory".to_owned()
    } else if file_type.is_file() {
        format!("file {:?}", String::from_utf8_lossy(&fs::read(&real).expect("readable")))
    } else if file_type.is_symlink() {
        format!("link to {}", fs::read_link(&real).expect("a link").display())
    } else if file_type.is_fifo() {
        "fifo".to_owned()
    } else if file_type.is_socket() {
        "socket".to_owned()
    } else {
        format!("device {} {}", if file_type.is_char_device() { "c" } else { "b" }, stat.rdev())
    };
    let several = !file_type.is_dir() && stat.nlink() > 1;
    let first_name =
        several.then(|| names.entry((stat.dev(), stat.ino())).or_insert_with(|| path.clone()).clone());
    let node = Node {
        what,
        mode: stat.mode() & 0o7777,
        owner: (stat.uid(), stat.gid()),
        mtime_s: stat.mtime(),
        capability: capability(&real),
        first_name,
    };
    tree.insert(path.clone(), node);
    if file_type.is_dir() {
        let mut children: Vec<_> = fs::read_dir(&real)
            .expect("readable")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        children.sort();
        for child in children {
            visit(root, &path.child(&child), tree, names);
        }
    }
}

pub(crate) fn capability(path: &Path) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    let length = rustix::fs::lgetxattr(path, "security.capability", &mut buffer[..]).ok()?;
    Some(buffer[..length].to_vec())
}

/// The differences between two trees, one line each. The times of the directories in `bumped` are not compared.
pub(crate) fn differences(ours: &Tree, theirs: &Tree, bumped: impl Fn(&ImagePath) -> bool) -> String {
    let mut text = String::new();
    for (path, our) in ours {
        match theirs.get(path) {
            None => writeln!(text, "{path}: only here: {our:?}").expect("text"),
            Some(their) => {
                let mut their = their.clone();
                if path.is_root() || (our.what == "directory" && bumped(path)) {
                    their.mtime_s = our.mtime_s;
                }
                if *our != their {
                    writeln!(text, "{path}: here {our:?}\n  there {their:?}").expect("text");
                }
            }
        }
    }
    for path in theirs.keys().filter(|path| !ours.contains_key(path)) {
        writeln!(text, "{path}: only there: {:?}", theirs[path]).expect("text");
    }
    text
}

/// One member of a tar stream.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) path: ImagePath,
    pub(crate) is_directory: bool,
    /// `type mode [owner] name [-> target] [+capability] [@time below 100 s]`.
    pub(crate) line: String,
}

/// Lists a tar stream with a reader that is not the writer's.
pub(crate) fn list(tar: &[u8]) -> Vec<Listed> {
    let mut archive = tar::Archive::new(tar);
    let mut listed = Vec::new();
    for entry in archive.entries().expect("a tar stream") {
        let mut entry = entry.expect("a member");
        let header = entry.header().clone();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let letter = match header.entry_type() {
            tar::EntryType::Regular
                if name.rsplit('/').next().is_some_and(|name| name.starts_with(".wh.")) =>
            {
                'w'
            }
            tar::EntryType::Regular => '-',
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Link => 'h',
            tar::EntryType::Fifo => 'p',
            tar::EntryType::Char => 'c',
            tar::EntryType::Block => 'b',
            other => panic!("member type {other:?}"),
        };
        let mut line = format!("{letter} {:o}", header.mode().expect("a mode"));
        let (uid, gid) = (header.uid().expect("a user"), header.gid().expect("a group"));
        if (uid, gid) != (0, 0) {
            write!(line, " {uid}:{gid}").expect("text");
        }
        write!(line, " {name}").expect("text");
        if let Some(target) = entry.link_name_bytes() {
            write!(line, " -> {}", String::from_utf8_lossy(&target)).expect("text");
        }
        let mut extensions = entry.pax_extensions().expect("pax records").into_iter().flatten().flatten();
        if extensions.any(|record| record.key() == Ok("SCHILY.xattr.security.capability")) {
            line.push_str(" +capability");
        }
        if letter != 'w' && header.mtime().expect("a time") < 100 {
            write!(line, " @{}", header.mtime().expect("a time")).expect("text");
        }
        let is_directory = letter == 'd';
        listed.push(Listed { path: ImagePath::new(&name), is_directory, line });
    }
    listed
}
