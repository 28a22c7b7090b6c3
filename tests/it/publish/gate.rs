//! The gate: a clustering is a candidate until its validation passes, and what was served stays until then.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array};
use mainspring::data::models::{self, Event};
use mainspring::segment::prepare::Value as Given;
use mainspring::segment::{Model, assign};
use serde_json::{Value, json};

use super::tasks::{Home, ints, texts};

const ROWS: usize = 1_500;

/// Three groups of customers who shop in two places; `amount` changes the money of a row.
fn customers(amount: impl Fn(usize, f64) -> f64) -> Vec<(&'static str, ArrayRef)> {
    let number = |row: usize, step: usize| ((row * step) % ROWS) as f64 / ROWS as f64;
    let group = |row: usize| (row * 3 / ROWS) as f64;
    let orders = (0..ROWS).map(|row| 1.0 + group(row) * 10.0 + number(row, 7) * 3.0);
    let money = (0..ROWS).map(|row| amount(row, 10.0 + group(row) * 100.0 + number(row, 11) * 20.0));
    let place = (0..ROWS).map(|row| Some(if row % 3 == 0 { "web" } else { "shop" }));
    vec![
        ("id", ints(&(0..ROWS as i64).collect::<Vec<_>>())),
        ("orders", Arc::new(Float64Array::from(orders.collect::<Vec<_>>()))),
        ("money", Arc::new(Float64Array::from(money.collect::<Vec<_>>()))),
        ("place", texts(&place.collect::<Vec<_>>())),
    ]
}

fn cluster() -> Value {
    json!({"from": "features", "key": "id", "into": "segments", "model": "m",
        "features": ["orders", "money", {"name": "place", "type": "categorical", "weight": 0.2}],
        "k": {"min": 2, "max": 5}})
}

fn gate() -> Value {
    json!({"from": "segments", "expect": [
        {"type": "unique", "columns": ["id"]},
        {"type": "separation"},
        {"type": "parity"},
        {"type": "cohesion", "metric": "silhouette", "min": 0.3},
        {"type": "cohesion", "metric": "inertia_ratio", "max": 2},
        {"type": "stability", "metric": "ari"},
        {"type": "stability", "metric": "nmi", "min": 0.8},
    ]})
}

fn with(mut spec: Value, key: &str, value: Value) -> Value {
    spec[key] = value;
    spec
}

fn current(home: &Home) -> Option<String> {
    models::current(home.path(), "m").unwrap()
}

fn events(home: &Home) -> Vec<Event> {
    models::history(home.path(), "m").unwrap().0.iter().map(|record| record.event).collect()
}

fn statuses(outputs: &Value) -> Vec<&str> {
    outputs["results"].as_array().unwrap().iter().map(|r| r["status"].as_str().unwrap()).collect()
}

/// Writes customers, clusters them on `day`, and gives the candidate's version.
async fn clustered(home: &Home, day: u32, amount: impl Fn(usize, f64) -> f64) -> String {
    home.write("features", customers(amount)).await;
    let outputs = home.run_on("cluster", cluster(), day).await.unwrap();
    outputs["model_version"].as_str().unwrap().to_owned()
}

/// Half of the amounts times 100.
fn poison(row: usize, money: f64) -> f64 {
    if row.is_multiple_of(2) { money * 100.0 } else { money }
}

#[tokio::test]
async fn a_candidate_is_served_only_when_its_gate_has_passed() {
    let home = Home::new();
    let first = clustered(&home, 1, |_, money| money).await;
    assert_eq!(current(&home), None);
    let outputs = home.run_on("validate", gate(), 1).await.unwrap();
    assert_eq!(current(&home), Some(first.clone()));
    assert_eq!(outputs["model_version"], json!(first));
    // Of the first version nothing was served before.
    assert_eq!(outputs["skipped"], json!(3), "{outputs}");
    assert_eq!(outputs["passed"], json!(4), "{outputs}");
    // A little more money moves nobody.
    let second = clustered(&home, 2, |row, money| money + f64::from(u8::from(row % 9 == 0))).await;
    assert_ne!(first, second);
    assert_eq!(current(&home), Some(first));
    let outputs = home.run_on("validate", gate(), 2).await.unwrap();
    assert_eq!(outputs["passed"], json!(7), "{outputs}");
    assert_eq!(current(&home), Some(second));
    assert_eq!(events(&home), [Event::Candidate, Event::Promoted, Event::Candidate, Event::Promoted]);
}

