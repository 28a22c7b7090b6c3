//! A figure against its own past: unusual by a robust z-score, and large by its relative change. Pure.

use chrono::{Datelike, Timelike};

use super::spec::{Direction, History, HistoryScale, Seasonality};
use crate::core::ids::Timestamp;

/// Makes the median absolute deviation of normal values their standard deviation.
const MAD_TO_SD: f64 = 1.4826;
/// Earlier points at least, of all …
const LEAST: usize = 7;
/// … and of the same season.
const LEAST_OF_SEASON: usize = 4;

/// One earlier figure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub(super) at: Timestamp,
    pub(super) value: f64,
}

/// What counts as an anomaly.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) window: usize,
    pub(super) least: usize,
    pub(super) seasonality: Seasonality,
    pub(super) direction: Direction,
    pub(super) min_change: f64,
    pub(super) max_z: f64,
    pub(super) log1p: bool,
}

impl Rule {
    /// The settings of an author; `counts` says whether the figure is never negative by its nature.
    pub(super) fn of(said: &History, counts: bool) -> Self {
        let least = match said.seasonality {
            Seasonality::None => LEAST,
            Seasonality::HourOfDay | Seasonality::DayOfWeek | Seasonality::HourOfWeek => LEAST_OF_SEASON,
        };
        Self {
            window: said.window,
            least: said.min_points.unwrap_or(least).max(1),
            seasonality: said.seasonality,
            direction: said.direction,
            min_change: said.min_change,
            max_z: said.max_z,
            log1p: match said.scale {
                HistoryScale::Auto => counts,
                HistoryScale::Log1p => true,
                HistoryScale::Linear => false,
            },
        }
    }

    /// The settings of `compare: history`.
    pub(super) fn usual(counts: bool) -> Self {
        Self {
            window: 30,
            least: LEAST,
            seasonality: Seasonality::None,
            direction: Direction::Both,
            min_change: 0.05,
            max_z: 3.5,
            log1p: counts,
        }
    }
}

/// How a figure compares with its past.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// There are too few earlier points.
    WarmingUp { points: usize, needed: usize },
    /// As usual, or not by much.
    Usual(Change),
    /// Unusual and large.
    Anomaly(Change),
}

/// A figure beside its past.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Change {
    /// The median of the past.
    pub(super) median: f64,
    /// (figure - median) / |median|; infinite if only the median is 0.
    pub(super) relative: f64,
    /// On the scale of the rule; infinite if the past never changed and the figure did.
    pub(super) robust_z: f64,
    pub(super) points: usize,
}

/// Compares the figure `value` of the moment `at` with earlier ones, given in any order.
pub(super) fn judge(past: &[Point], at: Timestamp, value: f64, rule: &Rule) -> Verdict {
    let season = |at: Timestamp| season(at, rule.seasonality);
    let mut comparable: Vec<&Point> = past
        .iter()
        .filter(|point| point.at < at && point.value.is_finite() && season(point.at) == season(at))
        .collect();
    comparable.sort_by_key(|point| std::cmp::Reverse(point.at));
    comparable.truncate(rule.window);
    let values: Vec<f64> = comparable.iter().map(|point| point.value).collect();
    if values.len() < rule.least {
        return Verdict::WarmingUp { points: values.len(), needed: rule.least };
    }
    let change = change(&values, value, rule.log1p);
    let bad_way = match rule.direction {
        Direction::Both => true,
        Direction::Drop => value < change.median,
        Direction::Spike => value > change.median,
    };
    let unusual = change.robust_z.abs() > rule.max_z && change.relative.abs() > rule.min_change;
    if bad_way && unusual { Verdict::Anomaly(change) } else { Verdict::Usual(change) }
}

