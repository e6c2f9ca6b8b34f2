// SPDX-License-Identifier: Apache-2.0
//! What a build is asked to do, typed and complete: the command line and any other front end end here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cache::CacheLimits;
use crate::image::ImageReference;

/// One build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The name that the image gets.
    pub name: ImageReference,
    /// The directory that COPY reads.
    pub context: PathBuf,
    /// The Dockerfile, when it is not the context's own.
    pub dockerfile: Option<PathBuf>,
    /// `--build-arg`s.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; `None` for the last one.
    pub target: Option<String>,
    /// Execute every step, whatever the cache holds. Results are still recorded.
    pub no_cache: bool,
    /// What the cache may hold afterwards.
    pub cache_limits: CacheLimits,
}
