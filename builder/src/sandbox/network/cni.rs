// SPDX-License-Identifier: Apache-2.0
//! Calls CNI plugins by hand: parameters in the environment, configuration on standard input, result or error as JSON on
//! standard output (CNI specification 1.0.0, sections 2 and 5). Must not know what the configuration means.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::NetworkError;

/// Plugins that the bridge needs.
const NEEDED: [&str; 2] = ["bridge", "host-local"];

/// Where iptables usually is when `PATH` does not say, as under `sudo` and in units.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// A directory that holds the plugins.
#[derive(Debug, Clone)]
pub(super) struct Plugins {
    directory: PathBuf,
}

/// What to do with an interface of a container.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Add,
    Del,
}

impl Plugins {
    /// The first of `directories` that holds every plugin needed.
    pub(super) fn discover(directories: &[PathBuf]) -> Result<Self, NetworkError> {
        directories
            .iter()
            .find(|directory| NEEDED.iter().all(|name| directory.join(name).is_file()))
            .map(|directory| Self { directory: directory.clone() })
            .ok_or_else(|| NetworkError::NoPlugins { looked_at: directories.to_vec() })
    }

    /// Calls `bridge` for the interface `eth0` of `container`. An empty `namespace` asks to release what lies outside of
    /// the container only.
    pub(super) fn bridge(
        &self,
        verb: Verb,
        container: &str,
        namespace: &Path,
        config: &serde_json::Value,
    ) -> Result<(), NetworkError> {
        let program = self.directory.join("bridge");
        let at = |operation: &'static str| {
            let path = program.clone();
            move |source| NetworkError::System { operation, path, source }
        };
        let mut child = Command::new(&program)
            .env("CNI_COMMAND", if matches!(verb, Verb::Add) { "ADD" } else { "DEL" })
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", namespace)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.directory)
            .env("PATH", system_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(at("start"))?;
        let mut stdin = child.stdin.take().expect("invariant: standard input is a pipe");
        // A plugin that does not read is one that fails; its own message is better than "broken pipe".
        let written = stdin.write_all(config.to_string().as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(at("wait for"))?;
        if output.status.success() {
            return written.map_err(at("configure"));
        }
        Err(NetworkError::Plugin { message: failure(&output.stdout, &output.stderr) })
    }
}

/// The caller's `PATH` with the system's directories after it.
pub(super) fn system_path() -> String {
    match std::env::var("PATH") {
        Ok(own) if !own.is_empty() => format!("{own}:{SYSTEM_PATH}"),
        _ => SYSTEM_PATH.to_owned(),
    }
}

/// The message of an error result, else whatever the plugin wrote.
fn failure(stdout: &[u8], stderr: &[u8]) -> String {
    let result: serde_json::Value = serde_json::from_slice(stdout).unwrap_or_default();
    let text = |key: &str| result[key].as_str().filter(|text| !text.is_empty());
    match (text("msg"), text("details")) {
        (Some(message), Some(details)) => format!("{message}: {details}"),
        (Some(message), None) => message.to_owned(),
        _ => String::from_utf8_lossy(if stdout.is_empty() { stderr } else { stdout }).trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures() {
        for (stdout, stderr, wanted) in [
            (r#"{"code":7,"msg":"invalid","details":"no subnet"}"#, "", "invalid: no subnet"),
            (r#"{"code":999,"msg":"failed to list chains"}"#, "noise", "failed to list chains"),
            ("", "cannot execute\n", "cannot execute"),
            ("panic", "", "panic"),
        ] {
            assert_eq!(failure(stdout.as_bytes(), stderr.as_bytes()), wanted);
        }
    }

    #[test]
    fn the_first_complete_directory_is_taken() {
        let (empty, full) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        for name in NEEDED {
            std::fs::write(full.path().join(name), "").expect("a file");
        }
        std::fs::write(empty.path().join("bridge"), "").expect("a file");
        let [empty, full] = [&empty, &full].map(|directory| directory.path().to_owned());
        let found = Plugins::discover(&[empty.clone(), full.clone()]).expect("plugins");
        assert_eq!(found.directory, full);
        let error = Plugins::discover(std::slice::from_ref(&empty)).expect_err("none");
        assert_eq!(
            error.to_string(),
            format!("find the CNI plugins bridge and host-local in {}", empty.display())
        );
    }
}
