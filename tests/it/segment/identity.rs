//! Segments that stay themselves from night to night, and what is said when they do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainspring::segment::identity::{Event, best_pairs};
use mainspring::segment::prepare::Column;
use mainspring::segment::spec::ClusterSpec;
use mainspring::segment::{ClusterInput, Clustering, Kernel, Previous, cluster};

use super::{chance, fixture, numbers, rows};

/// A draw that looks normal enough: mean 0, deviation 1.
fn normal(number: u64) -> f64 {
    (0..12).map(|part| chance(number * 12 + part)).sum::<f64>() - 6.0
}

/// Recency, frequency and money of a customer, skewed as sales are.
fn shopper(number: u64) -> [f64; 3] {
    let habit = normal(number * 3);
    let frequency = (0.9 * habit + 1.2 + 0.4 * normal(number * 3 + 1)).exp().ceil();
    let recency = (4.5 - 0.7 * habit + 0.8 * normal(number * 3 + 2)).exp().min(365.0).round();
    let monetary = frequency * (3.0 + 0.5 * normal(number * 3 + 7_000_000)).exp();
    [recency, frequency, monetary]
}

fn input(customers: &BTreeMap<String, [f64; 3]>, spec: &str, previous: Option<Previous>) -> ClusterInput {
    let column = |place: usize| Column::Numeric(customers.values().map(|values| values[place]).collect());
    let names = ["recency_days", "frequency", "monetary"];
    let spec: ClusterSpec = serde_json::from_str(spec).unwrap();
    ClusterInput {
        model: "customers".into(),
        keys: customers.keys().map(|key| Arc::from(key.as_str())).collect(),
        columns: names.iter().enumerate().map(|(place, name)| ((*name).to_owned(), column(place))).collect(),
        spec,
        previous,
        given: None,
        kernel: Kernel::Auto,
    }
}

/// What the next run is told of this one.
fn as_previous(customers: &BTreeMap<String, [f64; 3]>, found: &Clustering) -> Previous {
    let members = customers.keys().zip(&found.assignments);
    let members = members.filter_map(|(key, found)| Some((Arc::from(key.as_str()), found.as_ref()?.segment)));
    Previous { model: found.model.clone(), version: found.version.clone(), members: members.collect() }
}

fn ids_and_names(found: &Clustering) -> BTreeMap<String, String> {
    found.model.segments.iter().map(|s| (s.segment_id.clone(), s.name.clone())).collect()
}

const NIGHTLY: &str = r#"{"features": [{"name": "recency_days", "transform": "log1p"},
    {"name": "frequency", "transform": "log1p"}, {"name": "monetary", "transform": "log1p"}], "k": 8}"#;

#[test]
fn fifteen_nights_with_a_twentieth_of_customers_replaced_move_few_of_the_others() {
    let mut customers: BTreeMap<String, [f64; 3]> =
        (0..6_000).map(|number| (format!("c{number:05}"), shopper(number))).collect();
    let mut found = cluster(input(&customers, NIGHTLY, None)).unwrap();
    let first = ids_and_names(&found);
    assert_eq!(first.len(), 8);
    let mut moved = Vec::new();
    for day in 1..=15_u64 {
        let previous = as_previous(&customers, &found);
        let leaving: Vec<String> = customers
            .keys()
            .enumerate()
            .filter(|(at, _)| *at as u64 % 20 == day)
            .map(|(_, key)| key.clone())
            .collect();
        for (number, key) in (0..).zip(&leaving) {
            customers.remove(key);
            let new = day * 100_000 + number;
            customers.insert(format!("d{new:08}"), shopper(new));
        }
        found = cluster(input(&customers, NIGHTLY, Some(previous))).unwrap();
        let migration = found.migration.as_ref().unwrap();
        assert_eq!((migration.arrived, migration.left), (leaving.len() as u64, leaving.len() as u64));
        moved.push(migration.moved_share);
        // Staying put costs little: the fit is nearly as good as one that knows nothing of yesterday.
        let refresh = found.refresh.as_ref().unwrap();
        let (warm, cold) = (refresh.warm_inertia.unwrap(), refresh.cold_inertia.unwrap());
        assert!(warm <= 1.01 * cold, "day {day}: {warm} against {cold}");
        assert_eq!(ids_and_names(&found), first, "day {day}");
        assert!(found.lineage.iter().all(|step| step.event == Event::Survived), "{:?}", found.lineage);
    }
    let mean = moved.iter().sum::<f64>() / moved.len() as f64;
    println!("moved share: mean {mean:.4}, worst {:.4}", moved.iter().copied().fold(0.0, f64::max));
    assert!(mean <= 0.01 && moved.iter().all(|share| *share <= 0.03), "{moved:?}");
}

/// Four groups of 100 customers each at the corners of a square; `at` moves them.
fn groups(at: impl Fn(usize) -> [f64; 2]) -> BTreeMap<String, [f64; 3]> {
    let customer = |number: usize| {
        let [x, y] = at(number % 4);
        let off = |place: u64| chance(number as u64 * 2 + place);
        (format!("c{number:04}"), [x + off(0), y + off(1), 1.0])
    };
    (0..400).map(customer).collect()
}

fn corner(group: usize) -> [f64; 2] {
    [[10.0, 10.0], [10.0, 50.0], [50.0, 10.0], [50.0, 50.0]][group]
}

