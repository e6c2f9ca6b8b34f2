// SPDX-License-Identifier: Apache-2.0

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::*;
use crate::context::{ContentDigest, IgnoreFile};

/// A temporary directory made of lines: `path` (a file that holds its own path), `path/` or `path -> target`.
fn directory(lines: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("temp dir");
    for line in lines {
        let (name, target) =
            line.split_once(" -> ").map_or((*line, None), |(name, target)| (name, Some(target)));
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("mkdir");
        match target {
            Some(target) => symlink(target, &path).expect("symlink"),
            None if name.ends_with('/') => std::fs::create_dir_all(&path).expect("mkdir"),
            None => std::fs::write(&path, name).expect("write"),
        }
    }
    root
}

fn context(root: &Path, ignore: &[&str]) -> SourceTree {
    let ignore = IgnoreFile::parse(ignore.join("\n").as_bytes(), PathBuf::from("/c/.dockerignore"));
    SourceTree::build_context(root, ignore.expect("well-formed")).expect("opens")
}

fn try_select(tree: &SourceTree, sources: &[&str]) -> Result<Vec<SelectedSource>, ContextError> {
    select(tree, sources, &StatCache::disabled())
}

/// Every entry as `base_name:relative=path`, with what it is.
fn shown(tree: &SourceTree, sources: &[&str]) -> Vec<String> {
    let selection = match try_select(tree, sources) {
        Ok(selection) => selection,
        Err(error) => return vec![error.to_string()],
    };
    let mut out = Vec::new();
    for source in &selection {
        for entry in &source.entries {
            let kind = match &entry.kind {
                EntryKind::Directory => " dir".to_owned(),
                EntryKind::File { size_bytes } => format!(" {size_bytes}"),
                EntryKind::Symlink { target } => format!(" -> {}", target.display()),
                other => format!(" {other:?}"),
            };
            let base = source.base_name.display();
            out.push(format!("{base}:{}={}{kind}", entry.relative, entry.path));
        }
    }
    out
}

fn blake(bytes: &[u8]) -> Option<ContentDigest> {
    Some(ContentDigest(*blake3::hash(bytes).as_bytes()))
}

#[test]
fn files_and_directories() {
    let root = directory(&["a/x", "a/sub/y", "a-b", "a/empty/", "b"]);
    let tree = context(root.path(), &[]);
    let a =
        ["a:/=/a dir", "a:/empty=/a/empty dir", "a:/sub=/a/sub dir", "a:/sub/y=/a/sub/y 7", "a:/x=/a/x 3"];
    for source in ["a", "a/", "/a", "./a", "../../a", "b/../a", "a/sub/.."] {
        assert_eq!(shown(&tree, &[source]), a, "{source}");
    }
    for source in ["b", "b/", "../b", "/../b"] {
        assert_eq!(shown(&tree, &[source]), ["b:/=/b 1"], "{source}");
    }
    for source in [".", "/", "", ".."] {
        assert_eq!(
            shown(&tree, &[source]),
            [
                ":/=/ dir",
                ":/a=/a dir",
                ":/a/empty=/a/empty dir",
                ":/a/sub=/a/sub dir",
                ":/a/sub/y=/a/sub/y 7",
                ":/a/x=/a/x 3",
                ":/a-b=/a-b 3",
                ":/b=/b 1",
            ],
            "{source}"
        );
    }
    assert_eq!(shown(&tree, &["b", "a-b"]), ["b:/=/b 1", "a-b:/=/a-b 3"], "in the order of the instruction");
}

