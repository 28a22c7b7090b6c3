//! The rows of a matrix, moved so that every column's mean is 0, as tiles.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{CHUNK, Real, TILE};
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// A matrix less an offset for each column. Tiles are kept if they are worth it, or else made when they are needed.
pub(in crate::segment) struct Rows<'a, T> {
    matrix: &'a Matrix,
    offsets: Vec<f64>,
    kept: Option<Vec<T>>,
    /// For each tile the largest squared length of a row.
    largest: Vec<f64>,
    /// Sum of the squared lengths of all rows.
    pub(in crate::segment) squares: f64,
    pub(in crate::segment) vectors: Vectors,
}

impl<'a, T: Real> Rows<'a, T> {
    pub(in crate::segment) fn new(matrix: &'a Matrix, offsets: Vec<f64>, vectors: Vectors) -> Self {
        let mut rows = Self { matrix, offsets, kept: None, largest: Vec::new(), squares: 0.0, vectors };
        let tiles = matrix.rows().div_ceil(TILE);
        let mut largest = vec![0.0; tiles];
        let measured = rows.chunks().zip(largest.par_chunks_mut(CHUNK / TILE));
        let sums: Vec<f64> =
            measured.map(|(chunk, largest)| vectors.run(Measure { chunk, largest })).collect();
        rows.squares = sums.iter().sum();
        rows.largest = largest;
        if T::KEPT {
            let size = TILE * matrix.width();
            let mut kept = vec![T::default(); tiles * size];
            let parts = kept.par_chunks_mut((size * CHUNK / TILE).max(1)).zip(rows.chunks());
            parts.for_each(|(tiles, chunk)| vectors.run(Keep { chunk, tiles }));
            rows.kept = Some(kept);
        }
        rows
    }

    /// The same rows in `f64`.
    pub(in crate::segment) fn wide(&self) -> Rows<'a, f64> {
        let Self { matrix, squares, vectors, .. } = *self;
        Rows {
            matrix,
            offsets: self.offsets.clone(),
            kept: None,
            largest: self.largest.clone(),
            squares,
            vectors,
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

impl<T: Real> Chunk<'_, T> {
    pub(super) fn width(&self) -> usize {
        self.rows.width()
    }

    pub(super) fn len(&self) -> usize {
        CHUNK.min(self.rows.len() - self.number * CHUNK)
    }

    fn tiles(&self) -> usize {
        self.len().div_ceil(TILE)
    }

    /// Room for a tile.
    pub(super) fn room(&self) -> Vec<T> {
        vec![T::default(); TILE * self.width()]
    }

    /// The largest squared length of a row of the tile.
    pub(super) fn largest(&self, tile: usize) -> f64 {
        self.rows.largest[self.number * CHUNK / TILE + tile]
    }

    /// Puts a tile into `room`; what is beyond the last row is 0.
    #[inline(always)]
    pub(super) fn tile<'b>(&self, tile: usize, room: &'b mut [T]) -> &'b [T] {
        self.ahead(tile, room).rest();
        room
    }

    /// A tile that is put into `room` bit by bit; nothing is when the chunk has no such tile.
    #[inline(always)]
    pub(super) fn ahead<'b>(&'b self, tile: usize, room: &'b mut [T]) -> Ahead<'b, T> {
        let feature = if tile < self.tiles() { 0 } else { self.width() };
        Ahead { chunk: self, tile, feature, room }
    }

    /// Puts one column of a tile into `slots`.
    #[inline(always)]
    fn column(&self, tile: usize, feature: usize, slots: &mut [T]) {
        if let Some(kept) = &self.rows.kept {
            let place = (self.number * CHUNK / TILE + tile) * self.width() + feature;
            slots.copy_from_slice(&kept[place * TILE..][..TILE]);
            return;
        }
        let offset = self.rows.offsets[feature];
        let own = &self.rows.matrix.columns()[feature][self.number * CHUNK + tile * TILE..];
        if let Some(own) = own.first_chunk::<TILE>() {
            for place in 0..TILE {
                slots[place] = T::of(own[place] - offset);
            }
        } else {
            slots.fill(T::default());
            for (place, value) in own.iter().enumerate() {
                slots[place] = T::of(value - offset);
            }
        }
    }
}

/// A tile on its way: a column now and then, between the work on the one before, so that memory is never waited for.
pub(super) struct Ahead<'a, T> {
    chunk: &'a Chunk<'a, T>,
    tile: usize,
    /// The next column.
    feature: usize,
    room: &'a mut [T],
}

impl<T: Real> Ahead<'_, T> {
    /// Puts the next columns in, `count` of them at most.
    #[inline(always)]
    pub(super) fn some(&mut self, count: usize) {
        let last = self.chunk.width().min(self.feature + count);
        for feature in self.feature..last {
            self.chunk.column(self.tile, feature, &mut self.room[feature * TILE..][..TILE]);
        }
        self.feature = last;
    }

    /// Puts all other columns in.
    #[inline(always)]
    pub(super) fn rest(&mut self) {
        self.some(self.chunk.width());
    }
}

/// Lays out all tiles of a chunk.
struct Keep<'a, T> {
    chunk: Chunk<'a, T>,
    tiles: &'a mut [T],
}

impl<T: Real> WithSimd for Keep<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let size = TILE * self.chunk.width();
        for number in 0..self.chunk.tiles() {
            self.chunk.tile(number, &mut self.tiles[number * size..][..size]);
        }
    }
}

/// The largest squared length of a row in each tile of a chunk, and the sum of all, in `f64`.
struct Measure<'a, T> {
    chunk: Chunk<'a, T>,
    largest: &'a mut [f64],
}

impl<T: Real> WithSimd for Measure<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let Measure { chunk, largest } = self;
        let mut sums = [0.0; TILE];
        for (number, largest) in largest.iter_mut().enumerate() {
            let first = chunk.number * CHUNK + number * TILE;
            let mut squares = [0.0; TILE];
            for (feature, column) in chunk.rows.matrix.columns().iter().enumerate() {
                let offset = chunk.rows.offsets[feature];
                let own = &column[first..];
                let filled = TILE.min(own.len());
                for place in 0..filled {
                    let value = own[place] - offset;
                    squares[place] = value.mul_add(value, squares[place]);
                }
            }
            let mut most = 0.0;
            for place in 0..TILE {
                sums[place] += squares[place];
                most = if squares[place] > most { squares[place] } else { most };
            }
            // Rounded to `f32` a row may be a little longer.
            *largest = most * 1.000_001;
        }
        sums.iter().sum()
    }
}
