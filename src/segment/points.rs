//! Points laid out for the kernels: tiles of 64 rows, each feature contiguous inside its tile.
//!
//! Owns the layout and the kernels over it (nearest centre, distances to points, sums per label), in both
//! precisions. Lanes are rows, so every row's distance is the same chain of fused multiply-adds at any vector
//! width; sums are kept in `f64`.

use pulp::{Simd, WithSimd};
use rayon::iter::IndexedParallelIterator;
use rayon::slice::ParallelSlice;

use super::vectors::Vectors;

/// Rows per tile: with 32 features of 64 bits a tile is 16 KiB and stays in L1.
pub(super) const TILE: usize = 64;
/// Tiles per chunk; a chunk of 8,192 rows is the unit of work and of ordered reduction.
const CHUNK_TILES: usize = 128;
/// Rows per chunk.
pub(super) const CHUNK: usize = TILE * CHUNK_TILES;

/// A number that points are made of: `f32` or `f64`.
pub(super) trait Real: Copy + Default + PartialOrd + Send + Sync + 'static {
    type Vector<S: Simd>: Copy;
    const FAR: Self;

    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn as_vectors<S: Simd>(values: &[Self]) -> &[Self::Vector<S>];
    fn as_vectors_mut<S: Simd>(values: &mut [Self]) -> &mut [Self::Vector<S>];
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    /// sum + (left - right)², with one rounding after the product.
    fn add_square<S: Simd>(
        simd: S,
        left: Self::Vector<S>,
        right: Self::Vector<S>,
        sum: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// The nearer of (distance, label) and the best so far, which wins when equal.
    fn nearer<S: Simd>(
        simd: S,
        distance: Self::Vector<S>,
        label: Self::Vector<S>,
        best: (Self::Vector<S>, Self::Vector<S>),
    ) -> (Self::Vector<S>, Self::Vector<S>);
}

macro_rules! real {
    ($name:ident, $vector:ident, $as:ident, $as_mut:ident, $splat:ident, $sub:ident, $fma:ident, $less:ident,
     $select:ident) => {
        impl Real for $name {
            type Vector<S: Simd> = S::$vector;
            const FAR: Self = $name::INFINITY;

            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $name
            }

            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn as_vectors<S: Simd>(values: &[Self]) -> &[S::$vector] {
                S::$as(values).0
            }

            #[inline(always)]
            fn as_vectors_mut<S: Simd>(values: &mut [Self]) -> &mut [S::$vector] {
                S::$as_mut(values).0
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn add_square<S: Simd>(
                simd: S,
                left: S::$vector,
                right: S::$vector,
                sum: S::$vector,
            ) -> S::$vector {
                let difference = simd.$sub(left, right);
                simd.$fma(difference, difference, sum)
            }

            #[inline(always)]
            fn nearer<S: Simd>(
                simd: S,
                distance: S::$vector,
                label: S::$vector,
                best: (S::$vector, S::$vector),
            ) -> (S::$vector, S::$vector) {
                let nearer = simd.$less(distance, best.0);
                (simd.$select(nearer, distance, best.0), simd.$select(nearer, label, best.1))
            }
        }
    };
}

// One text for both widths: pulp names its operations by the width of their lanes.
real!(
    f32,
    f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    splat_f32s,
    sub_f32s,
    mul_add_f32s,
    less_than_f32s,
    select_f32s
);
real!(
    f64,
    f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    splat_f64s,
    sub_f64s,
    mul_add_f64s,
    less_than_f64s,
    select_f64s
);

/// n × d values in tiles; the last tile is filled up with zeros.
#[derive(Debug, Clone)]
pub(super) struct Points<T> {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) values: Vec<T>,
    pub(super) vectors: Vectors,
}

impl<T: Real> Points<T> {
    /// Lays out columns of one length, each less its offset.
    pub(super) fn new(rows: usize, columns: &[Vec<f64>], offsets: &[f64], vectors: Vectors) -> Self {
        use rayon::prelude::*;
        let width = columns.len();
        let mut values = vec![T::default(); rows.div_ceil(TILE) * TILE * width];
        values.par_chunks_mut(CHUNK * width).enumerate().for_each(|(chunk, values)| {
            lay_out(chunk * CHUNK, rows, columns, offsets, values);
        });
        Self { rows, width, values, vectors }
    }

    pub(super) fn at(&self, row: usize, feature: usize) -> T {
        self.values[(row / TILE * self.width + feature) * TILE + row % TILE]
    }

    pub(super) fn row(&self, row: usize) -> Vec<T> {
        (0..self.width).map(|feature| self.at(row, feature)).collect()
    }

    /// The tiles of each chunk, in order.
    pub(super) fn chunks(&self) -> impl IndexedParallelIterator<Item = &[T]> {
        self.values.par_chunks(CHUNK * self.width)
    }

