//! Hierarchical and density clustering, components, gap and RFM against SciPy, scikit-learn and pandas.

use std::collections::BTreeMap;

use mainspring::segment::dbscan::{NOISE, dbscan, eps_by_knee};
use mainspring::segment::gap::gaps;
use mainspring::segment::hierarchical::{tree, weighted_ward};
use mainspring::segment::metrics::adjusted_rand;
use mainspring::segment::prepare::{Column, Value};
use mainspring::segment::principal::Components;
use mainspring::segment::rfm::{Better, scores};
use mainspring::segment::spec::{AlgorithmName, ClusterSpec, Linkage, Metric};
use mainspring::segment::{ClusterInput, Clustering, Given, Kernel, Matrix, Model, assign, cluster};

use super::{all_close, chance, close, customers, fixture, labels, matrix, numbers, ring, rows};

fn linkage(name: &str) -> Linkage {
    serde_json::from_value(name.into()).unwrap()
}

#[test]
fn trees_are_scipys_for_five_linkages() {
    for case in fixture("hierarchical").as_array().unwrap() {
        let method = case["method"].as_str().unwrap();
        let ours = tree(&matrix(&rows(&case["points"])), linkage(method)).unwrap();
        let column = |of: &dyn Fn(usize) -> f64| (0..ours.merges.len()).map(of).collect::<Vec<f64>>();
        all_close(&column(&|at| ours.merges[at].height), &numbers(&case["heights"]), 1e-9);
        assert_eq!(column(&|at| ours.merges[at].size as f64), numbers(&case["sizes"]), "{method}");
        for (merge, theirs) in ours.merges.iter().zip(rows(&case["pairs"])) {
            assert_eq!([merge.left as f64, merge.right as f64], theirs[..], "{method}");
        }
        for cut in case["cuts"].as_array().unwrap() {
            let k = cut["k"].as_u64().unwrap() as usize;
            let (own, theirs) = (ours.cut(k), labels(&cut["labels"]));
            assert_eq!(adjusted_rand(&own, &theirs).unwrap(), 1.0, "{method} cut to {k}");
            let height = if k == 1 { f64::INFINITY } else { ours.merges[ours.rows - k].height };
            assert_eq!(ours.cut_at(height.next_down()), own);
        }
    }
}

#[test]
fn a_row_of_weight_three_counts_as_three_equal_rows() {
    let points = ring(40, 5, 6.0);
    let weights: Vec<f64> = (0..40).map(|row| f64::from(1 + row % 3)).collect();
    let repeated: Vec<Vec<f64>> =
        points.iter().zip(&weights).flat_map(|(row, weight)| vec![row.clone(); *weight as usize]).collect();
    let ours = weighted_ward(&matrix(&points), &weights).unwrap();
    let theirs = tree(&matrix(&repeated), Linkage::Ward).unwrap();
    let heights = |merges: &[mainspring::segment::hierarchical::Merge]| -> Vec<f64> {
        merges.iter().map(|merge| merge.height).filter(|height| *height > 1e-9).collect()
    };
    all_close(&heights(&ours.merges), &heights(&theirs.merges), 1e-9);
    assert_eq!(ours.merges.last().unwrap().size, repeated.len());
}

#[test]
fn dense_regions_are_scikit_learns_rows_exactly_at_eps_included() {
    let (mut cases, mut noise) = (0, 0);
    for case in fixture("dbscan").as_array().unwrap() {
        let points = matrix(&rows(&case["points"]));
        let metric: Metric = serde_json::from_value(case["metric"].clone()).unwrap();
        let (eps, least) = (case["eps"].as_f64().unwrap(), case["min_samples"].as_u64().unwrap() as usize);
        let ours = dbscan(&points, eps, least, metric).unwrap();
        let theirs = numbers(&case["labels"]);
        let own: Vec<f64> =
            ours.labels.iter().map(|&label| if label == NOISE { -1.0 } else { f64::from(label) }).collect();
        assert_eq!(own, theirs, "{metric:?} eps {eps} min {least}");
        cases += 1;
        noise += usize::from(theirs.contains(&-1.0));
    }
    assert!(cases >= 60 && noise >= 20, "{cases} cases, {noise} with noise");
}

