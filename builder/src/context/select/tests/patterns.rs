// SPDX-License-Identifier: Apache-2.0
//! Sources with wildcards, and sources that an ignore file hides.

use super::*;

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
fn a_hidden_directory_is_there_only_for_what_comes_back_in_it() {
    let root = directory(&["hidden/a/drop", "hidden/b/keep", "hidden/c/", "bare/x", "seen/"]);
    let tree = context(root.path(), &["hidden", "bare", "!**/keep"]);
    assert_eq!(
        shown(&tree, &["."]),
        [
            ":/=/ dir",
            ":/hidden=/hidden dir",
            ":/hidden/b=/hidden/b dir",
            ":/hidden/b/keep=/hidden/b/keep 13",
            ":/seen=/seen dir",
        ]
    );
    assert_eq!(shown(&tree, &["*"]).first().map(String::as_str), Some("hidden:/=/hidden dir"));
    assert_eq!(shown(&tree, &["hidden/*"]), ["b:/=/hidden/b dir", "b:/keep=/hidden/b/keep 13"]);
    for source in ["bare", "hidden/a", "hidden/c", "bare/*"] {
        let error = try_select(&tree, &[source]).expect_err(source);
        assert!(matches!(error, ContextError::NotFound { ignored_by: Some(_), .. }), "{source}: {error:?}");
    }
}
