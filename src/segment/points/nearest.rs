//! Kernels that find the nearest centre of every row.
//!
//! Centres are compared by |c|²/2 - x·c, one fused multiply-add for each feature instead of a subtraction and one:
//! it orders them as distances do. Where two centres are so near to equal that rounding could decide, the distances
//! of the tile are measured, so that labels are always those of the distances.

use pulp::{Simd, WithSimd};

use super::distances::distances_in_tile;
use super::rows::Ahead;
use super::{Chunk, GROUP, Real, TILE};

/// Centres, ready to be compared.
pub(in crate::segment) struct Centres<T> {
    width: usize,
    /// k × width.
    values: Vec<T>,
    /// Half of each one's square.
    halves: Vec<T>,
    /// Two comparisons that differ by more than `share` × |x|² + `least` are in the order of the distances.
    share: f64,
    least: f64,
}

impl<T: Real> Centres<T> {
    /// `centres` is k × `width`.
    pub(in crate::segment) fn new(centres: &[f64], width: usize) -> Self {
        let values: Vec<T> = centres.iter().map(|&value| T::of(value)).collect();
        let square = |centre: &[T]| centre.iter().map(|value| value.wide() * value.wide()).sum::<f64>();
        let squares: Vec<f64> = values.chunks_exact(width.max(1)).map(square).collect();
        // With u half the spacing at 1, a comparison and half a distance are each wrong by at most
        // (width + 4) u (|x| + |c|)² / 2, and (|x| + |c|)² is at most 2 |x|² + 2 |c|².
        let share = 2.0 * (width + 6) as f64 * T::EPSILON.wide();
        let largest = squares.iter().fold(0.0_f64, |largest, square| largest.max(*square));
        Self {
            width,
            halves: squares.iter().map(|square| T::of(square / 2.0)).collect(),
            values,
            share,
            // Products below the smallest number lose digits whatever they are compared with.
            least: share * largest + (width + 6) as f64 * T::SMALLEST.wide(),
        }
    }
}

/// The two centres that compare best with each of several rows.
#[derive(Clone, Copy)]
struct Best<V> {
    value: V,
    label: V,
    /// The second best value.
    second: V,
}

impl<V: Copy> Best<V> {
    #[inline(always)]
    fn meet<T: Real<Vector<S> = V>, S: Simd>(&mut self, simd: S, value: V, label: V) {
        self.second = T::lesser(simd, self.second, T::greater(simd, self.value, value));
        (self.value, self.label) = T::nearer(simd, value, label, (self.value, self.label));
    }
}

/// Compares `C` centres from `number` with the rows of one group of vectors.
#[inline(always)]
fn meet_centres<T: Real, S: Simd, const C: usize>(
    simd: S,
    columns: &[T::Vector<S>],
    (stride, first): (usize, usize),
    centres: &Centres<T>,
    number: usize,
    best: &mut [Best<T::Vector<S>>; GROUP],
) {
    let width = centres.width;
    let mut values: [&[T]; C] = [&[]; C];
    let mut compared = [[T::splat(simd, T::default()); GROUP]; C];
    for centre in 0..C {
        values[centre] = &centres.values[(number + centre) * width..][..width];
        compared[centre] = [T::splat(simd, centres.halves[number + centre]); GROUP];
    }
    for feature in 0..width {
        let column = &columns[feature * stride + first..][..GROUP];
        for centre in 0..C {
            let value = T::splat(simd, values[centre][feature]);
            for lane in 0..GROUP {
                compared[centre][lane] = T::less_product(simd, column[lane], value, compared[centre][lane]);
            }
        }
    }
    for (centre, compared) in compared.iter().enumerate() {
        let label = T::splat(simd, T::of((number + centre) as f64));
        for lane in 0..GROUP {
            best[lane].meet::<T, S>(simd, compared[lane], label);
        }
    }
}

/// For each row of a tile the label of the nearest centre, ties to the lower one; no row's square is above `largest`.
/// Meanwhile the next tile comes.
#[inline(always)]
fn nearest_in_tile<T: Real, S: Simd>(
    simd: S,
    (tile, largest): (&[T], f64),
    centres: &Centres<T>,
    mut ahead: Ahead<'_, T>,
) -> [u32; TILE] {
    let columns = T::as_vectors::<S>(tile);
    let mut labels = [T::default(); TILE];
    let found = T::as_vectors_mut::<S>(&mut labels);
    let (stride, clusters) = (found.len(), centres.halves.len());
    let (zero, far) = (T::splat(simd, T::default()), T::splat(simd, T::FAR));
    // As many centres share the loads of the rows as there are registers for.
    let together = if S::REGISTER_COUNT >= 32 { 4 } else { 2 };
    let meetings = stride / GROUP * clusters.div_ceil(together);
    let meanwhile = centres.width.div_ceil(meetings.max(1));
    let mut margin = far;
    for first in (0..stride).step_by(GROUP) {
        let mut best = [Best { value: far, label: zero, second: far }; GROUP];
        let mut number = 0;
        while together == 4 && number + 4 <= clusters {
            ahead.some(meanwhile);
            meet_centres::<T, S, 4>(simd, columns, (stride, first), centres, number, &mut best);
            number += 4;
        }
        while number + 2 <= clusters {
            ahead.some(meanwhile);
            meet_centres::<T, S, 2>(simd, columns, (stride, first), centres, number, &mut best);
            number += 2;
        }
        if number < clusters {
            meet_centres::<T, S, 1>(simd, columns, (stride, first), centres, number, &mut best);
        }
        for lane in 0..GROUP {
            margin = T::lesser(simd, margin, T::subtract(simd, best[lane].second, best[lane].value));
            found[first + lane] = best[lane].label;
        }
    }
    ahead.rest();
    // Squares that overflow leave nothing to compare by: `doubt` is infinite then.
    let doubt = centres.share * largest + centres.least;
    let certain = T::least(simd, margin) > T::of(doubt);
    if !certain && clusters > 1 {
        nearest_by_distance(simd, tile, centres, &mut labels);
    }
    labels.map(T::whole)
}

