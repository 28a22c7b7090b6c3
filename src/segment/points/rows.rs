//! The rows of a matrix, moved so that every column's mean is 0, as tiles.

use std::marker::PhantomData;
use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{CHUNK, Real, TILE};
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// A matrix less an offset for each column.
pub(in crate::segment) struct Rows<'a, T> {
    matrix: &'a Matrix,
    offsets: Vec<f64>,
    /// All tiles in `f32`, if they are kept; what is not is made when it is needed.
    narrow: Option<Arc<Vec<f32>>>,
    /// For each tile the largest squared length of a row.
    largest: Arc<[f64]>,
    /// Sum of the squared lengths of all rows.
    pub(in crate::segment) squares: f64,
    pub(in crate::segment) vectors: Vectors,
    precision: PhantomData<T>,
}

impl<'a, T: Real> Rows<'a, T> {
    /// Rows to be looked at once.
    pub(in crate::segment) fn once(matrix: &'a Matrix, offsets: Vec<f64>, vectors: Vectors) -> Self {
        Self::laid_out(matrix, offsets, vectors, false)
    }

    /// Rows to be looked at again and again.
    pub(in crate::segment) fn kept(matrix: &'a Matrix, offsets: Vec<f64>, vectors: Vectors) -> Self {
        Self::laid_out(matrix, offsets, vectors, true)
    }

    fn laid_out(matrix: &'a Matrix, offsets: Vec<f64>, vectors: Vectors, keep: bool) -> Self {
        let precision = PhantomData;
        let mut rows =
            Self { matrix, offsets, narrow: None, largest: Arc::default(), squares: 0.0, vectors, precision };
        let (tiles, size) = (matrix.rows().div_ceil(TILE), TILE * matrix.width());
        let mut largest = vec![0.0; tiles];
        let parts = rows.chunks().zip(largest.par_chunks_mut(CHUNK / TILE));
        let sums: Vec<f64> = if keep {
            let mut narrow = vec![0.0; tiles * size];
            let parts = parts.zip(narrow.par_chunks_mut((CHUNK / TILE * size).max(1)));
            let lay_out = |((chunk, largest), tiles)| vectors.run(LayOut { chunk, largest, tiles });
            let sums = parts.map(lay_out).collect();
            rows.narrow = Some(Arc::new(narrow));
            sums
        } else {
            parts.map(|(chunk, largest)| vectors.run(LayOut { chunk, largest, tiles: &mut [] })).collect()
        };
        rows.squares = sums.iter().sum();
        rows.largest = largest.into();
        rows
    }

    /// The same rows in `f64`.
    pub(in crate::segment) fn wide(&self) -> Rows<'a, f64> {
        Rows {
            matrix: self.matrix,
            offsets: self.offsets.clone(),
            narrow: self.narrow.clone(),
            largest: self.largest.clone(),
            squares: self.squares,
            vectors: self.vectors,
            precision: PhantomData,
        }
    }

    /// Number of rows.
    pub(in crate::segment) fn len(&self) -> usize {
        self.matrix.rows()
    }

    /// Number of columns.
    pub(in crate::segment) fn width(&self) -> usize {
        self.matrix.width()
    }

    pub(in crate::segment) fn matrix(&self) -> &'a Matrix {
        self.matrix
    }

    pub(in crate::segment) fn offsets(&self) -> &[f64] {
        &self.offsets
    }

    pub(in crate::segment) fn row(&self, row: usize) -> Vec<T> {
        let parts = self.matrix.columns().iter().zip(&self.offsets);
        parts.map(|(column, offset)| T::of(column[row] - offset)).collect()
    }

    /// All rows, by chunks of 8,192, in order.
    pub(in crate::segment) fn chunks(&self) -> impl IndexedParallelIterator<Item = Chunk<'_, T>> {
        (0..self.len().div_ceil(CHUNK)).into_par_iter().map(|number| Chunk { rows: self, number })
    }
}

