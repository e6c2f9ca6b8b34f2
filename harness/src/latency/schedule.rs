// SPDX-License-Identifier: Apache-2.0
//! Who is measured when: rounds over all builders, each round in an order of its own.
//!
//! Blocks of one builder after the other would confound the builder with the drift of the machine; a fixed order would
//! let the second one always profit from what the first has warmed up.

use fastrand::Rng;

/// One pass over all builders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Number of the measured round from 1; 0 for every warm-up round.
    pub number: u32,
    /// Indices of the builders in the order of this round.
    pub order: Vec<usize>,
}

impl Round {
    /// Whether the samples of this round are thrown away.
    pub fn is_warm_up(&self) -> bool {
        self.number == 0
    }
}

/// `warm_up` discarded rounds and then `measured` ones, in orders drawn from `seed`.
///
/// Rounds come in pairs: the second of a pair has the order of the first reversed (ABBA), so that over an even number
/// of rounds two builders stand in front of each other equally often.
pub fn schedule(builders: usize, warm_up: u32, measured: u32, seed: u64) -> Vec<Round> {
    let mut rng = Rng::with_seed(seed);
    let mut order: Vec<usize> = (0..builders).collect();
    let mut rounds = Vec::new();
    for _ in 0..warm_up {
        rng.shuffle(&mut order);
        rounds.push(Round { number: 0, order: order.clone() });
    }
    for number in 1..=measured {
        if number % 2 == 1 {
            rng.shuffle(&mut order);
        } else {
            order.reverse();
        }
        rounds.push(Round { number, order: order.clone() });
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_visits_every_builder_once_and_warm_up_comes_first() {
        let rounds = schedule(3, 2, 5, 42);
        assert_eq!(rounds.iter().map(|round| round.number).collect::<Vec<_>>(), [0, 0, 1, 2, 3, 4, 5]);
        for round in &rounds {
            let mut order = round.order.clone();
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
            assert_eq!(round.is_warm_up(), round.number == 0);
        }
    }

    #[test]
    fn over_an_even_number_of_rounds_no_builder_is_favoured() {
        let first = schedule(2, 0, 20, 7).iter().filter(|round| round.order[0] == 0).count();
        assert_eq!(first, 10);
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(schedule(4, 1, 8, 5), schedule(4, 1, 8, 5));
        assert_ne!(schedule(4, 1, 8, 5), schedule(4, 1, 8, 6));
    }
}
