//! When a DAG runs: [`Schedule`], a plain value that says at which instants runs are due ([`Schedule::due`]) and
//! which span of data each stands for. Pure: `now` is an argument, the memory of what was considered is the
//! caller's [`Due::cursor`].
//!
//! # The wall clock
//! A cron text is read on the wall clock of the DAG's zone, by two rules.
//!
//! 1. **A time of day** (second, minute and hour are numbers, lists or ranges without a step: `30 2 * * *`,
//!    `0 9-17 * * *`) fires once for every reading that matches, whatever the clocks do. A reading that does not exist
//!    because the clock was set forward by g fires g later ([`Gap::Shift`]: 02:30 becomes 03:30) or not at all
//!    ([`Gap::Skip`]). A reading that occurs twice fires the first time, the last time, or both ([`Fold`]).
//! 2. **A steady beat** (the second, minute or hour field holds `*` or a step: `*/5 * * * *`, `0 * * * *`,
//!    `*/10 2 * * *`) runs through: it fires whenever the clock shows a reading that matches, so in both passes of a
//!    repeated hour and never in a gap, in which no real time passes. `dst` does not apply to it.
//!
//! Several cron texts fire when one of them does; two that meet at one instant are one fire. Zones are those of
//! the IANA database; fires are whole seconds between the years 1 and 4999.
//!
//! # The other clocks
//! `every` counts real time from `start_date`, or without one from Monday, 1970-01-05T00:00:00Z, so that pace alone
//! decides and a restart changes nothing. `@once` fires at `start_date`.
//!
//! # Data intervals
//! A fire stands for `[previous fire, this fire)`. The fire before the first one is where it would have been
//! without `start_date`, so the first takes one period back.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDateTime;
use chrono_tz::Tz;

use super::ids::Timestamp;

mod cron;
mod due;
mod news;
mod wall;

pub use cron::{BadCron, CronText, PRESETS};
pub use due::{CATCHUP_CAP, Due, SKIPPED_COUNTED_MAX, SkipReason, Skipped};
pub use news::{AssetCondition, AssetDue, AssetEvent, Batch, Batches, Batching, EventsDue};
use wall::Wall;

/// Where `every` begins to count if there is no `start_date`: Monday, 1970-01-05T00:00:00Z.
const EVERY_ORIGIN: Timestamp = Timestamp(4 * 86_400 * 1_000_000);

/// When a DAG runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// What starts a run.
    pub when: When,
    /// What `logical_date` is.
    pub timetable: Timetable,
    /// The zone whose wall clock cron texts are read on.
    pub timezone: Tz,
    /// A local time that does not exist.
    pub gap: Gap,
    /// A local time that occurs twice.
    pub fold: Fold,
    /// No run before; an instant at this very moment counts.
    pub start_date: Option<Timestamp>,
    /// No run after; an instant at this very moment counts.
    pub end_date: Option<Timestamp>,
    /// What becomes of instants that nobody was there for.
    pub catchup: Catchup,
}

/// What starts a run.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// People and programs only.
    ByHand,
    /// The wall clock: at least one cron text.
    Cron(Vec<CronText>),
    /// Once, at `start_date`.
    Once,
    /// At a steady pace of real time.
    Every(Duration),
    /// New data.
    Assets {
        /// Which assets must be new.
        condition: AssetCondition,
        /// If not empty, one of these must have fired as well.
        cron: Vec<CronText>,
    },
    /// Received events, in batches.
    Event {
        /// The name they are sent to.
        name: Arc<str>,
        /// When a batch is full or has waited long enough.
        batching: Batching,
    },
}

/// What `logical_date` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timetable {
    /// The fire time.
    Trigger,
    /// The start of the data interval.
    DataInterval,
}

/// What happens at a local time that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// It fires later by the gap.
    Shift,
    /// It does not fire.
    Skip,
}

/// What happens at a local time that occurs twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// It fires the first time.
    First,
    /// It fires the second time.
    Last,
    /// It fires both times.
    Both,
}

/// What becomes of missed instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Catchup {
    /// Which of them are made up for.
    pub missed: Missed,
    /// Those older than this are skipped.
    pub window: Option<Duration>,
    /// At most so many wait to be made up for, the latest ones; [`CATCHUP_CAP`] if not said.
    pub max: Option<u32>,
}

