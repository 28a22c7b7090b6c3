//! Runs that cannot be read or written are set aside, so that they keep nobody else from going on: for a time if
//! it may help to try again, or else until somebody has changed them. People can see which they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Refused;
use super::driver::Driver;
use super::entry::{Entry, InFlight, Posted};
use crate::core::ids::{RunKey, Timestamp};
use crate::store::StoreError;

/// Commits from one version of a run that are refused before it is set aside. If the version has moved, another
/// writer was faster and the run gets on.
const REFUSALS_MAX: u32 = 3;
/// For how long at first; it doubles up to the longest.
const ASIDE_FIRST: Duration = Duration::from_secs(1);
const ASIDE_MAX: Duration = Duration::from_secs(60);
/// People are told of a run that is set aside so often in a row: once may be a crowd at a limit.
const TOLD_FROM: u32 = 2;

/// What is known of the refused commits of a run.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The version they were made from.
    version: Option<i64>,
    in_a_row: u32,
    times_aside: u32,
    until: Option<Timestamp>,
}

impl Refusals {
    /// Counts a refusal; says for how long the run is set aside if it is one too many.
    fn count(&mut self, version: Option<i64>) -> Option<Duration> {
        if self.version != version {
            *self = Self { version, ..Self::default() };
        }
        self.in_a_row += 1;
        if self.in_a_row < REFUSALS_MAX {
            return None;
        }
        self.in_a_row = 0;
        let doubled = ASIDE_FIRST.saturating_mul(1 << self.times_aside.min(16));
        self.times_aside += 1;
        Some(doubled.min(ASIDE_MAX))
    }

    /// Whether the run is set aside at `now`. A clock that was set back does not make it longer.
    pub(super) fn set_aside(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until && until.since(now) <= ASIDE_MAX)
    }
}

/// The runs that are set aside, each with the reason.
#[derive(Clone, Default)]
pub(super) struct Aside(Arc<Mutex<BTreeMap<RunKey, String>>>);

impl Aside {
    fn put(&self, key: &RunKey, why: String) {
        self.0.lock().expect("nothing panics while the list is held").insert(key.clone(), why);
    }

    pub(super) fn remove(&self, key: &RunKey) {
        self.0.lock().expect("nothing panics while the list is held").remove(key);
    }

    pub(super) fn all(&self) -> Vec<(RunKey, String)> {
        let all = self.0.lock().expect("nothing panics while the list is held");
        all.iter().map(|(key, why)| (key.clone(), why.clone())).collect()
    }
}

impl Driver {
    /// A commit was refused because something is not as the decision assumed: the run is loaded and stepped
    /// again, at once or after a while.
    pub(super) fn conflicted(&mut self, key: &RunKey, refused: InFlight, why: &str) {
        let now = (self.settings.now)();
        let InFlight { posted, decision, .. } = refused;
        for claim in &decision.claims {
            self.workers.give_back(&claim.session);
        }
        self.release(key);
        let Some(entry) = self.runs.get_mut(key) else { return };
        let version = entry.value.as_deref().map(|value| value.run.version);
        entry.forget();
        entry.inbox.splice(0..0, posted);
        entry.inbox.push(Posted::tick());
        entry.unsure.extend_from_slice(&decision.claims);
        let Some(span) = entry.refusals.count(version) else {
            tracing::debug!(run = %key.run_id, why, "another writer was faster: loading the run again");
            self.dirty.insert(key.clone());
            return;
        };
        let until = now.plus(span);
        (entry.refusals.until, entry.next_due) = (Some(until), Some(until));
        let is_told = entry.refusals.times_aside >= TOLD_FROM;
        self.timers.set(until, key);
        if is_told {
            tracing::error!(dag = %key.dag_id, run = %key.run_id, why, %until, "the run cannot be written and is set aside");
            self.aside.put(key, format!("its commits are refused again and again: {why}"));
        } else {
            tracing::warn!(dag = %key.dag_id, run = %key.run_id, why, %until, "the run is set aside for a moment");
        }
    }

    /// A run that cannot be read or written is left alone until it changes. A process without patience ends.
    pub(super) fn give_up(&mut self, key: &RunKey, error: &StoreError) -> Result<(), StoreError> {
        self.release(key);
        let entry = self.drop_entry(key);
        if self.settings.tries_max.is_some() {
            return Err(error.clone());
        }
        tracing::error!(dag = %key.dag_id, run = %key.run_id, %error, "the run is left alone until it changes");
        self.aside.put(key, format!("it is left alone until somebody changes it: {error}"));
        if let Some(entry) = entry {
            let version = entry.value.as_deref().map_or(-1, |value| value.run.version);
            self.broken.insert(key.clone(), version);
            for posted in entry.inbox {
                posted.answer(Err(Refused::Store(error.clone())));
            }
        }
        Ok(())
    }

    /// A step of the run has come to its end: if it was set aside, that is over.
    pub(super) fn goes_on(&mut self, key: &RunKey) {
        if let Some(entry) = self.runs.get_mut(key) {
            entry.refusals = Refusals::default();
        }
        self.aside.remove(key);
    }
}

impl Entry {
    pub(super) fn is_set_aside(&self, now: Timestamp) -> bool {
        self.refusals.set_aside(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_from_one_version_set_a_run_aside_and_ever_longer() {
        let mut refusals = Refusals::default();
        for version in 0..100 {
            assert_eq!(refusals.count(Some(version)), None, "another writer was faster each time");
        }
        let mut spans = Vec::new();
        for _ in 0..30 {
            spans.extend(refusals.count(Some(99)).map(|span| span.as_secs()));
        }
        assert_eq!(spans, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_wait() {
        let mut refusals = Refusals { until: Some(Timestamp(100_000_000)), ..Refusals::default() };
        assert!(refusals.set_aside(Timestamp(99_000_000)));
        assert!(!refusals.set_aside(Timestamp(100_000_000)));
        assert!(!refusals.set_aside(Timestamp(30_000_000)), "seventy seconds are longer than any wait");
        refusals.until = None;
        assert!(!refusals.set_aside(Timestamp(0)));
    }
}
