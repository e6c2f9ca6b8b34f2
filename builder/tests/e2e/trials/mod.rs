// SPDX-License-Identifier: Apache-2.0
//! The trials. Each has its lab for itself while it runs, so it may count what is in containerd.

mod cache;
mod commands;
mod crash;
mod endings;
mod failures;
mod language;
mod registry;
mod upkeep;

use libtest_mimic::Failed;

use super::lab::Lab;

/// One trial.
pub type Run = fn(&Lab) -> Result<(), Failed>;

/// Every trial by name.
pub fn all() -> Vec<(&'static str, Run)> {
    [
        cache::ALL,
        commands::ALL,
        crash::ALL,
        endings::ALL,
        failures::ALL,
        language::ALL,
        registry::ALL,
        upkeep::ALL,
    ]
    .concat()
}

/// Whether a trial pulls from a registry of its own.
pub fn needs_registry(trial: &str) -> bool {
    registry::ALL.iter().any(|(name, _)| *name == trial)
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the callers compare temporaries")]
pub fn expect<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), Failed> {
    let place = std::panic::Location::caller();
    if found == wanted { Ok(()) } else { Err(format!("{place}: found {found:?}, wanted {wanted:?}").into()) }
}

#[track_caller]
pub fn require(holds: bool, what: &str) -> Result<(), Failed> {
    let place = std::panic::Location::caller();
    if holds { Ok(()) } else { Err(format!("{place}: {what}").into()) }
}