#[tokio::test]
async fn a_poisoned_input_is_blocked_and_what_was_served_stays() {
    let home = Home::new();
    let columns = ["id", "segment_id", "segment_name", "distance", "model_version", "run_id"];
    let good = clustered(&home, 1, |_, money| money).await;
    home.run_on("validate", gate(), 1).await.unwrap();
    let served = home.read("segments", &columns).await;
    let bad = clustered(&home, 2, poison).await;
    assert_ne!(home.read("segments", &columns).await, served);
    let error = home.run_on("validate", gate(), 2).await.unwrap_err().to_string();
    assert!(error.contains("stability(ari)"), "{error}");
    let verdict = format!("version {bad} of model `m` is blocked: version {good} stays served");
    assert!(error.ends_with(&verdict), "{error}");
    assert_eq!(current(&home), Some(good.clone()));
    assert_eq!(home.read("segments", &columns).await, served);
    let kept = home.read("dq.results", &["run_id", "expectation", "status"]).await;
    assert!(kept.contains("day2|stability(ari)|fail"), "{kept}");
    let history = models::history(home.path(), "m").unwrap();
    assert_eq!(history.stale_since().map(|r| r.run_id.as_str()), Some("day2"));
    assert!(history.0.last().unwrap().why.contains("stability(ari)"));
    // A second attempt says the same and changes nothing.
    let again = home.run_on("validate", gate(), 2).await.unwrap_err().to_string();
    assert!(again.ends_with(&verdict), "{again}");
    assert_eq!(home.read("segments", &columns).await, served);
    // Mended data pass, and are compared with what is served, not with the poison.
    let mended = clustered(&home, 3, |_, money| money + 1.0).await;
    home.run_on("validate", gate(), 3).await.unwrap();
    assert_eq!(current(&home), Some(mended));
    assert_eq!(models::history(home.path(), "m").unwrap().stale_since(), None);
}

#[tokio::test]
async fn a_first_version_that_fails_is_not_served() {
    let home = Home::new();
    clustered(&home, 1, |_, money| money).await;
    let strict = json!({"from": "segments", "expect": [{"type": "row_count", "min": 9_999}]});
    let error = home.run_on("validate", strict, 1).await.unwrap_err().to_string();
    assert!(error.ends_with("is blocked: nothing was served before, and nothing is"), "{error}");
    assert_eq!(current(&home), None);
}

#[tokio::test]
async fn a_mere_check_and_the_check_of_another_run_promote_nothing() {
    let home = Home::new();
    let version = clustered(&home, 1, |_, money| money).await;
    home.run_on("validate", with(gate(), "publish", json!(false)), 1).await.unwrap();
    home.run_on("validate", with(gate(), "model", json!("m")), 2).await.unwrap();
    assert_eq!(current(&home), None);
    // Told to warn only, it publishes all the same.
    let spec =
        json!({"from": "segments", "on_error": "warn", "expect": [{"type": "row_count", "min": 9_999}]});
    let outputs = home.run_on("validate", spec, 1).await.unwrap();
    assert_eq!(outputs["failed"], json!(1));
    assert_eq!(current(&home), Some(version));
}

#[tokio::test]
async fn a_nightly_check_looks_at_the_last_two_served() {
    let home = Home::new();
    for day in 1..=2 {
        clustered(&home, day, |_, money| money + f64::from(day)).await;
        home.run_on("validate", gate(), day).await.unwrap();
    }
    home.write("features", customers(poison)).await;
    let health =
        |from: &str, expect: Value| json!({"from": from, "model": "m", "on_error": "warn", "expect": expect});
    let expect = json!([{"type": "stability"}, {"type": "separation"}, {"type": "parity", "sample": 100}]);
    let outputs = home.run_on("validate", health("segments", expect), 3).await.unwrap();
    assert_eq!(statuses(&outputs), ["pass", "pass", "pass"], "{outputs}");
    // Today's features are no longer those the model was fitted on.
    let outputs = home.run_on("validate", health("features", json!([{"type": "drift"}])), 3).await.unwrap();
    assert_eq!(statuses(&outputs), ["pass", "fail", "pass"], "{outputs}");
    assert_eq!(outputs["results"][1]["expectation"], "drift(psi) of money");
    assert_eq!(
        (&outputs["alerts"][0]["kind"], &outputs["alerts"][0]["subject"]),
        (&json!("shift"), &json!("features"))
    );
    assert_eq!(events(&home).len(), 4, "a check adds nothing to the history");
}