#[test]
fn a_file_with_all_it_has() {
    let root = directory(&["run.sh"]);
    let path = root.path().join("run.sh");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).expect("chmod");
    let time = rustix::fs::Timespec { tv_sec: -2, tv_nsec: 500_000_000 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).expect("utimens");
    let tree = context(root.path(), &[]);
    let selection = try_select(&tree, &["run.sh"]).expect("selects");
    assert_eq!((&selection[0].pattern, selection[0].kind), (&OsString::from("run.sh"), SourceKind::File));
    let entry = &selection[0].entries[0];
    assert_eq!((entry.mode, entry.uid, entry.gid), (0o4751, 0, 0), "a context belongs to root");
    assert_eq!(entry.mtime_s, -2, "rounded down");
    assert_eq!(entry.digest, blake(b"run.sh"));
    assert_eq!((entry.capability.as_ref(), entry.hardlink_group), (None, None));
    let metadata = std::fs::metadata(&path).expect("stat");
    assert_eq!((entry.stat.uid, entry.stat.inode), (metadata.uid(), metadata.ino()));

    let tree = SourceTree::root_file_system(root.path()).expect("opens");
    let selection = try_select(&tree, &["run.sh"]).expect("selects");
    let entry = &selection[0].entries[0];
    assert_eq!((entry.uid, entry.gid), (metadata.uid(), metadata.gid()), "a root file system keeps owners");
}

#[test]
fn links() {
    let root = directory(&[
        "real/x",
        "real/to_x -> x",
        "real/dangling -> nowhere",
        "to_dir -> real",
        "to_file -> real/x",
        "chain -> to_file",
        "absolute -> /real/x",
        "up -> ../../../real/x",
        "sub/back -> ../real",
        "sub/turn -> back/../real/x",
        "dangling -> nowhere",
        "loop -> loop",
        "through -> real/x/y",
    ]);
    let tree = context(root.path(), &[]);
    let real = |name: &str| {
        vec![
            format!("{name}:/=/real dir"),
            format!("{name}:/dangling=/real/dangling -> nowhere"),
            format!("{name}:/to_x=/real/to_x -> x"),
            format!("{name}:/x=/real/x 6"),
        ]
    };
    assert_eq!(shown(&tree, &["to_dir"]), real("to_dir"));
    assert_eq!(shown(&tree, &["sub/back/"]), real("back"));
    for name in ["to_file", "chain", "absolute", "up"] {
        assert_eq!(shown(&tree, &[name]), [format!("{name}:/=/real/x 6")]);
    }
    assert_eq!(shown(&tree, &["to_dir/to_x"]), ["to_x:/=/real/x 6"]);
    assert_eq!(shown(&tree, &["sub/turn"]), ["turn:/=/real/x 6"], ".. of a link counts from where it led");
    for name in ["dangling", "through", "to_file/x", "nothing", "real/x/"] {
        let expected = match name {
            "real/x/" => "x:/=/real/x 6".to_owned(),
            name => format!("find copy source \"/{name}\": not found"),
        };
        assert_eq!(shown(&tree, &[name]), [expected]);
    }
    assert_eq!(
        shown(&tree, &["loop"]),
        ["follow symbolic links of \"/loop\": more than 255 links on the way"]
    );
}

#[test]
fn no_link_leaves_the_root() {
    let outside = directory(&["secret", "dir/secret"]);
    let there = outside.path().to_str().expect("UTF-8");
    let root = directory(&[
        "passwd -> ../../../../../../../../etc/passwd",
        "etc_absolute -> /etc/passwd",
        &format!("file -> {there}/secret"),
        &format!("dir -> {there}/dir"),
        &format!("deep/dir -> ../..{there}/dir"),
    ]);
    let tree = context(root.path(), &[]);
    for source in
        ["passwd", "etc_absolute", "file", "dir", "dir/secret", "deep/dir/secret", "deep/dir", "dir/*"]
    {
        let path = source.trim_end_matches("/*");
        assert_eq!(shown(&tree, &[source]), [format!("find copy source \"/{path}\": not found")], "{source}");
    }
    // Links inside of a directory are copied as they are, wherever they point.
    assert_eq!(
        shown(&tree, &["deep"]),
        ["deep:/=/deep dir".to_owned(), format!("deep:/dir=/deep/dir -> ../..{there}/dir")]
    );
    // The same names inside of the root are what the links mean.
    std::fs::create_dir(root.path().join("etc")).expect("mkdir");
    std::fs::write(root.path().join("etc/passwd"), "ours").expect("write");
    for source in ["passwd", "etc_absolute"] {
        assert_eq!(shown(&tree, &[source]), [format!("{source}:/=/etc/passwd 4")]);
    }
}

