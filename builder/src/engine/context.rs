// SPDX-License-Identifier: Apache-2.0
//! The build context of one build: opened and read only when a COPY asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::error::BuildError;
use super::layer_step::join;
use crate::context::{ContextError, IgnoreFile, SelectedSource, SourceTree, StatCache, SystemClock, select};

/// Tree and stat cache, opened once.
#[derive(Debug)]
struct Opened {
    tree: Arc<SourceTree>,
    cache: StatCache,
}

/// The context that COPY reads.
#[derive(Debug)]
pub(crate) struct BuildContext {
    root: PathBuf,
    dockerfile: PathBuf,
    state: PathBuf,
    opened: OnceCell<Arc<Opened>>,
}

impl BuildContext {
    /// The directory `root`; an ignore file beside `dockerfile` comes before its own. Digests of unchanged files are
    /// kept below `state`.
    pub(crate) fn new(root: PathBuf, dockerfile: PathBuf, state: PathBuf) -> Self {
        Self { root, dockerfile, state, opened: OnceCell::new() }
    }

    /// What `sources` name in the context.
    pub(crate) async fn select(
        &self,
        sources: Vec<String>,
    ) -> Result<(Arc<SourceTree>, Vec<SelectedSource>), BuildError> {
        let opened = self
            .opened
            .get_or_try_init(|| async {
                let ignore = IgnoreFile::load(&self.root, Some(&self.dockerfile))?;
                let tree = SourceTree::build_context(&self.root, ignore)?;
                let cache = StatCache::open(&self.state, tree.path(), Box::new(SystemClock));
                Ok::<_, BuildError>(Arc::new(Opened { tree: Arc::new(tree), cache }))
            })
            .await?
            .clone();
        let tree = opened.tree.clone();
        let selected =
            join(tokio::task::spawn_blocking(move || select(&opened.tree, &sources, &opened.cache)).await)?;
        Ok((tree, selected?))
    }

    /// Keeps the digests for the next build. That this fails is worth a line, not a build.
    pub(crate) fn save(&self) -> Result<(), ContextError> {
        self.opened.get().map_or(Ok(()), |opened| opened.cache.save().map(drop))
    }
}
