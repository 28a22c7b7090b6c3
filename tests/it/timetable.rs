//! When runs are due. The behaviour, readable; the oracles (croniter, the `cron` crate, brute force) are below.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use chrono_tz::Tz;
use mainspring::core::ids::Timestamp;
use mainspring::core::timetable::{
    Catchup, CronText, Due, Fold, Gap, Missed, Schedule, SkipReason, Timetable, When,
};

mod brute;
mod command;
mod news;
mod oracles;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn cron(texts: &[&str], zone: &str) -> Schedule {
    Schedule {
        when: When::Cron(texts.iter().map(|text| CronText::parse(text).unwrap()).collect()),
        timezone: zone.parse::<Tz>().unwrap(),
        ..Schedule::default()
    }
}

fn every(pace: &str) -> Schedule {
    let pace = mainspring::tasks::units::parse_span(pace).unwrap();
    Schedule { when: When::Every(pace), ..Schedule::default() }
}

/// The wall clock at each fire of one day and a bit, joined by commas; both directions must agree.
fn wall(schedule: &Schedule, from: &str, to: &str) -> String {
    let (from, to) = (at(from), at(to));
    let forward: Vec<Timestamp> = schedule.fires(from, to).map(|fire| fire.at).collect();
    let mut backward = Vec::new();
    let mut before = Timestamp(to.0 + 1);
    while let Some(fire) = schedule.previous_fire(before).filter(|fire| *fire >= from) {
        backward.insert(0, fire);
        before = fire;
    }
    assert_eq!(forward, backward, "backward differs from forward");
    let texts = forward.iter().map(|fire| schedule.local(*fire).unwrap());
    texts.map(|text| text.replace(":00 ", " ").replace("2026-", "")).collect::<Vec<_>>().join(", ")
}

/// The spring night in Berlin: 29 March 2026, 02:00 CET becomes 03:00 CEST.
fn spring(texts: &[&str], gap: Gap) -> String {
    let schedule = Schedule { gap, ..cron(texts, "Europe/Berlin") };
    wall(&schedule, "2026-03-28T12:00:00+01:00", "2026-03-30T12:00:00+02:00")
}

/// The autumn night in Berlin: 25 October 2026, 03:00 CEST becomes 02:00 CET.
fn autumn(texts: &[&str], fold: Fold) -> String {
    let schedule = Schedule { fold, ..cron(texts, "Europe/Berlin") };
    wall(&schedule, "2026-10-24T12:00:00+02:00", "2026-10-26T12:00:00+01:00")
}

#[test]
fn a_time_that_does_not_exist_is_moved_forward_by_the_gap() {
    assert_eq!(spring(&["30 2 * * *"], Gap::Shift), "03-29 03:30 CEST, 03-30 02:30 CEST");
    // The moved one comes after one that stands where it is, and meets another.
    assert_eq!(
        spring(&["0,30 2,3 * * 0"], Gap::Shift),
        "03-29 03:00 CEST, 03-29 03:30 CEST",
        "the two of 02:00 and 03:00 are one"
    );
    assert_eq!(
        spring(&["45 2 29 3 *", "0 3 29 3 *"], Gap::Shift),
        "03-29 03:00 CEST, 03-29 03:45 CEST",
        "02:45 is later than 03:00 that night"
    );
}

#[test]
fn a_time_that_does_not_exist_can_be_dropped() {
    assert_eq!(spring(&["30 2 * * *"], Gap::Skip), "03-30 02:30 CEST");
    assert_eq!(spring(&["0 2,3 29 3 *"], Gap::Skip), "03-29 03:00 CEST");
}

#[test]
fn a_time_that_occurs_twice_fires_the_first_time() {
    assert_eq!(autumn(&["30 2 * * *"], Fold::First), "10-25 02:30 CEST, 10-26 02:30 CET");
}

