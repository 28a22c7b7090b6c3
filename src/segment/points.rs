//! Points laid out for the kernels: tiles of 256 rows, each feature contiguous inside its tile.
//!
//! Owns the layout and the three kernels over it (nearest centre, distances to one point, sums per label).
//! Lanes are rows, so every row's distance is the same chain of fused multiply-adds at any vector width.

use pulp::{Simd, WithSimd};

/// Rows per tile: with eight features a tile is 16 KiB and stays in L1.
pub(super) const TILE: usize = 256;
/// Tiles per chunk; a chunk of 8,192 rows is the unit of work and of ordered reduction.
pub(super) const CHUNK_TILES: usize = 32;
/// Rows per chunk.
pub(super) const CHUNK: usize = TILE * CHUNK_TILES;

/// n × d values in tiles; the last tile is filled up with zeros.
#[derive(Debug, Clone)]
pub(super) struct Points {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f64>,
}

impl Points {
    /// Lays out `rows` rows of `width` values, asked for by (row, feature).
    pub(super) fn from_fn(rows: usize, width: usize, value: impl Fn(usize, usize) -> f64) -> Self {
        let mut values = vec![0.0; rows.div_ceil(TILE) * TILE * width];
        for (tile_number, tile) in values.chunks_exact_mut(TILE * width).enumerate() {
            let first = tile_number * TILE;
            let filled = TILE.min(rows - first);
            for (feature, column) in tile.chunks_exact_mut(TILE).enumerate() {
                for (offset, slot) in column[..filled].iter_mut().enumerate() {
                    *slot = value(first + offset, feature);
                }
            }
        }
        Self { rows, width, values }
    }

    pub(super) fn at(&self, row: usize, feature: usize) -> f64 {
        self.values[(row / TILE * self.width + feature) * TILE + row % TILE]
    }

    pub(super) fn row(&self, row: usize) -> Vec<f64> {
        (0..self.width).map(|feature| self.at(row, feature)).collect()
    }

    /// The tiles of each chunk, in order.
    pub(super) fn chunks(&self) -> impl rayon::iter::IndexedParallelIterator<Item = &[f64]> {
        use rayon::slice::ParallelSlice;
        self.values.par_chunks(CHUNK * self.width)
    }

    /// The rows at `rows`, in the order given.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        Self::from_fn(rows.len(), self.width, |row, feature| self.at(rows[row], feature))
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

/// Vectors of rows that one pass of the nearest-centre kernel carries in registers.
const GROUP: usize = 4;

/// For each of a tile's 256 rows the nearest centre (ties to the lower index) and its squared distance.
pub(super) struct Nearest<'a> {
    /// width × 256.
    pub(super) tile: &'a [f64],
    /// k × width, row by row.
    pub(super) centres: &'a [f64],
    pub(super) width: usize,
    /// The label as a number.
    pub(super) labels: &'a mut [f64; TILE],
    pub(super) distances: &'a mut [f64; TILE],
}

impl WithSimd for Nearest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // A width known to the compiler unrolls the inner loop.
        match self.width {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            3 => self.run::<S, 3>(simd),
            4 => self.run::<S, 4>(simd),
            5 => self.run::<S, 5>(simd),
            6 => self.run::<S, 6>(simd),
            7 => self.run::<S, 7>(simd),
            8 => self.run::<S, 8>(simd),
            _ => self.run::<S, 0>(simd),
        }
    }
}

impl Nearest<'_> {
    #[inline(always)]
    fn run<S: Simd, const WIDTH: usize>(self, simd: S) {
        let width = if WIDTH == 0 { self.width } else { WIDTH };
        let (tile, _) = S::as_simd_f64s(self.tile);
        let (labels, _) = S::as_mut_simd_f64s(self.labels);
        let (distances, _) = S::as_mut_simd_f64s(self.distances);
        let stride = labels.len();
        for first in (0..stride).step_by(GROUP) {
            let mut best = [simd.splat_f64s(f64::INFINITY); GROUP];
            let mut label = [simd.splat_f64s(0.0); GROUP];
            for (number, centre) in self.centres.chunks_exact(width).enumerate() {
                let mut sum = [simd.splat_f64s(0.0); GROUP];
                for (feature, &value) in centre.iter().enumerate() {
                    let value = simd.splat_f64s(value);
                    let column = &tile[feature * stride + first..][..GROUP];
                    for (sum, &point) in sum.iter_mut().zip(column) {
                        let difference = simd.sub_f64s(point, value);
                        *sum = simd.mul_add_e_f64s(difference, difference, *sum);
                    }
                }
                let number = simd.splat_f64s(number as f64);
                for lane in 0..GROUP {
                    let nearer = simd.less_than_f64s(sum[lane], best[lane]);
                    best[lane] = simd.select_f64s(nearer, sum[lane], best[lane]);
                    label[lane] = simd.select_f64s(nearer, number, label[lane]);
                }
            }
            labels[first..first + GROUP].copy_from_slice(&label);
            distances[first..first + GROUP].copy_from_slice(&best);
        }
    }
}

/// The squared distances of a tile's 256 rows to one point.
pub(super) struct Distances<'a> {
    pub(super) tile: &'a [f64],
    pub(super) point: &'a [f64],
    pub(super) out: &'a mut [f64; TILE],
}

impl WithSimd for Distances<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (tile, _) = S::as_simd_f64s(self.tile);
        let (out, _) = S::as_mut_simd_f64s(self.out);
        let stride = out.len();
        for first in (0..stride).step_by(GROUP) {
            let mut sum = [simd.splat_f64s(0.0); GROUP];
            for (feature, &value) in self.point.iter().enumerate() {
                let value = simd.splat_f64s(value);
                let column = &tile[feature * stride + first..][..GROUP];
                for (sum, &point) in sum.iter_mut().zip(column) {
                    let difference = simd.sub_f64s(point, value);
                    *sum = simd.mul_add_e_f64s(difference, difference, *sum);
                }
            }
            out[first..first + GROUP].copy_from_slice(&sum);
        }
    }
}

/// Adds the first `filled` rows of a tile to the sum of their label.
#[inline(always)]
pub(super) fn add_to_sums(tile: &[f64], width: usize, labels: &[u32], sums: &mut [f64]) {
    for (row, &label) in labels.iter().enumerate() {
        let sum = &mut sums[label as usize * width..][..width];
        for (sum, column) in sum.iter_mut().zip(tile.chunks_exact(TILE)) {
            *sum += column[row];
        }
    }
}
