//! Ids and names of the segments of one run, kept from the run before where they are the same.

use std::collections::BTreeSet;

use serde::Serialize;

use super::build::{ColumnView, finite};
use super::fitting::Rows;
use crate::segment::artefact::{Assignment, RfmCuts};
use crate::segment::identity::{Lineage, Matching, Migration, match_segments};
use crate::segment::names::{Effect, Portrait, names, segment_id};
use crate::segment::rfm::Cuts;
use crate::segment::spec::{Feature, NamingMode, Role};
use crate::segment::statistics::{quantile, sorted};

/// What identities are found from; one entry per segment in final order.
pub(super) struct Known<'a, 'b> {
    pub(super) model: &'a str,
    pub(super) rows: &'a Rows<'b>,
    pub(super) views: &'a [ColumnView<'b>],
    pub(super) members: &'a [Vec<usize>],
    /// z by segment and prepared column.
    pub(super) effects: &'a [Vec<f64>],
    pub(super) centres: &'a [Vec<f64>],
    /// Names that belong to the rule.
    pub(super) names: &'a [Option<String>],
    pub(super) rfm: Option<&'a RfmCuts>,
    /// One per row of the matrix.
    pub(super) segment_of: &'a [Assignment],
}

/// Ids and names in the order of segments, and what became of the ones before.
pub(super) struct Identity {
    pub(super) ids: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) migration: Option<Migration>,
    pub(super) lineage: Vec<Lineage>,
    pub(super) renames: Vec<Rename>,
}

/// A segment whose kept name no longer says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rename {
    /// The segment.
    pub segment_id: String,
    /// The name it keeps.
    pub name: String,
    /// The name it would get today.
    pub suggested: String,
}

impl Identity {
    pub(super) fn find(known: &Known<'_, '_>) -> Self {
        let matching = known.matching();
        let ids = known.ids(matching.as_ref());
        let portraits = known.portraits();
        let overrides = &known.rows.spec.naming.overrides;
        let before = known.rows.previous.map(|previous| &previous.model.segments);
        let kept = |index: usize| {
            let old = matching.as_ref()?.old_of[index]?;
            before.map(|segments| segments[old].name.clone())
        };
        let given: Vec<Option<String>> = (0..ids.len())
            .map(|index| {
                let fixed = known.names[index].clone();
                overrides.get(&ids[index]).cloned().or(fixed).or_else(|| kept(index))
            })
            .collect();
        let mode = known.rows.spec.naming.mode;
        let chosen = named(mode, &portraits, &given);
        let suggested = named(mode, &portraits, &vec![None; ids.len()]);
        let renames = (0..ids.len())
            .filter(|&index| overrides.get(&ids[index]).is_none() && known.names[index].is_none())
            .filter(|&index| kept(index).is_some() && stem(&chosen[index]) != stem(&suggested[index]))
            .map(|index| Rename {
                segment_id: ids[index].clone(),
                name: chosen[index].clone(),
                suggested: suggested[index].clone(),
            })
            .collect();
        let pairs: Vec<(String, String)> = ids.iter().cloned().zip(chosen.iter().cloned()).collect();
        let migration = matching.as_ref().zip(known.rows.previous);
        let migration = migration.map(|(matching, previous)| matching.migration(&previous.model, &pairs));
        let lineage =
            matching.as_ref().zip(migration.as_ref()).map(|(matching, table)| matching.lineage(table));
        Self { ids, names: chosen, lineage: lineage.unwrap_or_default(), migration, renames }
    }
}

/// A name without the number that only keeps two of the same apart.
fn stem(name: &str) -> &str {
    let number = |(_, last): &(&str, &str)| last.parse::<u32>().is_ok();
    name.rsplit_once(' ').filter(number).map_or(name, |(stem, _)| stem)
}

