//! Hierarchical clustering: the tree of merges, and cutting it.
//!
//! Owns the five linkages, the dendrogram in SciPy's numbering, and cuts by number and by height. Ward's
//! and single linkage work on points in O(n d) memory, complete and average linkage on at most n² / 2 distances,
//! and so does centroid linkage, by `kodama`: its merges can fall, and nearest-neighbour chains need that they rise.
//! Knows nothing of features or names.

mod blocks;
mod pairwise;
mod single;
mod ward;

use rayon::prelude::*;
use serde::Serialize;

use super::kmeans::{KMeansError, KMeansFit};
use super::matrix::Matrix;
use super::metrics::inertia;
use super::spec::Linkage;
use super::vectors::Vectors;

/// Two nodes become one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Merge {
    /// A node: a row below `rows`, or `rows` plus the place of an earlier merge. Below `right`.
    pub left: usize,
    /// The other node.
    pub right: usize,
    /// The distance of the two, as SciPy's `linkage` defines it.
    pub height: f64,
    /// Rows below the new node; with weights their sum, rounded.
    pub size: usize,
}

/// A tree over `rows` rows: `rows` - 1 merges, heights rising except with `centroid`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tree {
    /// Leaves.
    pub rows: usize,
    /// By rising height.
    pub merges: Vec<Merge>,
}

/// The tree of `points` (n × d, n at least 1, all finite) under Euclidean distance.
///
/// # Errors
/// [`KMeansError`] for a matrix without columns or rows, or with a value that is not finite.
pub fn tree(points: &Matrix, linkage: Linkage) -> Result<Tree, KMeansError> {
    tree_on(points, linkage, Vectors::detected())
}

/// As [`tree`], on the instructions given.
pub(super) fn tree_on(points: &Matrix, linkage: Linkage, vectors: Vectors) -> Result<Tree, KMeansError> {
    check(points)?;
    match linkage {
        Linkage::Ward => Ok(ward::tree(points, &vec![1.0; points.rows()], vectors)),
        Linkage::Single => Ok(single::tree(points, vectors)),
        Linkage::Complete => Ok(pairwise::tree(points, pairwise::Rule::Complete, vectors)),
        Linkage::Average => Ok(pairwise::tree(points, pairwise::Rule::Average, vectors)),
        Linkage::Centroid => Ok(by_centroids(points)),
    }
}

/// Ward's tree of rows that stand for several each: a row of weight 3 counts as three equal rows.
///
/// `weights` has one positive number per row.
///
/// # Errors
/// As [`tree`].
pub fn weighted_ward(points: &Matrix, weights: &[f64]) -> Result<Tree, KMeansError> {
    check(points)?;
    Ok(ward::tree(points, weights, Vectors::detected()))
}

fn check(points: &Matrix) -> Result<(), KMeansError> {
    if points.width() == 0 {
        return Err(KMeansError::NoColumns);
    }
    if points.rows() == 0 {
        return Err(KMeansError::TooFewRows { rows: 0, clusters: 1 });
    }
    match points.first_not_finite() {
        Some((row, column)) => Err(KMeansError::NotFinite { row, column }),
        None => Ok(()),
    }
}

fn by_centroids(points: &Matrix) -> Tree {
    let rows = points.rows();
    if rows == 1 {
        return Tree { rows, merges: Vec::new() };
    }
    let mut distances = vec![0.0; rows * (rows - 1) / 2];
    let mut parts = Vec::with_capacity(rows - 1);
    let mut rest = distances.as_mut_slice();
    for row in 0..rows - 1 {
        let (part, others) = rest.split_at_mut(rows - 1 - row);
        parts.push((row, part));
        rest = others;
    }
    parts.into_par_iter().for_each(|(row, part)| {
        for column in points.columns() {
            let own = column[row];
            part.iter_mut()
                .zip(&column[row + 1..])
                .for_each(|(sum, other)| *sum += (own - other) * (own - other));
        }
        part.iter_mut().for_each(|sum| *sum = sum.sqrt());
    });
    let found = kodama::linkage(&mut distances, rows, kodama::Method::Centroid);
    let merge = |step: &kodama::Step<f64>| Merge {
        left: step.cluster1.min(step.cluster2),
        right: step.cluster1.max(step.cluster2),
        height: step.dissimilarity,
        size: step.size,
    };
    Tree { rows, merges: found.steps().iter().map(merge).collect() }
}

impl Tree {
    /// The cluster of every row when `clusters` are left (from 1 to the number of rows); clusters are numbered
    /// by their lowest row.
    pub fn cut(&self, clusters: usize) -> Vec<u32> {
        self.labels(self.rows - clusters.clamp(1, self.rows))
    }

    /// The cluster of every row when nodes farther apart than `height` stay apart.
    pub fn cut_at(&self, height: f64) -> Vec<u32> {
        self.labels(self.merges.iter().take_while(|merge| merge.height <= height).count())
    }

    fn labels(&self, merged: usize) -> Vec<u32> {
        let mut parent: Vec<usize> = (0..self.rows + merged).collect();
        for (place, merge) in self.merges[..merged].iter().enumerate() {
            parent[merge.left] = self.rows + place;
            parent[merge.right] = self.rows + place;
        }
        // Parents stand after their children: from the top down every node's root is its parent's root.
        for node in (0..parent.len()).rev() {
            parent[node] = parent[parent[node]];
        }
        let mut number = vec![u32::MAX; parent.len()];
        let mut next = 0;
        (0..self.rows)
            .map(|row| {
                let label = &mut number[parent[row]];
                if *label == u32::MAX {
                    *label = next;
                    next += 1;
                }
                *label
            })
            .collect()
    }
}

/// A labelling as a fit: the means of the clusters and the squared distances to them.
pub(super) fn fit_of(points: &Matrix, labels: Vec<u32>) -> KMeansFit {
    let clusters = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let mut counts = vec![0_usize; clusters];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    let mut centres = vec![vec![0.0; points.width()]; clusters];
    for (number, column) in points.columns().iter().enumerate() {
        labels.iter().zip(column).for_each(|(&label, value)| centres[label as usize][number] += value);
    }
    for (centre, count) in centres.iter_mut().zip(counts) {
        centre.iter_mut().for_each(|value| *value /= count.max(1) as f64);
    }
    let inertia = inertia(points, &labels, &centres);
    KMeansFit { centres, labels, inertia, iterations: 0, converged: true }
}
