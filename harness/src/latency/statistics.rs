// SPDX-License-Identifier: Apache-2.0
//! The ratio of two builders from paired samples, with a bootstrap interval, and the conclusion from it.
//!
//! Both samples of a pair come from the same round, minutes of drift of the machine therefore cancel out. Logarithms
//! make "twice as slow" and "twice as fast" equally far from "the same"; the median ignores the odd stalled round.

use fastrand::Rng;
use shakedown_report::{Comparison, Effect, Sample};

/// Bootstrap samples that an interval is taken from.
pub const RESAMPLES: usize = 10_000;

/// The smallest relative difference that counts as one.
pub const MINIMUM_EFFECT: f64 = 0.05;

/// Fewer pairs than this never conclude anything: a sign test over five pairs cannot reach p < 0.05 (2/2⁵ = 0.0625).
pub const MINIMUM_PAIRS: usize = 6;

/// A ratio with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Pairs that it rests on.
    pub pairs: usize,
    /// Exponential of the median of the paired log-ratios.
    pub ratio: f64,
    /// 2.5th percentile of the bootstrap distribution.
    pub low: f64,
    /// 97.5th percentile of the bootstrap distribution.
    pub high: f64,
}

impl Estimate {
    /// What the interval allows to say when differences below `minimum_effect` (0.05 = 5 %) do not count.
    pub fn conclude(&self, minimum_effect: f64) -> Effect {
        if self.pairs < MINIMUM_PAIRS {
            Effect::Inconclusive
        } else if self.low > 1.0 + minimum_effect {
            Effect::Slower
        } else if self.high < 1.0 / (1.0 + minimum_effect) {
            Effect::Faster
        } else {
            Effect::Inconclusive
        }
    }
}

/// Estimates how `subject` relates to `reference` from pairs `(reference, subject)` of durations in one unit.
///
/// `None` without a pair. A duration of 0 counts as 1: the clock's resolution, and the logarithm stays finite. The
/// interval is a percentile bootstrap over [`RESAMPLES`] draws of pairs with the given seed: the same input gives the
/// same figures.
pub fn paired_ratio(pairs: &[(u64, u64)], seed: u64) -> Option<Estimate> {
    let logs: Vec<f64> =
        pairs.iter().map(|(reference, subject)| (as_float(*subject) / as_float(*reference)).ln()).collect();
    let ratio = median(&mut logs.clone())?.exp();
    let mut rng = Rng::with_seed(seed);
    let mut draw = vec![0.0; logs.len()];
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for slot in &mut draw {
            *slot = logs[rng.usize(..logs.len())];
        }
        medians.extend(median(&mut draw));
    }
    medians.sort_unstable_by(f64::total_cmp);
    Some(Estimate {
        pairs: pairs.len(),
        ratio,
        low: percentile(&medians, 0.025)?.exp(),
        high: percentile(&medians, 0.975)?.exp(),
    })
}

