//! Lloyd's iterations over centred points.

use rayon::prelude::*;

use super::{KMeansError, KMeansFit, KMeansOptions, lanes_sum, ordered_sum};
use crate::segment::matrix::Matrix;
use crate::segment::points::{
    CHUNK, Centres, Chunk, NO_LABEL, Nearest, Real, Rows, Step, Sums, squared_distance,
};
use crate::segment::random::{Draws, Purpose};
use crate::segment::vectors::Vectors;

/// Iterations after which sums are made anew.
const RESUM: usize = 64;

/// Rows moved so that every column's mean is 0, which keeps large offsets out of the arithmetic.
pub(in crate::segment) struct Centred<'a, T> {
    pub(super) rows: Rows<'a, T>,
    mean_variance: f64,
}

/// Where a run ended: centres k × d in one slice, in centred units.
pub(super) struct Run {
    pub(super) centres: Vec<f64>,
    pub(super) iterations: usize,
    pub(super) converged: bool,
}

impl<'a, T: Real> Centred<'a, T> {
    /// As [`new`](Self::new), of a matrix whose values may not be finite.
    pub(super) fn checked(matrix: &'a Matrix, options: &KMeansOptions) -> Result<Self, KMeansError> {
        let centred = Self::new(matrix, options);
        // One value that is not finite shows in the mean of its column, and so in all its squares.
        match (!centred.rows.squares.is_finite()).then(|| matrix.first_not_finite()).flatten() {
            Some((row, column)) => Err(KMeansError::NotFinite { row, column }),
            None => Ok(centred),
        }
    }

    /// Lays out `matrix`, all of which is finite, for the kernel of `options`.
    pub(in crate::segment) fn new(matrix: &'a Matrix, options: &KMeansOptions) -> Self {
        let vectors = options.kernel.vectors().unwrap_or_else(Vectors::detected);
        let means =
            matrix.columns().iter().map(|column| ordered_sum(column) / matrix.rows() as f64).collect();
        let rows = Rows::kept(matrix, means, vectors);
        let mean_variance = rows.squares / (matrix.rows() * matrix.width()) as f64;
        Self { rows, mean_variance }
    }

    /// Centres in centred units, in one slice.
    fn inward(&self, centres: &[Vec<f64>]) -> Vec<f64> {
        centres
            .iter()
            .flat_map(|centre| centre.iter().zip(self.rows.offsets()).map(|(c, mean)| c - mean))
            .collect()
    }

    /// The run as a fit in the matrix's units, without clusters that have no rows. Labels and distances are
    /// decided in `f64` whatever the precision of the points.
    fn outward(&self, run: Run) -> KMeansFit {
        let (width, means) = (self.rows.width(), self.rows.offsets());
        let (mut labels, inertia) = labelled(&self.rows.wide(), &run.centres);
        let mut present = vec![false; run.centres.len() / width];
        labels.iter().for_each(|&label| present[label as usize] = true);
        let mut renumbered = vec![0; present.len()];
        let mut centres = Vec::new();
        for (number, centre) in run.centres.chunks_exact(width).enumerate().filter(|(c, _)| present[*c]) {
            renumbered[number] = centres.len() as u32;
            centres.push(centre.iter().zip(means).map(|(value, mean)| value + mean).collect());
        }
        labels.iter_mut().for_each(|label| *label = renumbered[*label as usize]);
        let Run { iterations, converged, .. } = run;
        KMeansFit { centres, labels, inertia, iterations, converged }
    }

    /// The starting centres of a run, in centred units.
    fn start(&self, options: &KMeansOptions, run: usize) -> Vec<f64> {
        self.seeded(options.init, options.clusters, Draws::new(options.seed, run as u64, Purpose::Seeding))
    }

    /// The starting centres of a run, in the matrix's units.
    pub(super) fn start_of_run(&self, options: &KMeansOptions, run: usize) -> Vec<Vec<f64>> {
        let start = self.start(options, run);
        let outward = |centre: &[f64]| {
            centre.iter().zip(self.rows.offsets()).map(|(value, mean)| value + mean).collect()
        };
        start.chunks_exact(self.rows.width()).map(outward).collect()
    }

