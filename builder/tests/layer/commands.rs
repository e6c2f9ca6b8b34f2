// SPDX-License-Identifier: Apache-2.0
//! Layers that commands write through an overlay.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;
use pushless::image::{DiffId, Digest, ImagePath};
use pushless::layer::{Content, LayerEntry, LayerError, Metadata, diff, normalise, verify};
use rustix::fs::{FileType, Mode, XattrFlags};

use crate::chain::Chain;
use crate::judge::Judge;
use crate::tree;

/// `cap_net_bind_service=ep` in the kernel's form (revision 2).
pub(crate) const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Two layers, so that the overlay has something to merge and its single-parent special case is not all that is seen.
fn base(place: &Path) -> Chain {
    let mut chain = Chain::new(place);
    let entry = |path: &str, content: Content| LayerEntry {
        path: ImagePath::new(path),
        metadata: Metadata::of_root(if matches!(content, Content::Directory) { 0o755 } else { 0o644 }, 50),
        content,
    };
    let text = |text: &str| Content::Bytes(text.into());
    chain
        .copy(vec![
            entry("dir", Content::Directory),
            entry("dir/a", text("a")),
            entry("dir/old", text("old")),
            entry("dir/sub", Content::Directory),
            entry("dir/sub/x", text("x")),
            entry("dir/sub/y", text("y")),
            entry("file", text("file")),
            entry("hard-1", text("hard")),
            entry("hard-2", Content::Hardlink(ImagePath::new("hard-1"))),
            entry("link", Content::Symlink("dir".into())),
        ])
        .expect("the lower base layer");
    chain
        .copy(vec![
            entry("dir", Content::Directory),
            entry("dir/b", text("b")),
            entry("other", Content::Directory),
        ])
        .expect("the upper base layer");
    chain
}

fn shell(merged: &Path, script: &str) {
    let status = Command::new("sh").args(["-euc", script]).current_dir(merged).status().expect("sh");
    assert!(status.success(), "{script}: {status}");
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).expect("an attribute");
}

type Step = fn(&Path);
type Row = (&'static str, &'static str, Step, &'static [&'static str]);

const NOTHING: Step = |_| ();

