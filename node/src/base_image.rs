// SPDX-License-Identifier: Apache-2.0
//! Base images made offline from the host's static busybox, as docker archives.
//!
//! A docker archive (`manifest.json`, config, `layer.tar`; Docker image specification v1.2) is what both `ctr images
//! import` and `docker load` read. Deterministic: the same busybox gives the same bytes, so every builder starts from
//! the same image id. This module must not know where the image goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// Where Debian's package `busybox-static` puts the program, before and after the merge of `/bin` into `/usr/bin`.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// The modification time of every file: 2024-01-01, for some programs read 0 as "no time".
const MTIME: u64 = 1_704_067_200;

/// The same moment for the image's config.
const CREATED: &str = "2024-01-01T00:00:00Z";

/// Directories that every program may expect, with their modes.
const DIRECTORIES: [(&str, u32); 14] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("home/app", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                      app:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nstaff:x:50:app\napp:x:1000:\nnogroup:x:65534:\n";

/// An image as a docker archive, with the ids that it will have wherever it is loaded.
#[derive(Debug, Clone)]
pub struct BaseImage {
    reference: &'static str,
    id: String,
    diff_id: String,
    archive: Vec<u8>,
}

/// Why a base image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BaseImageError {
    /// The host has no busybox.
    #[error("find busybox: not at /bin/busybox or /usr/bin/busybox (package busybox-static)")]
    NoBusybox,
    /// The host's busybox needs shared libraries that the image does not have.
    #[error("use {}: it is not statically linked (package busybox-static)", path.display())]
    NotStatic {
        /// The program.
        path: PathBuf,
    },
    /// A file could not be read, or busybox not be asked for its links.
    #[error("{operation} {}", path.display())]
    Read {
        /// The step that failed.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The archive in memory could not be put together.
    #[error("put together the archive of {reference}")]
    Archive {
        /// The image's name.
        reference: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl BaseImage {
    /// The name of the image with a shell and busybox's programs.
    pub const BUSYBOX: &'static str = "shakedown.test/busybox:1";

    /// The name of the image that holds a pod's namespaces.
    pub const PAUSE: &'static str = "shakedown.test/pause:1";

    /// The image with a shell: `/bin/busybox`, a link for each of its programs, users root, daemon, app (1000) and
    /// nobody.
    ///
    /// # Errors
    /// [`BaseImageError`], which names the package to install.
    pub fn busybox() -> Result<Self, BaseImageError> {
        let (path, program) = host_busybox()?;
        let links = links(&path)?;
        let layer = layer_with_shell(&program, &links).map_err(archive(Self::BUSYBOX))?;
        let config = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        });
        Self::new(Self::BUSYBOX, &layer, &config)
    }

    /// The image that holds a pod's namespaces: busybox sleeping. CRI ends it by `SIGKILL` (containerd 1.6 to 2.4), so
    /// it handles no signal.
    ///
    /// # Errors
    /// As [`BaseImage::busybox`].
    pub fn pause() -> Result<Self, BaseImageError> {
        let (_, program) = host_busybox()?;
        let layer = layer_with_pause(&program).map_err(archive(Self::PAUSE))?;
        let config = json!({ "Entrypoint": ["/busybox", "sleep", "2147483647"] });
        Self::new(Self::PAUSE, &layer, &config)
    }

    /// The image's name, in full form.
    pub fn reference(&self) -> &str {
        self.reference
    }

    /// The image's id: the digest of its config.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The digest of its only layer, uncompressed; also its chain id.
    pub fn diff_id(&self) -> &str {
        &self.diff_id
    }

    /// The docker archive.
    pub fn archive(&self) -> &[u8] {
        &self.archive
    }

    /// Writes the docker archive to a file.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        fs::write(path, &self.archive)
    }

    fn new(
        reference: &'static str,
        layer: &[u8],
        config: &serde_json::Value,
    ) -> Result<Self, BaseImageError> {
        let layer_hex = hex_digest(layer);
        let diff_id = format!("sha256:{layer_hex}");
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": CREATED,
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [&diff_id] },
            "history": [{ "created": CREATED, "created_by": "shakedown base image" }],
        })
        .to_string();
        let config_hex = hex_digest(config.as_bytes());
        let manifest = json!([{
            "Config": format!("{config_hex}.json"),
            "RepoTags": [reference],
            "Layers": [format!("{layer_hex}/layer.tar")],
        }])
        .to_string();
        let put_together = || {
            let mut tar = tar::Builder::new(Vec::new());
            file(&mut tar, &format!("{config_hex}.json"), 0o644, config.as_bytes())?;
            directory(&mut tar, &layer_hex, 0o755, 0)?;
            file(&mut tar, &format!("{layer_hex}/layer.tar"), 0o644, layer)?;
            file(&mut tar, "manifest.json", 0o644, manifest.as_bytes())?;
            tar.into_inner()
        };
        let archive = put_together().map_err(archive(reference))?;
        Ok(Self { reference, id: format!("sha256:{config_hex}"), diff_id, archive })
    }
}

