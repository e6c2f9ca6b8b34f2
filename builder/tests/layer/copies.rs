// SPDX-License-Identifier: Apache-2.0
//! Layers assembled from entries.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use libtest_mimic::Failed;
use pushless::image::ImagePath;
use pushless::layer::{Content, LayerEntry, Metadata, View, assemble};

use crate::chain::{Chain, NEW_DIRECTORIES};
use crate::commands::CAPABILITY;
use crate::judge::Judge;
use crate::tree;

fn entry(path: &str, mode: u32, content: Content) -> LayerEntry {
    LayerEntry { path: ImagePath::new(path), metadata: Metadata::of_root(mode, 50), content }
}

fn text(text: &str) -> Content {
    Content::Bytes(text.into())
}

/// Every type over every other, parents made on the way, and members left out where nothing changed.
pub(crate) fn replacing(place: &Path, judge: &Judge) -> Result<(), Failed> {
    let mut chain = Chain::new(place);
    let steps: [(Vec<LayerEntry>, &[&str]); 4] = [
        (
            vec![
                entry("deep/er/file", 0o600, text("1")),
                entry("dir", 0o2711, Content::Directory),
                entry("dir/a", 0o644, text("a")),
                entry("file", 0o644, text("file")),
                entry("link", 0, Content::Symlink("dir".into())),
            ],
            &[
                "d 755 deep/ @77",
                "d 755 deep/er/ @77",
                "- 600 deep/er/file @50",
                "d 2711 dir/ @50",
                "- 644 dir/a @50",
                "- 644 file @50",
                "l 777 link -> dir @50",
            ],
        ),
        (
            vec![
                entry("/", 0o700, Content::Directory),
                entry("deep/er/other", 0o4755, text("2")),
                entry("dir", 0o2711, Content::Directory),
                entry("dir/b", 0o644, text("b")),
                entry("dir/c", 0o644, Content::Hardlink(ImagePath::new("dir/b"))),
                entry("file", 0o755, Content::Directory),
                entry("file/x", 0o644, text("x")),
                entry("link", 0o755, Content::Directory),
                entry("pipe", 0o622, Content::Fifo),
            ],
            &[
                "- 4755 deep/er/other @50",
                "- 644 dir/b @50",
                "h 644 dir/c -> dir/b @50",
                "d 755 file/ @50",
                "- 644 file/x @50",
                "d 755 link/ @50",
                "p 622 pipe @50",
            ],
        ),
        (
            vec![
                entry("deep", 0, Content::Symlink("nowhere".into())),
                entry("device", 0o600, Content::CharDevice { major: 1, minor: 3 }),
                entry("dir", 0o644, text("no directory any more")),
                entry("disk", 0o660, Content::BlockDevice { major: 7, minor: 0 }),
                LayerEntry {
                    path: ImagePath::new("file/y"),
                    metadata: Metadata {
                        uid: 3_000_000,
                        gid: 7,
                        capability: Some(CAPABILITY.into()),
                        ..Metadata::of_root(0o755, -9)
                    },
                    content: text("y"),
                },
            ],
            &[
                "l 777 deep -> nowhere @50",
                "c 600 device @50",
                "- 644 dir @50",
                "b 660 disk @50",
                "- 755 3000000:7 file/y +capability @0",
            ],
        ),
        (
            vec![entry("deep", 0o755, Content::Directory), entry("deep/er/file", 0o600, text("again"))],
            &["d 755 deep/ @50", "d 755 deep/er/ @77", "- 600 deep/er/file @50"],
        ),
    ];
    for (entries, members) in steps {
        let listed = chain.copy(entries)?;
        let found: Vec<_> = listed.iter().map(|member| member.line.as_str()).collect();
        if found != members {
            return Err(format!("found  {found:?}\nwanted {members:?}").into());
        }
        let upper = chain.layers.last().expect("the layer");
        let root = tree::scan(upper).remove(&ImagePath::root()).expect("the root");
        if (root.mode, root.owner, root.mtime_s) != (0o755, (0, 0), 0) {
            return Err(format!("the root: {root:?}").into());
        }
        chain.judge(judge)?;
    }
    Ok(())
}

pub(crate) fn refusals(place: &Path) -> Result<(), Failed> {
    let device = |major| Content::CharDevice { major, minor: 0 };
    let nobody = Metadata { uid: u32::MAX, ..Metadata::of_root(0o644, 0) };
    let missing =
        || Content::File { size_bytes: 1, open: Box::new(|| Ok(Box::new(File::open("/nowhere")?))) };
    let longer =
        || Content::File { size_bytes: 0, open: Box::new(|| Ok(Box::new(File::open("/proc/self/stat")?))) };
    let cases: Vec<(Vec<LayerEntry>, &str)> = vec![
        (
            vec![entry("b", 0, text("")), entry("a", 0, text(""))],
            "store /a in a layer: it comes after /b, entries must be sorted and unique",
        ),
        (
            vec![entry("a", 0, text("")), entry("a", 0, text(""))],
            "store /a in a layer: it comes after /a, entries must be sorted and unique",
        ),
        (
            vec![entry("a", 0, text("")), entry("a/b", 0, text(""))],
            "store /a/b in a layer: /a is not a directory",
        ),
        (vec![entry("below/b", 0, text(""))], "store /below/b in a layer: /below is not a directory"),
        (vec![entry("/", 0, text(""))], "store / in a layer as something else than a directory"),
        (
            vec![entry(".wh.a", 0, text(""))],
            "store /.wh.a in a layer: names that begin with .wh. mark deletions",
        ),
        (
            vec![entry(".wh.a/b", 0, text(""))],
            "store /.wh.a in a layer: names that begin with .wh. mark deletions",
        ),
        (vec![entry("a", 0, device(0))], "store /a in a layer: a character device 0/0 marks a deletion"),
        (
            vec![entry("a", 0, Content::Hardlink(ImagePath::new("b")))],
            "link /a to /b: the target is no earlier file of the same layer",
        ),
        (
            vec![
                entry("a", 0o755, Content::Directory),
                entry("b", 0, Content::Hardlink(ImagePath::new("a"))),
            ],
            "link /b to /a: the target is no earlier file of the same layer",
        ),
        (
            vec![LayerEntry { path: ImagePath::new("a"), metadata: nobody, content: text("") }],
            "store /a in a layer: 4294967295 is no user or group",
        ),
        (vec![entry("a", 0, missing())], "read the content for /a"),
        (
            vec![entry("a", 0, longer())],
            "read the content for /a: it has more bytes, expected 0; it changed meanwhile",
        ),
    ];
    for (entries, message) in cases {
        let place = tempfile::tempdir_in(place)?;
        let (upper, lower) = (place.path().join("upper"), place.path().join("lower"));
        std::fs::create_dir(&upper)?;
        std::fs::create_dir(&lower)?;
        std::os::unix::fs::symlink("elsewhere", lower.join("below"))?;
        let view = View::new(File::open(&lower)?)?;
        let made =
            assemble(entries, File::open(&upper)?.as_fd(), &view, &NEW_DIRECTORIES, &mut std::io::sink());
        match made {
            Err(error) if error.to_string() == message => {}
            other => return Err(format!("found {other:?}\nwanted {message}").into()),
        }
    }
    Ok(())
}
