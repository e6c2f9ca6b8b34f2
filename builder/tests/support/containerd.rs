// SPDX-License-Identifier: Apache-2.0
//! A private containerd with an own root, state and socket, for tests that already run in namespaces of their own.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running containerd; ends with the value.
pub(crate) struct Containerd {
    process: Child,
    directory: tempfile::TempDir,
}

impl Containerd {
    /// Starts `binary` and waits until its socket is there.
    pub(crate) fn start(binary: &Path) -> Result<Self, String> {
        let version = Command::new(binary).arg("--version").output().map_err(|error| error.to_string())?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        // `containerd github.com/containerd/containerd 1.6.20~ds1 ...`; a binary of `go install` names its module.
        let second = !version.contains(" 1.");
        let directory = tempfile::Builder::new()
            .prefix("pushless-store-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let path = directory.path().display();
        let mut config = format!(
            "version = {}\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
             [grpc]\naddress = \"{path}/containerd.sock\"\n[ttrpc]\naddress = \"{path}/ttrpc.sock\"\n",
            if second { 3 } else { 2 },
        );
        let cri = if second { "io.containerd.cri.v1.runtime" } else { "io.containerd.grpc.v1.cri" };
        config += &format!("[plugins.\"{cri}\"]\nrestrict_oom_score_adj = true\n");
        let file = directory.path().join("config.toml");
        std::fs::write(&file, config).map_err(|error| error.to_string())?;
        let log = std::fs::File::create(directory.path().join("log")).map_err(|error| error.to_string())?;
        let process = Command::new(binary)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut containerd = Self { process, directory };
        let limit = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(containerd.socket()).is_err() {
            let ended = containerd.process.try_wait().map_err(|error| error.to_string())?.is_some();
            if ended || Instant::now() > limit {
                return Err(format!("containerd did not come up:\n{}", containerd.log()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(containerd)
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(self.directory.path().join("log")) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