    /// The rows at `rows`, in the order given.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        let (width, vectors) = (self.width, self.vectors);
        let mut values = vec![T::default(); rows.len().div_ceil(TILE) * TILE * width];
        for (place, &row) in rows.iter().enumerate() {
            for feature in 0..width {
                values[(place / TILE * width + feature) * TILE + place % TILE] = self.at(row, feature);
            }
        }
        Self { rows: rows.len(), width, values, vectors }
    }
}

/// Fills whole tiles with the rows from `first`; what is beyond the last row stays 0.
pub(super) fn lay_out<T: Real>(
    first: usize,
    rows: usize,
    columns: &[Vec<f64>],
    offsets: &[f64],
    tiles: &mut [T],
) {
    for (number, tile) in tiles.chunks_exact_mut(TILE * columns.len()).enumerate() {
        let first = first + number * TILE;
        let filled = TILE.min(rows.saturating_sub(first));
        for ((slots, column), offset) in tile.chunks_exact_mut(TILE).zip(columns).zip(offsets) {
            let own = &column[first.min(rows)..][..filled];
            slots.iter_mut().zip(own).for_each(|(slot, value)| *slot = T::of(value - offset));
        }
    }
}

/// The squared distance as a chain of fused multiply-adds in feature order: bit for bit what the kernels give.
#[inline(always)]
pub(super) fn squared_distance(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).fold(0.0, |sum, (left, right)| {
        let difference = left - right;
        difference.mul_add(difference, sum)
    })
}

/// Vectors of rows that one pass of a kernel carries in registers.
const GROUP: usize = 4;

/// For each row of a tile the label of the nearest centre (ties to the lower one) and its squared distance.
///
/// `centres` is k × width. Two centres at a time share the loads of the rows.
#[inline(always)]
fn nearest_in_tile<T: Real, S: Simd>(
    simd: S,
    tile: &[T],
    centres: &[T],
    width: usize,
    labels: &mut [T; TILE],
    distances: &mut [T; TILE],
) {
    let tile = T::as_vectors::<S>(tile);
    let labels = T::as_vectors_mut::<S>(labels);
    let distances = T::as_vectors_mut::<S>(distances);
    let stride = labels.len();
    let zero = T::splat(simd, T::default());
    let far = T::splat(simd, T::FAR);
    for first in (0..stride).step_by(GROUP) {
        let mut best = [(far, zero); GROUP];
        let mut number = 0.0;
        let pairs = centres.chunks_exact(2 * width);
        let odd = pairs.remainder();
        for pair in pairs {
            let (left, right) = pair.split_at(width);
            let mut to_left = [zero; GROUP];
            let mut to_right = [zero; GROUP];
            for ((column, &left), &right) in tile.chunks_exact(stride).zip(left).zip(right) {
                let (left, right) = (T::splat(simd, left), T::splat(simd, right));
                let column = &column[first..first + GROUP];
                for lane in 0..GROUP {
                    to_left[lane] = T::add_square(simd, column[lane], left, to_left[lane]);
                    to_right[lane] = T::add_square(simd, column[lane], right, to_right[lane]);
                }
            }
            let (left, right) = (T::splat(simd, T::of(number)), T::splat(simd, T::of(number + 1.0)));
            for lane in 0..GROUP {
                best[lane] = T::nearer(simd, to_left[lane], left, best[lane]);
                best[lane] = T::nearer(simd, to_right[lane], right, best[lane]);
            }
            number += 2.0;
        }
        if !odd.is_empty() {
            let mut to = [zero; GROUP];
            for (column, &value) in tile.chunks_exact(stride).zip(odd) {
                let value = T::splat(simd, value);
                for lane in 0..GROUP {
                    to[lane] = T::add_square(simd, column[first + lane], value, to[lane]);
                }
            }
            let number = T::splat(simd, T::of(number));
            for lane in 0..GROUP {
                best[lane] = T::nearer(simd, to[lane], number, best[lane]);
            }
        }
        for lane in 0..GROUP {
            distances[first + lane] = best[lane].0;
            labels[first + lane] = best[lane].1;
        }
    }
}

/// The squared distances of a tile's rows to one point.
#[inline(always)]
fn distances_in_tile<T: Real, S: Simd>(simd: S, tile: &[T], point: &[T], out: &mut [T; TILE]) {
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

/// The rows of a chunk, or of all chunks, by label.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    /// k × width.
    pub(super) sums: Vec<f64>,
    pub(super) counts: Vec<u64>,
}

impl Sums {
    pub(super) fn none(clusters: usize, width: usize) -> Self {
        Self { sums: vec![0.0; clusters * width], counts: vec![0; clusters] }
    }

    /// Counts a row of a tile `times` times: 1, or -1 for a row that leaves.
    #[inline(always)]
    fn count<T: Real>(&mut self, tile: &[T], row: usize, label: u32, times: f64) {
        let width = tile.len() / TILE;
        self.counts[label as usize] = self.counts[label as usize].wrapping_add_signed(times as i64);
        let sums = &mut self.sums[label as usize * width..][..width];
        for (sum, column) in sums.iter_mut().zip(tile.chunks_exact(TILE)) {
            *sum += times * column[row].wide();
        }
    }

