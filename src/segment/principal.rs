//! Principal components: the directions in which rows differ most.
//!
//! Owns the covariance matrix and its eigenvectors by cyclic Jacobi rotations (Golub and Van Loan, 8.5):
//! exact enough for a few dozen columns, and the same bits on every machine. Signs are fixed: the largest
//! entry of a direction, in absolute value, is positive.

use rayon::prelude::*;

use super::matrix::Matrix;
use super::points::CHUNK;

/// Sweeps of rotations after which the matrix is as diagonal as it gets.
const SWEEPS: usize = 30;

/// Directions and how much of the variance each explains.
#[derive(Debug, Clone, PartialEq)]
pub struct Components {
    /// Means of the columns.
    pub means: Vec<f64>,
    /// d directions of length 1 with d entries each, by falling variance.
    pub directions: Vec<Vec<f64>>,
    /// Population variance along each.
    pub variances: Vec<f64>,
}

impl Components {
    /// The components of `points`, which has at least one row.
    pub fn of(points: &Matrix) -> Self {
        let rows = points.rows() as f64;
        let sum = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>();
        let chunked = |left: &[f64], right: &[f64], left_mean: f64, right_mean: f64| -> f64 {
            let parts = left.par_chunks(CHUNK).zip(right.par_chunks(CHUNK)).map(|(left, right)| {
                sum(&mut left.iter().zip(right).map(|(l, r)| (l - left_mean) * (r - right_mean)))
            });
            parts.collect::<Vec<f64>>().iter().sum::<f64>() / rows
        };
        let columns = points.columns();
        let means: Vec<f64> =
            columns.iter().map(|column| super::kmeans::ordered_sum(column) / rows).collect();
        let width = columns.len();
        let mut covariance = vec![vec![0.0; width]; width];
        for left in 0..width {
            for right in left..width {
                let value = chunked(&columns[left], &columns[right], means[left], means[right]);
                covariance[left][right] = value;
                covariance[right][left] = value;
            }
        }
        let (variances, directions) = eigen(covariance);
        Self { means, directions, variances }
    }

    /// Share of the whole variance along direction `number`; 0 when nothing varies.
    pub fn explained(&self, number: usize) -> f64 {
        let total: f64 = self.variances.iter().sum();
        if total > 0.0 { self.variances.get(number).map_or(0.0, |own| own / total) } else { 0.0 }
    }

    /// How far a row of d values lies along direction `number`; 0 where there is no such direction.
    pub fn along(&self, number: usize, row: impl Iterator<Item = f64>) -> f64 {
        let Some(direction) = self.directions.get(number) else { return 0.0 };
        row.zip(&self.means).zip(direction).map(|((value, mean), entry)| (value - mean) * entry).sum()
    }

    /// The row of d values that lies `scores` along the directions.
    pub fn back(&self, scores: &[f64]) -> Vec<f64> {
        let entry = |column: usize| {
            let parts =
                scores.iter().zip(&self.directions).map(|(score, direction)| score * direction[column]);
            self.means[column] + parts.sum::<f64>()
        };
        (0..self.means.len()).map(entry).collect()
    }
}

/// Eigenvalues, falling and not below 0, and eigenvectors of a symmetric matrix.
fn eigen(mut matrix: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.len();
    let mut vectors: Vec<Vec<f64>> =
        (0..size).map(|row| (0..size).map(|column| f64::from(u8::from(row == column))).collect()).collect();
    for _ in 0..SWEEPS {
        let diagonal: f64 = (0..size).map(|at| matrix[at][at].abs()).sum();
        let off = |row: usize| matrix[row][row + 1..].iter().map(|value| value.abs()).sum::<f64>();
        if (0..size).map(off).sum::<f64>() <= f64::EPSILON * 1e-3 * diagonal {
            break;
        }
        for left in 0..size {
            for right in left + 1..size {
                rotate(&mut matrix, &mut vectors, left, right);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&left, &right| matrix[right][right].total_cmp(&matrix[left][left]).then(left.cmp(&right)));
    let direction = |&number: &usize| {
        let largest = vectors[number]
            .iter()
            .fold(0.0_f64, |best, value| if value.abs() > best.abs() { *value } else { best });
        vectors[number].iter().map(|value| if largest < 0.0 { -value } else { *value }).collect()
    };
    (order.iter().map(|&at| matrix[at][at].max(0.0)).collect(), order.iter().map(direction).collect())
}

/// Makes one entry off the diagonal 0; `vectors` has an eigenvector in each row.
fn rotate(matrix: &mut [Vec<f64>], vectors: &mut [Vec<f64>], left: usize, right: usize) {
    let entry = matrix[left][right];
    if entry == 0.0 {
        return;
    }
    let theta = (matrix[right][right] - matrix[left][left]) / (2.0 * entry);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    for row in matrix.iter_mut() {
        let (old_left, old_right) = (row[left], row[right]);
        row[left] = cosine * old_left - sine * old_right;
        row[right] = sine * old_left + cosine * old_right;
    }
    for rows in [matrix, vectors] {
        for column in 0..rows[left].len() {
            let (old_left, old_right) = (rows[left][column], rows[right][column]);
            rows[left][column] = cosine * old_left - sine * old_right;
            rows[right][column] = sine * old_left + cosine * old_right;
        }
    }
}
