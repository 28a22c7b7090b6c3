//! Runs that new data and events start.

use std::sync::Arc;
use std::time::Duration;

use mainspring::core::ids::Timestamp;
use mainspring::core::timetable::{AssetCondition, AssetDue, AssetEvent, Batching, CronText, Schedule, When};

use super::at;

fn asset(name: &str) -> AssetCondition {
    AssetCondition::Asset(Arc::from(name))
}

fn on(condition: AssetCondition, cron: &[&str]) -> Schedule {
    let cron = cron.iter().map(|text| CronText::parse(text).unwrap()).collect();
    Schedule { when: When::Assets { condition, cron }, ..Schedule::default() }
}

/// `orders 10:00, users 10:05`: what was written when, on 25 November.
fn events(text: &str) -> Vec<AssetEvent> {
    let pairs = text.split(", ").filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (asset, time) = pair.split_once(' ').unwrap();
            AssetEvent { asset: asset.into(), at: clock(time) }
        })
        .collect()
}

fn clock(time: &str) -> Timestamp {
    at(&format!("2026-11-25T{time}:00Z"))
}

/// `10:05 10:00..10:05` (instant and data interval), or `waits for orders, next 12:00`.
fn verdict(schedule: &Schedule, given: &str, cursor: Option<&str>, now: &str) -> String {
    let short = |t: Timestamp| t.to_string()[11..16].to_owned();
    let since = clock("00:00");
    match schedule.due_by_assets(&events(given), cursor.map(clock), since, clock(now)) {
        AssetDue::Fire { fire, .. } => {
            format!(
                "{} {}..{}",
                short(fire.at),
                short(fire.data_interval_start),
                short(fire.data_interval_end)
            )
        }
        AssetDue::Wait { missing, next } => {
            let next = next.map_or(String::new(), |next| format!(", next {}", short(next)));
            format!("waits for {}{next}", missing.join(" "))
        }
    }
}

#[test]
fn all_assets_must_be_new_and_the_last_decides_the_moment() {
    let schedule = on(AssetCondition::All(vec![asset("orders"), asset("users")]), &[]);
    assert_eq!(verdict(&schedule, "", None, "11:00"), "waits for orders users");
    assert_eq!(verdict(&schedule, "orders 10:00, orders 10:30", None, "11:00"), "waits for users");
    assert_eq!(
        verdict(&schedule, "users 10:20, orders 10:00, orders 10:30", None, "11:00"),
        "10:20 10:00..10:20"
    );
}

#[test]
fn no_two_runs_by_new_data_stand_for_one_moment() {
    let schedule = on(asset("orders"), &[]);
    let due =
        |cursor| schedule.due_by_assets(&events("orders 10:00"), cursor, clock("00:00"), clock("11:00"));
    let at = |due| match due {
        AssetDue::Fire { fire, cursor } => {
            assert_eq!((fire.at, fire.logical_date, fire.data_interval_end), (cursor, cursor, cursor));
            assert_eq!(fire.data_interval_start, clock("10:00"));
            cursor.0 - clock("10:00").0
        }
        AssetDue::Wait { .. } => panic!("it is due"),
    };
    assert_eq!(at(due(None)), 0);
    assert_eq!(at(due(Some(clock("09:00")))), 0);
    assert_eq!(at(due(Some(clock("10:00")))), 1, "one microsecond after the run before");
    // The clock was set back, or the event was written by a process whose clock is late.
    assert_eq!(at(due(Some(clock("10:01")))), 60_000_001);
}

#[test]
fn any_asset_is_enough_and_the_first_decides_the_moment() {
    let schedule = on(AssetCondition::Any(vec![asset("orders"), asset("users")]), &[]);
    assert_eq!(verdict(&schedule, "users 10:20, orders 10:10", None, "11:00"), "10:10 10:10..10:10");
    assert_eq!(verdict(&schedule, "rates 10:00", None, "11:00"), "waits for orders users");
}

#[test]
fn conditions_nest() {
    let either = AssetCondition::Any(vec![asset("shop"), asset("web")]);
    let schedule = on(AssetCondition::All(vec![asset("users"), either]), &[]);
    assert_eq!(schedule.describe(), "new data in users and (shop or web)");
    assert_eq!(verdict(&schedule, "shop 10:00, web 10:01", None, "11:00"), "waits for users");
    assert_eq!(verdict(&schedule, "web 10:01, users 10:03", None, "11:00"), "10:03 10:01..10:03");
    assert_eq!(verdict(&schedule, "users 10:03", None, "11:00"), "waits for shop web");
}

