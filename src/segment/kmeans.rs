//! k-means: greedy k-means++ and Lloyd's iterations with scikit-learn's stopping rules.
//!
//! Owns seeding, iterating, relocating empty clusters and choosing the best of several runs. The result is
//! a function of the values, the options and the seed: the same bytes for any number of threads. Knows
//! nothing of features, scaling or names.

use rayon::prelude::*;

use super::matrix::Matrix;
use super::points::{CHUNK, Distances, Nearest, Points, TILE, add_to_sums, squared_distance};
use super::random::{Draws, Purpose};

/// How to fit.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeansOptions {
    /// Number of clusters, at least 1 and at most the number of rows.
    pub clusters: usize,
    /// Independent runs; the one with the least inertia is kept, the earlier one when equal.
    pub runs: usize,
    /// Most Lloyd iterations per run.
    pub max_iterations: usize,
    /// Stop when the summed squared shift of the centres is at most this times the mean variance of the columns.
    pub tolerance: f64,
    /// Key of all draws.
    pub seed: u64,
}

impl KMeansOptions {
    /// The shipped defaults: 10 runs, 300 iterations, tolerance 1e-4, seed 42.
    pub fn new(clusters: usize) -> Self {
        Self { clusters, runs: 10, max_iterations: 300, tolerance: 1e-4, seed: 42 }
    }

    /// # Errors
    /// [`KMeansError::Zero`] for a count of 0.
    pub(super) fn check_counts(&self) -> Result<(), KMeansError> {
        let counts =
            [("clusters", self.clusters), ("runs", self.runs), ("max_iterations", self.max_iterations)];
        match counts.iter().find(|(_, count)| *count == 0) {
            Some(&(option, _)) => Err(KMeansError::Zero { option }),
            None => Ok(()),
        }
    }
}

/// A fitted clustering.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeansFit {
    /// k × d in the units of the matrix. Fewer rows than asked for when there are fewer distinct points.
    pub centres: Vec<Vec<f64>>,
    /// The nearest centre of every row, ties to the lower index.
    pub labels: Vec<u32>,
    /// Sum over rows of the squared distance to the nearest centre.
    pub inertia: f64,
    /// Lloyd iterations of the kept run.
    pub iterations: usize,
    /// Whether the kept run stopped before `max_iterations`.
    pub converged: bool,
}

/// Why points cannot be clustered. All are permanent: trying again cannot help.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum KMeansError {
    /// No columns to measure a distance by.
    #[error("the matrix has no columns")]
    NoColumns,
    /// A count that must be at least 1 is 0.
    #[error("{option} is 0, expected at least 1")]
    Zero {
        /// The option's name.
        option: &'static str,
    },
    /// Fewer rows than clusters.
    #[error("{rows} rows cannot be grouped into {clusters} clusters")]
    TooFewRows {
        /// Rows given.
        rows: usize,
        /// Clusters asked for.
        clusters: usize,
    },
    /// NaN or infinity among the points or the given centres.
    #[error("the value in row {row}, column {column} (from 0) is not finite")]
    NotFinite {
        /// Row from 0.
        row: usize,
        /// Column from 0.
        column: usize,
    },
    /// A given centre has another number of values than the matrix has columns.
    #[error("a starting centre has {found} values, expected {expected}")]
    CentreWidth {
        /// Values in the centre.
        found: usize,
        /// Columns of the matrix.
        expected: usize,
    },
    /// A wrapper of the vocabulary crate failed.
    #[error("{0}")]
    Vocabulary(String),
}

impl From<linfa::Error> for KMeansError {
    fn from(error: linfa::Error) -> Self {
        Self::Vocabulary(error.to_string())
    }
}

/// Groups the rows of `points` (n × d, all finite) into clusters, seeding by greedy k-means++.
///
/// # Errors
/// [`KMeansError`] when a count is 0, rows are too few or a value is not finite.
pub fn kmeans(points: &Matrix, options: &KMeansOptions) -> Result<KMeansFit, KMeansError> {
    check(points, options)?;
    Ok(Centred::new(points).best_of_runs(options))
}

/// Groups the rows of `points` by one run from the given centres (k × d, in the units of the matrix).
///
/// `options.clusters` and `options.runs` do not count here.
///
/// # Errors
/// As [`kmeans`], and [`KMeansError::CentreWidth`] for centres of another width.
pub fn kmeans_from(
    points: &Matrix,
    centres: &[Vec<f64>],
    options: &KMeansOptions,
) -> Result<KMeansFit, KMeansError> {
    check(points, &KMeansOptions { clusters: centres.len(), ..options.clone() })?;
    for (row, centre) in centres.iter().enumerate() {
        if centre.len() != points.width() {
            return Err(KMeansError::CentreWidth { found: centre.len(), expected: points.width() });
        }
        if let Some(column) = centre.iter().position(|value| !value.is_finite()) {
            return Err(KMeansError::NotFinite { row, column });
        }
    }
    let centred = Centred::new(points);
    let start = centred.inward(centres);
    Ok(centred.outward(centred.lloyd(start, options)))
}

