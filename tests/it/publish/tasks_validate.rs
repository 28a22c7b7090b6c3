//! Each expectation: passed, failed, and without data.

use std::sync::Arc;

use datafusion::arrow::array::{Date32Array, Float64Array};
use mainspring::tasks::{TaskError, find};
use serde_json::{Value, json};

use super::tasks::{Home, ints, problems, texts};

/// Table `t` with five rows, `empty` with none, `ids` with the ids 1 to 4.
async fn home() -> Home {
    let home = Home::new();
    let price = [Some(1.0), Some(2.0), Some(3.0), Some(4.0), Some(f64::NAN)];
    home.write(
        "t",
        vec![
            ("id", ints(&[1, 2, 3, 4, 4])),
            ("country", texts(&[Some("DE"), Some("FR"), None, Some("DE"), Some("xx")])),
            ("price", Arc::new(Float64Array::from(price.to_vec()))),
            ("day", Arc::new(Date32Array::from(vec![20_454, 20_453, 20_452, 20_451, 20_450]))),
            ("segment_id", texts(&[Some("a"), Some("a"), Some("a"), Some("a"), Some("b")])),
        ],
    )
    .await;
    home.write(
        "empty",
        vec![
            ("id", ints(&[])),
            ("country", texts(&[])),
            ("price", Arc::new(Float64Array::from(Vec::<f64>::new()))),
        ],
    )
    .await;
    home.write(
        "ids",
        vec![("id", ints(&[1, 2, 3])), ("price", Arc::new(Float64Array::from(vec![2.0, 3.0, 2.5])))],
    )
    .await;
    home.write(
        "t__metrics",
        vec![
            ("name", texts(&[Some("silhouette"), Some("davies_bouldin")])),
            ("value", Arc::new(Float64Array::from(vec![0.3, 1.0]))),
            ("ci_low", Arc::new(Float64Array::from(vec![Some(0.25), None]))),
        ],
    )
    .await;
    home
}

async fn status(home: &Home, from: &str, expectation: &Value) -> (String, String) {
    let spec = json!({"from": from, "expect": [expectation], "on_error": "warn"});
    let outputs = home.run("validate", spec).await.unwrap();
    let result = &outputs["results"][0];
    (result["status"].as_str().unwrap().to_owned(), result.to_string())
}

async fn check(cases: &[(&str, &str, Value)]) {
    let home = home().await;
    for (wanted, from, expectation) in cases {
        let (found, result) = status(&home, from, expectation).await;
        assert_eq!(found, *wanted, "{expectation} on {from}: {result}");
    }
}

#[tokio::test]
async fn expectations_on_rows_pass_and_fail_as_they_say() {
    check(&[
        ("pass", "t", json!({"type": "not_null", "column": "id"})),
        ("fail", "t", json!({"type": "not_null", "column": "country"})),
        ("fail", "t", json!({"type": "not_null", "column": "price"})),
        ("pass", "t", json!({"type": "not_null", "column": "country", "at_least": 0.8})),
        ("pass", "t", json!({"type": "in_set", "column": "country", "values": ["DE", "FR", "xx"]})),
        (
            "fail",
            "t",
            json!({"type": "in_set", "column": "country", "values": ["DE", "FR", "xx"], "nulls": "fail"}),
        ),
        ("fail", "t", json!({"type": "in_set", "column": "country", "values": ["DE", "FR", "XX"]})),
        ("pass", "t", json!({"type": "in_set", "column": "id", "values": [1, 2, 3, 4]})),
        ("fail", "t", json!({"type": "not_in_set", "column": "country", "values": ["xx"]})),
        ("pass", "t", json!({"type": "range", "column": "price", "min": 1, "max": 4})),
        ("fail", "t", json!({"type": "range", "column": "price", "min": 1, "strict_min": true})),
        ("pass", "t", json!({"type": "range", "column": "day", "min": "2025-12-01", "max": "2026-01-31"})),
        ("pass", "t", json!({"type": "length", "column": "country", "min": 2, "max": 2})),
        ("fail", "t", json!({"type": "length", "column": "country", "max": 1})),
        ("pass", "t", json!({"type": "regex", "column": "country", "pattern": "^[A-Zx]{2}$"})),
        ("fail", "t", json!({"type": "regex", "column": "country", "pattern": "^[A-Z]+$"})),
        ("pass", "t", json!({"type": "expression", "sql": "id < 5"})),
        ("fail", "t", json!({"type": "expression", "sql": "country <> 'ZZ'"})),
        ("pass", "t", json!({"type": "unique", "columns": ["id", "country"]})),
        ("fail", "t", json!({"type": "unique", "columns": ["id"]})),
        ("pass", "t", json!({"type": "unique", "columns": ["id"], "at_least": 0.8})),
        ("pass", "t", json!({"type": "monotonic", "column": "id", "by": "day", "decreasing": true})),
        ("fail", "t", json!({"type": "monotonic", "column": "id", "by": "day"})),
        (
            "fail",
            "t",
            json!({"type": "monotonic", "column": "id", "by": "day", "decreasing": true, "strict": true}),
        ),
        ("pass", "ids", json!({"type": "reference", "columns": ["id"], "table": "t"})),
        ("fail", "t", json!({"type": "reference", "columns": ["id"], "table": "ids", "to": ["id"]})),
    ])
    .await;
}