    /// One run from the given centres, in the matrix's units.
    pub(super) fn run_from(&self, centres: &[Vec<f64>], options: &KMeansOptions) -> KMeansFit {
        self.outward(self.iterated(self.inward(centres), 0, options))
    }

    /// Batches, if they were asked for, or whole passes.
    fn iterated(&self, start: Vec<f64>, run: usize, options: &KMeansOptions) -> Run {
        match options.batch {
            Some(batch) => self.by_batches(start, batch, run, options),
            None => self.lloyd(start, options),
        }
    }

    /// Several runs from fresh starts; the best, the earlier one when equal, made better by swaps. One run is one run.
    pub(in crate::segment) fn best_of_runs(&self, options: &KMeansOptions) -> KMeansFit {
        let run = |number| self.iterated(self.start(options, number), number, options);
        if options.runs == 1 {
            return self.outward(run(0));
        }
        let mut best: Option<(f64, Run)> = None;
        for run in (0..options.runs).map(run) {
            let inertia = ordered_sum(&assigned(&self.rows, &run.centres).1);
            if best.as_ref().is_none_or(|(least, _)| inertia < *least) {
                best = Some((inertia, run));
            }
        }
        let (_, best) = best.expect("at least one run was checked for");
        // Batches are for rows too many for whole passes.
        self.outward(if options.batch.is_none() { self.swapped(best, options) } else { best })
    }

    /// One more centre for a finished fit, chosen as k-means++ would, then Lloyd's iterations.
    pub(in crate::segment) fn grown(&self, fit: &KMeansFit, options: &KMeansOptions) -> KMeansFit {
        let mut centres = self.inward(&fit.centres);
        let (_, mut closest) = assigned(&self.rows, &centres);
        let draws = Draws::new(options.seed, options.clusters as u64, Purpose::Growing);
        let row = self.next_centre(&mut closest, options.clusters, draws, 0);
        centres.extend(self.rows.row(row).into_iter().map(T::wide));
        self.outward(self.lloyd(centres, options))
    }

    /// Lloyd's iterations from `centres` (k × d, centred units).
    pub(super) fn lloyd(&self, mut centres: Vec<f64>, options: &KMeansOptions) -> Run {
        let (width, clusters) = (self.rows.width(), centres.len() / self.rows.width());
        let limit = options.tolerance * self.mean_variance;
        let total = self.mean_variance * (width * self.rows.len()) as f64;
        let mut spread = f64::INFINITY;
        let mut labels = vec![NO_LABEL; self.rows.len()];
        let mut chunks = vec![Sums::none(clusters, width); self.rows.len().div_ceil(CHUNK)];
        let (mut iterations, mut converged) = (0, false);
        while iterations < options.max_iterations && !converged {
            iterations += 1;
            let changed = self.step(&centres, &mut labels, &mut chunks);
            let last = iterations == options.max_iterations;
            if iterations.is_multiple_of(RESUM) || changed == 0 || last {
                // Rows that came and went have left roundings behind.
                self.resum(&labels, &mut chunks, clusters);
            }
            let Sums { mut sums, mut counts } = in_order(&chunks);
            self.relocate_empty(&centres, &labels, &mut sums, &mut counts);
            average(&mut sums, &counts, &centres);
            let shift = squared_distance(&sums, &centres);
            centres = sums;
            let before = std::mem::replace(&mut spread, total - explained(&centres, &counts));
            let settled = before - spread < options.least_gain * spread;
            converged = changed == 0 || shift <= limit || settled;
        }
        Run { centres, iterations, converged }
    }

