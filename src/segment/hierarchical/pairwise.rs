//! Complete and average linkage by nearest-neighbour chains over all distances (Murtagh 1983; Müllner 2011, arXiv
//! 1109.2378): O(n²) time, n² / 2 numbers.
//!
//! A cluster's distances are read and written one whole line at a time. In a plain triangle half of a line is one
//! number per memory page; here the triangle consists of squares of 8 × 8, so that eight lie together.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Tree;
use super::ward::numbered;
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// Rows and columns of a square: one cache line of numbers wide.
const SIDE: usize = 8;
const SQUARE: usize = SIDE * SIDE;
/// Numbers compared at a time.
const BLOCK: usize = 64;
/// Below this many lines the triangle is not made smaller any more.
const SMALL: usize = 256;

/// The distance of a merged cluster from another, given those of its two parts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Complete,
    Average,
}

/// Distances of all pairs: the squares on and below the diagonal, line of squares by line of squares. What is on the
/// diagonal, or beyond the last row, is infinite.
struct Triangle {
    /// Numbers per line: a multiple of [`SIDE`].
    length: usize,
    squares: Vec<f64>,
}

impl Triangle {
    fn of_points(points: &Matrix, vectors: Vectors) -> Self {
        let lines = points.rows().div_ceil(SIDE);
        let mut squares = vec![0.0; lines * (lines + 1) / 2 * SQUARE];
        let mut rest = squares.as_mut_slice();
        let mut parts = Vec::with_capacity(lines);
        for line in 0..lines {
            let (part, others) = rest.split_at_mut((line + 1) * SQUARE);
            parts.push((line, part));
            rest = others;
        }
        parts.into_par_iter().for_each(|(line, squares)| vectors.run(Measured { points, line, squares }));
        Self { length: lines * SIDE, squares }
    }

    fn square(line: usize, column: usize) -> usize {
        (line * (line + 1) / 2 + column) * SQUARE
    }

    /// The distances from the cluster at `place` to all others.
    fn read(&self, place: usize, out: &mut [f64]) {
        let (line, within) = (place / SIDE, place % SIDE);
        let (left, below) = out.split_at_mut((line + 1) * SIDE);
        let own = &self.squares[Self::square(line, 0)..][..(line + 1) * SQUARE];
        for (out, square) in left.chunks_exact_mut(SIDE).zip(own.chunks_exact(SQUARE)) {
            out.copy_from_slice(&square[within * SIDE..][..SIDE]);
        }
        for (number, out) in below.chunks_exact_mut(SIDE).enumerate() {
            let square = &self.squares[Self::square(line + 1 + number, line)..][..SQUARE];
            out.iter_mut().zip(square[within..].iter().step_by(SIDE)).for_each(|(out, value)| *out = *value);
        }
    }

    /// Puts other distances between the cluster at `place` and all others.
    fn write(&mut self, place: usize, values: &[f64]) {
        let (line, within) = (place / SIDE, place % SIDE);
        let (left, below) = values.split_at((line + 1) * SIDE);
        let own = &mut self.squares[Self::square(line, 0)..][..(line + 1) * SQUARE];
        for (square, values) in own.chunks_exact_mut(SQUARE).zip(left.chunks_exact(SIDE)) {
            square[within * SIDE..][..SIDE].copy_from_slice(values);
        }
        for (number, values) in
            std::iter::once(&left[line * SIDE..]).chain(below.chunks_exact(SIDE)).enumerate()
        {
            let square = &mut self.squares[Self::square(line + number, line)..][..SQUARE];
            square[within..].iter_mut().step_by(SIDE).zip(values).for_each(|(slot, value)| *slot = *value);
        }
    }

    /// The triangle of the places in `kept`, which rise.
    fn only(&self, kept: &[usize]) -> Self {
        let lines = kept.len().div_ceil(SIDE);
        let mut smaller =
            Self { length: lines * SIDE, squares: vec![f64::INFINITY; lines * (lines + 1) / 2 * SQUARE] };
        let mut old = vec![0.0; self.length];
        let mut new = vec![f64::INFINITY; smaller.length];
        for (place, &was) in kept.iter().enumerate() {
            self.read(was, &mut old);
            new.iter_mut().zip(kept).for_each(|(new, &kept)| *new = old[kept]);
            smaller.write(place, &new);
        }
        smaller
    }
}

/// Fills one line of squares with the distances of its rows to all rows up to them.
struct Measured<'a> {
    points: &'a Matrix,
    line: usize,
    squares: &'a mut [f64],
}