#[test]
fn a_time_that_occurs_twice_can_fire_the_last_time() {
    assert_eq!(autumn(&["30 2 * * *"], Fold::Last), "10-25 02:30 CET, 10-26 02:30 CET");
    assert_eq!(
        autumn(&["30 1,2,3 25 10 *"], Fold::Last),
        "10-25 01:30 CEST, 10-25 02:30 CET, 10-25 03:30 CET"
    );
}

#[test]
fn a_time_that_occurs_twice_can_fire_both_times() {
    assert_eq!(
        autumn(&["0,30 2 25 10 *"], Fold::Both),
        "10-25 02:00 CEST, 10-25 02:30 CEST, 10-25 02:00 CET, 10-25 02:30 CET"
    );
}

#[test]
fn a_steady_beat_runs_through_whatever_the_clocks_do() {
    for (gap, fold) in [(Gap::Shift, Fold::First), (Gap::Skip, Fold::Last)] {
        let hourly = Schedule { gap, fold, ..cron(&["30 * * * *"], "Europe/Berlin") };
        assert_eq!(
            wall(&hourly, "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z"),
            "03-29 01:30 CET, 03-29 03:30 CEST, 03-29 04:30 CEST"
        );
        assert_eq!(
            wall(&hourly, "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z"),
            "10-25 02:30 CEST, 10-25 02:30 CET, 10-25 03:30 CET"
        );
        let nightly_beat = Schedule { gap, fold, ..cron(&["*/20 2 * * *"], "Europe/Berlin") };
        assert_eq!(wall(&nightly_beat, "2026-03-29T00:00:00Z", "2026-03-29T22:00:00Z"), "");
        assert_eq!(
            wall(&nightly_beat, "2026-10-24T22:00:00Z", "2026-10-25T22:00:00Z"),
            "10-25 02:00 CEST, 10-25 02:20 CEST, 10-25 02:40 CEST, 10-25 02:00 CET, 10-25 02:20 CET, 10-25 02:40 CET"
        );
    }
}

#[test]
fn a_skipped_calendar_day_is_a_gap_of_a_day() {
    // Samoa had no 30 December 2011: noon of that day is noon of the next, where the next day's own fire is.
    let noon = |gap| {
        let schedule = Schedule { gap, ..cron(&["0 12 30,31 12 *"], "Pacific/Apia") };
        schedule.fires(at("2011-12-01"), at("2012-01-31")).count()
    };
    assert_eq!((noon(Gap::Shift), noon(Gap::Skip)), (1, 1));
    let only = Schedule { gap: Gap::Shift, ..cron(&["0 12 30 12 *"], "Pacific/Apia") };
    assert_eq!(only.local(only.next_fire(at("2011-12-01")).unwrap()).unwrap(), "2011-12-31 12:00:00 +14");
}

#[test]
fn half_hour_changes_are_gaps_of_half_an_hour() {
    let schedule = Schedule { gap: Gap::Shift, ..cron(&["15 2 * * *"], "Australia/Lord_Howe") };
    assert_eq!(wall(&schedule, "2026-10-03T12:00:00Z", "2026-10-04T12:00:00Z"), "10-04 02:45 +11");
}

#[test]
fn either_day_field_matches_when_both_are_restricted() {
    let day_or_weekday = cron(&["0 0 13 * Fri"], "UTC");
    assert_eq!(
        wall(&day_or_weekday, "2026-11-01", "2026-11-30"),
        "11-06 00:00 UTC, 11-13 00:00 UTC, 11-20 00:00 UTC, 11-27 00:00 UTC"
    );
    assert_eq!(wall(&day_or_weekday, "2026-12-08", "2026-12-14"), "12-11 00:00 UTC, 12-13 00:00 UTC");
}

