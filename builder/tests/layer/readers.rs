// SPDX-License-Identifier: Apache-2.0
//! Other programs that must be able to read a layer.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;
use pushless::image::ImagePath;
use pushless::layer::{Content, LayerEntry, Metadata};

use crate::chain::Chain;
use crate::tree;

/// GNU tar unpacks names, links, owners and times that no plain ustar header can hold.
pub(crate) fn gnu_tar(place: &Path) -> Result<(), Failed> {
    let mut chain = Chain::new(place);
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
    let entry = |path: &str, metadata: &Metadata, content| LayerEntry {
        path: ImagePath::new(path),
        metadata: metadata.clone(),
        content,
    };
    let far = Metadata { uid: 4_000_000, gid: 5_000_000, ..Metadata::of_root(0o6751, 9_000_000_000) };
    let plain = Metadata::of_root(0o644, 1_700_000_000);
    chain.copy(vec![
        entry(&long, &far, Content::Bytes(vec![b'x'; 300_000])),
        entry("hard", &plain, Content::Bytes(Vec::new())),
        entry("link", &plain, Content::Symlink("t".repeat(300).into())),
        entry("second", &plain, Content::Hardlink(ImagePath::new("hard"))),
        entry("\u{e4}\u{f6}", &plain, Content::Directory),
    ])?;
    let (archive, unpacked) = (place.join("layer.tar"), tempfile::tempdir_in(place)?);
    fs::write(&archive, &chain.tars[0])?;
    let output = Command::new("tar")
        .args(["--numeric-owner", "--warning=no-timestamp", "-xpf"])
        .arg(&archive)
        .current_dir(unpacked.path())
        .output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !complaints.is_empty() {
        return Err(format!("tar: {}: {complaints}", output.status).into());
    }
    let differences =
        tree::differences(&tree::scan(&chain.layers[0]), &tree::scan(unpacked.path()), |_| false);
    let only_root = differences.lines().all(|line| line.starts_with("/: ") || line.starts_with("  there"));
    if only_root { Ok(()) } else { Err(differences.into()) }
}