/// Which missed instants are made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The latest (`catchup: false`).
    Latest,
    /// Every one (`catchup: true`).
    Every,
}

/// An alert if a run has not succeeded in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// How long.
    pub after: Duration,
    /// From when.
    pub from: DeadlineFrom,
}

/// From when a deadline counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineFrom {
    /// The run's fire time.
    Due,
    /// The creation of the run.
    Queued,
}

impl Deadline {
    /// When a run that was due at `due` and created at `queued_at` must have succeeded.
    #[must_use]
    pub fn at(self, due: Timestamp, queued_at: Timestamp) -> Timestamp {
        match self.from {
            DeadlineFrom::Due => due.plus(self.after),
            DeadlineFrom::Queued => queued_at.plus(self.after),
        }
    }
}

/// One instant at which a run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fire {
    /// The instant: with the DAG it names the run, however many schedulers see it.
    pub at: Timestamp,
    /// The moment the run stands for, by [`Timetable`].
    pub logical_date: Timestamp,
    /// The span of data the run stands for begins here…
    pub data_interval_start: Timestamp,
    /// … and ends before here.
    pub data_interval_end: Timestamp,
}

impl Default for Schedule {
    /// By hand, in UTC, as a DAG without any key of time.
    fn default() -> Self {
        Self {
            when: When::ByHand,
            timetable: Timetable::Trigger,
            timezone: Tz::UTC,
            gap: Gap::Shift,
            fold: Fold::First,
            start_date: None,
            end_date: None,
            catchup: Catchup { missed: Missed::Latest, window: None, max: None },
        }
    }
}

impl Schedule {
    /// The first instant after `after`, within `start_date` and `end_date`; `None` if none comes. An asset
    /// schedule with cron texts has theirs, at which it runs if data is new.
    #[must_use]
    pub fn next_fire(&self, after: Timestamp) -> Option<Timestamp> {
        let after = match self.start_date {
            Some(start) => after.max(Timestamp(start.0.saturating_sub(1))),
            None => after,
        };
        self.tick_after(after).filter(|at| self.end_date.is_none_or(|end| *at <= end))
    }

    /// The last instant before `before`, within `start_date` and `end_date`; `None` if there is none.
    #[must_use]
    pub fn previous_fire(&self, before: Timestamp) -> Option<Timestamp> {
        let before = match self.end_date {
            Some(end) => before.min(Timestamp(end.0.saturating_add(1))),
            None => before,
        };
        self.tick_before(before).filter(|at| self.start_date.is_none_or(|start| *at >= start))
    }

    /// All fires from `from` to `to`, both included, oldest first.
    pub fn fires(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = Fire> + '_ {
        let first = self.next_fire(Timestamp(from.0.saturating_sub(1)));
        std::iter::successors(first, |at| self.next_fire(*at))
            .take_while(move |at| *at <= to)
            .map(|at| self.fire(at))
    }

    /// The run that is due at `at`, one of this schedule's instants.
    #[must_use]
    pub fn fire(&self, at: Timestamp) -> Fire {
        let (data_interval_start, data_interval_end) = self.data_interval(at);
        let logical_date = match self.timetable {
            Timetable::Trigger => at,
            Timetable::DataInterval => data_interval_start,
        };
        Fire { at, logical_date, data_interval_start, data_interval_end }
    }

    /// The span of data that a run at `date` stands for: on the wall clock the last whole interval that ended by
    /// then, at a steady pace one period back, else nothing (`[date, date)`). At an instant of the schedule this is
    /// [previous fire, this fire).
    #[must_use]
    pub fn data_interval(&self, date: Timestamp) -> (Timestamp, Timestamp) {
        match &self.when {
            When::Every(pace) => (Timestamp(date.0.saturating_sub(micros(*pace))), date),
            When::Cron(_) | When::Assets { .. } => {
                let Some(end) = self.tick_before(Timestamp(date.0.saturating_add(1))) else {
                    return (date, date);
                };
                (self.tick_before(end).unwrap_or(end), end)
            }
            When::ByHand | When::Once | When::Event { .. } => (date, date),
        }
    }

