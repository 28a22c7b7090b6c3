//! What pictures of a segmentation are drawn from: plain numbers, small enough for one page.
//!
//! Owns the thinning to what an eye can tell apart. Knows nothing of colours, SVG or files.

use serde::Serialize;

use super::hierarchical::{Merge, Tree, weighted_ward};
use super::matrix::Matrix;
use super::principal::Components;
use super::random::{Draws, Purpose};

/// Silhouettes kept per segment.
const BLADE: usize = 200;
/// Rows on the map.
const MAP_ROWS: usize = 5_000;
/// Merges kept of a tree, the highest.
const MERGES: usize = 30;

/// Everything drawn that the tables do not already hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Figures {
    /// One per segment, in the model's order; empty where silhouettes are not defined.
    pub blades: Vec<Blade>,
    /// Rows on the plane in which they differ most; `None` with fewer than two prepared columns.
    pub map: Option<Map>,
    /// The tree of a hierarchical clustering, or of the segments' centres for other algorithms.
    pub dendrogram: Option<Dendrogram>,
}

/// The silhouettes of one segment's rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blade {
    /// Index of the segment.
    pub segment: usize,
    /// Falling; evenly spaced among those computed, at most 200.
    pub values: Vec<f64>,
    /// Mean of those computed.
    pub mean: f64,
    /// How many were computed: all rows of the segment, or a sample.
    pub n: usize,
}

/// Rows projected on the first two principal components.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Map {
    /// Share of the variance along x and along y.
    pub explained: [f64; 2],
    /// The prepared columns.
    pub columns: Vec<String>,
    /// How much each column adds to x and to y.
    pub loadings: Vec<[f64; 2]>,
    /// All rows, or a sample of 5,000.
    pub points: Vec<MapPoint>,
    /// One per segment, in the model's order.
    pub centres: Vec<[f64; 2]>,
}

/// One row on the map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MapPoint {
    /// Along the first component.
    pub x: f64,
    /// Along the second.
    pub y: f64,
    /// Index of its segment.
    pub segment: usize,
}

/// The top of a tree of merges.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dendrogram {
    /// What the lowest nodes shown stand for, from left to right: nodes 0 to `leaves.len()` - 1 of `merges`.
    pub leaves: Vec<Leaf>,
    /// At most 30, by rising height; node `leaves.len()` + i is merge i.
    pub merges: Vec<Merge>,
}

/// A node whose inside is not shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leaf {
    /// The segment's index, when the leaf is a segment.
    pub segment: Option<usize>,
    /// Rows below it.
    pub n: usize,
}

/// The silhouettes by segment, thinned. `by_segment` has one list per segment, in any order.
pub(super) fn blades(by_segment: Vec<Vec<f64>>) -> Vec<Blade> {
    let blade = |(segment, mut values): (usize, Vec<f64>)| {
        values.sort_unstable_by(|left, right| right.total_cmp(left));
        let n = values.len();
        let mean = if n == 0 { 0.0 } else { values.iter().sum::<f64>() / n as f64 };
        let kept = n.min(BLADE);
        // The first and the last stay, the rest lies evenly between.
        let place = |number: usize| if kept < 2 { 0 } else { number * (n - 1) / (kept - 1) };
        let values = (0..kept).map(|number| values[place(number)]).collect();
        Blade { segment, values, mean, n }
    };
    by_segment.into_iter().enumerate().map(blade).collect()
}

/// The map of `matrix`, whose rows belong to the segments `of_row`.
pub(super) fn map(
    matrix: &Matrix,
    columns: &[String],
    centres: &[Vec<f64>],
    of_row: impl Fn(usize) -> usize,
    seed: u64,
) -> Option<Map> {
    if matrix.width() < 2 || matrix.rows() == 0 {
        return None;
    }
    let components = Components::of(matrix);
    let place = |row: &[f64]| [0, 1].map(|number| components.along(number, row.iter().copied()));
    let point = |row: usize| {
        let [x, y] = place(&matrix.row(row));
        MapPoint { x, y, segment: of_row(row) }
    };
    let loadings =
        (0..matrix.width()).map(|column| [0, 1].map(|number: usize| components.directions[number][column]));
    Some(Map {
        explained: [components.explained(0), components.explained(1)],
        columns: columns.to_vec(),
        loadings: loadings.collect(),
        points: sample(matrix.rows(), seed).into_iter().map(point).collect(),
        centres: centres.iter().map(|centre| place(centre)).collect(),
    })
}

