// SPDX-License-Identifier: Apache-2.0
//! A stack of layers made by the crate, beside the same stack unpacked by containerd.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use pushless::image::{Digest, ImagePath};
use pushless::layer::{
    LayerDigest, LayerEntry, LayerError, Metadata, View, assemble, diff, normalise, verify,
};

use crate::judge::Judge;
use crate::overlay::Mounted;
use crate::tree::{self, Listed};

/// The metadata of directories that are made on the way.
pub(crate) const NEW_DIRECTORIES: Metadata = Metadata::of_root(0o755, 77);

/// Layers in directories below one place, the lowest first.
pub(crate) struct Chain {
    place: tempfile::TempDir,
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) tars: Vec<Vec<u8>>,
}

/// The parents of the next layer, mounted while this lives.
pub(crate) struct Parents {
    pub(crate) view: View,
    _mounted: Option<Mounted>,
}

impl Chain {
    pub(crate) fn new(place: &Path) -> Self {
        let place = tempfile::Builder::new().prefix("chain").tempdir_in(place).expect("a directory");
        Self { place, layers: Vec::new(), tars: Vec::new() }
    }

    pub(crate) fn parents(&self) -> Parents {
        match self.layers.as_slice() {
            [] => Parents { view: View::empty(), _mounted: None },
            [only] => {
                let root = File::open(only).expect("the layer");
                Parents { view: View::new(root).expect("a view"), _mounted: None }
            }
            layers => {
                let mounted = Mounted::read_only(layers, &self.place.path().join("view"));
                let root = File::open(mounted.path()).expect("the mount");
                Parents { view: View::new(root).expect("a view"), _mounted: Some(mounted) }
            }
        }
    }

    /// A fresh upper directory, as containerd's snapshotter prepares it.
    pub(crate) fn fresh(&self) -> PathBuf {
        let upper = self.place.path().join(self.layers.len().to_string());
        fs::create_dir(&upper).expect("an upper directory");
        upper
    }

    /// Lets `command` write through an overlay and returns the upper directory as the kernel left it.
    pub(crate) fn written(&self, command: impl FnOnce(&Path)) -> PathBuf {
        let upper = self.fresh();
        let work = self.place.path().join("work");
        fs::create_dir_all(&work).expect("a work directory");
        let merged = Mounted::writable(&self.layers, &upper, &work, &self.place.path().join("merged"));
        command(merged.path());
        drop(merged);
        fs::remove_dir_all(&work).expect("the work directory goes");
        upper
    }

    /// Adds the layer of a command: its stream must survive normalising and verifying.
    pub(crate) fn run(&mut self, command: impl FnOnce(&Path)) -> Result<Vec<Listed>, Failed> {
        let upper = self.written(command);
        let parents = self.parents();
        let open = File::open(&upper)?;
        let raw = self.diffed(&upper)?;
        normalise(open.as_fd(), &parents.view)?;
        let tar = self.diffed(&upper)?;
        if raw != tar {
            return Err(format!(
                "normalising changed the stream\n{:#?}\n{:#?}",
                tree::list(&raw),
                tree::list(&tar)
            )
            .into());
        }
        drop(parents);
        self.push(upper, tar)
    }

    /// Adds the layer of some entries: what is on disk must give the same stream again.
    pub(crate) fn copy(&mut self, entries: Vec<LayerEntry>) -> Result<Vec<Listed>, Failed> {
        let upper = self.fresh();
        let mut tar = Vec::new();
        let parents = self.parents();
        let made = assemble(entries, File::open(&upper)?.as_fd(), &parents.view, &NEW_DIRECTORIES, &mut tar)?;
        let again = self.diffed(&upper)?;
        if tar != again {
            let (made, found) = (tree::list(&tar), tree::list(&again));
            return Err(format!("the directory gives another stream\n{made:#?}\n{found:#?}").into());
        }
        let digest = LayerDigest {
            diff_id: pushless::image::DiffId(Digest::of(&tar)),
            size_bytes: tar.len() as u64,
            entries: tree::list(&tar).len() as u64,
        };
        if made != digest {
            return Err(format!("announced {made:?}, wrote {digest:?}").into());
        }
        drop(parents);
        self.push(upper, tar)
    }

    pub(crate) fn diffed(&self, upper: &Path) -> Result<Vec<u8>, LayerError> {
        let mut tar = Vec::new();
        diff(File::open(upper).expect("upper").as_fd(), &self.parents().view, &mut tar)?;
        Ok(tar)
    }

    fn push(&mut self, upper: PathBuf, tar: Vec<u8>) -> Result<Vec<Listed>, Failed> {
        let digest = pushless::image::DiffId(Digest::of(&tar));
        verify(File::open(&upper)?.as_fd(), &self.parents().view, digest)?;
        let listed = tree::list(&tar);
        self.layers.push(upper);
        self.tars.push(tar);
        Ok(listed)
    }

    /// Unpacks the streams with containerd and compares the two merged trees.
    pub(crate) fn judge(&self, judge: &Judge) -> Result<(), Failed> {
        let mut parent = String::new();
        for tar in &self.tars {
            parent = judge.apply(&parent, tar)?;
        }
        let ours = {
            let mounted = Mounted::read_only(&self.layers, &self.place.path().join("ours"));
            tree::scan(mounted.path())
        };
        let theirs = {
            let mounted = Mounted::described(&judge.view(&parent)?, &self.place.path().join("theirs"));
            tree::scan(mounted.path())
        };
        let listed: Vec<_> = self.tars.iter().map(|tar| tree::list(tar)).collect();
        // containerd copies a directory that is no member up and then writes into it, which moves its time.
        let bumped = |directory: &ImagePath| {
            let last =
                |wanted: &dyn Fn(&Listed) -> bool| listed.iter().rposition(|layer| layer.iter().any(wanted));
            let member = last(&|member| member.is_directory && member.path == *directory);
            let below = last(&|member| member.path != *directory && member.path.starts_with(directory));
            below > member
        };
        let differences = tree::differences(&ours, &theirs, bumped);
        if differences.is_empty() { Ok(()) } else { Err(differences.into()) }
    }
}