/// Script, what only a program can do, the members of the layer.
const TABLE: &[Row] = &[
    ("nothing", "true", NOTHING, &[]),
    ("a new file", "echo hi >new", NOTHING, &["- 644 new"]),
    ("a deletion", "rm dir/a; touch -d @60 dir", NOTHING, &["d 755 dir/ @60", "w 0 dir/.wh.a"]),
    ("a deleted directory", "rm -r dir", NOTHING, &["w 0 .wh.dir"]),
    ("a deletion of what never was", "echo >dir/n; rm dir/n; touch -d @50 dir", NOTHING, &[]),
    (
        "a replaced directory",
        "rm -r dir; mkdir dir; echo >dir/b; touch -d @50 dir",
        NOTHING,
        &["d 755 dir/ @50", "w 0 dir/.wh.a", "- 644 dir/b", "w 0 dir/.wh.old", "w 0 dir/.wh.sub"],
    ),
    (
        "a replaced directory in a replaced directory",
        "rm -r dir; mkdir -p dir/sub/deep; echo >dir/sub/y; touch -d @50 dir dir/sub; touch -d @60 dir/sub/deep",
        NOTHING,
        &[
            "d 755 dir/ @50",
            "w 0 dir/.wh.a",
            "w 0 dir/.wh.b",
            "w 0 dir/.wh.old",
            "d 755 dir/sub/ @50",
            "d 755 dir/sub/deep/ @60",
            "w 0 dir/sub/.wh.x",
            "- 644 dir/sub/y",
        ],
    ),
    (
        "a moved directory",
        "mv dir/sub moved; touch -d @60 dir",
        NOTHING,
        &["d 755 dir/ @60", "w 0 dir/.wh.sub", "d 755 moved/ @50", "- 644 moved/x @50", "- 644 moved/y @50"],
    ),
    (
        "a new directory, moved",
        "mkdir new; echo >new/f; mv new newer; touch -d @60 newer",
        NOTHING,
        &["d 755 newer/ @60", "- 644 newer/f"],
    ),
    ("a changed mode", "chmod 700 dir", NOTHING, &["d 700 dir/ @50"]),
    ("a mode changed back", "chmod 700 dir; chmod 755 dir", NOTHING, &[]),
    ("a changed owner", "chown 7:8 dir/sub", NOTHING, &["d 755 7:8 dir/sub/ @50"]),
    (
        "a child of an untouched directory",
        "echo >dir/sub/x; touch -d @50 dir/sub/x",
        NOTHING,
        &["- 644 dir/sub/x @50"],
    ),
    ("a file that was only opened", ": >>file", NOTHING, &["- 644 file @50"]),
    ("set-id bits and an owner", "chown 5:6 file; chmod 6755 file", NOTHING, &["- 6755 5:6 file @50"]),
    (
        "hard links",
        "ln file file-2; ln file a-first",
        NOTHING,
        &["- 644 a-first @50", "h 644 file -> a-first @50", "h 644 file-2 -> a-first @50"],
    ),
    (
        "one of two hard links written to",
        "echo more >>hard-2; touch -d @60 hard-2",
        NOTHING,
        &["- 644 hard-2 @60"],
    ),
    (
        "hard links to a symbolic link",
        "ln -P link link-2",
        NOTHING,
        &["l 777 link -> dir @50", "h 777 link-2 -> link @50"],
    ),
    (
        "pipes and devices",
        "mkfifo -m 600 pipe; mknod -m 640 c c 1 3; mknod -m 600 b b 7 300",
        NOTHING,
        &["b 600 b", "c 640 c", "p 600 pipe"],
    ),
    ("a file in place of a directory", "rm -r dir; echo >dir", NOTHING, &["- 644 dir"]),
    (
        "a directory in place of a file and of a link",
        "rm file link; mkdir file; echo >file/x; mkdir link; touch -d @60 file link",
        NOTHING,
        &["d 755 file/ @60", "- 644 file/x", "d 755 link/ @60"],
    ),
    (
        "a socket",
        "mkdir run",
        |merged| {
            UnixListener::bind(merged.join("run/socket")).expect("a socket");
            shell(merged, "touch -d @60 run");
        },
        &["d 755 run/ @60"],
    ),
    (
        "a socket in place of a file",
        "rm file",
        |merged| drop(UnixListener::bind(merged.join("file")).expect("a socket")),
        &["w 0 .wh.file"],
    ),
    (
        "a socket in a replaced directory",
        "rm -r dir; mkdir dir",
        |merged| {
            UnixListener::bind(merged.join("dir/a")).expect("a socket");
            shell(merged, "touch -d @60 dir");
        },
        &["d 755 dir/ @60", "w 0 dir/.wh.a", "w 0 dir/.wh.b", "w 0 dir/.wh.old", "w 0 dir/.wh.sub"],
    ),
    (
        "capabilities, on a hard link too",
        "true",
        |merged| {
            set_attribute(&merged.join("file"), "security.capability", &CAPABILITY);
            shell(merged, "ln file file-2");
        },
        &["- 644 file +capability @50", "h 644 file-2 -> file +capability @50"],
    ),
    (
        "attributes that no layer carries",
        "true",
        |merged| {
            set_attribute(&merged.join("dir/sub"), "trusted.mine", b"1");
            set_attribute(&merged.join("link"), "trusted.mine", b"1");
        },
        &["l 777 link -> dir @50"],
    ),
    (
        "times before the epoch and far ahead",
        "touch -d @-5 dir; touch -d @99999999999 file",
        NOTHING,
        &["d 755 dir/ @0", "- 644 file @0"],
    ),
    ("the root's own metadata", "chmod 700 .; chown 3:4 .", NOTHING, &[]),
    (
        "names of every kind",
        "mkdir \"$(printf 'tab\\there')\"; echo >'new\nline'; echo >ümläut; touch -d @60 tab*",
        NOTHING,
        &["- 644 new\nline", "d 755 tab\there/ @60", "- 644 ümläut"],
    ),
];

