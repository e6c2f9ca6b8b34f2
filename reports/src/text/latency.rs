// SPDX-License-Identifier: Apache-2.0
//! The latency table: per benchmark, case, phase and builder the median, the range, the number of samples, and the
//! ratio to the first builder with its interval.

use std::collections::BTreeMap;

use super::table::{Align, lay_out};
use crate::{Comparison, Effect, Report, phase};

/// The table; empty when the run took no samples.
pub fn latency(report: &Report) -> String {
    // Benchmarks and cases in the order of their first sample.
    let mut cases: Vec<(&str, &str)> = Vec::new();
    let mut cells: BTreeMap<(usize, usize, &str), BTreeMap<usize, Vec<u64>>> = BTreeMap::new();
    for sample in &report.samples {
        let Some(column) = report.builders.iter().position(|builder| builder.name == sample.builder) else {
            continue;
        };
        let case = (sample.bench.as_str(), sample.case.as_str());
        let place = cases.iter().position(|known| *known == case).unwrap_or_else(|| {
            cases.push(case);
            cases.len() - 1
        });
        for time in &sample.phases {
            let key = (place, phase::rank(&time.phase), time.phase.as_str());
            cells.entry(key).or_default().entry(column).or_default().push(time.wall_us);
        }
    }
    if cells.is_empty() {
        return String::new();
    }
    let titles = ["benchmark", "case", "phase", "builder", "n", "median", "min..max", "ratio [95 %]", ""];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let mut last: Option<(&str, &str, &str)> = None;
    for ((place, _, phase), builders) in cells {
        let (bench, case) = cases[place];
        for (column, mut times) in builders {
            times.sort_unstable();
            let name = &report.builders[column].name;
            let row = report.comparisons.iter().find(|row| {
                row.bench == bench && row.case == case && row.phase == phase && row.builder == *name
            });
            let (ratio, effect) = row.map_or_else(Default::default, conclusion);
            // A label is printed once and left blank while it stays the same.
            let label = |known: bool, text: &str| if known { String::new() } else { text.to_owned() };
            let same_bench = last.is_some_and(|(before, ..)| before == bench);
            let same_case = same_bench && last.is_some_and(|(_, before, _)| before == case);
            let same_phase = same_case && last.is_some_and(|(_, _, before)| before == phase);
            rows.push(vec![
                label(same_bench, bench),
                label(same_case, case),
                label(same_phase, phase),
                name.clone(),
                times.len().to_string(),
                milliseconds(median(&times)),
                format!("{}..{}", milliseconds(times[0]), milliseconds(times[times.len() - 1])),
                ratio,
                effect,
            ]);
            last = Some((bench, case, phase));
        }
    }
    let left = Align::Left;
    let right = Align::Right;
    let mut text = lay_out(&rows, &[left, left, left, left, right, right, right, right, left]);
    text.push_str(&footnote(report));
    text
}

fn conclusion(row: &Comparison) -> (String, String) {
    let effect = match row.effect {
        Effect::Faster => "faster",
        Effect::Slower => "slower",
        Effect::Inconclusive => "inconclusive",
    };
    (format!("{:.2} [{:.2}..{:.2}]", row.ratio, row.ratio_low, row.ratio_high), effect.to_owned())
}

fn footnote(report: &Report) -> String {
    let mut text = String::from("times in milliseconds\n");
    if let Some(row) = report.comparisons.first() {
        text.push_str(&format!(
            "ratio: time divided by that of {} in the same round, median of the pairs with a bootstrap interval; \
             below {:.0} % nothing is concluded\n",
            row.reference,
            row.minimum_effect * 100.0
        ));
    }
    if !report.missed_rounds.is_empty() {
        text.push_str(&format!("{} rounds gave no sample:\n", report.missed_rounds.len()));
        for round in &report.missed_rounds {
            text.push_str(&format!(
                "    {} {} {} round {}: {}\n",
                round.bench, round.case, round.builder, round.round, round.reason
            ));
        }
    }
    text
}

/// The median of sorted values; the mean of the middle two when their number is even.
fn median(sorted: &[u64]) -> u64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1].midpoint(sorted[middle]) }
}

fn milliseconds(wall_us: u64) -> String {
    format!("{}.{:01}", wall_us / 1000, wall_us % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[7]), 7);
        assert_eq!(median(&[1, 2, 9]), 2);
        assert_eq!(median(&[1, 3, 5, 100]), 4);
    }

    #[test]
    fn microseconds_are_shown_as_milliseconds_with_one_digit() {
        assert_eq!(milliseconds(0), "0.0");
        assert_eq!(milliseconds(1_099), "1.0");
        assert_eq!(milliseconds(12_345), "12.3");
    }
}
