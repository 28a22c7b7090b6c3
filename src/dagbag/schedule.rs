//! When a DAG runs, read and checked. Firing is not done here: this is the plain value a timetable needs.

use std::str::FromStr;
use std::time::Duration;

use chrono::{NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::keys::{
    AllKeys, AnyKeys, AssetsCondition, DagKeys, DeadlineFromKey, FoldKey, GapKey, ScheduleKey, TimetableKey,
};
use super::problem::{Problem, did_you_mean};
use super::yaml::Node;
use crate::core::ids::Timestamp;
use crate::tasks::units::Moment;

/// When a DAG runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// What starts a run.
    pub when: When,
    /// What `logical_date` is.
    pub timetable: Timetable,
    /// The zone whose wall clock cron texts are read in.
    pub timezone: Tz,
    /// A local time that does not exist.
    pub gap: Gap,
    /// A local time that occurs twice.
    pub fold: Fold,
    /// No run before.
    pub start_date: Option<Timestamp>,
    /// No run after.
    pub end_date: Option<Timestamp>,
    /// Every missed instant, or only the latest.
    pub catchup: bool,
    /// Missed instants older than this are skipped.
    pub catchup_window: Option<Duration>,
    /// At most so many missed instants are made up for.
    pub catchup_max: Option<u32>,
}

/// What starts a run.
#[derive(Debug, Clone)]
pub enum When {
    /// People and programs only.
    ByHand,
    /// Cron texts (presets are spelled out), each with what the author wrote.
    Cron(Vec<(String, Cron)>),
    /// Once, at `start_date`.
    Once,
    /// At a steady pace.
    Every(Duration),
    /// New data in all of these assets.
    AllAssets(Vec<String>),
    /// New data in one of these assets.
    AnyAsset(Vec<String>),
    /// Received events, in batches.
    Event {
        /// The name they are sent to.
        name: String,
        /// A batch starts at the latest so long after its first event.
        wait_max: Duration,
        /// A batch has at most so many events.
        batch_max: u32,
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

const PRESETS: &[(&str, &str)] = &[
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@quarterly", "0 0 1 1,4,7,10 *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Reads a cron text: five fields, or six with seconds first; both day fields restricted match by either.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_cron(text: &str) -> Result<Cron, String> {
    let spelled = PRESETS.iter().find(|(name, _)| *name == text.trim()).map_or(text, |(_, cron)| cron);
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(spelled).map_err(|e| e.to_string().trim_end_matches('.').to_lowercase())
}

impl Schedule {
    /// Reads the schedule of a DAG; what is wrong goes to `problems`, each at its place in `root`.
    pub(super) fn read(keys: &DagKeys, root: &Node, problems: &mut Vec<Problem>) -> Self {
        let timezone = Tz::from_str(&keys.timezone).unwrap_or_else(|_| {
            let names = chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name());
            let hint = did_you_mean(&keys.timezone, names);
            let what = format!("`timezone` is `{}`", keys.timezone);
            let problem = Problem::at(root.along(["timezone"]).place, what);
            problems.push(problem.expected("an IANA name such as `Europe/Berlin`").maybe_hint(hint));
            Tz::UTC
        });
        let moment = |m: &Option<Moment>| m.as_ref().and_then(|m| in_zone(m, timezone));
        let (start_date, end_date) = (moment(&keys.start_date), moment(&keys.end_date));
        if let (Some(start), Some(end)) = (start_date, end_date)
            && end < start
        {
            let what = "`end_date` is before `start_date`: no run would ever be created";
            problems.push(Problem::at(root.along(["end_date"]).place, what));
        }
        let when = read_when(keys, root, problems);
        if matches!(when, When::Once) && start_date.is_none() {
            let place = root.along(["schedule"]).place;
            let what = "`schedule: \"@once\"` needs a `start_date`: the one moment it runs";
            problems.push(Problem::at(place, what));
        }
        Self {
            when,
            timetable: match keys.timetable {
                TimetableKey::Trigger => Timetable::Trigger,
                TimetableKey::DataInterval => Timetable::DataInterval,
            },
            timezone,
            gap: match keys.dst.gap {
                GapKey::Shift => Gap::Shift,
                GapKey::Skip => Gap::Skip,
            },
            fold: match keys.dst.overlap {
                FoldKey::First => Fold::First,
                FoldKey::Last => Fold::Last,
                FoldKey::Both => Fold::Both,
            },
            start_date,
            end_date,
            catchup: keys.catchup,
            catchup_window: keys.catchup_window.map(|span| span.0),
            catchup_max: keys.catchup_max,
        }
    }

    /// The span of data that a run by hand at `date` stands for: for a cron schedule the last whole
    /// interval that ended by then, for a steady pace one period back, else nothing (`[date, date)`).
    #[must_use]
    pub fn data_interval(&self, date: Timestamp) -> (Timestamp, Timestamp) {
        match &self.when {
            When::Every(pace) => {
                let back = i64::try_from(pace.as_micros()).unwrap_or(i64::MAX);
                (Timestamp(date.0.saturating_sub(back)), date)
            }
            When::Cron(crons) => {
                let Some(end) = self.fire_by(crons, date) else { return (date, date) };
                match self.fire_by(crons, Timestamp(end.0 - 1)) {
                    Some(start) => (start, end),
                    None => (end, end),
                }
            }
            When::ByHand | When::Once | When::AllAssets(_) | When::AnyAsset(_) | When::Event { .. } => {
                (date, date)
            }
        }
    }

    /// The latest fire at or before `date`.
    fn fire_by(&self, crons: &[(String, Cron)], date: Timestamp) -> Option<Timestamp> {
        let local = date.to_utc()?.with_timezone(&self.timezone);
        let fires = crons.iter().filter_map(|(_, cron)| cron.find_previous_occurrence(&local, true).ok());
        fires.map(|fire| Timestamp(fire.timestamp_micros())).max()
    }

    /// For people: `0 2 * * * (Europe/Berlin)`, `every 15m`, `by hand`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.when {
            When::ByHand => "by hand".to_owned(),
            When::Once => "once".to_owned(),
            When::Cron(crons) => {
                let texts: Vec<&str> = crons.iter().map(|(text, _)| text.as_str()).collect();
                format!("{} ({})", texts.join(", "), self.timezone.name())
            }
            When::Every(pace) => format!("every {pace:?}"),
            When::AllAssets(names) => format!("new data in all of {}", names.join(", ")),
            When::AnyAsset(names) => format!("new data in any of {}", names.join(", ")),
            When::Event { name, wait_max, batch_max } => {
                format!("events `{name}`, up to {batch_max} or {wait_max:?}")
            }
        }
    }
}

