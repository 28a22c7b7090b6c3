//! Segmentation against scikit-learn's figures (`tests/fixtures_sklearn.py` makes them), its properties and
//! its quality.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod algorithms;
mod bad_input;
mod identity;
mod quality;

use std::sync::Arc;

use mainspring::segment::choose_k::knee;
use mainspring::segment::metrics::{adjusted_rand, calinski_harabasz, davies_bouldin, inertia};
use mainspring::segment::prepare::{Column, FittedFeature, Preparation, PrepareError, Value};
use mainspring::segment::silhouette::{silhouette_sampled, silhouette_samples, silhouette_sqeuclidean};
use mainspring::segment::spec::{ClusterSpec, Feature, FeatureSpec, KSpec, Scale, Strategy, Transform};
use mainspring::segment::statistics::quantile;
use mainspring::segment::{
    ClusterError, ClusterInput, Clustering, KMeansOptions, Kernel, Matrix, Model, assign, cluster, kmeans,
    kmeans_from,
};
use serde_json::Value as Json;

fn fixture(name: &str) -> Json {
    let path = format!("{}/tests/data/segment/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(list: &Json) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

fn labels(list: &Json) -> Vec<u32> {
    numbers(list).into_iter().map(|label| label as u32).collect()
}

fn rows(list: &Json) -> Vec<Vec<f64>> {
    list.as_array().unwrap().iter().map(numbers).collect()
}

fn matrix(rows: &[Vec<f64>]) -> Matrix {
    let columns = (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column]).collect());
    Matrix::from_columns(columns.collect()).unwrap()
}

#[track_caller]
fn close(ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() <= tolerance * theirs.abs().max(1.0), "{ours} is not {theirs}");
}

#[track_caller]
fn all_close(ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).for_each(|(ours, theirs)| close(*ours, *theirs, tolerance));
}

/// Prepared column by column.
fn prepared(spec: FeatureSpec, scale: Scale, column: Column) -> (Preparation, Matrix) {
    let (preparation, prepared) =
        Preparation::fit(&[Feature(spec.clone())], scale, &[(spec.name, column)]).unwrap();
    (preparation, prepared.matrix)
}

#[test]
fn scalers_and_quantiles_equal_scikit_learn_and_invert() {
    let fixture = fixture("prepare");
    let column = numbers(&fixture["column"]);
    let mut sorted = column.clone();
    sorted.sort_by(f64::total_cmp);
    for (share, theirs) in numbers(&fixture["shares"]).into_iter().zip(numbers(&fixture["quantiles"])) {
        close(quantile(&sorted, share), theirs, 1e-9);
    }
    for (scale, name) in [(Scale::Minmax, "minmax"), (Scale::Standard, "standard"), (Scale::Robust, "robust")]
    {
        let (preparation, ours) = prepared(FeatureSpec::named("x"), scale, Column::Numeric(column.clone()));
        all_close(&ours.columns()[0], &numbers(&fixture["scaled"][name]), 1e-9);
        let FittedFeature::Numeric(feature) = &preparation.features()[0] else { panic!("a number") };
        let back: Vec<f64> = ours.columns()[0].iter().map(|value| feature.inverse(*value).unwrap()).collect();
        all_close(&back, &column, 1e-12);
    }
}

#[test]
fn transforms_invert_to_the_raw_value() {
    for transform in [Transform::None, Transform::Log1p, Transform::SignedLog1p, Transform::Sqrt] {
        let column: Vec<f64> = (0..40).map(|i| f64::from(i) * 1.7).collect();
        let spec = FeatureSpec { transform, weight: 0.3, ..FeatureSpec::named("x") };
        let (preparation, ours) = prepared(spec, Scale::Standard, Column::Numeric(column.clone()));
        let FittedFeature::Numeric(feature) = &preparation.features()[0] else { panic!("a number") };
        let back: Vec<f64> = ours.columns()[0].iter().map(|value| feature.inverse(*value).unwrap()).collect();
        all_close(&back, &column, 1e-12);
    }
}