#[tokio::test]
async fn expectations_on_figures_pass_warn_and_fail_as_they_say() {
    check(&[
        ("pass", "t", json!({"type": "row_count", "min": 5, "max": 5})),
        ("fail", "t", json!({"type": "row_count", "min": 6})),
        ("warn", "t", json!({"type": "row_count", "min": 1, "warn_below": 10})),
        ("fail", "t", json!({"type": "row_count", "equals_table": "ids"})),
        ("pass", "t", json!({"type": "null_share", "column": "country", "max": 0.2})),
        ("fail", "t", json!({"type": "null_share", "column": "price", "max": 0.1})),
        ("pass", "t", json!({"type": "distinct_count", "column": "country", "min": 3, "max": 3})),
        ("fail", "t", json!({"type": "distinct_count", "column": "id", "min": 5})),
        ("pass", "t", json!({"type": "aggregate", "column": "price", "function": "mean", "min": 2.5, "max": 2.5})),
        ("pass", "t", json!({"type": "aggregate", "column": "price", "function": "median", "min": 2.5, "max": 2.5})),
        ("pass", "t", json!({"type": "aggregate", "column": "price", "function": "quantile", "q": 0.25, "min": 1.75, "max": 1.75})),
        ("fail", "t", json!({"type": "aggregate", "column": "price", "function": "sum", "max": 9})),
        ("pass", "t", json!({"type": "query", "sql": "SELECT * FROM t WHERE id > 9", "rows": 0})),
        ("fail", "t", json!({"type": "query", "sql": "SELECT * FROM t WHERE id > 3", "rows": 0})),
        ("pass", "t", json!({"type": "query", "sql": "SELECT count(*) FROM ids", "min": 3, "max": 3})),
        ("pass", "t", json!({"type": "freshness", "column": "day", "max_age": "2d"})),
        ("warn", "t", json!({"type": "freshness", "column": "day", "max_age": "2d", "warn_after": "12h"})),
        ("fail", "t", json!({"type": "freshness", "column": "day", "max_age": "12h"})),
        ("pass", "t", json!({"type": "segment_size", "min_share": 0.2, "max_share": 0.8, "max_k": 2})),
        ("fail", "t", json!({"type": "segment_size", "max_share": 0.7})),
        ("fail", "t", json!({"type": "segment_size", "effective_k": 1.9})),
        ("pass", "t", json!({"type": "cohesion", "metric": "silhouette", "min": 0.25})),
        ("fail", "t", json!({"type": "cohesion", "metric": "silhouette", "min": 0.28})),
        ("pass", "t", json!({"type": "cohesion", "metric": "silhouette", "min": 0.28, "point": true})),
        ("pass", "t", json!({"type": "compare", "column": "price", "function": "mean", "table": "ids"})),
        ("fail", "t", json!({"type": "compare", "column": "price", "function": "max", "table": "ids", "relative": 0.1})),
        ("pass", "ids", json!({"type": "schema", "columns": [{"name": "price", "type": "double"}, {"name": "id", "type": "bigint"}]})),
        ("fail", "ids", json!({"type": "schema", "ordered": true, "columns": [{"name": "price"}, {"name": "id"}]})),
        ("fail", "ids", json!({"type": "schema", "columns": [{"name": "id", "type": "text"}, {"name": "price"}]})),
        ("pass", "ids", json!({"type": "schema", "mode": "superset", "columns": [{"name": "id"}]})),
        ("pass", "ids", json!({"type": "schema", "mode": "subset", "columns": [{"name": "id"}, {"name": "price"}, {"name": "x"}]})),
    ])
    .await;
}