#[test]
fn with_a_cron_text_both_the_clock_and_the_data_are_needed() {
    let schedule = on(asset("orders"), &["0 */6 * * *"]);
    assert_eq!(verdict(&schedule, "orders 05:00", Some("00:00"), "05:59"), "waits for , next 06:00");
    assert_eq!(verdict(&schedule, "orders 05:00", Some("00:00"), "06:00"), "06:00 00:00..06:00");
    // The clock strikes first: the run is due when data comes, for the interval that had ended.
    assert_eq!(verdict(&schedule, "", Some("00:00"), "06:01"), "waits for orders, next 12:00");
    assert_eq!(verdict(&schedule, "orders 07:30", Some("00:00"), "08:00"), "07:30 00:00..06:00");
    // Instants that passed without data are not made up for one by one.
    assert_eq!(verdict(&schedule, "orders 13:00", Some("00:00"), "13:05"), "13:00 06:00..12:00");
    // Each instant serves once.
    assert_eq!(verdict(&schedule, "orders 13:30", Some("12:00"), "13:40"), "waits for , next 18:00");
}

#[test]
fn no_run_by_new_data_outside_start_and_end_date() {
    let schedule = Schedule { start_date: Some(clock("12:00")), ..on(asset("orders"), &[]) };
    assert_eq!(verdict(&schedule, "orders 10:00", None, "11:00"), "waits for , next 12:00");
    let schedule = Schedule { end_date: Some(clock("09:00")), ..on(asset("orders"), &[]) };
    assert_eq!(verdict(&schedule, "orders 10:00", None, "11:00"), "waits for ");
}

#[test]
fn a_batch_starts_when_it_is_full_or_has_waited_long_enough() {
    let batching = Batching { wait_max: Duration::from_secs(60), max: 3 };
    let arrivals = |minutes: &[&str]| minutes.iter().map(|m| clock(m)).collect::<Vec<_>>();
    let cut = |waiting: &[&str], now: &str, limit| {
        let batches = batching.due(&arrivals(waiting), clock(now), limit);
        let due: Vec<_> = batches.due.iter().map(|batch| (batch.events, batch.at)).collect();
        (due, batches.next)
    };
    assert_eq!(cut(&[], "10:00", 9), (vec![], None));
    assert_eq!(cut(&["10:00", "10:00"], "10:00", 9), (vec![], Some(clock("10:01"))), "not full, not waited");
    assert_eq!(cut(&["10:00", "10:00"], "10:01", 9), (vec![(2, clock("10:01"))], None), "waited");
    assert_eq!(cut(&["10:00"; 3], "10:00", 9), (vec![(3, clock("10:00"))], None), "full");
    assert_eq!(
        cut(&["10:00"; 7], "10:00", 9),
        (vec![(3, clock("10:00")), (3, clock("10:00"))], Some(clock("10:01"))),
        "the rest waits"
    );
    assert_eq!(
        cut(&["10:00"; 7], "10:00", 1),
        (vec![(3, clock("10:00"))], Some(clock("10:00"))),
        "the limit"
    );
    // After an outage what waits goes out in full batches, not in those it would have been.
    assert_eq!(
        cut(&["09:00", "09:10", "09:20", "09:30"], "10:00", 9),
        (vec![(3, clock("09:01")), (1, clock("09:31"))], None)
    );
}

#[test]
fn a_batch_is_a_run_that_stands_for_its_events() {
    let batching = Batching { wait_max: Duration::from_secs(60), max: 2 };
    let when = When::Event { name: "bought".into(), batching };
    let schedule = Schedule { when, ..Schedule::default() };
    let arrivals = ["10:00", "10:01", "10:05"].map(clock);
    let due = schedule.due_by_events(&arrivals, Some(clock("10:05")), clock("10:05"), 9);
    let [(fire, 2)] = due.fires.as_slice() else { panic!("one full batch: {due:?}") };
    assert_eq!(fire.at.0, clock("10:05").0 + 1, "later than the run before");
    assert_eq!((fire.logical_date, fire.data_interval_end), (fire.at, fire.at));
    assert_eq!(fire.data_interval_start, clock("10:00"));
    assert_eq!((due.cursor, due.next), (Some(fire.at), Some(clock("10:06"))));
    let limited = |schedule: &Schedule, now| {
        let due = schedule.due_by_events(&arrivals, None, clock(now), 9);
        (due.fires.len(), due.next)
    };
    assert_eq!(limited(&schedule, "11:00"), (2, None));
    let later = Schedule { start_date: Some(clock("12:00")), ..schedule.clone() };
    assert_eq!(limited(&later, "11:00"), (0, Some(clock("12:00"))));
    let over = Schedule { end_date: Some(clock("09:00")), ..schedule };
    assert_eq!(limited(&over, "11:00"), (0, None));
    assert_eq!(limited(&Schedule::default(), "11:00"), (0, None), "no event starts a DAG run by hand");
}
