//! When a DAG runs: from its keys to a [`Schedule`], with everything that is wrong with them.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;

use super::keys::{
    AllKeys, AnyKeys, AssetsCondition, DagKeys, DeadlineFromKey, FoldKey, GapKey, OneOrMany, ScheduleKey,
    TimetableKey,
};
use super::problem::{Problem, did_you_mean, listed};
use super::yaml::Node;
use crate::core::ids::Timestamp;
use crate::core::timetable::{
    AssetCondition, BadCron, Batching, Catchup, CronText, Deadline, DeadlineFrom, Fold, Gap, Missed, PRESETS,
    Schedule, Timetable, When, instant_of,
};
use crate::tasks::units::Moment;

/// Characters of an event's name.
const EVENT_NAME_MAX: usize = 128;
const EVENT_NAME: &str = "1 to 128 letters, digits, `_`, `-` or `.`";
/// A pace faster than this is no schedule.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// `catchup: true` from before this needs a bound: somebody mistyped a year.
const UNBOUNDED_CATCHUP_FROM: Timestamp = Timestamp(0);

/// Reads the schedule of a DAG; what is wrong goes to `problems`, each at its place in `root`.
pub(super) fn read(keys: &DagKeys, root: &Node, problems: &mut Vec<Problem>) -> Schedule {
    let timezone = read_zone(keys, root, problems);
    let moment = |m: &Option<Moment>| m.as_ref().and_then(|m| in_zone(m, timezone));
    let schedule = Schedule {
        when: read_when(keys, root, problems),
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
        start_date: moment(&keys.start_date),
        end_date: moment(&keys.end_date),
        catchup: Catchup {
            missed: if keys.catchup { Missed::Every } else { Missed::Latest },
            window: keys.catchup_window.map(|span| span.0),
            max: keys.catchup_max,
        },
    };
    check_dates(&schedule, root, problems);
    schedule
}

/// Reads the deadline of a DAG's runs.
pub(super) fn deadline(keys: &DagKeys) -> Option<Deadline> {
    let deadline = keys.deadline.as_ref()?;
    let from = match deadline.from {
        DeadlineFromKey::Due => DeadlineFrom::Due,
        DeadlineFromKey::Queued => DeadlineFrom::Queued,
    };
    Some(Deadline { after: deadline.after.0, from })
}

fn read_zone(keys: &DagKeys, root: &Node, problems: &mut Vec<Problem>) -> Tz {
    Tz::from_str(&keys.timezone).unwrap_or_else(|_| {
        let what = format!("`timezone` is `{}`", keys.timezone);
        let problem = Problem::at(root.along(["timezone"]).place, what);
        problems.push(
            problem.expected("an IANA name such as `Europe/Berlin`").maybe_hint(near_zones(&keys.timezone)),
        );
        Tz::UTC
    })
}

/// A slip of the pen, or the zones whose place has this name: `Berlin`, `new york`.
fn near_zones(written: &str) -> Option<String> {
    const NAMES_MAX: usize = 3;
    let plain = |name: &str| name.to_lowercase().replace([' ', '-'], "_");
    let city = |name: &str| name.rsplit('/').next().map(plain).unwrap_or_default();
    let all = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    let same: Vec<&str> = all().filter(|name| city(name) == city(written)).take(NAMES_MAX).collect();
    if same.is_empty() {
        return did_you_mean(written, all());
    }
    Some(format!("did you mean {}?", listed(same)))
}

fn check_dates(schedule: &Schedule, root: &Node, problems: &mut Vec<Problem>) {
    let place = |key: &str| root.along([key]).place;
    let (start, end) = (schedule.start_date, schedule.end_date);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        let what = "`end_date` is before `start_date`: no run would ever be created";
        problems.push(Problem::at(place("end_date"), what));
        return;
    }
    match &schedule.when {
        When::Once if start.is_none() => {
            let what = "`schedule: \"@once\"` needs a `start_date`: the one moment it runs";
            problems.push(Problem::at(place("schedule"), what));
            return;
        }
        When::Cron(crons) if crons.is_empty() => return,
        When::ByHand | When::Assets { .. } | When::Event { .. } => return,
        When::Once | When::Cron(_) | When::Every(_) => {}
    }
    if end.is_some() && schedule.next_fire(Timestamp(i64::MIN)).is_none() {
        let what = "no instant of `schedule` lies before `end_date`: no run would ever be created";
        let between =
            "no instant of `schedule` lies between `start_date` and `end_date`: no run would ever be created";
        let what = if start.is_some() { between } else { what };
        problems.push(Problem::at(place("end_date"), what));
    }
    let catchup = schedule.catchup;
    let bounded = catchup.missed == Missed::Latest || catchup.window.is_some() || catchup.max.is_some();
    if let Some(start) = start
        && start < UNBOUNDED_CATCHUP_FROM
        && !bounded
    {
        let what = format!("`catchup: true` would create every run since {start}");
        let problem = Problem::at(place("catchup"), what).expected("a `start_date` from 1970 on, or a bound");
        problems.push(problem.hint(
            "`catchup_window: 365d` makes up for a year, `catchup_max: 100` for the latest hundred instants",
        ));
    }
}

