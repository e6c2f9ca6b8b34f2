// SPDX-License-Identifier: Apache-2.0
//! Names a selection by what a copy of it would look like.
//!
//! Two selections with the same digest give the same entries in the same destination. Modification times are not in it,
//! as in BuildKit (`cache/contenthash`): a fresh clone of a repository finds the layers of the old one. Unlike there,
//! which files are hard links of each other is in it, for the layer shows it.

use std::os::unix::ffi::OsStrExt;

use super::entry::{EntryKind, SelectedSource, SourceEntry, SourceKind};

/// Raised whenever the same selection would get another digest.
const VERSION: u8 = 1;

/// The digest of everything about `selection` that reaches the image, for the key of a step.
///
/// Every variable field has its length before it, every list its count, so no two selections run together.
pub fn selection_digest(selection: &[SelectedSource]) -> [u8; 32] {
    let mut hasher = Hasher(blake3::Hasher::new());
    hasher.0.update(&[VERSION]);
    hasher.number(selection.len() as u64);
    for source in selection {
        match source.kind {
            // Its contents are copied: what it is called does not show.
            SourceKind::Directory => hasher.number(0),
            SourceKind::File => {
                hasher.number(1);
                hasher.bytes(source.base_name.as_bytes());
            }
        }
        hasher.number(source.entries.len() as u64);
        // Groups are numbered through the whole selection; what shows is which entries of a source share one.
        let first_group =
            source.entries.iter().filter_map(|entry| entry.hardlink_group).min().map_or(0, |group| group.0);
        for entry in &source.entries {
            hasher.entry(entry, first_group);
        }
    }
    *hasher.0.finalize().as_bytes()
}

struct Hasher(blake3::Hasher);

