// SPDX-License-Identifier: Apache-2.0
//! WORKDIR: the directory is made if it is not there, and belongs to the current user.

use std::time::{SystemTime, UNIX_EPOCH};

use super::error::BuildError;
use super::event::StepOutcome;
use super::stage::StageRun;
use crate::cache::KeyBuilder;
use crate::dockerfile::Instruction;
use crate::image::ImagePath;
use crate::layer::{Content, EntryKind, LayerEntry, Metadata, View, assemble};
use crate::sandbox::user::ResolvedUser;

impl StageRun<'_> {
    pub(crate) async fn workdir_step(
        &mut self,
        instruction: &Instruction,
        path: &str,
    ) -> Result<(), BuildError> {
        let path = self.image.workdir().join(path);
        let step = self.begin(instruction.original.clone());
        let done = self.workdir(instruction, &path).await;
        let done = done.map_err(|error| error.in_instruction(&self.build.location(instruction.span.clone())));
        self.end(step, &done);
        done.map(drop)
    }

    async fn workdir(
        &mut self,
        instruction: &Instruction,
        path: &ImagePath,
    ) -> Result<StepOutcome, BuildError> {
        let created_by = format!("WORKDIR {path}");
        self.image.config.config.working_dir = path.to_string();
        if path.is_root() {
            // The root is there in every image, so BuildKit makes no layer of it either.
            self.image.push_metadata(created_by);
            return Ok(StepOutcome::Cached);
        }
        let user = self.image.config.config.user.clone();
        let key = KeyBuilder::new("workdir", self.image.chain)
            .field("path", path.to_os_string().as_encoded_bytes())
            .field("user", &user)
            .finish();
        if let Some(record) = self.look_up(&[key]).await? {
            self.take_hit(key, record, created_by).await?;
            return Ok(StepOutcome::Cached);
        }
        let snapshot = self.prepare().await?;
        let parents = self.build.session.view(&snapshot.dirs.lower).await?;
        let location = || Box::new(self.build.location(instruction.span.clone()));
        let owner = super::run::resolve_user(&parents.view, &user, location)?;
        let upper = snapshot.open_upper()?;
        let wanted = path.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let metadata = directory_of(&owner, i64::try_from(now).unwrap_or(i64::MAX));
        let layer = self
            .write_layer(upper, &parents, move |upper, view, sink| {
                use rustix::fd::AsFd as _;
                let entries = missing_directories(view, &wanted, &metadata)?;
                assemble(entries, upper.as_fd(), view, &metadata, sink)
            })
            .await?;
        self.take_layer(snapshot, layer, vec![key], created_by);
        Ok(StepOutcome::Executed)
    }
}

pub(crate) fn directory_of(owner: &ResolvedUser, mtime_s: i64) -> Metadata {
    Metadata { mode: 0o755, uid: owner.uid, gid: owner.gid, mtime_s, capability: None }
}

/// The directories that `mkdir -p` would make, links followed inside the root.
fn missing_directories(
    view: &View,
    path: &ImagePath,
    metadata: &Metadata,
) -> Result<Vec<LayerEntry>, crate::layer::LayerError> {
    let resolved = view.resolve(path, true)?;
    let mut entries = Vec::new();
    for directory in resolved.ancestors().into_iter().chain([resolved]) {
        match view.lstat(&directory)? {
            Some(stat) if stat.kind == EntryKind::Directory => {}
            Some(_) => {
                return Err(crate::layer::LayerError::ParentNotDirectory {
                    path: path.clone(),
                    parent: directory,
                });
            }
            None if directory.is_root() => {}
            None => entries.push(LayerEntry {
                path: directory,
                metadata: metadata.clone(),
                content: Content::Directory,
            }),
        }
    }
    Ok(entries)
}