#[test]
fn a_larger_density_clustering_is_that_of_the_definition() {
    let points = matrix(&ring(1_500, 6, 7.0));
    let (eps, least) = (0.9, 8);
    let near = |left: usize, right: usize| {
        let squares = points.row(left).into_iter().zip(points.row(right)).map(|(a, b)| (a - b) * (a - b));
        squares.fold(0.0, |sum, square| sum + square) <= eps * eps
    };
    let count = |row: usize| (0..1_500).filter(|&other| near(row, other)).count();
    let core: Vec<bool> = (0..1_500).map(|row| count(row) >= least).collect();
    let found = dbscan(&points, eps, least, Metric::Euclidean).unwrap();
    assert_eq!(found.cores, (0..1_500).filter(|&row| core[row]).collect::<Vec<_>>());
    for left in 0..1_500 {
        for right in (0..left).filter(|&right| core[left] && core[right] && near(left, right)) {
            assert_eq!(found.labels[left], found.labels[right]);
        }
        let adjacent = (0..1_500).filter(|&other| core[other] && near(left, other));
        assert_eq!(found.labels[left], adjacent.map(|other| found.labels[other]).min().unwrap_or(NOISE));
    }
    assert!(found.clusters >= 2, "{} clusters", found.clusters);
}

#[test]
fn eps_is_found_between_dense_regions_and_noise() {
    let mut data = ring(600, 3, 1.5);
    data.extend(
        (0..30).map(|n| vec![60.0 * chance(n) - 30.0, 60.0 * chance(n + 50) - 30.0, 40.0 * chance(n + 99)]),
    );
    let eps = eps_by_knee(&matrix(&data), 6, Metric::Euclidean).unwrap().unwrap();
    let found = dbscan(&matrix(&data), eps, 6, Metric::Euclidean).unwrap();
    assert_eq!(found.clusters, 3, "eps {eps}");
}

#[test]
fn components_equal_scikit_learns_up_to_sign() {
    for case in fixture("principal").as_array().unwrap() {
        let ours = Components::of(&matrix(&rows(&case["points"])));
        let ratio: Vec<f64> = (0..ours.variances.len()).map(|number| ours.explained(number)).collect();
        all_close(&ratio, &numbers(&case["ratio"]), 1e-9);
        for (own, theirs) in ours.directions.iter().zip(rows(&case["directions"])) {
            let along: f64 = own.iter().zip(&theirs).map(|(left, right)| left * right).sum();
            close(along.abs(), 1.0, 1e-9);
        }
    }
}

#[test]
fn the_gap_and_its_error_are_those_of_the_paper() {
    let case = fixture("gap");
    let ours = gaps(&numbers(&case["data"]), &rows(&case["references"]));
    all_close(&ours.iter().map(|gap| gap.value).collect::<Vec<_>>(), &numbers(&case["gap"]), 1e-9);
    all_close(&ours.iter().map(|gap| gap.error).collect::<Vec<_>>(), &numbers(&case["error"]), 1e-9);
}

#[test]
fn rfm_scores_are_the_quintiles_and_ties_share_one() {
    let case = fixture("rfm");
    for (values, theirs) in [("free", "free_scores"), ("tied", "tied_scores")] {
        let own: Vec<f64> =
            scores(&numbers(&case[values]), Better::Higher).into_iter().map(f64::from).collect();
        assert_eq!(own, numbers(&case[theirs]), "{values}");
    }
}

fn input(count: usize, spec: &str) -> ClusterInput {
    super::input(customers(count), spec)
}

const FEATURES: &str = r#""features": [{"name": "recency_days", "transform": "log1p"},
    {"name": "frequency", "transform": "log1p"}, {"name": "monetary", "transform": "log1p"}]"#;

/// Every row alone is told what the batch was told.
fn batch_equals_single(input: &ClusterInput, found: &Clustering) {
    let model = Model::from_json(&found.model_json).unwrap();
    assert_eq!(model.to_json(), found.model_json);
    for (row, batch) in found.assignments.iter().enumerate() {
        let value = |feature: &str| {
            let (_, column) = input.columns.iter().find(|(name, _)| name == feature).unwrap();
            column.value(row)
        };
        let values: Vec<Value<'_>> =
            model.features.features().iter().map(|feature| value(feature.name())).collect();
        assert_eq!(assign(&model, &values).unwrap(), *batch, "row {row}");
    }
}

