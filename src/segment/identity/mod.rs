//! Which new segment is which old one: ids and names that outlive a refit, and what became of each segment.
//!
//! Owns the comparison of two runs: the table of who went where, the matching, and the lineage (after MONIC,
//! Spiliopoulou et al. 2006). Knows nothing of how segments were found.

mod pairs;

use std::sync::Arc;

use serde::Serialize;

pub use pairs::best_pairs;

use super::artefact::Model;
use super::points::squared_distance;

/// Share of the smaller run that both must have in common before members decide the matching.
const COMMON: f64 = 0.3;
/// Least Jaccard index of a match.
const ALIKE: f64 = 0.3;
/// A segment lives on, or goes into another, with at least this share of its members.
const MOST: f64 = 0.5;
/// A segment splits when two places receive at least this share each.
const PART: f64 = 0.25;

/// The run before.
#[derive(Debug, Clone, PartialEq)]
pub struct Previous {
    /// Its model.
    pub model: Model,
    /// Its model's version.
    pub version: String,
    /// Who was where: keys rising by bytes, none twice, with an index into the model's segments.
    pub members: Vec<(Arc<str>, usize)>,
}

/// Who went where among the customers of both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Migration {
    /// Ids of the old segments, in the old model's order.
    pub from: Vec<String>,
    /// Their names.
    pub from_names: Vec<String>,
    /// Ids of the new segments, in the new model's order.
    pub into: Vec<String>,
    /// Their names.
    pub into_names: Vec<String>,
    /// Customers by old and new segment.
    pub customers: Vec<Vec<u64>>,
    /// Customers of both runs.
    pub common: u64,
    /// Customers of both runs whose segment's id changed, as a share of them; 0 without any.
    pub moved_share: f64,
    /// Customers who are new.
    pub arrived: u64,
    /// Customers who are gone.
    pub left: u64,
}

/// What the matching rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Customers that both runs have.
    Members,
    /// The centres, because the runs have too few customers in common.
    Centres,
}

/// What became of segments between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// At least half of its members are in the segment that keeps its id.
    Survived,
    /// Two or more segments hold at least a quarter of its members each.
    Split,
    /// One segment holds at least half of the members of two or more.
    Merged,
    /// Its id is retired, and its members went to no place in particular.
    Disappeared,
    /// Its id is new, and it is no part of a split or a merge.
    New,
}

/// One event of the lineage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lineage {
    /// What happened.
    pub event: Event,
    /// Ids of old segments.
    pub from: Vec<String>,
    /// Ids of new segments.
    pub into: Vec<String>,
    /// Share of the members of `from` that are in `into`; `None` for what has no other side.
    pub overlap: Option<f64>,
}

/// Two runs compared before the new segments have ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Matching {
    /// For each new segment the old one whose id it keeps.
    pub old_of: Vec<Option<usize>>,
    /// What decided.
    pub basis: Basis,
    /// Common customers by old and new segment.
    counts: Vec<Vec<u64>>,
    arrived: u64,
    left: u64,
}

/// Matches `new` clusters with the segments of `previous`.
///
/// `members` are the new run's customers, keys rising, with the cluster of each. `old_centres` are the new
/// centres in the old model's prepared units, where they can be told; they count when fewer than 30 % of the
/// smaller run's customers are in both runs.
pub fn match_segments<'a>(
    previous: &Previous,
    members: impl ExactSizeIterator<Item = (&'a str, usize)>,
    clusters: usize,
    old_centres: Option<&[Vec<f64>]>,
) -> Matching {
    let old = previous.model.segments.len();
    let present = members.len();
    let mut counts = vec![vec![0_u64; clusters]; old];
    let mut common = 0_u64;
    let mut before = previous.members.iter().peekable();
    for (key, cluster) in members {
        while before.peek().is_some_and(|(other, _)| &**other < key) {
            before.next();
        }
        if let Some((_, segment)) = before.next_if(|(other, _)| &**other == key) {
            counts[*segment][cluster] += 1;
            common += 1;
        }
    }
    let smaller = present.min(previous.members.len()) as f64;
    let by_members = common > 0 && common as f64 >= COMMON * smaller;
    let pairs = match old_centres {
        Some(centres) if !by_members => by_distance(&previous.model.assign.centres, centres),
        _ => by_jaccard(&counts, clusters),
    };
    let mut old_of = vec![None; clusters];
    for (old, new) in pairs.into_iter().enumerate() {
        if let Some(new) = new {
            old_of[new] = Some(old);
        }
    }
    Matching {
        old_of,
        basis: if by_members || old_centres.is_none() { Basis::Members } else { Basis::Centres },
        counts,
        arrived: present as u64 - common,
        left: previous.members.len() as u64 - common,
    }
}

/// For each old segment the new one, by the members they share.
fn by_jaccard(counts: &[Vec<u64>], clusters: usize) -> Vec<Option<usize>> {
    let of_new: Vec<u64> = (0..clusters).map(|new| counts.iter().map(|row| row[new]).sum()).collect();
    let jaccard = |row: &Vec<u64>| -> Vec<f64> {
        let own: u64 = row.iter().sum();
        let index = |(&both, of_new): (&u64, &u64)| {
            let either = own + of_new - both;
            if either == 0 { 0.0 } else { both as f64 / either as f64 }
        };
        row.iter().zip(&of_new).map(index).collect()
    };
    let weights: Vec<Vec<f64>> = counts.iter().map(jaccard).collect();
    let pairs = best_pairs(&weights);
    pairs.into_iter().zip(&weights).map(|(new, row)| new.filter(|&new| row[new] >= ALIKE)).collect()
}

