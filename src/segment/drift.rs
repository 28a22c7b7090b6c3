//! How far two samples of one feature lie apart.
//!
//! Owns the bins that a model keeps of its training rows, and five measures: the population stability index
//! (PSI) and the Jensen-Shannon distance on shares, chi-squared on counts, and Kolmogorov-Smirnov and
//! Wasserstein on the values themselves. Knows nothing of thresholds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::statistics::{quantile, sorted};

/// The share that stands for an empty bin.
const EMPTY: f64 = 1e-4;
/// Levels that are counted on their own; the others count together.
const LEVELS: usize = 20;
/// All levels without a bin of their own.
pub const OTHER: &str = "__other__";
/// Rows without a value.
pub const NULL: &str = "__null__";

/// A sample of numbers as shares of bins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bins {
    /// Inner edges, rising, each once: bin i reaches from above edge i - 1 up to and including edge i; the
    /// first and the last are open.
    pub edges: Vec<f64>,
    /// The share of each bin: one more than edges.
    pub shares: Vec<f64>,
}

impl Bins {
    /// Ten bins at the deciles of the finite values, equal ones merged; `None` if there is no value.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let values = sorted(&finite(values));
        if values.is_empty() {
            return None;
        }
        let mut edges: Vec<f64> = (1..10).map(|decile| quantile(&values, f64::from(decile) / 10.0)).collect();
        edges.dedup();
        let mut bins = Self { edges, shares: Vec::new() };
        bins.shares = bins.counts(&values).iter().map(|n| *n as f64 / values.len() as f64).collect();
        Some(bins)
    }

    /// How many of the finite values fall into each bin.
    #[must_use]
    pub fn counts(&self, values: &[f64]) -> Vec<u64> {
        let mut counts = vec![0; self.edges.len() + 1];
        for value in values.iter().filter(|value| value.is_finite()) {
            counts[self.edges.partition_point(|edge| edge < value)] += 1;
        }
        counts
    }
}

/// A sample of levels as shares: the most frequent by name, then all others, then those without a value.
#[must_use]
pub fn level_shares<'a>(levels: impl Iterator<Item = Option<&'a str>>) -> Vec<(String, f64)> {
    let (mut counts, mut nulls, mut rows) = (BTreeMap::<&str, u64>::new(), 0_u64, 0_u64);
    for level in levels {
        rows += 1;
        match level {
            Some(level) => *counts.entry(level).or_default() += 1,
            None => nulls += 1,
        }
    }
    let mut frequent: Vec<(&str, u64)> = counts.into_iter().collect();
    frequent.sort_by_key(|(level, n)| (std::cmp::Reverse(*n), *level));
    let others: u64 = frequent.iter().skip(LEVELS).map(|(_, n)| n).sum();
    frequent.truncate(LEVELS);
    frequent.extend([(OTHER, others), (NULL, nulls)]);
    let share = |n: u64| if rows == 0 { 0.0 } else { n as f64 / rows as f64 };
    frequent.into_iter().map(|(level, n)| (level.to_owned(), share(n))).collect()
}

/// How many of `levels` are each of `known`, which ends with [`OTHER`] and [`NULL`].
#[must_use]
pub fn level_counts<'a>(known: &[(String, f64)], levels: impl Iterator<Item = Option<&'a str>>) -> Vec<u64> {
    let mut counts = vec![0; known.len()];
    let places: BTreeMap<&str, usize> =
        known.iter().enumerate().map(|(place, (level, _))| (level.as_str(), place)).collect();
    let other = places.get(OTHER).copied();
    for level in levels {
        let place = places.get(level.unwrap_or(NULL)).copied().or(other);
        if let Some(place) = place {
            counts[place] += 1;
        }
    }
    counts
}

/// The population stability index: the sum of (p - q) ln(p / q) over bins, p of `current`, q of `reference`.
/// Both sum to 1; an empty bin counts as 1e-4, and shares are then brought back to the sum 1.
#[must_use]
pub fn psi(current: &[f64], reference: &[f64]) -> f64 {
    let (current, reference) = (filled(current), filled(reference));
    current.iter().zip(&reference).map(|(p, q)| (p - q) * (p / q).ln()).sum()
}

/// What [`psi`] is expected to be for two samples of one law, of `current` and `reference` rows.
#[must_use]
pub fn psi_by_chance(bins: usize, current: u64, reference: u64) -> f64 {
    bins.saturating_sub(1) as f64 * (1.0 / current as f64 + 1.0 / reference as f64)
}

fn filled(shares: &[f64]) -> Vec<f64> {
    let filled: Vec<f64> = shares.iter().map(|share| if *share > 0.0 { *share } else { EMPTY }).collect();
    let all: f64 = filled.iter().sum();
    filled.into_iter().map(|share| share / all).collect()
}

