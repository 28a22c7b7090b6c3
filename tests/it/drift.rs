//! Drift and agreement against the figures of SciPy and scikit-learn (`tests/fixtures_drift.py` makes them).

use mainspring::segment::agreement::Contingency;
use mainspring::segment::drift::{Bins, chi_squared, jensen_shannon, kolmogorov_smirnov, psi, wasserstein};
use serde_json::Value;

fn fixture() -> Value {
    let path = format!("{}/tests/data/segment/drift.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= tolerance * theirs.abs().max(1.0), "{ours} is not {theirs}");
}

#[test]
fn drift_measures_are_those_of_scipy() {
    let cases = fixture()["numbers"].as_array().unwrap().clone();
    assert_eq!(cases.len(), 5);
    for case in &cases {
        let (current, reference) = (numbers(&case["current"]), numbers(&case["reference"]));
        let bins = Bins::of(&reference).unwrap();
        let edges = numbers(&case["edges"]);
        assert_eq!(bins.edges.len(), edges.len());
        bins.edges.iter().zip(&case["edges"].as_array().unwrap()[..]).for_each(|(a, b)| close(*a, b, 1e-12));
        bins.shares
            .iter()
            .zip(&case["shares"].as_array().unwrap()[..])
            .for_each(|(a, b)| close(*a, b, 1e-12));
        let counts = bins.counts(&current);
        assert_eq!(counts.iter().map(|n| *n as f64).collect::<Vec<_>>(), numbers(&case["counts"]));
        let shares: Vec<f64> = counts.iter().map(|n| *n as f64 / current.len() as f64).collect();
        close(psi(&shares, &bins.shares), &case["psi"], 1e-9);
        close(jensen_shannon(&shares, &bins.shares), &case["js"], 1e-9);
        close(kolmogorov_smirnov(&current, &reference).unwrap().statistic, &case["ks"], 1e-9);
        close(wasserstein(&current, &reference).unwrap(), &case["wasserstein"], 1e-9);
        let test = chi_squared(&counts, &bins.counts(&reference)).unwrap();
        close(test.statistic, &case["chi2"], 1e-9);
        close(test.p_value, &case["chi2_p"], 1e-9);
    }
}

#[test]
fn agreement_is_that_of_scikit_learn() {
    let cases = fixture()["groupings"].as_array().unwrap().clone();
    assert_eq!(cases.len(), 5);
    for case in &cases {
        let names = |side: &str| -> Vec<String> { numbers(&case[side]).iter().map(f64::to_string).collect() };
        let pairs: Vec<(String, String, u64)> =
            names("left").into_iter().zip(names("right")).map(|(left, right)| (left, right, 1)).collect();
        let both = Contingency::of(&pairs);
        assert_eq!(both.total(), 200);
        close(both.adjusted_rand().unwrap(), &case["ari"], 1e-12);
        close(both.normalised_mutual_information().unwrap(), &case["nmi"], 1e-12);
    }
}