#[test]
fn imputed_values_and_one_hot_levels_equal_scikit_learn() {
    let fixture = fixture("prepare");
    let strategies = [("median", Strategy::Median), ("mean", Strategy::Mean), ("mode", Strategy::Mode)];
    for (name, strategy) in strategies {
        let mut spec = FeatureSpec::named("x");
        spec.impute.strategy = strategy;
        let (_, ours) = prepared(spec, Scale::None, Column::Numeric(numbers(&fixture["holes"])));
        all_close(&ours.columns()[0], &numbers(&fixture["imputed"][name]), 1e-15);
    }
    let levels = fixture["levels"].as_array().unwrap();
    let column = levels.iter().map(|level| Some(Arc::from(level.as_str().unwrap()))).collect();
    let spec = FeatureSpec { weight: std::f64::consts::SQRT_2, ..FeatureSpec::named("country") };
    let (preparation, ours) = prepared(spec, Scale::Minmax, Column::Categorical(column));
    for (name, column) in preparation.column_names().iter().zip(ours.columns()) {
        let level = name.strip_prefix("country=").unwrap();
        assert_eq!(column, &numbers(&fixture["one_hot"][level]), "{level}");
    }
}

#[test]
fn two_different_levels_are_exactly_the_weight_apart_and_rare_ones_share_other() {
    let column: Vec<Option<Arc<str>>> = ["a", "a", "a", "b", "b", "c", "d"]
        .iter()
        .map(|level| Some(Arc::from(*level)))
        .chain([None])
        .collect();
    let spec = FeatureSpec { weight: 0.5, max_levels: 2, ..FeatureSpec::named("plan") };
    let (preparation, ours) = prepared(spec, Scale::Minmax, Column::Categorical(column));
    assert_eq!(preparation.column_names(), ["plan=a", "plan=b", "plan=__other__"]);
    let apart = |left: usize, right: usize| {
        let squares = ours.row(left).into_iter().zip(ours.row(right)).map(|(a, b)| (a - b) * (a - b));
        squares.sum::<f64>().sqrt()
    };
    close(apart(0, 3), 0.5, 1e-15);
    assert_eq!((apart(5, 6), apart(6, 7)), (0.0, 0.0));
    assert_eq!(preparation.row(&[Value::Level(Some("new"))]).unwrap().unwrap(), ours.row(5));
}

#[test]
fn all_problems_of_all_features_are_named_at_once() {
    let log = FeatureSpec { transform: Transform::Log1p, ..FeatureSpec::named("spend") };
    let features = [log, FeatureSpec::named("empty"), FeatureSpec::named("thin")].map(Feature);
    let holes = f64::NAN;
    let columns = [
        ("spend".to_owned(), Column::Numeric(vec![-1.0, 2.0, -3.0])),
        ("empty".to_owned(), Column::Numeric(vec![holes, f64::INFINITY, holes])),
        ("thin".to_owned(), Column::Numeric(vec![holes, holes, 1.0])),
    ];
    let errors = Preparation::fit(&features, Scale::Minmax, &columns).unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(matches!(&errors[0], PrepareError::BelowZero { count: 2, lowest: -3.0, .. }), "{errors:?}");
    assert!(matches!(&errors[1], PrepareError::AllMissing { .. }));
    assert!(matches!(&errors[2], PrepareError::TooManyMissing { missing: 2, rows: 3, .. }));
}

#[test]
fn lloyd_takes_scikit_learns_path_from_the_same_centres() {
    let fixture = fixture("kmeans");
    for (name, data) in fixture.as_object().unwrap() {
        let points = matrix(&rows(&data["points"]));
        for theirs in data["fits"].as_array().unwrap() {
            let options = KMeansOptions {
                tolerance: theirs["tol"].as_f64().unwrap(),
                max_iterations: theirs["max_iter"].as_u64().unwrap() as usize,
                ..KMeansOptions::new(1)
            };
            let ours = kmeans_from(&points, &rows(&theirs["init"]), &options).unwrap();
            close(ours.inertia, theirs["inertia"].as_f64().unwrap(), 1e-9);
            assert_eq!(ours.labels, labels(&theirs["labels"]), "{name}");
            assert_eq!(ours.iterations as u64, theirs["iterations"].as_u64().unwrap(), "{name}");
            all_close(&ours.centres.concat(), &rows(&theirs["centres"]).concat(), 1e-9);
            close(inertia(&points, &ours.labels, &ours.centres), ours.inertia, 1e-9);
        }
    }
}

