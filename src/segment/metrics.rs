//! How good a clustering is: inertia, Calinski-Harabasz, Davies-Bouldin, adjusted Rand.
//!
//! Owns the exact definitions, degenerate cases included, as scikit-learn has them. A figure that is not
//! defined is an [`Undefined`] with its reason, never a number. The silhouette has a file of its own.

use super::matrix::Matrix;

/// Why a figure is not defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undefined {
    /// Cohesion needs at least 2 clusters and fewer clusters than rows.
    #[error("{clusters} clusters of {rows} rows: defined for 2 to rows - 1 clusters only")]
    Clusters {
        /// Clusters with at least one row.
        clusters: usize,
        /// Rows.
        rows: usize,
    },
    /// The two sides do not have one label per row.
    #[error("{labels} labels for {rows} rows")]
    Lengths {
        /// Labels given.
        labels: usize,
        /// Rows given.
        rows: usize,
    },
}

/// Rows by label, labels without rows left out. Centres are the means of their rows.
pub(super) struct Groups {
    /// The label of each group, rising.
    pub(super) labels: Vec<u32>,
    /// Row numbers of each group, rising.
    pub(super) members: Vec<Vec<usize>>,
    /// Means, one row of d values each.
    pub(super) means: Vec<Vec<f64>>,
}

impl Groups {
    /// # Errors
    /// [`Undefined`] unless there are 2 to n - 1 groups.
    pub(super) fn new(points: &Matrix, labels: &[u32]) -> Result<Self, Undefined> {
        let rows = points.rows();
        if labels.len() != rows {
            return Err(Undefined::Lengths { labels: labels.len(), rows });
        }
        let most = labels.iter().max().map_or(0, |&label| label as usize + 1);
        let mut members = vec![Vec::new(); most];
        labels.iter().enumerate().for_each(|(row, &label)| members[label as usize].push(row));
        let present = (0..).zip(&members).filter(|(_, rows)| !rows.is_empty());
        let labels = present.map(|(label, _)| label).collect();
        members.retain(|rows: &Vec<usize>| !rows.is_empty());
        if members.len() < 2 || members.len() >= rows {
            return Err(Undefined::Clusters { clusters: members.len(), rows });
        }
        let mean_of = |rows: &Vec<usize>, column: &Vec<f64>| {
            rows.iter().map(|&row| column[row]).sum::<f64>() / rows.len() as f64
        };
        let means = members
            .iter()
            .map(|rows| points.columns().iter().map(|column| mean_of(rows, column)).collect())
            .collect();
        Ok(Self { labels, members, means })
    }
}

/// Squared distance of one row to a point.
pub(super) fn squared_to(points: &Matrix, row: usize, point: &[f64]) -> f64 {
    points.columns().iter().zip(point).map(|(column, value)| (column[row] - value).powi(2)).sum()
}

/// Sum over rows of the squared distance to the centre of its label.
///
/// `labels` has one entry per row, each below the number of `centres` (k × d).
pub fn inertia(points: &Matrix, labels: &[u32], centres: &[Vec<f64>]) -> f64 {
    labels.iter().enumerate().map(|(row, &label)| squared_to(points, row, &centres[label as usize])).sum()
}

/// (B / (k - 1)) / (W / (n - k)) with B and W the squared distances between and within; 1 when W is 0.
///
/// # Errors
/// [`Undefined`] unless there are 2 to n - 1 clusters.
pub fn calinski_harabasz(points: &Matrix, labels: &[u32]) -> Result<f64, Undefined> {
    let groups = Groups::new(points, labels)?;
    let rows = points.rows() as f64;
    let clusters = groups.members.len() as f64;
    let overall: Vec<f64> = points.columns().iter().map(|column| column.iter().sum::<f64>() / rows).collect();
    let (mut between, mut within) = (0.0, 0.0);
    for (members, mean) in groups.members.iter().zip(&groups.means) {
        let apart: f64 = mean.iter().zip(&overall).map(|(own, all)| (own - all).powi(2)).sum();
        between += apart * members.len() as f64;
        within += members.iter().map(|&row| squared_to(points, row, mean)).sum::<f64>();
    }
    if within == 0.0 {
        return Ok(1.0);
    }
    Ok(between * (rows - clusters) / (within * (clusters - 1.0)))
}

/// Mean over clusters of the worst (s_i + s_j) / d(c_i, c_j), s the mean distance to the own centre.
///
/// Pairs of centres at distance 0 are skipped; 0 when all s or all distances between centres are 0.
///
/// # Errors
/// [`Undefined`] unless there are 2 to n - 1 clusters.
pub fn davies_bouldin(points: &Matrix, labels: &[u32]) -> Result<f64, Undefined> {
    let groups = Groups::new(points, labels)?;
    let spread: Vec<f64> = groups
        .members
        .iter()
        .zip(&groups.means)
        .map(|(rows, mean)| {
            rows.iter().map(|&row| squared_to(points, row, mean).sqrt()).sum::<f64>() / rows.len() as f64
        })
        .collect();
    let clusters = spread.len();
    let mut sum = 0.0;
    for own in 0..clusters {
        let mut worst = 0.0_f64;
        for other in (0..clusters).filter(|&other| other != own) {
            let squares = groups.means[own].iter().zip(&groups.means[other]).map(|(a, b)| (a - b).powi(2));
            let apart = squares.sum::<f64>().sqrt();
            if apart > 0.0 {
                worst = worst.max((spread[own] + spread[other]) / apart);
            }
        }
        sum += worst;
    }
    Ok(sum / clusters as f64)
}

/// Agreement of two labellings of the same rows, 1 when equal up to renaming, about 0 by chance.
///
/// # Errors
/// [`Undefined::Lengths`] when the two differ in length.
pub fn adjusted_rand(left: &[u32], right: &[u32]) -> Result<f64, Undefined> {
    if left.len() != right.len() {
        return Err(Undefined::Lengths { labels: left.len(), rows: right.len() });
    }
    let mut pairs: Vec<(u32, u32)> = left.iter().copied().zip(right.iter().copied()).collect();
    pairs.sort_unstable();
    let squares = |sizes: &mut dyn Iterator<Item = usize>| sizes.map(|size| (size as i128).pow(2)).sum();
    let sorted = |labels: &[u32]| {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        labels
    };
    let (left, right) = (sorted(left), sorted(right));
    let both: i128 = squares(&mut pairs.chunk_by(|a, b| a == b).map(<[_]>::len));
    let of_left: i128 = squares(&mut left.chunk_by(|a, b| a == b).map(<[_]>::len));
    let of_right: i128 = squares(&mut right.chunk_by(|a, b| a == b).map(<[_]>::len));
    let rows = left.len() as i128;
    // Pairs of rows: together in both, in left alone, in right alone, in neither (each counted twice).
    let (together, left_only, right_only) = (both - rows, of_left - both, of_right - both);
    let apart = rows * rows - both - left_only - right_only;
    if left_only == 0 && right_only == 0 {
        return Ok(1.0);
    }
    let above = 2.0 * (together * apart - left_only * right_only) as f64;
    let below = (together + left_only) * (left_only + apart) + (together + right_only) * (right_only + apart);
    Ok(above / below as f64)
}
