//! k-means on batches of rows (Sculley 2010): each centre is the mean of all rows it was ever given.

use super::KMeansOptions;
use super::lloyd::{Centred, Run, labelled};
use crate::segment::points::{Real, Rows, squared_distance};
use crate::segment::random::{Draws, Purpose};

/// Batches without a better smoothed inertia after which the run stops.
const PATIENCE: usize = 10;

impl<T: Real> Centred<'_, T> {
    /// Batches of rows drawn at random, as many as make `max_iterations` passes over the rows, or until the
    /// smoothed inertia of batches stops falling.
    pub(super) fn by_batches(
        &self,
        mut centres: Vec<f64>,
        batch: usize,
        run: usize,
        options: &KMeansOptions,
    ) -> Run {
        let (rows, width) = (self.rows.len(), self.rows.width());
        let batch = batch.min(rows);
        let draws = Draws::new(options.seed, run as u64, Purpose::Batch);
        let mut given = vec![0_u64; centres.len() / width];
        let most = options.max_iterations.saturating_mul(rows.div_ceil(batch));
        // How much of the smoothed inertia one batch decides: all of it when it has all rows.
        let part = (2.0 * batch as f64 / (rows as f64 + 1.0)).min(1.0);
        let (mut smoothed, mut best, mut waited) = (None::<f64>, f64::INFINITY, 0);
        let (mut iterations, mut converged) = (0, false);
        while iterations < most && !converged {
            let first = (iterations * batch) as u64;
            let drawn: Vec<usize> =
                (0..batch as u64).map(|number| (draws.unit(first + number) * rows as f64) as usize).collect();
            iterations += 1;
            let drawn = self.rows.matrix().select(&drawn);
            let points = Rows::<T>::once(&drawn, self.rows.offsets().to_vec(), self.rows.vectors);
            let BatchSums { sums, counts, inertia } = batch_sums(&points, &centres);
            let before = centres.clone();
            let parts = centres.chunks_exact_mut(width).zip(sums.chunks_exact(width));
            for (((centre, sum), &count), given) in parts.zip(&counts).zip(&mut given) {
                *given += count;
                if count > 0 {
                    let share = 1.0 / *given as f64;
                    let moved = centre.iter_mut().zip(sum);
                    moved.for_each(|(value, sum)| *value += (sum - count as f64 * *value) * share);
                }
            }
            let inertia = inertia / batch as f64;
            let level = smoothed.map_or(inertia, |level| level + part * (inertia - level));
            smoothed = Some(level);
            waited = if level < best { 0 } else { waited + 1 };
            best = best.min(level);
            converged = waited >= PATIENCE || squared_distance(&before, &centres) == 0.0;
        }
        Run { centres, iterations, converged }
    }
}

/// What a batch adds to its centres.
struct BatchSums {
    /// k × width.
    sums: Vec<f64>,
    counts: Vec<u64>,
    inertia: f64,
}

fn batch_sums<T: Real>(points: &Rows<'_, T>, centres: &[f64]) -> BatchSums {
    let width = points.width();
    let (labels, inertia) = labelled(points, centres);
    let mut found =
        BatchSums { sums: vec![0.0; centres.len()], counts: vec![0; centres.len() / width], inertia };
    for (row, &label) in labels.iter().enumerate() {
        found.counts[label as usize] += 1;
        let sums = &mut found.sums[label as usize * width..][..width];
        sums.iter_mut().zip(points.row(row)).for_each(|(sum, value)| *sum += value.wide());
    }
    found
}
