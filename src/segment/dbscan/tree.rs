//! A k-d tree: rows near each other lie near each other in memory, and boxes that are too far are skipped.
//!
//! Distances are sums in the order of the columns, without fused operations, and the bounds of boxes are
//! rounded the same way, so a row exactly at the limit is never lost to pruning.

use crate::segment::matrix::Matrix;
use crate::segment::spec::Metric;

/// Most rows of a leaf.
const LEAF: usize = 32;
/// Deepest stack of a search: a balanced tree of 2^32 rows is not deeper.
const STACK: usize = 64;

/// A node: rows `begin` to `end` in tree order. An inner node's children are `left` and `left` + 1.
#[derive(Debug, Clone, Copy)]
struct Node {
    begin: u32,
    end: u32,
    left: u32,
}

#[derive(Debug, Clone)]
pub(in crate::segment) struct KdTree {
    width: usize,
    metric: Metric,
    /// The row at each place of the tree order.
    pub(super) rows: Vec<u32>,
    nodes: Vec<Node>,
    /// Lowest then highest values of each node's rows: 2 × width per node.
    boxes: Vec<f64>,
    /// Leaf by leaf, each column by column.
    values: Vec<f64>,
    /// The leaf of each place.
    leaf_of: Vec<u32>,
}

/// The measure that is compared: the squared distance, or the sum of absolute differences.
#[inline(always)]
pub(in crate::segment) fn distance_measure(metric: Metric, left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).fold(0.0, |sum, (left, right)| sum + part(metric, left - right))
}

/// The limit in the measure of [`distance_measure`].
pub(in crate::segment) fn within(metric: Metric, eps: f64) -> f64 {
    match metric {
        Metric::Euclidean => eps * eps,
        Metric::Manhattan => eps,
    }
}

#[inline(always)]
fn part(metric: Metric, difference: f64) -> f64 {
    match metric {
        Metric::Euclidean => difference * difference,
        Metric::Manhattan => difference.abs(),
    }
}

impl KdTree {
    pub(in crate::segment) fn new(points: &Matrix, metric: Metric) -> Self {
        let count = points.rows() as u32;
        let mut tree = Self {
            width: points.width(),
            metric,
            rows: (0..count).collect(),
            nodes: Vec::new(),
            boxes: Vec::new(),
            values: vec![0.0; points.rows() * points.width()],
            leaf_of: vec![0; points.rows()],
        };
        tree.push(points, 0, count);
        let mut next = 0;
        while next < tree.nodes.len() {
            tree.split(points, next);
            next += 1;
        }
        tree
    }

    fn push(&mut self, points: &Matrix, begin: u32, end: u32) {
        self.nodes.push(Node { begin, end, left: 0 });
        let rows = &self.rows[begin as usize..end as usize];
        for bound in [f64::min as fn(f64, f64) -> f64, f64::max] {
            for column in points.columns() {
                let values = rows.iter().map(|&row| column[row as usize]);
                self.boxes.push(values.reduce(bound).unwrap_or(0.0));
            }
        }
    }

    /// Halves a node at the median of its widest column, or lays its rows out as a leaf.
    fn split(&mut self, points: &Matrix, number: usize) {
        let Node { begin, end, .. } = self.nodes[number];
        let (first, last) = (begin as usize, end as usize);
        let (low, high) = self.bounds(number);
        let spread = |column: usize| high[column] - low[column];
        let mut widest = 0;
        for column in 1..self.width {
            if spread(column) > spread(widest) {
                widest = column;
            }
        }
        if last - first <= LEAF || spread(widest) == 0.0 {
            self.lay_out(points, number);
            return;
        }
        let column = &points.columns()[widest];
        let middle = (last - first) / 2;
        self.rows[first..last].select_nth_unstable_by(middle, |left, right| {
            column[*left as usize].total_cmp(&column[*right as usize]).then(left.cmp(right))
        });
        self.nodes[number].left = self.nodes.len() as u32;
        let middle = begin + middle as u32;
        self.push(points, begin, middle);
        self.push(points, middle, end);
    }

    fn lay_out(&mut self, points: &Matrix, number: usize) {
        let Node { begin, end, .. } = self.nodes[number];
        let (first, last) = (begin as usize, end as usize);
        self.rows[first..last].sort_unstable();
        self.leaf_of[first..last].fill(number as u32);
        let mut place = first * self.width;
        for column in points.columns() {
            for &row in &self.rows[first..last] {
                self.values[place] = column[row as usize];
                place += 1;
            }
        }
    }

    fn bounds(&self, number: usize) -> (&[f64], &[f64]) {
        self.boxes[number * 2 * self.width..][..2 * self.width].split_at(self.width)
    }

    /// Number of nodes.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Copies the row at `place` of the tree order.
    #[inline(always)]
    pub(super) fn point(&self, place: usize, into: &mut [f64]) {
        let node = self.nodes[self.leaf_of[place] as usize];
        let (first, count) = (node.begin as usize, (node.end - node.begin) as usize);
        let values = &self.values[first * self.width..];
        into.iter_mut()
            .enumerate()
            .for_each(|(column, value)| *value = values[column * count + place - first]);
    }