/// The Jensen-Shannon distance, base 2: from 0 (equal) to 1 (nothing in common).
#[must_use]
pub fn jensen_shannon(current: &[f64], reference: &[f64]) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (2.0 * p / (p + q)).log2() } else { 0.0 };
    let both = current.iter().zip(reference);
    let divergence: f64 = both.map(|(&p, &q)| (part(p, q) + part(q, p)) / 2.0).sum();
    divergence.max(0.0).sqrt()
}

/// A chi-squared test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChiSquared {
    /// The statistic.
    pub statistic: f64,
    /// Bins that either sample has, less one.
    pub degrees: usize,
    /// The chance of at least this statistic if both samples follow one law.
    pub p_value: f64,
    /// sqrt(statistic / rows): the size of the difference, from 0 to 1, whatever the number of rows.
    pub effect: f64,
}

/// Tests whether two samples of counts follow one law; `None` if one of them is empty.
#[must_use]
pub fn chi_squared(current: &[u64], reference: &[u64]) -> Option<ChiSquared> {
    let (n, m) = (current.iter().sum::<u64>() as f64, reference.iter().sum::<u64>() as f64);
    if n == 0.0 || m == 0.0 {
        return None;
    }
    let (mut statistic, mut bins) = (0.0, 0_usize);
    for (&a, &b) in current.iter().zip(reference) {
        let both = (a + b) as f64;
        if both == 0.0 {
            continue;
        }
        bins += 1;
        for (found, rows) in [(a as f64, n), (b as f64, m)] {
            let expected = both * rows / (n + m);
            statistic += (found - expected).powi(2) / expected;
        }
    }
    let degrees = bins.saturating_sub(1);
    let p_value = if degrees == 0 { 1.0 } else { upper_gamma(degrees as f64 / 2.0, statistic / 2.0) };
    Some(ChiSquared { statistic, degrees, p_value, effect: (statistic / (n + m)).sqrt() })
}

/// A two-sample Kolmogorov-Smirnov test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KolmogorovSmirnov {
    /// The greatest distance of the two distribution functions.
    pub statistic: f64,
    /// The chance of at least this distance if both samples follow one law, by the limit law.
    pub p_value: f64,
}

/// Compares two samples by their distribution functions; `None` if one has no finite value.
#[must_use]
pub fn kolmogorov_smirnov(current: &[f64], reference: &[f64]) -> Option<KolmogorovSmirnov> {
    let (a, b) = (sorted(&finite(current)), sorted(&finite(reference)));
    let statistic = steps(&a, &b)?.map(|step| (step.current - step.reference).abs()).fold(0.0, f64::max);
    let (n, m) = (a.len() as f64, b.len() as f64);
    let lambda = (n * m / (n + m)).sqrt() * statistic;
    Some(KolmogorovSmirnov { statistic, p_value: kolmogorov(lambda) })
}

/// The Wasserstein distance: the area between the two distribution functions, in the feature's unit; `None`
/// if one has no finite value.
#[must_use]
pub fn wasserstein(current: &[f64], reference: &[f64]) -> Option<f64> {
    let (a, b) = (sorted(&finite(current)), sorted(&finite(reference)));
    Some(steps(&a, &b)?.map(|step| (step.current - step.reference).abs() * step.width).sum())
}

/// Two distribution functions between one value and the next.
struct Step {
    current: f64,
    reference: f64,
    /// To the next value; 0 at the last.
    width: f64,
}

fn steps<'a>(current: &'a [f64], reference: &'a [f64]) -> Option<impl Iterator<Item = Step> + 'a> {
    if current.is_empty() || reference.is_empty() {
        return None;
    }
    let (mut at, mut by) = (0, 0);
    Some(std::iter::from_fn(move || {
        let value = match (current.get(at), reference.get(by)) {
            (None, None) => return None,
            (Some(a), Some(b)) => a.min(*b),
            (Some(a), None) => *a,
            (None, Some(b)) => *b,
        };
        at += current[at..].iter().take_while(|a| **a == value).count();
        by += reference[by..].iter().take_while(|b| **b == value).count();
        let next = match (current.get(at), reference.get(by)) {
            (None, None) => value,
            (Some(a), Some(b)) => a.min(*b),
            (Some(a), None) => *a,
            (None, Some(b)) => *b,
        };
        Some(Step {
            current: at as f64 / current.len() as f64,
            reference: by as f64 / reference.len() as f64,
            width: next - value,
        })
    }))
}

fn finite(values: &[f64]) -> Vec<f64> {
    values.iter().copied().filter(|value| value.is_finite()).collect()
}