#[tokio::test]
async fn an_empty_table_fails_unless_that_is_allowed() {
    check(&[
        ("fail", "empty", json!({"type": "row_count", "max": 9})),
        ("pass", "empty", json!({"type": "row_count", "min": 0, "max": 9})),
        ("fail", "empty", json!({"type": "not_null", "column": "id"})),
        ("pass", "empty", json!({"type": "not_null", "column": "id", "allow_empty": true})),
        ("fail", "empty", json!({"type": "unique", "columns": ["id"]})),
        ("pass", "empty", json!({"type": "unique", "columns": ["id"], "allow_empty": true})),
        ("fail", "empty", json!({"type": "null_share", "column": "id", "max": 1})),
        ("fail", "empty", json!({"type": "aggregate", "column": "price", "function": "mean"})),
        ("fail", "empty", json!({"type": "segment_size", "column": "country", "max_k": 3})),
        ("fail", "empty", json!({"type": "reference", "columns": ["id"], "table": "ids"})),
    ])
    .await;
}

#[tokio::test]
async fn what_cannot_be_evaluated_is_an_error_with_the_near_name() {
    let home = home().await;
    let (status, result) = status(&home, "t", &json!({"type": "not_null", "column": "countri"})).await;
    assert_eq!(status, "error");
    assert!(result.contains("did you mean `country`"), "{result}");
}

#[tokio::test]
async fn all_failures_are_named_with_what_was_found_and_a_sample() {
    let home = home().await;
    let spec = json!({"from": "t", "expect": [
        {"type": "unique", "columns": ["id"]},
        {"type": "not_null", "column": "country"},
        {"type": "row_count", "min": 9, "severity": "warn"},
        {"type": "row_count", "min": 1},
        {"type": "row_count", "min": 99, "when": false},
    ], "store_failures": {"table": "dq.failures"}});
    let error = home.run("validate", spec).await.unwrap_err();
    let TaskError::Permanent(text) = &error else { panic!("{error:?}") };
    assert_eq!(
        text,
        "2 of 5 expectations failed on `t`\n\
         - unique(id): 1 rows in excess of one per value, expected no value twice; for instance `4`\n\
         - not_null(country): 1 of 5 rows do not, expected to have a value; for instance `id=3, country=null`"
    );
    let log = home.log();
    assert!(log.contains("| warn    | row_count") && log.contains("| skipped | row_count"), "{log}");
    assert_eq!(home.read("dq.failures", &["_expectation", "id"]).await, "not_null(country)|3");
}

#[tokio::test]
async fn a_table_of_a_warehouse_is_validated_like_a_dataset() {
    let home = home().await;
    home.run("load", json!({"from": "ids", "into": {"table": "ids"}, "mode": "overwrite"})).await.unwrap();
    let expect = json!([
        {"type": "unique", "columns": ["id"]},
        {"type": "query", "sql": "SELECT COUNT(*) FROM ids", "min": 3, "max": 3},
        {"type": "reference", "columns": ["id"], "table": "t"},
    ]);
    let outputs = home.run("validate", json!({"from": {"table": "ids"}, "expect": expect})).await.unwrap();
    assert_eq!((&outputs["passed"], &outputs["failed"]), (&json!(3), &json!(0)));
}

#[test]
fn an_unknown_key_of_an_expectation_is_refused() {
    let unknown = json!({"from": "t", "expect": [{"type": "not_null", "column": "id", "at_lest": 0.9}]});
    assert!(problems("validate", unknown).contains("at_lest"));
    let kind = json!({"from": "t", "expect": [{"type": "not_nul", "column": "id"}]});
    assert!(problems("validate", kind).contains("not_null"));
    let pattern = json!({"from": "t", "expect": [{"type": "regex", "column": "id", "pattern": "("}]});
    assert!(problems("validate", pattern).starts_with("expect.0: "));
}

#[test]
fn the_schema_names_each_expectation_by_its_type() {
    let mut generator = schemars::SchemaGenerator::default();
    (find("validate").unwrap().schema)(&mut generator);
    let definitions = serde_json::to_value(generator.definitions()).unwrap();
    let branches = definitions["Expectation"]["oneOf"].as_array().unwrap();
    assert_eq!(branches.len(), 25);
    for branch in branches {
        assert!(branch["properties"]["type"]["const"].is_string(), "{branch}");
    }
}
