//! DBSCAN (Ester, Kriegel, Sander, Xu 1996): dense regions, and noise outside.
//!
//! Owns neighbourhoods (inclusive, the row itself counted), components of cores, and the choice of `eps`.
//! Clusters are numbered by their lowest core row, and a border row joins the adjacent cluster of the lowest
//! number: scikit-learn's labels, in O(n) memory and for any number of threads.

mod tree;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rayon::prelude::*;

use super::choose_k::knee;
use super::kmeans::KMeansError;
use super::matrix::Matrix;
use super::spec::Metric;
use super::vectors::Vectors;
use tree::Found;
pub(super) use tree::{KdTree, distance_measure, within};

/// The label of noise.
pub const NOISE: u32 = u32::MAX;
/// Places of the tree order searched in one go.
const BLOCK: usize = 512;
/// Points of the curve on which the knee of `eps: auto` is looked for.
const CURVE: usize = 200;

/// A density clustering.
#[derive(Debug, Clone, PartialEq)]
pub struct DbscanFit {
    /// The cluster of every row, or [`NOISE`].
    pub labels: Vec<u32>,
    /// Rows that are cores, rising.
    pub cores: Vec<usize>,
    /// Clusters.
    pub clusters: usize,
}

/// Groups the rows of `points` (n × d, all finite) by density.
///
/// Two rows are neighbours at a distance of at most `eps`, decided as the sum of squared differences against
/// `eps` squared; a row with at least `min_samples` neighbours, itself included, is a core.
///
/// # Errors
/// [`KMeansError`] for a matrix without columns or with a value that is not finite.
pub fn dbscan(
    points: &Matrix,
    eps: f64,
    min_samples: usize,
    metric: Metric,
) -> Result<DbscanFit, KMeansError> {
    check(points)?;
    let tree = KdTree::new(points, metric);
    let search = Search { tree: &tree, limit: within(metric, eps), width: points.width() };
    let is_core = search.cores(min_samples);
    let roots = search.components(&is_core);
    let places = search.labels(&is_core, &roots);
    let mut labels = vec![NOISE; points.rows()];
    tree.rows.iter().zip(&places).for_each(|(&row, &label)| labels[row as usize] = label);
    let mut cores: Vec<usize> =
        tree.rows.iter().zip(&is_core).filter(|(_, core)| **core).map(|(&row, _)| row as usize).collect();
    cores.sort_unstable();
    let clusters =
        labels.iter().filter(|label| **label != NOISE).max().map_or(0, |&label| label as usize + 1);
    Ok(DbscanFit { labels, cores, clusters })
}

/// The knee of the rising distances to the `min_samples`-th neighbour, the row itself counted first.
///
/// `None` when the curve hardly bends.
///
/// # Errors
/// As [`dbscan`].
pub fn eps_by_knee(points: &Matrix, min_samples: usize, metric: Metric) -> Result<Option<f64>, KMeansError> {
    check(points)?;
    let tree = KdTree::new(points, metric);
    let search = Search { tree: &tree, limit: 0.0, width: points.width() };
    let mut distances = search.nth_smallest(min_samples.clamp(1, points.rows()));
    if metric == Metric::Euclidean {
        distances.iter_mut().for_each(|measure| *measure = measure.sqrt());
    }
    distances.sort_unstable_by(f64::total_cmp);
    // The same curve for any number of rows, read from its high end, where it falls steeply and then bends.
    let last = distances.len() - 1;
    let count = distances.len().min(CURVE);
    let place = |number: usize| last - number * last / (count - 1).max(1);
    let curve: Vec<(f64, f64)> =
        (0..count).map(|number| ((last - place(number)) as f64, distances[place(number)])).collect();
    Ok(knee(&curve).map(|number| curve[number].1).filter(|eps| *eps > 0.0))
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

/// Searches around every row, in tree order, so that one search finds the last one's boxes in the cache.
struct Search<'a> {
    tree: &'a KdTree,
    limit: f64,
    width: usize,
}