    /// For people: `0 2 * * * (Europe/Berlin)`, `every 15m`, `by hand`.
    #[must_use]
    pub fn describe(&self) -> String {
        let texts = |crons: &[CronText]| {
            let texts: Vec<&str> = crons.iter().map(CronText::as_str).collect();
            format!("{} ({})", texts.join(", "), self.timezone.name())
        };
        match &self.when {
            When::ByHand => "by hand".to_owned(),
            When::Once => "once".to_owned(),
            When::Cron(crons) => texts(crons),
            When::Every(pace) => format!("every {}", span(*pace)),
            When::Assets { condition, cron } if cron.is_empty() => format!("new data in {condition}"),
            When::Assets { condition, cron } => format!("{} with new data in {condition}", texts(cron)),
            When::Event { name, batching } => {
                format!("events `{name}`, up to {} or {}", batching.max, span(batching.wait_max))
            }
        }
    }

    /// The wall clock reading and the zone's abbreviation at `at`, for people: `2026-03-29 03:30:00 CEST`.
    #[must_use]
    pub fn local(&self, at: Timestamp) -> Option<String> {
        let local = at.to_utc()?.with_timezone(&self.timezone);
        Some(local.format("%Y-%m-%d %H:%M:%S %Z").to_string())
    }

    /// Whether it has instants of its own.
    #[must_use]
    pub fn has_clock(&self) -> bool {
        match &self.when {
            When::Cron(_) | When::Once | When::Every(_) => true,
            When::Assets { cron, .. } => !cron.is_empty(),
            When::ByHand | When::Event { .. } => false,
        }
    }

    fn wall(&self) -> Wall {
        Wall { zone: self.timezone, gap: self.gap, fold: self.fold }
    }

    fn crons(&self) -> &[CronText] {
        match &self.when {
            When::Cron(crons) | When::Assets { cron: crons, .. } => crons,
            When::ByHand | When::Once | When::Every(_) | When::Event { .. } => &[],
        }
    }

    /// The first instant of the bare clock after `after`.
    fn tick_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Cron(_) | When::Assets { .. } => {
                let (wall, after) = (self.wall(), after.0.div_euclid(MICROS));
                self.crons().iter().filter_map(|cron| wall.next(cron, after)).min().map(of_seconds)
            }
            When::Once => self.start_date.filter(|start| *start > after),
            When::Every(pace) => self.beat(*pace, after, 1),
            When::ByHand | When::Event { .. } => None,
        }
    }

    /// The last instant of the bare clock before `before`.
    fn tick_before(&self, before: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Cron(_) | When::Assets { .. } => {
                let (wall, before) = (self.wall(), before.0.saturating_sub(1).div_euclid(MICROS) + 1);
                self.crons().iter().filter_map(|cron| wall.previous(cron, before)).max().map(of_seconds)
            }
            When::Once => self.start_date.filter(|start| *start < before),
            When::Every(pace) => self.beat(*pace, Timestamp(before.0.checked_sub(1)?), 0),
            When::ByHand | When::Event { .. } => None,
        }
    }

    /// The last beat of a steady pace at or before `at`, or `further` beats later.
    fn beat(&self, pace: Duration, at: Timestamp, further: i64) -> Option<Timestamp> {
        let (origin, pace) = (self.start_date.unwrap_or(EVERY_ORIGIN), micros(pace));
        let beats = at.0.checked_sub(origin.0)?.div_euclid(pace).checked_add(further)?;
        Some(Timestamp(origin.0.checked_add(beats.checked_mul(pace)?)?))
    }
}

const MICROS: i64 = 1_000_000;

fn of_seconds(at: i64) -> Timestamp {
    Timestamp(at * MICROS)
}

/// At least one microsecond, so that a pace moves on.
fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX).max(1)
}

/// As authors write it: `15m`, `1h30m`, `500ms`.
fn span(span: Duration) -> String {
    const UNITS: [(u128, &str); 6] = [
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
        (1, "µs"),
    ];
    let mut rest = span.as_micros();
    let mut text = String::new();
    for (size, unit) in UNITS {
        if rest >= size {
            text += &format!("{}{unit}", rest / size);
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The instant at which the wall clock of `zone` shows `local`: the first of two; a time that does not exist is
/// moved forward by the gap.
#[must_use]
pub fn instant_of(local: NaiveDateTime, zone: Tz) -> Timestamp {
    let wall = Wall { zone, gap: Gap::Shift, fold: Fold::First };
    let micros = i64::from(local.and_utc().timestamp_subsec_micros());
    Timestamp(of_seconds(wall.instant(local.and_utc().timestamp())).0 + micros)
}
