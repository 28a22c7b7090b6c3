//! Runs in line: for a worker, for room, for a time. It must not know what a run is.

use std::collections::BTreeSet;

use super::entry::Rank;
use crate::core::ids::{RunKey, Timestamp};

/// Runs in the order in which they get what they wait for.
#[derive(Default)]
pub(super) struct Line(BTreeSet<(Rank, RunKey)>);

impl Line {
    pub(super) fn set(&mut self, rank: Rank, key: &RunKey, waits: bool) {
        let place = (rank, key.clone());
        if waits {
            self.0.insert(place);
        } else {
            self.0.remove(&place);
        }
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &RunKey> {
        self.0.iter().map(|(_, key)| key)
    }

    /// The first `count` of them, who stay in line.
    pub(super) fn front(&self, count: usize) -> Vec<RunKey> {
        self.0.iter().take(count).map(|(_, key)| key.clone()).collect()
    }

    pub(super) fn pop(&mut self) -> Option<RunKey> {
        self.0.pop_first().map(|(_, key)| key)
    }
}

/// Times at which runs want to be looked at. A time that was changed stays until it is over, and is then found
/// to be old.
#[derive(Default)]
pub(super) struct Timers(BTreeSet<(Timestamp, RunKey)>);

impl Timers {
    pub(super) fn set(&mut self, at: Timestamp, key: &RunKey) {
        self.0.insert((at, key.clone()));
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        self.0.first().map(|&(at, _)| at)
    }

    /// One whose time has come, with that time.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, RunKey)> {
        if self.first()? > now { None } else { self.0.pop_first() }
    }
}