/// Rows on the map, rising.
fn sample(rows: usize, seed: u64) -> Vec<usize> {
    if rows <= MAP_ROWS {
        return (0..rows).collect();
    }
    let draws = Draws::new(seed, 0, Purpose::Map);
    let mut drawn: Vec<(u64, usize)> = (0..rows).map(|row| (draws.bits(row as u64), row)).collect();
    drawn.select_nth_unstable(MAP_ROWS);
    drawn.truncate(MAP_ROWS);
    let mut rows: Vec<usize> = drawn.into_iter().map(|(_, row)| row).collect();
    rows.sort_unstable();
    rows
}

/// Ward's tree of the segments' centres, each as heavy as it has rows; `None` for fewer than two.
pub(super) fn tree_of_centres(centres: &[Vec<f64>], sizes: &[usize]) -> Option<Dendrogram> {
    let (kept, weights): (Vec<usize>, Vec<f64>) =
        sizes.iter().enumerate().filter(|(_, size)| **size > 0).map(|(at, &size)| (at, size as f64)).unzip();
    if kept.len() < 2 {
        return None;
    }
    let width = centres.first()?.len();
    let columns = (0..width).map(|column| kept.iter().map(|&at| centres[at][column]).collect()).collect();
    let tree = weighted_ward(&Matrix::from_columns(columns).ok()?, &weights).ok()?;
    let merges = tree.merges;
    let leaves: Vec<Leaf> = kept.iter().map(|&at| Leaf { segment: Some(at), n: sizes[at] }).collect();
    Some(in_order(leaves, merges))
}

/// The top of a tree of rows.
pub(super) fn top_of(tree: &Tree) -> Option<Dendrogram> {
    if tree.merges.is_empty() {
        return None;
    }
    let hidden = tree.merges.len().saturating_sub(MERGES);
    let shown = &tree.merges[hidden..];
    let first_shown = tree.rows + hidden;
    let mut below: Vec<usize> =
        shown.iter().flat_map(|merge| [merge.left, merge.right]).filter(|node| *node < first_shown).collect();
    below.sort_unstable();
    let size = |node: usize| if node < tree.rows { 1 } else { tree.merges[node - tree.rows].size };
    let leaves = below.iter().map(|&node| Leaf { segment: None, n: size(node) }).collect();
    let renumbered = |node: usize| match below.binary_search(&node) {
        Ok(place) => place,
        Err(_) => below.len() + node - first_shown,
    };
    let merges = shown
        .iter()
        .map(|merge| {
            let (left, right) = (renumbered(merge.left), renumbered(merge.right));
            Merge { left: left.min(right), right: left.max(right), ..*merge }
        })
        .collect();
    Some(in_order(leaves, merges))
}

/// Leaves put in the order in which the tree can be drawn without crossings.
fn in_order(leaves: Vec<Leaf>, merges: Vec<Merge>) -> Dendrogram {
    let count = leaves.len();
    let mut order = Vec::with_capacity(count);
    let mut open = vec![count + merges.len() - 1];
    while let Some(node) = open.pop() {
        match node.checked_sub(count) {
            None => order.push(node),
            Some(merge) => open.extend([merges[merge].right, merges[merge].left]),
        }
    }
    let mut place = vec![0; count];
    order.iter().enumerate().for_each(|(at, &leaf)| place[leaf] = at);
    let moved = |node: usize| if node < count { place[node] } else { node };
    let merges = merges
        .into_iter()
        .map(|merge| {
            let (left, right) = (moved(merge.left), moved(merge.right));
            Merge { left: left.min(right), right: left.max(right), ..merge }
        })
        .collect();
    Dendrogram { leaves: order.into_iter().map(|leaf| leaves[leaf].clone()).collect(), merges }
}
