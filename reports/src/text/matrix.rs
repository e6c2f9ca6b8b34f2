// SPDX-License-Identifier: Apache-2.0
//! Scenario × builder, the counts under each column, a legend of the verdicts that occur, and the findings in full.

use std::collections::HashMap;
use std::fmt::Write;

use super::table::{Align, lay_out};
use crate::{Counts, Level, Presence, Report, TrialReport, Verdict};

/// The matrix with its legend and counts.
pub fn matrix(report: &Report) -> String {
    let cells: HashMap<(&str, &str), &TrialReport> = report
        .trials
        .iter()
        .map(|trial| ((trial.scenario.as_str(), trial.builder.as_str()), trial))
        .collect();
    let mut scenarios: Vec<(&str, Level)> = Vec::new();
    for trial in &report.trials {
        if !scenarios.iter().any(|(name, _)| *name == trial.scenario) {
            scenarios.push((&trial.scenario, trial.level));
        }
    }
    let mut rows = vec![header(report)];
    for (scenario, level) in scenarios {
        let label =
            if level == Level::Must { scenario.to_owned() } else { format!("{scenario} ({level:?})") };
        let mut row = vec![label.to_lowercase()];
        for builder in &report.builders {
            row.push(match cells.get(&(scenario, builder.name.as_str())) {
                Some(trial) => mark(trial.verdict).to_owned(),
                None => String::new(),
            });
        }
        rows.push(row);
    }
    rows.extend(totals(report));
    let mut text = lay_out(&rows, &vec![Align::Left; report.builders.len() + 1]);
    text.push('\n');
    for verdict in Verdict::ALL.into_iter().filter(|verdict| report.counts.get(*verdict) > 0) {
        let _ = writeln!(text, "{:<12} {}", mark(verdict), meaning(verdict));
    }
    text
}

/// Every verdict that needs an explanation, with its reason and its findings.
pub fn findings(report: &Report) -> String {
    let mut text = String::new();
    for builder in &report.builders {
        match &builder.presence {
            Presence::Present { .. } => {}
            Presence::Broken { reason, .. } => {
                let _ = writeln!(text, "{} could not be made ready: {}", builder.name, indented(reason));
            }
            Presence::Absent { reason, remedy } => {
                let _ = writeln!(text, "{} is absent: {reason}", builder.name);
                if let Some(remedy) = remedy {
                    let _ = writeln!(text, "    help: {remedy}");
                }
            }
        }
    }
    for trial in &report.trials {
        let Some(attempt) = trial.deciding() else { continue };
        if matches!(trial.verdict, Verdict::Pass | Verdict::Absent | Verdict::NotRun) {
            continue;
        }
        let class = attempt.class.map(|class| format!(" ({})", class.name())).unwrap_or_default();
        let _ = write!(text, "{} · {}: {}{class}", trial.scenario, trial.builder, mark(trial.verdict));
        match &attempt.reason {
            Some(reason) => {
                let _ = writeln!(text, ": {}", indented(reason));
            }
            None => text.push('\n'),
        }
        for finding in &attempt.findings {
            let place = finding.path.as_ref().map(|path| format!(" {path}")).unwrap_or_default();
            let build = finding.build.map(|build| format!(" (build {build})")).unwrap_or_default();
            let _ = writeln!(text, "    {}{place}{build}", finding.assertion);
            for (label, value) in [("expected", &finding.expected), ("found   ", &finding.found)] {
                let _ = writeln!(text, "        {label}  {}", value.replace('\n', "\n                  "));
            }
        }
        for log in &attempt.logs {
            let _ = writeln!(text, "    log: {log}");
        }
    }
    text
}

fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

fn header(report: &Report) -> Vec<String> {
    let columns = report.builders.iter().map(|builder| builder.name.clone());
    std::iter::once("scenario".to_owned()).chain(columns).collect()
}

/// One row per verdict that occurs, so that nothing vanishes in a sum.
fn totals(report: &Report) -> Vec<Vec<String>> {
    let columns: Vec<Counts> = report
        .builders
        .iter()
        .map(|builder| {
            let own = report.trials.iter().filter(|trial| trial.builder == builder.name);
            Counts::of(own.map(|trial| trial.verdict))
        })
        .collect();
    let mut rows = vec![vec![String::new()]];
    for verdict in Verdict::ALL.into_iter().filter(|verdict| report.counts.get(*verdict) > 0) {
        let counts = columns.iter().map(|counts| counts.get(verdict).to_string());
        rows.push(std::iter::once(format!("= {verdict}")).chain(counts).collect());
    }
    rows
}

/// The verdict in a cell; what somebody has to act on is in capitals.
fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Flaky => "FLAKY",
        Verdict::Xpass => "XPASS",
        Verdict::Fail => "FAIL",
        Verdict::Timeout => "TIMEOUT",
        Verdict::Error => "ERROR",
        Verdict::Pass | Verdict::Xfail | Verdict::Unsupported | Verdict::Absent | Verdict::NotRun => {
            verdict.name()
        }
    }
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "everything that the scenario asks for holds",
        Verdict::Xfail => "failed in the way that was declared, with a reason",
        Verdict::Unsupported => "needs a capability that the adapter does not declare; not executed",
        Verdict::Absent => "the builder is not installed here; not executed",
        Verdict::NotRun => "the run ended before this trial's turn",
        Verdict::Flaky => "failed first, passed when tried again",
        Verdict::Xpass => "passed although a failure is declared: remove the declaration",
        Verdict::Fail => "something that must hold does not",
        Verdict::Timeout => "the builder did not end within its limit",
        Verdict::Error => "the harness or its environment broke; nothing is said about the builder",
    }
}
