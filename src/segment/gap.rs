//! The gap statistic (Tibshirani, Walther, Hastie 2001): how much tighter the clusters are than in data that
//! has none.
//!
//! Owns the reference data (uniform in the box of the rows' principal components) and the gap with its error.
//! The dispersion is the sum of squared distances, as in the paper.

use rayon::prelude::*;
use serde::Serialize;

use super::kmeans::{KMeansOptions, kmeans};
use super::matrix::Matrix;
use super::principal::Components;
use super::random::{Draws, Purpose};

/// Reference data sets.
const REFERENCES: u64 = 50;
/// Rows on which the statistic is computed; more rows make it hardly sharper.
const ROWS: usize = 5_000;
/// Starts of each fit.
const RUNS: usize = 3;

/// The gap of one k.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gap {
    /// Mean of the references' log dispersion, less the data's.
    pub value: f64,
    /// Population standard deviation of the references' log dispersion, times sqrt(1 + 1 / references).
    pub error: f64,
}

/// The gap of each k, from the logarithms of dispersions: `data` has one per k, `references` one list per
/// reference data set, in the same order of k; at least one reference.
pub fn gaps(data: &[f64], references: &[Vec<f64>]) -> Vec<Gap> {
    let count = references.len() as f64;
    let gap = |(place, own): (usize, &f64)| {
        let mean = references.iter().map(|logs| logs[place]).sum::<f64>() / count;
        let variance = references.iter().map(|logs| (logs[place] - mean).powi(2)).sum::<f64>() / count;
        Gap { value: mean - own, error: (variance * (1.0 + 1.0 / count)).sqrt() }
    };
    data.iter().enumerate().map(gap).collect()
}

/// The gap of every k of `range`; `None` when a dispersion is 0.
pub(super) fn gap_statistic(sample: &Matrix, range: &[usize], options: &KMeansOptions) -> Option<Vec<Gap>> {
    let step = sample.rows().div_ceil(ROWS);
    let thinned = sample.select(&(0..sample.rows()).step_by(step).collect::<Vec<_>>());
    if range.iter().any(|k| *k > thinned.rows()) {
        return None;
    }
    let components = Components::of(&thinned);
    let bounds: Vec<(f64, f64)> = (0..thinned.width())
        .map(|number| {
            let scores =
                (0..thinned.rows()).map(|row| components.along(number, thinned.row(row).into_iter()));
            scores.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)))
        })
        .collect();
    let logs = |points: &Matrix| -> Option<Vec<f64>> {
        let dispersion = |&clusters: &usize| {
            let fit = kmeans(points, &KMeansOptions { clusters, runs: RUNS, ..options.clone() }).ok()?;
            (fit.inertia > 0.0).then(|| fit.inertia.ln())
        };
        range.iter().map(dispersion).collect()
    };
    let reference = |number: u64| {
        let draws = Draws::new(options.seed, number, Purpose::Gap);
        let width = bounds.len() as u64;
        let row = |row: usize| {
            let score = |(place, (low, high)): (u64, &(f64, f64))| {
                low + (high - low) * draws.unit(row as u64 * width + place)
            };
            components.back(&(0..).zip(&bounds).map(score).collect::<Vec<_>>())
        };
        let rows: Vec<Vec<f64>> = (0..thinned.rows()).map(row).collect();
        let columns = (0..thinned.width()).map(|column| rows.iter().map(|row| row[column]).collect());
        Matrix::from_columns(columns.collect()).ok().as_ref().and_then(logs)
    };
    let references: Vec<Vec<f64>> =
        (0..REFERENCES).into_par_iter().map(reference).collect::<Option<Vec<_>>>()?;
    Some(gaps(&logs(&thinned)?, &references))
}
