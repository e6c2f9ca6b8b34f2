// SPDX-License-Identifier: Apache-2.0
//! Walks the schedule and takes the times.

use std::future::Future;
use std::time::Instant;

use shakedown_report::{Event, MissedRound, PhaseTime, Sample, phase};

use super::{compare, schedule};

/// A source of time that never goes back.
pub trait Clock {
    /// Microseconds since any fixed moment.
    fn now_us(&self) -> u64;
}

/// The kernel's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock(Instant);

impl Default for MonotonicClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now_us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// One builder's turn with one case in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// Index of the builder.
    pub builder: usize,
    /// Index of the case.
    pub case: usize,
    /// Number of the round, 0 for warm-up.
    pub round: u32,
    /// Counts all turns of the measurement, warm-up included; never repeats.
    pub turn: u64,
}

/// How a phase is timed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timing {
    /// By the driver, around the call.
    Window,
    /// By what did it, closer to the work: around a process alone, or a pod's steps without its end and removal.
    Steps(Vec<PhaseTime>),
}

/// What is measured. All methods but [`Subject::run`] are outside of any window.
pub trait Subject {
    /// Why something could not be done; its display goes into the report.
    type Error: std::fmt::Display;

    /// Brings the build context into the state that the case starts from.
    fn prepare(&mut self, visit: Visit) -> impl Future<Output = Result<(), Self::Error>>;

    /// The phases of this builder, in order.
    fn phases(&self, visit: Visit) -> Vec<&'static str>;

    /// Does one phase.
    fn run(&mut self, visit: Visit, phase: &'static str)
    -> impl Future<Output = Result<Timing, Self::Error>>;

    /// Removes what the turn made and the next one does not need; called also after a failed phase.
    fn clean_up(&mut self, visit: Visit) -> impl Future<Output = Result<(), Self::Error>>;

    /// Whether the measurement is to end before the next turn.
    fn is_cancelled(&self) -> bool;
}

/// A measurement over all builders.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Name of the benchmark.
    pub bench: String,
    /// Names of the builders; the first is the one that the others are compared with.
    pub builders: Vec<String>,
    /// Ids of the cases, all of them in each builder's turn in this order.
    pub cases: Vec<String>,
    /// Rounds that are thrown away.
    pub warm_up: u32,
    /// Rounds that count.
    pub measured: u32,
    /// Seed of the orders and of the bootstrap.
    pub seed: u64,
}

impl Driver {
    /// Measures, and hands every sample on as soon as it is there; the comparisons come last.
    ///
    /// A failure ends its turn and is recorded, in a warm-up round too: a builder that only fails cold must not look
    /// as if it had been measured. Samples of one turn after a failed one are not taken, for the state is unknown.
    pub async fn run<S: Subject>(&self, subject: &mut S, clock: &impl Clock, mut emit: impl FnMut(Event)) {
        let mut samples = Vec::new();
        let mut turn = 0;
        'rounds: for round in schedule(self.builders.len(), self.warm_up, self.measured, self.seed) {
            for (position, builder) in (0..).zip(&round.order) {
                for (case, id) in self.cases.iter().enumerate() {
                    if subject.is_cancelled() {
                        break 'rounds;
                    }
                    turn += 1;
                    let visit = Visit { builder: *builder, case, round: round.number, turn };
                    match take(subject, visit, clock).await {
                        Ok(_) if round.is_warm_up() => {}
                        Ok(phases) => {
                            let sample = Sample {
                                bench: self.bench.clone(),
                                case: id.clone(),
                                builder: self.builders[*builder].clone(),
                                round: round.number,
                                position,
                                phases,
                            };
                            samples.push(sample.clone());
                            emit(Event::Sample(sample));
                        }
                        // A turn that was cut short by a cancellation says nothing about the builder.
                        Err(_) if subject.is_cancelled() => break 'rounds,
                        Err(reason) => {
                            emit(Event::MissedRound(MissedRound {
                                bench: self.bench.clone(),
                                case: id.clone(),
                                builder: self.builders[*builder].clone(),
                                round: round.number,
                                reason,
                            }));
                            break;
                        }
                    }
                }
            }
        }
        if let Some(reference) = self.builders.first() {
            for row in compare(&samples, &self.builders, reference, self.seed) {
                emit(Event::Comparison(row));
            }
        }
    }
}

