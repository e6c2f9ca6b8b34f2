// SPDX-License-Identifier: Apache-2.0
//! Which ids a `USER` instruction means, given the image's `/etc/passwd` and `/etc/group`.
//!
//! Pure. The rules are BuildKit's (`executor/oci/user.go` and moby/sys `user.GetExecUser`, as of 0.30): two numbers are
//! taken as they are; otherwise the user is looked up, and a number that is found nowhere is fine while a name is
//! not. The primary group is also the first supplementary one.

/// The ids that a process gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary one first.
    pub supplementary: Vec<u32>,
    /// The home directory that `/etc/passwd` gives, `/` without an entry.
    pub home: String,
}

impl ResolvedUser {
    /// Root, as in an image without `USER`.
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, supplementary: vec![0], home: "/".to_owned() }
    }
}

/// Why a `USER` cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name that no line of `/etc/passwd` has.
    #[error("find user {name}: no matching entries in passwd file")]
    UnknownUser {
        /// As written.
        name: String,
    },
    /// A name that no line of `/etc/group` has.
    #[error("find group {name}: no matching entries in group file")]
    UnknownGroup {
        /// As written.
        name: String,
    },
    /// Ids end at 2147483647.
    #[error("use id {id}: uids and gids must be in range 0-2147483647")]
    OutOfRange {
        /// As written.
        id: String,
    },
}

struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// Resolves `spec`, one of ``, `user`, `user:group`, each part a name or a number. Absent files are given as empty.
///
/// # Errors
/// [`UserError`].
pub fn resolve_user(spec: &str, passwd: &[u8], group: &[u8]) -> Result<ResolvedUser, UserError> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, group)) => (user, group),
        None => (spec, ""),
    };
    if let (Some(uid), Some(gid)) = (plain_id(user), plain_id(wanted_group)) {
        return Ok(ResolvedUser { uid, gid, supplementary: vec![gid], home: "/".to_owned() });
    }
    let user_id = user.parse::<i64>().ok();
    let account = accounts(passwd).find(|account| match user_id {
        _ if user.is_empty() => account.uid == 0,
        Some(id) => i64::from(account.uid) == id,
        None => account.name == user.as_bytes(),
    });
    let (uid, primary) = match (&account, user_id) {
        (Some(account), _) => (account.uid, account.gid),
        (None, _) if user.is_empty() => (0, 0),
        (None, Some(id)) => (in_range(id, user)?, 0),
        (None, None) => return Err(UserError::UnknownUser { name: user.to_owned() }),
    };
    let (gid, others) = if wanted_group.is_empty() {
        let member_of = account.as_ref().map_or_else(Vec::new, |account| {
            groups(group)
                .filter(|group| group.members.split(|byte| *byte == b',').any(|name| name == account.name))
                .map(|group| group.gid)
                .collect()
        });
        (primary, member_of)
    } else {
        (resolve_group(wanted_group, group)?, Vec::new())
    };
    let mut supplementary = vec![gid];
    for other in others {
        if !supplementary.contains(&other) {
            supplementary.push(other);
        }
    }
    let home = account.map_or_else(|| "/".into(), |account| String::from_utf8_lossy(account.home));
    Ok(ResolvedUser { uid, gid, supplementary, home: home.into_owned() })
}

/// An id that needs no look-up when both parts are one. BuildKit takes `root` for a number here.
fn plain_id(part: &str) -> Option<u32> {
    if part == "root" { Some(0) } else { part.parse().ok() }
}

fn resolve_group(wanted: &str, group: &[u8]) -> Result<u32, UserError> {
    let id = wanted.parse::<i64>().ok();
    let found = groups(group).find(|group| match id {
        Some(id) => i64::from(group.gid) == id,
        None => group.name == wanted.as_bytes(),
    });
    match (found, id) {
        (Some(group), _) => Ok(group.gid),
        (None, Some(id)) => in_range(id, wanted),
        (None, None) => Err(UserError::UnknownGroup { name: wanted.to_owned() }),
    }
}