#[track_caller]
fn figures_agree(points: &Matrix, theirs: &Json) {
    let labels = labels(&theirs["labels"]);
    let samples = silhouette_samples(points, &labels).unwrap();
    all_close(&samples, &numbers(&theirs["samples"]), 1e-9);
    let number = |key: &str| theirs[key].as_f64().unwrap();
    close(samples.iter().sum::<f64>() / samples.len() as f64, number("silhouette"), 1e-9);
    close(silhouette_sqeuclidean(points, &labels).unwrap(), number("sqeuclidean"), 1e-9);
    close(calinski_harabasz(points, &labels).unwrap(), number("calinski_harabasz"), 1e-9);
    close(davies_bouldin(points, &labels).unwrap(), number("davies_bouldin"), 1e-9);
}

#[test]
fn cohesion_figures_equal_scikit_learn_degenerate_cases_included() {
    for data in fixture("kmeans").as_object().unwrap().values() {
        figures_agree(&matrix(&rows(&data["points"])), &data["figures"]);
    }
    for data in fixture("metrics")["degenerate"].as_array().unwrap() {
        figures_agree(&matrix(&rows(&data["points"])), data);
    }
}

#[test]
fn figures_that_are_not_defined_say_why() {
    let points = matrix(&[vec![0.0], vec![1.0], vec![2.0]]);
    let reason = silhouette_samples(&points, &[0, 0, 0]).unwrap_err().to_string();
    assert_eq!(reason, "1 clusters of 3 rows: defined for 2 to rows - 1 clusters only");
    assert!(davies_bouldin(&points, &[0, 1, 2]).is_err());
    assert!(calinski_harabasz(&points, &[0, 1]).is_err());
}

#[test]
fn the_adjusted_rand_index_equals_scikit_learn() {
    for case in fixture("metrics")["rand"].as_array().unwrap() {
        let ours = adjusted_rand(&labels(&case["left"]), &labels(&case["right"])).unwrap();
        close(ours, case["value"].as_f64().unwrap(), 1e-12);
    }
}

#[test]
fn the_knee_is_kneeds_on_fifty_curves() {
    for (number, case) in fixture("knees").as_array().unwrap().iter().enumerate() {
        let xs = numbers(&case["x"]);
        let curve: Vec<(f64, f64)> = xs.iter().copied().zip(numbers(&case["y"])).collect();
        assert_eq!(knee(&curve).map(|place| xs[place]), case["knee"].as_f64(), "curve {number}");
    }
}

/// Reproducible values in [0, 1).
fn chance(number: u64) -> f64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Rows around `centres` points of a ring, radius 10, in two dimensions and one of noise.
fn ring(count: usize, centres: usize, noise: f64) -> Vec<Vec<f64>> {
    let row = |number: usize| {
        let angle = std::f64::consts::TAU * (number % centres) as f64 / centres as f64;
        let off = |place: u64| noise * (chance(number as u64 * 3 + place) - 0.5);
        vec![10.0 * angle.cos() + off(0), 10.0 * angle.sin() + off(1), off(2)]
    };
    (0..count).map(row).collect()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let points = matrix(&ring(20_000, 7, 9.0));
    let options = KMeansOptions { runs: 2, ..KMeansOptions::new(8) };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let fit = kmeans(&points, &options).unwrap();
            let silhouette = silhouette_sampled(&points, &fit.labels, 1).unwrap();
            (fit, silhouette)
        })
    };
    let one = with(1);
    for threads in [2, 3, 8] {
        assert_eq!(with(threads), one, "{threads} threads");
    }
}

#[test]
fn a_large_offset_changes_no_group() {
    let rows = ring(2_000, 5, 8.0);
    let moved: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|value| value + 1e6).collect()).collect();
    let fit = |rows: &[Vec<f64>]| kmeans(&matrix(rows), &KMeansOptions::new(5)).unwrap();
    // Of runs that end in one place under other numbers any may win by a rounding.
    assert_eq!(adjusted_rand(&fit(&rows).labels, &fit(&moved).labels).unwrap(), 1.0);
}

