// SPDX-License-Identifier: Apache-2.0

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::super::stat_cache_file::FormatError;
use super::*;
use crate::context::{IgnoreFile, SourceTree, select};

/// A clock that stands still until it is set.
#[derive(Debug, Clone, Default)]
struct FakeClock(Arc<AtomicI64>);

impl FakeClock {
    fn at(seconds: i64) -> Self {
        Self(Arc::new(AtomicI64::new(seconds)))
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0.load(Ordering::Relaxed), nanoseconds: 0 }
    }
}

/// A context with one file, a state directory, and a clock relative to the file's last change.
struct Fixture {
    context: tempfile::TempDir,
    state: tempfile::TempDir,
}

const WRONG: ContentDigest = ContentDigest([0xEE; 32]);

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            context: tempfile::tempdir().expect("temp dir"),
            state: tempfile::tempdir().expect("temp dir"),
        };
        std::fs::write(fixture.context.path().join("file"), "contents").expect("write");
        fixture
    }

    fn changed_at(&self) -> i64 {
        std::fs::metadata(self.context.path().join("file")).expect("stat").ctime()
    }

    fn tree(&self) -> SourceTree {
        SourceTree::build_context(self.context.path(), IgnoreFile::default()).expect("opens")
    }

    fn cache(&self, now: i64) -> StatCache {
        StatCache::open(self.state.path(), self.tree().path(), Box::new(FakeClock::at(now)))
    }

    fn digest(&self, cache: &StatCache) -> ContentDigest {
        let selection = select(&self.tree(), &["file"], cache).expect("selects");
        selection[0].entries[0].digest.expect("a file has one")
    }

    /// Where the records are.
    fn file(&self) -> PathBuf {
        let mut entries = std::fs::read_dir(self.state.path().join("stat-cache")).expect("exists");
        let path = entries.next().expect("one root").expect("readable").path();
        assert!(entries.next().is_none(), "one file per root, and no temporary one left");
        path
    }
}

/// Gives every record a digest that no file has: whoever returns it did not read the file.
fn poison(cache: &StatCache) {
    for record in cache.lock().records.values_mut() {
        record.digest = WRONG;
    }
}

fn right() -> ContentDigest {
    ContentDigest(*blake3::hash(b"contents").as_bytes())
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let fixture = Fixture::new();
    let cache = fixture.cache(fixture.changed_at() + 10);
    assert_eq!(fixture.digest(&cache), right());
    poison(&cache);
    assert_eq!(fixture.digest(&cache), WRONG, "the record was not used");
    assert!(cache.save().expect("saves"));
    let later = fixture.cache(fixture.changed_at() + 20);
    assert_eq!(fixture.digest(&later), WRONG, "the record was not kept");
}

#[test]
fn a_file_that_changed_is() {
    let fixture = Fixture::new();
    let path = fixture.context.path().join("file");
    let cache = fixture.cache(fixture.changed_at() + 10);
    fixture.digest(&cache);
    poison(&cache);
    let modified = std::fs::metadata(&path).expect("stat").modified().expect("mtime");
    std::thread::sleep(Duration::from_millis(20));
    // Same size, same inode, modification time put back.
    std::fs::write(&path, "CONTENTS").expect("write");
    std::fs::File::options().write(true).open(&path).expect("open").set_modified(modified).expect("utimens");
    assert_eq!(fixture.digest(&cache), ContentDigest(*blake3::hash(b"CONTENTS").as_bytes()));
}

#[test]
fn a_racy_record_is_not_trusted() {
    let fixture = Fixture::new();
    let ctime = fixture.changed_at();
    for (after_s, trusted) in [(-5, false), (0, false), (1, false), (2, false), (3, true), (10, true)] {
        // The fraction of a second of the change time lies between 0 and 1: at 2 the window may still be open.
        let nanoseconds = std::fs::metadata(fixture.context.path().join("file")).expect("stat").ctime_nsec();
        let trusted = trusted || (after_s == 2 && nanoseconds == 0);
        let cache = fixture.cache(ctime + after_s);
        assert_eq!(fixture.digest(&cache), right());
        poison(&cache);
        let again = fixture.digest(&cache);
        assert_eq!(again, if trusted { WRONG } else { right() }, "hashed {after_s} s after the change");
    }
}

#[test]
fn the_moment_of_hashing_is_kept_with_the_record() {
    let fixture = Fixture::new();
    let racy = fixture.cache(fixture.changed_at() + 1);
    fixture.digest(&racy);
    poison(&racy);
    racy.save().expect("saves");
    // Time has passed, but the record is as racy as it was.
    let later = fixture.cache(fixture.changed_at() + 100);
    assert_eq!(fixture.digest(&later), right());
    poison(&later);
    assert_eq!(fixture.digest(&later), WRONG, "hashed again, it is not racy any more");
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let fixture = Fixture::new();
    let cache = fixture.cache(fixture.changed_at() + 10);
    assert!(!cache.save().expect("saves"), "nothing known");
    assert!(!fixture.state.path().join("stat-cache").exists());
    fixture.digest(&cache);
    assert!(cache.save().expect("saves"));
    let inode = std::fs::metadata(fixture.file()).expect("stat").ino();
    assert!(!cache.save().expect("saves"), "saved already");
    let later = fixture.cache(fixture.changed_at() + 20);
    fixture.digest(&later);
    assert!(!later.save().expect("saves"));
    assert_eq!(std::fs::metadata(fixture.file()).expect("stat").ino(), inode);
}