fn read_when(keys: &DagKeys, root: &Node, problems: &mut Vec<Problem>) -> When {
    let node = root.along(["schedule"]);
    match &keys.schedule {
        None => When::ByHand,
        Some(ScheduleKey::Cron(text)) if text.trim() == "@once" => When::Once,
        Some(ScheduleKey::Cron(text)) => When::Cron(read_crons("schedule", &[(text, node)], problems)),
        Some(ScheduleKey::Crons(texts)) => {
            if texts.is_empty() {
                let problem = Problem::at(node.place, "`schedule` is an empty list");
                problems.push(problem.hint("leave the key out for a DAG that is run by hand"));
            }
            let pairs: Vec<(&String, &Node)> = texts.iter().zip(node.items()).collect();
            When::Cron(read_crons("schedule", &pairs, problems))
        }
        Some(ScheduleKey::Every(every)) => {
            if every.every.0 < EVERY_MIN {
                let problem = Problem::at(node.along(["every"]).place, "`schedule.every` is too short");
                problems.push(problem.expected("at least 100 ms"));
            }
            When::Every(every.every.0.max(EVERY_MIN))
        }
        Some(ScheduleKey::Assets(keys)) => {
            let condition = condition(&keys.assets);
            let assets = condition.assets();
            if assets.is_empty() || assets.iter().any(|name| name.trim().is_empty()) {
                let problem = Problem::at(node.along(["assets"]).place, "`schedule.assets` names no asset");
                problems.push(problem.expected("at least one name"));
            }
            let within = node.along(["cron"]);
            let pairs: Vec<(&String, &Node)> = match &keys.cron {
                None => Vec::new(),
                Some(OneOrMany::One(text)) => vec![(text, within)],
                Some(OneOrMany::Many(texts)) => texts.iter().zip(within.items()).collect(),
            };
            When::Assets { condition, cron: read_crons("schedule.cron", &pairs, problems) }
        }
        Some(ScheduleKey::Event(event)) => {
            if !is_event_name(&event.event) {
                let what = format!("`schedule.event` is `{}`", event.event);
                let problem = Problem::at(node.along(["event"]).place, what);
                problems.push(problem.expected(EVENT_NAME));
            }
            When::Event {
                name: Arc::from(event.event.as_str()),
                batching: Batching { wait_max: event.max_wait.0, max: event.max_batch },
            }
        }
    }
}

/// The name is part of the address that events are sent to.
fn is_event_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && name.len() <= EVENT_NAME_MAX && name.chars().all(fits)
}

fn condition(keys: &AssetsCondition) -> AssetCondition {
    let several = |parts: &[AssetsCondition]| parts.iter().map(condition).collect();
    match keys {
        AssetsCondition::One(name) => AssetCondition::Asset(Arc::from(name.as_str())),
        AssetsCondition::List(parts) | AssetsCondition::All(AllKeys { all: parts }) => {
            AssetCondition::All(several(parts))
        }
        AssetsCondition::Any(AnyKeys { any: parts }) => AssetCondition::Any(several(parts)),
    }
}

fn read_crons(key: &str, texts: &[(&String, &Node)], problems: &mut Vec<Problem>) -> Vec<CronText> {
    let mut crons = Vec::new();
    for (text, node) in texts {
        match CronText::parse(text) {
            Ok(cron) => crons.push(cron),
            Err(error) => {
                let presets = PRESETS.iter().map(|(name, _)| *name).chain(["@once"]);
                let hint = did_you_mean(text, presets);
                let what = match &error {
                    BadCron::Never(_) => format!("`{key}` is `{text}`: {error}"),
                    BadCron::Fields(_) | BadCron::Field { .. } | BadCron::Other(_) => {
                        format!("`{key}` is `{text}`, which is not a cron text: {error}")
                    }
                };
                problems.push(Problem::at(node.place, what).maybe_hint(hint));
            }
        }
    }
    crons
}

/// A time without zone is a time of the DAG's zone.
fn in_zone(moment: &Moment, zone: Tz) -> Option<Timestamp> {
    let utc = moment.in_utc()?;
    if chrono::DateTime::parse_from_rfc3339(moment.0.trim()).is_ok() {
        return Some(utc);
    }
    Some(instant_of(utc.to_utc()?.naive_utc(), zone))
}