    #[inline(always)]
    fn nearest_of_box(&self, number: usize, point: &[f64]) -> f64 {
        let (low, high) = self.bounds(number);
        let sides = low.iter().zip(high).zip(point);
        sides.fold(0.0, |sum, ((low, high), value)| {
            sum + part(self.metric, (low - value).max(value - high).max(0.0))
        })
    }

    #[inline(always)]
    fn farthest_of_box(&self, number: usize, point: &[f64]) -> f64 {
        let (low, high) = self.bounds(number);
        let sides = low.iter().zip(high).zip(point);
        sides.fold(0.0, |sum, ((low, high), value)| sum + part(self.metric, (value - low).max(high - value)))
    }

    /// Measures from `point` to the rows of a block of a leaf: places `first` to `first` + the number given back.
    #[inline(always)]
    fn measures(&self, node: Node, first: usize, point: &[f64], into: &mut [f64; LEAF]) -> usize {
        let (begin, rows) = (node.begin as usize, (node.end - node.begin) as usize);
        let offset = first - begin;
        let count = (rows - offset).min(LEAF);
        let values = &self.values[begin * self.width..];
        into.fill(0.0);
        for (column, value) in point.iter().enumerate() {
            let own = &values[column * rows + offset..][..count];
            into.iter_mut().zip(own).for_each(|(sum, other)| *sum += part(self.metric, other - value));
        }
        count
    }

    /// Calls `found` with every place within `limit` (included) of `point`, or with a whole node whose rows all
    /// are; stops when it answers false.
    #[inline(always)]
    pub(super) fn each_within(&self, point: &[f64], limit: f64, mut found: impl FnMut(Found) -> bool) {
        let mut stack = [0_u32; STACK];
        let mut open = 1;
        let mut measures = [0.0; LEAF];
        while open > 0 {
            open -= 1;
            let number = stack[open] as usize;
            if self.nearest_of_box(number, point) > limit {
                continue;
            }
            let node = self.nodes[number];
            if self.farthest_of_box(number, point) <= limit {
                if !found(Found::Node { number, begin: node.begin as usize, end: node.end as usize }) {
                    return;
                }
                continue;
            }
            if node.left > 0 {
                stack[open] = node.left + 1;
                stack[open + 1] = node.left;
                open += 2;
                continue;
            }
            for first in (node.begin as usize..node.end as usize).step_by(LEAF) {
                let count = self.measures(node, first, point, &mut measures);
                for (offset, measure) in measures[..count].iter().enumerate() {
                    if *measure <= limit && !found(Found::Place(first + offset)) {
                        return;
                    }
                }
            }
        }
    }

    /// The `count` smallest measures from `point`, rising, into `best`; the point itself counts if it is a row.
    #[inline(always)]
    pub(super) fn smallest(&self, point: &[f64], best: &mut [f64]) {
        best.fill(f64::INFINITY);
        let last = best.len() - 1;
        self.search(point, |place_measure| {
            if let Some((_, measure)) = place_measure
                && measure < best[last]
            {
                let at = best.partition_point(|known| *known <= measure);
                best.copy_within(at..last, at + 1);
                best[at] = measure;
            }
            best[last]
        });
    }

    /// The row nearest to `point`, ties to the lower row, and its measure.
    #[inline(always)]
    pub(in crate::segment) fn nearest(&self, point: &[f64]) -> (usize, f64) {
        let mut best = (u32::MAX, f64::INFINITY);
        self.search(point, |place_measure| {
            if let Some((place, measure)) = place_measure {
                let row = self.rows[place];
                if measure < best.1 || (measure == best.1 && row < best.0) {
                    best = (row, measure);
                }
            }
            best.1
        });
        (best.0 as usize, best.1)
    }

    /// Offers every row that may be at most as far as `offer` last said; near children first.
    #[inline(always)]
    fn search(&self, point: &[f64], mut offer: impl FnMut(Option<(usize, f64)>) -> f64) {
        let mut stack = [(0_u32, 0.0); STACK];
        stack[0].1 = self.nearest_of_box(0, point);
        let mut open = 1;
        let mut measures = [0.0; LEAF];
        while open > 0 {
            open -= 1;
            let (number, nearest) = stack[open];
            if nearest > offer(None) {
                continue;
            }
            let node = self.nodes[number as usize];
            if node.left > 0 {
                let children = [node.left, node.left + 1];
                let [left, right] = children.map(|child| self.nearest_of_box(child as usize, point));
                let (near, far) = if right < left { (1, 0) } else { (0, 1) };
                let both = [left, right];
                stack[open] = (children[far], both[far]);
                stack[open + 1] = (children[near], both[near]);
                open += 2;
                continue;
            }
            for first in (node.begin as usize..node.end as usize).step_by(LEAF) {
                let count = self.measures(node, first, point, &mut measures);
                for (offset, measure) in measures[..count].iter().enumerate() {
                    offer(Some((first + offset, *measure)));
                }
            }
        }
    }
}

/// What a search within a limit meets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// One place of the tree order.
    Place(usize),
    /// A node, all places of which are within the limit.
    Node { number: usize, begin: usize, end: usize },
}
