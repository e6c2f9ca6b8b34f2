// SPDX-License-Identifier: Apache-2.0
//! Where containerd listens, and in which namespace and with which snapshotter to work.
//!
//! The same variables as nerdctl's are read. Everything that is looked at is a value of [`Discovery`], the environment
//! included, so the rules can be tested without touching the process. This module looks at files but makes no call.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// Sockets of containerd itself and of the distributions that bring their own, in the order they are looked for.
pub const DEFAULT_SOCKETS: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/k0s/containerd.sock",
];

/// The namespace that Kubernetes reads.
pub const KUBERNETES_NAMESPACE: &str = "k8s.io";

/// The one snapshotter that is supported.
pub const OVERLAYFS: &str = "overlayfs";

/// The variables that are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `CONTAINERD_ADDRESS`.
    pub address: Option<OsString>,
    /// `CONTAINERD_NAMESPACE`.
    pub namespace: Option<OsString>,
    /// `CONTAINERD_SNAPSHOTTER`.
    pub snapshotter: Option<OsString>,
}

impl Environment {
    /// The variables of this process. One that is set to nothing counts as unset, as with nerdctl.
    pub fn of_process() -> Self {
        let read = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            address: read("CONTAINERD_ADDRESS"),
            namespace: read("CONTAINERD_NAMESPACE"),
            snapshotter: read("CONTAINERD_SNAPSHOTTER"),
        }
    }
}

/// What was asked for, by flag and by environment.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// `--address`: a path, or `unix://` and a path.
    pub address: Option<OsString>,
    /// `--namespace`.
    pub namespace: Option<String>,
    /// `--snapshotter`.
    pub snapshotter: Option<String>,
    /// What the environment says.
    pub environment: Environment,
    /// Where to look when nobody says anything: [`DEFAULT_SOCKETS`].
    pub candidates: Vec<PathBuf>,
}

/// What is wrong with a path that should be containerd's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketProblem {
    /// Nothing is there.
    Missing,
    /// Something else is there.
    NotASocket,
    /// This user may not connect to it, or not even look.
    PermissionDenied,
    /// It is there, and nothing listens.
    Refused,
    /// It can be connected to; the connection broke.
    Lost,
}

impl SocketProblem {
    /// The remedy, where one is known.
    pub fn help(self) -> Option<&'static str> {
        match self {
            Self::Missing => {
                Some("start containerd, or name its socket with --address or CONTAINERD_ADDRESS")
            }
            Self::NotASocket => Some("name containerd's socket with --address or CONTAINERD_ADDRESS"),
            Self::PermissionDenied => Some("run the command as root: sudo pushless ..."),
            Self::Refused => Some("start containerd"),
            Self::Lost => None,
        }
    }
}

impl fmt::Display for SocketProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Missing => "no such file",
            Self::NotASocket => "not a socket",
            Self::PermissionDenied => "permission denied",
            Self::Refused => "nothing listens there",
            Self::Lost => "the connection broke",
        })
    }
}

/// Why it is not clear what to connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// No path that was looked at can be used.
    #[error("find containerd: {}", tried.iter().map(|(path, problem)| format!("{}: {problem}", path.display())).collect::<Vec<_>>().join(", "))]
    NoSocket {
        /// Each path with what is wrong with it.
        tried: Vec<(PathBuf, SocketProblem)>,
    },
    /// The address is of a kind that is not supported.
    #[error("use containerd address {address:?}: only a path or unix:// and a path are supported")]
    Address {
        /// The address as given.
        address: OsString,
    },
    /// A variable is not text.
    #[error("read {variable}: {value:?} is not UTF-8")]
    NotText {
        /// The variable's name.
        variable: &'static str,
        /// Its value.
        value: OsString,
    },
    /// Only overlayfs is supported.
    #[error("use snapshotter {snapshotter:?}: only {OVERLAYFS} is supported")]
    Unsupported {
        /// The snapshotter that was asked for, or that CRI uses.
        snapshotter: String,
    },
    /// Images that are unpacked elsewhere would be invisible to pods.
    #[error(
        "use snapshotter {asked:?}: pods of namespace {KUBERNETES_NAMESPACE} run from CRI's snapshotter, {cri:?}"
    )]
    Mismatch {
        /// The snapshotter that was asked for.
        asked: String,
        /// CRI's own.
        cri: String,
    },
}

impl DiscoveryError {
    /// The remedy, where one is known. Permission comes first: another user may find the rest in order.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoSocket { tried } => tried
                .iter()
                .map(|(_, problem)| *problem)
                .find(|problem| *problem == SocketProblem::PermissionDenied)
                .or(tried.first().map(|(_, problem)| *problem))
                .and_then(SocketProblem::help),
            Self::Unsupported { .. } => Some("use containerd's overlayfs snapshotter"),
            Self::Mismatch { .. } => Some("leave out --snapshotter and CONTAINERD_SNAPSHOTTER"),
            Self::Address { .. } | Self::NotText { .. } => None,
        }
    }
}

