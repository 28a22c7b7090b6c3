//! Kernels that find the nearest centre of every row.
//!
//! Centres are compared by |c|²/2 - x·c, one fused multiply-add for each feature instead of a subtraction and one:
//! it orders them as distances do. Where two centres are so near to equal that rounding could decide, the distances
//! of the tile are measured, so that labels are always those of the distances. Rows in `f64` are compared in `f32`
//! first, at twice the lanes: that decides nearly every tile, unless a row or a centre lies far out.

use pulp::{Simd, WithSimd};

use super::distances::distances_in_tile;
use super::{Chunk, GROUP, Real, TILE};

/// Centres, ready to be compared with rows in the precision `T`.
pub(in crate::segment) struct Centres<T> {
    own: Comparison<T>,
    /// For rows that `f32` does not tell all about.
    narrow: Option<Comparison<f32>>,
}

impl<T: Real> Centres<T> {
    /// `centres` is k × `width`.
    pub(in crate::segment) fn new(centres: &[f64], width: usize) -> Self {
        let narrow = T::of_narrow(&[]).is_none().then(|| Comparison::new(centres, width));
        Self { own: Comparison::new(centres, width), narrow }
    }
}

/// What a comparison by |c|²/2 - x·c needs of the centres.
struct Comparison<T> {
    width: usize,
    /// k × width.
    values: Vec<T>,
    /// Half of each one's square.
    halves: Vec<T>,
    /// Two comparisons that differ by more than `share` × |x|² + `least` are in the order of the distances.
    share: f64,
    least: f64,
    /// Rows with a smaller square than this are compared without overflow.
    room: f64,
}