#[test]
fn wildcards() {
    let root = directory(&[
        "b.txt",
        "a.txt",
        "c.md",
        "[x].txt",
        "d.txt/in/side",
        "sub/one/f.rs",
        "sub/two/f.rs",
        "sub/f.rs",
        "back\\slash/f",
        "to_sub -> sub",
        "l.lnk -> a.txt",
        "dangling.d -> nowhere",
    ]);
    let tree = context(root.path(), &[]);
    for (source, expected) in [
        (
            "*.txt",
            &[
                "[x].txt:/=/[x].txt 7",
                "a.txt:/=/a.txt 5",
                "b.txt:/=/b.txt 5",
                "d.txt:/=/d.txt dir",
                "d.txt:/in=/d.txt/in dir",
                "d.txt:/in/side=/d.txt/in/side 13",
            ][..],
        ),
        ("[ab].txt", &["a.txt:/=/a.txt 5", "b.txt:/=/b.txt 5"]),
        ("[^ab].md", &["c.md:/=/c.md 4"]),
        ("[[]x].txt", &["[x].txt:/=/[x].txt 7"]),
        ("?.md", &["c.md:/=/c.md 4"]),
        ("../*.md/", &["c.md:/=/c.md 4"]),
        ("*.nothing", &[]),
        ("c.md/*", &[]),
        ("sub/*/f.rs", &["f.rs:/=/sub/one/f.rs 12", "f.rs:/=/sub/two/f.rs 12"]),
        ("*/*/f.rs", &["f.rs:/=/sub/one/f.rs 12", "f.rs:/=/sub/two/f.rs 12"]),
        ("**/f.rs", &["f.rs:/=/sub/f.rs 8"]),
        // A class may match a slash, as in Go.
        ("sub[^x]f.rs", &["f.rs:/=/sub/f.rs 8"]),
        // Links before the first wildcard are followed, links after it are not walked through, a match is followed.
        ("to_sub/*.rs", &["f.rs:/=/sub/f.rs 8"]),
        ("to_su?/f.rs", &[]),
        ("*.lnk", &["l.lnk:/=/a.txt 5"]),
        // Literal components keep their backslashes.
        ("back\\slash/?", &["f:/=/back\\slash/f 12"]),
        ("*\\\\slash/?", &["f:/=/back\\slash/f 12"]),
        ("missing/*", &["find copy source \"/missing\": not found"]),
        ("*.d", &["find copy source \"/dangling.d\": not found"]),
        ("a[", &["parse pattern \"a[\": the character class is not closed by ]"]),
    ] {
        assert_eq!(shown(&tree, &[source]), expected, "{source}");
    }
}