impl Discovery {
    /// What this process was told, with nothing given by flags.
    pub fn of_process() -> Self {
        Self {
            address: None,
            namespace: None,
            snapshotter: None,
            environment: Environment::of_process(),
            candidates: DEFAULT_SOCKETS.map(PathBuf::from).into(),
        }
    }

    /// containerd's socket: the flag, else `CONTAINERD_ADDRESS`, else the first known place where something is.
    ///
    /// # Errors
    /// [`DiscoveryError::NoSocket`] when what was named, or every known place, cannot be connected to.
    pub fn address(&self) -> Result<PathBuf, DiscoveryError> {
        if let Some(named) = self.address.as_ref().or(self.environment.address.as_ref()) {
            let path = socket_path(named)?;
            return match probe(&path) {
                Ok(()) => Ok(path),
                Err(problem) => Err(DiscoveryError::NoSocket { tried: vec![(path, problem)] }),
            };
        }
        let mut tried = Vec::new();
        for path in &self.candidates {
            match probe(path) {
                Ok(()) => return Ok(path.clone()),
                Err(problem) => tried.push((path.clone(), problem)),
            }
        }
        Err(DiscoveryError::NoSocket { tried })
    }

    /// The namespace: the flag, else `CONTAINERD_NAMESPACE`, else `k8s.io`.
    ///
    /// # Errors
    /// [`DiscoveryError::NotText`].
    pub fn namespace(&self) -> Result<String, DiscoveryError> {
        let given = choose(&self.namespace, "CONTAINERD_NAMESPACE", &self.environment.namespace)?;
        Ok(given.unwrap_or_else(|| KUBERNETES_NAMESPACE.to_owned()))
    }

    /// Checks the snapshotter that was asked for, by the flag or by `CONTAINERD_SNAPSHOTTER`, without any call.
    /// `None`: nothing was asked for.
    ///
    /// # Errors
    /// [`DiscoveryError::Unsupported`] for any but overlayfs, [`DiscoveryError::NotText`].
    pub fn snapshotter(&self) -> Result<Option<String>, DiscoveryError> {
        let asked = choose(&self.snapshotter, "CONTAINERD_SNAPSHOTTER", &self.environment.snapshotter)?;
        match asked {
            Some(snapshotter) if snapshotter != OVERLAYFS => Err(DiscoveryError::Unsupported { snapshotter }),
            asked => Ok(asked),
        }
    }

    /// Checks CRI's own snapshotter (from [`super::Cri::snapshotter`]) against what was asked for. `None`: CRI is not
    /// there or does not tell.
    ///
    /// # Errors
    /// [`DiscoveryError::Mismatch`] when something else was asked for, [`DiscoveryError::Unsupported`] when CRI's is
    /// not overlayfs.
    pub fn check_cri_snapshotter(&self, cri: Option<&str>) -> Result<(), DiscoveryError> {
        match (cri, self.snapshotter()?) {
            (None, _) => Ok(()),
            (Some(cri), Some(asked)) if cri != asked => {
                Err(DiscoveryError::Mismatch { asked, cri: cri.to_owned() })
            }
            (Some(OVERLAYFS), _) => Ok(()),
            (Some(cri), _) => Err(DiscoveryError::Unsupported { snapshotter: cri.to_owned() }),
        }
    }
}

/// Looks at a socket without connecting.
///
/// # Errors
/// [`SocketProblem`]: missing, something else, or not permitted. That something listens is not checked.
pub fn probe(path: &Path) -> Result<(), SocketProblem> {
    let problem = |error: &io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => SocketProblem::PermissionDenied,
        // A file where a directory should be, or a loop of links: there is no socket of that name either.
        _ => SocketProblem::Missing,
    };
    let found = std::fs::metadata(path).map_err(|error| problem(&error))?;
    if !found.file_type().is_socket() {
        return Err(SocketProblem::NotASocket);
    }
    // connect(2) wants write permission on the socket.
    rustix::fs::access(path, Access::WRITE_OK).map_err(|error| problem(&error.into()))
}

/// What is wrong with a socket that could not be used, by trying to connect.
pub(super) fn diagnose(path: &Path) -> SocketProblem {
    if let Err(problem) = probe(path) {
        return problem;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => SocketProblem::Lost,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => SocketProblem::Refused,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => SocketProblem::PermissionDenied,
        Err(_) => SocketProblem::Missing,
    }
}

fn socket_path(address: &OsString) -> Result<PathBuf, DiscoveryError> {
    let bytes = address.as_bytes();
    let path = bytes.strip_prefix(b"unix://").unwrap_or(bytes);
    // `tcp://`, `npipe://`; a path with a colon in it is a path.
    if path.is_empty() || path.windows(3).any(|part| part == b"://") {
        return Err(DiscoveryError::Address { address: address.clone() });
    }
    Ok(PathBuf::from(OsString::from_vec(path.to_vec())))
}

