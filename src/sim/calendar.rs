//! The schedule of a simulated DAG: evenly spaced instants from a start to an end.

use crate::core::mutant::{self, Mutant};

/// Instants at `start + n × every` up to `end`, in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    pub(super) start: i64,
    pub(super) every: i64,
    pub(super) end: i64,
    /// Whether every missed instant gets a run, or the last one alone.
    pub(super) catchup: bool,
}

/// What is due: instants to fire, instants that the policy leaves out, and where the cursor stands then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) fire: Vec<i64>,
    pub(super) skip: Vec<i64>,
    pub(super) cursor: Option<i64>,
}

/// Runs that one transaction makes at most.
const BATCH_MAX: usize = 3;

impl Calendar {
    /// Every instant, in order.
    pub(super) fn instants(&self) -> impl Iterator<Item = i64> {
        let (start, every, end) = (self.start, self.every, self.end);
        (0..).map(move |n| start + n * every).take_while(move |&at| at <= end)
    }

    /// What is due at `now` after `cursor`; `None` if nothing is.
    pub(super) fn due(&self, cursor: Option<i64>, now: i64) -> Option<Due> {
        let mut missed: Vec<i64> =
            self.instants().filter(|&at| at <= now && cursor.is_none_or(|cursor| at > cursor)).collect();
        if mutant::is(Mutant::MissedGiveUp) && missed.len() > 3 {
            return None;
        }
        let skip = if self.catchup {
            missed.truncate(BATCH_MAX);
            Vec::new()
        } else {
            let last = missed.len().saturating_sub(1);
            missed.drain(..last).collect()
        };
        let cursor = Some(*missed.last()?);
        Some(Due { fire: missed, skip, cursor })
    }

    /// Whether nothing is left to fire after `cursor`.
    pub(super) fn is_over(&self, cursor: Option<i64>) -> bool {
        self.instants().last().is_none_or(|last| cursor.is_some_and(|cursor| cursor >= last))
    }
}