fn named(mode: NamingMode, portraits: &[Portrait<'_>], given: &[Option<String>]) -> Vec<String> {
    match mode {
        NamingMode::Centres => {
            let portraits = portraits.iter().zip(given);
            let with_given = portraits.map(|(of, given)| Portrait { given: given.as_deref(), ..of.clone() });
            names(&with_given.collect::<Vec<_>>())
        }
        NamingMode::Numbers => {
            let mut taken: BTreeSet<&str> = given.iter().flatten().map(String::as_str).collect();
            let numbered: Vec<String> =
                (1..=2 * given.len()).map(|number| format!("Segment {number}")).collect();
            let mut free = numbered.iter().filter(|name| taken.insert(name));
            let mut next = || free.next().cloned().expect("there are twice as many numbers as segments");
            given.iter().map(|given| given.clone().unwrap_or_else(&mut next)).collect()
        }
    }
}

impl Known<'_, '_> {
    /// The comparison with the run before; segments whose names belong to a rule match by name.
    fn matching(&self) -> Option<Matching> {
        let previous = self.rows.previous?;
        let to = &previous.model.features;
        let mapped = self.centres.iter().map(|centre| self.rows.preparation.remap(centre, to));
        let old_centres: Option<Vec<Vec<f64>>> = mapped.collect();
        let kept = self.rows.kept;
        let members =
            kept.iter().zip(self.segment_of).map(|(&row, found)| (&*self.rows.keys[row], found.segment));
        let mut matching = match_segments(previous, members, self.centres.len(), old_centres.as_deref());
        if self.names.iter().any(Option::is_some) {
            for (index, name) in self.names.iter().enumerate() {
                let Some(name) = name else { continue };
                let id = self.rule_id(name);
                let same = previous.model.segments.iter().position(|segment| segment.segment_id == id);
                matching.keep(index, same);
            }
        }
        Some(matching)
    }

    fn rule_id(&self, name: &str) -> String {
        segment_id(self.model, &[name.to_owned()], &[0.0])
    }

    fn ids(&self, matching: Option<&Matching>) -> Vec<String> {
        let columns: Vec<String> = self.views.iter().map(|view| view.name.clone()).collect();
        let before = self.rows.previous.map(|previous| &previous.model.segments);
        let mut taken: BTreeSet<String> =
            before.into_iter().flatten().map(|segment| segment.segment_id.clone()).collect();
        let id = |index: usize| {
            if let Some(name) = &self.names[index] {
                return self.rule_id(name);
            }
            let kept = matching.and_then(|matching| matching.old_of[index]).zip(before);
            if let Some((old, segments)) = kept {
                return segments[old].segment_id.clone();
            }
            // A retired id is never given again, not even to a centre of the same bits.
            let salted = |salt: usize| match salt {
                0 => segment_id(self.model, &columns, &self.centres[index]),
                _ => segment_id(&format!("{} {salt}", self.model), &columns, &self.centres[index]),
            };
            let new = (0..).map(salted).find(|id| !taken.contains(id)).expect("ids do not run out");
            taken.insert(new.clone());
            new
        };
        (0..self.centres.len()).map(id).collect()
    }

    fn portraits(&self) -> Vec<Portrait<'_>> {
        let spec = self.rows.spec;
        let portrait = |index: usize| {
            let scores = self.rfm.and_then(|cuts| {
                let recency = self.median_score(Role::Recency, index, &cuts.r)?;
                let frequency = self.median_score(Role::Frequency, index, &cuts.f)?;
                Some((recency, frequency))
            });
            let features = self.views.iter().zip(&self.effects[index]).filter_map(|(view, &z)| {
                let Feature(feature) =
                    spec.features.iter().find(|Feature(of)| of.name == view.feature.name())?;
                let counts = view.raw.is_some() && (scores.is_none() || feature.role().is_none());
                counts.then_some(Effect {
                    feature: &feature.name,
                    z,
                    low_word: feature.low_word.as_deref(),
                    high_word: feature.high_word.as_deref(),
                })
            });
            Portrait { given: None, rfm: scores, effects: features.collect() }
        };
        (0..self.centres.len()).map(portrait).collect()
    }

    /// The median of the members' scores, halves up.
    fn median_score(&self, role: Role, index: usize, cuts: &Cuts) -> Option<u8> {
        let Feature(found) =
            self.rows.spec.features.iter().find(|Feature(feature)| feature.role() == Some(role))?;
        let of_role = |view: &&ColumnView<'_>| view.raw.is_some() && view.feature.name() == found.name;
        let raw = self.views.iter().find(of_role)?.raw.as_ref()?;
        let values = finite(raw, self.members[index].iter().copied());
        let scores: Vec<f64> = values.iter().map(|&value| f64::from(cuts.score(value))).collect();
        (!scores.is_empty()).then(|| quantile(&sorted(&scores), 0.5).round() as u8)
    }
}