/// As [`nearest_in_tile`], by the distances themselves.
#[inline(never)]
fn nearest_by_distance<T: Real, S: Simd>(simd: S, tile: &[T], centres: &Centres<T>, labels: &mut [T; TILE]) {
    let (mut squared, mut closest) = ([T::default(); TILE], [T::FAR; TILE]);
    labels.fill(T::default());
    for (number, centre) in centres.values.chunks_exact(centres.width).enumerate() {
        simd.vectorize(Measure { tile, point: centre, out: &mut squared });
        let number = T::of(number as f64);
        for ((squared, closest), label) in squared.iter().zip(&mut closest).zip(labels.iter_mut()) {
            if squared < closest {
                (*closest, *label) = (*squared, number);
            }
        }
    }
}

/// [`distances_in_tile`] as a kernel of its own.
struct Measure<'a, T> {
    tile: &'a [T],
    point: &'a [T],
    out: &'a mut [T; TILE],
}

impl<T: Real> WithSimd for Measure<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        distances_in_tile(simd, self.tile, self.point, self.out);
    }
}

/// The rows of a chunk, or of all chunks, by label.
#[derive(Debug, Clone)]
pub(in crate::segment) struct Sums {
    /// k × width.
    pub(in crate::segment) sums: Vec<f64>,
    pub(in crate::segment) counts: Vec<u64>,
}

impl Sums {
    pub(in crate::segment) fn none(clusters: usize, width: usize) -> Self {
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
    pub(in crate::segment) fn of<T: Real>(chunk: Chunk<'_, T>, labels: &[u32], clusters: usize) -> Self {
        let mut found = Self::none(clusters, chunk.width());
        let mut room = chunk.room();
        for (number, labels) in labels.chunks(TILE).enumerate() {
            let tile = chunk.tile(number, &mut room);
            labels.iter().enumerate().for_each(|(row, &label)| found.count(tile, row, label, 1.0));
        }
        found
    }
}

/// The label of a row that has none yet.
pub(in crate::segment) const NO_LABEL: u32 = u32::MAX;

/// Gives every row of a chunk the label of its nearest centre, and moves rows whose label is another than before
/// from sum to sum; the number of these.
pub(in crate::segment) struct Step<'a, T> {
    pub(in crate::segment) chunk: Chunk<'a, T>,
    pub(in crate::segment) centres: &'a Centres<T>,
    /// As many as the chunk has rows: before the first step all [`NO_LABEL`].
    pub(in crate::segment) labels: &'a mut [u32],
    /// The sums of the labels; before the first step all 0.
    pub(in crate::segment) sums: &'a mut Sums,
}

impl<T: Real> WithSimd for Step<'_, T> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let Step { chunk, centres, labels, sums } = self;
        let mut changed = 0;
        let (mut tile, mut next) = (chunk.room(), chunk.room());
        chunk.tile(0, &mut tile);
        for (number, labels) in labels.chunks_mut(TILE).enumerate() {
            let ahead = chunk.ahead(number + 1, &mut next);
            let nearest = nearest_in_tile(simd, (&tile, chunk.largest(number)), centres, ahead);
            for (row, (label, nearest)) in labels.iter_mut().zip(nearest).enumerate() {
                if *label != nearest {
                    changed += 1;
                    if *label != NO_LABEL {
                        sums.count(&tile, row, *label, -1.0);
                    }
                    sums.count(&tile, row, nearest, 1.0);
                    *label = nearest;
                }
            }
            std::mem::swap(&mut tile, &mut next);
        }
        changed
    }
}

/// The label of the nearest centre and the squared distance to it for every row of a chunk.
pub(in crate::segment) struct Nearest<'a, T> {
    pub(in crate::segment) chunk: Chunk<'a, T>,
    pub(in crate::segment) centres: &'a Centres<T>,
    pub(in crate::segment) labels: &'a mut [u32],
    pub(in crate::segment) distances: &'a mut [f64],
}