/// Each row's members, and the tree that containerd unpacks from them.
pub(crate) fn table(place: &Path, judge: &Judge) -> Result<(), Failed> {
    let mut failures = String::new();
    for (name, script, step, members) in TABLE {
        let mut chain = base(place);
        let written = |merged: &Path| {
            shell(merged, script);
            step(merged);
        };
        match chain.run(written) {
            Err(failure) => failures += &format!("{name}: {}\n", failure.message().unwrap_or("?")),
            Ok(listed) => {
                let found: Vec<_> = listed.iter().map(|member| member.line.as_str()).collect();
                if found != *members {
                    failures += &format!("{name}:\n  found  {found:?}\n  wanted {members:?}\n");
                }
                if let Err(failure) = chain.judge(judge) {
                    failures += &format!("{name}, unpacked:\n{}\n", failure.message().unwrap_or("?"));
                }
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.into()) }
}

/// Errors name the path and come from reading and from normalising alike.
pub(crate) fn refusals(place: &Path) -> Result<(), Failed> {
    type Broken = fn(&Path);
    let cases: [(&str, Broken, &str); 6] = [
        (
            "a name that marks a deletion",
            |upper| fs::write(upper.join("dir/.wh.x"), "").expect("a file"),
            "store /dir/.wh.x in a layer: names that begin with .wh. mark deletions",
        ),
        (
            "a redirected directory",
            |upper| set_attribute(&upper.join("dir"), "trusted.overlay.redirect", b"/other"),
            "read /dir of the layer's directory: overlay attribute \"trusted.overlay.redirect\" has no meaning in a layer",
        ),
        (
            "a file without its data",
            |upper| set_attribute(&upper.join("dir/file"), "trusted.overlay.metacopy", b""),
            "read /dir/file of the layer's directory: overlay attribute \"trusted.overlay.metacopy\" has no meaning in a layer",
        ),
        (
            "the count of an index",
            |upper| set_attribute(&upper.join("dir/file"), "trusted.overlay.nlink", b"U+1"),
            "read /dir/file of the layer's directory: overlay attribute \"trusted.overlay.nlink\" has no meaning in a layer",
        ),
        (
            "another way to hide",
            |upper| set_attribute(&upper.join("dir"), "trusted.overlay.opaque", b"x"),
            "read /dir of the layer's directory: overlay attribute \"trusted.overlay.opaque\" has no meaning in a layer",
        ),
        (
            "a hiding file",
            |upper| set_attribute(&upper.join("dir/file"), "trusted.overlay.opaque", b"y"),
            "read /dir/file of the layer's directory: overlay attribute \"trusted.overlay.opaque\" has no meaning in a layer",
        ),
    ];
    for (name, broken, message) in cases {
        let chain = base(place);
        let upper = chain.written(|merged| shell(merged, "mkdir -p dir; echo >dir/file"));
        broken(&upper);
        let open = File::open(&upper)?;
        let view = chain.parents();
        let read = diff(open.as_fd(), &view.view, &mut std::io::sink()).map(|_| ());
        let normalised = normalise(open.as_fd(), &view.view);
        for (result, operation) in [(read, "diff"), (normalised, "normalise")] {
            match result {
                Ok(()) => return Err(format!("{name} was taken by {operation}").into()),
                Err(error) if error.to_string() == message => {}
                Err(error) => return Err(format!("{name}, {operation}: {error}, wanted {message}").into()),
            }
        }
    }
    Ok(())
}

/// What the table cannot see from outside: the directory itself.
pub(crate) fn normalised(place: &Path) -> Result<(), Failed> {
    let mut chain = base(place);
    chain.run(|merged| {
        shell(
            merged,
            "rm file; mkdir new; echo >dir/n; rm dir/n; chmod 700 .; chown 3:4 .; touch -d @-5 dir/a",
        );
        UnixListener::bind(merged.join("file")).expect("a socket");
        UnixListener::bind(merged.join("new/socket")).expect("a socket");
        set_attribute(&merged.join("new"), "trusted.mine", b"1");
        set_attribute(&merged.join("new"), "system.posix_acl_default", &posix_acl());
        shell(merged, "touch -d @60.5 new dir");
    })?;
    let upper = chain.layers.last().expect("the layer");
    let tree = tree::scan(upper);
    let names: Vec<_> = tree.keys().map(ToString::to_string).collect();
    if names != ["/", "/dir", "/dir/a", "/file", "/new"] {
        return Err(format!("left: {names:?}").into());
    }
    let root = &tree[&ImagePath::root()];
    if (root.mode, root.owner, root.mtime_s) != (0o755, (0, 0), 0) {
        return Err(format!("the root: {root:?}").into());
    }
    for name in ["dir", "new"] {
        use std::os::unix::fs::MetadataExt as _;
        let stat = fs::symlink_metadata(upper.join(name))?;
        if (stat.mtime(), stat.mtime_nsec()) != (60, 500_000_000) {
            return Err(format!("{name} has the time {}.{}", stat.mtime(), stat.mtime_nsec()).into());
        }
    }
    if tree[&ImagePath::new("dir/a")].mtime_s != 0 || tree[&ImagePath::new("file")].what != "device c 0" {
        return Err(format!("{tree:#?}").into());
    }
    for name in tree.keys() {
        let mut list = [0; 1024];
        let length = rustix::fs::llistxattr(upper.join(name.relative()), &mut list[..])?;
        for attribute in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if !attribute.starts_with(b"trusted.overlay.") {
                return Err(format!("{name} keeps {:?}", std::ffi::OsStr::from_bytes(attribute)).into());
            }
        }
    }
    Ok(())
}