impl<T: Real> Comparison<T> {
    fn new(centres: &[f64], width: usize) -> Self {
        let values: Vec<T> = centres.iter().map(|&value| T::of(value)).collect();
        let square = |centre: &[T]| centre.iter().map(|value| value.wide() * value.wide()).sum::<f64>();
        let squares: Vec<f64> = values.chunks_exact(width.max(1)).map(square).collect();
        // With u half the spacing at 1, each of two comparisons is wrong by at most width u (|x| + |c|)² / 2 for its
        // sums and width u |c|² / 2 for its half, and by 2 u (|x| + |c|)² / 2 if x and c were rounded before; half a
        // distance by (width + 2) u (|x| + |c|)² / 2; and (|x| + |c|)² is at most 2 |x|² + 2 |c|².
        let share = 3.0 * (width + 6) as f64 * T::EPSILON.wide();
        let largest = squares.iter().fold(0.0_f64, |largest, square| largest.max(*square));
        Self {
            width,
            halves: squares.iter().map(|square| T::of(square / 2.0)).collect(),
            values,
            share,
            // What is added up on the way is at most |x|² + |c|².
            room: T::LARGEST.wide() / 2.0 - largest,
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
    centres: &Comparison<T>,
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

/// For each row of a tile of a chunk the label of the nearest centre, ties to the lower one.
#[inline(always)]
pub(super) fn nearest_in_tile<T: Real, S: Simd>(
    simd: S,
    chunk: &Chunk<'_, T>,
    number: usize,
    centres: &Centres<T>,
    room: &mut [T],
) -> [u32; TILE] {
    let largest = chunk.largest(number);
    if let (Some(centres), Some(tile)) = (&centres.narrow, chunk.narrow(number))
        && let Some(labels) = nearest_by_comparison(simd, tile, largest, centres)
    {
        return labels;
    }
    let tile = chunk.tile(number, room);
    match nearest_by_comparison(simd, tile, largest, &centres.own) {
        Some(labels) => labels,
        None => nearest_by_distance(simd, tile, &centres.own),
    }
}

/// Centres whose numbers [`Real::whole`] reads back.
const COUNTED: usize = 1 << 23;

/// The nearest centres of a tile's rows, none of whose squares is above `largest`, unless rounding could decide.
#[inline(always)]
fn nearest_by_comparison<T: Real, S: Simd>(
    simd: S,
    tile: &[T],
    largest: f64,
    centres: &Comparison<T>,
) -> Option<[u32; TILE]> {
    let columns = T::as_vectors::<S>(tile);
    let mut labels = [T::default(); TILE];
    let found = T::as_vectors_mut::<S>(&mut labels);
    let (stride, clusters) = (found.len(), centres.halves.len());
    let (zero, far) = (T::splat(simd, T::default()), T::splat(simd, T::FAR));
    // As many centres share the loads of the rows as there are registers for.
    let together = if S::REGISTER_COUNT >= 32 { 4 } else { 2 };
    let mut margin = far;
    for first in (0..stride).step_by(GROUP) {
        let mut best = [Best { value: far, label: zero, second: far }; GROUP];
        let mut number = 0;
        while together == 4 && number + 4 <= clusters {
            meet_centres::<T, S, 4>(simd, columns, (stride, first), centres, number, &mut best);
            number += 4;
        }
        while number + 2 <= clusters {
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
    let doubt = centres.share * largest + centres.least;
    let certain = largest < centres.room && clusters <= COUNTED && T::least(simd, margin) > T::of(doubt);
    (certain || clusters == 1).then(|| labels.map(T::whole))
}

/// The nearest centres of a tile's rows by the distances themselves.
#[inline(never)]
fn nearest_by_distance<T: Real, S: Simd>(simd: S, tile: &[T], centres: &Comparison<T>) -> [u32; TILE] {
    let (mut squared, mut closest) = ([T::default(); TILE], [T::FAR; TILE]);
    let mut labels = [0; TILE];
    for (number, centre) in centres.values.chunks_exact(centres.width).enumerate() {
        simd.vectorize(Measure { tile, point: centre, out: &mut squared });
        for ((squared, closest), label) in squared.iter().zip(&mut closest).zip(&mut labels) {
            if squared < closest {
                (*closest, *label) = (*squared, number as u32);
            }
        }
    }
    labels
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
        let width = chunk.width();
        let mut room = chunk.room();
        for (number, (labels, distances)) in
            labels.chunks_mut(TILE).zip(distances.chunks_mut(TILE)).enumerate()
        {
            let nearest = nearest_in_tile(simd, &chunk, number, centres, &mut room);
            labels.iter_mut().zip(nearest).for_each(|(label, nearest)| *label = nearest);
            let tile = chunk.tile(number, &mut room);
            for (row, (label, distance)) in labels.iter().zip(distances).enumerate() {
                let centre = &centres.own.values[*label as usize * width..][..width];
                let squared = tile
                    .chunks_exact(TILE)
                    .zip(centre)
                    .fold(T::default(), |sum, (column, &value)| column[row].add_square_from(value, sum));
                *distance = squared.wide();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::matrix::Matrix;
    use crate::segment::points::{CHUNK, Rows};
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
            let rows = Rows::<T>::kept(matrix, vec![0.0; matrix.width()], vectors);
            let centres = &Centres::new(centres, matrix.width());
            let (mut labels, mut distances) = (vec![0; matrix.rows()], vec![0.0; matrix.rows()]);
            let parts = labels.par_chunks_mut(CHUNK).zip(distances.par_chunks_mut(CHUNK));
            rows.chunks().zip(parts).for_each(|(chunk, (labels, distances))| {
                vectors.run(Nearest { chunk, centres, labels, distances });
            });
            let found: Vec<(u32, f64)> = labels.into_iter().zip(distances).collect();
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

    #[test]
    fn one_row_of_a_tile_that_f32_would_mistake_is_labelled_as_in_f64() {
        let width = 16;
        let draws = Draws::new(5, 1, Purpose::Map);
        let centres: Vec<f64> = (0..2 * width as u64).map(|number| draws.unit(number) - 0.5).collect();
        let (left, right) = centres.split_at(width);
        let apart: Vec<f64> = left.iter().zip(right).map(|(left, right)| right - left).collect();
        let dot = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
        // One row of a tile is just off the plane midway between both centres, by less and less.
        let row = |row: usize| -> Vec<f64> {
            if row % TILE != 7 {
                return [left, right][row % 2].to_vec();
            }
            let unit = |number: usize| draws.unit((1_000 + row * (width + 1) + number) as u64) - 0.5;
            let aside: Vec<f64> = (0..width).map(unit).collect();
            let off = 0.5 + unit(width) * 0.1_f64.powi(4 + (row / TILE % 4) as i32);
            let along = off - dot(&aside, &apart) / dot(&apart, &apart);
            (0..width).map(|place| left[place] + aside[place] + along * apart[place]).collect()
        };
        let rows: Vec<Vec<f64>> = (0..1_000 * TILE).map(row).collect();
        let column = |feature| rows.iter().map(|row| row[feature]).collect();
        let matrix = Matrix::from_columns((0..width).map(column).collect()).unwrap();
        same_as_by_hand::<f64>(&matrix, &centres, "f64");
        same_as_by_hand::<f32>(&matrix, &centres, "f32");
    }

    #[test]
    fn labels_are_those_of_the_distances_for_rows_of_any_size() {
        for seed in 0..150 {
            let draws = Draws::new(seed, 2, Purpose::Map);
            let pick = |number, of: &[usize]| of[(draws.unit(number) * of.len() as f64) as usize];
            let (rows, width) = (pick(0, &[1, 64, 65, 500]), pick(1, &[1, 2, 3, 7, 16, 33]));
            let clusters = pick(2, &[1, 2, 3, 5, 13, 64]);
            // From single digits to the ends of `f32` and beyond, at the origin or far from it, on grids or not.
            let scale = 10_f64.powf((draws.unit(3) - 0.5) * pick(4, &[2, 10, 44, 90]) as f64);
            let (offset, steps) = (pick(5, &[0, 1, 100_000]) as f64, pick(6, &[4, 64, 1 << 40]) as f64);
            let value = |number: usize| {
                let unit = draws.unit(1_000 + number as u64) - 0.5;
                ((unit * steps).round() / steps + offset) * scale
            };
            let column = |feature: usize| (0..rows).map(|row| value(row * width + feature)).collect();
            let matrix = Matrix::from_columns((0..width).map(column).collect()).unwrap();
            let centres: Vec<f64> =
                (0..clusters * width).map(|number| value(rows * width + number)).collect();
            let case = format!("seed {seed}: {rows} x {width}, k {clusters}, {scale:e}, {offset}, {steps}");
            same_as_by_hand::<f64>(&matrix, &centres, &case);
            if matrix.columns().iter().flatten().chain(&centres).all(|value| (*value as f32).is_finite()) {
                same_as_by_hand::<f32>(&matrix, &centres, &case);
            }
        }
    }
}
