// SPDX-License-Identifier: Apache-2.0
//! Trials that cannot run everywhere.
//!
//! Invariant: a trial whose need is not met is reported as ignored with the reason, never as passed.

use libtest_mimic::{Completion, Failed, Trial};

/// `None` for root; else what is missing, where `purpose` completes the sentence "needs root to …".
pub fn root(purpose: &str) -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| format!("needs root to {purpose}"))
}

/// A trial that is reported as ignored when something is `missing`.
pub fn trial(
    name: impl Into<String>,
    missing: Option<&str>,
    body: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let missing = missing.map(str::to_owned);
    Trial::ignorable_test(name, move || match missing {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => body().map(|()| Completion::Completed),
    })
}
