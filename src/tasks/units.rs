//! Amounts as authors write them: spans of time (`1h30m`), sizes (`64MiB`), moments (RFC 3339), each a type
//! whose JSON Schema says the same as its parser.
//!
//! A kind uses them as types of its keys; in Rust they are plain durations, bytes and timestamps.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::core::ids::Timestamp;

/// No span is longer: a hundred years.
const SPAN_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// A span of time: `10s`, `5m`, `1h30m`, ISO 8601 `PT10S`, or plain seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// What is expected of a [`Span`].
const SPAN_EXPECTED: &str = "a span of time such as `10s`, `1h30m`, `PT10S` or a number of seconds";

/// Reads a span of time; `None` if it is none, or longer than a hundred years.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let span = if let Some(iso) = text.strip_prefix('P') { parse_iso(iso)? } else { parse_words(text)? };
    (span <= SPAN_MAX).then_some(span)
}

fn parse_words(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return of_seconds(seconds);
    }
    sum(text, |unit| match unit {
        "ms" => Some(0.001),
        "s" | "sec" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3_600.0),
        "d" => Some(86_400.0),
        "w" => Some(604_800.0),
        _ => None,
    })
}

fn parse_iso(text: &str) -> Option<Duration> {
    let (days, clock) = text.split_once('T').unwrap_or((text, ""));
    if days.is_empty() && clock.is_empty() {
        return None;
    }
    let calendar = sum(days, |unit| match unit {
        "D" => Some(86_400.0),
        "W" => Some(604_800.0),
        _ => None,
    });
    let rest = sum(clock, |unit| match unit {
        "H" => Some(3_600.0),
        "M" => Some(60.0),
        "S" => Some(1.0),
        _ => None,
    });
    match (days.is_empty(), clock.is_empty()) {
        (true, _) => rest,
        (false, true) => calendar,
        (false, false) => calendar?.checked_add(rest?),
    }
}

/// Adds up number-unit pairs; none at all is nothing that could be read.
fn sum(text: &str, seconds_per: impl Fn(&str) -> Option<f64>) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = rest[digits..].trim_start();
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        total += number * seconds_per(&after[..unit_end])?;
        rest = after[unit_end..].trim_start();
    }
    of_seconds(total)
}

/// Whole microseconds, so that `0.1s` is a tenth of a second exactly.
fn of_seconds(seconds: f64) -> Option<Duration> {
    let micros = (seconds * 1e6).round();
    // A span beyond the limit is refused by the caller; one beyond u64 is refused here.
    if !(0.0..1e18).contains(&micros) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked above"
    )]
    Some(Duration::from_micros(micros as u64))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let found = match Value::deserialize(from)? {
            Value::String(text) => parse_span(&text),
            Value::Number(number) => number.as_f64().and_then(of_seconds).filter(|s| *s <= SPAN_MAX),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        found.map(Self).ok_or_else(|| de::Error::custom(format!("expected {SPAN_EXPECTED}")))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words = r"^\s*([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?\s*(ms|s|sec|m|min|h|d|w)\s*)+)\s*$";
        let iso = r"^P([0-9.]+[DW])*(T([0-9.]+[HMS])+)?$";
        json_schema!({
            "description": "a span of time: `10s`, `5m`, `1h30m`, ISO 8601 `PT10S`, or plain seconds",
            "x-expected": SPAN_EXPECTED,
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": SPAN_MAX.as_secs()},
                {"type": "string", "pattern": words},
                {"type": "string", "pattern": iso}
            ]
        })
    }
}

/// A size in bytes: `64MiB`, `10 MB`, or a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_EXPECTED: &str = "a size such as `64MiB`, `10MB` or a number of bytes";

/// Reads a size; `None` if it is none. `MB` is a million bytes, `MiB` is 2^20.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let factor: f64 = match text[digits..].trim() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        _ => return None,
    };
    let bytes = (number * factor).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked here")]
    (0.0..9e18).contains(&bytes).then_some(bytes as u64)
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let found = match Value::deserialize(from)? {
            Value::String(text) => parse_size(&text),
            Value::Number(number) => number.as_u64(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        found.map(Self).ok_or_else(|| de::Error::custom(format!("expected {SIZE_EXPECTED}")))
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a size: `64MiB`, `10MB`, or plain bytes",
            "x-expected": SIZE_EXPECTED,
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?\s*$"}
            ]
        })
    }
}

/// A moment: RFC 3339, a date, or a date and time (in the DAG's zone where one is known, else UTC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment(pub String);

const MOMENT_EXPECTED: &str = "a time in RFC 3339 such as `2026-01-31T02:00:00Z`, or a date";

impl Moment {
    /// The moment, a text without zone being UTC.
    #[must_use]
    pub fn in_utc(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.0)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Timestamp::parse(&text) {
            Some(_) => Ok(Self(text)),
            None => Err(de::Error::custom(format!("expected {MOMENT_EXPECTED}"))),
        }
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a time in RFC 3339, a date, or a date and time without zone",
            "x-expected": MOMENT_EXPECTED,
            "type": "string",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_in_every_spelling() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("250ms", 250),
            ("1.5s", 1_500),
            ("0.1", 100),
            ("90", 90_000),
            ("PT10S", 10_000),
            ("P1DT2H", 93_600_000),
            ("P1W", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_span(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "10x", "-5s", "P", "PT", "1h30", "nan", "inf", "1e300", "101000d"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_knows_both_families_of_units() {
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("10 MB"), Some(10_000_000));
        assert_eq!(parse_size("7"), Some(7));
        assert_eq!(parse_size("1 parsec"), None);
    }
}