#[test]
fn one_small_racy_file_is_not_worth_a_write() {
    let fixture = Fixture::new();
    let racy = fixture.cache(fixture.changed_at());
    fixture.digest(&racy);
    assert!(racy.save().expect("saves"), "it is new");
    let again = fixture.cache(fixture.changed_at() + 10);
    fixture.digest(&again);
    assert!(!again.save().expect("saves"), "hashed again, with the same outcome");
    for number in 0..REFRESHED_FILES {
        std::fs::write(fixture.context.path().join(format!("{number}")), "x").expect("write");
    }
    let all = |now: i64| {
        let cache = fixture.cache(now);
        select(&fixture.tree(), &["."], &cache).expect("selects");
        cache.save().expect("saves")
    };
    let now = fixture.changed_at();
    assert!(all(now), "new files");
    assert!(all(now + 1000), "many racy files, now trusted");
    assert!(!all(now + 1000), "which were written");
}

#[test]
fn a_file_that_is_not_whole_is_ignored() {
    let fixture = Fixture::new();
    let cache = fixture.cache(fixture.changed_at() + 10);
    fixture.digest(&cache);
    cache.save().expect("saves");
    let whole = std::fs::read(fixture.file()).expect("read");
    assert_eq!(decode(&whole).expect("whole").len(), 1);
    for end in 0..whole.len() {
        assert!(decode(&whole[..end]).is_err(), "cut at {end}");
    }
    for index in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[index] ^= 1;
        assert!(decode(&flipped).is_err(), "flipped at {index}");
    }
    let mut other = whole.clone();
    other[7] += 1;
    assert_eq!(decode(&other).err(), Some(FormatError::Version));
    for bytes in [&other[..], b"", b"garbage", &whole[..whole.len() / 2]] {
        std::fs::write(fixture.file(), bytes).expect("write");
        let cache = fixture.cache(fixture.changed_at() + 20);
        assert_eq!(fixture.digest(&cache), right());
        assert!(cache.save().expect("saves"), "it is built anew");
    }
    std::fs::remove_file(fixture.file()).expect("rm");
    std::fs::create_dir(fixture.state.path().join("stat-cache").join("x")).expect("mkdir");
    let cache = fixture.cache(0);
    assert_eq!(fixture.digest(&cache), right(), "a missing file is no matter");
}

#[test]
fn a_count_that_lies_asks_for_no_memory() {
    let mut bytes = encode(&HashMap::new());
    bytes.truncate(bytes.len() - 32);
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    assert_eq!(decode(&bytes).err(), Some(FormatError::Torn));
}

#[test]
fn records_round_trip() {
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    let record = Record {
        key: StatKey {
            size_bytes: 1 << 40,
            mode: 0o104_755,
            uid: 1,
            gid: u32::MAX,
            mtime: time(-1, 999_999_999),
            ctime: time(5, 6),
            inode: u64::MAX,
            device: 7,
        },
        hashed_at: time(8, 9),
        digest: WRONG,
        capability: Some(Box::from(&b"\x01\x00\x00\x02"[..])),
        seen: false,
    };
    let mut records = HashMap::new();
    records.insert(Box::from(&b"a/\xff"[..]), record.clone());
    records.insert(Box::from(&b""[..]), Record { capability: None, ..record });
    assert_eq!(decode(&encode(&records)), Ok(records));
}

#[test]
fn what_nobody_asks_for_is_dropped_in_the_end() {
    let fixture = Fixture::new();
    let now = fixture.changed_at() + 10;
    let cache = fixture.cache(now);
    fixture.digest(&cache);
    cache.save().expect("saves");
    std::fs::write(fixture.context.path().join("other"), "other").expect("write");
    for (later, kept) in [(now + 60, 2), (now + 60 + KEPT_UNSEEN_S, 1)] {
        let cache = fixture.cache(later);
        std::fs::write(fixture.context.path().join("other"), format!("{later}")).expect("write");
        select(&fixture.tree(), &["other"], &cache).expect("selects");
        assert!(cache.save().expect("saves"));
        assert_eq!(decode(&std::fs::read(fixture.file()).expect("read")).expect("whole").len(), kept);
    }
}

#[test]
fn writers_at_the_same_time_leave_a_whole_file() {
    let fixture = Fixture::new();
    let now = fixture.changed_at() + 10;
    fixture.digest(&fixture.cache(now));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let fixture = &fixture;
            scope.spawn(move || {
                for round in 0..25 {
                    let cache = fixture.cache(now + i64::from(round * 4 + writer));
                    fixture.digest(&cache);
                    cache.lock().changed = true;
                    cache.save().expect("saves");
                    let bytes = std::fs::read(fixture.file_unchecked()).expect("read");
                    assert_eq!(decode(&bytes).expect("whole").len(), 1);
                }
            });
        }
    });
    fixture.file();
}

impl Fixture {
    fn file_unchecked(&self) -> PathBuf {
        let name = blake3::hash(self.tree().path().as_os_str().as_bytes()).to_hex();
        self.state.path().join("stat-cache").join(name.as_str())
    }
}

#[test]
fn a_disabled_cache_learns_nothing() {
    let fixture = Fixture::new();
    let cache = StatCache::disabled();
    assert_eq!(fixture.digest(&cache), right());
    assert!(cache.lock().records.is_empty());
    assert!(!cache.save().expect("saves"));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_an_error() {
    let fixture = Fixture::new();
    std::fs::write(fixture.state.path().join("stat-cache"), "in the way").expect("write");
    let cache = fixture.cache(fixture.changed_at() + 10);
    fixture.digest(&cache);
    let error = cache.save().expect_err("not a directory");
    assert!(error.to_string().starts_with("write stat cache /"), "{error}");
}
