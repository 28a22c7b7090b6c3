//! Single linkage by a minimum spanning tree over points: O(n²) time and O(n) memory (Gower, Ross 1969; the tree
//! after Prim 1957).
//!
//! Only rows outside the tree are kept: each step measures them from the row that has just joined.

use pulp::{Simd, WithSimd};

use super::Tree;
use super::blocks::{AT_ONCE, BLOCK, Block, Points};
use super::ward::numbered;
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// The rows outside the tree. The last one fills the gap of one that joins, so places do not follow rows.
struct Outside {
    points: Points,
    /// How near each is to the tree, and to which row of it.
    squared: Vec<Block>,
    to: Vec<[u64; BLOCK]>,
    rows: Vec<usize>,
    /// The least of each block of `squared`.
    least: Vec<f64>,
}

impl Outside {
    fn new(points: &Matrix) -> Self {
        let (rows, columns) = (points.rows(), points.columns());
        let blocks = rows.div_ceil(BLOCK);
        Self {
            points: Points::new(columns.len(), rows, |column, row| columns[column][row]),
            squared: vec![[f64::INFINITY; BLOCK]; blocks],
            to: vec![[0; BLOCK]; blocks],
            rows: (0..rows).collect(),
            least: vec![f64::INFINITY; blocks],
        }
    }

    /// Takes a row out; `values` become its columns.
    fn remove(&mut self, place: usize, values: &mut [f64]) {
        let last = self.rows.len() - 1;
        let (block, within) = (place / BLOCK, place % BLOCK);
        let (last_block, last_within) = (last / BLOCK, last % BLOCK);
        for (column, value) in values.iter_mut().enumerate() {
            let column_of = |block: usize| block * self.points.width + column;
            let moved = self.points.blocks[column_of(last_block)][last_within];
            *value = self.points.blocks[column_of(block)][within];
            self.points.blocks[column_of(block)][within] = moved;
            self.points.blocks[column_of(last_block)][last_within] = f64::INFINITY;
        }
        self.squared[block][within] = self.squared[last_block][last_within];
        self.squared[last_block][last_within] = f64::INFINITY;
        self.to[block][within] = self.to[last_block][last_within];
        self.rows.swap_remove(place);
    }

    /// The place nearest to the tree: the lower row when equal. Something is nearest even when every distance is
    /// infinite.
    fn nearest(&self) -> usize {
        let blocks = self.rows.len().div_ceil(BLOCK);
        let least = self.least[..blocks].iter().fold(f64::INFINITY, |least, &value| least.min(value));
        let mut best = (usize::MAX, usize::MAX);
        for block in (0..blocks).filter(|&block| self.least[block] == least) {
            let rows = self.rows[block * BLOCK..].iter().zip(&self.squared[block]).enumerate();
            for (within, (&row, _)) in rows.filter(|(_, (_, squared))| **squared == least) {
                best = best.min((row, block * BLOCK + within));
            }
        }
        best.1
    }
}

/// Measures the rows outside from the one that has just joined the tree.
struct Joined<'a> {
    outside: &'a mut Outside,
    row: usize,
    values: &'a [f64],
}

impl WithSimd for Joined<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Joined { outside, row, values } = self;
        let row = simd.splat_u64s(row as u64);
        for block in 0..outside.rows.len().div_ceil(BLOCK) {
            let columns = outside.points.block(block);
            let (squared, _) = S::as_mut_simd_f64s(&mut outside.squared[block]);
            let (to, _) = S::as_mut_simd_u64s(&mut outside.to[block]);
            let mut least = simd.splat_f64s(f64::INFINITY);
            for first in (0..squared.len()).step_by(AT_ONCE) {
                let mut sums = [simd.splat_f64s(0.0); AT_ONCE];
                for (column, own) in columns.iter().zip(values) {
                    let column = &S::as_simd_f64s(column).0[first..][..AT_ONCE];
                    let own = simd.splat_f64s(*own);
                    for (sum, value) in sums.iter_mut().zip(column) {
                        let difference = simd.sub_f64s(*value, own);
                        *sum = simd.mul_add_f64s(difference, difference, *sum);
                    }
                }
                let (squared, to) = (&mut squared[first..][..AT_ONCE], &mut to[first..][..AT_ONCE]);
                for (sum, (squared, to)) in sums.into_iter().zip(squared.iter_mut().zip(to)) {
                    let nearer = simd.less_than_f64s(sum, *squared);
                    *to = simd.select_u64s(nearer, row, *to);
                    // The least, not a choice by `nearer`: that would be stored under a mask and wait to be read.
                    let nearest = simd.min_f64s(sum, *squared);
                    *squared = nearest;
                    least = simd.min_f64s(least, nearest);
                }
            }
            outside.least[block] = simd.reduce_min_f64s(least);
        }
    }
}

pub(super) fn tree(points: &Matrix, vectors: Vectors) -> Tree {
    let rows = points.rows();
    let mut outside = Outside::new(points);
    let mut edges = Vec::with_capacity(rows - 1);
    let mut values = vec![0.0; outside.points.width];
    let mut row = 0;
    outside.remove(0, &mut values);
    while !outside.rows.is_empty() {
        vectors.run(Joined { outside: &mut outside, row, values: &values });
        let place = outside.nearest();
        let (block, within) = (place / BLOCK, place % BLOCK);
        row = outside.rows[place];
        edges.push((outside.squared[block][within].sqrt(), outside.to[block][within] as usize, row));
        outside.remove(place, &mut values);
    }
    numbered(rows, edges, &vec![1.0; rows])
}
