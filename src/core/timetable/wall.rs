//! The wall clock of a zone, and the instants at which a cron text fires by it. All numbers are whole seconds:
//! instants since 1970-01-01T00:00:00Z, wall clock readings since 1970-01-01T00:00:00 of that wall.
//!
//! Between two changes of its offset a zone is plain addition, so both searches go from change to change.

use chrono::{DateTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::cron::CronText;
use super::{Fold, Gap};

/// In every zone two changes of offset lie more than six days apart, so within this span there is at most one.
const CHANGES_APART: i64 = 3 * 86_400;
/// No clock was ever set forward or back by more (Alaska crossed the date line in 1867: 25.8 hours).
const CHANGE_MAX: i64 = 27 * 3_600;
/// The years 1 to 4999: what the cron texts are searched in.
const SECONDS_MIN: i64 = -62_135_596_800;
const SECONDS_MAX: i64 = 95_617_497_600;

/// What a zone does to a schedule where its clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wall {
    pub(super) zone: Tz,
    pub(super) gap: Gap,
    pub(super) fold: Fold,
}

/// The clock is set: at `at` the offset goes from `before` to `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    at: i64,
    before: i64,
    after: i64,
}

impl Change {
    /// How long the wall clock times that do not exist go on; 0 or less if there are none.
    fn gap(self) -> i64 {
        self.after - self.before
    }

    /// How long the wall clock times that occur twice go on; 0 or less if there are none.
    fn fold(self) -> i64 {
        self.before - self.after
    }
}

pub(super) fn naive(seconds: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp(seconds, 0).map(|at| at.naive_utc())
}

impl Wall {
    /// The offset in force at `at`, seconds east of Greenwich.
    pub(super) fn offset(self, at: i64) -> i64 {
        let utc = naive(at.clamp(SECONDS_MIN, SECONDS_MAX)).expect("the bounds are years that exist");
        i64::from(self.zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
    }

    /// The change in `(from, to]`, which spans at most [`CHANGES_APART`].
    fn change(self, from: i64, to: i64) -> Option<Change> {
        let (before, after) = (self.offset(from), self.offset(to));
        if before == after {
            return None;
        }
        let (mut low, mut high) = (from, to);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.offset(middle) == before { low = middle } else { high = middle }
        }
        Some(Change { at: high, before, after })
    }

    /// The first change in `(from, to]`.
    fn first_change(self, mut from: i64, to: i64) -> Option<Change> {
        while from < to {
            let next = to.min(from + CHANGES_APART);
            if let Some(change) = self.change(from, next) {
                return Some(change);
            }
            from = next;
        }
        None
    }

    /// The last change in `(from, to]`.
    fn last_change(self, from: i64, mut to: i64) -> Option<Change> {
        while from < to {
            let next = from.max(to - CHANGES_APART);
            if let Some(change) = self.change(next, to) {
                return Some(change);
            }
            to = next;
        }
        None
    }

    /// The instant at which the wall clock shows `reading`: the first of two, and one that does not exist is
    /// moved forward by the gap.
    pub(super) fn instant(self, reading: i64) -> i64 {
        let at = reading - self.offset(reading - CHANGE_MAX);
        match self.last_change(reading - CHANGE_MAX, reading + CHANGE_MAX) {
            None => at,
            // Before the change, or in the gap: the old offset. In the fold: the first pass has the old one too.
            Some(change) if reading < change.at + change.before.max(change.after) => reading - change.before,
            Some(change) => reading - change.after,
        }
    }

    /// The policy as it applies to `cron`: one that runs through fires whenever the wall clock matches.
    fn for_cron(self, cron: &CronText) -> Self {
        if cron.runs_through() { Self { gap: Gap::Skip, fold: Fold::Both, ..self } } else { self }
    }

    /// The first fire of `cron` after `after`.
    pub(super) fn next(self, cron: &CronText, after: i64) -> Option<i64> {
        let wall = self.for_cron(cron);
        let mut from = after.max(SECONDS_MIN).checked_add(1)?;
        while from < SECONDS_MAX {
            let offset = wall.offset(from);
            let behind = wall.change(from - CHANGES_APART, from);
            let mut reading = from + offset;
            if let Some(change) = behind
                && wall.fold == Fold::First
            {
                reading = reading.max(change.at + change.before);
            }
            let plain = cron.next_reading(reading).map(|reading| reading - offset);
            let shifted = behind.and_then(|change| wall.next_shifted(cron, change, from));
            let best = match (plain, shifted) {
                (Some(plain), Some(shifted)) => plain.min(shifted),
                (plain, shifted) => plain.or(shifted)?,
            };
            match wall.first_change(from, best + CHANGE_MAX) {
                Some(change) if change.at <= best => from = change.at,
                Some(change) if wall.fold == Fold::Last && best >= change.at - change.fold() => {
                    from = change.at;
                }
                Some(_) | None => return Some(best),
            }
        }
        None
    }

    /// The first fire at or after `from` that was moved out of the gap of `change`.
    fn next_shifted(self, cron: &CronText, change: Change, from: i64) -> Option<i64> {
        if self.gap == Gap::Skip || from >= change.at + change.gap() {
            return None;
        }
        let reading = cron.next_reading(from.max(change.at) + change.before)?;
        (reading < change.at + change.after).then(|| reading - change.before)
    }

    /// The last fire of `cron` before `before`.
    pub(super) fn previous(self, cron: &CronText, before: i64) -> Option<i64> {
        let wall = self.for_cron(cron);
        let mut to = before.min(SECONDS_MAX).checked_sub(1)?;
        while to > SECONDS_MIN {
            let offset = wall.offset(to);
            let mut reading = to + offset;
            if wall.fold == Fold::Last
                && let Some(change) = wall.change(to, to + CHANGE_MAX)
                && change.fold() > 0
            {
                reading = reading.min(change.at + change.after - 1);
            }
            let plain = cron.previous_reading(reading).map(|reading| reading - offset)?;
            let Some(change) = wall.last_change(plain - CHANGE_MAX, to) else { return Some(plain) };
            let shifted = wall.previous_shifted(cron, change, to);
            let again = wall.fold == Fold::First && plain < change.at + change.fold();
            let plain = (plain >= change.at && !again).then_some(plain);
            if let Some(best) = plain.max(shifted) {
                return Some(best);
            }
            to = change.at - 1;
        }
        None
    }

    /// The last fire at or before `to` that was moved out of the gap of `change`.
    fn previous_shifted(self, cron: &CronText, change: Change, to: i64) -> Option<i64> {
        if self.gap == Gap::Skip || change.gap() <= 0 {
            return None;
        }
        let last = (to + change.before).min(change.at + change.after - 1);
        let reading = cron.previous_reading(last)?;
        (reading >= change.at + change.before).then(|| reading - change.before)
    }
}