impl WithSimd for Measured<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Measured { points, line, squares } = self;
        let rows = points.rows();
        let eight = |column: &[f64], line: usize| {
            let first = line * SIDE;
            std::array::from_fn::<f64, SIDE, _>(|place| column[(first + place).min(rows - 1)])
        };
        for (other, square) in squares.chunks_exact_mut(SQUARE).enumerate() {
            for column in points.columns() {
                let (own, others) = (eight(column, line), eight(column, other));
                for (sums, own) in square.chunks_exact_mut(SIDE).zip(own) {
                    for (sum, other) in sums.iter_mut().zip(others) {
                        *sum += (own - other) * (own - other);
                    }
                }
            }
            square.iter_mut().for_each(|sum| *sum = sum.sqrt());
        }
        for (place, own) in squares.chunks_exact_mut(SIDE).enumerate() {
            let (other, within) = (place / SIDE, place % SIDE);
            let row = line * SIDE + within;
            for (offset, value) in own.iter_mut().enumerate() {
                let column = other * SIDE + offset;
                if row >= rows || column >= rows || row == column {
                    *value = f64::INFINITY;
                }
            }
        }
    }
}

/// The clusters that have not been merged yet, and where they stand in the triangle.
struct Active {
    distances: Triangle,
    /// Infinite where a place is no cluster's any more.
    gone: Vec<f64>,
    weights: Vec<f64>,
    /// Each one's lowest row, which stands for it until nodes are numbered.
    rows: Vec<usize>,
    count: usize,
}

impl Active {
    fn new(points: &Matrix, vectors: Vectors) -> Self {
        let distances = Triangle::of_points(points, vectors);
        let mut gone = vec![0.0; distances.length];
        gone[points.rows()..].fill(f64::INFINITY);
        let weights = vec![1.0; distances.length];
        Self { gone, weights, rows: (0..distances.length).collect(), distances, count: points.rows() }
    }

    /// The first cluster that is not `other`.
    fn first_but(&self, other: usize) -> usize {
        let first = (0..self.gone.len()).find(|&place| place != other && self.gone[place] == 0.0);
        first.expect("more than one cluster is left")
    }

    /// Leaves the places out that are no cluster's any more, once they are half of all. `chain` holds places.
    fn tighten(&mut self, chain: &mut [usize]) {
        if self.count * 2 > self.gone.len() || self.gone.len() <= SMALL {
            return;
        }
        let kept: Vec<usize> = (0..self.gone.len()).filter(|&place| self.gone[place] == 0.0).collect();
        self.distances = self.distances.only(&kept);
        let length = self.distances.length;
        for place in chain {
            *place = kept.binary_search(place).expect("what is in a chain has not been merged");
        }
        self.weights = kept.iter().map(|&place| self.weights[place]).collect();
        self.rows = kept.iter().map(|&place| self.rows[place]).collect();
        self.gone = vec![0.0; kept.len()];
        self.weights.resize(length, 1.0);
        self.rows.resize(length, 0);
        self.gone.resize(length, f64::INFINITY);
    }

    /// Puts the merged cluster in the place of `kept`; `gone` goes. `lines` are the distances from both.
    fn merge(&mut self, kept: usize, gone: usize, lines: (&mut [f64], &[f64]), rule: Rule) {
        let (of_kept, of_gone) = lines;
        let (left, right) = (self.weights[kept], self.weights[gone]);
        for (own, other) in of_kept.iter_mut().zip(of_gone) {
            *own = match rule {
                Rule::Complete => own.max(*other),
                Rule::Average => (left * *own + right * other) / (left + right),
            };
        }
        self.distances.write(kept, of_kept);
        self.weights[kept] = left + right;
        self.rows[kept] = self.rows[kept].min(self.rows[gone]);
        self.gone[gone] = f64::INFINITY;
        self.count -= 1;
    }
}

/// The least sum of two lists and the first place that has it, unless `best` is as little.
struct Least<'a> {
    line: &'a [f64],
    gone: &'a [f64],
    best: (f64, usize),
}

