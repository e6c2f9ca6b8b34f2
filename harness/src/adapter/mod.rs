// SPDX-License-Identifier: Apache-2.0
//! Adapters: how a builder is found, started, driven and cleaned, told by one YAML file per builder.
//!
//! Planning is pure: an adapter, the arguments of a build and the surroundings give an [`Invocation`]. Only
//! [`discover`] looks at the machine. Nothing here may know a particular builder.

mod discover;
mod invocation;
mod load;
mod model;
mod plan;
mod template;
mod vocabulary;

pub use discover::{Absence, Environment, Rejection, VersionError, detect_version, discover};
pub use invocation::Invocation;
pub use load::{load, load_all};
pub use model::{
    Adapter, AdapterKind, BuildOptions, BuildTemplate, CacheClaim, DaemonStep, Driver, EnvironmentRule,
    Lifecycle, Program, Readiness, Usable, VersionRule,
};
pub use plan::{
    BuildArguments, DaemonPlan, PlanError, PlannedReadiness, Surroundings, plan_build, plan_cache_paths,
    plan_deliver, plan_down, plan_prune, plan_seed, plan_up, plan_version,
};
pub use template::{Argument, Placeholder, Template};
pub use vocabulary::{Capability, ExitClass};