/// The tail of Kolmogorov's limit law: 2 Σ (-1)^(j-1) exp(-2 j² λ²).
fn kolmogorov(lambda: f64) -> f64 {
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |j: i32| {
        let sign = if j % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(j * j) * lambda * lambda).exp()
    };
    (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// The regularised upper incomplete gamma function Q(a, x), by its series below a + 1 and its continued
/// fraction (Lentz) above.
fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..1_000 {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term < sum * f64::EPSILON {
                break;
            }
        }
        return (1.0 - sum * front).clamp(0.0, 1.0);
    }
    let tiny = f64::MIN_POSITIVE / f64::EPSILON;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
    let mut fraction = d;
    for i in 1..1_000 {
        let i = f64::from(i);
        let numerator = -i * (i - a);
        b += 2.0;
        d = 1.0 / nonzero(numerator * d + b, tiny);
        c = nonzero(b + numerator / c, tiny);
        let factor = d * c;
        fraction *= factor;
        if (factor - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    (front * fraction).clamp(0.0, 1.0)
}

fn nonzero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// ln Γ(x) for x ≥ 1/2, by Stirling's series after shifting x above 10.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0 - inverse * (1.0 / 360.0 - inverse * (1.0 / 1260.0 - inverse / 1680.0))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0), "{found} is not {wanted}");
    }

    #[test]
    fn equal_deciles_are_one_bin_with_its_whole_share() {
        let values: Vec<f64> = [1.0; 48].into_iter().chain((0..52).map(|n| 2.0 + f64::from(n))).collect();
        let bins = Bins::of(&values).unwrap();
        assert_eq!(bins.edges.len(), 6, "{bins:?}");
        close(bins.shares[0], 0.48);
        close(bins.shares.iter().sum(), 1.0);
        assert_eq!(bins.counts(&[0.0, 1.0, 1e9, f64::NAN]), [2, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Bins::of(&[f64::NAN]), None);
    }

    #[test]
    fn the_same_shares_do_not_drift_and_an_empty_bin_counts_a_little() {
        close(psi(&[0.5, 0.5], &[0.5, 0.5]), 0.0);
        // By hand: 0.3 ln(0.8 / 0.5) - 0.3 ln(0.2 / 0.5).
        close(psi(&[0.8, 0.2], &[0.5, 0.5]), 0.3 * 1.6_f64.ln() - 0.3 * 0.4_f64.ln());
        let p = [1.0_f64 / 1.0001, 1e-4 / 1.0001];
        close(
            psi(&[1.0, 0.0], &[0.5, 0.5]),
            (p[0] - 0.5) * (p[0] / 0.5).ln() + (p[1] - 0.5) * (p[1] / 0.5).ln(),
        );
        close(psi_by_chance(10, 1_000, 9_000), 9.0 * (1.0 / 1_000.0 + 1.0 / 9_000.0));
    }

    #[test]
    fn levels_are_counted_by_name_with_others_and_nulls() {
        let shares = level_shares([Some("a"), Some("a"), Some("b"), None].into_iter());
        let shown: Vec<_> = shares.iter().map(|(level, share)| (level.as_str(), *share)).collect();
        assert_eq!(shown, [("a", 0.5), ("b", 0.25), (OTHER, 0.0), (NULL, 0.25)]);
        assert_eq!(level_counts(&shares, [Some("b"), Some("new"), None].into_iter()), [0, 1, 1, 1]);
    }

    #[test]
    fn distances_agree_with_hand_counts() {
        close(jensen_shannon(&[1.0, 0.0], &[0.0, 1.0]), 1.0);
        close(jensen_shannon(&[0.5, 0.5], &[0.5, 0.5]), 0.0);
        let (a, b) = ([0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]);
        close(kolmogorov_smirnov(&a, &b).unwrap().statistic, 0.5);
        close(wasserstein(&a, &b).unwrap(), 2.0);
        close(wasserstein(&[0.0, 1.0, 3.0], &[5.0, 6.0, 8.0]).unwrap(), 5.0);
        assert_eq!(wasserstein(&[], &a), None);
    }

    #[test]
    fn chances_agree_with_tables() {
        // Chi-squared tables: 5 % at 3.841 (1 degree), 16.919 (9), 1 % at 21.666 (9).
        for (degrees, statistic, chance) in [
            (1.0, 3.841_458_820_694_124, 0.05),
            (9.0, 16.918_977_604_620_45, 0.05),
            (9.0, 21.665_994_333_461_93, 0.01),
        ] {
            let found: f64 = upper_gamma(degrees / 2.0, statistic / 2.0);
            assert!((found - chance).abs() < 1e-9, "{found} is not {chance}");
        }
        let found = kolmogorov(1.358_098_834_3);
        assert!((found - 0.05).abs() < 1e-6, "{found}");
        let test = chi_squared(&[10, 20, 30], &[20, 20, 20]).unwrap();
        // By hand: every expected count is 15, 20 or 25.
        close(test.statistic, 2.0 * (25.0 / 15.0 + 25.0 / 25.0));
        assert_eq!(test.degrees, 2);
        close(test.effect, (test.statistic / 120.0).sqrt());
        assert_eq!(chi_squared(&[0], &[3]), None);
    }
}
