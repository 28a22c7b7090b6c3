//! Ward's linkage by nearest-neighbour chains over centres.
//!
//! The increase of variance that a merge costs is a function of two centres and two weights, so no matrix of
//! distances is kept: O(n²) time and O(n) memory (Murtagh 1983; Müllner 2011, arXiv 1109.2378).

use pulp::{Simd, WithSimd};

use super::{Merge, Tree};
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// Active clusters compared at a time.
const BLOCK: usize = 256;

/// The clusters that have not been merged yet, column by column.
struct Active {
    columns: Vec<Vec<f64>>,
    weights: Vec<f64>,
    /// Each one's lowest row, which stands for it until nodes are numbered.
    rows: Vec<usize>,
}

impl Active {
    fn remove(&mut self, place: usize) {
        self.columns.iter_mut().for_each(|column| {
            column.swap_remove(place);
        });
        self.weights.swap_remove(place);
        self.rows.swap_remove(place);
    }

    /// The place nearest to `from` and its squared height; `before` wins when equal, then the lower place.
    fn nearest(&self, from: usize, before: Option<usize>, vectors: Vectors) -> (usize, f64) {
        // Something is nearest even when every height is infinite.
        let likely = before.unwrap_or(usize::from(from == 0));
        let mut best = (likely, self.squared_height(from, likely));
        let mut heights = [0.0; BLOCK];
        let count = self.weights.len();
        for first in (0..count).step_by(BLOCK) {
            let heights = &mut heights[..BLOCK.min(count - first)];
            vectors.run(Heights { active: self, from, first, heights: &mut *heights });
            for (offset, &height) in heights.iter().enumerate() {
                if height < best.1 && first + offset != from {
                    best = (first + offset, height);
                }
            }
        }
        best
    }

    #[inline(always)]
    fn block(&self, from: usize, first: usize, heights: &mut [f64]) {
        heights.fill(0.0);
        for column in &self.columns {
            let own = column[from];
            for (sum, value) in heights.iter_mut().zip(&column[first..]) {
                let difference = value - own;
                *sum = difference.mul_add(difference, *sum);
            }
        }
        let own = self.weights[from];
        for (height, other) in heights.iter_mut().zip(&self.weights[first..]) {
            *height *= 2.0 * own * other / (own + other);
        }
    }

    fn squared_height(&self, left: usize, right: usize) -> f64 {
        let sum = self.columns.iter().fold(0.0_f64, |sum, column| {
            let difference = column[right] - column[left];
            difference.mul_add(difference, sum)
        });
        let (own, other) = (self.weights[left], self.weights[right]);
        sum * (2.0 * own * other / (own + other))
    }

    /// Puts the merged cluster in the place of `left`; `right` goes.
    fn merge(&mut self, left: usize, right: usize) {
        let (own, other) = (self.weights[left], self.weights[right]);
        let sum = own + other;
        for column in &mut self.columns {
            column[left] = (own * column[left] + other * column[right]) / sum;
        }
        self.weights[left] = sum;
        self.rows[left] = self.rows[left].min(self.rows[right]);
        self.remove(right);
    }
}

/// See [`Active::block`]. A kernel of its own: a closure need not be compiled for the instructions it runs on.
struct Heights<'a> {
    active: &'a Active,
    from: usize,
    first: usize,
    heights: &'a mut [f64],
}

impl WithSimd for Heights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.active.block(self.from, self.first, self.heights);
    }
}

pub(super) fn tree(points: &Matrix, weights: &[f64], vectors: Vectors) -> Tree {
    let rows = points.rows();
    let mut active =
        Active { columns: points.columns().to_vec(), weights: weights.to_vec(), rows: (0..rows).collect() };
    let mut merges: Vec<(f64, usize, usize)> = Vec::with_capacity(rows - 1);
    let mut chain: Vec<usize> = Vec::new();
    while active.weights.len() > 1 {
        let at = *chain.last().unwrap_or(&0);
        if chain.is_empty() {
            chain.push(0);
        }
        let before = chain.len().checked_sub(2).map(|place| chain[place]);
        let (next, height) = active.nearest(at, before, vectors);
        if Some(next) != before {
            chain.push(next);
            continue;
        }
        chain.truncate(chain.len() - 2);
        let (kept, gone) = (at.min(next), at.max(next));
        merges.push((height.sqrt(), active.rows[kept], active.rows[gone]));
        active.merge(kept, gone);
        // The last cluster moved into the gap.
        let last = active.weights.len();
        chain.iter_mut().filter(|place| **place == last).for_each(|place| *place = gone);
    }
    numbered(rows, merges, weights)
}

/// Nodes get SciPy's numbers: merges by rising height, each the number of rows plus its place.
pub(super) fn numbered(rows: usize, mut merges: Vec<(f64, usize, usize)>, weights: &[f64]) -> Tree {
    // Stable: a merge never stands before one of equal height that it builds on.
    merges.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mut parent: Vec<usize> = (0..2 * rows - 1).collect();
    let mut size: Vec<f64> = weights.to_vec();
    let find = |parent: &mut Vec<usize>, mut node: usize| {
        while parent[node] != node {
            parent[node] = parent[parent[node]];
            node = parent[node];
        }
        node
    };
    let mut numbered = Vec::with_capacity(merges.len());
    for (place, (height, left, right)) in merges.into_iter().enumerate() {
        let (left, right) = (find(&mut parent, left), find(&mut parent, right));
        parent[left] = rows + place;
        parent[right] = rows + place;
        size.push(size[left] + size[right]);
        let size = size[rows + place].round() as usize;
        numbered.push(Merge { left: left.min(right), right: left.max(right), height, size });
    }
    Tree { rows, merges: numbered }
}