#[test]
fn ignored_sources() {
    let lines = [
        "Dockerfile",
        ".dockerignore",
        "docs/README.md",
        "docs/other",
        "docs/sub/deep",
        "node_modules/x/y",
        "secret",
        "link -> secret",
        "hidden_link -> src",
        "src/main.rs",
        "src/a.tmp",
        "build/out/keep",
        "build/out/drop",
    ];
    let root = directory(&lines);
    let rules = [
        "# comment",
        "docs",
        "!docs/README.md",
        "node_modules",
        "secret",
        "hidden_link",
        "**/*.tmp",
        "build",
        "!build/out/keep",
        "Dockerfile",
        ".dockerignore",
    ];
    let tree = context(root.path(), &rules);
    assert_eq!(
        shown(&tree, &["."]),
        [
            ":/=/ dir",
            ":/build=/build dir",
            ":/build/out=/build/out dir",
            ":/build/out/keep=/build/out/keep 14",
            ":/docs=/docs dir",
            ":/docs/README.md=/docs/README.md 14",
            ":/link=/link -> secret",
            ":/src=/src dir",
            ":/src/main.rs=/src/main.rs 11",
        ]
    );
    assert_eq!(shown(&tree, &["docs"]), ["docs:/=/docs dir", "docs:/README.md=/docs/README.md 14"]);
    assert_eq!(shown(&tree, &["docs/*"]), ["README.md:/=/docs/README.md 14"]);
    assert_eq!(shown(&tree, &["*/*/keep"]), ["keep:/=/build/out/keep 14"]);
    assert_eq!(shown(&tree, &["n*", "sec*", "Docker*", ".d*"]), [""; 0]);
    assert_eq!(
        shown(&tree, &["b*d/o*"]),
        ["out:/=/build/out dir", "out:/keep=/build/out/keep 14"],
        "a hidden directory is there for what comes back in it"
    );
    for (source, path, line, pattern) in [
        ("secret", "/secret", 5, "secret"),
        ("docs/other", "/docs/other", 2, "docs"),
        ("docs/sub", "/docs/sub", 2, "docs"),
        ("node_modules", "/node_modules", 4, "node_modules"),
        ("node_modules/x", "/node_modules/x", 4, "node_modules"),
        ("node_modules/*", "/node_modules", 4, "node_modules"),
        ("src/a.tmp", "/src/a.tmp", 7, "**/*.tmp"),
        ("Dockerfile", "/Dockerfile", 10, "Dockerfile"),
        (".dockerignore", "/.dockerignore", 11, ".dockerignore"),
        ("link", "/secret", 5, "secret"),
        ("hidden_link", "/hidden_link", 6, "hidden_link"),
        ("hidden_link/main.rs", "/hidden_link", 6, "hidden_link"),
    ] {
        match try_select(&tree, &[source]) {
            Err(ContextError::NotFound { ignored_by: Some(by), .. }) => {
                assert_eq!(
                    (by.path.to_string(), by.line, by.pattern.as_str()),
                    (path.to_owned(), line, pattern)
                );
            }
            other => panic!("{source}: {other:?}"),
        }
    }
    let error = try_select(&tree, &["docs/other"]).expect_err("hidden");
    assert_eq!(error.to_string(), "find copy source \"/docs/other\": not found");
    assert_eq!(
        error.help().as_deref(),
        Some(
            "\"/docs/other\" is there, but the pattern \"docs\" in /c/.dockerignore (line 2) hides it; a later line with !docs/other would bring it back."
        )
    );
    // What is not there at all is not blamed on the ignore file, even where it would be hidden.
    let error = try_select(&tree, &["docs/absent"]).expect_err("missing");
    assert!(matches!(error, ContextError::NotFound { ignored_by: None, .. }), "{error:?}");

    let everything = context(root.path(), &["**"]);
    assert_eq!(shown(&everything, &["."]), [":/=/ dir"], "the root itself cannot be hidden");
    let rootfs = SourceTree::root_file_system(root.path()).expect("opens");
    assert_eq!(shown(&rootfs, &["secret"]), ["secret:/=/secret 6"], "ignore files are for contexts");
}

