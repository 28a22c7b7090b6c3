//! Names and numbers that identify things, checked on construction.
//!
//! Every id that reaches the core has been parsed here, so a path, a label or a message may be built
//! from it without asking again. [`Timestamp`] is a plain number: nothing on this floor reads a clock.

use std::fmt;
use std::sync::Arc;

/// The longest id, in bytes.
pub const ID_LEN_MAX: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {expected}")]
pub struct BadId {
    /// What was being named, for instance `dag_id`.
    pub what: &'static str,
    /// What was written.
    pub text: String,
    /// The rule that was broken.
    pub expected: &'static str,
}

fn check(what: &'static str, text: &str) -> Result<(), BadId> {
    let refuse = |expected| Err(BadId { what, text: text.chars().take(200).collect(), expected });
    let mut bytes = text.bytes();
    match bytes.next() {
        None => return refuse("it must not be empty"),
        Some(b) if b.is_ascii_alphanumeric() || b == b'_' => {}
        Some(_) => return refuse("it must begin with a letter, a digit or `_`"),
    }
    if text.len() > ID_LEN_MAX {
        return refuse("it must have at most 128 characters");
    }
    if !bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return refuse("only letters, digits, `_`, `.` and `-` are allowed");
    }
    if text.contains("..") {
        return refuse("it must not contain `..`");
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`, no `..`.
            ///
            /// # Errors
            /// [`BadId`] with the rule that was broken.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                check($what, text)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::parse(text)
            }
        }
    };
}

id_type!(
    /// Names a DAG.
    DagId, "dag_id"
);
id_type!(
    /// Names a task within its DAG; a task of a group is `group.task`.
    TaskId, "task id"
);
id_type!(
    /// Names a pool of slots.
    PoolName, "pool name"
);
id_type!(
    /// Names a queue: which workers may take a task.
    QueueName, "queue name"
);
id_type!(
    /// Names a way to tell people.
    RouteName, "route name"
);
id_type!(
    /// Names one worker process for as long as it lives.
    SessionId, "session id"
);

/// Names a run within its DAG: `manual__2026-01-01T00-00-00Z_1a2b3c4d`, `scheduled__…`. At most 200
/// bytes of the letters that ids have, plus `:` and `+` so that times can stand in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Arc<str>);

impl RunId {
    /// Parses a run id.
    ///
    /// # Errors
    /// [`BadId`] with the rule that was broken.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let refuse =
            |expected| Err(BadId { what: "run_id", text: text.chars().take(200).collect(), expected });
        match text.bytes().next() {
            None => return refuse("it must not be empty"),
            Some(b) if b.is_ascii_alphanumeric() || b == b'_' => {}
            Some(_) => return refuse("it must begin with a letter, a digit or `_`"),
        }
        if text.len() > 200 {
            return refuse("it must have at most 200 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':' | b'+')) {
            return refuse("only letters, digits, `_`, `.`, `-`, `:` and `+` are allowed");
        }
        if text.contains("..") {
            return refuse("it must not contain `..`");
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A run's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey {
    /// The DAG.
    pub dag_id: DagId,
    /// The run within it.
    pub run_id: RunId,
}

/// The SHA-256 of a DAG's canonical text, in lower-case hexadecimal: a run is pinned to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DagHash(pub Arc<str>);

/// Rises by one at every claim of a task instance and never returns. A write that carries an older
/// fence than the row's comes from a worker that has been given up, and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence(pub i64);

impl Fence {
    /// The fence of the next claim.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The point `span` later; the end of time if that is later than can be said.
    #[must_use]
    pub fn plus(self, span: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The point `span` earlier; the beginning of time if that is earlier than can be said.
    #[must_use]
    pub fn minus(self, span: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As a calendar time in UTC; `None` outside the years that chrono can say.
    #[must_use]
    pub fn to_utc(self) -> Option<chrono::DateTime<chrono::Utc>> {
        chrono::DateTime::from_timestamp_micros(self.0)
    }

    /// Reads RFC 3339 (`2026-01-31T02:00:00Z`), a date, or a date and time without zone (UTC).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(t) = chrono::DateTime::parse_from_rfc3339(text) {
            return Some(Self(t.timestamp_micros()));
        }
        for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
            if let Ok(t) = chrono::NaiveDateTime::parse_from_str(text, form) {
                return Some(Self(t.and_utc().timestamp_micros()));
            }
        }
        let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(Self(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros()))
    }
}

impl From<chrono::DateTime<chrono::Utc>> for Timestamp {
    fn from(t: chrono::DateTime<chrono::Utc>) -> Self {
        Self(t.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with as many digits of a second as it has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_utc() {
            Some(t) => f.write_str(&t.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
            None => write!(f, "{} µs", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_leads_out_of_its_folder() {
        for text in ["", ".", "..", "a..b", "/etc", "a/b", "-x", "a b", "ä", &"x".repeat(129)] {
            assert!(DagId::parse(text).is_err(), "{text:?} was accepted");
        }
        for text in ["a", "0", "_x", "raw.orders", "A-b_c.9"] {
            assert_eq!(DagId::parse(text).map(|id| id.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for text in ["2026-01-31T02:00:00Z", "1969-12-31T23:59:59.5Z", "2026-01-31T02:00:00.000001Z"] {
            let t = Timestamp::parse(text).expect("it is a time");
            assert_eq!(Timestamp::parse(&t.to_string()), Some(t));
        }
        assert_eq!(Timestamp::parse("2026-01-31"), Timestamp::parse("2026-01-31T01:00:00+01:00"));
        assert_eq!(Timestamp::parse("31.1.2026"), None);
    }
}