/// The nearest centre of every row, ties to the lower index, and its squared distance.
///
/// `centres` is k × d with k at least 1 and d the width of `points`; no row is left out.
pub fn nearest(points: &Matrix, centres: &[Vec<f64>]) -> (Vec<u32>, Vec<f64>) {
    let points = Points::from_fn(points.rows(), points.width(), |row, column| points.columns()[column][row]);
    assignment(&points, &centres.concat())
}

fn check(points: &Matrix, options: &KMeansOptions) -> Result<(), KMeansError> {
    if points.width() == 0 {
        return Err(KMeansError::NoColumns);
    }
    options.check_counts()?;
    if points.rows() < options.clusters {
        return Err(KMeansError::TooFewRows { rows: points.rows(), clusters: options.clusters });
    }
    match points.first_not_finite() {
        Some((row, column)) => Err(KMeansError::NotFinite { row, column }),
        None => Ok(()),
    }
}

/// Sum in chunks of 8,192 rows, reduced in order.
pub(super) fn ordered_sum(values: &[f64]) -> f64 {
    values.par_chunks(CHUNK).map(|chunk| chunk.iter().sum::<f64>()).collect::<Vec<_>>().iter().sum()
}

/// Labels and squared distances of all rows.
fn assignment(points: &Points, centres: &[f64]) -> (Vec<u32>, Vec<f64>) {
    let mut labels = vec![0; points.rows];
    let mut distances = vec![0.0; points.rows];
    points.chunks().zip(labels.par_chunks_mut(CHUNK)).zip(distances.par_chunks_mut(CHUNK)).for_each(
        |((tiles, labels), distances)| {
            let arch = pulp::Arch::new();
            let (mut found, mut squared) = ([0.0; TILE], [0.0; TILE]);
            let parts = labels.chunks_mut(TILE).zip(distances.chunks_mut(TILE));
            for (tile, (labels, distances)) in tiles.chunks_exact(TILE * points.width).zip(parts) {
                arch.dispatch(Nearest {
                    tile,
                    centres,
                    width: points.width,
                    labels: &mut found,
                    distances: &mut squared,
                });
                labels.iter_mut().zip(&found).for_each(|(label, found)| *label = *found as u32);
                distances.copy_from_slice(&squared[..distances.len()]);
            }
        },
    );
    (labels, distances)
}

/// What one pass over a chunk found.
struct ChunkSums {
    sums: Vec<f64>,
    counts: Vec<u64>,
    changed: bool,
}

/// Points moved so that every column's mean is 0, which keeps large offsets out of the arithmetic.
pub(super) struct Centred {
    pub(super) points: Points,
    means: Vec<f64>,
    mean_variance: f64,
}

/// A run's result in centred units: centres k × d in one slice.
pub(super) struct Run {
    centres: Vec<f64>,
    labels: Vec<u32>,
    pub(super) inertia: f64,
    iterations: usize,
    converged: bool,
}

impl Centred {
    pub(super) fn new(matrix: &Matrix) -> Self {
        let rows = matrix.rows() as f64;
        let means: Vec<f64> = matrix.columns().iter().map(|column| ordered_sum(column) / rows).collect();
        let points = Points::from_fn(matrix.rows(), matrix.width(), |row, feature| {
            matrix.columns()[feature][row] - means[feature]
        });
        let variance = |(column, mean): (&Vec<f64>, &f64)| {
            let squares = column
                .par_chunks(CHUNK)
                .map(|chunk| chunk.iter().fold(0.0, |sum, value| sum + (value - mean) * (value - mean)));
            squares.collect::<Vec<f64>>().iter().sum::<f64>() / rows
        };
        let total: f64 = matrix.columns().iter().zip(&means).map(variance).sum();
        Self { points, mean_variance: total / means.len() as f64, means }
    }

    /// Centres in centred units, in one slice.
    pub(super) fn inward(&self, centres: &[Vec<f64>]) -> Vec<f64> {
        centres.iter().flat_map(|centre| centre.iter().zip(&self.means).map(|(c, mean)| c - mean)).collect()
    }

    /// The run as a fit in the matrix's units, without clusters that have no rows.
    pub(super) fn outward(&self, run: Run) -> KMeansFit {
        let width = self.points.width;
        let mut present = vec![false; run.centres.len() / width];
        run.labels.iter().for_each(|&label| present[label as usize] = true);
        let mut renumbered = vec![0; present.len()];
        let mut centres = Vec::new();
        for (number, centre) in run.centres.chunks_exact(width).enumerate().filter(|(c, _)| present[*c]) {
            renumbered[number] = centres.len() as u32;
            centres.push(centre.iter().zip(&self.means).map(|(value, mean)| value + mean).collect());
        }
        let labels = run.labels.iter().map(|&label| renumbered[label as usize]).collect();
        let Run { inertia, iterations, converged, .. } = run;
        KMeansFit { centres, labels, inertia, iterations, converged }
    }