/// `past` is not empty.
fn change(past: &[f64], value: f64, log1p: bool) -> Change {
    let scaled = |value: f64| if log1p { value.max(0.0).ln_1p() } else { value };
    let middle = median(past.iter().copied());
    let centre = median(past.iter().copied().map(scaled));
    let spread = MAD_TO_SD * median(past.iter().copied().map(|x| (scaled(x) - centre).abs()));
    let share = |difference: f64, of: f64| match (difference == 0.0, of == 0.0) {
        (true, _) => 0.0,
        (false, true) => difference.signum() * f64::INFINITY,
        (false, false) => difference / of,
    };
    Change {
        median: middle,
        relative: share(value - middle, middle.abs()),
        robust_z: share(scaled(value) - centre, spread),
        points: past.len(),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

/// What two moments of one season have in common.
fn season(at: Timestamp, seasonality: Seasonality) -> u32 {
    let Some(time) = chrono::DateTime::from_timestamp_micros(at.0) else { return 0 };
    let (hour, day) = (time.hour(), time.weekday().num_days_from_monday());
    match seasonality {
        Seasonality::None => 0,
        Seasonality::HourOfDay => hour,
        Seasonality::DayOfWeek => day,
        Seasonality::HourOfWeek => day * 24 + hour,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn points(values: &[f64]) -> Vec<Point> {
        values.iter().zip(0..).map(|(&value, day)| Point { at: Timestamp(day * DAY), value }).collect()
    }

    fn anomaly(past: &[f64], value: f64, change: impl Fn(&mut Rule)) -> bool {
        let mut rule = Rule { least: 5, ..Rule::usual(true) };
        change(&mut rule);
        matches!(judge(&points(past), Timestamp(1_000 * DAY), value, &rule), Verdict::Anomaly(_))
    }

    const STEADY: [f64; 7] = [1000.0, 1040.0, 980.0, 1010.0, 990.0, 1020.0, 1005.0];

    #[test]
    fn an_anomaly_is_unusual_and_large() {
        let as_said = |_: &mut Rule| {};
        // Very unusual, but by a hundred-thousandth; large and unusual; half; a little more.
        assert!(!anomaly(
            &[100_000.0, 99_999.0, 100_000.0, 100_001.0, 100_000.0, 99_998.0],
            99_995.0,
            as_said
        ));
        assert!(anomaly(&[500.0, 1000.0, 1500.0, 200.0, 2000.0], 0.0, as_said));
        assert!(anomaly(&STEADY, 500.0, as_said));
        assert!(!anomaly(&STEADY, 1060.0, as_said));
    }

    #[test]
    fn z_scores_are_those_of_the_definition() {
        let z = |past: &[f64], value: f64, log1p: bool| change(past, value, log1p).robust_z;
        let close =
            |found: f64, wanted: f64| assert!((found - wanted).abs() < 0.05, "{found} is not {wanted}");
        close(z(&STEADY, 500.0, false), -22.7);
        close(z(&STEADY, 500.0, true), -31.8);
        close(z(&STEADY, 1060.0, true), 2.4);
        close(z(&[500.0, 1000.0, 1500.0, 200.0, 2000.0], 0.0, true), -6.7);
        close(z(&[500.0, 1000.0, 1500.0, 200.0, 2000.0], 0.0, false), -1.35);
    }

    #[test]
    fn a_past_without_change_makes_every_large_change_an_anomaly() {
        assert!(anomaly(&[7.0; 8], 8.0, |_| {}));
        assert!(!anomaly(&[7.0; 8], 7.0, |_| {}));
        assert!(!anomaly(&[100.0; 8], 104.0, |_| {}));
        assert!(anomaly(&[0.0; 8], 1.0, |_| {}));
    }

    #[test]
    fn only_the_bad_way_is_an_anomaly() {
        assert!(!anomaly(&STEADY, 500.0, |rule| rule.direction = Direction::Spike));
        assert!(anomaly(&STEADY, 500.0, |rule| rule.direction = Direction::Drop));
        assert!(anomaly(&STEADY, 2000.0, |rule| rule.direction = Direction::Spike));
    }

    #[test]
    fn only_earlier_points_of_the_same_season_within_the_window_count() {
        let rule = Rule { least: 4, seasonality: Seasonality::DayOfWeek, ..Rule::usual(true) };
        // Sundays are 10, all other days 1000: as usual by its season, an anomaly by all days.
        let values: Vec<f64> = (0..35).map(|day| if day % 7 == 3 { 10.0 } else { 1000.0 }).collect();
        let next = Timestamp((35 + 3) * DAY);
        assert!(
            matches!(judge(&points(&values), next, 10.0, &rule), Verdict::Usual(change) if change.points == 5)
        );
        let all = Rule { seasonality: Seasonality::None, ..rule.clone() };
        assert!(
            matches!(judge(&points(&values), next, 10.0, &all), Verdict::Anomaly(change) if change.points == 30)
        );
        // A backfill looks at what was before it.
        let early = Timestamp(3 * DAY);
        assert_eq!(judge(&points(&values), early, 10.0, &all), Verdict::WarmingUp { points: 3, needed: 4 });
        let short = Rule { window: 5, least: 5, ..Rule::usual(true) };
        let old_high: Vec<f64> = [[900.0; 10], [100.0; 10]].concat();
        assert!(matches!(judge(&points(&old_high), Timestamp(99 * DAY), 101.0, &short), Verdict::Usual(_)));
    }
}
