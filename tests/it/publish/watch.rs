//! Results with a past: figures against their own history, drift between versions, rows in quarantine.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array};
use serde_json::{Value, json};

use super::tasks::{Home, ints, problems, texts};

fn floats(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

/// A dataset of `rows` rows.
async fn rows(home: &Home, rows: usize) {
    let ids: Vec<i64> = (0..rows as i64).collect();
    home.write("t", vec![("id", ints(&ids)), ("amount", floats(&vec![2.0; rows]))]).await;
}

fn watching() -> Value {
    json!({"from": "t", "on_error": "warn", "expect": [
        {"type": "history", "of": {"type": "row_count"}},
        {"type": "history", "of": {"type": "aggregate", "column": "amount", "function": "sum"}, "direction": "spike"},
        {"type": "row_count", "min": 1, "compare": "history", "severity": "warn"},
    ]})
}

fn statuses(outputs: &Value) -> Vec<&str> {
    outputs["results"].as_array().unwrap().iter().map(|r| r["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_figure_that_leaves_its_past_is_an_anomaly_and_never_its_own_baseline() {
    let home = Home::new();
    for day in 1..=7 {
        rows(&home, 100 + day as usize).await;
        let outputs = home.run_on("validate", watching(), day).await.unwrap();
        assert_eq!(statuses(&outputs), ["skipped", "skipped", "pass"], "day {day}: {outputs}");
        assert!(outputs["results"][0]["observed"].as_str().unwrap().contains("warming_up"), "{outputs}");
    }
    rows(&home, 104).await;
    let outputs = home.run_on("validate", watching(), 8).await.unwrap();
    assert_eq!(statuses(&outputs), ["pass", "pass", "pass"], "{outputs}");
    assert_eq!(outputs["alerts"], json!([]));
    // Half the rows are gone: an anomaly, but no spike of the sum.
    rows(&home, 50).await;
    let outputs = home.run_on("validate", watching(), 9).await.unwrap();
    assert_eq!(statuses(&outputs), ["fail", "pass", "warn"], "{outputs}");
    let alerts = outputs["alerts"].as_array().unwrap();
    assert_eq!(alerts.len(), 2, "{outputs}");
    assert_eq!((&alerts[0]["kind"], &alerts[0]["subject"]), (&json!("anomaly"), &json!("t")));
    // The failed day is no part of the past, however often it is repeated; an accepted one is.
    for day in 10..=15 {
        let outputs = home.run_on("validate", watching(), day).await.unwrap();
        assert_eq!(statuses(&outputs)[0], "fail", "day {day}: {outputs}");
    }
    let days: Vec<String> = (9..=15).map(|day| format!("day{day}")).collect();
    let mut accepting = watching();
    accepting["expect"][0]["accepted"] = json!(days);
    accepting["expect"][0]["window"] = json!(7);
    let outputs = home.run_on("validate", accepting, 16).await.unwrap();
    assert_eq!(statuses(&outputs)[0], "pass", "{outputs}");
    let kept = home.read("dq.results", &["run_id", "task", "expectation", "status", "value"]).await;
    assert!(kept.contains("day9|validate|history(row_count)|fail|50.0"), "{kept}");
    assert_eq!(kept.lines().count(), 16 * 3, "{kept}");
}

#[tokio::test]
async fn a_second_attempt_replaces_the_results_of_the_first() {
    let home = Home::new();
    rows(&home, 3).await;
    let spec =
        || json!({"from": "t", "expect": [{"type": "row_count", "min": 1}, {"type": "row_count", "max": 9}]});
    home.run_as("validate", spec(), "r1", 1).await.unwrap();
    home.run_as("validate", spec(), "r1", 2).await.unwrap();
    home.run_as("validate", spec(), "r2", 1).await.unwrap();
    let kept = home.read("dq.results", &["run_id", "expectation", "status", "evaluated"]).await;
    assert_eq!(
        kept,
        "r1|row_count #2|pass|3\nr1|row_count|pass|3\nr2|row_count #2|pass|3\nr2|row_count|pass|3"
    );
}

#[tokio::test]
async fn results_are_kept_when_the_task_fails_and_an_empty_table_fails_for_want_of_data() {
    let home = Home::new();
    home.write("t", vec![("id", ints(&[])), ("amount", floats(&[]))]).await;
    let expect = json!([
        {"type": "not_null", "column": "id"},
        {"type": "history", "of": {"type": "aggregate", "column": "amount", "function": "mean"}},
    ]);
    let error = home.run("validate", json!({"from": "t", "expect": expect})).await.unwrap_err().to_string();
    assert_eq!(error.matches("no_data: there are no rows to judge").count(), 2, "{error}");
    let kept = home.read("dq.results", &["expectation", "status", "observed"]).await;
    assert_eq!(
        kept,
        "history(mean(amount))|fail|no_data: there are no rows to judge\n\
         not_null(id)|fail|no_data: there are no rows to judge"
    );
}

/// 5,000 amounts, of which `share` are multiplied by `factor`, and a word.
fn sample(share: f64, factor: f64, word: &str) -> Vec<(&'static str, ArrayRef)> {
    let rows = 5_000;
    let amount = |row: usize| {
        let spread = ((row * 7_919) % rows) as f64 / rows as f64;
        let raised = (row as f64) < share * rows as f64;
        (1.0 + spread * 99.0) * if raised { factor } else { 1.0 }
    };
    let amounts: Vec<f64> = (0..rows).map(amount).collect();
    let words: Vec<Option<&str>> = (0..rows)
        .map(|row| if (row as f64) < share * rows as f64 { Some(word) } else { Some("shop") })
        .collect();
    vec![
        ("id", ints(&(0..rows as i64).collect::<Vec<_>>())),
        ("amount", floats(&amounts)),
        ("place", texts(&words)),
    ]
}

#[cfg(feature = "ml")]
#[tokio::test]
async fn drift_is_told_between_versions_by_every_measure() {
    let home = Home::new();
    home.write("t", sample(0.0, 1.0, "shop")).await;
    home.write("old", sample(0.0, 1.0, "shop")).await;
    let drift = |method: &str, column: &str, reference: Value| json!({"type": "drift", "columns": [column], "method": method, "reference": reference});
    let judge = async |expect: Value| {
        let spec = json!({"from": "t", "on_error": "warn", "expect": [expect]});
        let outputs = home.run("validate", spec).await.unwrap();
        (statuses(&outputs)[0].to_owned(), outputs)
    };
    let first = judge(drift("psi", "amount", json!({"version": "previous"}))).await;
    assert_eq!(first.0, "skipped", "{}", first.1);
    home.write("t", sample(0.5, 100.0, "web")).await;
    for reference in [json!({"version": "previous"}), json!({"version": 0}), json!({"table": "old"})] {
        for method in ["psi", "ks", "js", "wasserstein", "chi2"] {
            let (status, outputs) = judge(drift(method, "amount", reference.clone())).await;
            assert_eq!(status, "fail", "{method} {reference}: {outputs}");
            assert_eq!(outputs["alerts"][0]["kind"], "shift", "{outputs}");
        }
        let (status, outputs) = judge(drift("psi", "place", reference.clone())).await;
        assert_eq!(status, "fail", "{outputs}");
        let (status, outputs) = judge(drift("psi", "id", reference)).await;
        assert_eq!(status, "pass", "{outputs}");
    }
    let (status, outputs) = judge(drift("psi", "amount", json!({"version": 99}))).await;
    assert_eq!(status, "error", "{outputs}");
    assert!(outputs["results"][0]["observed"].as_str().unwrap().contains("no version 99"), "{outputs}");
    home.write("t", sample(0.5, 100.0, "web").into_iter().map(|(n, a)| (n, a.slice(0, 100))).collect()).await;
    let (status, outputs) = judge(drift("psi", "amount", json!({"table": "old"}))).await;
    assert_eq!(status, "skipped", "{outputs}");
    assert!(outputs["results"][0]["observed"].as_str().unwrap().starts_with("sample_too_small"), "{outputs}");
}

#[tokio::test]
async fn a_figure_is_compared_with_the_version_before() {
    let home = Home::new();
    rows(&home, 100).await;
    let compare =
        json!({"type": "compare", "column": "id", "function": "max", "version": "previous", "relative": 0.1});
    let judge = async || {
        let spec = json!({"from": "t", "on_error": "warn", "expect": [compare]});
        let outputs = home.run("validate", spec).await.unwrap();
        statuses(&outputs)[0].to_owned()
    };
    assert_eq!(judge().await, "skipped");
    rows(&home, 105).await;
    assert_eq!(judge().await, "pass");
    rows(&home, 205).await;
    assert_eq!(judge().await, "fail");
}

#[tokio::test]
async fn rows_in_quarantine_are_kept_apart_with_what_they_break() {
    let home = Home::new();
    home.write("t", vec![("id", ints(&[1, 2, 3, 4])), ("amount", floats(&[5.0, -1.0, 2.0, f64::NAN]))]).await;
    let mut spec = json!({"from": "t", "into": "clean", "expect": [
        {"type": "range", "column": "amount", "min": 0, "severity": "quarantine"},
        {"type": "not_null", "column": "amount", "severity": "quarantine"},
        {"type": "unique", "columns": ["id"]},
    ]});
    let outputs = home.run("validate", spec.clone()).await.unwrap();
    assert_eq!(statuses(&outputs), ["warn", "warn", "pass"], "{outputs}");
    assert_eq!(home.read("clean", &["id", "amount"]).await, "1|5.0\n3|2.0");
    let kept = home.read("t__quarantine", &["id", "_expectation"]).await;
    assert_eq!(kept, "2|range(amount)\n4|not_null(amount)");
    // Too many.
    spec["quarantine"] = json!({"table": "apart", "max_share": 0.4});
    let error = home.run("validate", spec).await.unwrap_err().to_string();
    assert_eq!(error, "2 of 4 rows of `t` would go into quarantine, `max_share` allows 0.4");
}

#[test]
fn settings_that_cannot_work_are_refused_before_anything_runs() {
    let of = |expect: Value| problems("validate", json!({"from": "t", "expect": [expect]}));
    let quarantine = of(json!({"type": "range", "column": "a", "min": 0, "severity": "quarantine"}));
    assert!(quarantine.starts_with("into: an expectation has `severity: quarantine`"), "{quarantine}");
    let all = of(json!({"type": "unique", "columns": ["a"], "severity": "quarantine"}));
    assert!(all.contains("`unique(a)` judges all together"), "{all}");
    let history = of(json!({"type": "history", "of": {"type": "schema", "columns": []}}));
    assert!(history.contains("`schema` has no figure that `history` could watch"), "{history}");
    let drift = of(json!({"type": "drift", "method": "ks"}));
    assert!(drift.contains("`ks` needs the rows of a reference"), "{drift}");
    let compare = of(json!({"type": "compare", "column": "a", "function": "mean"}));
    assert!(compare.contains("neither `table` nor `version`"), "{compare}");
}