impl Search<'_> {
    /// `of` each place and its point, in tree order.
    fn each<T: Send>(&self, of: impl Fn(usize, &[f64]) -> T + Sync) -> Vec<T> {
        let count = self.tree.rows.len();
        let blocks: Vec<Vec<T>> = (0..count.div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let mut point = vec![0.0; self.width];
                let places = block * BLOCK..count.min((block + 1) * BLOCK);
                Vectors::detected().run(|| {
                    let mut found = Vec::with_capacity(BLOCK);
                    for place in places {
                        self.tree.point(place, &mut point);
                        found.push(of(place, &point));
                    }
                    found
                })
            })
            .collect();
        blocks.into_iter().flatten().collect()
    }

    /// Whether each place is a core.
    fn cores(&self, min_samples: usize) -> Vec<bool> {
        self.each(|_, point| {
            let mut count = 0;
            self.tree.each_within(point, self.limit, |found| {
                count += match found {
                    Found::Place(_) => 1,
                    Found::Node { begin, end, .. } => end - begin,
                };
                count < min_samples
            });
            count >= min_samples
        })
    }

    /// For each core place the lowest core row of its component; rows stand for places.
    fn components(&self, is_core: &[bool]) -> Vec<u32> {
        let parents: Vec<AtomicU32> = (0..self.tree.rows.len() as u32).map(AtomicU32::new).collect();
        let unified: Vec<AtomicBool> = (0..self.tree.nodes()).map(|_| AtomicBool::new(false)).collect();
        let rows = &self.tree.rows;
        self.each(|place, point| {
            if !is_core[place] {
                return;
            }
            self.tree.each_within(point, self.limit, |found| {
                match found {
                    Found::Place(other) if is_core[other] => unite(&parents, rows[place], rows[other]),
                    Found::Place(_) => {}
                    Found::Node { number, begin, end } => {
                        // All cores of the node are this core's neighbours: once united, one stands for all.
                        let done = unified[number].load(Ordering::Acquire);
                        for other in (begin..end).filter(|&other| is_core[other]) {
                            unite(&parents, rows[place], rows[other]);
                            if done {
                                break;
                            }
                        }
                        unified[number].store(true, Ordering::Release);
                    }
                }
                true
            });
        });
        rows.iter().map(|&row| root(&parents, row)).collect()
    }

    /// The label of each place.
    fn labels(&self, is_core: &[bool], roots: &[u32]) -> Vec<u32> {
        let mut lowest: Vec<u32> =
            roots.iter().zip(is_core).filter(|(_, core)| **core).map(|(root, _)| *root).collect();
        lowest.sort_unstable();
        lowest.dedup();
        let number = |place: usize| lowest.partition_point(|root| *root < roots[place]) as u32;
        self.each(|place, point| {
            if is_core[place] {
                return number(place);
            }
            let mut label = NOISE;
            self.tree.each_within(point, self.limit, |found| {
                let places = match found {
                    Found::Place(other) => other..other + 1,
                    Found::Node { begin, end, .. } => begin..end,
                };
                label = places.filter(|&other| is_core[other]).map(&number).fold(label, u32::min);
                true
            });
            label
        })
    }

    /// The `nth` smallest measure of each place.
    fn nth_smallest(&self, nth: usize) -> Vec<f64> {
        self.each(|_, point| {
            let mut best = vec![0.0; nth];
            self.tree.smallest(point, &mut best);
            best[nth - 1]
        })
    }
}

/// The lowest member of a component, as far as it is known; paths are halved on the way.
fn root(parents: &[AtomicU32], mut row: u32) -> u32 {
    loop {
        let parent = parents[row as usize].load(Ordering::Acquire);
        if parent == row {
            return row;
        }
        let above = parents[parent as usize].load(Ordering::Acquire);
        if above != parent {
            // A parent is only ever replaced by a lower one of the same component: losing the race is no harm.
            parents[row as usize].fetch_min(above, Ordering::AcqRel);
        }
        row = parent;
    }
}

/// Joins two components; the lower root becomes the root of both, whoever comes first.
fn unite(parents: &[AtomicU32], left: u32, right: u32) {
    let (mut left, mut right) = (left, right);
    loop {
        left = root(parents, left);
        right = root(parents, right);
        if left == right {
            return;
        }
        let (low, high) = (left.min(right), left.max(right));
        let set = parents[high as usize].compare_exchange(high, low, Ordering::AcqRel, Ordering::Acquire);
        if set.is_ok() {
            return;
        }
    }
}
