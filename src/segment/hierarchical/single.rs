//! Single linkage by a minimum spanning tree over points: O(n²) time and O(n) memory (Gower, Ross 1969; the tree
//! after Prim 1957).

use pulp::{Simd, WithSimd};

use super::Tree;
use super::ward::numbered;
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// Rows measured at a time.
const BLOCK: usize = 256;

/// How near each row is to the tree, and to which row of it; rows of the tree are infinitely far.
struct Reach {
    squared: Vec<f64>,
    to: Vec<usize>,
    inside: Vec<bool>,
}

/// Measures every row from the row that has just joined the tree; the nearest outside, the lower row when equal.
struct Joined<'a> {
    columns: &'a [Vec<f64>],
    row: usize,
    reach: &'a mut Reach,
}

impl WithSimd for Joined<'_> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        let Joined { columns, row, reach } = self;
        let mut best = (f64::INFINITY, usize::MAX);
        let mut squared = [0.0; BLOCK];
        for first in (0..reach.squared.len()).step_by(BLOCK) {
            let squared = &mut squared[..BLOCK.min(reach.squared.len() - first)];
            squared.fill(0.0);
            for column in columns {
                let own = column[row];
                for (sum, value) in squared.iter_mut().zip(&column[first..]) {
                    let difference = value - own;
                    *sum = difference.mul_add(difference, *sum);
                }
            }
            for (offset, &squared) in squared.iter().enumerate() {
                let place = first + offset;
                if reach.inside[place] {
                    continue;
                }
                if squared < reach.squared[place] {
                    reach.squared[place] = squared;
                    reach.to[place] = row;
                }
                if reach.squared[place] < best.0 {
                    best = (reach.squared[place], place);
                }
            }
        }
        // Something is nearest even when every distance is infinite.
        if best.1 == usize::MAX {
            reach.inside.iter().position(|inside| !inside).unwrap_or(0)
        } else {
            best.1
        }
    }
}

pub(super) fn tree(points: &Matrix, vectors: Vectors) -> Tree {
    let rows = points.rows();
    let mut reach =
        Reach { squared: vec![f64::INFINITY; rows], to: vec![0; rows], inside: vec![false; rows] };
    let mut edges = Vec::with_capacity(rows - 1);
    let mut row = 0;
    while edges.len() + 1 < rows {
        reach.inside[row] = true;
        row = vectors.run(Joined { columns: points.columns(), row, reach: &mut reach });
        edges.push((reach.squared[row].sqrt(), reach.to[row], row));
    }
    numbered(rows, edges, &vec![1.0; rows])
}
