// SPDX-License-Identifier: Apache-2.0
//! Random stacks of copies and commands: the directory and the stream of a layer say the same, and containerd makes the
//! same tree of the streams.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use libtest_mimic::Failed;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestError, TestRunner};
use pushless::image::ImagePath;
use pushless::layer::{Content, EntryKind, LayerEntry, Metadata, View};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::chain::Chain;
use crate::commands::CAPABILITY;
use crate::judge::Judge;

/// How many stacks are tried in a usual run; `PROPTEST_CASES` asks for more.
const CASES: u32 = 48;

/// A path of up to three of a few names, so that paths meet. One name needs a pax record.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(select(vec!["a", "b", "c", "\u{e4}"]), 1..4).prop_map(|names| names.join("/"))
}

/// One entry of a copy before it is made to fit.
#[derive(Debug, Clone)]
struct Copied {
    path: String,
    kind: u8,
    mode: u32,
    owner: u32,
    mtime_s: i64,
    capability: bool,
    text: String,
}

/// One change that a command makes. What fails, such as writing below a file, is no change.
#[derive(Debug, Clone)]
enum Change {
    Write(String, String),
    MakeDirectory(String),
    Remove(String),
    Replace(String),
    Rename(String, String),
    Link(String, String),
    Symlink(String, String),
    Mode(String, u32),
    Owner(String, u32),
    Time(String, i64),
    Pipe(String),
    Device(String),
    Socket(String),
    Capability(String),
    Attribute(String),
}

#[derive(Debug, Clone)]
enum Step {
    Copy(Vec<Copied>),
    Run(Vec<Change>),
}

fn mtime() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0_i64..200, 1 => -5_i64..0, 1 => 8_589_934_000_i64..8_589_935_000]
}

fn copied() -> impl Strategy<Value = Copied> {
    (
        path(),
        0_u8..8,
        select(vec![0o755, 0o644, 0o4711, 0o2750, 0o1777, 0]),
        0_u32..3,
        mtime(),
        any::<bool>(),
        "[a-z]{0,9}",
    )
        .prop_map(|(path, kind, mode, owner, mtime_s, capability, text)| Copied {
            path,
            kind,
            mode,
            owner: owner * 1_500_000,
            mtime_s,
            capability,
            text,
        })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (path(), "[a-z]{0,9}").prop_map(|(path, text)| Change::Write(path, text)),
        3 => path().prop_map(Change::MakeDirectory),
        4 => path().prop_map(Change::Remove),
        4 => path().prop_map(Change::Replace),
        3 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Change::Link(from, to)),
        2 => (select(vec!["a", "b", "nowhere"]), path()).prop_map(|(to, path)| Change::Symlink(to.into(), path)),
        2 => (path(), select(vec![0o755, 0o700, 0o6711])).prop_map(|(path, mode)| Change::Mode(path, mode)),
        1 => (path(), 0_u32..3).prop_map(|(path, owner)| Change::Owner(path, owner)),
        3 => (path(), mtime()).prop_map(|(path, mtime_s)| Change::Time(path, mtime_s)),
        1 => path().prop_map(Change::Pipe),
        1 => path().prop_map(Change::Device),
        1 => path().prop_map(Change::Socket),
        1 => path().prop_map(Change::Capability),
        1 => path().prop_map(Change::Attribute),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        prop::collection::vec(copied(), 0..12).prop_map(Step::Copy),
        prop::collection::vec(change(), 0..12).prop_map(Step::Run),
    ];
    prop::collection::vec(step, 1..5)
}

pub(crate) fn chains(place: &Path, judge: &Judge) -> Result<(), Failed> {
    let regressions = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/layer-chains.txt");
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        max_shrink_iters: 400,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&steps(), |steps| {
        let mut chain = Chain::new(place);
        let fail = |failure: Failed| TestCaseError::fail(failure.message().unwrap_or("?").to_owned());
        for step in steps {
            match step {
                Step::Copy(wanted) => {
                    let entries = fitting(&wanted, &chain.parents().view);
                    chain.copy(entries).map_err(fail)?;
                }
                Step::Run(changes) => {
                    chain
                        .run(|merged| changes.iter().for_each(|change| apply(merged, change)))
                        .map_err(fail)?;
                }
            }
        }
        chain.judge(judge).map_err(fail)
    });
    match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, steps)) => Err(format!("{reason}\nwith {steps:#?}").into()),
        Err(TestError::Abort(reason)) => Err(reason.to_string().into()),
    }
}