/// One turn; the total is the sum of what was recorded.
async fn take<S: Subject>(
    subject: &mut S,
    visit: Visit,
    clock: &impl Clock,
) -> Result<Vec<PhaseTime>, String> {
    let measured = async {
        subject.prepare(visit).await.map_err(|error| format!("prepare: {error}"))?;
        let mut times = Vec::new();
        for phase in subject.phases(visit) {
            let before_us = clock.now_us();
            let timing = subject.run(visit, phase).await.map_err(|error| format!("{phase}: {error}"))?;
            let wall_us = clock.now_us() - before_us;
            match timing {
                Timing::Window => times.push(PhaseTime { phase: phase.to_owned(), wall_us }),
                Timing::Steps(steps) => times.extend(steps),
            }
        }
        let wall_us = times.iter().map(|time| time.wall_us).sum();
        times.push(PhaseTime { phase: phase::TOTAL.to_owned(), wall_us });
        Ok(times)
    }
    .await;
    let cleaned = subject.clean_up(visit).await.map_err(|error| format!("clean up: {error}"));
    match (measured, cleaned) {
        (Ok(times), Ok(())) => Ok(times),
        (Err(reason), _) | (Ok(_), Err(reason)) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use shakedown_report::Effect;

    use super::*;

    #[derive(Clone, Default)]
    struct FakeClock(Rc<Cell<u64>>);

    impl Clock for FakeClock {
        fn now_us(&self) -> u64 {
            self.0.get()
        }
    }

    /// Builder 0 takes 10 µs per phase, builder 1 takes 30 and has a deliver phase; preparation costs time too.
    struct Fake {
        clock: FakeClock,
        log: Vec<String>,
        fail_at: Option<(usize, usize, &'static str)>,
        cancel_after: u64,
        turns: u64,
    }

    impl Subject for Fake {
        type Error = &'static str;

        async fn prepare(&mut self, visit: Visit) -> Result<(), &'static str> {
            self.turns = visit.turn;
            self.clock.0.set(self.clock.0.get() + 1_000_000);
            self.log.push(format!("{} {}", visit.builder, ["cold", "noop"][visit.case]));
            Ok(())
        }

        fn phases(&self, visit: Visit) -> Vec<&'static str> {
            if visit.builder == 0 {
                vec![phase::BUILD, phase::VISIBLE]
            } else {
                vec![phase::BUILD, phase::DELIVER, phase::VISIBLE]
            }
        }

        async fn run(&mut self, visit: Visit, phase: &'static str) -> Result<Timing, &'static str> {
            self.clock.0.set(self.clock.0.get() + if visit.builder == 0 { 10 } else { 30 });
            if self.fail_at == Some((visit.builder, visit.case, phase)) {
                return Err("broken");
            }
            if visit.case == 1 && phase == phase::VISIBLE {
                let steps = [(phase::SANDBOX, 3), (phase::CREATE, 4)];
                let steps = steps.map(|(phase, wall_us)| PhaseTime { phase: phase.to_owned(), wall_us });
                return Ok(Timing::Steps(steps.into()));
            }
            Ok(Timing::Window)
        }

        async fn clean_up(&mut self, _: Visit) -> Result<(), &'static str> {
            self.clock.0.set(self.clock.0.get() + 500_000);
            self.log.push("clean".to_owned());
            Ok(())
        }

        fn is_cancelled(&self) -> bool {
            self.turns >= self.cancel_after
        }
    }

    fn drive(fail_at: Option<(usize, usize, &'static str)>, cancel_after: u64) -> (Vec<Event>, Vec<String>) {
        let clock = FakeClock::default();
        let mut fake = Fake { clock: clock.clone(), log: Vec::new(), fail_at, cancel_after, turns: 0 };
        let driver = Driver {
            bench: "small".to_owned(),
            builders: vec!["a".to_owned(), "b".to_owned()],
            cases: vec!["cold".to_owned(), "noop".to_owned()],
            warm_up: 1,
            measured: 6,
            seed: 3,
        };
        let mut events = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(driver.run(&mut fake, &clock, |event| events.push(event)));
        (events, fake.log)
    }

    #[test]
    fn phases_are_timed_apart_and_preparation_is_in_no_window() {
        let (events, log) = drive(None, u64::MAX);
        let samples: Vec<_> = events
            .iter()
            .filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None })
            .collect();
        assert_eq!(samples.len(), 2 * 2 * 6, "warm-up is thrown away");
        assert_eq!(log.len(), 2 * 2 * 7 * 2, "and is run");
        for sample in samples {
            let found: Vec<_> =
                sample.phases.iter().map(|time| (time.phase.as_str(), time.wall_us)).collect();
            match (sample.builder.as_str(), sample.case.as_str()) {
                ("a", "cold") => assert_eq!(found, [("build", 10), ("visible", 10), ("total", 20)]),
                ("a", _) => {
                    assert_eq!(found, [("build", 10), ("sandbox", 3), ("create", 4), ("total", 17)]);
                }
                (_, "cold") => {
                    assert_eq!(found, [("build", 30), ("deliver", 30), ("visible", 30), ("total", 90)]);
                }
                _ => {
                    let steps = [("sandbox", 3), ("create", 4), ("total", 67)];
                    assert_eq!(found, [[("build", 30), ("deliver", 30)].as_slice(), &steps].concat());
                }
            }
        }
        let totals = events.iter().filter_map(|event| match event {
            Event::Comparison(row) if row.phase == "total" => {
                Some((row.ratio.round(), row.effect, row.pairs))
            }
            _ => None,
        });
        assert_eq!(totals.collect::<Vec<_>>(), [(5.0, Effect::Slower, 6), (4.0, Effect::Slower, 6)]);
    }

    #[test]
    fn a_failed_phase_ends_the_turn_is_recorded_and_cleaned_up_after() {
        let (events, log) = drive(Some((1, 0, phase::DELIVER)), u64::MAX);
        let missed: Vec<_> = events
            .iter()
            .filter_map(|event| if let Event::MissedRound(round) = event { Some(round) } else { None })
            .collect();
        assert_eq!(missed.len(), 7, "each round, the warm-up too");
        assert!(missed.iter().all(|round| round.builder == "b" && round.reason == "deliver: broken"));
        assert!(!log.contains(&"1 noop".to_owned()));
        assert_eq!(log.iter().filter(|entry| *entry == "clean").count() * 2, log.len());
    }

    #[test]
    fn a_cancellation_ends_before_the_next_turn_and_what_was_measured_remains() {
        let (events, log) = drive(None, 8);
        assert_eq!(log.len(), 16);
        assert!(events.iter().any(|event| matches!(event, Event::Sample(_))));
        assert!(!events.iter().any(|event| matches!(event, Event::MissedRound(_))));
    }
}
