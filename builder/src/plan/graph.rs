// SPDX-License-Identifier: Apache-2.0
//! The planned build as values.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::dockerfile::Instruction;
use crate::image::ImageReference;

/// What is asked of a Dockerfile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanRequest {
    /// The stage to build, by name in any case or by index; the last one by default.
    pub target: Option<String>,
    /// The build arguments of the command line.
    pub build_args: BTreeMap<String, String>,
    /// `BUILDPLATFORM`, `TARGETPLATFORM`, `TARGETOS`, `TARGETARCH` and their kin. `TARGETSTAGE` is added here.
    pub platform_args: BTreeMap<String, String>,
}

/// A stage by its place in the file, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub usize);

impl fmt::Display for StageId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The stages that the target needs and the target itself. Each comes after all that it depends on.
    pub stages: Vec<PlannedStage>,
    /// The stage whose result is the image.
    pub target: StageId,
    /// What a bare `ARG X` in a stage inherits: global ARGs and platform arguments, overridden by build arguments.
    pub global_args: BTreeMap<String, String>,
    /// Whether any stage copies from the build context. If not, the context need not be read.
    pub context_paths_needed: bool,
    /// Build arguments that nothing in the reachable stages asks for, sorted.
    pub unused_build_args: Vec<String>,
}

impl Plan {
    /// A planned stage by its id; `None` if the target does not need it.
    pub fn stage(&self, id: StageId) -> Option<&PlannedStage> {
        // The stages are sorted by id: a stage can only use what stands above it.
        self.stages.binary_search_by_key(&id, |stage| stage.id).ok().map(|index| &self.stages[index])
    }
}

/// A stage with every name resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStage {
    /// Its place in the file.
    pub id: StageId,
    /// Its name in lower case.
    pub name: Option<String>,
    /// What it starts from.
    pub base: Base,
    /// What it does.
    pub instructions: Vec<PlannedInstruction>,
    /// The stages that must be there before: base and sources of COPY, sorted, each once.
    pub dependencies: Vec<StageId>,
    /// Its FROM instruction in the Dockerfile.
    pub from_span: Range<usize>,
}

impl PlannedStage {
    /// How to name it to the user: its name, else its index.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(StageId),
    /// An image, and the word of FROM that names it.
    Image(ImageReference, Range<usize>),
}

/// An instruction with its names resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedInstruction {
    /// The instruction as parsed.
    pub instruction: Instruction,
    /// Where a COPY takes its files from; `None` for every other instruction.
    pub copy_source: Option<CopySource>,
}

/// Where a COPY takes its files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// The build context.
    Context,
    /// An earlier stage.
    Stage(StageId),
    /// An image, and the word of `--from` that names it.
    Image(ImageReference, Range<usize>),
}
