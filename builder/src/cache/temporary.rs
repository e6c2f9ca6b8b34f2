// SPDX-License-Identifier: Apache-2.0
//! Names for files that are renamed into place.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};

/// A hidden name in the directory of `path` that nobody else uses.
///
/// A process id would not do: every build is PID 1 of a namespace of its own.
pub(super) fn beside(path: &Path) -> PathBuf {
    // RandomState is seeded by the kernel's random numbers, and differently each time.
    let number = RandomState::new().build_hasher().finish();
    path.with_file_name(format!(".{number:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_stay_in_the_directory() {
        let (one, two) = (beside(Path::new("/a/b")), beside(Path::new("/a/b")));
        assert_ne!(one, two);
        assert_eq!(one.parent(), Some(Path::new("/a")));
    }
}