#[test]
fn every_form_of_a_field_is_understood() {
    for (text, from, expected) in [
        ("0 0 * * 0", "2026-11-25", "2026-11-29"),
        ("0 0 * * 7", "2026-11-25", "2026-11-29"),
        ("0 0 * * sun", "2026-11-25", "2026-11-29"),
        ("0 0 * * 1-5/2", "2026-11-25", "2026-11-27"),
        ("0 0 * JAN,mar *", "2026-11-25", "2027-01-01"),
        ("0 0 L * *", "2026-02-25", "2026-02-28"),
        ("0 0 LW * *", "2026-02-25", "2026-02-27"),
        ("0 0 15W * *", "2026-11-10", "2026-11-16"),
        ("0 0 * * FRI#2", "2026-11-25", "2026-12-11"),
        ("0 0 * * 5L", "2026-11-01", "2026-11-27"),
        ("0 0 29 2 *", "2026-11-25", "2028-02-29"),
        ("15 30 6 * * *", "2026-11-25", "2026-11-25T06:30:15Z"),
        ("@quarterly", "2026-11-25", "2027-01-01"),
        (" @weekly ", "2026-11-25", "2026-11-29"),
        ("0 0 ? * MON", "2026-11-25", "2026-11-30"),
    ] {
        assert_eq!(cron(&[text], "UTC").next_fire(at(from)), Some(at(expected)), "{text}");
    }
}

#[test]
fn a_cron_text_that_cannot_fire_is_refused_with_the_reason() {
    let refused = |text: &str| CronText::parse(text).unwrap_err().to_string();
    assert_eq!(refused("0 0 31 2 *"), "it would never fire: no month of `2` has a day `31`");
    assert_eq!(refused("0 0 30-31 FEB *"), "it would never fire: no month of `FEB` has a day `30-31`");
    assert_eq!(
        refused("0 0 31 2,4,6,9,11 *"),
        "it would never fire: no month of `2,4,6,9,11` has a day `31`"
    );
    assert!(CronText::parse("0 0 31 2 MON").is_ok(), "Mondays of February match");
    assert_eq!(
        refused("0 25 * * *"),
        "its hour `25` cannot be read (number out of bounds), expected 0 to 23"
    );
    assert_eq!(
        refused("* * * *"),
        "it has 4 field(s), expected five (minute hour day-of-month month day-of-week), or six with seconds first"
    );
    assert!(refused("0 0 * * 1#6").starts_with("its day of week `1#6` cannot be read"));
    assert!(refused("0 0 * 13 *").starts_with("its month `13` cannot be read"));
    assert!(refused("").starts_with("it has 0 field(s)"));
    assert!(refused("every day at noon").starts_with("it has 4 field(s)"));
}

#[test]
fn the_first_fire_after_start_date_takes_one_period_back() {
    let schedule = Schedule { start_date: Some(at("2026-03-01")), ..cron(&["0 6 * * 1"], "UTC") };
    let fires: Vec<_> = schedule.fires(at("2026-01-01"), at("2026-03-09T12:00:00Z")).collect();
    let spans: Vec<String> = fires
        .iter()
        .map(|fire| format!("{} {}..{}", fire.at, fire.data_interval_start, fire.data_interval_end))
        .collect();
    assert_eq!(
        spans,
        [
            "2026-03-02T06:00:00Z 2026-02-23T06:00:00Z..2026-03-02T06:00:00Z",
            "2026-03-09T06:00:00Z 2026-03-02T06:00:00Z..2026-03-09T06:00:00Z",
        ]
    );
    assert!(fires.iter().all(|fire| fire.logical_date == fire.at));
    let classic = Schedule { timetable: Timetable::DataInterval, ..schedule.clone() };
    let dates: Vec<_> = classic.fires(at("2026-01-01"), at("2026-03-09T12:00:00Z")).collect();
    assert!(dates.iter().zip(&fires).all(|(classic, fire)| classic.at == fire.at));
    assert!(dates.iter().all(|fire| fire.logical_date == fire.data_interval_start));
}

#[test]
fn several_cron_texts_fire_when_one_does_and_once_where_they_meet() {
    let schedule = cron(&["0 6 * * *", "0 18 * * *", "0 6 25 * *"], "UTC");
    assert_eq!(
        wall(&schedule, "2026-11-25", "2026-11-26T12:00:00Z"),
        "11-25 06:00 UTC, 11-25 18:00 UTC, 11-26 06:00 UTC"
    );
    assert_eq!(
        schedule.data_interval(at("2026-11-25T18:00:00Z")),
        (at("2026-11-25T06:00:00Z"), at("2026-11-25T18:00:00Z"))
    );
}

