// SPDX-License-Identifier: Apache-2.0
//! Images of one or several platforms as OCI layouts (OCI image specification v1.1, `image-layout.md`).

use std::io::Write as _;
use std::process::{Command, Stdio};

use libtest_mimic::Failed;
use pushless::image::{Digest, Platform, media_type};
use serde_json::{Value, json};

const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Blobs of one layout, collected until it is written.
#[derive(Debug, Default)]
pub struct Layout {
    blobs: Vec<(Digest, Vec<u8>)>,
}

/// A file of a layer: path, mode, content.
pub type File<'a> = (&'a str, u32, &'a [u8]);

impl Layout {
    /// Adds an image for `platform` with these files in one compressed layer, and returns its descriptor.
    pub fn image(&mut self, platform: &Platform, files: &[File<'_>]) -> Result<Value, Failed> {
        let tar = archive(files)?;
        let diff_id = Digest::of(&tar);
        let layer = self.add(LAYER_GZIP, gzip(&tar)?);
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "variant": platform.variant,
            "config": { "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        });
        let config = self.add(media_type::CONFIG, config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": config,
            "layers": [layer],
        });
        let mut manifest = self.add(media_type::MANIFEST, manifest.to_string().into_bytes());
        manifest["platform"] = serde_json::to_value(platform)?;
        Ok(manifest)
    }

    /// Adds an index of what [`Layout::image`] returned, and returns its descriptor.
    pub fn index(&mut self, images: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": images });
        self.add(media_type::INDEX, index.to_string().into_bytes())
    }

    /// The whole layout as a tar, with `target` under the name by which `ctr images import` shall store it.
    pub fn finish(&self, name: &str, mut target: Value) -> Result<Vec<u8>, Failed> {
        target["annotations"] = json!({ "io.containerd.image.name": name });
        let index = json!({ "schemaVersion": 2, "manifests": [target] }).to_string();
        let paths: Vec<_> = self
            .blobs
            .iter()
            .map(|(digest, content)| (format!("blobs/{}", digest.to_string().replace(':', "/")), content))
            .collect();
        let mut files: Vec<File<'_>> = vec![
            ("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", 0o644, index.as_bytes()),
        ];
        files.extend(paths.iter().map(|(path, content)| (path.as_str(), 0o644, content.as_slice())));
        archive(&files)
    }

    /// The digest of every blob.
    pub fn digests(&self) -> Vec<String> {
        self.blobs.iter().map(|(digest, _)| digest.to_string()).collect()
    }

    fn add(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let digest = Digest::of(&content);
        let descriptor =
            json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() });
        self.blobs.push((digest, content));
        descriptor
    }
}

fn archive(files: &[File<'_>]) -> Result<Vec<u8>, Failed> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content)?;
    }
    Ok(tar.into_inner()?)
}

/// Compressed as published layers are, so that the digest of a layer is not its diff id.
fn gzip(content: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut gzip =
        Command::new("gzip").args(["-1", "-n"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = gzip.stdin.take().ok_or("gzip has an input")?;
    let output = std::thread::scope(|scope| {
        // From a thread of its own, for the program answers before it has read everything.
        let writer = scope.spawn(move || input.write_all(content));
        let output = gzip.wait_with_output();
        writer.join().map_err(|_| "the writer panicked")??;
        Ok::<_, Failed>(output?)
    })?;
    if output.status.success() { Ok(output.stdout) } else { Err("gzip failed".into()) }
}