#[tokio::test]
async fn batch_and_single_customers_agree_and_a_changed_row_is_found() {
    let home = Home::new();
    clustered(&home, 1, |_, money| money).await;
    let parity =
        |sample: usize| json!({"from": "segments", "expect": [{"type": "parity", "sample": sample}]});
    let outputs = home.run_on("validate", parity(ROWS), 1).await.unwrap();
    assert_eq!(outputs["results"][0]["observed"], format!("0 of {ROWS} customers differ"));
    let sql = "SELECT * EXCLUDE (distance), CASE WHEN id = 7 THEN distance + 1e-12 ELSE distance END AS distance FROM segments";
    home.run("transform", json!({"sql": sql, "into": "segments"})).await.unwrap();
    let spec = with(with(parity(ROWS), "model", json!("m")), "on_error", json!("warn"));
    // Another run: what is served is judged by the newest rows.
    let outputs = home.run_on("validate", spec, 2).await.unwrap();
    assert_eq!(outputs["results"][0]["observed"], format!("1 of {ROWS} customers differ"), "{outputs}");
}

#[tokio::test]
async fn a_missing_reference_and_a_newer_format_are_told_apart() {
    let home = Home::new();
    let version = clustered(&home, 1, |_, money| money).await;
    home.run_on("validate", gate(), 1).await.unwrap();
    let judge = async |expect: Value| {
        let spec = json!({"from": "segments", "model": "m", "on_error": "warn", "expect": [expect]});
        let outputs = home.run_on("validate", spec, 2).await.unwrap();
        let result = &outputs["results"][0];
        format!("{}: {}", result["status"].as_str().unwrap(), result["observed"].as_str().unwrap())
    };
    let missing = judge(json!({"type": "stability", "version": "0123456789abcdef"})).await;
    assert_eq!(
        missing,
        format!("error: model `m` has no version `0123456789abcdef`\nhint: known are `{version}`")
    );
    let missing = judge(json!({"type": "drift", "reference": {"model_version": "0123456789abcdef"}})).await;
    assert!(missing.starts_with("error: model `m` has no version"), "{missing}");
    let unserved =
        json!({"from": "segments", "model": "unheard", "expect": [{"type": "stability"}, {"type": "drift"}]});
    let outputs = home.run_on("validate", unserved, 2).await.unwrap();
    assert_eq!(statuses(&outputs), ["skipped", "skipped"], "{outputs}");
    assert!(outputs["results"][0]["observed"].as_str().unwrap().starts_with("no_reference"), "{outputs}");
    let path = home.path().join("models/m").join(&version).join("model.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("segment-model/1", "segment-model/2")).unwrap();
    let newer = judge(json!({"type": "separation"})).await;
    let wanted = format!(
        "error: model `m` version {version}: the model has format `segment-model/2`, expected `segment-model/1`"
    );
    assert!(newer.starts_with(&wanted) && newer.contains("hint: "), "{newer}");
}

#[tokio::test]
async fn an_unknown_level_is_assigned_by_what_is_known_of_the_customer() {
    let home = Home::new();
    let version = clustered(&home, 1, |_, money| money).await;
    let model = Model::from_json(&models::text(home.path(), "m", &version).unwrap()).unwrap();
    let segment = |place: Option<&'static str>| {
        let row = [Given::Number(22.0), Given::Number(220.0), Given::Level(place)];
        let found = assign(&model, &row).unwrap().unwrap();
        model.segments[found.segment].segment_id.clone()
    };
    assert_eq!(segment(Some("market")), segment(Some("shop")));
    assert_eq!(segment(None), segment(Some("shop")));
}