/// Some of the tiles.
#[derive(Clone, Copy)]
pub(in crate::segment) struct Chunk<'a, T> {
    rows: &'a Rows<'a, T>,
    number: usize,
}

impl<'a, T: Real> Chunk<'a, T> {
    pub(super) fn width(&self) -> usize {
        self.rows.width()
    }

    /// Room for a tile.
    pub(super) fn room(&self) -> Vec<T> {
        vec![T::default(); TILE * self.width()]
    }

    /// The largest squared length of a row of the tile.
    pub(super) fn largest(&self, tile: usize) -> f64 {
        self.rows.largest[self.number * CHUNK / TILE + tile]
    }

    /// A tile in `f32`, if it is kept.
    #[inline(always)]
    pub(super) fn narrow(&self, tile: usize) -> Option<&'a [f32]> {
        let size = TILE * self.width();
        let first = (self.number * CHUNK / TILE + tile) * size;
        self.rows.narrow.as_ref().and_then(|kept| kept.get(first..first + size))
    }

    /// A tile, which may need `room`; what is beyond the last row is 0.
    #[inline(always)]
    pub(super) fn tile<'b>(&'b self, tile: usize, room: &'b mut [T]) -> &'b [T] {
        match self.narrow(tile).and_then(T::of_narrow) {
            Some(kept) => kept,
            None => {
                for feature in 0..self.width() {
                    self.column(tile, feature).copy(&mut room[feature * TILE..][..TILE]);
                }
                room
            }
        }
    }

    /// A column of a tile.
    #[inline(always)]
    pub(super) fn column(&self, tile: usize, feature: usize) -> Column<'a> {
        let column = &self.rows.matrix.columns()[feature][self.number * CHUNK + tile * TILE..];
        Column { values: &column[..TILE.min(column.len())], offset: self.rows.offsets[feature] }
    }
}

/// A column of a tile: up to 64 values of the matrix, less their offset.
pub(super) struct Column<'a> {
    values: &'a [f64],
    offset: f64,
}

impl Column<'_> {
    /// A row's value in the precision `T`.
    #[inline(always)]
    pub(super) fn value<T: Real>(&self, row: usize) -> f64 {
        T::of(self.values[row] - self.offset).wide()
    }

    /// Puts all values into `slots`, and 0 where there are none.
    #[inline(always)]
    fn copy<T: Real>(&self, slots: &mut [T]) {
        if let Some(own) = self.values.first_chunk::<TILE>() {
            for place in 0..TILE {
                slots[place] = T::of(own[place] - self.offset);
            }
        } else {
            slots.fill(T::default());
            for (place, value) in self.values.iter().enumerate() {
                slots[place] = T::of(value - self.offset);
            }
        }
    }
}

/// The largest squared length of a row in each tile of a chunk, and the sum of all, in `f64`; the tiles in `f32` into
/// `tiles`, unless it is empty.
struct LayOut<'a, T> {
    chunk: Chunk<'a, T>,
    largest: &'a mut [f64],
    tiles: &'a mut [f32],
}

impl<T: Real> WithSimd for LayOut<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let LayOut { chunk, largest, tiles } = self;
        let width = chunk.width();
        let mut sums = [0.0; TILE];
        for (number, largest) in largest.iter_mut().enumerate() {
            let mut squares = [0.0; TILE];
            for feature in 0..width {
                let column = chunk.column(number, feature);
                for (place, value) in column.values.iter().enumerate() {
                    let value = value - column.offset;
                    squares[place] = value.mul_add(value, squares[place]);
                }
                if !tiles.is_empty() {
                    column.copy(&mut tiles[(number * width + feature) * TILE..][..TILE]);
                }
            }
            let (mut most, mut all) = (0.0, 0.0);
            for place in 0..TILE {
                sums[place] += squares[place];
                all += squares[place];
                most = if squares[place] > most { squares[place] } else { most };
            }
            // Rounded to `f32` a row may be a little longer; what is no number is not lost in a comparison.
            *largest = if all.is_finite() { most * 1.000_001 } else { f64::INFINITY };
        }
        sums.iter().sum()
    }
}