impl Hasher {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.number(bytes.is_some().into());
        if let Some(bytes) = bytes {
            self.bytes(bytes);
        }
    }

    fn entry(&mut self, entry: &SourceEntry, first_group: u32) {
        self.bytes(entry.relative.relative().as_bytes());
        for number in [entry.mode, entry.uid, entry.gid] {
            self.number(number.into());
        }
        match &entry.kind {
            EntryKind::Directory => self.number(0),
            EntryKind::File { size_bytes } => {
                self.number(1);
                self.number(*size_bytes);
            }
            EntryKind::Symlink { target } => {
                self.number(2);
                self.bytes(target.as_bytes());
            }
            EntryKind::Fifo => self.number(3),
            EntryKind::CharDevice { major, minor } => {
                self.number(4);
                self.number((*major).into());
                self.number((*minor).into());
            }
            EntryKind::BlockDevice { major, minor } => {
                self.number(5);
                self.number((*major).into());
                self.number((*minor).into());
            }
        }
        self.optional(entry.capability.as_deref());
        self.optional(entry.digest.as_ref().map(|digest| &digest.0[..]));
        self.number(entry.hardlink_group.map_or(0, |group| u64::from(group.0 - first_group) + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use proptest::prelude::*;

    use super::*;
    use crate::context::{ContentDigest, HardlinkGroup, StatKey, Timestamp};
    use crate::image::ImagePath;

    fn stat() -> StatKey {
        let time = Timestamp::default();
        StatKey { size_bytes: 0, mode: 0, uid: 0, gid: 0, mtime: time, ctime: time, inode: 0, device: 0 }
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::Directory),
            (0..3u64).prop_map(|size_bytes| EntryKind::File { size_bytes }),
            "[ab]{0,2}".prop_map(|target| EntryKind::Symlink { target: target.into() }),
            Just(EntryKind::Fifo),
            (0..2u32, 0..2u32).prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
            (0..2u32, 0..2u32).prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
        ]
    }

    prop_compose! {
        /// Few values per field, so that neighbours often differ in one field alone.
        fn entry()(
            relative in "(a|b|ab)(/(a|b|ab)){0,1}",
            kind in kind(),
            mode in prop::sample::select(vec![0o644u32, 0o755, 0o4755]),
            (uid, gid) in (0..2u32, 0..2u32),
            capability in prop::option::of(prop::collection::vec(any::<bool>().prop_map(u8::from), 0..2)),
            digest in prop::option::of(any::<bool>().prop_map(|bit| ContentDigest([bit.into(); 32]))),
            group in prop::option::of(0..2u32),
            mtime_s in 0..2i64,
        ) -> SourceEntry {
            SourceEntry {
                relative: ImagePath::new(relative), path: ImagePath::root(), kind, mode, uid, gid, mtime_s, capability,
                hardlink_group: group.map(HardlinkGroup), digest, stat: stat(),
            }
        }
    }

    prop_compose! {
        fn selection()(
            sources in prop::collection::vec(
                (any::<bool>(), "[ab]{1,2}", prop::collection::vec(entry(), 0..3)),
                0..3,
            ),
        ) -> Vec<SelectedSource> {
            sources.into_iter().map(|(directory, name, entries)| SelectedSource {
                pattern: OsString::new(),
                base_name: name.into(),
                kind: if directory { SourceKind::Directory } else { SourceKind::File },
                entries,
            }).collect()
        }
    }

    /// What a copy shows of a selection, to compare with.
    fn shown(mut selection: Vec<SelectedSource>) -> Vec<SelectedSource> {
        for source in &mut selection {
            if source.kind == SourceKind::Directory {
                source.base_name.clear();
            }
            let first = source.entries.iter().filter_map(|entry| entry.hardlink_group).min();
            for entry in &mut source.entries {
                entry.mtime_s = 0;
                if let (Some(group), Some(first)) = (&mut entry.hardlink_group, first) {
                    group.0 -= first.0;
                }
            }
        }
        selection
    }

    /// Every way to change one field of an entry that shows.
    fn changes(entry: &SourceEntry) -> Vec<SourceEntry> {
        let with = |change: &dyn Fn(&mut SourceEntry)| {
            let mut changed = entry.clone();
            change(&mut changed);
            changed
        };
        let mut out = vec![
            with(&|entry| entry.relative = entry.relative.child("x".as_ref())),
            with(&|entry| entry.mode ^= 0o1),
            with(&|entry| entry.mode ^= 0o4000),
            with(&|entry| entry.uid += 1),
            with(&|entry| entry.gid += 1),
            with(&|entry| entry.capability.get_or_insert_default().push(7)),
            with(&|entry| {
                entry.digest = match entry.digest {
                    Some(ContentDigest(mut bytes)) => {
                        bytes[31] ^= 1;
                        Some(ContentDigest(bytes))
                    }
                    None => Some(ContentDigest([0; 32])),
                };
            }),
            with(&|entry| {
                entry.kind = match &entry.kind {
                    EntryKind::Directory => EntryKind::Fifo,
                    EntryKind::File { size_bytes } => EntryKind::File { size_bytes: size_bytes + 1 },
                    EntryKind::Symlink { target } => {
                        let mut target = target.clone();
                        target.push("x");
                        EntryKind::Symlink { target }
                    }
                    EntryKind::Fifo => EntryKind::Directory,
                    EntryKind::CharDevice { major, minor } => {
                        EntryKind::CharDevice { major: major + 1, minor: *minor }
                    }
                    EntryKind::BlockDevice { major, minor } => {
                        EntryKind::BlockDevice { major: *major, minor: minor + 1 }
                    }
                };
            }),
        ];
        if let EntryKind::CharDevice { major, minor } = entry.kind {
            out.push(with(&|entry| entry.kind = EntryKind::BlockDevice { major, minor }));
        }
        out
    }

    proptest! {
        #[test]
        fn one_changed_field_changes_it(selection in selection(), which in any::<prop::sample::Index>()) {
            let before = selection_digest(&selection);
            let places: Vec<(usize, usize)> = selection.iter().enumerate()
                .flat_map(|(source, selected)| (0..selected.entries.len()).map(move |entry| (source, entry)))
                .collect();
            if places.is_empty() {
                return Ok(());
            }
            let (source, entry) = places[which.index(places.len())];
            for changed in changes(&selection[source].entries[entry]) {
                let mut other = selection.clone();
                other[source].entries[entry] = changed;
                prop_assert_ne!(selection_digest(&other), before, "{:?}", other);
            }
        }

        #[test]
        fn the_times_do_not(selection in selection(), mtime_s in any::<i64>()) {
            let before = selection_digest(&selection);
            let mut other = selection;
            for entry in other.iter_mut().flat_map(|source| &mut source.entries) {
                entry.mtime_s = mtime_s;
                entry.stat.mtime.seconds = mtime_s;
                entry.stat.inode ^= 1;
                entry.path = ImagePath::new("elsewhere");
            }
            prop_assert_eq!(selection_digest(&other), before);
        }

        #[test]
        fn equal_exactly_when_the_same_shows(left in selection(), right in selection()) {
            prop_assert_eq!(
                selection_digest(&left) == selection_digest(&right),
                shown(left) == shown(right)
            );
        }
    }

    #[test]
    fn the_format_is_what_it_was() {
        let entry = SourceEntry {
            relative: ImagePath::new("a"),
            path: ImagePath::root(),
            kind: EntryKind::File { size_bytes: 1 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            capability: None,
            hardlink_group: None,
            digest: Some(ContentDigest(*blake3::hash(b"x").as_bytes())),
            stat: stat(),
        };
        let source = SelectedSource {
            pattern: OsString::new(),
            base_name: "a".into(),
            kind: SourceKind::File,
            entries: vec![entry],
        };
        // When this fails, the version above must be raised, and people's caches miss once.
        assert_eq!(
            blake3::Hash::from_bytes(selection_digest(&[source])).to_hex().as_str(),
            "844e6b4a4e8e0abcfa3f3e2bacc3c6fb2ee1bc3c060c207d76dbb0ee653cf419"
        );
    }
}
