//! Rows in blocks, for all that measures pairs of rows.

use pulp::Simd;

/// Rows that lie together.
pub(super) const BLOCK: usize = 64;
/// Vectors measured at a time: their sums stay in registers, and enough are on the way to hide what each waits for.
pub(super) const AT_ONCE: usize = 4;

pub(super) type Block = [f64; BLOCK];

/// Rows in blocks, each column by column. Places beyond the last row are
/// infinitely far from all.
pub(super) struct Points {
    pub(super) width: usize,
    pub(super) blocks: Vec<Block>,
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
