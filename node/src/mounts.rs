// SPDX-License-Identifier: Apache-2.0
//! The mounts that this process sees, and unmounting everything below a directory.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

/// One line of `/proc/self/mountinfo` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) fs_type: String,
    pub(crate) source: String,
}

/// Every mount of this process's namespace, in the order in which they were made.
pub(crate) fn all() -> io::Result<Vec<Mount>> {
    Ok(fs::read("/proc/self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mounts at `dir` and below it.
pub(crate) fn below(dir: &Path) -> io::Result<Vec<Mount>> {
    let mut mounts = all()?;
    mounts.retain(|mount| mount.point.starts_with(dir));
    Ok(mounts)
}

/// Detaches every mount at `dir` and below, last made first.
pub(crate) fn unmount_below(dir: &Path) -> io::Result<()> {
    for mount in below(dir)?.iter().rev() {
        match rustix::mount::unmount(&mount.point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // An earlier detach took a whole tree along.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Reads `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`; `None` for an empty line.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    fields.find(|field| *field == b"-")?;
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(Mount { point: PathBuf::from(OsString::from_vec(unescape(point))), fs_type, source })
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            digits.iter().try_fold(0_u8, |value, digit| {
                let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
                value.checked_mul(8)?.checked_add(digit)
            })
        });
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_read() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 propagate_from:2 - overlay over rw";
        let wanted = Mount {
            point: PathBuf::from("/a b\\c"),
            fs_type: "overlay".to_owned(),
            source: "over".to_owned(),
        };
        assert_eq!(parse(line), Some(wanted));
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_root_is_among_the_mounts() {
        assert!(all().unwrap().iter().any(|mount| mount.point == Path::new("/")));
    }
}
