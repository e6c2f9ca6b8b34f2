// SPDX-License-Identifier: Apache-2.0
//! Events to report, by one pure function that accepts only a whole run: planned = reported, each trial once.

use std::collections::HashMap;

use crate::{
    Attempt, AttemptFinished, Counts, Event, Report, RunFinished, RunStarted, SCHEMA_VERSION, TrialReport,
    Verdict,
};

/// Why a stream is no whole run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// There is no event at all, or the first is not the header.
    #[error("fold the events: the first one is not the header")]
    NoHeader,
    /// The writer speaks another version.
    #[error("fold the events: schema version {found} is not {SCHEMA_VERSION}")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// The writer died.
    #[error("fold the events: there is no footer after {events} events; the run did not end")]
    NoFooter {
        /// Events that are there.
        events: usize,
    },
    /// Two runs in one stream.
    #[error("fold the events: event {index} is a second header or comes after the footer")]
    OutOfPlace {
        /// Number of the event, from 0.
        index: usize,
    },
    /// The plan names a trial twice.
    #[error("fold the events: {trial} is planned twice")]
    PlannedTwice {
        /// `scenario × builder`.
        trial: String,
    },
    /// A trial was reported that nobody planned.
    #[error("fold the events: {trial} is reported and was not planned")]
    NotPlanned {
        /// `scenario × builder`.
        trial: String,
    },
    /// Attempts must be numbered 1, 2, 3 …
    #[error("fold the events: {trial} reports attempt {attempt} after {before} attempts")]
    AttemptOutOfOrder {
        /// `scenario × builder`.
        trial: String,
        /// The number given.
        attempt: u32,
        /// Attempts before it.
        before: usize,
    },
    /// Planned trials without a verdict.
    #[error("fold the events: {} of {planned} planned trials have no verdict: {}", .missing.len(), .missing.join(", "))]
    Unreported {
        /// Trials in the plan.
        planned: usize,
        /// Those without a verdict, `scenario × builder`.
        missing: Vec<String>,
    },
    /// Writer and reader count differently.
    #[error("fold the events: the footer's counts are not those of the verdicts")]
    Counts,
}

/// Folds a stream into its report.
///
/// # Errors
/// Whenever the stream is not exactly one whole run; see [`FoldError`].
pub fn fold(events: &[Event]) -> Result<Report, FoldError> {
    let Some((Event::RunStarted(header), rest)) = events.split_first() else {
        return Err(FoldError::NoHeader);
    };
    if header.schema_version != SCHEMA_VERSION {
        return Err(FoldError::Version { found: header.schema_version });
    }
    let Some((Event::RunFinished(footer), body)) = rest.split_last() else {
        return Err(FoldError::NoFooter { events: events.len() });
    };
    let mut report = empty(header, footer);
    let mut place = HashMap::new();
    for (index, trial) in report.trials.iter().enumerate() {
        if place.insert((trial.scenario.clone(), trial.builder.clone()), index).is_some() {
            return Err(FoldError::PlannedTwice { trial: name(&trial.scenario, &trial.builder) });
        }
    }
    for (index, event) in body.iter().enumerate() {
        match event {
            Event::RunStarted(_) | Event::RunFinished(_) => {
                return Err(FoldError::OutOfPlace { index: index + 1 });
            }
            Event::TrialStarted(_) => {}
            Event::AttemptFinished(attempt) => {
                let key = (attempt.scenario.clone(), attempt.builder.clone());
                let Some(place) = place.get(&key) else {
                    return Err(FoldError::NotPlanned { trial: name(&key.0, &key.1) });
                };
                add(&mut report.trials[*place], attempt)?;
            }
            Event::Sample(sample) => report.samples.push(sample.clone()),
            Event::MissedRound(round) => report.missed_rounds.push(round.clone()),
            Event::Comparison(row) => report.comparisons.push(row.clone()),
        }
    }
    let missing: Vec<_> = report
        .trials
        .iter()
        .filter(|trial| trial.attempts.is_empty())
        .map(|trial| name(&trial.scenario, &trial.builder))
        .collect();
    if !missing.is_empty() {
        return Err(FoldError::Unreported { planned: report.trials.len(), missing });
    }
    report.counts = Counts::of(report.trials.iter().map(|trial| trial.verdict));
    if report.counts == footer.counts { Ok(report) } else { Err(FoldError::Counts) }
}

/// The verdict over the attempts of one trial: the last one's, except that a pass after anything else is flaky.
pub fn settle(attempts: &[Verdict]) -> Verdict {
    match attempts.split_last() {
        None => Verdict::NotRun,
        Some((Verdict::Pass, before)) if before.iter().any(|verdict| *verdict != Verdict::Pass) => {
            Verdict::Flaky
        }
        Some((last, _)) => *last,
    }
}

fn add(trial: &mut TrialReport, finished: &AttemptFinished) -> Result<(), FoldError> {
    if usize::try_from(finished.attempt) != Ok(trial.attempts.len() + 1) {
        return Err(FoldError::AttemptOutOfOrder {
            trial: name(&trial.scenario, &trial.builder),
            attempt: finished.attempt,
            before: trial.attempts.len(),
        });
    }
    trial.attempts.push(Attempt {
        verdict: finished.verdict,
        class: finished.class,
        reason: finished.reason.clone(),
        findings: finished.findings.clone(),
        phases: finished.phases.clone(),
        metrics: finished.metrics.clone(),
        logs: finished.logs.clone(),
        wall_ms: finished.wall_ms,
    });
    let verdicts: Vec<_> = trial.attempts.iter().map(|attempt| attempt.verdict).collect();
    trial.verdict = settle(&verdicts);
    Ok(())
}

fn empty(header: &RunStarted, footer: &RunFinished) -> Report {
    let trials = header.planned.iter().map(|planned| TrialReport {
        scenario: planned.scenario.clone(),
        builder: planned.builder.clone(),
        level: planned.level,
        verdict: Verdict::NotRun,
        attempts: Vec::new(),
    });
    Report {
        schema_version: header.schema_version,
        run: header.run.clone(),
        started_at: header.started_at.clone(),
        shakedown_version: header.shakedown_version.clone(),
        argv: header.argv.clone(),
        seed: header.seed,
        suite_sha256: header.suite_sha256.clone(),
        host: header.host.clone(),
        builders: header.builders.clone(),
        trials: trials.collect(),
        samples: Vec::new(),
        missed_rounds: Vec::new(),
        comparisons: Vec::new(),
        counts: Counts::default(),
        ending: footer.ending,
        wall_ms: footer.wall_ms,
    }
}

fn name(scenario: &str, builder: &str) -> String {
    format!("{scenario} × {builder}")
}
