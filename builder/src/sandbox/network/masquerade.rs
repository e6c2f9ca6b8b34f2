// SPDX-License-Identifier: Apache-2.0
//! The packet filter rules of the bridge: its traffic leaves with the host's address, and is forwarded even where the
//! host drops by default, as one with Docker does.
//!
//! They belong to the bridge, not to a container: made and removed with it, so no build leaves one behind that the next
//! does not find. The CNI plugin's own way is a chain for every container, which nothing can remove once the
//! container's interface is gone, and some ten calls of iptables for every build.

use std::io::Write;
use std::process::{Command, Stdio};

use super::NetworkError;
use super::cni::system_path;
use super::subnet::Subnet;

/// Makes the rules.
pub(super) fn add(bridge: &str, subnet: Subnet) -> Result<(), NetworkError> {
    restore(&rules(bridge, subnet, "-A", "-I"))
}

/// Removes the rules.
pub(super) fn remove(bridge: &str, subnet: Subnet) -> Result<(), NetworkError> {
    restore(&rules(bridge, subnet, "-D", "-D"))
}

/// Whether the rules are still there, told by the first of them: who flushes the tables takes all.
pub(super) fn present(bridge: &str, subnet: Subnet) -> Result<bool, NetworkError> {
    let subnet = subnet.to_string();
    let status = Command::new("iptables")
        .args([
            "--wait",
            "10",
            "-t",
            "nat",
            "-C",
            "POSTROUTING",
            "-s",
            &subnet,
            "!",
            "-o",
            bridge,
            "-j",
            "MASQUERADE",
        ])
        .env("PATH", system_path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let at = |source| NetworkError::System { operation: "start", path: "iptables".into(), source };
    Ok(status.map_err(at)?.success())
}

/// Input of `iptables-restore`: each table is changed as a whole or not at all.
fn rules(bridge: &str, subnet: Subnet, append: &str, insert: &str) -> String {
    format!(
        "*nat\n\
         {append} POSTROUTING -s {subnet} ! -o {bridge} -j MASQUERADE\n\
         COMMIT\n\
         *filter\n\
         {insert} FORWARD -i {bridge} -j ACCEPT\n\
         {insert} FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n"
    )
}

fn restore(rules: &str) -> Result<(), NetworkError> {
    let at = |operation: &'static str| {
        move |source| NetworkError::System { operation, path: "iptables-restore".into(), source }
    };
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait", "10"])
        .env("PATH", system_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(at("start"))?;
    let mut stdin = child.stdin.take().expect("invariant: standard input is a pipe");
    let written = stdin.write_all(rules.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(at("wait for"))?;
    if output.status.success() {
        return written.map_err(at("write to"));
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetworkError::PacketFilter { message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_what_is_removed() {
        let subnet = Subnet::parse("10.213.77.0/24").expect("a subnet");
        let added = rules("pushless0", subnet, "-A", "-I");
        assert_eq!(added.replace("-A ", "-D ").replace("-I ", "-D "), rules("pushless0", subnet, "-D", "-D"));
        assert!(added.contains("\n-I FORWARD -i pushless0 -j ACCEPT\n"));
    }
}
