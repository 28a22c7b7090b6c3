//! Filters of times: their forms, and arithmetic on them. A time is a text here, as templates see it.

use chrono::{DateTime, Days, Months, TimeDelta, Utc};
use minijinja::{Environment, Error, ErrorKind};

use crate::core::ids::Timestamp;

/// Adds the filters that the page on templates names.
pub(super) fn add_to(engine: &mut Environment<'static>) {
    engine.add_filter("ds", |at: &str| formatted(at, "%Y-%m-%d"));
    engine.add_filter("ds_nodash", |at: &str| formatted(at, "%Y%m%d"));
    engine.add_filter("ts", |at: &str| formatted(at, "%Y-%m-%dT%H:%M:%S%:z"));
    engine.add_filter("ts_nodash", |at: &str| formatted(at, "%Y%m%dT%H%M%S"));
    engine.add_filter("strftime", formatted);
    engine.add_filter("minutes", |at: &str, n: i64| {
        moved(at, |t| t.checked_add_signed(TimeDelta::try_minutes(n)?))
    });
    engine.add_filter("hours", |at: &str, n: i64| {
        moved(at, |t| t.checked_add_signed(TimeDelta::try_hours(n)?))
    });
    engine.add_filter("days", |at: &str, n: i64| moved(at, |t| by_days(t, n)));
    engine.add_filter("weeks", |at: &str, n: i64| moved(at, |t| by_days(t, n.checked_mul(7)?)));
    engine.add_filter("months", |at: &str, n: i32| {
        moved(at, |t| {
            let months = Months::new(n.unsigned_abs());
            if n < 0 { t.checked_sub_months(months) } else { t.checked_add_months(months) }
        })
    });
}

fn by_days(at: DateTime<Utc>, n: i64) -> Option<DateTime<Utc>> {
    let days = Days::new(n.unsigned_abs());
    if n < 0 { at.checked_sub_days(days) } else { at.checked_add_days(days) }
}

fn moment(text: &str) -> Result<DateTime<Utc>, Error> {
    Timestamp::parse(text)
        .and_then(Timestamp::to_utc)
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("`{text}` is not a time")))
}

fn formatted(at: &str, form: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    match write!(text, "{}", moment(at)?.format(form)) {
        Ok(()) => Ok(text),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, format!("`{form}` is not a format of times"))),
    }
}

fn moved(at: &str, by: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>) -> Result<String, Error> {
    let later = by(moment(at)?)
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the result is beyond the calendar"))?;
    if at.trim().len() == "2026-01-31".len() {
        return Ok(later.format("%Y-%m-%d").to_string());
    }
    Ok(Timestamp::from(later).to_string())
}
