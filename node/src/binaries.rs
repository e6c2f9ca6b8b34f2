// SPDX-License-Identifier: Apache-2.0
//! Where containerd's programs are, and which version they have.
//!
//! Invariant: a [`ContainerdBinaries`] has been asked for its version, so the programs exist and start. This module must
//! not know how a node is configured beyond the version of the configuration format.

use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::ConfigVersion;

/// Where Debian and Ubuntu put programs; appended to `PATH`, for `/usr/sbin` is missing from a plain user's.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where CNI plugins are looked for when the environment names no folder: Debian's package, then upstream's default.
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// The environment variable that names a containerd of the 2.x line for tests.
const SECOND: &str = "SHAKEDOWN_TEST_CONTAINERD2";

/// Where `make containerd2` puts it, below the root of the workspace that was compiled.
const SECOND_DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/containerd-2/containerd");

/// containerd's programs of one installation.
#[derive(Debug, Clone)]
pub struct ContainerdBinaries {
    containerd: PathBuf,
    ctr: PathBuf,
    shim_dir: PathBuf,
    cni_dir: Option<PathBuf>,
    version: ContainerdVersion,
}

/// A version of containerd, as `containerd --version` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerdVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The whole word, for instance `1.6.20~ds1` or `2.4.2+unknown`.
    pub text: String,
}

/// Why no usable containerd was found.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// Nothing of that name at the place that was named, or in `PATH`.
    #[error("find {program}: not in {looked_in}")]
    Absent {
        /// The program.
        program: &'static str,
        /// The folders or the path that were tried.
        looked_in: String,
    },
    /// The program did not start.
    #[error("ask {} for its version", program.display())]
    Start {
        /// The program's path.
        program: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The program answered something else than containerd does.
    #[error("read the version of {}: {answer:?}", program.display())]
    Version {
        /// The program's path.
        program: PathBuf,
        /// What it printed.
        answer: String,
    },
}

impl ContainerdBinaries {
    /// The containerd at `containerd`, with `ctr` and the shim from the same folder.
    ///
    /// # Errors
    /// [`BinariesError`] when one of the three is absent or the version cannot be told.
    pub fn at(containerd: &Path) -> Result<Self, BinariesError> {
        let containerd = containerd.canonicalize().map_err(|_| BinariesError::Absent {
            program: "containerd",
            looked_in: containerd.display().to_string(),
        })?;
        let folder = containerd.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Self::with_folder(containerd, &folder)
    }

    /// The containerd in `PATH` or the system's folders: what a distribution's package installs.
    ///
    /// # Errors
    /// As [`ContainerdBinaries::at`].
    pub fn installed() -> Result<Self, BinariesError> {
        let containerd = in_path("containerd")?;
        let folder = containerd.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Self::with_folder(containerd, &folder)
    }

    /// The containerd that the environment variable `variable` names, else the installed one.
    ///
    /// # Errors
    /// As [`ContainerdBinaries::at`].
    pub fn find(variable: &str) -> Result<Self, BinariesError> {
        match env::var_os(variable) {
            Some(path) => Self::at(Path::new(&path)),
            None => Self::installed(),
        }
    }

    /// What tests run on: the installed containerd as `containerd-1`, and as `containerd-2` one of the 2.x line, which
    /// is named by `SHAKEDOWN_TEST_CONTAINERD2` or lies where `make containerd2` puts it. Each is there or has a reason.
    ///
    /// The names are those of the usual pair; an installed containerd of the 2.x line is still called `containerd-1`.
    pub fn both() -> [(&'static str, Result<Self, BinariesError>); 2] {
        let second = env::var_os(SECOND).map_or_else(|| PathBuf::from(SECOND_DEFAULT), PathBuf::from);
        [("containerd-1", Self::installed()), ("containerd-2", Self::at(&second))]
    }

    fn with_folder(containerd: PathBuf, folder: &Path) -> Result<Self, BinariesError> {
        let beside = |program: &'static str| {
            let path = folder.join(program);
            if is_program(&path) { Ok(path) } else { in_path(program) }
        };
        let ctr = beside("ctr")?;
        let shim = beside("containerd-shim-runc-v2")?;
        in_path("runc")?;
        let version = ask_version(&containerd)?;
        let cni_dir = CNI_FOLDERS.iter().map(PathBuf::from).find(|dir| is_program(&dir.join("bridge")));
        Ok(Self {
            containerd,
            ctr,
            shim_dir: shim.parent().map_or_else(PathBuf::new, Path::to_path_buf),
            cni_dir,
            version,
        })
    }