type Tar = tar::Builder<Vec<u8>>;

fn layer_with_shell(program: &[u8], links: &[String]) -> io::Result<Vec<u8>> {
    let mut tar = Tar::new(Vec::new());
    for (path, mode) in DIRECTORIES {
        directory(&mut tar, path, mode, if path == "home/app" { 1000 } else { 0 })?;
    }
    file(&mut tar, "bin/busybox", 0o755, program)?;
    for link in links {
        let mut header = header(EntryType::Symlink, 0o777, 0, 0);
        tar.append_link(&mut header, link, "/bin/busybox")?;
    }
    file(&mut tar, "etc/group", 0o644, GROUP.as_bytes())?;
    file(&mut tar, "etc/passwd", 0o644, PASSWD.as_bytes())?;
    tar.into_inner()
}

/// Called by its own name, busybox takes the program from its first argument.
fn layer_with_pause(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = Tar::new(Vec::new());
    for path in ["dev", "etc", "proc", "sys"] {
        directory(&mut tar, path, 0o755, 0)?;
    }
    file(&mut tar, "busybox", 0o755, program)?;
    tar.into_inner()
}

fn host_busybox() -> Result<(PathBuf, Vec<u8>), BaseImageError> {
    let path =
        BUSYBOX.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or(BaseImageError::NoBusybox)?;
    let program = fs::read(&path).map_err(|source| BaseImageError::Read {
        operation: "read",
        path: path.clone(),
        source,
    })?;
    if has_interpreter(&program) {
        return Err(BaseImageError::NotStatic { path });
    }
    Ok((path, program))
}

/// The paths that this busybox answers to (`busybox --list-full`), sorted; without its own.
fn links(busybox: &Path) -> Result<Vec<String>, BaseImageError> {
    let output = Command::new(busybox).arg("--list-full").output().map_err(|source| {
        BaseImageError::Read { operation: "ask for its links", path: busybox.to_owned(), source }
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let known = |link: &str| {
        DIRECTORIES.iter().any(|(dir, _)| link.rsplit_once('/').is_some_and(|(parent, _)| parent == *dir))
    };
    let mut links: Vec<_> = text
        .lines()
        .map(|line| line.trim_start_matches('/'))
        .filter(|link| known(link) && *link != "bin/busybox")
        .map(str::to_owned)
        .collect();
    links.sort();
    links.dedup();
    Ok(links)
}

/// Whether an ELF program names a dynamic linker: a program header of type `PT_INTERP` (3), 64-bit layout (elf(5)).
fn has_interpreter(program: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        let raw = program.get(at..at + bytes)?;
        Some(raw.iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte)))
    };
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(table), Some(entry_size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        return false;
    };
    (0..count).any(|index| number(table + index * entry_size, 4) == Some(3))
}

/// The name of this machine's architecture in image configs (Go's `GOARCH`).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn directory(tar: &mut Tar, path: &str, mode: u32, owner: u64) -> io::Result<()> {
    let mut header = header(EntryType::Directory, mode, owner, 0);
    tar.append_data(&mut header, format!("{path}/"), io::empty())
}

fn file(tar: &mut Tar, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, mode, 0, content.len() as u64);
    tar.append_data(&mut header, path, content)
}

fn header(kind: EntryType, mode: u32, owner: u64, size_bytes: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(MTIME);
    header.set_size(size_bytes);
    header
}

fn hex_digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn archive(reference: &'static str) -> impl FnOnce(io::Error) -> BaseImageError {
    move |source| BaseImageError::Archive { reference, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_same_each_time() {
        let layer = layer_with_shell(b"program", &["bin/ls".to_owned()]).unwrap();
        let image = BaseImage::new(BaseImage::BUSYBOX, &layer, &json!({})).unwrap();
        let again = BaseImage::new(BaseImage::BUSYBOX, &layer, &json!({})).unwrap();
        assert_eq!(image.archive(), again.archive());
        assert_eq!(image.diff_id(), format!("sha256:{}", hex_digest(&layer)));
        let other = layer_with_shell(b"another", &["bin/ls".to_owned()]).unwrap();
        assert_ne!(BaseImage::new(BaseImage::BUSYBOX, &other, &json!({})).unwrap().id(), image.id());
    }

    #[test]
    fn the_layer_has_the_modes_that_programs_expect() {
        let layer = layer_with_shell(b"program", &["usr/bin/env".to_owned()]).unwrap();
        let mut tar = tar::Archive::new(layer.as_slice());
        let listed: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
            })
            .collect();
        for (path, mode) in
            [("tmp/", 0o1777), ("root/", 0o700), ("bin/busybox", 0o755), ("usr/bin/env", 0o777)]
        {
            assert!(listed.contains(&(path.to_owned(), mode)), "{path} in {listed:?}");
        }
    }

    #[test]
    fn a_dynamic_program_is_recognised() {
        assert!(
            has_interpreter(&fs::read("/proc/self/exe").unwrap()),
            "this test links its libc dynamically"
        );
        assert!(!has_interpreter(b"#!/bin/sh"));
    }
}