#[test]
fn a_steady_pace_counts_from_start_date_or_from_a_monday() {
    let quarter = every("15m");
    assert_eq!(quarter.next_fire(at("2026-11-25T10:01:00Z")), Some(at("2026-11-25T10:15:00Z")));
    assert_eq!(quarter.next_fire(at("2026-11-25T10:15:00Z")), Some(at("2026-11-25T10:30:00Z")));
    assert_eq!(quarter.previous_fire(at("2026-11-25T10:15:00Z")), Some(at("2026-11-25T10:00:00Z")));
    assert_eq!(every("1w").next_fire(at("2026-11-25")), Some(at("2026-11-30")), "a Monday");
    let anchored = Schedule { start_date: Some(at("2026-11-25T10:01:30Z")), ..every("7m") };
    assert_eq!(anchored.next_fire(at("2020-01-01")), Some(at("2026-11-25T10:01:30Z")));
    assert_eq!(anchored.next_fire(at("2026-11-25T10:01:30Z")), Some(at("2026-11-25T10:08:30Z")));
    assert_eq!(anchored.previous_fire(at("2026-11-25T10:01:30Z")), None);
    assert_eq!(every("100ms").next_fire(at("2026-11-25T10:00:00.05Z")), Some(at("2026-11-25T10:00:00.1Z")));
}

fn since() -> Timestamp {
    at("2026-11-20")
}

fn catching_up(missed: Missed, window: Option<u64>, max: Option<u32>) -> Schedule {
    let catchup = Catchup { missed, window: window.map(|days| Duration::from_secs(days * 86_400)), max };
    Schedule { catchup, start_date: Some(at("2026-11-01")), ..cron(&["0 0 * * *"], "UTC") }
}

fn days(due: &Due) -> Vec<String> {
    due.fires.iter().map(|fire| fire.at.to_string()[8..10].to_owned()).collect()
}

fn skipped(due: &Due) -> String {
    due.skipped.map_or("nothing".to_owned(), |skipped| {
        let day = |t: Timestamp| t.to_string()[8..10].to_owned();
        format!("{}..{} {:?} {}", day(skipped.from), day(skipped.to), skipped.count, skipped.why)
    })
}

#[test]
fn without_catchup_only_the_latest_missed_instant_is_due_and_the_others_are_counted() {
    let schedule = catching_up(Missed::Latest, None, None);
    let now = at("2026-11-25T15:00:00Z");
    let due = schedule.due(None, since(), now, 10);
    assert_eq!((days(&due), skipped(&due)), (vec!["25".into()], "01..24 Some(24) no_catchup".into()));
    assert_eq!((due.cursor, due.next), (Some(at("2026-11-25")), Some(at("2026-11-26"))));
    let again = schedule.due(due.cursor, since(), now, 10);
    assert_eq!((days(&again), skipped(&again), again.cursor), (vec![], "nothing".into(), due.cursor));
    // On time, nothing is missed.
    let next = schedule.due(due.cursor, since(), at("2026-11-26"), 10);
    assert_eq!((days(&next), skipped(&next)), (vec!["26".into()], "nothing".into()));
}

#[test]
fn without_start_date_nothing_before_the_first_sight_was_missed() {
    let schedule = Schedule { start_date: None, ..catching_up(Missed::Every, None, None) };
    let due = schedule.due(None, since(), at("2026-11-20T00:00:00Z"), 10);
    assert_eq!(days(&due), ["20"], "the very moment counts");
    let due = schedule.due(None, at("2026-11-20T15:00:00Z"), at("2026-11-20T15:00:00Z"), 10);
    assert_eq!((days(&due), due.cursor, due.next), (vec![], None, Some(at("2026-11-21"))));
}