impl Deadline {
    pub(super) fn read(keys: &DagKeys) -> Option<Self> {
        let deadline = keys.deadline.as_ref()?;
        let from = match deadline.from {
            DeadlineFromKey::Due => DeadlineFrom::Due,
            DeadlineFromKey::Queued => DeadlineFrom::Queued,
        };
        Some(Self { after: deadline.after.0, from })
    }
}

fn read_when(keys: &DagKeys, root: &Node, problems: &mut Vec<Problem>) -> When {
    let node = root.along(["schedule"]);
    match &keys.schedule {
        None => When::ByHand,
        Some(ScheduleKey::Cron(text)) if text.trim() == "@once" => When::Once,
        Some(ScheduleKey::Cron(text)) => When::Cron(read_crons(&[(text, node)], problems)),
        Some(ScheduleKey::Crons(texts)) => {
            if texts.is_empty() {
                let problem = Problem::at(node.place, "`schedule` is an empty list");
                problems.push(problem.hint("leave the key out for a DAG that is run by hand"));
            }
            let pairs: Vec<(&String, &Node)> = texts.iter().zip(node.items()).collect();
            When::Cron(read_crons(&pairs, problems))
        }
        Some(ScheduleKey::Every(every)) => {
            if every.every.0 < Duration::from_millis(100) {
                let problem = Problem::at(node.along(["every"]).place, "`schedule.every` is too short");
                problems.push(problem.expected("at least 100 ms"));
            }
            When::Every(every.every.0)
        }
        Some(ScheduleKey::Assets(keys)) => match &keys.assets {
            AssetsCondition::List(names) | AssetsCondition::All(AllKeys { all: names }) => {
                When::AllAssets(names.clone())
            }
            AssetsCondition::Any(AnyKeys { any: names }) => When::AnyAsset(names.clone()),
        },
        Some(ScheduleKey::Event(event)) => {
            When::Event { name: event.event.clone(), wait_max: event.max_wait.0, batch_max: event.max_batch }
        }
    }
}

fn read_crons(texts: &[(&String, &Node)], problems: &mut Vec<Problem>) -> Vec<(String, Cron)> {
    let mut crons = Vec::new();
    for (text, node) in texts {
        match parse_cron(text) {
            Ok(cron) => crons.push(((*text).clone(), cron)),
            Err(error) => {
                let presets = PRESETS.iter().map(|(name, _)| *name).chain(["@once"]);
                let hint = did_you_mean(text, presets)
                    .unwrap_or_else(|| "five fields: minute hour day-of-month month day-of-week".to_owned());
                let what = format!("`schedule` is `{text}`, which is not a cron text: {error}");
                problems.push(Problem::at(node.place, what).hint(hint));
            }
        }
    }
    crons
}

/// A time without zone is a time of the DAG's zone; one that does not exist there is the next that does.
fn in_zone(moment: &Moment, zone: Tz) -> Option<Timestamp> {
    let utc = moment.in_utc()?;
    if chrono::DateTime::parse_from_rfc3339(moment.0.trim()).is_ok() {
        return Some(utc);
    }
    let naive: NaiveDateTime = utc.to_utc()?.naive_utc();
    let found = zone
        .from_local_datetime(&naive)
        .earliest()
        .or_else(|| zone.from_local_datetime(&(naive + chrono::TimeDelta::hours(1))).earliest())?;
    Some(Timestamp(found.timestamp_micros()))
}
