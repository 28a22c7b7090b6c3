//! The silhouette: how much nearer rows are to their own cluster than to the next.
//!
//! Owns the exact figure, the sampled estimate with its error, and the squared variant under its own name.
//! s(i) = (b - a) / max(a, b); 0 for a singleton and when a = b = 0.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::matrix::Matrix;
use super::metrics::{Groups, Undefined, squared_to};
use super::points::{Points, SumOfDistances};
use super::random::{Draws, Purpose};
use super::vectors::{Kernel, Vectors};

/// Up to this many rows the silhouette is computed exactly.
pub const EXACT_ROWS: usize = 20_000;
/// Rows evaluated by the sampled estimate.
const EVALUATED: usize = 2_000;
/// Rows of each cluster evaluated at least, as far as it has them.
const EVALUATED_PER_CLUSTER: usize = 30;
/// Rows of each cluster that distances are taken to.
const REFERENCES: usize = 1_000;

/// How a silhouette was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every row against every row.
    Exact,
    /// A stratified sample of rows against a sample of each cluster.
    Sampled,
}

/// A mean silhouette and how far it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Silhouette {
    /// The mean over all rows, from -1 to 1.
    pub value: f64,
    /// Standard error of the mean over evaluated rows; 0 when exact.
    pub standard_error: f64,
    /// Half the difference between the estimates from the two halves of the references; 0 when exact.
    pub reference_error: f64,
    /// The 95 % interval: 1.96 standard errors and the reference error on both sides.
    pub ci95: [f64; 2],
    /// Exact or sampled.
    pub method: Method,
    /// Rows evaluated.
    pub evaluated: usize,
    /// Most reference rows per cluster.
    pub references: usize,
}

/// The mean silhouette: exact up to [`EXACT_ROWS`] rows, sampled above; equal seed, equal sample.
///
/// # Errors
/// [`Undefined`] unless there are 2 to n - 1 clusters.
pub fn silhouette(points: &Matrix, labels: &[u32], seed: u64) -> Result<Silhouette, Undefined> {
    silhouette_by_label(points, labels, seed, Kernel::Auto).map(|(mean, _)| mean)
}

/// As [`silhouette`], and the values it rests on: one list for each label up to the highest. A kernel that this
/// processor does not have counts as `Auto`.
///
/// # Errors
/// [`Undefined`] unless there are 2 to n - 1 clusters.
pub fn silhouette_by_label(
    points: &Matrix,
    labels: &[u32],
    seed: u64,
    kernel: Kernel,
) -> Result<(Silhouette, Vec<Vec<f64>>), Undefined> {
    let vectors = kernel.vectors().unwrap_or_else(Vectors::detected);
    if points.rows() > EXACT_ROWS {
        return sampled(points, labels, seed, vectors);
    }
    let samples = samples(points, labels, vectors)?;
    let value = samples.iter().sum::<f64>() / samples.len() as f64;
    let highest = labels.iter().max().map_or(0, |&label| label as usize);
    let mut by_label = vec![Vec::new(); highest + 1];
    labels.iter().zip(&samples).for_each(|(&label, &value)| by_label[label as usize].push(value));
    let mean = Silhouette {
        value,
        standard_error: 0.0,
        reference_error: 0.0,
        ci95: [value, value],
        method: Method::Exact,
        evaluated: points.rows(),
        references: by_label.iter().map(Vec::len).max().unwrap_or(0),
    };
    Ok((mean, by_label))
}

/// The silhouette of every row, in row order; O(n² d).
///
/// # Errors
/// [`Undefined`] unless there are 2 to n - 1 clusters.
pub fn silhouette_samples(points: &Matrix, labels: &[u32]) -> Result<Vec<f64>, Undefined> {
    samples(points, labels, Vectors::detected())
}

fn samples(points: &Matrix, labels: &[u32], vectors: Vectors) -> Result<Vec<f64>, Undefined> {
    let groups = Groups::new(points, labels)?;
    let references: Vec<Reference> = groups
        .members
        .iter()
        .map(|rows| Reference { first: Points::of_rows(points, rows, vectors), second: None })
        .collect();
    let mut samples = vec![0.0; points.rows()];
    for (own, members) in groups.members.iter().enumerate() {
        let values: Vec<f64> = members
            .par_iter()
            .map(|&row| evaluate(&points.row(row), own, [true, false], &references).whole)
            .collect();
        members.iter().zip(values).for_each(|(&row, value)| samples[row] = value);
    }
    Ok(samples)
}

/// The estimate from a stratified sample of rows, whatever the number of rows.
///
/// # Errors
/// [`Undefined`] unless there are 2 to n - 1 clusters.
pub fn silhouette_sampled(points: &Matrix, labels: &[u32], seed: u64) -> Result<Silhouette, Undefined> {
    sampled(points, labels, seed, Vectors::detected()).map(|(mean, _)| mean)
}

