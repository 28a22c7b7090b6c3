//! One step of Lloyd's iterations: rows get new labels, and only those that have another than before go from sum to
//! sum.

use pulp::{Simd, WithSimd};

use super::nearest::{Centres, nearest_in_tile};
use super::{Chunk, Real, TILE};

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

    /// Takes rows of a tile from the sum of one label to that of another.
    #[inline(always)]
    fn take<T: Real>(&mut self, chunk: &Chunk<'_, T>, number: usize, moves: &[Move]) {
        for &Move { from, to, .. } in moves {
            if from != NO_LABEL {
                self.counts[from as usize] -= 1;
            }
            self.counts[to as usize] += 1;
        }
        let kept = chunk.narrow(number).and_then(T::of_narrow);
        for feature in 0..chunk.width() {
            let column = chunk.column(number, feature);
            match kept {
                Some(tile) => {
                    let kept = &tile[feature * TILE..][..TILE];
                    self.take_column(chunk.width(), feature, moves, |row| kept[row].wide());
                }
                None => self.take_column(chunk.width(), feature, moves, |row| column.value::<T>(row)),
            }
        }
    }

    #[inline(always)]
    fn take_column(&mut self, width: usize, feature: usize, moves: &[Move], value: impl Fn(usize) -> f64) {
        for &Move { row, from, to } in moves {
            let value = value(row as usize);
            if from != NO_LABEL {
                self.sums[from as usize * width + feature] -= value;
            }
            self.sums[to as usize * width + feature] += value;
        }
    }

    /// The rows of a chunk by their labels.
    pub(in crate::segment) fn of<T: Real>(chunk: Chunk<'_, T>, labels: &[u32], clusters: usize) -> Self {
        let mut found = Self::none(clusters, chunk.width());
        for (number, labels) in labels.chunks(TILE).enumerate() {
            let mut moves = [Move::default(); TILE];
            for (row, (made, &to)) in moves.iter_mut().zip(labels).enumerate() {
                *made = Move { row: row as u32, from: NO_LABEL, to };
            }
            found.take(&chunk, number, &moves[..labels.len()]);
        }
        found
    }
}

/// A row of a tile that has another label than before.
#[derive(Clone, Copy, Default)]
struct Move {
    row: u32,
    from: u32,
    to: u32,
}

/// The label of a row that has none yet.
pub(in crate::segment) const NO_LABEL: u32 = u32::MAX;

/// Labels that are compared with those before at once.
const SOME: usize = 16;

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
        let mut room = chunk.room();
        for (number, labels) in labels.chunks_mut(TILE).enumerate() {
            let nearest = nearest_in_tile(simd, &chunk, number, centres, &mut room);
            let mut before = nearest;
            before[..labels.len()].copy_from_slice(labels);
            let mut moves = [Move::default(); TILE];
            let mut moved = 0;
            for first in (0..TILE).step_by(SOME) {
                // Most rows stay.
                if (first..first + SOME).fold(0, |all, row| all | (before[row] ^ nearest[row])) == 0 {
                    continue;
                }
                for row in first..first + SOME {
                    // Written whether it counts or not: no branch to guess wrong.
                    moves[moved] = Move { row: row as u32, from: before[row], to: nearest[row] };
                    moved += usize::from(before[row] != nearest[row]);
                }
            }
            labels.copy_from_slice(&nearest[..labels.len()]);
            sums.take(&chunk, number, &moves[..moved]);
            changed += moved;
        }
        changed
    }
}