#[test]
fn inertia_never_rises_within_lloyd() {
    let points = matrix(&ring(1_500, 6, 12.0));
    let start: Vec<Vec<f64>> = (0..6).map(|row| points.row(row * 7)).collect();
    let mut last = f64::INFINITY;
    for max_iterations in 1..30 {
        let options = KMeansOptions { max_iterations, tolerance: 0.0, ..KMeansOptions::new(6) };
        let fit = kmeans_from(&points, &start, &options).unwrap();
        assert!(fit.inertia <= last * (1.0 + 1e-12), "{} after {max_iterations}", fit.inertia);
        last = fit.inertia;
    }
}

#[test]
fn fewer_distinct_rows_than_clusters_give_fewer_clusters() {
    let points = matrix(&[vec![1.0], vec![1.0], vec![4.0], vec![4.0], vec![4.0]]);
    let fit = kmeans(&points, &KMeansOptions::new(4)).unwrap();
    assert_eq!((fit.centres.len(), fit.inertia), (2, 0.0));
}

fn customers(count: usize) -> Vec<(String, [f64; 3], Option<&'static str>)> {
    let row = |number: usize| {
        let kind = number % 4;
        let off = |place: u64| chance(number as u64 * 5 + place);
        let recency = [5.0, 20.0, 120.0, 300.0][kind] * (0.7 + 0.6 * off(0));
        let frequency = ([30.0, 10.0, 4.0, 1.0][kind] * (0.7 + 0.6 * off(1))).round();
        let monetary = if number % 50 == 7 { f64::NAN } else { frequency * 20.0 * (0.8 + 0.4 * off(2)) };
        (format!("c{number:06}"), [recency, frequency, monetary], ["fr", "de"].get(kind).copied())
    };
    (0..count).map(row).collect()
}

fn input(mut rows: Vec<(String, [f64; 3], Option<&'static str>)>, spec: &str) -> ClusterInput {
    rows.sort_by(|left, right| left.0.cmp(&right.0));
    let number = |place: usize| Column::Numeric(rows.iter().map(|row| row.1[place]).collect());
    let levels = rows.iter().map(|row| row.2.map(Arc::from)).collect();
    let columns = vec![
        ("recency_days".to_owned(), number(0)),
        ("frequency".to_owned(), number(1)),
        ("monetary".to_owned(), number(2)),
        ("country".to_owned(), Column::Categorical(levels)),
    ];
    let keys = rows.iter().map(|row| Arc::from(row.0.as_str())).collect();
    let spec: ClusterSpec = serde_json::from_str(spec).unwrap();
    ClusterInput {
        model: "customers".into(),
        keys,
        columns,
        spec,
        previous: None,
        given: None,
        kernel: Kernel::Auto,
    }
}

const SPEC: &str = r#"{"features": [{"name": "recency_days", "transform": "log1p"},
    {"name": "frequency", "transform": "log1p", "clip": {"upper": 0.995}},
    {"name": "monetary", "transform": "log1p", "weight": 0.2, "impute": {"indicator": true}},
    {"name": "country", "weight": 0.2}],
    "k": {"min": "2", "max": 7}}"#;

fn segmented() -> (ClusterInput, Clustering) {
    let input = input(customers(800), SPEC);
    let clustering = cluster(input.clone()).unwrap();
    (input, clustering)
}

