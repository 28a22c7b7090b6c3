//! What is given and should not be: refused with the reason, or taken in a way that is stated.

use std::sync::Arc;

use mainspring::segment::prepare::Column;
use mainspring::segment::spec::ClusterSpec;
use mainspring::segment::{
    ClusterError, ClusterInput, Clustering, KMeansOptions, Kernel, Matrix, cluster, kmeans,
};

use super::chance;

/// Two hundred customers in four groups; `change` puts another value in a row of `spend`.
fn asked(spec: &str, change: impl Fn(usize, f64) -> f64) -> Result<Clustering, ClusterError> {
    const ROWS: usize = 200;
    let number = |row: usize, salt: u64| chance(row as u64 * 7 + salt);
    let spend = |row: usize| change(row, 100.0 * (1 + row % 2) as f64 + 5.0 * number(row, 1));
    let orders = |row: usize| 10.0 * (1 + row / 2 % 2) as f64 + number(row, 2);
    let spec: ClusterSpec = serde_json::from_str(spec).unwrap();
    cluster(ClusterInput {
        model: "shop".into(),
        keys: (0..ROWS).map(|row| Arc::from(format!("c{row:03}"))).collect(),
        columns: vec![
            ("spend".to_owned(), Column::Numeric((0..ROWS).map(spend).collect())),
            ("orders".to_owned(), Column::Numeric((0..ROWS).map(orders).collect())),
            ("same".to_owned(), Column::Numeric(vec![7.0; ROWS])),
        ],
        spec,
        previous: None,
        given: None,
        kernel: Kernel::Auto,
    })
}

fn as_it_is(_: usize, value: f64) -> f64 {
    value
}

fn codes(found: &Clustering) -> Vec<&str> {
    found.warnings.iter().map(|warning| warning.code).collect()
}

#[test]
fn a_constant_feature_is_left_out_and_told_and_alone_it_is_refused() {
    let found = asked(r#"{"features": ["spend", "orders", "same"], "k": 4}"#, as_it_is).unwrap();
    assert!(codes(&found).contains(&"constant_feature"), "{:?}", found.warnings);
    assert_eq!(found.model.assign.centres[0].len(), 2);
    let alone = asked(r#"{"features": ["same"], "k": 4}"#, as_it_is).unwrap_err().to_string();
    assert_eq!(alone, "no feature is left: 1 of 1 declared features are constant");
}

#[test]
fn infinities_count_as_missing_and_too_many_are_refused() {
    let some = |row: usize, value: f64| if row.is_multiple_of(10) { f64::INFINITY } else { value };
    let found = asked(r#"{"features": ["spend", "orders"], "k": 4}"#, some).unwrap();
    assert_eq!(found.features[0].missing, 20);
    assert!(found.assignments.iter().all(|row| row.is_some_and(|row| row.distance.is_finite())));
    let most = |row: usize, value: f64| if row.is_multiple_of(10) { value } else { f64::NEG_INFINITY };
    let refused = asked(r#"{"features": ["spend", "orders"], "k": 4}"#, most).unwrap_err().to_string();
    assert_eq!(refused, "feature `spend`: 180 of 200 values are missing, `max_missing` allows 0.5");
    let none = asked(r#"{"features": ["spend"], "k": 4}"#, |_, _| f64::NAN).unwrap_err().to_string();
    assert_eq!(none, "feature `spend`: every value is missing");
}

#[test]
fn a_negative_value_under_a_logarithm_is_refused_with_its_column_and_count() {
    let some = |row: usize, value: f64| if row < 3 { -value } else { value };
    let spec = r#"{"features": [{"name": "spend", "transform": "log1p"}, "orders"], "k": 4}"#;
    let refused = asked(spec, some).unwrap_err().to_string();
    assert!(
        refused.starts_with("feature `spend`: 3 values are below 0, which `log1p` cannot take"),
        "{refused}"
    );
    assert!(refused.ends_with("(hint: `signed_log1p` can)"), "{refused}");
    assert!(asked(&spec.replace("log1p", "signed_log1p"), some).is_ok());
}

#[test]
fn one_giant_outlier_is_refused_as_a_segment_of_its_own_and_clipping_mends_it() {
    let giant = |row: usize, value: f64| if row == 13 { 1e12 } else { value };
    let spec =
        |feature: &str| format!(r#"{{"features": [{feature}, "orders"], "k": {{"min": 3, "max": 6}}}}"#);
    let refused = asked(&spec(r#""spend""#), giant).unwrap_err().to_string();
    assert!(refused.starts_with("no k satisfies `guard`: k=3: smallest share 0.0050 < 0.02"), "{refused}");
    assert!(refused.contains("hint: widen `guard`"), "{refused}");
    let clipped = spec(r#"{"name": "spend", "clip": {"upper": 0.99}}"#);
    let found = asked(&clipped, giant).unwrap();
    assert_eq!(found.k_report.k, 4, "{:?}", found.k_report);
}

#[test]
fn fewer_distinct_rows_than_segments_give_fewer_and_a_warning_or_no_eligible_k() {
    let two = |row: usize, _: f64| (row % 2) as f64;
    let fixed = asked(r#"{"features": ["spend"], "k": 4}"#, two).unwrap();
    assert_eq!(fixed.model.segments.len(), 2);
    let told = &fixed.warnings.iter().find(|warning| warning.code == "fewer_clusters").unwrap().message;
    assert_eq!(told, "only 2 clusters of 4: there are no more distinct rows");
    let chosen = asked(r#"{"features": ["spend"], "k": {"min": 3, "max": 5}}"#, two).unwrap_err().to_string();
    assert!(chosen.contains("k=3: only 2 distinct clusters"), "{chosen}");
}

#[test]
fn few_rows_are_told_and_too_few_are_refused() {
    let many = asked(
        r#"{"features": ["spend", "orders"], "k": {"fixed": 30, "guard": {"min_share": 0}}}"#,
        as_it_is,
    );
    assert!(codes(&many.unwrap()).contains(&"few_rows"));
    let refused = asked(r#"{"features": ["spend", "orders"], "k": 201}"#, as_it_is).unwrap_err().to_string();
    assert_eq!(refused, "200 rows cannot be divided into 201 segments");
}

#[test]
fn equal_rows_too_far_apart_for_squares_stay_two_clusters() {
    let far = |row: usize| if row.is_multiple_of(3) { 1e200 } else { -1e200 };
    let points = Matrix::from_columns(vec![(0..300).map(far).collect()]).unwrap();
    let fit = kmeans(&points, &KMeansOptions::new(3)).unwrap();
    assert_eq!(fit.centres.len(), 2, "{:?}", fit.centres);
}
