//! Cron against three oracles that share no code with ours: croniter's answers (`tests/fixtures_croniter.py`, which
//! also lists where it means something else on purpose), the `cron` crate where it means the same, and an evaluator
//! here that looks at every minute around the changes of every zone's clock.
//!
//! A triple is (cron text, zone, instant): the fire after the instant is compared, and the one before it.

use std::collections::BTreeSet;

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use mainspring::core::ids::Timestamp;
use mainspring::core::timetable::{Fold, Gap, Schedule};

use super::brute::{Fields, Window};
use super::cron;

const DAY: i64 = 86_400;

fn of(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

/// Compares neighbours of `fires`, all there are between the first and the last, in both directions; answers how
/// many triples that were.
fn compare(schedule: &Schedule, fires: &[i64], wrong: &mut Vec<String>) -> usize {
    let mut differ = |what: &str, from: i64, expected: i64, got: Option<Timestamp>| {
        if got != Some(of(expected)) {
            let policy = format!("{:?} {:?}", schedule.gap, schedule.fold);
            let (from, expected) = (of(from), of(expected));
            wrong.push(format!(
                "{} {policy}: {what} {from}: expected {expected}, got {got:?}",
                schedule.describe()
            ));
        }
    };
    for pair in fires.windows(2) {
        differ("after", pair[0], pair[1], schedule.next_fire(of(pair[0])));
        differ("before", pair[1], pair[0], schedule.previous_fire(of(pair[1])));
    }
    2 * fires.len().saturating_sub(1)
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

/// As croniter and the `cron` crate mean it.
fn skip_both(text: &str, zone: &str) -> Schedule {
    Schedule { gap: Gap::Skip, fold: Fold::Both, ..cron(&[text], zone) }
}

#[test]
fn cron_fires_as_croniter_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/timetable/croniter.txt");
    let file = std::fs::read_to_string(path).unwrap();
    let (mut triples, mut wrong) = (0, Vec::new());
    for line in file.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let [text, zone, first, steps] = parts[..] else { panic!("{line}") };
        let pace = if text.split(' ').count() == 6 { 1 } else { 60 };
        let mut fires: Vec<i64> = vec![first.parse().unwrap()];
        for step in steps.split(' ').filter(|step| !step.is_empty()) {
            let (step, times) = step.split_once('*').unwrap_or((step, "1"));
            for _ in 0..times.parse().unwrap() {
                fires.push(fires[fires.len() - 1] + pace * step.parse::<i64>().unwrap());
            }
        }
        triples += compare(&skip_both(text, zone), &fires, &mut wrong);
    }
    // Where croniter is wrong, and the look at every minute says as ours: Casey set its clock back by three hours,
    // three times, and it passes over the first even hour of the second pass.
    let known = |line: &String| line.starts_with("0 */2 * * * (Antarctica/Casey)");
    assert_eq!(wrong.extract_if(.., |line| known(line)).count(), 6);
    none(&wrong);
    assert!(triples > 150_000, "only {triples} triples were compared");
    println!("croniter: {triples} triples");
}

#[test]
fn cron_fires_as_the_cron_crate_says_where_it_means_the_same() {
    // It wants seconds first, counts Sunday as 1 (names are safe), and needs both day fields to match: one of
    // them is a star here.
    let texts = [
        "0 * * * * *",
        "0 */7 * * * *",
        "30 */20 1-3 * * *",
        "0 30 2 * * *",
        "0 0,45 0,2,3 * * *",
        "0 0 0 * * *",
        "0 59 23 31 * *",
        "0 0 12 29 2 *",
        "0 15 1 1,15 * *",
        "0 0 2 * * SUN",
        "0 30 1 * * MON-FRI",
        "0 5 */6 * 1-3 *",
        "15,45 10 2 * 3,10,11 *",
        "0 0 3 * MAR,OCT,NOV SUN",
    ];
    let zones = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "Asia/Gaza",
        "Pacific/Apia",
        "Pacific/Chatham",
        "America/Santiago",
    ];
    let (mut triples, mut wrong) = (0, Vec::new());
    for text in texts {
        let theirs: ::cron::Schedule = text.parse().unwrap();
        for zone in zones {
            let ours = skip_both(text, zone);
            let zone: Tz = zone.parse().unwrap();
            for start in [
                "2010-12-31T00:00:00Z",
                "2026-03-28T00:00:00Z",
                "2026-10-24T00:00:00Z",
                "2027-04-03T10:00:00Z",
            ] {
                let start: DateTime<Utc> = start.parse().unwrap();
                // It goes by the wall clock: around a repeated hour its order is not that of time, and the end of the
                // list may be in the middle of one.
                let fires = theirs.after(&start.with_timezone(&zone)).take(100);
                let mut fires: Vec<i64> = fires.map(|fire| fire.timestamp()).collect();
                fires.sort_unstable();
                let complete = fires[fires.len() - 1] - 3 * 3_600;
                fires.retain(|fire| *fire <= complete);
                triples += compare(&ours, &fires, &mut wrong);
            }
        }
    }
    none(&wrong);
    assert!(triples > 60_000, "only {triples} triples were compared");
    println!("cron crate: {triples} triples");
}