/// For each old segment the new one, by the distance of their centres in the old model's units.
fn by_distance(old: &[Vec<f64>], new: &[Vec<f64>]) -> Vec<Option<usize>> {
    let far = |left: &Vec<f64>, right: &Vec<f64>| squared_distance(left, right).sqrt();
    let mut gap = f64::INFINITY;
    for (number, left) in old.iter().enumerate() {
        gap = old[number + 1..].iter().map(|right| far(left, right)).fold(gap, f64::min);
    }
    let distances: Vec<Vec<f64>> =
        old.iter().map(|left| new.iter().map(|right| far(left, right)).collect()).collect();
    let longest = distances.concat().into_iter().fold(0.0, f64::max);
    // Every pair is worth something, so that as many as possible are paired before any is dropped.
    let weights: Vec<Vec<f64>> = distances
        .iter()
        .map(|row| row.iter().map(|distance| 2.0 * longest + 1.0 - distance).collect())
        .collect();
    let pairs = best_pairs(&weights);
    pairs.into_iter().zip(&distances).map(|(new, row)| new.filter(|&new| row[new] < gap / 2.0)).collect()
}

impl Matching {
    /// Overrules what the new segment `new` was matched with.
    pub(super) fn keep(&mut self, new: usize, old: Option<usize>) {
        for other in self.old_of.iter_mut().filter(|other| old.is_some() && **other == old) {
            *other = None;
        }
        self.old_of[new] = old;
    }

    /// The table of who went where; `into` are ids and names of the new segments.
    pub fn migration(&self, previous: &Model, into: &[(String, String)]) -> Migration {
        let common: u64 = self.counts.iter().flatten().sum();
        let stayed: u64 =
            self.old_of.iter().enumerate().filter_map(|(new, old)| Some(self.counts[(*old)?][new])).sum();
        let old = &previous.segments;
        Migration {
            from: old.iter().map(|segment| segment.segment_id.clone()).collect(),
            from_names: old.iter().map(|segment| segment.name.clone()).collect(),
            into: into.iter().map(|(id, _)| id.clone()).collect(),
            into_names: into.iter().map(|(_, name)| name.clone()).collect(),
            customers: self.counts.clone(),
            common,
            moved_share: if common == 0 { 0.0 } else { (common - stayed) as f64 / common as f64 },
            arrived: self.arrived,
            left: self.left,
        }
    }

    /// What became of each segment; old segments in their order, then merges, then what is new.
    pub fn lineage(&self, migration: &Migration) -> Vec<Lineage> {
        let totals: Vec<u64> = self.counts.iter().map(|row| row.iter().sum()).collect();
        let share = |old: usize, new: usize| match totals[old] {
            0 => 0.0,
            total => self.counts[old][new] as f64 / total as f64,
        };
        let clusters = self.old_of.len();
        let mut events = Vec::new();
        let mut explained_old = vec![false; totals.len()];
        let mut explained_new = vec![false; clusters];
        for (old, explained) in explained_old.iter_mut().enumerate() {
            if let Some(new) = self.old_of.iter().position(|of| *of == Some(old)) {
                *explained = true;
                explained_new[new] = true;
                if share(old, new) >= MOST || self.basis == Basis::Centres {
                    events.push(self.event(migration, Event::Survived, &[old], &[new]));
                }
            }
            let parts: Vec<usize> = (0..clusters).filter(|&new| share(old, new) >= PART).collect();
            if parts.len() >= 2 {
                *explained = true;
                parts.iter().for_each(|&new| explained_new[new] = true);
                events.push(self.event(migration, Event::Split, &[old], &parts));
            }
        }
        for (new, explained) in explained_new.iter_mut().enumerate() {
            let sources: Vec<usize> = (0..totals.len()).filter(|&old| share(old, new) >= MOST).collect();
            if sources.len() >= 2 {
                *explained = true;
                sources.iter().for_each(|&old| explained_old[old] = true);
                events.push(self.event(migration, Event::Merged, &sources, &[new]));
            }
        }
        for old in (0..totals.len()).filter(|&old| !explained_old[old]) {
            events.push(self.event(migration, Event::Disappeared, &[old], &[]));
        }
        for new in (0..clusters).filter(|&new| !explained_new[new]) {
            events.push(self.event(migration, Event::New, &[], &[new]));
        }
        events
    }

    fn event(&self, migration: &Migration, event: Event, from: &[usize], into: &[usize]) -> Lineage {
        let all: u64 = from.iter().flat_map(|&old| &self.counts[old]).sum();
        let there: u64 =
            from.iter().flat_map(|&old| into.iter().map(move |&new| self.counts[old][new])).sum();
        let overlap = (all > 0 && !into.is_empty()).then(|| there as f64 / all as f64);
        Lineage {
            event,
            from: from.iter().map(|&old| migration.from[old].clone()).collect(),
            into: into.iter().map(|&new| migration.into[new].clone()).collect(),
            overlap,
        }
    }
}