fn sampled(
    points: &Matrix,
    labels: &[u32],
    seed: u64,
    vectors: Vectors,
) -> Result<(Silhouette, Vec<Vec<f64>>), Undefined> {
    let groups = Groups::new(points, labels)?;
    let rows = points.rows();
    let shuffled: Vec<Vec<usize>> =
        groups.members.iter().enumerate().map(|(number, members)| by_chance(members, seed, number)).collect();
    let references: Vec<Reference> = shuffled
        .iter()
        .map(|members| {
            // Taken from the end: the evaluated rows are taken from the start.
            let taken = &members[members.len().saturating_sub(REFERENCES)..];
            let (first, second) = taken.split_at(taken.len() / 2);
            let of_rows = |rows| Points::of_rows(points, rows, vectors);
            Reference { first: of_rows(second), second: Some(of_rows(first)) }
        })
        .collect();
    let (mut value, mut variance, mut halves, mut evaluated) = (0.0, 0.0, [0.0; 2], 0);
    let highest = groups.labels.last().map_or(0, |&label| label as usize);
    let mut by_label = vec![Vec::new(); highest + 1];
    for (own, members) in shuffled.iter().enumerate() {
        let share = members.len() as f64 / rows as f64;
        let wanted = ((EVALUATED as f64 * share).round() as usize).max(EVALUATED_PER_CLUSTER);
        let chosen = &members[..wanted.min(members.len())];
        let first_reference = members.len().saturating_sub(REFERENCES);
        let found: Vec<Evaluated> = chosen
            .par_iter()
            .enumerate()
            .map(|(place, &row)| {
                let middle = first_reference + (members.len() - first_reference) / 2;
                let inside = [place >= middle, place >= first_reference && place < middle];
                evaluate(&points.row(row), own, inside, &references)
            })
            .collect();
        let count = found.len() as f64;
        let mean = found.iter().map(|row| row.whole).sum::<f64>() / count;
        let spread = found.iter().map(|row| (row.whole - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        value += share * mean;
        variance += share * share * spread / count * (1.0 - count / members.len() as f64);
        for (half, sum) in halves.iter_mut().enumerate() {
            *sum += share * found.iter().map(|row| row.halves[half]).sum::<f64>() / count;
        }
        evaluated += found.len();
        by_label[groups.labels[own] as usize] = found.iter().map(|row| row.whole).collect();
    }
    let standard_error = variance.sqrt();
    let reference_error = (halves[0] - halves[1]).abs() / 2.0;
    let margin = 1.96 * standard_error + reference_error;
    let references = shuffled.iter().map(Vec::len).max().unwrap_or(0).min(REFERENCES);
    let ci95 = [value - margin, value + margin];
    let method = Method::Sampled;
    let mean = Silhouette { value, standard_error, reference_error, ci95, method, evaluated, references };
    Ok((mean, by_label))
}

/// The mean silhouette with squared distances; exact, O(n k d).
///
/// # Errors
/// [`Undefined`] unless there are 2 to n - 1 clusters.
pub fn silhouette_sqeuclidean(points: &Matrix, labels: &[u32]) -> Result<f64, Undefined> {
    let groups = Groups::new(points, labels)?;
    // The mean squared distance to a cluster is that to its mean plus its variance.
    let variances: Vec<f64> = groups
        .members
        .iter()
        .zip(&groups.means)
        .map(|(rows, mean)| {
            rows.iter().map(|&row| squared_to(points, row, mean)).sum::<f64>() / rows.len() as f64
        })
        .collect();
    let mut sum = 0.0;
    for (own, members) in groups.members.iter().enumerate().filter(|(_, members)| members.len() > 1) {
        let size = members.len() as f64;
        for &row in members {
            let to = |other: usize| squared_to(points, row, &groups.means[other]) + variances[other];
            let within = to(own) * size / (size - 1.0);
            let between = (0..variances.len()).filter(|&other| other != own).map(to);
            sum += width(within, between.fold(f64::INFINITY, f64::min));
        }
    }
    Ok(sum / points.rows() as f64)
}

fn sum_of_distances(rows: &Points, point: &[f64]) -> f64 {
    rows.vectors.run(SumOfDistances { rows, point })
}

/// The members in an order drawn from the seed and each row's number.
fn by_chance(members: &[usize], seed: u64, cluster: usize) -> Vec<usize> {
    let draws = Draws::new(seed, cluster as u64, Purpose::Silhouette);
    let mut keyed: Vec<(u64, usize)> = members.iter().map(|&row| (draws.bits(row as u64), row)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// The rows of a cluster that distances are taken to, in two halves or in one.
struct Reference {
    first: Points,
    second: Option<Points>,
}

/// A row's silhouette from all references and from each half.
struct Evaluated {
    whole: f64,
    halves: [f64; 2],
}

/// (b - a) / max(a, b), 0 when both are 0.
fn width(within: f64, between: f64) -> f64 {
    let larger = within.max(between);
    if larger == 0.0 { 0.0 } else { (between - within) / larger }
}

/// `inside` says whether the point itself is among its own cluster's first and second references.
fn evaluate(point: &[f64], own: usize, inside: [bool; 2], references: &[Reference]) -> Evaluated {
    let mut within = [0.0; 3];
    let mut between = [f64::INFINITY; 3];
    let mut alone = false;
    for (number, reference) in references.iter().enumerate() {
        let first = sum_of_distances(&reference.first, point);
        let second = reference.second.as_ref().map_or(0.0, |second| sum_of_distances(second, point));
        let second_rows = reference.second.as_ref().map_or(0, |second| second.rows);
        let less = |is: bool| usize::from(is && number == own);
        let rows = [reference.first.rows - less(inside[0]), second_rows - less(inside[1])];
        alone |= number == own && rows[0] + rows[1] == 0;
        let whole = (first + second) / (rows[0] + rows[1]).max(1) as f64;
        // A half without rows says nothing of its own.
        let mean = |sum: f64, rows: usize| if rows == 0 { whole } else { sum / rows as f64 };
        let means = [whole, mean(first, rows[0]), mean(second, rows[1])];
        for (part, mean) in means.into_iter().enumerate() {
            if number == own {
                within[part] = mean;
            } else {
                between[part] = between[part].min(mean);
            }
        }
    }
    if alone {
        return Evaluated { whole: 0.0, halves: [0.0; 2] };
    }
    let part = |part: usize| width(within[part], between[part]);
    Evaluated { whole: part(0), halves: [part(1), part(2)] }
}
