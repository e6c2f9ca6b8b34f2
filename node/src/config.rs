// SPDX-License-Identifier: Apache-2.0
//! The text of the node's configuration files: containerd's own, and the CNI network of its pods.
//!
//! Pure. Every path that containerd would take from the host by default is pointed into the node's directory, or its
//! plugin is off: `/opt/containerd`, `/var/run/nri`, the CNI folder, the streaming server's port, runc's state.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::run_directory::RunId;

/// The format of containerd's configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigVersion {
    /// containerd 1.x: CRI is one plugin, `io.containerd.grpc.v1.cri`.
    V2,
    /// containerd 2.x: CRI's image and runtime parts are plugins of their own.
    V3,
}

/// Snapshotters that a node never uses; each would probe its kernel module or device at start.
const UNUSED_SNAPSHOTTERS: [&str; 7] = ["aufs", "blockfile", "btrfs", "devmapper", "erofs", "native", "zfs"];

/// What the text depends on.
pub(crate) struct Config<'a> {
    pub(crate) version: ConfigVersion,
    /// The node's directory; everything lies below.
    pub(crate) dir: &'a Path,
    pub(crate) sandbox_image: &'a str,
    /// The folder of the CNI plugins; `None` for pods in the host's network only.
    pub(crate) cni_plugins: Option<&'a Path>,
    pub(crate) log_level: &'a str,
}

impl Config<'_> {
    /// containerd's gRPC socket.
    pub(crate) fn socket(dir: &Path) -> PathBuf {
        dir.join("c.sock")
    }

    /// containerd's persistent data.
    pub(crate) fn root(dir: &Path) -> PathBuf {
        dir.join("root")
    }

    /// containerd's volatile data.
    pub(crate) fn state(dir: &Path) -> PathBuf {
        dir.join("state")
    }

    /// The folder of the CNI configuration.
    pub(crate) fn cni_conf_dir(dir: &Path) -> PathBuf {
        dir.join("cni")
    }

    /// containerd's configuration file.
    pub(crate) fn text(&self) -> String {
        let mut text = self.head();
        match self.version {
            ConfigVersion::V2 => self.cri_v2(&mut text),
            ConfigVersion::V3 => self.cri_v3(&mut text),
        }
        text
    }

    fn head(&self) -> String {
        let path = |below: &str| quoted(&self.dir.join(below).to_string_lossy());
        let version = match self.version {
            ConfigVersion::V2 => 2,
            ConfigVersion::V3 => 3,
        };
        // Names of the other release line's plugins do no harm: unknown ones are ignored.
        let mut disabled: Vec<_> =
            UNUSED_SNAPSHOTTERS.iter().map(|name| format!("io.containerd.snapshotter.v1.{name}")).collect();
        disabled.push("io.containerd.tracing.processor.v1.otlp".to_owned());
        disabled.push("io.containerd.internal.v1.tracing".to_owned());
        let disabled = disabled.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        format!(
            "version = {version}\nroot = {root}\nstate = {state}\ntemp = {temp}\noom_score = 0\nimports = []\n\
             disabled_plugins = [{disabled}]\n\n\
             [debug]\nlevel = {level}\n\n\
             [grpc]\naddress = {socket}\n\n\
             [ttrpc]\naddress = {ttrpc}\n\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt}\n\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\nsocket_path = {nri}\n\n",
            root = quoted(&Self::root(self.dir).to_string_lossy()),
            state = quoted(&Self::state(self.dir).to_string_lossy()),
            temp = path("tmp"),
            level = quoted(self.log_level),
            socket = quoted(&Self::socket(self.dir).to_string_lossy()),
            ttrpc = path("t.sock"),
            opt = path("opt"),
            nri = path("nri.sock"),
        )
    }

    fn cri_v2(&self, text: &mut String) {
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        put(text, format_args!("[{cri}]"));
        put(text, format_args!("sandbox_image = {}", quoted(self.sandbox_image)));
        self.streaming(text);
        runtime_keys(text);
        put(text, format_args!("\n[{cri}.containerd]\nsnapshotter = \"overlayfs\""));
        self.runc(text, cri);
        put(text, format_args!("\n[{cri}.cni]"));
        if let Some(plugins) = self.cni_plugins {
            put(text, format_args!("bin_dir = {}", quoted(&plugins.to_string_lossy())));
        }
        self.cni_conf(text);
    }

    fn cri_v3(&self, text: &mut String) {
        let images = "plugins.\"io.containerd.cri.v1.images\"";
        let runtime = "plugins.\"io.containerd.cri.v1.runtime\"";
        put(text, format_args!("[{images}]\nsnapshotter = \"overlayfs\""));
        put(text, format_args!("\n[{images}.pinned_images]\nsandbox = {}", quoted(self.sandbox_image)));
        put(text, format_args!("\n[{runtime}]\ncdi_spec_dirs = []"));
        runtime_keys(text);
        self.runc(text, runtime);
        put(text, format_args!("\n[{runtime}.cni]"));
        if let Some(plugins) = self.cni_plugins {
            put(text, format_args!("bin_dirs = [{}]", quoted(&plugins.to_string_lossy())));
        }
        self.cni_conf(text);
        put(text, format_args!("\n[plugins.\"io.containerd.grpc.v1.cri\"]"));
        self.streaming(text);
    }

    /// Port 0 on the loopback address: the server cannot be switched off.
    #[expect(clippy::unused_self, reason = "reads as one of the parts of the text")]
    fn streaming(&self, text: &mut String) {
        put(text, format_args!("stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\""));
    }

    fn runc(&self, text: &mut String, section: &str) {
        let runc = format!("{section}.containerd.runtimes.runc");
        put(text, format_args!("\n[{runc}]\nruntime_type = \"io.containerd.runc.v2\""));
        put(text, format_args!("\n[{runc}.options]\nSystemdCgroup = false"));
        put(text, format_args!("Root = {}", quoted(&self.dir.join("runc").to_string_lossy())));
    }

    fn cni_conf(&self, text: &mut String) {
        put(text, format_args!("conf_dir = {}", quoted(&Self::cni_conf_dir(self.dir).to_string_lossy())));
    }
}