    /// Several runs from k-means++ starts; the best, the earlier one when equal.
    pub(super) fn best_of_runs(&self, options: &KMeansOptions) -> KMeansFit {
        let mut best: Option<Run> = None;
        for number in 0..options.runs {
            let draws = Draws::new(options.seed, number as u64, Purpose::Seeding);
            let run = self.lloyd(self.seed_centres(options.clusters, draws), options);
            if best.as_ref().is_none_or(|best| run.inertia < best.inertia) {
                best = Some(run);
            }
        }
        self.outward(best.expect("at least one run was checked for"))
    }

    /// One more centre for a finished fit, chosen as k-means++ would, then Lloyd's iterations.
    pub(super) fn grown(&self, fit: &KMeansFit, options: &KMeansOptions) -> KMeansFit {
        let mut centres = self.inward(&fit.centres);
        let (_, mut closest) = assignment(&self.points, &centres);
        let draws = Draws::new(options.seed, options.clusters as u64, Purpose::Growing);
        let trials = trials(options.clusters);
        let row = self.next_centre(&mut closest, trials, draws, 0);
        centres.extend(self.points.row(row));
        self.outward(self.lloyd(centres, options))
    }

    /// Greedy k-means++: k × d.
    fn seed_centres(&self, clusters: usize, draws: Draws) -> Vec<f64> {
        let trials = trials(clusters);
        let first = (draws.unit(0) * self.points.rows as f64) as usize;
        let mut centres = self.points.row(first);
        let mut closest = vec![f64::INFINITY; self.points.rows];
        self.lower(&mut closest, &centres.clone());
        for number in 1..clusters {
            let counter = 1 + (number * trials) as u64;
            let row = self.next_centre(&mut closest, trials, draws, counter);
            centres.extend(self.points.row(row));
        }
        centres
    }

    /// The candidate that lowers the potential most, ties to the lower row; `closest` is brought up to date.
    fn next_centre(&self, closest: &mut [f64], trials: usize, draws: Draws, counter: u64) -> usize {
        let sums: Vec<f64> = closest.par_chunks(CHUNK).map(|chunk| chunk.iter().sum()).collect();
        let total: f64 = sums.iter().sum();
        let mut candidates: Vec<usize> = (0..trials as u64)
            .map(|trial| row_at(closest, &sums, draws.unit(counter + trial) * total))
            .collect();
        candidates.sort_unstable();
        candidates.dedup();
        let mut best = (f64::INFINITY, candidates[0]);
        for row in candidates {
            let potential = self.potential(closest, &self.points.row(row));
            if potential < best.0 {
                best = (potential, row);
            }
        }
        self.lower(closest, &self.points.row(best.1));
        best.1
    }

    /// The sum of distances if `centre` were added.
    fn potential(&self, closest: &[f64], centre: &[f64]) -> f64 {
        let chunks = self.points.chunks().zip(closest.par_chunks(CHUNK)).map(|(tiles, closest)| {
            let mut distances = [0.0; TILE];
            let mut sum = 0.0;
            for (tile, closest) in tiles.chunks_exact(TILE * centre.len()).zip(closest.chunks(TILE)) {
                pulp::Arch::new().dispatch(Distances { tile, point: centre, out: &mut distances });
                sum += closest.iter().zip(&distances).map(|(old, new)| old.min(*new)).sum::<f64>();
            }
            sum
        });
        chunks.collect::<Vec<f64>>().iter().sum()
    }

    /// Lowers every row's distance to that of `centre` where it is nearer.
    fn lower(&self, closest: &mut [f64], centre: &[f64]) {
        self.points.chunks().zip(closest.par_chunks_mut(CHUNK)).for_each(|(tiles, closest)| {
            let mut distances = [0.0; TILE];
            for (tile, closest) in tiles.chunks_exact(TILE * centre.len()).zip(closest.chunks_mut(TILE)) {
                pulp::Arch::new().dispatch(Distances { tile, point: centre, out: &mut distances });
                closest.iter_mut().zip(&distances).for_each(|(old, new)| *old = old.min(*new));
            }
        });
    }