#[test]
fn special_files() {
    let root = directory(&["d/file"]);
    let _listener = UnixListener::bind(root.path().join("d/socket")).expect("bind");
    let fifo = root.path().join("d/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("fifo");
    let tree = context(root.path(), &[]);
    assert_eq!(
        shown(&tree, &["d"]),
        ["d:/=/d dir", "d:/fifo=/d/fifo Fifo", "d:/file=/d/file 6", "d:/socket=/d/socket 0"]
    );
    let selection = try_select(&tree, &["d/socket"]).expect("selects");
    let socket = &selection[0].entries[0];
    assert_eq!(socket.digest, blake(b""));
    let file = tree.open_entry(socket).expect("opens as an empty file");
    assert_eq!(std::io::read_to_string(&file).expect("reads"), "");
    assert!(socket.unchanged(&file).expect("stats"));

    let devices = SourceTree::root_file_system(Path::new("/dev")).expect("opens");
    let selection = try_select(&devices, &["null"]).expect("selects");
    assert_eq!(selection[0].entries[0].kind, EntryKind::CharDevice { major: 1, minor: 3 });
}

#[test]
fn hard_links() {
    let root = directory(&["d/one", "d/other", "alone"]);
    let at = |name: &str| root.path().join(name);
    std::fs::hard_link(at("d/one"), at("d/two")).expect("link");
    std::fs::hard_link(at("d/one"), at("third")).expect("link");
    std::fs::hard_link(at("alone"), at("d/alone")).expect("link");
    std::fs::create_dir(at("e")).expect("mkdir");
    std::fs::write(at("e/x"), "x").expect("write");
    std::fs::hard_link(at("e/x"), at("e/y")).expect("link");
    symlink("x", at("e/link")).expect("symlink");
    std::fs::hard_link(at("e/link"), at("e/same_link")).expect("link");
    let tree = context(root.path(), &[]);
    let groups = |sources: &[&str]| -> Vec<(String, u32)> {
        try_select(&tree, sources)
            .expect("selects")
            .iter()
            .flat_map(|source| &source.entries)
            .filter_map(|entry| Some((entry.path.to_string(), entry.hardlink_group?.0)))
            .collect()
    };
    let named = |pairs: &[(&str, u32)]| {
        pairs.iter().map(|(path, group)| ((*path).to_owned(), *group)).collect::<Vec<_>>()
    };
    assert_eq!(groups(&["d"]), named(&[("/d/one", 0), ("/d/two", 0)]), "d/alone has no partner here");
    assert_eq!(groups(&["third", "d/one"]), named(&[]), "each source for itself");
    assert_eq!(
        groups(&["d", "e", "d"]),
        named(&[("/d/one", 0), ("/d/two", 0), ("/e/x", 1), ("/e/y", 1), ("/d/one", 2), ("/d/two", 2)])
    );
    assert_eq!(
        groups(&["."]),
        named(&[
            ("/alone", 0),
            ("/d/alone", 0),
            ("/d/one", 1),
            ("/d/two", 1),
            ("/e/x", 2),
            ("/e/y", 2),
            ("/third", 1),
        ])
    );
}

#[test]
fn names_are_bytes() {
    let root = directory(&["d/\u{fc}n\u{ef}c\u{f6}d\u{e9} \u{1f433}", "d/line\nbreak"]);
    let odd = OsString::from_vec(b"\xff\xfe.txt".to_vec());
    std::fs::write(root.path().join("d").join(&odd), "odd").expect("write");
    std::fs::write(root.path().join(&odd), "odd").expect("write");
    let tree = context(root.path(), &[]);
    let selection = select(&tree, &[&odd], &StatCache::disabled()).expect("selects");
    assert_eq!(selection[0].base_name, odd);
    assert_eq!(selection[0].entries[0].digest, blake(b"odd"));
    let selection = try_select(&tree, &["*.txt", "d"]).expect("selects");
    assert_eq!(selection[0].base_name, odd);
    let names: Vec<Option<&OsStr>> =
        selection[1].entries.iter().map(|entry| entry.relative.file_name()).collect();
    assert_eq!(
        names,
        [
            None,
            Some(OsStr::new("line\nbreak")),
            Some(OsStr::new("\u{fc}n\u{ef}c\u{f6}d\u{e9} \u{1f433}")),
            Some(&odd)
        ]
    );
}

#[test]
fn the_order_is_that_of_image_paths() {
    let root = directory(&["d/a/b", "d/a-b", "d/a.b", "d/ab/c", "d/a/b.c", "d/A", "d/a b"]);
    let tree = context(root.path(), &[]);
    let selection = try_select(&tree, &["d"]).expect("selects");
    let walked: Vec<&ImagePath> = selection[0].entries.iter().map(|entry| &entry.relative).collect();
    let mut sorted = walked.clone();
    sorted.sort();
    assert_eq!(walked, sorted);
    assert_eq!(walked.len(), 10);
}

#[test]
fn a_change_after_the_selection_is_noticed() {
    let root = directory(&["file", "gone", "linked"]);
    let path = root.path().join("file");
    let tree = context(root.path(), &[]);
    let selection = try_select(&tree, &["file", "gone", "linked"]).expect("selects");
    let entry = &selection[0].entries[0];
    let file = tree.open_entry(entry).expect("opens");
    assert!(entry.unchanged(&file).expect("stats"));
    // The same size, and the old modification time put back: only the change time tells.
    let times = std::fs::metadata(&path).expect("stat").modified().expect("mtime");
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&path, "FILE").expect("write");
    File::options().write(true).open(&path).expect("open").set_modified(times).expect("utimens");
    assert!(!entry.unchanged(&file).expect("stats"));
    assert!(!entry.unchanged(&tree.open_entry(entry).expect("opens")).expect("stats"));

    std::fs::remove_file(root.path().join("gone")).expect("rm");
    let error = tree.open_entry(&selection[1].entries[0]).expect_err("gone");
    assert_eq!(error.to_string(), "open \"/gone\"");
    std::fs::remove_file(root.path().join("linked")).expect("rm");
    symlink("/etc/passwd", root.path().join("linked")).expect("symlink");
    tree.open_entry(&selection[2].entries[0]).expect_err("links are not followed any more");
}

