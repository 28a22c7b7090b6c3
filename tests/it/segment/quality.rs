//! How good the parts with chance in them are: bars that the default settings must clear.

use mainspring::segment::choose_k::choose_k;
use mainspring::segment::silhouette::{silhouette_sampled, silhouette_samples};
use mainspring::segment::spec::{Guard, Init, KSpec, Precision, Select};
use mainspring::segment::{KMeansOptions, Matrix, kmeans, kmeans_from, nearest, starts};

use super::{chance, fixture, matrix, ring, rows};

/// What scikit-learn reaches on a data set.
struct Bar {
    name: String,
    points: Matrix,
    clusters: usize,
    /// Least inertia of fifty starts.
    best: f64,
    /// The worst of two hundred times ten starts, as a ratio to that.
    worst_of_tens: f64,
    /// Mean cost of the starts of k-means++ alone.
    seeding_cost: f64,
}

fn bars() -> Vec<Bar> {
    let all = fixture("bars");
    let bar = |(name, data): (&String, &serde_json::Value)| {
        let number = |key: &str| data[key].as_f64().unwrap();
        Bar {
            name: name.clone(),
            points: matrix(&rows(&data["points"])),
            clusters: number("k") as usize,
            best: number("best_inertia"),
            worst_of_tens: number("worst_of_tens"),
            seeding_cost: number("seeding_cost"),
        }
    };
    all.as_object().unwrap().iter().map(bar).collect()
}

/// Starts whose mean cost is compared: few would differ by chance alone.
const SEEDS: u64 = 1_000;

fn defaults(clusters: usize) -> KMeansOptions {
    KMeansOptions { precision: Precision::F32, ..KMeansOptions::new(clusters) }
}

/// Ratios of inertia to the best, rising, over twenty seeds.
fn ratios(points: &Matrix, best: f64, options: &KMeansOptions) -> Vec<f64> {
    let ratio = |seed| kmeans(points, &KMeansOptions { seed, ..options.clone() }).unwrap().inertia / best;
    let mut ratios: Vec<f64> = (0..20).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios
}

#[test]
fn default_settings_reach_the_best_of_fifty_scikit_learn_starts_on_twelve_data_sets() {
    let bars = bars();
    assert_eq!(bars.len(), 12);
    for Bar { name, points, clusters, best, worst_of_tens, .. } in bars {
        let ratios = ratios(&points, best, &defaults(clusters));
        println!("{name}: median {:.5}, worst {:.5}, theirs {worst_of_tens:.5}", ratios[10], ratios[19]);
        assert!(ratios[10] <= 1.001 && ratios[19] <= 1.01, "{name}: {ratios:?}");
    }
}

#[test]
fn starts_cost_what_scikit_learns_cost() {
    for Bar { name, points, clusters, seeding_cost: theirs, .. } in bars() {
        let mean = |init: Init| {
            let cost = |seed: u64| {
                let options = KMeansOptions { seed, init, ..defaults(clusters) };
                nearest(&points, &starts(&points, &options, 0).unwrap()).1.iter().sum::<f64>()
            };
            (0..SEEDS).map(cost).sum::<f64>() / SEEDS as f64
        };
        let (greedy, parallel) = (mean(Init::KmeansPlusPlus), mean(Init::KmeansParallel));
        println!("{name}: k-means++ {:.4}, k-means|| {:.4}", greedy / theirs, parallel / theirs);
        assert!((greedy / theirs - 1.0).abs() <= 0.02, "{name}: {greedy} against {theirs}");
        assert!(parallel <= 1.1 * theirs, "{name}: {parallel} against {theirs}");
    }
}

#[test]
fn batches_come_within_a_twentieth_of_the_best() {
    for Bar { name, points, clusters, best, .. } in bars() {
        let options = KMeansOptions { batch: Some(100), max_iterations: 100, ..defaults(clusters) };
        let ratios = ratios(&points, best, &options);
        println!("{name}: median {:.4}, worst {:.4}", ratios[10], ratios[19]);
        assert!(ratios[10] <= 1.05, "{name}: {ratios:?}");
    }
}

#[test]
fn half_the_digits_give_the_same_clusters() {
    let points = matrix(&ring(20_000, 7, 9.0));
    let start: Vec<Vec<f64>> = (0..7).map(|row| points.row(row * 11)).collect();
    let fit = |precision| {
        let options = KMeansOptions { precision, ..KMeansOptions::new(7) };
        kmeans_from(&points, &start, &options).unwrap()
    };
    let (narrow, wide) = (fit(Precision::F32), fit(Precision::F64));
    assert!((narrow.inertia / wide.inertia - 1.0).abs() <= 1e-5, "{} {}", narrow.inertia, wide.inertia);
    let differ = narrow.labels.iter().zip(&wide.labels).filter(|(left, right)| left != right).count();
    assert!(differ < 2, "{differ} of 20000 labels differ");
}

#[test]
fn the_number_of_well_separated_groups_is_found() {
    let spec = |select| KSpec {
        select,
        min: 2,
        max: 9,
        guard: Guard { min_share: 0.0, ..Guard::default() },
        ..KSpec::default()
    };
    let rules = [
        Select::Auto,
        Select::Silhouette,
        Select::Elbow,
        Select::CalinskiHarabasz,
        Select::DaviesBouldin,
        Select::Gap,
    ];
    for select in rules {
        let found = |set: usize| {
            let groups = 3 + set % 5;
            let points = matrix(&ring(60 * groups, groups, 2.0 + 0.1 * set as f64));
            let options = KMeansOptions { runs: 3, seed: set as u64, ..defaults(2) };
            usize::from(choose_k(&points, points.rows(), &spec(select), &options).unwrap().report.k == groups)
        };
        // The gap statistic fits fifty references for each k, and stops early more often than the others.
        let (sets, least) = if select == Select::Gap { (5, 4) } else { (20, 18) };
        let right: usize = (0..sets).map(found).sum();
        println!("{select:?}: {right} of {sets}");
        assert!(right >= least, "{select:?}: {right} of {sets}");
    }
}

#[test]
fn evenly_spread_rows_have_no_elbow() {
    let spec = KSpec { select: Select::Elbow, min: 2, max: 10, ..KSpec::default() };
    let none = |set: u64| {
        let row = |row: u64| (0..8).map(|column| chance(set * 100_000 + row * 8 + column)).collect();
        let points = matrix(&(0..600).map(row).collect::<Vec<Vec<f64>>>());
        let options = KMeansOptions { runs: 3, seed: set, ..defaults(2) };
        let choice = choose_k(&points, 600, &spec, &options).unwrap();
        println!("{set}: elbow {:?}", choice.report.elbow);
        usize::from(choice.report.elbow.is_none())
    };
    let found: usize = (0..20).map(none).sum();
    assert!(found >= 18, "{found} of 20");
}

#[test]
fn the_interval_of_the_sampled_silhouette_covers_the_exact_value() {
    let points = matrix(&ring(3_000, 5, 14.0));
    let labels = kmeans(&points, &KMeansOptions { runs: 1, ..KMeansOptions::new(5) }).unwrap().labels;
    let exact = silhouette_samples(&points, &labels).unwrap().iter().sum::<f64>() / 3_000.0;
    let covers = |seed: &u64| {
        let found = silhouette_sampled(&points, &labels, *seed).unwrap();
        found.ci95[0] <= exact && exact <= found.ci95[1]
    };
    let covered = (0..200).filter(covers).count();
    println!("{covered} of 200");
    assert!(covered >= 180, "{covered} of 200");
}
