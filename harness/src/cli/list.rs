// SPDX-License-Identifier: Apache-2.0
//! `shakedown list`: what a run would take.

use std::fmt::Write;

use super::{ListArguments, Places, Selection};

/// The documents that the arguments select, or the complaint for a terminal.
pub(super) fn selected(arguments: &ListArguments) -> Result<Selection, String> {
    let places = Places::find(&arguments.documents).map_err(|error| error.render())?;
    let (scenarios, adapters) = places.load().map_err(|error| error.render())?;
    Selection::of(scenarios, adapters, &arguments.selection).map_err(|error| format!("error: {error}\n"))
}

/// The scenarios and the builders, one per line.
pub fn list(selection: &Selection) -> String {
    let mut text = String::new();
    let width = selection.scenarios.iter().map(|one| one.id.value.as_str().len()).max().unwrap_or(0);
    for scenario in &selection.scenarios {
        let measured = if scenario.bench.is_some() { " (measured)" } else { "" };
        let _ = writeln!(text, "{:<width$}  {}{measured}", scenario.id.value.as_str(), scenario.title);
    }
    let _ = writeln!(text, "\n{} scenarios, for the builders:", selection.scenarios.len());
    for adapter in &selection.adapters {
        let _ = writeln!(text, "{:<width$}  {}", adapter.id.value, adapter.title);
    }
    text
}
