//! Clustering through the task: what it writes, what it refuses, and that nothing but the data decides.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, StringArray};
use serde_json::{Value, json};

use super::tasks::{Home, ints, problems, texts};

/// Three clear groups of twenty.
fn groups(order: impl Fn(usize) -> usize) -> Vec<(&'static str, ArrayRef)> {
    let rows: Vec<usize> = (0..60).map(order).collect();
    let value = |row: usize, scale: f64| (row / 20) as f64 * scale + (row % 20) as f64 * 0.01;
    vec![
        ("id", ints(&rows.iter().map(|r| *r as i64).collect::<Vec<_>>())),
        ("x", Arc::new(Float64Array::from(rows.iter().map(|r| value(*r, 10.0)).collect::<Vec<_>>()))),
        ("y", Arc::new(Float64Array::from(rows.iter().map(|r| value(60 - *r - 1, 7.0)).collect::<Vec<_>>()))),
        ("name", Arc::new(StringArray::from(rows.iter().map(|r| format!("n{r}")).collect::<Vec<_>>()))),
        ("none", Arc::new(Float64Array::from(vec![None::<f64>; 60]))),
    ]
}

fn spec() -> Value {
    json!({"from": "features", "key": "id", "features": ["x", "y"], "k": {"min": 2, "max": 5},
        "into": "segments", "model": "m"})
}

fn with(key: &str, value: Value) -> Value {
    let mut spec = spec();
    spec[key] = value;
    spec
}

/// The one version there is.
fn model(home: &Path) -> String {
    let versions = mainspring::data::models::versions(home, "m").unwrap();
    assert_eq!(versions.len(), 1);
    mainspring::data::models::text(home, "m", &versions[0]).unwrap()
}

#[tokio::test]
async fn every_key_gets_a_segment_and_the_model_is_kept() {
    let home = Home::new();
    home.write("features", groups(|row| row)).await;
    let outputs = home.run("cluster", spec()).await.unwrap();
    assert_eq!(
        (&outputs["rows"], &outputs["k"], &outputs["dataset"]),
        (&json!(60), &json!(3), &json!("segments"))
    );
    assert_eq!(outputs["segments"].as_array().unwrap().len(), 3);
    assert!(outputs["silhouette"].as_f64().unwrap() > 0.9, "{outputs}");
    let assigned = home.read("segments", &["id", "segment_id", "model_version", "source"]).await;
    assert_eq!(assigned.lines().count(), 60);
    assert!(assigned.contains(outputs["model_version"].as_str().unwrap()));
    assert_eq!(home.read("segments__centres", &["segment_id"]).await.lines().count(), 6);
    assert_eq!(home.read("segments__k_report", &["k", "chosen"]).await, "2|false\n3|true\n4|false\n5|false");
    assert!(home.read("segments__metrics", &["name"]).await.contains("silhouette"));
    let expect = json!([{"type": "cohesion", "metric": "silhouette", "min": 0.5}, {"type": "segment_size", "min_share": 0.3}]);
    home.run("validate", json!({"from": "segments", "expect": expect})).await.unwrap();
}

#[tokio::test]
async fn the_model_depends_neither_on_the_run_nor_on_the_order_of_rows() {
    let (first, second) = (Home::new(), Home::new());
    first.write("features", groups(|row| row)).await;
    second.write("features", groups(|row| (row * 7) % 60)).await;
    first.run_as("cluster", spec(), "r1", 1).await.unwrap();
    second.run_as("cluster", spec(), "another", 5).await.unwrap();
    assert_eq!(model(first.path()), model(second.path()));
    let columns = ["id", "segment_id", "segment_name", "distance"];
    assert_eq!(first.read("segments", &columns).await, second.read("segments", &columns).await);
}

#[tokio::test]
async fn rows_that_cannot_be_clustered_are_refused_with_the_reason() {
    let home = Home::new();
    home.write("features", groups(|row| row)).await;
    home.write("twice", vec![("id", ints(&[1, 2, 2])), ("x", ints(&[1, 2, 3]))]).await;
    home.write("nameless", vec![("id", texts(&[Some("a"), None])), ("x", ints(&[1, 2]))]).await;
    let small = |from: &str| json!({"from": from, "key": "id", "features": ["x"], "into": "s"});
    for (spec, words) in [
        (with("features", json!(["x", "yy"])), "did you mean `y`"),
        (with("features", json!(["name"])), "type: categorical"),
        (with("features", json!(["none"])), "none"),
        (with("where", json!("id < 1")), "rows"),
        (with("where", json!("id < 0")), "no rows"),
        (with("k", json!({"min": 61, "max": 70})), "60 rows cannot be divided into 61 segments"),
        (small("twice"), "occur more than once, expected one row for each; for instance `2`"),
        (small("nameless"), "1 of 2 rows have no value in the key `id`"),
    ] {
        let error = home.run("cluster", spec).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn a_page_and_its_figures_are_written_unless_they_are_not_wanted() {
    let home = Home::new();
    home.write("features", groups(|row| row)).await;
    let outputs = home.run("cluster", spec()).await.unwrap();
    let page = Path::new(outputs["report"].as_str().unwrap()).to_owned();
    assert!(page.starts_with(home.path().join("reports")), "{}", page.display());
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("Segments of m") && html.ends_with("</html>\n"));
    let figures = std::fs::read_to_string(page.with_extension("json")).unwrap();
    let figures: Value = serde_json::from_str(&figures).unwrap();
    assert_eq!((&figures["version"], &figures["rows"]), (&outputs["model_version"], &json!(60)));
    let other = Home::new();
    other.write("features", groups(|row| row)).await;
    let outputs = other.run("cluster", with("report", json!(false))).await.unwrap();
    assert_eq!(outputs["report"], Value::Null);
    assert!(!other.path().join("reports").exists());
}

#[test]
fn a_key_that_there_is_not_is_refused() {
    assert!(problems("cluster", with("featurs", json!(true))).contains("featurs"));
}