    /// Lloyd's iterations from `centres` (k × d, centred units).
    pub(super) fn lloyd(&self, mut centres: Vec<f64>, options: &KMeansOptions) -> Run {
        let limit = options.tolerance * self.mean_variance;
        let mut labels = vec![u32::MAX; self.points.rows];
        let (mut iterations, mut converged) = (0, false);
        while iterations < options.max_iterations && !converged {
            iterations += 1;
            let (mut sums, mut counts, changed) = self.step(&centres, &mut labels);
            self.relocate_empty(&centres, &labels, &mut sums, &mut counts);
            average(&mut sums, &counts, &centres);
            let shift = squared_distance(&sums, &centres);
            centres = sums;
            converged = !changed || shift <= limit;
        }
        let (labels, distances) = assignment(&self.points, &centres);
        Run { centres, labels, inertia: ordered_sum(&distances), iterations, converged }
    }

    /// Assigns every row and sums the rows of each centre.
    fn step(&self, centres: &[f64], labels: &mut [u32]) -> (Vec<f64>, Vec<u64>, bool) {
        let clusters = centres.len() / self.points.width;
        let chunks: Vec<ChunkSums> = self
            .points
            .chunks()
            .zip(labels.par_chunks_mut(CHUNK))
            .map(|(tiles, labels)| chunk_step(tiles, self.points.width, centres, labels))
            .collect();
        let mut total =
            ChunkSums { sums: vec![0.0; centres.len()], counts: vec![0; clusters], changed: false };
        for chunk in chunks {
            total.sums.iter_mut().zip(&chunk.sums).for_each(|(total, sum)| *total += sum);
            total.counts.iter_mut().zip(&chunk.counts).for_each(|(total, count)| *total += count);
            total.changed |= chunk.changed;
        }
        (total.sums, total.counts, total.changed)
    }

    /// Gives each empty centre the row farthest from its own centre, as scikit-learn does: distance falling,
    /// ties to the lower row, the row taken out of its donor's sum. Nothing moves when all distances are 0.
    fn relocate_empty(&self, centres: &[f64], labels: &[u32], sums: &mut [f64], counts: &mut [u64]) {
        let empty: Vec<usize> = (0..counts.len()).filter(|&cluster| counts[cluster] == 0).collect();
        if empty.is_empty() {
            return;
        }
        let (_, distances) = assignment(&self.points, centres);
        let mut rows: Vec<usize> = (0..self.points.rows).collect();
        rows.sort_by(|&left, &right| distances[right].total_cmp(&distances[left]).then(left.cmp(&right)));
        if distances[rows[0]] == 0.0 {
            return;
        }
        let width = self.points.width;
        for (&row, &cluster) in rows.iter().zip(&empty) {
            let donor = labels[row] as usize;
            let point = self.points.row(row);
            sums[donor * width..][..width].iter_mut().zip(&point).for_each(|(sum, value)| *sum -= value);
            sums[cluster * width..][..width].copy_from_slice(&point);
            counts[donor] -= 1;
            counts[cluster] = 1;
        }
    }
}

/// Candidates per greedy step: 2 + floor(ln k).
fn trials(clusters: usize) -> usize {
    2 + (clusters as f64).ln() as usize
}

/// The first row at which the running sum of `weights` exceeds `target`; `sums` are the sums of its chunks.
fn row_at(weights: &[f64], sums: &[f64], mut target: f64) -> usize {
    for (number, (chunk, &sum)) in weights.chunks(CHUNK).zip(sums).enumerate() {
        if target < sum {
            for (offset, &weight) in chunk.iter().enumerate() {
                target -= weight;
                if target < 0.0 {
                    return number * CHUNK + offset;
                }
            }
        } else {
            target -= sum;
        }
    }
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
}

/// Sums become means; a centre without rows stays where it was.
fn average(sums: &mut [f64], counts: &[u64], old: &[f64]) {
    let width = sums.len() / counts.len();
    let parts = sums.chunks_exact_mut(width).zip(old.chunks_exact(width));
    for ((sum, old), &count) in parts.zip(counts) {
        if count == 0 {
            sum.copy_from_slice(old);
        } else {
            let share = 1.0 / count as f64;
            sum.iter_mut().for_each(|value| *value *= share);
        }
    }
}

fn chunk_step(tiles: &[f64], width: usize, centres: &[f64], labels: &mut [u32]) -> ChunkSums {
    let arch = pulp::Arch::new();
    let mut result =
        ChunkSums { sums: vec![0.0; centres.len()], counts: vec![0; centres.len() / width], changed: false };
    let (mut found, mut distances) = ([0.0; TILE], [0.0; TILE]);
    for (tile, labels) in tiles.chunks_exact(TILE * width).zip(labels.chunks_mut(TILE)) {
        arch.dispatch(Nearest { tile, centres, width, labels: &mut found, distances: &mut distances });
        for (label, &found) in labels.iter_mut().zip(&found) {
            let found = found as u32;
            result.changed |= *label != found;
            *label = found;
            result.counts[found as usize] += 1;
        }
        add_to_sums(tile, width, labels, &mut result.sums);
    }
    result
}