impl<T: Real> WithSimd for Nearest<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Nearest { chunk, centres, labels, distances } = self;
        let width = centres.width;
        let (mut tile, mut next) = (chunk.room(), chunk.room());
        chunk.tile(0, &mut tile);
        for (number, (labels, distances)) in
            labels.chunks_mut(TILE).zip(distances.chunks_mut(TILE)).enumerate()
        {
            let ahead = chunk.ahead(number + 1, &mut next);
            let nearest = nearest_in_tile(simd, (&tile, chunk.largest(number)), centres, ahead);
            labels.iter_mut().zip(nearest).for_each(|(label, nearest)| *label = nearest);
            for (row, (label, distance)) in labels.iter().zip(distances).enumerate() {
                let centre = &centres.values[*label as usize * width..][..width];
                let squared = tile
                    .chunks_exact(TILE)
                    .zip(centre)
                    .fold(T::default(), |sum, (column, &value)| column[row].add_square_from(value, sum));
                *distance = squared.wide();
            }
            std::mem::swap(&mut tile, &mut next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::matrix::Matrix;
    use crate::segment::points::Rows;
    use crate::segment::random::{Draws, Purpose};
    use crate::segment::vectors::Kernel;
    use rayon::prelude::*;

    /// The label and the squared distance of every row, from the distances one by one.
    fn by_hand<T: Real>(matrix: &Matrix, centres: &[f64]) -> Vec<(u32, f64)> {
        let nearest = |row: usize| {
            let row: Vec<T> = matrix.row(row).into_iter().map(T::of).collect();
            let mut best = (0, T::FAR);
            for (label, centre) in centres.chunks_exact(row.len()).enumerate() {
                let parts = row.iter().zip(centre);
                let squared = parts.fold(T::default(), |sum, (x, c)| x.add_square_from(T::of(*c), sum));
                if squared < best.1 {
                    best = (label as u32, squared);
                }
            }
            (best.0, best.1.wide())
        };
        (0..matrix.rows()).map(nearest).collect()
    }

    fn same_as_by_hand<T: Real>(matrix: &Matrix, centres: &[f64], case: &str) {
        let expected = by_hand::<T>(matrix, centres);
        for kernel in [Kernel::Baseline, Kernel::Avx2, Kernel::Avx512] {
            let Some(vectors) = kernel.vectors() else { continue };
            let rows = Rows::<T>::new(matrix, vec![0.0; matrix.width()], vectors);
            let centres = &Centres::new(centres, matrix.width());
            let found = rows.chunks().flat_map_iter(|chunk| {
                let count = chunk.len();
                let (mut labels, mut distances) = (vec![0; count], vec![0.0; count]);
                vectors.run(Nearest { chunk, centres, labels: &mut labels, distances: &mut distances });
                labels.into_iter().zip(distances)
            });
            let found: Vec<(u32, f64)> = found.collect();
            let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            assert_eq!(differs.map(|row| (row, found[row], expected[row])), None, "{case}, {kernel:?}");
            assert_eq!(found.len(), expected.len());
        }
    }

    /// Rows and centres made of `of` a draw each; every third centre is the one before it again.
    fn check(rows: usize, width: usize, clusters: usize, of: impl Fn(f64) -> f64) {
        let draws = Draws::new(3, (rows * width) as u64, Purpose::Map);
        let drawn = |number: usize| of(draws.unit(number as u64));
        let column = |feature: usize| (0..rows).map(|row| drawn(row * width + feature)).collect::<Vec<f64>>();
        let matrix = Matrix::from_columns((0..width).map(column).collect()).unwrap();
        let value = |number: usize| {
            let (centre, feature) = (number / width, number % width);
            drawn(1_000_000 + (centre - usize::from(centre % 3 == 2)) * width + feature)
        };
        let centres: Vec<f64> = (0..clusters * width).map(value).collect();
        let case = format!("{rows} x {width}, k {clusters}");
        same_as_by_hand::<f64>(&matrix, &centres, &format!("{case}, f64"));
        if matrix.columns().iter().flatten().all(|value| (*value as f32).is_finite()) {
            same_as_by_hand::<f32>(&matrix, &centres, &format!("{case}, f32"));
        }
    }

    #[test]
    fn labels_are_those_of_the_distances_whatever_the_rows_and_the_kernel() {
        for (rows, width, clusters) in [(1, 1, 1), (63, 1, 2), (64, 3, 3), (1_000, 8, 8), (9_000, 5, 13)] {
            check(rows, width, clusters, |unit| unit - 0.5);
            // Whole numbers: many rows are exactly as far from one centre as from another.
            check(rows, width, clusters, |unit| (unit * 4.0).floor());
            // Far from the origin what is compared is lost in rounding, and distances are not.
            check(rows, width, clusters, |unit| 1e6 + unit);
            check(rows, width, clusters, |unit| (unit - 0.5) * 1e-12);
            check(rows, width, clusters, |unit| (unit - 0.5) * 1e-21);
            // Squares overflow: in `f32`, then in both.
            check(rows, width, clusters, |unit| (unit - 0.5) * 1e25);
            check(rows, width, clusters, |unit| (unit - 0.5) * 1e200);
        }
    }
}