#[test]
fn with_catchup_every_missed_instant_is_due_a_few_at_a_time() {
    let schedule = catching_up(Missed::Every, None, None);
    let now = at("2026-11-25T15:00:00Z");
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let due = schedule.due(cursor, since(), now, 7);
        assert_eq!(due.skipped, None);
        if due.fires.is_empty() {
            assert_eq!(due.next, Some(at("2026-11-26")));
            break;
        }
        assert!(due.fires.len() <= 7);
        seen.extend(days(&due));
        assert!(due.next.unwrap() <= now || seen.len() == 25, "more is due at once");
        cursor = due.cursor;
    }
    assert_eq!(seen, (1..=25).map(|day| format!("{day:02}")).collect::<Vec<_>>());
}

#[test]
fn catchup_is_bounded_by_window_and_max_and_says_what_it_skips() {
    let now = at("2026-11-25T15:00:00Z");
    let of = |missed, window, max| {
        let due = catching_up(missed, window, max).due(None, since(), now, 100);
        (days(&due).join(" "), skipped(&due), due.cursor)
    };
    let last = Some(at("2026-11-25"));
    assert_eq!(of(Missed::Every, Some(2), None), ("24 25".into(), "01..23 Some(23) window".into(), last));
    assert_eq!(of(Missed::Every, None, Some(3)), ("23 24 25".into(), "01..22 Some(22) max".into(), last));
    assert_eq!(of(Missed::Every, Some(4), Some(2)), ("24 25".into(), "01..23 Some(23) max".into(), last));
    assert_eq!(of(Missed::Every, Some(2), Some(5)), ("24 25".into(), "01..23 Some(23) window".into(), last));
    assert_eq!(of(Missed::Every, None, Some(25)).1, "nothing");
    assert_eq!(of(Missed::Every, Some(0), None), (String::new(), "01..25 Some(25) window".into(), last));
    assert_eq!(of(Missed::Latest, Some(1), None), ("25".into(), "01..24 Some(24) no_catchup".into(), last));
    assert_eq!(of(Missed::Latest, Some(0), None), (String::new(), "01..25 Some(25) window".into(), last));
}

#[test]
fn skipping_is_reported_once_when_the_rest_comes_in_portions() {
    let schedule = catching_up(Missed::Every, None, Some(10));
    let now = at("2026-11-25T15:00:00Z");
    let first = schedule.due(None, since(), now, 4);
    assert_eq!(
        (days(&first).join(" "), skipped(&first)),
        ("16 17 18 19".into(), "01..15 Some(15) max".into())
    );
    let second = schedule.due(first.cursor, since(), now, 4);
    assert_eq!((days(&second).join(" "), skipped(&second)), ("20 21 22 23".into(), "nothing".into()));
}

#[test]
fn a_clock_that_steps_back_yields_no_instant_twice() {
    for missed in [Missed::Latest, Missed::Every] {
        let schedule = Schedule {
            catchup: Catchup { missed, window: None, max: None },
            ..cron(&["*/10 * * * *"], "Europe/Berlin")
        };
        let (mut cursor, mut seen) = (None, Vec::new());
        // Forward, an hour back, forward again, over the hour that Berlin repeats.
        let minutes = (0..180).chain(120..300).chain(240..400);
        for minute in minutes {
            let now = Timestamp(at("2026-10-24T22:00:00Z").0 + minute * 60_000_000);
            let due = schedule.due(cursor, at("2026-10-24T22:00:00Z"), now, 3);
            assert!(due.cursor >= cursor, "the cursor went back");
            cursor = due.cursor;
            seen.extend(due.fires.iter().map(|fire| fire.at));
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "an instant came twice");
        assert_eq!(seen.len(), 40, "one every ten minutes of real time");
    }
}

