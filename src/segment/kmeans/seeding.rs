//! Where k-means starts: greedy k-means++ (Arthur, Vassilvitskii 2007), k-means|| (Bahmani et al. 2012), rows at
//! random.

use rayon::prelude::*;

use super::lloyd::{Centred, assigned};
use crate::segment::points::{CHUNK, Lower, Potentials, Real};
use crate::segment::random::Draws;
use crate::segment::spec::Init;

/// Rounds of k-means||.
const ROUNDS: usize = 5;
/// Candidates expected per round, as a multiple of the clusters.
const OVERSAMPLING: f64 = 2.0;
/// Draws of one round of k-means|| are numbered apart from those of the next.
const ROUND_STRIDE: u64 = 1 << 40;

impl<T: Real> Centred<'_, T> {
    /// Starting centres, k × d in centred units.
    pub(super) fn seeded(&self, init: Init, clusters: usize, draws: Draws) -> Vec<f64> {
        match init {
            Init::KmeansPlusPlus => self.plus_plus(clusters, draws),
            Init::KmeansParallel => self.parallel(clusters, draws),
            Init::Random => {
                let mut drawn: Vec<(u64, usize)> =
                    (0..self.rows.len()).map(|row| (draws.bits(row as u64), row)).collect();
                drawn.sort_unstable();
                drawn[..clusters].iter().flat_map(|(_, row)| self.wide_row(*row)).collect()
            }
        }
    }

    fn wide_row(&self, row: usize) -> Vec<f64> {
        self.rows.row(row).into_iter().map(T::wide).collect()
    }

    /// Greedy k-means++.
    fn plus_plus(&self, clusters: usize, draws: Draws) -> Vec<f64> {
        let first = (draws.unit(0) * self.rows.len() as f64) as usize;
        let mut centres = self.wide_row(first);
        let mut closest = vec![f64::INFINITY; self.rows.len()];
        self.lower(&mut closest, first);
        for number in 1..clusters {
            let counter = 1 + (number * trials(clusters)) as u64;
            let row = self.next_centre(&mut closest, clusters, draws, counter);
            centres.extend(self.wide_row(row));
        }
        centres
    }

    /// The candidate that lowers the potential most, ties to the lower row; `closest` is brought up to date.
    pub(super) fn next_centre(
        &self,
        closest: &mut [f64],
        clusters: usize,
        draws: Draws,
        counter: u64,
    ) -> usize {
        let sums: Vec<f64> = closest.par_chunks(CHUNK).map(|chunk| chunk.iter().sum()).collect();
        let total: f64 = sums.iter().sum();
        let mut candidates: Vec<usize> = (0..trials(clusters) as u64)
            .map(|trial| row_at(closest, &sums, draws.unit(counter + trial) * total))
            .collect();
        candidates.sort_unstable();
        candidates.dedup();
        let potentials = self.potentials(closest, &candidates);
        let mut best = (f64::INFINITY, candidates[0]);
        for (&row, potential) in candidates.iter().zip(potentials) {
            if potential < best.0 {
                best = (potential, row);
            }
        }
        self.lower(closest, best.1);
        best.1
    }

    /// The sum of distances if each of `rows` alone were added.
    fn potentials(&self, closest: &[f64], rows: &[usize]) -> Vec<f64> {
        let points: Vec<T> = rows.iter().flat_map(|&row| self.rows.row(row)).collect();
        let chunks =
            self.rows.chunks().zip(closest.par_chunks(CHUNK)).map(|(chunk, closest)| {
                self.rows.vectors.run(Potentials { chunk, points: &points, closest })
            });
        let mut total = vec![0.0; rows.len()];
        for chunk in chunks.collect::<Vec<_>>() {
            total.iter_mut().zip(chunk).for_each(|(total, sum)| *total += sum);
        }
        total
    }

    /// Lowers every row's distance to that of `row` where it is nearer.
    fn lower(&self, closest: &mut [f64], row: usize) {
        let point = self.rows.row(row);
        self.rows.chunks().zip(closest.par_chunks_mut(CHUNK)).for_each(|(chunk, closest)| {
            self.rows.vectors.run(Lower { chunk, point: &point, closest });
        });
    }

    /// k-means||: in each round every row is a candidate with a chance in proportion to its distance; the
    /// candidates, each as heavy as the rows nearest to it, are then seeded by k-means++ among themselves.
    fn parallel(&self, clusters: usize, draws: Draws) -> Vec<f64> {
        let first = (draws.unit(0) * self.rows.len() as f64) as usize;
        let mut candidates = vec![first];
        let mut closest = vec![f64::INFINITY; self.rows.len()];
        self.lower(&mut closest, first);
        for round in 1..=ROUNDS as u64 {
            let sums: Vec<f64> = closest.par_chunks(CHUNK).map(|chunk| chunk.iter().sum()).collect();
            let scale = OVERSAMPLING * clusters as f64 / sums.iter().sum::<f64>();
            let taken = |(row, distance): (usize, &f64)| {
                (draws.unit(round * ROUND_STRIDE + row as u64) < scale * distance).then_some(row)
            };
            let new: Vec<usize> = closest.par_iter().enumerate().filter_map(taken).collect();
            new.iter().for_each(|&row| self.lower(&mut closest, row));
            candidates.extend(new);
        }
        candidates.sort_unstable();
        candidates.dedup();
        let width = self.rows.width();
        let centres: Vec<f64> = candidates.iter().flat_map(|&row| self.wide_row(row)).collect();
        let mut weights = vec![0.0; candidates.len()];
        assigned(&self.rows, &centres).0.iter().for_each(|&label| weights[label as usize] += 1.0);
        let rows: Vec<&[f64]> = centres.chunks_exact(width).collect();
        let mut chosen = weighted_plus_plus(&rows, &weights, clusters, draws);
        if chosen.len() < clusters {
            // Fewer candidates than clusters: the rest as k-means++ would choose.
            let mut closest =
                assigned(&self.rows, &chosen.iter().flat_map(|&at| rows[at].to_vec()).collect::<Vec<_>>()).1;
            let mut all: Vec<f64> = chosen.drain(..).flat_map(|at| rows[at].to_vec()).collect();
            while all.len() < clusters * width {
                let counter = 2 * ROUND_STRIDE * ROUNDS as u64 + all.len() as u64;
                let row = self.next_centre(&mut closest, clusters, draws, counter);
                all.extend(self.wide_row(row));
            }
            return all;
        }
        chosen.into_iter().flat_map(|at| rows[at].to_vec()).collect()
    }
}

