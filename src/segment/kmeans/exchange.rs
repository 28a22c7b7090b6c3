//! Leaving a local optimum where many rows are equal, as scores are: a whole group of equal rows changes its cluster
//! if that lowers the sum of squared distances (Hartigan 1975; Telgarsky, Vattani 2010). Lloyd's iterations look at
//! distances alone, and miss that both centres move with the group.

use std::collections::HashMap;

use super::lloyd::Centred;
use crate::segment::points::{Real, squared_distance};

/// Most groups: more are no scores.
const MOST: usize = 1_024;
/// Share of what a group costs that its move must gain: less is rounding.
const LEAST_GAIN: f64 = 1e-9;
/// Passes over the groups, which end far earlier.
const PASSES: usize = 100;

/// The different rows, in the order in which they come first.
pub(super) struct Groups {
    width: usize,
    /// m × width, in centred units.
    points: Vec<f64>,
    /// Rows of each.
    counts: Vec<f64>,
}

impl Groups {
    /// `None` when there are many different rows, or no two are equal.
    pub(super) fn of<T: Real>(centred: &Centred<'_, T>) -> Option<Self> {
        let rows = &centred.rows;
        let columns = || rows.matrix().columns().iter();
        let mut numbers: HashMap<Vec<u64>, usize> = HashMap::new();
        let mut found = Self { width: rows.width(), points: Vec::new(), counts: Vec::new() };
        let mut key = Vec::with_capacity(rows.width());
        for row in 0..rows.len() {
            key.clear();
            key.extend(columns().map(|column| column[row].to_bits()));
            let number = match numbers.get(&key) {
                Some(&number) => number,
                None if numbers.len() == MOST => return None,
                None => {
                    numbers.insert(key.clone(), found.counts.len());
                    found.points.extend(rows.row(row).into_iter().map(T::wide));
                    found.counts.push(0.0);
                    found.counts.len() - 1
                }
            };
            found.counts[number] += 1.0;
        }
        (found.counts.len() < rows.len()).then_some(found)
    }

    fn point(&self, group: usize) -> &[f64] {
        &self.points[group * self.width..][..self.width]
    }

    /// Centres (k × width, in centred units) from which no move of one group gains any more.
    pub(super) fn exchanged(&self, centres: Vec<f64>) -> Vec<f64> {
        let mut parts = Parts::new(self, centres);
        for _ in 0..PASSES {
            if !parts.pass() {
                break;
            }
        }
        parts.centres
    }
}

/// Which group is in which cluster.
struct Parts<'a> {
    groups: &'a Groups,
    labels: Vec<usize>,
    /// The means of the clusters, k × width.
    centres: Vec<f64>,
    /// Rows of each cluster.
    sizes: Vec<f64>,
}

impl<'a> Parts<'a> {
    /// Every group with its nearest centre.
    fn new(groups: &'a Groups, centres: Vec<f64>) -> Self {
        let clusters = centres.len() / groups.width;
        let mut parts = Self { groups, labels: Vec::new(), centres, sizes: vec![0.0; clusters] };
        let nearest = |group: usize| {
            let further = |left: &usize, right: &usize| {
                parts.distance(group, *left).total_cmp(&parts.distance(group, *right))
            };
            (0..clusters).min_by(further).unwrap_or(0)
        };
        let labels: Vec<usize> = (0..groups.counts.len()).map(nearest).collect();
        for (group, &label) in labels.iter().enumerate() {
            // The first to come puts the mean where it is.
            parts.put(group, label, groups.counts[group]);
        }
        parts.labels = labels;
        parts
    }

    fn distance(&self, group: usize, cluster: usize) -> f64 {
        squared_distance(
            self.groups.point(group),
            &self.centres[cluster * self.groups.width..][..self.groups.width],
        )
    }

    /// Adds `count` rows of a group to a cluster, or takes them away if it is below 0 and not all that there are.
    fn put(&mut self, group: usize, cluster: usize, count: f64) {
        let size = self.sizes[cluster] + count;
        let share = count / size;
        let mean = &mut self.centres[cluster * self.groups.width..][..self.groups.width];
        for (mean, value) in mean.iter_mut().zip(self.groups.point(group)) {
            *mean += share * (value - *mean);
        }
        self.sizes[cluster] = size;
    }

    /// Moves every group once to where it costs least; whether any moved.
    fn pass(&mut self) -> bool {
        let mut moved = false;
        for group in 0..self.labels.len() {
            let (count, from) = (self.groups.counts[group], self.labels[group]);
            let size = self.sizes[from];
            if size <= count {
                continue;
            }
            // What the cluster would lose of its sum of squares, and what another would gain.
            let loss = self.distance(group, from) * size / (size - count);
            let mut best = (loss * (1.0 - LEAST_GAIN), from);
            for cluster in (0..self.sizes.len()).filter(|cluster| *cluster != from) {
                let size = self.sizes[cluster];
                let gain = self.distance(group, cluster) * size / (size + count);
                if gain < best.0 {
                    best = (gain, cluster);
                }
            }
            if best.1 != from {
                self.put(group, from, -count);
                self.put(group, best.1, count);
                self.labels[group] = best.1;
                moved = true;
            }
        }
        moved
    }
}