/// A bare mark of a deletion, as another tool may leave it in the only layer below, is nothing; one in the layer that
/// deletes nothing is no member, and normalising removes it without moving the directory's time.
pub(crate) fn bare_deletions(place: &Path) -> Result<(), Failed> {
    let mark = |path: &Path| {
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, Mode::empty(), 0)
            .expect("a mark");
    };
    let mut chain = Chain::new(place);
    let directory = |path: &str| LayerEntry {
        path: ImagePath::new(path),
        metadata: Metadata::of_root(0o755, 50),
        content: Content::Directory,
    };
    chain.copy(vec![directory("dir")])?;
    mark(&chain.layers[0].join("dir/never"));
    shell(&chain.layers[0], "touch -d @50 dir");
    let parents = chain.parents();
    let never = ImagePath::new("dir/never");
    let seen = (parents.view.lstat(&never)?, parents.view.read_dir(&ImagePath::new("dir"))?);
    if seen != (None, Vec::new()) {
        return Err(format!("the view shows {seen:?}").into());
    }
    let upper = chain.fresh();
    for holder in ["dir", "new"] {
        fs::create_dir(upper.join(holder))?;
        mark(&upper.join(holder).join("never"));
    }
    shell(&upper, "touch -d @50 dir; touch -d @60 new");
    for _ in ["as it is", "normalised"] {
        let listed = tree::list(&chain.diffed(&upper)?);
        let found: Vec<_> = listed.iter().map(|member| member.line.as_str()).collect();
        if found != ["d 755 new/ @60"] {
            return Err(format!("members: {found:?}").into());
        }
        normalise(File::open(&upper)?.as_fd(), &parents.view)?;
    }
    if upper.join("dir/never").exists() || upper.join("new/never").exists() {
        return Err("normalising left a needless mark".into());
    }
    Ok(())
}

/// `user::rwx,user:1:rwx,group::r-x,mask::rwx,other::r-x` in the kernel's form.
fn posix_acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1, 7, u32::MAX), (2, 7, 1), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        acl.extend_from_slice(&u16::to_le_bytes(tag));
        acl.extend_from_slice(&u16::to_le_bytes(permissions));
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

pub(crate) fn verification(place: &Path) -> Result<(), Failed> {
    let mut chain = base(place);
    chain.run(|merged| shell(merged, "echo text >dir/new; touch -d @60 dir"))?;
    let upper = chain.layers.pop().expect("the layer");
    let expected = DiffId(Digest::of(&chain.tars.pop().expect("its stream")));
    let check = || verify(File::open(&upper).expect("upper").as_fd(), &chain.parents().view, expected);
    check()?;
    let before = tree::scan(&upper);
    check()?;
    if before != tree::scan(&upper) {
        return Err("verifying changed the layer".into());
    }
    fs::write(upper.join("dir/new"), "next")?;
    match check() {
        Err(LayerError::Mismatch { expected: named, .. }) if named == expected => Ok(()),
        other => Err(format!("a changed file gave {other:?}").into()),
    }
}
