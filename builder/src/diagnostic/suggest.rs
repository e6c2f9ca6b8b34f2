// SPDX-License-Identifier: Apache-2.0
//! "Did you mean": the nearest of the words that would have been right.

/// The candidate that is nearest to `written`, if one is near enough to be a slip of the keyboard: a third of its
/// letters at most, swapped neighbours counting once. Case is ignored; of equally near ones the first wins.
pub fn closest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written: Vec<char> = written.to_lowercase().chars().collect();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.to_lowercase().chars().collect();
            let allowed = (letters.len().max(written.len()) / 3).clamp(1, 3);
            // The distance is at least the difference of the lengths, so long nonsense costs nothing.
            if letters.len().abs_diff(written.len()) > allowed {
                return None;
            }
            let distance = distance(&written, &letters);
            (distance <= allowed && distance < letters.len()).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `left` into `right`.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != other);
            let mut best = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *letter == right[column - 1] && left[row - 1] == *other {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_nonsense_is_not() {
        let words = ["FROM", "COPY", "RUN", "ENTRYPOINT", "ENV"];
        for (written, meant) in [
            ("FORM", Some("FROM")),
            ("from", Some("FROM")),
            ("COPPY", Some("COPY")),
            ("RUNN", Some("RUN")),
            ("ENTRIPOINT", Some("ENTRYPOINT")),
            ("ENTRY_POINTS", Some("ENTRYPOINT")),
            ("INCLUDE", None),
            ("X", None),
            ("", None),
            ("EN", Some("ENV")),
        ] {
            assert_eq!(closest(written, words), meant, "{written}");
        }
    }

    #[test]
    fn a_single_letter_never_stands_for_another() {
        assert_eq!(closest("b", ["a"]), None);
    }
}
