// SPDX-License-Identifier: Apache-2.0
//! What only root can put into a tree: foreign owners, capabilities, devices. As a plain user the trials are reported as
//! ignored.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed};
use pushless::context::{
    EntryKind, IgnoreFile, SelectedSource, SourceEntry, SourceTree, StatCache, SystemClock, select,
    selection_digest,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use shakedown_node::TestPlace;
use shakedown_testing::trial;

/// `cap_net_bind_service=ep`, as `setcap` writes it (`VFS_CAP_REVISION_2`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

type Body = fn() -> Result<(), Failed>;

const TRIALS: [(&str, Body); 4] = [
    ("owners_are_kept_in_a_root_file_system_and_dropped_in_a_context", owners),
    ("a_capability_is_found_on_any_regular_file", capability),
    ("a_capability_comes_from_the_cache_and_its_change_is_seen", cached_capability),
    ("devices_are_kept", devices),
];

fn main() -> ExitCode {
    let plain_user = shakedown_testing::root("give files away");
    let _place = TestPlace::enter().expect("a place");
    let trials = TRIALS.map(|(name, run)| trial(name, plain_user.as_deref(), run));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn take(tree: &SourceTree, cache: &StatCache, source: &str) -> Result<Vec<SelectedSource>, Failed> {
    Ok(select(tree, &[source], cache)?)
}

fn first(tree: &SourceTree, cache: &StatCache, source: &str) -> Result<SourceEntry, Failed> {
    let mut selection = take(tree, cache, source)?;
    Ok(selection.remove(0).entries.remove(0))
}

fn set_capability(path: &Path, value: &[u8]) -> Result<(), Failed> {
    Ok(rustix::fs::setxattr(path, "security.capability", value, XattrFlags::empty())?)
}

fn owners() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    std::fs::write(root.path().join("file"), "x")?;
    chown(root.path().join("file"), Some(1234), Some(5678))?;
    let cache = StatCache::disabled();
    let rootfs = first(&SourceTree::root_file_system(root.path())?, &cache, "file")?;
    let context = first(&SourceTree::build_context(root.path(), IgnoreFile::default())?, &cache, "file")?;
    assert_eq!((rootfs.uid, rootfs.gid), (1234, 5678));
    assert_eq!((context.uid, context.gid), (0, 0));
    Ok(())
}

fn capability() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    for name in ["plain", "capable", "directory/capable_too"] {
        std::fs::create_dir_all(root.path().join("directory"))?;
        std::fs::write(root.path().join(name), "x")?;
    }
    set_capability(&root.path().join("capable"), &CAPABILITY)?;
    set_capability(&root.path().join("directory/capable_too"), &CAPABILITY)?;
    for tree in [
        SourceTree::root_file_system(root.path())?,
        SourceTree::build_context(root.path(), IgnoreFile::default())?,
    ] {
        let selection = take(&tree, &StatCache::disabled(), ".")?;
        let found: Vec<(String, bool)> = selection[0]
            .entries
            .iter()
            .filter(|entry| entry.capability.as_deref() == Some(&CAPABILITY))
            .map(|entry| (entry.path.to_string(), entry.mode & 0o111 != 0))
            .collect();
        let expected = [("/capable".to_owned(), false), ("/directory/capable_too".to_owned(), false)];
        assert_eq!(found, expected);
    }
    Ok(())
}

fn cached_capability() -> Result<(), Failed> {
    let (root, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let path = root.path().join("file");
    std::fs::write(&path, "x")?;
    set_capability(&path, &CAPABILITY)?;
    std::thread::sleep(pushless::context::RACY_WINDOW);
    let tree = SourceTree::build_context(root.path(), IgnoreFile::default())?;
    let open = || StatCache::open(state.path(), tree.path(), Box::new(SystemClock));
    let cache = open();
    let before = take(&tree, &cache, "file")?;
    assert!(cache.save()?);
    let cache = open();
    let again = take(&tree, &cache, "file")?;
    assert_eq!(again[0].entries[0].capability.as_deref(), Some(&CAPABILITY[..]));
    assert_eq!(selection_digest(&again), selection_digest(&before));
    assert!(!cache.save()?, "nothing changed");
    rustix::fs::removexattr(&path, "security.capability")?;
    let without = take(&tree, &open(), "file")?;
    assert_eq!(without[0].entries[0].capability, None);
    assert_ne!(selection_digest(&without), selection_digest(&before));
    Ok(())
}

fn devices() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    for (name, file_type, device) in [
        ("char", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("block", FileType::BlockDevice, rustix::fs::makedev(259, 65537)),
    ] {
        rustix::fs::mknodat(CWD, root.path().join(name), file_type, Mode::RUSR | Mode::WUSR, device)?;
    }
    let tree = SourceTree::root_file_system(root.path())?;
    let cache = StatCache::disabled();
    assert_eq!(first(&tree, &cache, "char")?.kind, EntryKind::CharDevice { major: 1, minor: 3 });
    let block = first(&tree, &cache, "block")?;
    assert_eq!((block.kind, block.mode), (EntryKind::BlockDevice { major: 259, minor: 65537 }, 0o600));
    Ok(())
}