/// Greedy k-means++ among a few weighted points: their numbers, at most `clusters`, none twice.
fn weighted_plus_plus(points: &[&[f64]], weights: &[f64], clusters: usize, draws: Draws) -> Vec<usize> {
    let distance =
        |left: usize, right: usize| crate::segment::points::squared_distance(points[left], points[right]);
    let pick = |masses: &[f64], unit: f64| {
        let total: f64 = masses.iter().sum();
        row_at(masses, &[total], unit * total)
    };
    let base = ROUND_STRIDE * (ROUNDS as u64 + 1);
    let first = pick(weights, draws.unit(base));
    let mut chosen = vec![first];
    let mut closest: Vec<f64> = (0..points.len()).map(|at| distance(at, first)).collect();
    while chosen.len() < clusters.min(points.len()) {
        let masses: Vec<f64> =
            closest.iter().zip(weights).map(|(distance, weight)| distance * weight).collect();
        if masses.iter().all(|mass| *mass == 0.0) {
            break;
        }
        let counter = base + (chosen.len() * (trials(clusters) + 1)) as u64;
        let potential = |candidate: usize| -> f64 {
            let lowered = |at: usize| closest[at].min(distance(at, candidate)) * weights[at];
            (0..points.len()).map(lowered).sum()
        };
        let mut best = (f64::INFINITY, usize::MAX);
        for trial in 0..trials(clusters) as u64 {
            let candidate = pick(&masses, draws.unit(counter + trial));
            let found = (potential(candidate), candidate);
            if found.0 < best.0 || (found.0 == best.0 && found.1 < best.1) {
                best = found;
            }
        }
        closest.iter_mut().enumerate().for_each(|(at, closest)| *closest = closest.min(distance(at, best.1)));
        chosen.push(best.1);
    }
    chosen
}

/// Candidates per greedy step: 2 + floor(ln k).
fn trials(clusters: usize) -> usize {
    2 + (clusters as f64).ln() as usize
}

/// The first row at which the running sum of `weights` exceeds `target`; `sums` are the sums of its chunks.
fn row_at(weights: &[f64], sums: &[f64], mut target: f64) -> usize {
    let chunk = if sums.len() == 1 { weights.len() } else { CHUNK };
    for (number, (chunk_weights, &sum)) in weights.chunks(chunk).zip(sums).enumerate() {
        if target < sum {
            for (offset, &weight) in chunk_weights.iter().enumerate() {
                target -= weight;
                if target < 0.0 {
                    return number * chunk + offset;
                }
            }
        } else {
            target -= sum;
        }
    }
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
}