    /// The daemon.
    pub fn containerd(&self) -> &Path {
        &self.containerd
    }

    /// The command-line client of the same version.
    pub fn ctr(&self) -> &Path {
        &self.ctr
    }

    /// The folder of the CNI plugins, if there is one.
    pub fn cni_dir(&self) -> Option<&Path> {
        self.cni_dir.as_deref()
    }

    /// The version.
    pub fn version(&self) -> &ContainerdVersion {
        &self.version
    }

    /// A `PATH` in which containerd finds its own shim before any other, and runc.
    pub fn search_path(&self) -> String {
        let inherited = env::var("PATH").unwrap_or_default();
        format!("{}:{inherited}:{SYSTEM_PATH}", self.shim_dir.display())
    }
}

impl ContainerdVersion {
    /// The configuration format that this version reads: 3 from containerd 2.0 on, 2 before.
    pub fn config_version(&self) -> ConfigVersion {
        if self.major >= 2 { ConfigVersion::V3 } else { ConfigVersion::V2 }
    }

    /// Reads `containerd github.com/containerd/containerd 1.6.20~ds1 <revision>`, or the same with `/v2`.
    fn parse(answer: &str) -> Option<Self> {
        let mut words = answer.split_whitespace();
        if words.next()? != "containerd" {
            return None;
        }
        let text = words.nth(1)?;
        let mut numbers = text.trim_start_matches('v').splitn(3, '.');
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for ContainerdVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn ask_version(containerd: &Path) -> Result<ContainerdVersion, BinariesError> {
    let output = Command::new(containerd)
        .arg("--version")
        .output()
        .map_err(|source| BinariesError::Start { program: containerd.to_owned(), source })?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ContainerdVersion::parse(&answer)
        .ok_or_else(|| BinariesError::Version { program: containerd.to_owned(), answer })
}

/// The first executable called `program` in `PATH` and the system's folders.
pub(crate) fn in_path(program: &'static str) -> Result<PathBuf, BinariesError> {
    let inherited = env::var("PATH").unwrap_or_default();
    let folders = format!("{inherited}:{SYSTEM_PATH}");
    env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|path| is_program(path))
        .ok_or(BinariesError::Absent { program, looked_in: folders })
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_each_release_line_prints_them() {
        for (answer, major, minor, text) in [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
                1,
                6,
                "1.6.20~ds1",
            ),
            ("containerd github.com/containerd/containerd v1.7.27 05044ec0a9a7", 1, 7, "v1.7.27"),
            ("containerd github.com/containerd/containerd/v2 2.4.2+unknown ", 2, 4, "2.4.2+unknown"),
        ] {
            let wanted = ContainerdVersion { major, minor, text: text.to_owned() };
            assert_eq!(ContainerdVersion::parse(answer), Some(wanted), "{answer}");
        }
        for answer in ["", "containerd", "runc version 1.1.5", "containerd x y"] {
            assert_eq!(ContainerdVersion::parse(answer), None, "{answer}");
        }
    }

    #[test]
    fn an_absent_containerd_names_the_place() {
        let error = ContainerdBinaries::at(Path::new("/nowhere/containerd")).expect_err("nothing is there");
        assert_eq!(error.to_string(), "find containerd: not in /nowhere/containerd");
    }
}