impl WithSimd for Least<'_> {
    type Output = (f64, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f64, usize) {
        let mut best = self.best;
        for (block, (line, gone)) in self.line.chunks(BLOCK).zip(self.gone.chunks(BLOCK)).enumerate() {
            let mut least = [f64::INFINITY; SIDE];
            for (line, gone) in line.chunks_exact(SIDE).zip(gone.chunks_exact(SIDE)) {
                for ((least, value), gone) in least.iter_mut().zip(line).zip(gone) {
                    let value = value + gone;
                    *least = if value < *least { value } else { *least };
                }
            }
            let least = least.into_iter().fold(f64::INFINITY, f64::min);
            if least < best.0 {
                let place = line.iter().zip(gone).position(|(value, gone)| value + gone == least);
                best = (least, block * BLOCK + place.expect("the least of a block is in the block"));
            }
        }
        best
    }
}

pub(super) fn tree(points: &Matrix, rule: Rule, vectors: Vectors) -> Tree {
    let rows = points.rows();
    let mut active = Active::new(points, vectors);
    let mut merges: Vec<(f64, usize, usize)> = Vec::with_capacity(rows - 1);
    let mut chain: Vec<usize> = Vec::new();
    let mut line = vec![0.0; active.distances.length];
    let mut other = line.clone();
    while active.count > 1 {
        if chain.is_empty() {
            chain.push(active.first_but(usize::MAX));
        }
        let at = chain[chain.len() - 1];
        let before = chain.len().checked_sub(2).map(|place| chain[place]);
        active.distances.read(at, &mut line);
        // Of equals the one before wins, or else a chain might turn in a circle. Something is nearest even when
        // every distance is infinite.
        let likely = before.unwrap_or_else(|| active.first_but(at));
        let best = (line[likely], likely);
        let (height, next) = vectors.run(Least { line: &line, gone: &active.gone, best });
        if Some(next) != before {
            chain.push(next);
            continue;
        }
        chain.truncate(chain.len() - 2);
        active.distances.read(next, &mut other);
        merges.push((height, active.rows[at], active.rows[next]));
        active.merge(next, at, (&mut other, &line), rule);
        active.tighten(&mut chain);
        line.truncate(active.distances.length);
        other.truncate(active.distances.length);
    }
    numbered(rows, merges, &vec![1.0; rows])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::random::{Draws, Purpose};

    fn scattered(rows: usize, width: usize) -> Matrix {
        let draws = Draws::new(7, rows as u64, Purpose::Map);
        let column = |number: usize| {
            (0..rows).map(|row| draws.unit((row * width + number) as u64)).collect::<Vec<f64>>()
        };
        Matrix::from_columns((0..width).map(column).collect()).unwrap()
    }

    #[test]
    fn heights_and_sizes_are_those_of_a_plain_triangle() {
        for (rows, width) in [(1, 2), (2, 1), (3, 2), (8, 3), (9, 2), (300, 1), (1_100, 5)] {
            let points = scattered(rows, width);
            for (rule, method) in
                [(Rule::Complete, kodama::Method::Complete), (Rule::Average, kodama::Method::Average)]
            {
                let ours = tree(&points, rule, Vectors::detected());
                let mut distances = Vec::new();
                for left in 0..rows {
                    for right in left + 1..rows {
                        let (left, right) = (points.row(left), points.row(right));
                        let sum: f64 = left.iter().zip(&right).map(|(l, r)| (l - r) * (l - r)).sum();
                        distances.push(sum.sqrt());
                    }
                }
                let theirs = kodama::linkage(&mut distances, rows, method);
                assert_eq!(ours.merges.len(), theirs.len());
                for (ours, theirs) in ours.merges.iter().zip(theirs.steps()) {
                    let apart = (ours.height - theirs.dissimilarity).abs() / theirs.dissimilarity;
                    assert!(
                        apart <= 1e-9,
                        "{rows} rows, {rule:?}: {} and {}",
                        ours.height,
                        theirs.dissimilarity
                    );
                    assert_eq!(ours.size, theirs.size, "{rows} rows, {rule:?}");
                }
            }
        }
    }

    #[test]
    fn equal_rows_and_rows_infinitely_far_apart_have_a_tree() {
        for values in [vec![3.0; 700], (0..700).map(|row| f64::from(row % 2) * 1e300).collect()] {
            let points = Matrix::from_columns(vec![values.clone(), values]).unwrap();
            for rule in [Rule::Complete, Rule::Average] {
                assert_eq!(tree(&points, rule, Vectors::detected()).merges.len(), 699, "{rule:?}");
            }
            for linkage in [crate::segment::spec::Linkage::Ward, crate::segment::spec::Linkage::Single] {
                assert_eq!(super::super::tree(&points, linkage).unwrap().merges.len(), 699, "{linkage:?}");
            }
        }
    }
}