/// The instants at which a zone's offset changes, found day by day.
fn changes(zone: Tz) -> Vec<(i64, i64)> {
    let offset = |at: i64| -> i64 {
        let utc = DateTime::from_timestamp(at, 0).unwrap().naive_utc();
        i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
    };
    // From 1973 on every offset is whole minutes, so looking at minutes is enough.
    let (mut at, end) = (3 * 365 * DAY, 68 * 365 * DAY);
    let (mut before, mut found) = (offset(at), Vec::new());
    while at < end {
        let after = offset(at + DAY);
        if before != after {
            let (mut low, mut high) = (at, at + DAY);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if offset(middle) == before { low = middle } else { high = middle }
            }
            found.push((high, after - before));
        }
        (at, before) = (at + DAY, after);
    }
    found
}

#[test]
fn cron_fires_as_a_look_at_every_minute_says_around_the_changes_of_every_zone() {
    let texts = [
        "30 2 * * *",
        "0,30 0-3 * * *",
        "5 0,1,2,3,23 * * *",
        "45 1 * * SUN",
        "0 0 * * *",
        "59 23 L * *",
        "*/40 * * * *",
        "0 */2 * * *",
        "*/20 2 * * *",
        "10 * * * MON,SUN",
    ];
    let gaps = [Gap::Shift, Gap::Skip];
    let folds = [Fold::First, Fold::Last, Fold::Both];
    let fields: Vec<Fields> = texts.iter().map(|text| Fields::parse(text)).collect();
    let (mut triples, mut wrong, mut round, mut seen) = (0, Vec::new(), 0, BTreeSet::new());
    let (mut zones, mut nearest) = (0, i64::MAX);
    for zone in chrono_tz::TZ_VARIANTS {
        let all = changes(zone);
        nearest = all.windows(2).map(|pair| pair[1].0 - pair[0].0).min().unwrap_or(i64::MAX).min(nearest);
        // The largest change of the zone, and of the others one forward and one back, chosen by its place in the list.
        let forward: Vec<_> = all.iter().filter(|change| change.1 > 0).collect();
        let back: Vec<_> = all.iter().filter(|change| change.1 < 0).collect();
        let largest = all.iter().max_by_key(|change| change.1.abs());
        let some = |of: &[&(i64, i64)]| (!of.is_empty()).then(|| of[zones % of.len()].0);
        let chosen: BTreeSet<i64> =
            [some(&forward), some(&back), largest.map(|change| change.0)].into_iter().flatten().collect();
        zones += usize::from(!chosen.is_empty());
        for change in chosen {
            let window = Window::around(zone, change);
            for (text, fields) in texts.iter().zip(&fields) {
                let (gap, fold) = (gaps[round % 2], folds[round / 2 % 3]);
                round += 1;
                seen.insert((*text, round % 6));
                let schedule = Schedule { gap, fold, ..cron(&[text], zone.name()) };
                let fires = window.fires(fields, gap, fold);
                triples += compare(&schedule, &fires, &mut wrong);
            }
            round += 1;
        }
    }
    none(&wrong);
    println!("brute force: {triples} triples, {zones} zones");
    assert!(triples > 200_000, "only {triples} triples were compared");
    assert_eq!(seen.len(), 6 * texts.len(), "every text met every policy");
    assert!(zones > 400, "only {zones} zones");
    assert!(nearest > 6 * DAY, "two changes of offset lie {nearest} s apart: the search may step over both");
}