fn choose(
    flag: &Option<String>,
    variable: &'static str,
    value: &Option<OsString>,
) -> Result<Option<String>, DiscoveryError> {
    if let Some(flag) = flag {
        return Ok(Some(flag.clone()));
    }
    value
        .as_ref()
        .map(|value| match value.to_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(DiscoveryError::NotText { variable, value: value.clone() }),
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn nothing() -> Discovery {
        Discovery {
            address: None,
            namespace: None,
            snapshotter: None,
            environment: Environment::default(),
            candidates: Vec::new(),
        }
    }

    #[test]
    fn the_flag_wins_over_the_environment_and_that_over_the_known_places() {
        let dir = tempfile::tempdir().unwrap();
        let [flag, variable, known] = ["flag", "variable", "known"].map(|name| dir.path().join(name));
        let _listeners = [&flag, &variable, &known].map(|path| UnixListener::bind(path).unwrap());
        let mut discovery = nothing();
        discovery.candidates = vec![dir.path().join("absent"), known.clone()];
        assert_eq!(discovery.address(), Ok(known));
        let url = format!("unix://{}", variable.display());
        discovery.environment.address = Some(url.into());
        assert_eq!(discovery.address(), Ok(variable));
        discovery.address = Some(flag.clone().into());
        assert_eq!(discovery.address(), Ok(flag));
    }

    #[test]
    fn each_reason_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, file, socket) =
            (dir.path().join("absent"), dir.path().join("file"), dir.path().join("socket"));
        std::fs::write(&file, "").unwrap();
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(probe(&absent), Err(SocketProblem::Missing));
        assert_eq!(probe(&file.join("below")), Err(SocketProblem::Missing));
        assert_eq!(probe(&file), Err(SocketProblem::NotASocket));
        assert_eq!(probe(&socket), Ok(()));
        assert_eq!(diagnose(&socket), SocketProblem::Refused);
        let mut discovery = nothing();
        discovery.candidates = vec![absent.clone(), file.clone()];
        let error = discovery.address().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("find containerd: {}: no such file, {}: not a socket", absent.display(), file.display())
        );
        assert_eq!(
            error.help(),
            Some("start containerd, or name its socket with --address or CONTAINERD_ADDRESS")
        );
        discovery.environment.address = Some("tcp://localhost:1".into());
        assert_eq!(
            discovery.address().unwrap_err().to_string(),
            "use containerd address \"tcp://localhost:1\": only a path or unix:// and a path are supported"
        );
    }

    #[test]
    fn a_path_that_this_user_may_not_use_is_told_from_a_missing_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let (socket, closed) = (dir.path().join("socket"), dir.path().join("closed"));
        let _listener = UnixListener::bind(&socket).unwrap();
        std::fs::create_dir(&closed).unwrap();
        mode(dir.path(), 0o755);
        mode(&socket, 0);
        mode(&closed, 0);
        let below = closed.join("socket");
        let found = std::thread::spawn(move || {
            if rustix::process::geteuid().is_root() {
                // SAFETY: setresuid takes no pointers; as a bare system call it changes this thread alone.
                assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
            }
            (probe(&socket), probe(&below))
        });
        let found = found.join().unwrap();
        mode(&closed, 0o755);
        assert_eq!(found, (Err(SocketProblem::PermissionDenied), Err(SocketProblem::PermissionDenied)));
    }

    #[test]
    fn a_missing_permission_brings_its_own_help() {
        let tried = vec![
            (PathBuf::from("/a"), SocketProblem::Missing),
            (PathBuf::from("/b"), SocketProblem::PermissionDenied),
        ];
        let error = DiscoveryError::NoSocket { tried };
        assert_eq!(error.to_string(), "find containerd: /a: no such file, /b: permission denied");
        assert_eq!(error.help(), Some("run the command as root: sudo pushless ..."));
    }

    #[test]
    fn the_namespace_defaults_to_that_of_kubernetes() {
        let mut discovery = nothing();
        assert_eq!(discovery.namespace(), Ok("k8s.io".to_owned()));
        discovery.environment.namespace = Some("variable".into());
        assert_eq!(discovery.namespace(), Ok("variable".to_owned()));
        discovery.namespace = Some("flag".to_owned());
        assert_eq!(discovery.namespace(), Ok("flag".to_owned()));
    }

    #[test]
    fn only_overlayfs_and_only_cris() {
        let mut discovery = nothing();
        assert_eq!(discovery.snapshotter(), Ok(None));
        for (cri, message) in [
            (None, None),
            (Some("overlayfs"), None),
            (Some("stargz"), Some("use snapshotter \"stargz\": only overlayfs is supported")),
        ] {
            let found = discovery.check_cri_snapshotter(cri).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), message);
        }
        discovery.environment.snapshotter = Some("overlayfs".into());
        assert_eq!(discovery.check_cri_snapshotter(Some("overlayfs")), Ok(()));
        assert_eq!(
            discovery.check_cri_snapshotter(Some("native")).unwrap_err().to_string(),
            "use snapshotter \"overlayfs\": pods of namespace k8s.io run from CRI's snapshotter, \"native\""
        );
        discovery.snapshotter = Some("native".to_owned());
        assert_eq!(
            discovery.snapshotter().unwrap_err().to_string(),
            "use snapshotter \"native\": only overlayfs is supported"
        );
    }
}