/// Compares every builder with `reference`, per benchmark, case and phase, over the rounds in which both gave a
/// sample. The order is that of `builders`, then of the first appearance in the samples.
pub fn compare(samples: &[Sample], builders: &[String], reference: &str, seed: u64) -> Vec<Comparison> {
    let mut rows: Vec<(&str, &str, &str)> = Vec::new();
    for sample in samples {
        for time in &sample.phases {
            let row = (sample.bench.as_str(), sample.case.as_str(), time.phase.as_str());
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    let mut comparisons = Vec::new();
    for (bench, case, phase) in rows {
        for builder in builders.iter().filter(|builder| *builder != reference) {
            let in_row = |sample: &&Sample| sample.bench == bench && sample.case == case;
            let pairs: Vec<(u64, u64)> = samples
                .iter()
                .filter(in_row)
                .filter(|sample| sample.builder == reference)
                .filter_map(|first| {
                    let other = samples
                        .iter()
                        .filter(in_row)
                        .find(|sample| sample.builder == *builder && sample.round == first.round)?;
                    Some((time_of(first, phase)?, time_of(other, phase)?))
                })
                .collect();
            let Some(estimate) = paired_ratio(&pairs, seed) else { continue };
            comparisons.push(Comparison {
                bench: bench.to_owned(),
                case: case.to_owned(),
                phase: phase.to_owned(),
                builder: builder.clone(),
                reference: reference.to_owned(),
                pairs: u32::try_from(estimate.pairs).unwrap_or(u32::MAX),
                ratio: estimate.ratio,
                ratio_low: estimate.low,
                ratio_high: estimate.high,
                minimum_effect: MINIMUM_EFFECT,
                effect: estimate.conclude(MINIMUM_EFFECT),
            });
        }
    }
    comparisons
}

fn time_of(sample: &Sample, phase: &str) -> Option<u64> {
    sample.phases.iter().find(|time| time.phase == phase).map(|time| time.wall_us)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 µs are 285 years")]
fn as_float(duration: u64) -> f64 {
    duration.max(1) as f64
}

/// Sorts the values; the mean of the middle two when their number is even.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The value at `share` of sorted values, linear between its neighbours (Hyndman and Fan's definition 7).
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(clippy::cast_precision_loss, reason = "at most RESAMPLES")]
    let place = share * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ place ≤ last")]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * place.fract())
}

#[cfg(test)]
mod tests {
    use shakedown_report::{PhaseTime, phase};

    use super::*;

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9, "found {found}, wanted {wanted}");
    }

    #[test]
    fn medians_and_percentiles_have_their_textbook_values() {
        assert_eq!(median(&mut []), None);
        close(median(&mut [3.0, 1.0, 2.0]).unwrap(), 2.0);
        close(median(&mut [4.0, 1.0, 3.0, 2.0]).unwrap(), 2.5);
        let sorted = [10.0, 20.0, 30.0, 40.0, 50.0];
        for (share, value) in [(0.0, 10.0), (0.25, 20.0), (0.1, 14.0), (0.975, 49.0), (1.0, 50.0)] {
            close(percentile(&sorted, share).unwrap(), value);
        }
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_constant_ratio_is_found_exactly() {
        let pairs: Vec<_> = (1..=10).map(|round| (round * 1000, round * 1500)).collect();
        let estimate = paired_ratio(&pairs, 1).unwrap();
        assert_eq!(estimate.pairs, 10);
        for found in [estimate.ratio, estimate.low, estimate.high] {
            close(found, 1.5);
        }
        assert_eq!(estimate.conclude(MINIMUM_EFFECT), Effect::Slower);
    }

    #[test]
    fn swapping_the_sides_inverts_the_ratio() {
        let pairs = [(100, 130), (110, 90), (95, 120), (100, 150), (105, 112), (99, 140), (120, 121)];
        let swapped: Vec<_> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
        let (there, back) = (paired_ratio(&pairs, 3).unwrap(), paired_ratio(&swapped, 3).unwrap());
        close(there.ratio * back.ratio, 1.0);
        close(there.low * back.high, 1.0);
    }

    #[test]
    fn one_stalled_round_moves_neither_the_ratio_nor_the_conclusion() {
        let mut pairs = vec![(1000, 500); 10];
        pairs[4].1 = 90_000;
        let estimate = paired_ratio(&pairs, 5).unwrap();
        close(estimate.ratio, 0.5);
        assert_eq!(estimate.conclude(MINIMUM_EFFECT), Effect::Faster);
    }

    #[test]
    fn too_few_pairs_and_too_small_effects_are_inconclusive() {
        let conclude = |pairs: &[(u64, u64)]| paired_ratio(pairs, 2).unwrap().conclude(MINIMUM_EFFECT);
        assert_eq!(conclude(&[(100, 300); 5]), Effect::Inconclusive);
        assert_eq!(conclude(&[(100, 300); 6]), Effect::Slower);
        assert_eq!(conclude(&[(100, 105); 30]), Effect::Inconclusive);
        assert_eq!(conclude(&[(100, 106); 30]), Effect::Slower);
        assert_eq!(conclude(&[(105, 100); 30]), Effect::Inconclusive);
        assert_eq!(conclude(&[(106, 100); 30]), Effect::Faster);
        assert!(paired_ratio(&[], 2).is_none());
    }

    #[test]
    fn zero_counts_as_the_resolution_of_the_clock() {
        close(paired_ratio(&[(0, 4)], 1).unwrap().ratio, 4.0);
    }

    /// One pair of noise of ±20 % around the given ratio.
    fn noisy(rng: &mut Rng, ratio: f64) -> (u64, u64) {
        let mut time = |mean: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a positive test value"
            )]
            let time = (mean * (0.8 + 0.4 * rng.f64())) as u64;
            time
        };
        (time(100_000.0), time(100_000.0 * ratio))
    }

    #[test]
    fn equal_builders_raise_a_false_alarm_in_at_most_5_of_100_simulated_runs() {
        let mut rng = Rng::with_seed(11);
        let alarms = (0..100)
            .filter(|seed| {
                let pairs: Vec<_> = (0..10).map(|_| noisy(&mut rng, 1.0)).collect();
                paired_ratio(&pairs, *seed).unwrap().conclude(MINIMUM_EFFECT) != Effect::Inconclusive
            })
            .count();
        assert!(alarms <= 5, "{alarms} false alarms");
    }

    #[test]
    fn a_builder_of_half_the_speed_is_found_in_each_simulated_run() {
        let mut rng = Rng::with_seed(12);
        for seed in 0..50 {
            let pairs: Vec<_> = (0..10).map(|_| noisy(&mut rng, 2.0)).collect();
            assert_eq!(paired_ratio(&pairs, seed).unwrap().conclude(MINIMUM_EFFECT), Effect::Slower);
        }
    }

    #[test]
    fn the_seed_decides_the_interval() {
        let mut rng = Rng::with_seed(13);
        let pairs: Vec<_> = (0..12).map(|_| noisy(&mut rng, 1.1)).collect();
        assert_eq!(paired_ratio(&pairs, 9), paired_ratio(&pairs, 9));
    }

    #[test]
    fn only_rounds_with_both_samples_are_compared() {
        let sample = |builder: &str, round, wall_us| Sample {
            bench: "b".into(),
            case: "edit".into(),
            builder: builder.into(),
            round,
            position: 0,
            phases: vec![PhaseTime { phase: phase::BUILD.into(), wall_us }],
        };
        let mut samples: Vec<_> = (0..8).map(|round| sample("fast", round, 100)).collect();
        samples.extend((2..20).map(|round| sample("slow", round, 200)));
        let names = ["fast", "slow", "absent"].map(str::to_owned);
        let rows = compare(&samples, &names, "fast", 1);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].builder.as_str(), rows[0].reference.as_str(), rows[0].pairs),
            ("slow", "fast", 6)
        );
        close(rows[0].ratio, 2.0);
        assert_eq!(rows[0].effect, Effect::Slower);
    }
}
