//! Verdicts: counts and figures against what was expected. Pure.

use super::spec::{Bounds, ByRow, Severity};
use crate::core::alert::SignKind;

/// How an expectation came out; later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Skipped,
    Pass,
    Warn,
    Fail,
    /// Could not be evaluated; counts as fail.
    Error,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Error => "error",
        }
    }

    pub(super) fn capped(self, severity: Severity) -> Self {
        match severity {
            Severity::Error => self,
            Severity::Warn | Severity::Quarantine => self.min(Self::Warn),
        }
    }
}

/// What came of one expectation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) status: Status,
    pub(super) observed: String,
    pub(super) expected: String,
    /// Rows that were judged.
    pub(super) evaluated: u64,
    /// Those that did not pass.
    pub(super) failed: u64,
    /// Rows that were not judged, because of a null.
    pub(super) ignored: u64,
    /// Some of those that did not pass.
    pub(super) samples: Vec<String>,
    /// Which part of what is validated, where an expectation has several results; otherwise empty.
    pub(super) dimension: String,
    /// The figure that has a past.
    pub(super) value: Option<f64>,
    /// What it means beyond this task, if it warns or fails.
    pub(super) sign: Option<SignKind>,
}

impl Finding {
    pub(super) fn new(status: Status, observed: impl Into<String>, expected: impl Into<String>) -> Self {
        let (observed, expected) = (observed.into(), expected.into());
        Self {
            status,
            observed,
            expected,
            evaluated: 0,
            failed: 0,
            ignored: 0,
            samples: Vec::new(),
            dimension: String::new(),
            value: None,
            sign: None,
        }
    }

    pub(super) fn error(text: impl Into<String>) -> Self {
        Self::new(Status::Error, text, "to be evaluated")
    }

    pub(super) fn skipped(why: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::new(Status::Skipped, why, expected)
    }

    pub(super) fn no_data(allow_empty: bool, expected: &str) -> Self {
        let status = if allow_empty { Status::Pass } else { Status::Fail };
        Self::new(status, "no_data: there are no rows to judge", expected)
    }
}

/// Rows that were judged, and those of them that passed, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u64,
    pub(super) evaluated: u64,
    pub(super) passed: u64,
}

/// Whether enough rows passed.
pub(super) fn of_rows(counts: Counts, by_row: ByRow, wanted: &str) -> Finding {
    let Counts { all, evaluated, passed } = counts;
    if evaluated == 0 {
        return Finding { ignored: all, ..Finding::no_data(by_row.allow_empty, wanted) };
    }
    let failed = evaluated - passed;
    let status = if passed >= needed(by_row.at_least, evaluated) { Status::Pass } else { Status::Fail };
    let share = if by_row.at_least < 1.0 {
        format!(" in at least {} of rows", by_row.at_least)
    } else {
        String::new()
    };
    Finding {
        evaluated,
        failed,
        ignored: all - evaluated,
        value: Some(failed as f64 / evaluated as f64),
        ..Finding::new(status, format!("{failed} of {evaluated} rows do not"), format!("{wanted}{share}"))
    }
}

/// The least whole number of rows that is `share` of `rows`, in whole numbers: 0.999 of 1,000 is 999.
fn needed(share: f64, rows: u64) -> u64 {
    let text = format!("{:.9}", share.clamp(0.0, 1.0));
    let billionths: u128 = text.replace('.', "").parse().unwrap_or(1_000_000_000);
    u64::try_from((billionths * u128::from(rows)).div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
}

/// Whether a figure lies within its bounds. `None` is no data.
pub(super) fn of_figure(value: Option<f64>, evaluated: u64, bounds: Bounds) -> Finding {
    let expected = bounds_text(&bounds);
    let Some(value) = value else {
        return Finding::no_data(bounds.allow_empty, &expected);
    };
    let below = |limit: Option<f64>| limit.is_some_and(|limit| value < limit);
    let above = |limit: Option<f64>| limit.is_some_and(|limit| value > limit);
    let status = if value.is_nan() || below(bounds.min) || above(bounds.max) {
        Status::Fail
    } else if below(bounds.warn_below) || above(bounds.warn_above) {
        Status::Warn
    } else {
        Status::Pass
    };
    Finding { evaluated, value: Some(value), ..Finding::new(status, value.to_string(), expected) }
}

pub(super) fn bounds_text(bounds: &Bounds) -> String {
    let parts: Vec<String> = [
        ("at least", bounds.min),
        ("at most", bounds.max),
        ("warns below", bounds.warn_below),
        ("warns above", bounds.warn_above),
    ]
    .iter()
    .filter_map(|(words, limit)| limit.map(|limit| format!("{words} {limit}")))
    .collect();
    if parts.is_empty() { "a figure".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Nulls;
    use super::*;

    fn rows(at_least: f64, allow_empty: bool, evaluated: u64, passed: u64) -> Status {
        let by_row = ByRow { at_least, nulls: Nulls::Ignore, allow_empty };
        of_rows(Counts { all: evaluated, evaluated, passed }, by_row, "x").status
    }

    #[test]
    fn the_share_that_must_pass_is_counted_in_whole_rows() {
        assert_eq!(rows(0.999, false, 1_000, 999), Status::Pass);
        assert_eq!(rows(0.999, false, 1_000, 998), Status::Fail);
        assert_eq!(rows(0.999, false, 1_001, 999), Status::Fail);
        assert_eq!(rows(0.07, false, 100, 7), Status::Pass);
        assert_eq!(rows(1.0, false, 3, 3), Status::Pass);
    }

    #[test]
    fn no_rows_fail_unless_that_is_allowed() {
        assert_eq!(rows(1.0, false, 0, 0), Status::Fail);
        assert_eq!(rows(1.0, true, 0, 0), Status::Pass);
    }

    #[test]
    fn two_thresholds_tell_a_warning_from_a_failure() {
        let bounds = |value| {
            let bounds = Bounds {
                min: Some(1.0),
                max: None,
                warn_below: Some(2.0),
                warn_above: None,
                allow_empty: false,
            };
            of_figure(value, 1, bounds).status
        };
        assert_eq!(bounds(Some(0.5)), Status::Fail);
        assert_eq!(bounds(Some(1.0)), Status::Warn);
        assert_eq!(bounds(Some(2.0)), Status::Pass);
        assert_eq!(bounds(Some(f64::NAN)), Status::Fail);
        assert_eq!(bounds(None), Status::Fail);
    }

    #[test]
    fn a_warning_severity_caps_every_failure() {
        assert_eq!(Status::Error.capped(Severity::Warn), Status::Warn);
        assert_eq!(Status::Pass.capped(Severity::Warn), Status::Pass);
        assert_eq!(Status::Fail.capped(Severity::Error), Status::Fail);
    }
}
