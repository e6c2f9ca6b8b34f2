// SPDX-License-Identifier: Apache-2.0
//! Mounts that end with their guard.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use containerd_client::types::Mount;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

/// A mount point; unmounted when dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// `upper` on top of `lowers`, the lowest first, with the options that the engine uses.
    pub(crate) fn writable(lowers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Self {
        std::fs::create_dir_all(target).expect("a mount point");
        if lowers.is_empty() {
            mount_bind(upper, target).expect("a bind mount");
            return Self(target.to_owned());
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off",
            joined(lowers),
            upper.display(),
            work.display()
        );
        Self::overlay(&options, target)
    }

    /// `layers` merged, the lowest first; there must be one.
    pub(crate) fn read_only(layers: &[PathBuf], target: &Path) -> Self {
        std::fs::create_dir_all(target).expect("a mount point");
        if let [only] = layers {
            mount_bind(only, target).expect("a bind mount");
            return Self(target.to_owned());
        }
        Self::overlay(&format!("lowerdir={}", joined(layers)), target)
    }

    /// A mount as containerd describes it.
    pub(crate) fn described(mounts: &[Mount], target: &Path) -> Self {
        std::fs::create_dir_all(target).expect("a mount point");
        let [described] = mounts else { panic!("not one mount: {mounts:?}") };
        if described.r#type == "bind" {
            mount_bind(described.source.as_str(), target).expect("a bind mount");
            return Self(target.to_owned());
        }
        Self::overlay(&described.options.join(","), target)
    }

    fn overlay(options: &str, target: &Path) -> Self {
        let options = CString::new(options).expect("no NUL in paths");
        mount("overlay", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .expect("an overlay");
        Self(target.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).expect("the mount goes");
    }
}

fn joined(layers: &[PathBuf]) -> String {
    let names: Vec<_> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    names.join(":")
}