fn square(k: usize) -> String {
    format!(r#"{{"features": ["recency_days", "frequency"], "scale": "none", "k": {k}}}"#)
}

#[test]
fn two_segments_that_become_one_are_told_as_a_merge_and_the_others_survive() {
    let before = groups(corner);
    let first = cluster(input(&before, &square(4), None)).unwrap();
    let of = |key: &str, found: &Clustering, keys: &BTreeMap<String, [f64; 3]>| {
        let row = keys.keys().position(|other| other == key).unwrap();
        found.model.segments[found.assignments[row].unwrap().segment].segment_id.clone()
    };
    // The second group moves to where the first is.
    let after = groups(|group| corner(if group == 1 { 0 } else { group }));
    let second = cluster(input(&after, &square(3), Some(as_previous(&before, &first)))).unwrap();
    let told: Vec<(Event, Vec<String>, Vec<String>)> =
        second.lineage.iter().map(|step| (step.event, step.from.clone(), step.into.clone())).collect();
    let id = |group: usize| of(&format!("c{group:04}"), &first, &before);
    let merged = of("c0000", &second, &after);
    assert_eq!(merged, of("c0001", &second, &after));
    assert!(merged == id(0) || merged == id(1), "one of the two ids lives on");
    let (event, mut from, into) = told.iter().find(|(event, ..)| *event == Event::Merged).cloned().unwrap();
    from.sort();
    let mut both = vec![id(0), id(1)];
    both.sort();
    assert_eq!((event, from, into), (Event::Merged, both, vec![merged.clone()]));
    for group in [2, 3] {
        let same = (Event::Survived, vec![id(group)], vec![id(group)]);
        assert!(told.contains(&same), "{told:?}");
        assert_eq!(of(&format!("c{group:04}"), &second, &after), id(group));
    }
    assert!(told.iter().all(|(event, ..)| matches!(event, Event::Merged | Event::Survived)), "{told:?}");
}

#[test]
fn a_segment_that_falls_apart_is_told_as_a_split_and_ids_are_not_given_twice() {
    let before = groups(|group| corner(if group == 1 { 0 } else { group }));
    let first = cluster(input(&before, &square(3), None)).unwrap();
    let after = groups(corner);
    let second = cluster(input(&after, &square(4), Some(as_previous(&before, &first)))).unwrap();
    let split = second.lineage.iter().find(|step| step.event == Event::Split).unwrap();
    assert_eq!((split.from.len(), split.into.len(), split.overlap), (1, 2, Some(1.0)));
    let ids = ids_and_names(&second);
    assert_eq!(ids.len(), 4, "four different ids");
    assert_eq!(ids_and_names(&first).keys().filter(|id| ids.contains_key(*id)).count(), 3);
}

#[test]
fn without_common_customers_centres_decide() {
    let before = groups(corner);
    let first = cluster(input(&before, &square(4), None)).unwrap();
    let after: BTreeMap<String, [f64; 3]> =
        groups(corner).into_iter().map(|(key, values)| (format!("new-{key}"), values)).collect();
    let second = cluster(input(&after, &square(4), Some(as_previous(&before, &first)))).unwrap();
    assert_eq!(ids_and_names(&second), ids_and_names(&first));
    assert_eq!(second.migration.unwrap().common, 0);
}

#[test]
fn a_name_is_kept_while_its_segment_lives_and_an_override_wins() {
    let before = groups(corner);
    let first = cluster(input(&before, &square(4), None)).unwrap();
    // Everybody changes, and so would the words; the groups are the same customers.
    let after = groups(|group| {
        let [x, y] = corner(group);
        [60.0 - x, 60.0 - y]
    });
    let second = cluster(input(&after, &square(4), Some(as_previous(&before, &first)))).unwrap();
    assert_eq!(ids_and_names(&second), ids_and_names(&first));
    assert_eq!(second.renames.len(), 4, "{:?}", second.renames);
    let id = first.model.segments[0].segment_id.clone();
    let spec = square(4).replace("\"k\"", &format!(r#""naming": {{"overrides": {{"{id}": "Best"}}}}, "k""#));
    let third = cluster(input(&after, &spec, Some(as_previous(&after, &second)))).unwrap();
    assert_eq!(ids_and_names(&third)[&id], "Best");
}

#[test]
fn the_same_rows_after_themselves_give_the_same_centres() {
    let customers = groups(corner);
    let first = cluster(input(&customers, &square(4), None)).unwrap();
    let again = cluster(input(&customers, &square(4), Some(as_previous(&customers, &first)))).unwrap();
    assert_eq!(again.model.assign.centres, first.model.assign.centres);
    assert_eq!(again.version, first.version);
    assert_eq!(again.migration.unwrap().moved_share, 0.0);
}

#[test]
fn pairs_cost_what_scipys_assignments_cost() {
    for case in fixture("metrics")["pairs"].as_array().unwrap() {
        let weights = rows(&case["weights"]);
        let found = best_pairs(&weights);
        let sum: f64 = found.iter().zip(&weights).filter_map(|(column, row)| Some(row[(*column)?])).sum();
        let theirs = numbers(&case["total"])[0];
        assert!((sum - theirs).abs() <= 1e-9 * theirs.abs().max(1.0), "{sum} is not {theirs}");
    }
}
