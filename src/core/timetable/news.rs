//! Runs that news starts: new data in assets, and received events in batches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Fire, Schedule, When};
use crate::core::ids::Timestamp;

/// Which assets must be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssetCondition {
    /// This one.
    Asset(Arc<str>),
    /// All of these: met when the last of them is.
    All(Vec<AssetCondition>),
    /// One of these: met when the first of them is.
    Any(Vec<AssetCondition>),
}

/// A task wrote to an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetEvent {
    /// The asset.
    pub asset: Arc<str>,
    /// When.
    pub at: Timestamp,
}

/// Whether a run is due because data is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssetDue {
    /// A run is due. It consumes every event that was given.
    Fire {
        /// The run.
        fire: Fire,
        /// To be stored together with the run, and given to the next call.
        cursor: Timestamp,
    },
    /// Nothing is due.
    Wait {
        /// Assets without an event that could meet the condition, in alphabetical order; empty if it is met.
        missing: Vec<Arc<str>>,
        /// When to ask again even if no event comes: the next instant of the cron texts, or `start_date`.
        next: Option<Timestamp>,
    },
}

impl AssetCondition {
    /// All assets it names, in alphabetical order.
    #[must_use]
    pub fn assets(&self) -> BTreeSet<Arc<str>> {
        match self {
            Self::Asset(name) => BTreeSet::from([Arc::clone(name)]),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::assets).collect(),
        }
    }

    /// When it was met, given the first event of each asset; `None` if it is not. Without parts, `All` and `Any` are
    /// never met.
    #[must_use]
    pub fn met_at(&self, first: &BTreeMap<&str, Timestamp>) -> Option<Timestamp> {
        match self {
            Self::Asset(name) => first.get(&**name).copied(),
            Self::All(parts) => {
                let met: Option<Vec<Timestamp>> = parts.iter().map(|part| part.met_at(first)).collect();
                met?.into_iter().max()
            }
            Self::Any(parts) => parts.iter().filter_map(|part| part.met_at(first)).min(),
        }
    }
}

impl fmt::Display for AssetCondition {
    /// `a`, `a and b`, `a and (b or c)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, word) = match self {
            Self::Asset(name) => return f.write_str(name),
            Self::All(parts) => (parts, " and "),
            Self::Any(parts) => (parts, " or "),
        };
        let texts: Vec<String> = parts
            .iter()
            .map(|part| match part {
                Self::Asset(name) => name.to_string(),
                Self::All(inner) | Self::Any(inner) if inner.len() < 2 => part.to_string(),
                Self::All(_) | Self::Any(_) => format!("({part})"),
            })
            .collect();
        f.write_str(&texts.join(word))
    }
}

impl Schedule {
    /// What follows at `now` from the `events` since the DAG's last run, in any order.
    ///
    /// Without cron texts the run is due at the moment the condition was met, or just after the run before if
    /// that was no earlier, so that no two runs stand for one moment; its data interval reaches from the first
    /// event to there. With them both are needed: it is due at the later of the latest instant after
    /// `cursor` and the moment the condition was met, and stands for the interval that ended at that instant;
    /// earlier instants without new data are passed over. `cursor` and `since` are as in [`Schedule::due`].
    #[must_use]
    pub fn due_by_assets(
        &self,
        events: &[AssetEvent],
        cursor: Option<Timestamp>,
        since: Timestamp,
        now: Timestamp,
    ) -> AssetDue {
        let When::Assets { condition, cron } = &self.when else {
            return AssetDue::Wait { missing: Vec::new(), next: None };
        };
        let mut first: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for event in events {
            let at = first.entry(&event.asset).or_insert(event.at);
            *at = event.at.min(*at);
        }
        let met_at = condition.met_at(&first);
        let missing = if met_at.is_some() {
            Vec::new()
        } else {
            condition.assets().into_iter().filter(|name| !first.contains_key(&**name)).collect()
        };
        if let Some(start) = self.start_date.filter(|start| now < *start) {
            return AssetDue::Wait { missing, next: Some(start) };
        }
        if self.end_date.is_some_and(|end| now > end) {
            return AssetDue::Wait { missing, next: None };
        }
        if cron.is_empty() {
            let Some(at) = met_at else { return AssetDue::Wait { missing, next: None } };
            let fire = fire_by_news(first.values().min().copied(), at, cursor);
            return AssetDue::Fire { cursor: fire.at, fire };
        }
        let floor = self.floor(cursor, since);
        let latest = self.previous_fire(Timestamp(now.0.saturating_add(1))).filter(|at| *at > floor);
        match (latest, met_at) {
            (Some(latest), Some(met_at)) => {
                let fire = Fire { at: latest.max(met_at), ..self.fire(latest) };
                AssetDue::Fire { fire, cursor: latest }
            }
            (Some(latest), None) => AssetDue::Wait { missing, next: self.next_fire(latest) },
            (None, _) => AssetDue::Wait { missing, next: self.next_fire(floor) },
        }
    }
}