#[test]
fn many_files_are_hashed_on_threads_alike() {
    let root = tempfile::tempdir().expect("temp dir");
    for number in 0..200 {
        std::fs::write(root.path().join(format!("{number:03}")), format!("contents {number}"))
            .expect("write");
    }
    let tree = context(root.path(), &[]);
    let selection = try_select(&tree, &["."]).expect("selects");
    assert_eq!(selection[0].entries.len(), 201);
    for (number, entry) in selection[0].entries.iter().skip(1).enumerate() {
        assert_eq!(entry.digest, blake(format!("contents {number}").as_bytes()), "{}", entry.path);
    }
}

#[test]
fn a_root_must_be_a_directory() {
    let root = directory(&["file"]);
    let path = root.path().join("file");
    let error = SourceTree::root_file_system(&path).expect_err("a file");
    assert_eq!(error.to_string(), format!("open directory {}", path.display()));
}

#[test]
#[ignore = "a measurement: cargo test --release -p pushless --lib context::select -- --ignored --nocapture"]
fn a_warm_walk_of_20000_files() {
    use crate::context::{SystemClock, selection_digest};
    use std::time::Instant;

    let root = tempfile::tempdir().expect("temp dir");
    let body = vec![b'x'; 9_500];
    for number in 0..20_000 {
        let directory = root.path().join(format!("packages/p{:03}/src/m{}", number / 100, number / 20 % 5));
        if number % 20 == 0 {
            std::fs::create_dir_all(&directory).expect("mkdir");
        }
        std::fs::write(directory.join(format!("file-{number:05}.rs")), &body).expect("write");
    }
    std::thread::sleep(super::super::RACY_WINDOW);
    let state = tempfile::tempdir().expect("temp dir");
    let ignore = ["**/*.tmp", "**/.git", "node_modules", "!packages/keep", "target/", "*.log"];
    for round in 0..5 {
        let begun = Instant::now();
        let tree = context(root.path(), &ignore);
        let cache = StatCache::open(state.path(), tree.path(), Box::new(SystemClock));
        let opened = begun.elapsed();
        let selection = select(&tree, &["."], &cache).expect("selects");
        let selected = begun.elapsed();
        selection_digest(&selection);
        let digested = begun.elapsed();
        let written = cache.save().expect("saves");
        println!(
            "round {round}: {} entries; cache opened {:.1} ms, select {:.1} ms, selection digest {:.1} ms, save {:.1} ms (written: {written})",
            selection[0].entries.len(),
            opened.as_secs_f64() * 1e3,
            (selected - opened).as_secs_f64() * 1e3,
            (digested - selected).as_secs_f64() * 1e3,
            (begun.elapsed() - digested).as_secs_f64() * 1e3,
        );
    }
}