/// Keys with the same name in both formats.
///
/// `restrict_oom_score_adj`: without `CAP_SYS_RESOURCE` runc cannot lower its score, and every sandbox would fail.
fn runtime_keys(text: &mut String) {
    for key in [
        "restrict_oom_score_adj",
        "disable_apparmor",
        "tolerate_missing_hugetlb_controller",
        "netns_mounts_under_state_dir",
    ] {
        put(text, format_args!("{key} = true"));
    }
}

/// The CNI network of one node: a bridge without masquerading, so that no iptables is needed.
///
/// The bridge's name and the subnet come from the run id, for two nodes may share a network namespace.
pub(crate) fn conflist(dir: &Path, run: &RunId) -> String {
    let number = run.number();
    let (high, low) = (128 + (number >> 8) % 64, number % 256);
    let network = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": format!("shakedown-{run}"),
        "plugins": [{
            "type": "bridge",
            "bridge": format!("sd{run}"),
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": false,
            "ipam": {
                "type": "host-local",
                "dataDir": dir.join("cni-addresses"),
                "ranges": [[{ "subnet": format!("10.{high}.{low}.0/24") }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    });
    format!("{network:#}\n")
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: ConfigVersion) -> String {
        let config = Config {
            version,
            dir: Path::new("/d"),
            sandbox_image: "p:1",
            cni_plugins: Some(Path::new("/usr/lib/cni")),
            log_level: "info",
        };
        config.text()
    }

    #[test]
    fn no_default_path_of_the_host_is_left() {
        for version in [ConfigVersion::V2, ConfigVersion::V3] {
            let text = text(version);
            for line in text.lines() {
                let Some((_, value)) = line.split_once(" = \"/") else { continue };
                assert!(value.starts_with("d/") || line.starts_with("bin_dir = "), "{line}");
            }
            assert!(text.contains("restrict_oom_score_adj = true"));
            assert!(text.contains("Root = \"/d/runc\""));
        }
    }

    #[test]
    fn each_format_names_its_own_plugins() {
        let old = text(ConfigVersion::V2);
        assert!(old.starts_with("version = 2\n"));
        assert!(old.contains("sandbox_image = \"p:1\"") && !old.contains("cri.v1.runtime"));
        let new = text(ConfigVersion::V3);
        assert!(new.starts_with("version = 3\n"));
        assert!(new.contains("sandbox = \"p:1\"") && new.contains("bin_dirs = [\"/usr/lib/cni\"]"));
    }

    #[test]
    fn strings_are_quoted_for_toml() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000A\"");
    }

    #[test]
    fn a_bridge_name_fits_the_kernels_limit() {
        let run = RunId::random();
        let list: serde_json::Value = serde_json::from_str(&conflist(Path::new("/d"), &run)).unwrap();
        assert!(list["plugins"][0]["bridge"].as_str().unwrap().len() < 16);
    }
}
