//! A cron evaluator that is slow and plain: its own reading of the fields, its own calendar, and a look at every
//! minute. It knows of a zone only which offset is in force at an instant.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use mainspring::core::timetable::{Fold, Gap};

/// What five fields allow.
pub(super) struct Fields {
    minute: Vec<bool>,
    hour: Vec<bool>,
    day: Vec<bool>,
    last_day: bool,
    month: Vec<bool>,
    weekday: Vec<bool>,
    day_is_star: bool,
    weekday_is_star: bool,
    steady: bool,
}

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

fn number(text: &str) -> usize {
    WEEKDAYS.iter().position(|name| *name == text).unwrap_or_else(|| text.parse().unwrap())
}

fn set(text: &str, low: usize, high: usize) -> Vec<bool> {
    let mut allowed = vec![false; high + 1];
    for part in text.split(',').filter(|part| *part != "L") {
        let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, number(step)));
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((from, to)) => (number(from), number(to)),
            None => (number(range), number(range)),
        };
        (from..=to).step_by(step).for_each(|n| allowed[n] = true);
    }
    allowed
}

impl Fields {
    pub(super) fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.split(' ').collect();
        let mut weekday = set(parts[4], 0, 7);
        weekday[0] |= weekday[7];
        Self {
            minute: set(parts[0], 0, 59),
            hour: set(parts[1], 0, 23),
            day: set(parts[2], 1, 31),
            last_day: parts[2] == "L",
            month: set(parts[3], 1, 12),
            weekday,
            day_is_star: parts[2] == "*",
            weekday_is_star: parts[4] == "*",
            steady: parts[..2].iter().any(|field| field.contains(['*', '/'])),
        }
    }

    fn on(&self, date: &Date) -> bool {
        let day = self.day[date.day] || (self.last_day && date.is_last);
        let weekday = self.weekday[date.weekday];
        let either = match (self.day_is_star, self.weekday_is_star) {
            (true, true) => true,
            (true, false) => weekday,
            (false, true) => day,
            (false, false) => day || weekday,
        };
        self.month[date.month] && either
    }
}

struct Date {
    month: usize,
    day: usize,
    weekday: usize,
    is_last: bool,
}

/// The date of a day, counted from 1970-01-01, by walking from there year by year.
fn date(day: i64) -> Date {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut rest) = (1970, day);
    while rest >= 365 + i64::from(leap(year)) {
        rest -= 365 + i64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    // 1970-01-01 was a Thursday.
    let weekday = usize::try_from((day + 4) % 7).unwrap();
    let is_last = rest + 1 == lengths[month];
    Date { month: month + 1, day: usize::try_from(rest).unwrap() + 1, weekday, is_last }
}

/// Every minute of a few days of one zone, by its reading on the wall.
pub(super) struct Window {
    /// The first reading looked at, in minutes.
    first: i64,
    /// For each reading the instants, in minutes, at which the wall shows it: none, one or two.
    shown: Vec<Vec<i64>>,
    /// Fires between these instants are complete.
    from: i64,
    to: i64,
}

/// Hours looked at on either side of a change, and hours more so that shifts into the window are seen.
const HOURS: i64 = 30;
const MARGIN: i64 = 30;

impl Window {
    pub(super) fn around(zone: Tz, change: i64) -> Self {
        let change = change / 60;
        let (from, to) = (change - HOURS * 60, change + HOURS * 60);
        let first = from - 2 * MARGIN * 60;
        let mut shown = vec![Vec::new(); usize::try_from(to - from + 4 * MARGIN * 60).unwrap()];
        for minute in from - MARGIN * 60..to + MARGIN * 60 {
            let utc = DateTime::from_timestamp(minute * 60, 0).unwrap().naive_utc();
            let offset = zone.offset_from_utc_datetime(&utc).fix().local_minus_utc();
            assert_eq!(offset % 60, 0, "{zone} has an offset of seconds");
            shown[usize::try_from(minute + i64::from(offset / 60) - first).unwrap()].push(minute);
        }
        Self { first, shown, from, to }
    }

    /// All fires of the window, in seconds.
    pub(super) fn fires(&self, fields: &Fields, gap: Gap, fold: Fold) -> Vec<i64> {
        let mut fires = Vec::new();
        let mut today = (i64::MIN, false);
        for (place, instants) in self.shown.iter().enumerate() {
            let reading = self.first + i64::try_from(place).unwrap();
            let (day, minute) =
                (reading.div_euclid(1440), usize::try_from(reading.rem_euclid(1440)).unwrap());
            if today.0 != day {
                today = (day, fields.on(&date(day)));
            }
            if !(today.1 && fields.hour[minute / 60] && fields.minute[minute % 60]) {
                continue;
            }
            match instants[..] {
                _ if fields.steady => fires.extend(instants),
                [] if gap == Gap::Shift => {
                    // The last reading that was shown before: from there on by the watch, not by the wall.
                    let before = self.shown[..place].iter().rposition(|instants| !instants.is_empty());
                    fires.extend(before.map(|at| {
                        self.shown[at][self.shown[at].len() - 1] + i64::try_from(place - at).unwrap()
                    }));
                }
                [first, last] => match fold {
                    Fold::First => fires.push(first),
                    Fold::Last => fires.push(last),
                    Fold::Both => fires.extend([first, last]),
                },
                _ => fires.extend(instants),
            }
        }
        fires.retain(|minute| (self.from..=self.to).contains(minute));
        fires.sort_unstable();
        fires.dedup();
        fires.into_iter().map(|minute| minute * 60).collect()
    }
}
