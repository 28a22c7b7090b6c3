//! Kernels that measure rows from points: potentials of starts, lowered distances, sums of distances.

use pulp::{Simd, WithSimd};

use super::{Chunk, GROUP, Real, TILE};
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// The squared distances of a tile's rows to one point.
#[inline(always)]
pub(super) fn distances_in_tile<T: Real, S: Simd>(simd: S, tile: &[T], point: &[T], out: &mut [T; TILE]) {
    let tile = T::as_vectors::<S>(tile);
    let out = T::as_vectors_mut::<S>(out);
    let stride = out.len();
    let zero = T::splat(simd, T::default());
    for first in (0..stride).step_by(GROUP) {
        let mut sum = [zero; GROUP];
        for (column, &value) in tile.chunks_exact(stride).zip(point) {
            let value = T::splat(simd, value);
            for lane in 0..GROUP {
                sum[lane] = T::add_square(simd, column[first + lane], value, sum[lane]);
            }
        }
        out[first..first + GROUP].copy_from_slice(&sum);
    }
}

/// For each of several points the sum over a chunk's rows of the lesser of `closest` and the squared distance.
pub(in crate::segment) struct Potentials<'a, T> {
    pub(in crate::segment) chunk: Chunk<'a, T>,
    /// m × width.
    pub(in crate::segment) points: &'a [T],
    pub(in crate::segment) closest: &'a [f64],
}

impl<T: Real> WithSimd for Potentials<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let Potentials { chunk, points, closest } = self;
        let width = chunk.width();
        let mut sums = vec![0.0; points.len() / width];
        let mut squared = [T::default(); TILE];
        let mut room = chunk.room();
        for (number, closest) in closest.chunks(TILE).enumerate() {
            let tile = chunk.tile(number, &mut room);
            for (sum, point) in sums.iter_mut().zip(points.chunks_exact(width)) {
                distances_in_tile(simd, tile, point, &mut squared);
                *sum += closest.iter().zip(&squared).map(|(old, new)| old.min(new.wide())).sum::<f64>();
            }
        }
        sums
    }
}

/// Lowers `closest` to the squared distance to `point` where that is less.
pub(in crate::segment) struct Lower<'a, T> {
    pub(in crate::segment) chunk: Chunk<'a, T>,
    pub(in crate::segment) point: &'a [T],
    pub(in crate::segment) closest: &'a mut [f64],
}

impl<T: Real> WithSimd for Lower<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut squared = [T::default(); TILE];
        let mut room = self.chunk.room();
        for (number, closest) in self.closest.chunks_mut(TILE).enumerate() {
            let tile = self.chunk.tile(number, &mut room);
            distances_in_tile(simd, tile, self.point, &mut squared);
            closest.iter_mut().zip(&squared).for_each(|(old, new)| *old = old.min(new.wide()));
        }
    }
}

/// n × d values in tiles; the last tile is filled up with zeros.
#[derive(Debug, Clone)]
pub(in crate::segment) struct Points {
    pub(in crate::segment) rows: usize,
    width: usize,
    values: Vec<f64>,
    pub(in crate::segment) vectors: Vectors,
}

impl Points {
    /// The rows at `rows`, in the order given.
    pub(in crate::segment) fn of_rows(matrix: &Matrix, rows: &[usize], vectors: Vectors) -> Self {
        let width = matrix.width();
        let mut values = vec![0.0; rows.len().div_ceil(TILE) * TILE * width];
        for (tile, rows) in values.chunks_exact_mut(TILE * width).zip(rows.chunks(TILE)) {
            for (slots, column) in tile.chunks_exact_mut(TILE).zip(matrix.columns()) {
                slots.iter_mut().zip(rows).for_each(|(slot, &row)| *slot = column[row]);
            }
        }
        Self { rows: rows.len(), width, values, vectors }
    }
}

/// Lanes of the sum below: fixed, so that the result does not depend on the vector width.
const LANES: usize = 8;

/// The sum of the distances of all rows to `point`, added in eight fixed lanes.
pub(in crate::segment) struct SumOfDistances<'a> {
    pub(in crate::segment) rows: &'a Points,
    pub(in crate::segment) point: &'a [f64],
}

impl WithSimd for SumOfDistances<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let mut squared = [0.0; TILE];
        let mut lanes = [0.0; LANES];
        let mut left = self.rows.rows;
        for tile in self.rows.values.chunks_exact(TILE * self.rows.width) {
            distances_in_tile(simd, tile, self.point, &mut squared);
            let filled = left.min(TILE);
            squared[filled..].fill(0.0);
            left -= filled;
            for group in squared.chunks_exact(LANES) {
                lanes.iter_mut().zip(group).for_each(|(lane, squared)| *lane += squared.sqrt());
            }
        }
        lanes.iter().sum()
    }
}
