//! Points as the kernels take them: tiles of 64 rows, each feature contiguous inside its tile.
//!
//! Owns the tiles and the kernels over them (nearest centre, distances to points, sums per label), in both
//! precisions. Lanes are rows, so every row's distance is the same chain of fused multiply-adds at any vector
//! width; sums are kept in `f64`. Tiles are kept in `f32` for either precision: they halve what a pass reads, and
//! decide nearly every label in `f64` as well.

mod distances;
mod nearest;
mod rows;
mod step;

use pulp::Simd;

pub(super) use distances::{Lower, Points, Potentials, SumOfDistances};
pub(super) use nearest::{Centres, Nearest};
pub(super) use rows::{Chunk, Rows};
pub(super) use step::{NO_LABEL, Step, Sums};

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
    /// The distance from 1 to the next number.
    const EPSILON: Self;
    /// The least number that has all its digits.
    const SMALLEST: Self;
    const LARGEST: Self;

    fn of(value: f64) -> Self;
    /// Numbers kept in `f32` as such, if they are all that there is to know.
    fn of_narrow(values: &[f32]) -> Option<&[Self]>;
    fn wide(self) -> f64;
    /// A whole number below 2²³ as such.
    fn whole(self) -> u32;
    /// sum + (self - other)², with one rounding after the product.
    fn add_square_from(self, other: Self, sum: Self) -> Self;
    fn as_vectors<S: Simd>(values: &[Self]) -> &[Self::Vector<S>];
    fn as_vectors_mut<S: Simd>(values: &mut [Self]) -> &mut [Self::Vector<S>];
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    fn lesser<S: Simd>(simd: S, left: Self::Vector<S>, right: Self::Vector<S>) -> Self::Vector<S>;
    fn greater<S: Simd>(simd: S, left: Self::Vector<S>, right: Self::Vector<S>) -> Self::Vector<S>;
    fn subtract<S: Simd>(simd: S, left: Self::Vector<S>, right: Self::Vector<S>) -> Self::Vector<S>;
    /// The least of a vector's numbers.
    fn least<S: Simd>(simd: S, values: Self::Vector<S>) -> Self;
    /// sum - left × right, with one rounding.
    fn less_product<S: Simd>(
        simd: S,
        left: Self::Vector<S>,
        right: Self::Vector<S>,
        sum: Self::Vector<S>,
    ) -> Self::Vector<S>;
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
     $select:ident, $min:ident, $max:ident, $least:ident, $less_product:ident, $magic:expr, $of_narrow:expr) => {
        impl Real for $name {
            type Vector<S: Simd> = S::$vector;
            const FAR: Self = $name::INFINITY;
            const EPSILON: Self = $name::EPSILON;
            const SMALLEST: Self = $name::MIN_POSITIVE;
            const LARGEST: Self = $name::MAX;

            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $name
            }

            #[inline(always)]
            fn of_narrow(values: &[f32]) -> Option<&[Self]> {
                $of_narrow(values)
            }

            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn whole(self) -> u32 {
                // Where numbers are spaced by 1 the bits count, and no range needs to be checked.
                ((self + $magic).to_bits() & 0x7f_ffff) as u32
            }

            #[inline(always)]
            fn add_square_from(self, other: Self, sum: Self) -> Self {
                let difference = self - other;
                difference.mul_add(difference, sum)
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
            fn lesser<S: Simd>(simd: S, left: S::$vector, right: S::$vector) -> S::$vector {
                simd.$min(left, right)
            }

            #[inline(always)]
            fn greater<S: Simd>(simd: S, left: S::$vector, right: S::$vector) -> S::$vector {
                simd.$max(left, right)
            }

            #[inline(always)]
            fn subtract<S: Simd>(simd: S, left: S::$vector, right: S::$vector) -> S::$vector {
                simd.$sub(left, right)
            }

            #[inline(always)]
            fn least<S: Simd>(simd: S, values: S::$vector) -> Self {
                simd.$least(values)
            }

            #[inline(always)]
            fn less_product<S: Simd>(
                simd: S,
                left: S::$vector,
                right: S::$vector,
                sum: S::$vector,
            ) -> S::$vector {
                simd.$less_product(left, right, sum)
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
    select_f32s,
    min_f32s,
    max_f32s,
    reduce_min_f32s,
    negate_mul_add_f32s,
    8_388_608.0,
    Some
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
    select_f64s,
    min_f64s,
    max_f64s,
    reduce_min_f64s,
    negate_mul_add_f64s,
    4_503_599_627_370_496.0,
    |_| None
);

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
