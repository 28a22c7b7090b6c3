//! Recency, frequency, monetary value: scores from 1 to 5 and the grid of their names.
//!
//! Owns rank scores (equal values always share one), the cut points that give the same scores later, and
//! the 25 cells. Knows nothing of orders or dates.

use serde::{Deserialize, Serialize};

use super::spec::Grid;

/// The name of customers without an order in the window.
pub const INACTIVE: &str = "Inactive";

/// Scores run from 1 to this, best last.
const SCORES: usize = 5;

/// Which end of a measure is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// As with days since the last order.
    Lower,
    /// As with orders and money.
    Higher,
}

/// The value at which each score above 1 begins, frozen from a population.
///
/// Scores given by the cuts equal the rank scores of the population they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cuts {
    /// Which end is good.
    pub better: Better,
    /// The worst value that has at least score 2, 3, 4, 5; `None` when no value has it.
    pub from: [Option<f64>; SCORES - 1],
}

/// The rank score of every value, in the order given: 1 + floor(5 × rows strictly worse / rows).
///
/// Values are finite; the scores do not depend on the order of rows.
pub fn scores(values: &[f64], better: Better) -> Vec<u8> {
    let cuts = Cuts::of(values, better);
    values.iter().map(|&value| cuts.score(value)).collect()
}

impl Cuts {
    /// The cut points of a population of finite values; without values every score is 1.
    pub fn of(values: &[f64], better: Better) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        if better == Better::Lower {
            sorted.reverse();
        }
        let mut from = [None; SCORES - 1];
        let mut worse = 0;
        for group in sorted.chunk_by(|left, right| left == right) {
            let score = 1 + SCORES * worse / sorted.len();
            for cut in from.iter_mut().take(score - 1) {
                cut.get_or_insert(group[0]);
            }
            worse += group.len();
        }
        Self { better, from }
    }

    /// The score of any value, from 1 to 5.
    pub fn score(&self, value: f64) -> u8 {
        let reached = |cut: &&Option<f64>| {
            cut.is_some_and(|cut| match self.better {
                Better::Lower => value <= cut,
                Better::Higher => value >= cut,
            })
        };
        1 + self.from.iter().filter(reached).count() as u8
    }
}

/// The name of a cell: recency and frequency scores from 1 to 5; others count as the nearest.
pub fn grid(recency: u8, frequency: u8) -> &'static str {
    match (recency.clamp(1, 5), frequency.clamp(1, 5)) {
        (5, 1) => "New Customers",
        (4, 1) => "Promising",
        (4.., 2 | 3) => "Potential Loyalists",
        (5, _) => "Champions",
        (4, _) | (3, 4..) => "Loyal Customers",
        (3, 1 | 2) => "About To Sleep",
        (3, _) => "Need Attention",
        (_, 1 | 2) => "Hibernating",
        (_, 3 | 4) => "At Risk",
        (_, _) => "Can't Lose Them",
    }
}

/// The name of a cell of either grid; scores from 1 to 5, others count as the nearest.
pub fn cell(of: Grid, recency: u8, frequency: u8, monetary: u8) -> &'static str {
    match of {
        Grid::Rfm => grid(recency, frequency),
        Grid::Rfm11 => grid_with_money(recency, frequency, monetary),
    }
}

/// The name by recency and the mean of frequency and money, halves up. An ordered list: the first match wins.
fn grid_with_money(recency: u8, frequency: u8, monetary: u8) -> &'static str {
    let both = (frequency.clamp(1, 5) + monetary.clamp(1, 5)).div_ceil(2);
    if (recency.clamp(1, 5), both) == (1, 1) { "Lost" } else { grid(recency, both) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_without_ties_are_quintiles() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let higher = scores(&values, Better::Higher);
        let lower = scores(&values, Better::Lower);
        for score in 1..=5 {
            assert_eq!(higher.iter().filter(|found| **found == score).count(), 20);
            assert_eq!(lower.iter().filter(|found| **found == score).count(), 20);
        }
        assert_eq!((higher[99], lower[99]), (5, 1));
    }

    #[test]
    fn equal_values_share_a_score_counted_from_strictly_worse_rows() {
        let values = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 9.0];
        for better in [Better::Higher, Better::Lower] {
            let direct: Vec<u8> = values
                .iter()
                .map(|value| {
                    let worse = |other: &&f64| match better {
                        Better::Higher => *other < value,
                        Better::Lower => *other > value,
                    };
                    1 + (5 * values.iter().filter(worse).count() / values.len()) as u8
                })
                .collect();
            assert_eq!(scores(&values, better), direct);
        }
    }

    #[test]
    fn every_triple_of_scores_has_a_name_and_the_lowest_are_lost() {
        let mut names = std::collections::BTreeSet::new();
        for recency in 1..=5 {
            for frequency in 1..=5 {
                for monetary in 1..=5 {
                    names.insert(cell(Grid::Rfm11, recency, frequency, monetary));
                }
            }
        }
        assert_eq!(names.len(), 11);
        assert_eq!((cell(Grid::Rfm11, 1, 1, 1), cell(Grid::Rfm11, 1, 1, 2)), ("Lost", "Hibernating"));
        assert_eq!(cell(Grid::Rfm, 1, 1, 1), "Hibernating");
    }

    #[test]
    fn the_grid_is_the_published_one() {
        let rows: Vec<Vec<&str>> = (1..=5).rev().map(|r| (1..=5).map(|f| grid(r, f)).collect()).collect();
        let (new, potential, champions) = ("New Customers", "Potential Loyalists", "Champions");
        let (loyal, sleep, hibernating) = ("Loyal Customers", "About To Sleep", "Hibernating");
        let (risk, lose) = ("At Risk", "Can't Lose Them");
        assert_eq!(rows[0], [new, potential, potential, champions, champions]);
        assert_eq!(rows[1], ["Promising", potential, potential, loyal, loyal]);
        assert_eq!(rows[2], [sleep, sleep, "Need Attention", loyal, loyal]);
        assert_eq!(rows[3], [hibernating, hibernating, risk, risk, lose]);
        assert_eq!(rows[4], rows[3]);
    }
}