/// Turns wishes into entries that a layer can hold: one per path, directories above files, links to earlier files.
fn fitting(wanted: &[Copied], view: &View) -> Vec<LayerEntry> {
    let mut kinds: BTreeMap<ImagePath, &Copied> = BTreeMap::new();
    for copied in wanted {
        let path = ImagePath::new(&copied.path);
        let below_a_file =
            path.ancestors().iter().any(|above| kinds.get(above).is_some_and(|above| above.kind > 2));
        let above_something = kinds.keys().any(|other| *other != path && other.starts_with(&path));
        if !(below_a_file || above_something && copied.kind > 2) {
            kinds.insert(path, copied);
        }
    }
    let mut entries: BTreeMap<ImagePath, LayerEntry> = BTreeMap::new();
    let mut files: Vec<ImagePath> = Vec::new();
    for (path, copied) in kinds {
        for above in path.ancestors().into_iter().filter(|above| !above.is_root()) {
            let in_the_way =
                view.lstat(&above).expect("a look").is_some_and(|stat| stat.kind != EntryKind::Directory);
            if in_the_way && !entries.contains_key(&above) {
                let metadata = Metadata::of_root(0o711, 33);
                entries
                    .insert(above.clone(), LayerEntry { path: above, metadata, content: Content::Directory });
            }
        }
        let content = match copied.kind {
            0..=2 => Content::Directory,
            3 => {
                Content::Symlink(if copied.text.is_empty() { "b".into() } else { copied.text.clone().into() })
            }
            4 => match files.last() {
                Some(target) => Content::Hardlink(target.clone()),
                None => Content::Fifo,
            },
            5 => Content::CharDevice { major: 1, minor: 3 },
            6 => {
                let text = copied.text.repeat(100_000);
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(text.as_bytes()).expect("written");
                std::io::Seek::rewind(&mut file).expect("rewound");
                Content::File { size_bytes: text.len() as u64, open: Box::new(move || Ok(Box::new(file))) }
            }
            _ => Content::Bytes(copied.text.clone().into()),
        };
        let capability = (copied.capability && copied.kind >= 6).then(|| CAPABILITY.to_vec());
        let metadata = Metadata {
            mode: copied.mode,
            uid: copied.owner,
            gid: copied.owner / 2,
            mtime_s: copied.mtime_s,
            capability,
        };
        if copied.kind > 2 {
            files.push(path.clone());
        }
        entries.insert(path.clone(), LayerEntry { path, metadata, content });
    }
    entries.into_values().collect()
}

/// Makes one change below `merged`. Symbolic links are relative and never lead up, so nothing outside is reached.
fn apply(merged: &Path, change: &Change) {
    let at = |path: &String| merged.join(path);
    // Each change may be impossible in the tree as it is: then it is none.
    let _ = match change {
        Change::Write(path, text) => OpenOptions::new()
            .append(true)
            .create(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(at(path))
            .and_then(
                |mut file: File| {
                    if file.metadata()?.is_file() { file.write_all(text.as_bytes()) } else { Ok(()) }
                },
            ),
        Change::MakeDirectory(path) => fs::create_dir_all(at(path)),
        Change::Remove(path) => remove(&at(path)),
        Change::Replace(path) => remove(&at(path)).and_then(|()| fs::create_dir(at(path))),
        Change::Rename(from, to) => fs::rename(at(from), at(to)),
        Change::Link(from, to) => fs::hard_link(at(from), at(to)),
        Change::Symlink(to, path) => symlink(to, at(path)),
        Change::Mode(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)),
        Change::Owner(path, owner) => std::os::unix::fs::lchown(at(path), Some(*owner), Some(*owner)),
        Change::Time(path, mtime_s) => {
            let time = Timespec { tv_sec: *mtime_s, tv_nsec: 700_000_000 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, at(path), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into)
        }
        Change::Pipe(path) => {
            rustix::fs::mknodat(CWD, at(path), FileType::Fifo, Mode::RUSR, 0).map_err(Into::into)
        }
        Change::Device(path) => {
            let null = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(CWD, at(path), FileType::CharacterDevice, Mode::RUSR, null)
                .map_err(Into::into)
        }
        Change::Socket(path) => UnixListener::bind(at(path)).map(drop),
        Change::Capability(path) => attribute(&at(path), "security.capability", &CAPABILITY),
        Change::Attribute(path) => attribute(&at(path), "trusted.mine", b"1"),
    };
}

fn attribute(path: &Path, name: &str, value: &[u8]) -> std::io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?)
}

fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