#[test]
fn four_kinds_of_customers_become_four_named_segments() {
    let (_, found) = segmented();
    assert_eq!(found.k_report.k, 4, "{:?}", found.k_report);
    let names: Vec<&str> = found.model.segments.iter().map(|segment| segment.name.as_str()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    // By rank the third kind scores 2 and 2, the fourth 1 and 1: one cell of the grid for both.
    assert_eq!(sorted, ["Champions", "Hibernating", "Hibernating 2", "Loyal Customers"]);
    assert_eq!(found.centres.len(), 4 * found.model.features.width());
    let curve: Vec<f64> = found.k_report.figures.iter().map(|figures| figures.inertia).collect();
    assert!(curve.is_sorted_by(|left, right| left >= right), "{curve:?}");
}

#[test]
fn shuffled_rows_give_the_same_bytes() {
    let mut rows = customers(800);
    let ordered = cluster(input(rows.clone(), SPEC)).unwrap();
    rows.sort_by_key(|row| (chance(row.1[0].to_bits()) * 1e9) as u64);
    assert_eq!(cluster(input(rows, SPEC)).unwrap(), ordered);
}

#[test]
fn a_model_reads_back_to_the_same_bytes_and_assigns_as_the_batch_did() {
    let (input, found) = segmented();
    let model = Model::from_json(&found.model_json).unwrap();
    assert_eq!(model.to_json(), found.model_json);
    assert_eq!(model.version(), found.version);
    for (row, batch) in found.assignments.iter().enumerate() {
        let values: Vec<Value<'_>> = input.columns.iter().map(|(_, column)| column.value(row)).collect();
        assert_eq!(assign(&model, &values).unwrap(), *batch);
    }
}

#[test]
fn an_unknown_format_is_refused_and_an_unknown_key_ignored() {
    let (_, found) = segmented();
    let newer = found.model_json.replace("segment-model/1", "segment-model/2");
    let error = Model::from_json(&newer).unwrap_err().to_string();
    assert_eq!(error, "the model has format `segment-model/2`, expected `segment-model/1`");
    let more = found.model_json.replacen('{', r#"{"colour": "blue","#, 1);
    assert_eq!(Model::from_json(&more).unwrap(), found.model);
}

#[test]
fn what_cannot_be_segmented_is_refused_with_its_reason() {
    let refused = |input: ClusterInput| cluster(input).unwrap_err().to_string();
    let mut twice = input(customers(20), SPEC);
    twice.keys[1] = twice.keys[0].clone();
    let message =
        "key `c000000` in row 1 (from 0) is not above the key before it: keys must rise, none twice";
    assert_eq!(refused(twice), message);
    let few = r#"{"features": ["recency_days"], "k": 5}"#;
    assert_eq!(refused(input(customers(4), few)), "4 rows cannot be divided into 5 segments");
    let wrong = r#"{"features": ["recency_days"], "k": {"min": 5, "max": 3}, "algorithm": {"n_init": 0}}"#;
    assert_eq!(
        refused(input(customers(40), wrong)),
        "`algorithm.n_init` is 0, expected at least 1; `k.min` is 5 and `k.max` is 3, expected min <= max"
    );
    let strict = r#"{"features": ["recency_days"], "k": {"min": 2, "max": 3, "guard": {"min_share": 0.9}}}"#;
    assert!(matches!(cluster(input(customers(40), strict)), Err(ClusterError::NoEligibleK(_))));
}

#[test]
fn authors_keys_are_read_strictly_but_numbers_may_come_rendered() {
    let spec: Result<KSpec, _> = serde_json::from_str(r#"{"min": "3", "max": " 9 "}"#);
    assert_eq!(spec.map(|spec| (spec.min, spec.max)).unwrap(), (3, 9));
    let error = serde_json::from_str::<Feature>(r#"{"name": "x", "wieght": 2}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `wieght`, expected one of `name`"), "{error}");
    let error = serde_json::from_str::<KSpec>(r#"{"max": "many"}"#).unwrap_err().to_string();
    assert!(error.contains(r#"invalid value: string "many", expected a whole number from 0"#), "{error}");
    assert!(serde_json::to_string(&schemars::schema_for!(ClusterSpec)).unwrap().contains("max_levels"));
}

#[test]
fn linfas_datasets_are_fitted_and_predicted() {
    use linfa::traits::{Fit, Predict};
    use mainspring::segment::vocabulary::KMeans;
    let points = ndarray::Array2::from_shape_fn((90, 2), |(row, _)| (row % 3) as f64 * 10.0);
    let dataset = linfa::DatasetBase::from(points.clone());
    let fit = KMeans::new(KMeansOptions::new(3)).fit(&dataset).unwrap();
    let predicted = fit.predict(&points);
    assert!(predicted.iter().zip(&fit.labels).all(|(left, right)| *left == *right as usize));
    assert!(KMeans::new(KMeansOptions { runs: 0, ..KMeansOptions::new(3) }).fit(&dataset).is_err());
}
