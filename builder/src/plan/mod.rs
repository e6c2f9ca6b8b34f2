// SPDX-License-Identifier: Apache-2.0
//! From a Dockerfile and a request to the stages that the target needs, in an order in which they can be built.
//!
//! Pure: names are resolved to stages or image references here, images are looked up by the engine. A stage that the
//! target does not reach is never resolved, so a broken one does no harm.

mod error;
mod graph;
mod resolve;

pub use error::PlanError;
pub use graph::{Base, CopySource, Plan, PlanRequest, PlannedInstruction, PlannedStage, StageId};
pub use resolve::plan;