    /// Assigns every row and moves those whose label changed from sum to sum; how many they are.
    fn step(&self, centres: &[f64], labels: &mut [u32], chunks: &mut [Sums]) -> usize {
        let centres = &Centres::new(centres, self.rows.width());
        let step = |((chunk, labels), sums): ((Chunk<'_, T>, &mut [u32]), &mut Sums)| {
            self.rows.vectors.run(Step { chunk, centres, labels, sums })
        };
        self.rows.chunks().zip(labels.par_chunks_mut(CHUNK)).zip(chunks).map(step).sum()
    }

    /// The sums of the labels, from the rows.
    fn resum(&self, labels: &[u32], chunks: &mut [Sums], clusters: usize) {
        let parts = self.rows.chunks().zip(labels.par_chunks(CHUNK)).zip(chunks);
        parts.for_each(|((chunk, labels), sums)| *sums = Sums::of(chunk, labels, clusters));
    }

    /// Gives each empty centre the row farthest from its own centre, as scikit-learn does: distance falling,
    /// ties to the lower row, the row taken out of its donor's sum. Nothing moves when all distances are 0.
    fn relocate_empty(&self, centres: &[f64], labels: &[u32], sums: &mut [f64], counts: &mut [u64]) {
        let empty: Vec<usize> = (0..counts.len()).filter(|&cluster| counts[cluster] == 0).collect();
        if empty.is_empty() {
            return;
        }
        let (_, distances) = assigned(&self.rows, centres);
        let mut rows: Vec<usize> = (0..self.rows.len()).collect();
        rows.sort_by(|&left, &right| distances[right].total_cmp(&distances[left]).then(left.cmp(&right)));
        if distances[rows[0]] == 0.0 {
            return;
        }
        let width = self.rows.width();
        for (&row, &cluster) in rows.iter().zip(&empty) {
            let donor = labels[row] as usize;
            let point: Vec<f64> = self.rows.row(row).into_iter().map(T::wide).collect();
            sums[donor * width..][..width].iter_mut().zip(&point).for_each(|(sum, value)| *sum -= value);
            sums[cluster * width..][..width].copy_from_slice(&point);
            counts[donor] -= 1;
            counts[cluster] = 1;
        }
    }
}

/// Labels and squared distances of all rows, in the precision of the rows. `centres` is k × width.
pub(super) fn assigned<T: Real>(rows: &Rows<'_, T>, centres: &[f64]) -> (Vec<u32>, Vec<f64>) {
    let centres = &Centres::new(centres, rows.width());
    let (mut labels, mut distances) = (vec![0; rows.len()], vec![0.0; rows.len()]);
    let parts = labels.par_chunks_mut(CHUNK).zip(distances.par_chunks_mut(CHUNK));
    rows.chunks().zip(parts).for_each(|(chunk, (labels, distances))| {
        rows.vectors.run(Nearest { chunk, centres, labels, distances });
    });
    (labels, distances)
}

/// As [`assigned`], with the sum of the distances in their place.
pub(super) fn labelled<T: Real>(rows: &Rows<'_, T>, centres: &[f64]) -> (Vec<u32>, f64) {
    let centres = &Centres::new(centres, rows.width());
    let mut labels = vec![0; rows.len()];
    let sums = rows.chunks().zip(labels.par_chunks_mut(CHUNK)).map(|(chunk, labels)| {
        let mut distances = vec![0.0; labels.len()];
        rows.vectors.run(Nearest { chunk, centres, labels, distances: &mut distances });
        lanes_sum(&distances)
    });
    let sums: Vec<f64> = sums.collect();
    (labels, sums.iter().sum())
}

/// All chunks together, added in their order.
fn in_order(chunks: &[Sums]) -> Sums {
    let (first, others) = chunks.split_first().expect("there is at least one row");
    let mut total = first.clone();
    for chunk in others {
        total.sums.iter_mut().zip(&chunk.sums).for_each(|(total, sum)| *total += sum);
        total.counts.iter_mut().zip(&chunk.counts).for_each(|(total, count)| *total += count);
    }
    total
}

/// The part of the sum of squares (of points around 0) that means explain: what is left is the sum of squared
/// distances to them.
fn explained(means: &[f64], counts: &[u64]) -> f64 {
    let width = means.len() / counts.len();
    let of_cluster = |(mean, &count): (&[f64], &u64)| {
        count as f64 * mean.iter().fold(0.0, |sum, value| value.mul_add(*value, sum))
    };
    means.chunks_exact(width).zip(counts).map(of_cluster).sum()
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