#[test]
fn a_million_missed_instants_cost_as_much_as_one() {
    let schedule = cron(&["* * * * *"], "Europe/Berlin");
    let now = at("2026-11-25T15:00:30Z");
    let million_minutes = Timestamp(now.0 - 1_000_000 * 60_000_000);
    let began = std::time::Instant::now();
    let due = schedule.due(Some(million_minutes), since(), now, 10);
    assert!(began.elapsed() < Duration::from_millis(500), "took {:?}", began.elapsed());
    assert_eq!(due.fires.len(), 1);
    assert_eq!(due.fires[0].at, at("2026-11-25T15:00:00Z"));
    let skipped = due.skipped.unwrap();
    assert_eq!((skipped.count, skipped.why), (None, SkipReason::NoCatchup), "too many to count");
    assert_eq!(skipped.to, at("2026-11-25T14:59:00Z"));
    // Where a division counts, it is exact.
    let due = every("1m").due(Some(million_minutes), since(), now, 10);
    assert_eq!(due.skipped.unwrap().count, Some(999_999));
}

#[test]
fn catchup_over_a_century_is_capped_and_says_so() {
    let schedule = Schedule {
        catchup: Catchup { missed: Missed::Every, window: None, max: None },
        start_date: Some(at("1926-01-01")),
        ..cron(&["0 * * * *"], "UTC")
    };
    let due = schedule.due(None, since(), at("2026-01-01"), 5);
    assert_eq!(due.fires.len(), 5);
    assert_eq!(due.fires[0].at, at("2014-08-05T09:00:00Z"), "100,000 hours before, this one included");
    let skipped = due.skipped.unwrap();
    assert_eq!((skipped.from, skipped.count, skipped.why), (at("1926-01-01"), None, SkipReason::Max));
}

#[test]
fn nothing_is_due_after_end_date_or_before_start_date() {
    let schedule = Schedule { end_date: Some(at("2026-11-03")), ..catching_up(Missed::Every, None, None) };
    assert_eq!(days(&schedule.due(None, since(), at("2026-11-25"), 10)), ["01", "02", "03"]);
    let due = schedule.due(Some(at("2026-11-03")), since(), at("2026-11-25"), 10);
    assert_eq!((due.fires.len(), due.next), (0, None));
    let due = schedule.due(None, since(), at("2026-10-25"), 10);
    assert_eq!((due.fires.len(), due.next), (0, Some(at("2026-11-01"))));
}

#[test]
fn once_is_once() {
    let once = Schedule { when: When::Once, start_date: Some(at("2026-11-21")), ..Schedule::default() };
    assert_eq!(once.due(None, since(), at("2026-11-20"), 10).next, Some(at("2026-11-21")));
    let due = once.due(None, since(), at("2026-11-25"), 10);
    assert_eq!((days(&due), due.next), (vec!["21".to_owned()], None));
    assert_eq!(once.due(due.cursor, since(), at("2026-11-26"), 10).fires, []);
}

#[test]
fn by_hand_is_never_due_and_no_limit_lets_nothing_through() {
    let due = Schedule::default().due(None, since(), at("2026-11-25"), 10);
    assert_eq!((due.fires.len(), due.next, due.cursor), (0, None, None));
    let due = catching_up(Missed::Every, None, None).due(None, since(), at("2026-11-25"), 0);
    assert_eq!((due.fires.len(), due.skipped, due.cursor), (0, None, None));
    assert_eq!(due.next, Some(at("2026-11-01")), "it stays due");
}

#[test]
fn instants_at_the_ends_of_time_do_not_panic() {
    for schedule in
        [cron(&["* * * * *"], "Europe/Berlin"), cron(&["0 0 29 2 *"], "Asia/Kathmandu"), every("1s")]
    {
        for t in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            let t = Timestamp(t);
            assert!(schedule.next_fire(t).is_none_or(|next| next > t));
            assert!(schedule.previous_fire(t).is_none_or(|previous| previous < t));
            let due = schedule.due(Some(t), t, t, 2);
            assert!(due.cursor >= Some(t));
        }
    }
}

#[test]
fn a_pace_is_described_as_authors_write_it() {
    for text in ["15m", "1h30m", "500ms", "7d", "1s500ms"] {
        assert_eq!(every(text).describe(), format!("every {text}"));
    }
}
