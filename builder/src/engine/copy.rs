// SPDX-License-Identifier: Apache-2.0
//! COPY: from the build context, another stage or an image, straight into a new layer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::copy_target::{Target, place};
use super::error::BuildError;
use super::event::StepOutcome;
use super::layer_step::join;
use super::session::Session;
use super::stage::{StageRun, expansion};
use crate::cache::{KeyBuilder, StepKey};
use crate::context::{SelectedSource, SourceTree, StatCache, select, selection_digest};
use crate::dockerfile::{Copy, Instruction};
use crate::image::ChainId;
use crate::layer::{Metadata, assemble};
use crate::plan::{CopySource, PlannedInstruction};
use crate::sandbox::overlay::{self, MountedRoot};

/// What a COPY takes its files from.
struct Source {
    tree: Arc<SourceTree>,
    selected: Vec<SelectedSource>,
    /// Keeps the tree of another root file system in its place.
    _mount: Option<MountedRoot>,
}

impl StageRun<'_> {
    pub(crate) async fn copy_step(
        &mut self,
        planned: &PlannedInstruction,
        copy: &Copy,
    ) -> Result<(), BuildError> {
        let step = self.begin(planned.instruction.original.clone());
        let done = self.copy(&planned.instruction, planned.copy_source.as_ref(), copy).await;
        self.end(step, &done);
        done.map(drop)
    }

    async fn copy(
        &mut self,
        instruction: &Instruction,
        from: Option<&CopySource>,
        copy: &Copy,
    ) -> Result<StepOutcome, BuildError> {
        let build = self.build;
        let expand = |word| self.image.scope.expand(word).map_err(|error| expansion(build, error));
        let sources = copy.sources.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        let destination = expand(&copy.destination)?;
        let target = Target::new(&self.image.workdir(), &destination, sources.len());
        let created_by = super::history::copy(&sources, &destination);
        let location = build.location(instruction.span.clone());

        let mut keys = Vec::new();
        let chain = match from {
            None | Some(CopySource::Context) => None,
            Some(CopySource::Stage(id)) => Some(self.stage_result(*id).await?.chain),
            Some(CopySource::Image(reference, span)) => {
                let place = build.location(span.clone());
                Some(build.bases.get(&build.session, reference, &place).await?.chain)
            }
        };
        if let Some(chain) = chain {
            let key = self.key_by_definition(chain, &sources, &target);
            keys.push(key);
            if let Some(record) = self.look_up(&[key]).await? {
                self.take_hit(key, record, created_by).await?;
                return Ok(StepOutcome::Cached);
            }
        }
        let source = match chain {
            None => {
                let selected = build.session.unless_cancelled(build.context.select(sources)).await;
                let (tree, selected) = selected.map_err(|error| error.in_instruction(&location))?;
                Source { tree, selected, _mount: None }
            }
            Some(chain) => {
                let opened = select_from(&build.session, chain, sources).await;
                opened.map_err(|error| build.session.or_stale(error).in_instruction(&location))?
            }
        };
        let key = KeyBuilder::new("copy", self.image.chain)
            .field("destination", target.key_bytes())
            .field("selection", selection_digest(&source.selected))
            .finish();
        keys.push(key);
        if let Some(record) = self.look_up(&[key]).await? {
            for definition in keys.iter().filter(|other| **other != key) {
                build.session.index.put(*definition, &record)?;
            }
            self.take_hit(key, record, created_by).await?;
            return Ok(StepOutcome::Cached);
        }

        let snapshot = self.prepare().await?;
        let parents = build.session.view(&snapshot.dirs.lower).await?;
        let upper = snapshot.open_upper()?;
        let Source { tree, selected, _mount } = source;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let new_directories = Metadata::of_root(0o755, i64::try_from(now).unwrap_or(i64::MAX));
        let placed = {
            let (view, made) = (parents.view.clone(), new_directories.clone());
            let placed = tokio::task::spawn_blocking(move || place(&selected, &target, &view, &tree, &made));
            join(placed.await)?.map_err(|error| error.at(&location))?
        };
        let layer = self
            .write_layer(upper, &parents, move |upper, view, sink| {
                use rustix::fd::AsFd as _;
                assemble(placed, upper.as_fd(), view, &new_directories, sink)
            })
            .await
            .map_err(|error| error.in_instruction(&location))?;
        self.take_layer(snapshot, layer, keys, created_by);
        Ok(StepOutcome::Executed)
    }

    /// A key that needs no look at the source: its chain id says all about it.
    fn key_by_definition(&self, source: Option<ChainId>, patterns: &[String], target: &Target) -> StepKey {
        let source = source.map_or_else(|| "scratch".to_owned(), |chain| chain.to_string());
        KeyBuilder::new("copy-from", self.image.chain)
            .field("source", source)
            .list("patterns", patterns)
            .field("destination", target.key_bytes())
            .finish()
    }
}

/// What `sources` name in the root file system `chain`.
async fn select_from(
    session: &Session,
    chain: Option<ChainId>,
    sources: Vec<String>,
) -> Result<Source, BuildError> {
    let look = session.look(chain).await?;
    let mount = match &*look.dirs.lower {
        [one] => return session.unless_cancelled(selected(one, None, sources)).await,
        lower => overlay::mount_view(&*session.scratch().await?, lower)?,
    };
    let path = mount.path().to_owned();
    session.unless_cancelled(selected(&path, Some(mount), sources)).await
}

async fn selected(
    root: &std::path::Path,
    mount: Option<MountedRoot>,
    sources: Vec<String>,
) -> Result<Source, BuildError> {
    let tree = Arc::new(SourceTree::root_file_system(root)?);
    let shared = tree.clone();
    // The contents of a stage are new each time they are looked at; remembering them would cost more than it saves.
    let selected = tokio::task::spawn_blocking(move || select(&shared, &sources, &StatCache::disabled()));
    Ok(Source { tree, selected: join(selected.await)??, _mount: mount })
}