    /// The rows of a chunk by their labels.
    pub(super) fn of<T: Real>(tiles: &[T], labels: &[u32], clusters: usize, width: usize) -> Self {
        let mut found = Self::none(clusters, width);
        for (tile, labels) in tiles.chunks_exact(TILE * width).zip(labels.chunks(TILE)) {
            labels.iter().enumerate().for_each(|(row, &label)| found.count(tile, row, label, 1.0));
        }
        found
    }
}

/// The label of a row that has none yet.
pub(super) const NO_LABEL: u32 = u32::MAX;

/// Gives every row of a chunk the label of its nearest centre, and moves rows whose label is another than before
/// from sum to sum; the number of these.
pub(super) struct Step<'a, T> {
    pub(super) tiles: &'a [T],
    pub(super) width: usize,
    /// k × width.
    pub(super) centres: &'a [T],
    /// As many as the chunk has rows: before the first step all [`NO_LABEL`].
    pub(super) labels: &'a mut [u32],
    /// The sums of the labels; before the first step all 0.
    pub(super) sums: &'a mut Sums,
}

impl<T: Real> WithSimd for Step<'_, T> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let Step { tiles, width, centres, labels, sums } = self;
        let mut changed = 0;
        let (mut nearest, mut distances) = ([T::default(); TILE], [T::default(); TILE]);
        for (tile, labels) in tiles.chunks_exact(TILE * width).zip(labels.chunks_mut(TILE)) {
            nearest_in_tile(simd, tile, centres, width, &mut nearest, &mut distances);
            for (row, (label, nearest)) in labels.iter_mut().zip(&nearest).enumerate() {
                let nearest = nearest.wide() as u32;
                if *label != nearest {
                    changed += 1;
                    if *label != NO_LABEL {
                        sums.count(tile, row, *label, -1.0);
                    }
                    sums.count(tile, row, nearest, 1.0);
                    *label = nearest;
                }
            }
        }
        changed
    }
}

/// The label of the nearest centre and the squared distance to it for every row of a chunk.
pub(super) struct Nearest<'a, T> {
    pub(super) tiles: &'a [T],
    pub(super) width: usize,
    /// k × width.
    pub(super) centres: &'a [T],
    pub(super) labels: &'a mut [u32],
    pub(super) distances: &'a mut [f64],
}

impl<T: Real> WithSimd for Nearest<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Nearest { tiles, width, centres, labels, distances } = self;
        let (mut nearest, mut squared) = ([T::default(); TILE], [T::default(); TILE]);
        let parts = labels.chunks_mut(TILE).zip(distances.chunks_mut(TILE));
        for (tile, (labels, distances)) in tiles.chunks_exact(TILE * width).zip(parts) {
            nearest_in_tile(simd, tile, centres, width, &mut nearest, &mut squared);
            labels.iter_mut().zip(&nearest).for_each(|(label, nearest)| *label = nearest.wide() as u32);
            distances.iter_mut().zip(&squared).for_each(|(distance, squared)| *distance = squared.wide());
        }
    }
}

/// For each of several points the sum over a chunk's rows of the lesser of `closest` and the squared distance.
pub(super) struct Potentials<'a, T> {
    pub(super) tiles: &'a [T],
    pub(super) width: usize,
    /// m × width.
    pub(super) points: &'a [T],
    pub(super) closest: &'a [f64],
}

impl<T: Real> WithSimd for Potentials<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let Potentials { tiles, width, points, closest } = self;
        let mut sums = vec![0.0; points.len() / width];
        let mut squared = [T::default(); TILE];
        for (tile, closest) in tiles.chunks_exact(TILE * width).zip(closest.chunks(TILE)) {
            for (sum, point) in sums.iter_mut().zip(points.chunks_exact(width)) {
                distances_in_tile(simd, tile, point, &mut squared);
                *sum += closest.iter().zip(&squared).map(|(old, new)| old.min(new.wide())).sum::<f64>();
            }
        }
        sums
    }
}

/// Lowers `closest` to the squared distance to `point` where that is less.
pub(super) struct Lower<'a, T> {
    pub(super) tiles: &'a [T],
    pub(super) width: usize,
    pub(super) point: &'a [T],
    pub(super) closest: &'a mut [f64],
}

impl<T: Real> WithSimd for Lower<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut squared = [T::default(); TILE];
        for (tile, closest) in self.tiles.chunks_exact(TILE * self.width).zip(self.closest.chunks_mut(TILE)) {
            distances_in_tile(simd, tile, self.point, &mut squared);
            closest.iter_mut().zip(&squared).for_each(|(old, new)| *old = old.min(new.wide()));
        }
    }
}

/// Lanes of the sum below: fixed, so that the result does not depend on the vector width.
const LANES: usize = 8;

/// The sum of the distances of all rows to `point`, added in eight fixed lanes.
pub(super) struct SumOfDistances<'a> {
    pub(super) rows: &'a Points<f64>,
    pub(super) point: &'a [f64],
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
