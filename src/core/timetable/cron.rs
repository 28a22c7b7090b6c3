//! A cron text as it was read: five fields, or six with seconds first. Evaluated on bare wall clock readings;
//! what a zone makes of them is `wall`'s business.

use std::fmt;
use std::sync::Arc;

use chrono::NaiveDateTime;
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};

use super::wall::naive;

/// Names for the usual texts. `@once` is no cron text.
pub const PRESETS: &[(&str, &str)] = &[
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@quarterly", "0 0 1 1,4,7,10 *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// The fields in their order, each with what may stand in it.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, `L` or a day with `W`"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of week", "0 to 7 or SUN to SAT, with `#1` to `#5` or `L`"),
];

/// Why a text is not a cron text that could fire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCron {
    /// It has not five or six fields.
    #[error(
        "it has {0} field(s), expected five (minute hour day-of-month month day-of-week), or six with seconds first"
    )]
    Fields(usize),
    /// One field cannot be read.
    #[error("its {field} `{text}` cannot be read ({why}), expected {expected}")]
    Field {
        /// Which one, for instance `hour`.
        field: &'static str,
        /// What stands in it.
        text: String,
        /// What is wrong.
        why: String,
        /// What may stand in it.
        expected: &'static str,
    },
    /// Something else.
    #[error("{0}")]
    Other(String),
    /// No date has what it asks for.
    #[error("it would never fire: no {0}")]
    Never(String),
}

/// A cron text that was read and that fires.
#[derive(Clone)]
pub struct CronText {
    text: Arc<str>,
    cron: Arc<Cron>,
    runs_through: bool,
    a_day: u64,
}

impl CronText {
    /// Reads a cron text or a preset. Days as in Vixie's cron: if both day fields are restricted (are not `*`),
    /// a day matches when either does. 0 and 7 are Sunday; names, lists, ranges, steps; `L`, `W`, `#`; `?` is
    /// `*` in a day field.
    ///
    /// # Errors
    /// [`BadCron`], with the field that is wrong, or why it would never fire.
    pub fn parse(text: &str) -> Result<Self, BadCron> {
        let text = text.trim();
        let spelled = PRESETS.iter().find(|(name, _)| *name == text).map_or(text, |(_, cron)| cron);
        let cron = read(spelled).map_err(|why| blame(spelled, why))?;
        let fields: Vec<&str> = spelled.split_whitespace().collect();
        let clock = &fields[..fields.len().saturating_sub(3)];
        let count = |field: &croner::CronComponent| field.values().len() as u64;
        let pattern = &cron.pattern;
        let parsed = Self {
            text: text.into(),
            runs_through: clock.iter().any(|field| field.contains(['*', '/'])),
            a_day: count(&pattern.seconds) * count(&pattern.minutes) * count(&pattern.hours),
            cron: Arc::new(cron),
        };
        // Dates repeat every 400 years, and the search covers the 2,700 that follow.
        if parsed.next_reading(LONG_AGO).is_none() {
            return Err(BadCron::Never(missing(&fields)));
        }
        Ok(parsed)
    }

    /// What the author wrote.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a steady beat rather than a time of day: its second, minute or hour is a wildcard or a step.
    #[must_use]
    pub fn runs_through(&self) -> bool {
        self.runs_through
    }

    /// The most readings of one day that match.
    pub(super) fn a_day(&self) -> u64 {
        self.a_day
    }

    /// The first reading at or after `reading` that matches.
    pub(super) fn next_reading(&self, reading: i64) -> Option<i64> {
        self.cron.find_next_occurrence(&naive(reading)?, true).ok().map(seconds)
    }

    /// The last reading at or before `reading` that matches.
    pub(super) fn previous_reading(&self, reading: i64) -> Option<i64> {
        self.cron.find_previous_occurrence(&naive(reading)?, true).ok().map(seconds)
    }
}

/// 2300-01-01: after this no date comes that did not come before in the same form.
const LONG_AGO: i64 = 10_413_792_000;

fn seconds(reading: NaiveDateTime) -> i64 {
    reading.and_utc().timestamp()
}

fn read(spelled: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(spelled).map_err(|error| {
        if matches!(error, CronError::IllegalCharacters(_)) {
            return "something in it is no number and no name".to_owned();
        }
        let words = error.to_string().trim_end_matches('.').to_lowercase();
        words.split_once(": ").map_or(words.clone(), |(_, rest)| rest.to_owned())
    })
}

/// Finds the field that is to blame: the one that cannot be read even with nothing but stars around it.
fn blame(spelled: &str, why: String) -> BadCron {
    let fields: Vec<&str> = spelled.split_whitespace().collect();
    if !(5..=6).contains(&fields.len()) {
        return BadCron::Fields(fields.len());
    }
    for (place, text) in fields.iter().enumerate() {
        let mut alone = vec!["*"; fields.len()];
        alone[place] = text;
        if let Err(why) = read(&alone.join(" ")) {
            let (field, expected) = FIELDS[place + FIELDS.len() - fields.len()];
            return BadCron::Field { field, text: (*text).to_owned(), why, expected };
        }
    }
    BadCron::Other(why)
}

/// What no date has, in the words of the author's three date fields.
fn missing(fields: &[&str]) -> String {
    match fields {
        [.., day, month, "*" | "?"] if *month != "*" => format!("month of `{month}` has a day `{day}`"),
        [.., day, _, "*" | "?"] => format!("month has a day `{day}`"),
        [.., day, month, weekday] => {
            format!("date has day of month `{day}`, month `{month}` and day of week `{weekday}`")
        }
        _ => "date matches".to_owned(),
    }
}

impl fmt::Debug for CronText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl PartialEq for CronText {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CronText {}
