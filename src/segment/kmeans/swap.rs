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
        let exchanged = |run: Run| match &groups {
            Some(groups) => self.lloyd(groups.exchanged(run.centres), options),
            None => run,
        };
        let (mut best, mut failures, mut swaps) = (exchanged(run), 0, 0);
        let (_, mut distances) = assigned(&self.rows, &best.centres);
        let mut inertia = ordered_sum(&distances);
        let mut missed = self.least_missed(&best.centres);
        while failures < PATIENCE {
            let row = self.next_centre(&mut distances.clone(), clusters, draws, swaps * DRAWS);
            swaps += 1;
            let moved = missed[failures as usize % clusters];
            let mut centres = best.centres.clone();
            let point = self.rows.row(row).into_iter().map(T::wide);
            centres[moved * width..][..width].iter_mut().zip(point).for_each(|(slot, value)| *slot = value);
            let tried = exchanged(self.lloyd(centres, options));
            let (_, of_tried) = assigned(&self.rows, &tried.centres);
            let found = ordered_sum(&of_tried);
            if found < inertia * (1.0 - LEAST_GAIN) {
                (best, inertia, failures) = (tried, found, 0);
                missed = self.least_missed(&best.centres);
                distances = of_tried;
            } else {
                failures += 1;
            }
        }
        best
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
