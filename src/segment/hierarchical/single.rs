//! Single linkage by a minimum spanning tree over points: O(n²) time and O(n) memory (Gower, Ross 1969; the tree
//! after Prim 1957).
//!
//! Only rows outside the tree are kept: each step measures them from the row that has just joined. They lie in
//! blocks, and so do those of `pairwise.rs`.

use pulp::{Simd, WithSimd};

use super::Tree;
use super::ward::numbered;
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// Rows that lie together.
pub(super) const BLOCK: usize = 64;
/// Vectors measured at a time: their sums stay in registers, and enough are on the way to hide what each waits for.
const AT_ONCE: usize = 4;

pub(super) type Block = [f64; BLOCK];

/// Rows in blocks, each column by column, for all that measures pairs of rows. Places beyond the last row are
/// infinitely far from all.
pub(super) struct Points {
    pub(super) width: usize,
    blocks: Vec<Block>,
}

impl Points {
    /// The rows that have `value` of a column and a row.
    pub(super) fn new(width: usize, rows: usize, value: impl Fn(usize, usize) -> f64) -> Self {
        let mut blocks = vec![[f64::INFINITY; BLOCK]; rows.div_ceil(BLOCK) * width];
        for (number, values) in blocks.iter_mut().enumerate() {
            let (block, column) = (number / width, number % width);
            for row in block * BLOCK..rows.min((block + 1) * BLOCK) {
                values[row % BLOCK] = value(column, row);
            }
        }
        Self { width, blocks }
    }

    /// The columns of a block.
    #[inline(always)]
    pub(super) fn block(&self, block: usize) -> &[Block] {
        &self.blocks[block * self.width..][..self.width]
    }

    /// The distances of a row from those of a block, or their squares.
    #[inline(always)]
    pub(super) fn measure<S: Simd>(&self, simd: S, row: usize, block: usize, squares: bool, out: &mut Block) {
        let (own, others) = (self.block(row / BLOCK), self.block(block));
        let (out, _) = S::as_mut_simd_f64s(out);
        for first in (0..out.len()).step_by(AT_ONCE) {
            let mut sums = [simd.splat_f64s(0.0); AT_ONCE];
            for (own, others) in own.iter().zip(others) {
                let own = simd.splat_f64s(own[row % BLOCK]);
                let others = &S::as_simd_f64s(others).0[first..][..AT_ONCE];
                for (sum, other) in sums.iter_mut().zip(others) {
                    let difference = simd.sub_f64s(own, *other);
                    *sum = simd.add_f64s(*sum, simd.mul_f64s(difference, difference));
                }
            }
            for (out, sum) in out[first..][..AT_ONCE].iter_mut().zip(sums) {
                *out = if squares { sum } else { simd.sqrt_f64s(sum) };
            }
        }
    }
}

/// The least number of a block.
#[inline(always)]
pub(super) fn least<S: Simd>(simd: S, block: &Block) -> f64 {
    let (vectors, _) = S::as_simd_f64s(block);
    let mut least = simd.splat_f64s(f64::INFINITY);
    for vector in vectors {
        least = simd.min_f64s(least, *vector);
    }
    simd.reduce_min_f64s(least)
}

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