#[test]
fn a_tree_gives_segments_and_says_how_often_the_nearest_centre_agrees() {
    for linkage in ["ward", "average", "complete"] {
        let spec = format!(
            r#"{{{FEATURES}, "algorithm": {{"name": "hierarchical", "linkage": "{linkage}"}}, "k": {{"min": 2, "max": 6}}}}"#
        );
        let input = input(400, &spec);
        let found = cluster(input.clone()).unwrap();
        assert_eq!(found.model.algorithm, AlgorithmName::Hierarchical);
        let agreement = found.model.assign.agreement_with_training.unwrap();
        assert!((0.9..=1.0).contains(&agreement), "{linkage}: {agreement}");
        assert_eq!(found.figures.dendrogram.as_ref().unwrap().merges.len(), 30);
        batch_equals_single(&input, &found);
    }
}

#[test]
fn a_tree_is_cut_at_a_number_or_at_a_height() {
    let spec =
        |cut: &str| format!(r#"{{{FEATURES}, "algorithm": {{"name": "hierarchical", "cut": {cut}}}}}"#);
    let by_number = cluster(input(300, &spec(r#"{"k": 5}"#))).unwrap();
    assert_eq!(by_number.model.segments.len(), 5);
    let all = cluster(input(300, &spec(r#"{"height": 1e9}"#))).unwrap();
    assert_eq!(all.model.segments.len(), 1);
    let both = cluster(input(300, &spec(r#"{"k": 5, "height": 2}"#))).unwrap_err().to_string();
    assert_eq!(both, "`algorithm.cut` takes `k` or `height`, expected one of them");
}

#[test]
fn many_rows_are_linked_by_way_of_microclusters_or_a_sample_or_refused() {
    let spec = |on_large: &str| {
        format!(
            r#"{{{FEATURES}, "k": 4, "algorithm": {{"name": "hierarchical", "max_rows": 300, "on_large": "{on_large}"}}}}"#
        )
    };
    let whole = cluster(input(900, &spec("error").replace("300", "1000"))).unwrap();
    let segment = |found: &Clustering| -> Vec<u32> {
        found.assignments.iter().map(|found| found.unwrap().segment as u32).collect()
    };
    for on_large in ["microclusters", "sample"] {
        let found = cluster(input(900, &spec(on_large))).unwrap();
        assert!(found.warnings.iter().any(|warning| warning.code == "large_input"), "{:?}", found.warnings);
        let same = adjusted_rand(&segment(&whole), &segment(&found)).unwrap();
        assert!(same > 0.95, "{on_large}: {same}");
    }
    let refused = cluster(input(900, &spec("error"))).unwrap_err().to_string();
    assert_eq!(
        refused,
        "900 rows are more than `algorithm.max_rows` = 300 (hint: `on_large: microclusters`)"
    );
}

#[test]
fn dense_regions_become_segments_and_the_rest_is_noise() {
    let spec = format!(
        r#"{{{FEATURES}, "scale": "standard", "algorithm": {{"name": "dbscan", "eps": "0.25", "min_samples": 8}}}}"#
    );
    let mut input = input(400, &spec);
    for column in &mut input.columns {
        if let (name, Column::Numeric(values)) = column
            && name != "country"
        {
            values[3] = 100_000.0;
        }
    }
    let found = cluster(input.clone()).unwrap();
    let names: Vec<&str> = found.model.segments.iter().map(|segment| segment.name.as_str()).collect();
    assert!(names.contains(&"Noise") && names.len() >= 4, "{names:?}");
    let noise = found.model.assign.cores.as_ref().unwrap().noise.unwrap();
    assert_eq!(found.assignments[3].unwrap().segment, noise);
    assert!(found.model.metrics.silhouette.unwrap().value > 0.5, "noise is left out of cohesion");
    batch_equals_single(&input, &found);
    let lost = spec.replace("0.25", "1e-9");
    let refused = cluster(self::input(50, &lost)).unwrap_err().to_string();
    assert!(refused.contains("all are noise (hint: a larger `eps`"), "{refused}");
}

#[test]
fn rfm_cells_are_segments_with_stable_ids_and_a_cell_for_the_inactive() {
    let spec = r#"{"features": [{"name": "recency_days", "impute": {"strategy": "max"}}, "frequency",
        {"name": "monetary", "impute": {"strategy": "constant", "value": 0}}], "algorithm": {"name": "rfm"}}"#;
    let input = input(500, spec);
    let found = cluster(input.clone()).unwrap();
    let names: BTreeMap<&str, &str> =
        found.model.segments.iter().map(|s| (s.name.as_str(), s.segment_id.as_str())).collect();
    assert!(names.contains_key("Champions") && names.contains_key("Inactive"), "{names:?}");
    batch_equals_single(&input, &found);
    let fewer = cluster(self::input(300, spec)).unwrap();
    for segment in &fewer.model.segments {
        assert_eq!(names.get(segment.name.as_str()), Some(&segment.segment_id.as_str()), "{}", segment.name);
    }
    let without = r#"{"features": ["frequency"], "algorithm": {"name": "rfm"}}"#;
    let refused = cluster(self::input(300, without)).unwrap_err().to_string();
    assert!(refused.contains("three numeric features with the roles"), "{refused}");
}

#[test]
fn rules_made_by_hand_share_the_registry() {
    let spec: ClusterSpec = serde_json::from_str(&format!(
        r#"{{{FEATURES}, "algorithm": {{"name": "rules", "rules": [{{"name": "Big", "when": "monetary > 300"}},
            {{"name": "Late", "when": "recency_days > 100"}}]}}}}"#
    ))
    .unwrap();
    let of_row = |row: usize| [Some(0), Some(1), None][row % 3];
    let given = Some(Given((0..90).map(of_row).collect()));
    let input = ClusterInput { spec, given, ..input(90, r#"{"features": ["frequency"]}"#) };
    let found = cluster(input.clone()).unwrap();
    let names: Vec<&str> = found.model.segments.iter().map(|segment| segment.name.as_str()).collect();
    assert_eq!(names.len(), 3);
    let row = |row: usize| names[found.assignments[row].unwrap().segment];
    assert_eq!([row(0), row(1), row(2)], ["Big", "Late", "Other"]);
    let values = [Value::Number(1.0), Value::Number(1.0), Value::Number(1.0)];
    assert!(assign(&found.model, &values).unwrap_err().to_string().contains("query engine"));
    let refused = cluster(ClusterInput { given: None, ..input }).unwrap_err().to_string();
    assert_eq!(refused, "`algorithm: rules` needs what its predicates say of each row");
}

#[test]
fn no_thread_count_changes_a_bit_of_any_algorithm() {
    let specs = [
        r#""algorithm": {"name": "kmeans"}, "k": 4"#,
        r#""algorithm": {"name": "kmeans", "precision": "f64", "init": "kmeans_parallel"}, "k": 4"#,
        r#""algorithm": {"name": "minibatch_kmeans", "batch": 200, "max_iter": 20}, "k": 4"#,
        r#""algorithm": {"name": "hierarchical"}, "k": 4"#,
        r#""algorithm": {"name": "hierarchical", "linkage": "average"}, "k": 4"#,
        r#""scale": "standard", "algorithm": {"name": "dbscan"}"#,
        r#""algorithm": {"name": "rfm"}"#,
        r#""k": {"min": 2, "max": 6, "select": "gap"}"#,
    ];
    for spec in specs {
        let input = input(700, &format!("{{{FEATURES}, {spec}}}"));
        let with = |threads: usize, kernel: Kernel| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| cluster(ClusterInput { kernel, ..input.clone() })).unwrap()
        };
        let one = with(1, Kernel::Auto);
        for threads in [2, 3, 8] {
            assert_eq!(with(threads, Kernel::Auto), one, "{spec}, {threads} threads");
        }
        for kernel in [Kernel::Baseline, Kernel::Avx2, Kernel::Avx512] {
            if kernel.is_available() {
                assert_eq!(with(2, kernel), one, "{spec}, {kernel:?}");
            } else {
                println!("{kernel:?} is not on this processor");
            }
        }
    }
}

#[test]
fn a_kernel_that_is_not_there_is_refused() {
    let missing = [Kernel::Avx2, Kernel::Avx512].into_iter().find(|kernel| !kernel.is_available());
    if let Some(kernel) = missing {
        let input = ClusterInput { kernel, ..input(100, r#"{"features": ["frequency"], "k": 2}"#) };
        let message = cluster(input).unwrap_err().to_string();
        assert_eq!(message, format!("this processor does not have the instructions of kernel {kernel:?}"));
    }
}

#[test]
fn one_row_is_a_tree_without_merges() {
    let point = Matrix::from_columns(vec![vec![0.0], vec![1.0]]).unwrap();
    for linkage in [Linkage::Average, Linkage::Ward] {
        assert_eq!(tree(&point, linkage).unwrap().merges.len(), 0);
    }
}