fn in_range(id: i64, written: &str) -> Result<u32, UserError> {
    i32::try_from(id)
        .ok()
        .and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| UserError::OutOfRange { id: written.to_owned() })
}

/// Lines that are not an account are passed over, as the C library does.
fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    lines(passwd).filter_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        let home = fields.get(5).copied().filter(|home| !home.is_empty()).unwrap_or(b"/");
        Some(Account { name: fields[0], uid: number(fields.get(2)?)?, gid: number(fields.get(3)?)?, home })
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        let members = fields.get(3).copied().unwrap_or_default();
        Some(Group { name: fields[0], gid: number(fields.get(2)?)?, members })
    })
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

fn number(field: &&[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"# accounts\nroot:x:0:0:root:/root:/bin/sh\n\nbroken line\ndaemon:x:1:1::/usr/sbin:\n\
        app:x:1000:2000:App:/srv/app:/bin/false\n1234:x:77:78::/odd:\nnohome:x:5:5::\n";
    const GROUP: &[u8] =
        b"root:x:0:\nwheel:x:10:root,app\napp:x:2000:\nvideo:x:44:app\nbad:x:y:app\n42:x:4242:\n";

    fn resolve(spec: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        resolve_user(spec, PASSWD, GROUP)
            .map(|user| (user.uid, user.gid, user.supplementary, user.home))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn users_and_groups() {
        for (spec, uid, gid, supplementary, home) in [
            ("", 0, 0, vec![0, 10], "/root"),
            ("root", 0, 0, vec![0, 10], "/root"),
            ("0", 0, 0, vec![0, 10], "/root"),
            ("app", 1000, 2000, vec![2000, 10, 44], "/srv/app"),
            ("1000", 1000, 2000, vec![2000, 10, 44], "/srv/app"),
            ("app:wheel", 1000, 10, vec![10], "/srv/app"),
            ("app:0", 1000, 0, vec![0], "/srv/app"),
            ("app:31337", 1000, 31337, vec![31337], "/srv/app"),
            // Two numbers are not looked up at all, so the home directory is not known either.
            ("1000:2000", 1000, 2000, vec![2000], "/"),
            ("4294967295:4294967295", u32::MAX, u32::MAX, vec![u32::MAX], "/"),
            ("1000:app", 1000, 2000, vec![2000], "/srv/app"),
            ("4711", 4711, 0, vec![0], "/"),
            ("4711:wheel", 4711, 10, vec![10], "/"),
            // Digits are an id even where an account has them for its name.
            ("1234", 1234, 0, vec![0], "/"),
            ("daemon:42", 1, 42, vec![42], "/usr/sbin"),
            ("root:42", 0, 42, vec![42], "/"),
            ("app:", 1000, 2000, vec![2000, 10, 44], "/srv/app"),
            (":wheel", 0, 10, vec![10], "/root"),
            ("nohome", 5, 5, vec![5], "/"),
        ] {
            assert_eq!(resolve(spec), Ok((uid, gid, supplementary, home.to_owned())), "{spec}");
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        for (spec, message) in [
            ("nobody", "find user nobody: no matching entries in passwd file"),
            ("broken line", "find user broken line: no matching entries in passwd file"),
            ("app:staff", "find group staff: no matching entries in group file"),
            ("app:bad", "find group bad: no matching entries in group file"),
            ("-1", "use id -1: uids and gids must be in range 0-2147483647"),
            ("2147483648", "use id 2147483648: uids and gids must be in range 0-2147483647"),
            ("app:-5", "use id -5: uids and gids must be in range 0-2147483647"),
        ] {
            assert_eq!(resolve(spec), Err(message.to_owned()), "{spec}");
        }
    }

    #[test]
    fn without_files_only_numbers_and_root_by_default() {
        assert_eq!(resolve_user("", b"", b""), Ok(ResolvedUser::root()));
        assert_eq!(resolve_user("7", b"", b"").map(|user| (user.uid, user.gid)), Ok((7, 0)));
        assert_eq!(resolve_user("root:root", b"", b""), Ok(ResolvedUser::root()));
        // On its own `root` is looked up like any other name.
        assert!(resolve_user("root", b"", b"").is_err());
    }
}