/// A run that news makes due at `at`, the first of it having come at `first`. Its moment is later than that of
/// the run before.
fn fire_by_news(first: Option<Timestamp>, at: Timestamp, cursor: Option<Timestamp>) -> Fire {
    let at = cursor.map_or(at, |before| at.max(Timestamp(before.0.saturating_add(1))));
    let begin = first.map_or(at, |first| first.min(at));
    Fire { at, logical_date: at, data_interval_start: begin, data_interval_end: at }
}

/// What [`Schedule::due_by_events`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsDue {
    /// The runs to create, each with how many of the waiting events it consumes: the oldest go to the first.
    pub fires: Vec<(Fire, usize)>,
    /// To be stored together with the runs, and given to the next call.
    pub cursor: Option<Timestamp>,
    /// When to ask again even if no event comes; in the past if more is due than the limit let through.
    pub next: Option<Timestamp>,
}

impl Schedule {
    /// Whether runs are started by news: of assets, or by received events.
    #[must_use]
    pub fn follows_news(&self) -> bool {
        match self.when {
            When::Assets { .. } | When::Event { .. } => true,
            When::ByHand | When::Cron(_) | When::Once | When::Every(_) => false,
        }
    }

    /// What follows at `now` from the received events that wait, given by their times of arrival in ascending
    /// order: at most `limit` runs. A run is due when its batch is; its data interval reaches from the first
    /// event of the batch to there. `cursor` is as in [`Schedule::due`].
    #[must_use]
    pub fn due_by_events(
        &self,
        arrivals: &[Timestamp],
        cursor: Option<Timestamp>,
        now: Timestamp,
        limit: usize,
    ) -> EventsDue {
        let nothing = EventsDue { fires: Vec::new(), cursor, next: None };
        let When::Event { batching, .. } = &self.when else { return nothing };
        if self.end_date.is_some_and(|end| now > end) {
            return nothing;
        }
        if let Some(start) = self.start_date.filter(|start| now < *start && !arrivals.is_empty()) {
            return EventsDue { next: Some(start), ..nothing };
        }
        let batches = batching.due(arrivals, now, limit);
        let mut due = EventsDue { next: batches.next, ..nothing };
        let mut waiting = arrivals;
        for batch in batches.due {
            let fire = fire_by_news(waiting.first().copied(), batch.at, due.cursor);
            due.cursor = Some(fire.at);
            due.fires.push((fire, batch.events));
            waiting = &waiting[batch.events..];
        }
        due
    }
}

/// When received events start a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// A batch starts at the latest so long after its first event.
    pub wait_max: Duration,
    /// A batch has at most so many events; at least 1.
    pub max: u32,
}

/// Events for one run: the next `events` of those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// How many.
    pub events: usize,
    /// When it was full, or had waited long enough.
    pub at: Timestamp,
}

/// What [`Batching::due`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches {
    /// Batches to start, the oldest events first.
    pub due: Vec<Batch>,
    /// When to ask again even if no event comes; in the past if more is due than the limit let through.
    pub next: Option<Timestamp>,
}

impl Batching {
    /// Cuts the waiting events, given by their times of arrival in ascending order, into batches that are due
    /// at `now`, at most `limit` of them. A batch is due when it is full or its first event has waited for
    /// `wait_max`; it then takes everything that waits, up to `max`.
    #[must_use]
    pub fn due(&self, arrivals: &[Timestamp], now: Timestamp, limit: usize) -> Batches {
        let max = usize::try_from(self.max.max(1)).unwrap_or(usize::MAX);
        let mut due = Vec::new();
        let mut waiting = arrivals;
        while let Some(first) = waiting.first() {
            let closes = first.plus(self.wait_max);
            let at = waiting.get(max - 1).map_or(closes, |full| closes.min(*full));
            if due.len() == limit || (waiting.len() < max && now < closes) {
                return Batches { due, next: Some(at) };
            }
            let events = max.min(waiting.len());
            due.push(Batch { events, at });
            waiting = &waiting[events..];
        }
        Batches { due, next: None }
    }
}
