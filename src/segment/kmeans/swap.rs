//! Leaving a local optimum: a centre is moved from where it is missed least to where one is missed most, as long as
//! that lowers the sum of squared distances (the swaps of Fränti, Kivijärvi 2000, with chosen instead of random centres).

use rayon::prelude::*;

use super::exchange::Groups;
use super::lloyd::{Centred, Run, assigned};
use super::{KMeansOptions, ordered_sum};
use crate::segment::points::{CHUNK, Real};
use crate::segment::random::{Draws, Purpose};

/// Swaps in a row that lower nothing, after which the search ends.
const PATIENCE: u64 = 6;
/// Draws kept for one swap: more than candidates are ever drawn.
const DRAWS: u64 = 64;
/// Share of the sum that a swap must gain: less is rounding.
const LEAST_GAIN: f64 = 1e-6;

/// A run with the squared distances of its rows.
struct Measured {
    run: Run,
    distances: Vec<f64>,
    inertia: f64,
}

impl<T: Real> Centred<'_, T> {
    /// A run at least as good as `run`, whose centres are in centred units.
    pub(super) fn swapped(&self, run: Run, options: &KMeansOptions) -> Run {
        let width = self.rows.width();
        let clusters = run.centres.len() / width;
        if clusters < 2 {
            return run;
        }
        let draws = Draws::new(options.seed, clusters as u64, Purpose::Swapping);
        let groups = Groups::of(self);
        let improved = |run: Run| {
            let found = self.measured(run);
            let Some(groups) = &groups else { return found };
            let exchanged = self.measured(self.lloyd(groups.exchanged(found.run.centres.clone()), options));
            if exchanged.inertia < found.inertia { exchanged } else { found }
        };
        let (mut best, mut failures, mut swaps) = (improved(run), 0, 0);
        let mut missed = self.least_missed(&best.run.centres);
        while failures < PATIENCE {
            let row = self.next_centre(&mut best.distances.clone(), clusters, draws, swaps * DRAWS);
            swaps += 1;
            let moved = missed[failures as usize % clusters];
            let mut centres = best.run.centres.clone();
            let point = self.rows.row(row).into_iter().map(T::wide);
            centres[moved * width..][..width].iter_mut().zip(point).for_each(|(slot, value)| *slot = value);
            let tried = improved(self.lloyd(centres, options));
            if tried.inertia < best.inertia * (1.0 - LEAST_GAIN) {
                (best, failures) = (tried, 0);
                missed = self.least_missed(&best.run.centres);
            } else {
                failures += 1;
            }
        }
        best.run
    }

    fn measured(&self, run: Run) -> Measured {
        let (_, distances) = assigned(&self.rows, &run.centres);
        Measured { inertia: ordered_sum(&distances), distances, run }
    }

    /// The centres in the order of what the sum of squared distances would grow by without them.
    fn least_missed(&self, centres: &[f64]) -> Vec<usize> {
        let width = self.rows.width();
        let clusters = centres.len() / width;
        let (labels, closest) = assigned(&self.rows, centres);
        let without = |cluster: usize| {
            let others = [&centres[..cluster * width], &centres[(cluster + 1) * width..]].concat();
            let (_, second) = assigned(&self.rows, &others);
            let parts = labels.par_chunks(CHUNK).zip(closest.par_chunks(CHUNK)).zip(second.par_chunks(CHUNK));
            let growth = parts.map(|((labels, closest), second)| {
                let rows = labels.iter().zip(closest.iter().zip(second));
                let own = rows.filter(|(label, _)| **label as usize == cluster);
                own.map(|(_, (closest, second))| second - closest).sum::<f64>()
            });
            growth.collect::<Vec<_>>().iter().sum::<f64>()
        };
        let missed: Vec<f64> = (0..clusters).map(without).collect();
        let mut order: Vec<usize> = (0..clusters).collect();
        order.sort_by(|&left, &right| missed[left].total_cmp(&missed[right]));
        order
    }
}
