//! Which instants are due now, which are skipped, and what comes next.

use std::iter::successors;

use super::{CronText, Fire, MICROS, Missed, Schedule, When, micros};
use crate::core::ids::Timestamp;
use crate::core::state::spelled;

/// No more missed instants than this wait to be made up for, whatever a DAG says: the older ones are skipped.
/// Daily runs of 270 years, hourly ones of eleven.
pub const CATCHUP_CAP: u32 = 100_000;
/// Skipped instants are counted up to here.
pub const SKIPPED_COUNTED_MAX: u64 = 1_000;

/// What [`Schedule::due`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The runs to create, oldest first.
    pub fires: Vec<Fire>,
    /// Instants that were missed and are not made up for. Reported once: they lie at or before `cursor`.
    pub skipped: Option<Skipped>,
    /// To be stored together with the runs, and given to the next call.
    pub cursor: Option<Timestamp>,
    /// When to call again; in the past if more is due than the limit let through. `None`: never.
    pub next: Option<Timestamp>,
}

/// Instants that no run is created for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The first of them.
    pub from: Timestamp,
    /// The last of them.
    pub to: Timestamp,
    /// How many; `None` for more than [`SKIPPED_COUNTED_MAX`].
    pub count: Option<u64>,
    /// Why.
    pub why: SkipReason,
}

spelled! {
    /// Why missed instants are skipped.
    SkipReason {
        /// `catchup` is false: only the latest is made up for.
        NoCatchup = "no_catchup",
        /// They are older than `catchup_window`.
        Window = "window",
        /// More were missed than `catchup_max`, or than any DAG may make up for.
        Max = "max",
    }
}

/// The missed instants that are made up for: from `first` on, if any; and why not from earlier on.
struct Kept {
    first: Option<Timestamp>,
    why: SkipReason,
}

impl Schedule {
    /// What is due at `now`: at most `limit` fires, oldest first.
    ///
    /// `cursor` is the [`Due::cursor`] of the call before (`None` at first). `since` is when the DAG was first
    /// seen: without `cursor` and `start_date`, instants before it do not count as missed. The cursor never moves
    /// back, so a clock that does yields no instant twice. Asset and event schedules have nothing due here, see
    /// [`Schedule::due_by_assets`] and [`Schedule::due_by_events`].
    ///
    /// Costs no more than the fires asked for, however many were missed; with `catchup_max` (or the cap in its
    /// place) at most that many steps.
    #[must_use]
    pub fn due(&self, cursor: Option<Timestamp>, since: Timestamp, now: Timestamp, limit: usize) -> Due {
        if matches!(self.when, When::ByHand | When::Assets { .. } | When::Event { .. }) {
            return Due { fires: Vec::new(), skipped: None, cursor, next: None };
        }
        let floor = self.floor(cursor, since);
        let latest = self.previous_fire(Timestamp(now.0.saturating_add(1))).filter(|at| *at > floor);
        let Some(latest) = latest.filter(|_| limit > 0) else {
            return Due { fires: Vec::new(), skipped: None, cursor, next: self.next_fire(floor) };
        };
        let kept = self.kept(floor, latest, now);
        let skipped = self.skipped(floor, latest, &kept);
        let instants = successors(kept.first, |at| self.next_fire(*at)).take_while(|at| *at <= latest);
        let fires: Vec<Fire> = instants.take(limit).map(|at| self.fire(at)).collect();
        let cursor = fires.last().map_or(latest, |fire| fire.at);
        Due { fires, skipped, cursor: Some(cursor), next: self.next_fire(cursor) }
    }

    /// Instants at or before this are no longer, or never were, this DAG's to make up for.
    pub(super) fn floor(&self, cursor: Option<Timestamp>, since: Timestamp) -> Timestamp {
        cursor.unwrap_or_else(|| Timestamp(self.start_date.unwrap_or(since).0.saturating_sub(1)))
    }

    fn kept(&self, floor: Timestamp, latest: Timestamp, now: Timestamp) -> Kept {
        let (max, over) = match self.catchup.missed {
            Missed::Latest => (1, SkipReason::NoCatchup),
            Missed::Every => (self.catchup.max.unwrap_or(CATCHUP_CAP).min(CATCHUP_CAP), SkipReason::Max),
        };
        let mut kept = Kept { first: self.next_fire(floor), why: over };
        if let Some(window) = self.catchup.window {
            let oldest = Timestamp(now.0.saturating_sub(micros(window)).saturating_sub(1));
            if oldest > floor {
                let first = self.next_fire(oldest).filter(|at| *at <= latest);
                kept = Kept { first, why: SkipReason::Window };
            }
        }
        let Some(first) = kept.first else { return kept };
        match self.nth_newest(first, latest, max) {
            Some(newer) => Kept { first: Some(newer), why: over },
            None => kept,
        }
    }

    /// The n-th newest instant of `[first, latest]`; `None` if there are not so many.
    fn nth_newest(&self, first: Timestamp, latest: Timestamp, n: u32) -> Option<Timestamp> {
        if let When::Every(pace) = self.when {
            let back = micros(pace).checked_mul(i64::from(n.saturating_sub(1)))?;
            return latest.0.checked_sub(back).map(Timestamp).filter(|at| *at >= first);
        }
        if self.fires_at_most(first, latest) < u64::from(n) {
            return None;
        }
        let mut at = latest;
        for _ in 1..n {
            at = self.previous_fire(at).filter(|at| *at >= first)?;
        }
        Some(at)
    }

    /// No more instants than this lie in `[first, latest]`, quickly said. A day on which clocks are set back may
    /// repeat all of a beat's readings; one day in fifty is more of those than any zone has had.
    fn fires_at_most(&self, first: Timestamp, latest: Timestamp) -> u64 {
        let span = u64::try_from(latest.0.saturating_sub(first.0)).unwrap_or(0);
        let days = span / (86_400 * MICROS.unsigned_abs()) + 2;
        let a_day: u64 = self.crons().iter().map(CronText::a_day).sum();
        (days + days / 50 + 1).saturating_mul(a_day)
    }

    fn skipped(&self, floor: Timestamp, latest: Timestamp, kept: &Kept) -> Option<Skipped> {
        let from = self.next_fire(floor)?;
        let to = match kept.first {
            Some(first) => self.previous_fire(first)?,
            None => latest,
        };
        if from > to {
            return None;
        }
        let count = self.counted(from, to);
        Some(Skipped { from, to, count, why: kept.why })
    }

    /// How many instants lie in `[from, to]`, both of them instants, if that is quickly said.
    fn counted(&self, from: Timestamp, to: Timestamp) -> Option<u64> {
        if let When::Every(pace) = self.when {
            return u64::try_from((to.0 - from.0) / micros(pace) + 1).ok();
        }
        let instants = successors(Some(from), |at| self.next_fire(*at)).take_while(|at| *at <= to);
        let counted = instants.take(usize::try_from(SKIPPED_COUNTED_MAX + 1).ok()?).count() as u64;
        (counted <= SKIPPED_COUNTED_MAX).then_some(counted)
    }
}
