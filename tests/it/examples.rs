//! The example DAGs on real data, through the program itself: figures, determinism, an independent reader.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cli::root;

fn run_example(home: &Path, dags: &Path, dag: &str, environment: &[(&str, &str)]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_mainspring"))
        .current_dir(root())
        .arg("--home")
        .arg(home)
        .arg("--dags")
        .arg(dags)
        .args(["--output", "json", "run", dag, "--logical-date", "2026-01-01"])
        .envs(environment.iter().copied())
        .output()
        .expect("the program can be started");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{dag}: {text}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON object")
}

fn outputs<'a>(report: &'a Value, task: &str) -> &'a Value {
    let tasks = report["tasks"].as_array().expect("a report lists its tasks");
    &tasks.iter().find(|t| t["task_id"] == task).unwrap_or_else(|| panic!("no task {task} in {report}"))["outputs"]
}

/// The bytes of every model and of the pointer to the one served, by path below `models`. Their history says
/// which run did what, and grows.
fn models(home: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(folder: &Path, root: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, into);
            } else if path.file_name().is_some_and(|name| name != "history.jsonl") {
                into.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    let root = home.join("models");
    let mut all = BTreeMap::new();
    walk(&root, &root, &mut all);
    assert!(!all.is_empty(), "no model under {}", root.display());
    all
}

/// Asks DuckDB, which shares no code with us, about a dataset.
#[expect(clippy::disallowed_methods, reason = "the test command says where Python is")]
fn independent(home: &Path, dataset: &str, sql: &str) -> Value {
    let python = std::env::var("MAINSPRING_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(python)
        .arg(root().join("tests/independent_reader.py"))
        .arg(home.join("lake").join(dataset))
        .arg(sql)
        .output()
        .expect("python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the reader prints JSON")
}

const ASSIGNMENTS: &str = "SELECT count(*) AS n, count(DISTINCT customer_id) AS customers, \
     count(DISTINCT segment_id) AS segments, sum(CASE WHEN segment_id IS NULL THEN 1 ELSE 0 END) AS nulls, \
     md5(string_agg(customer_id || ':' || segment_id || ':' || distance, ',' ORDER BY customer_id)) AS hash FROM t";

#[test]
fn customers_are_segmented_alike_whatever_the_threads_and_the_order_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let dags = root().join("dags");
    let first_home = folder.path().join("first");
    let report = run_example(&first_home, &dags, "customer_segments", &[]);
    assert_eq!(outputs(&report, "orders")["rows"], 69_659);
    let clustering = outputs(&report, "segments");
    assert_eq!(clustering["rows"], 23_570);
    let k = clustering["k"].as_u64().expect("k is a number");
    assert!((3..=8).contains(&k), "{clustering}");
    assert!(clustering["silhouette"].as_f64().is_some_and(|s| s > 0.2), "{clustering}");
    let names: Vec<_> =
        clustering["segments"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names.len() as u64, k);
    let read = independent(&first_home, "segments.customers", ASSIGNMENTS);
    assert_eq!((&read[0]["n"], &read[0]["customers"]), (&23_570.into(), &23_570.into()));
    assert_eq!(read[0]["segments"], k);
    assert_eq!(read[0]["nulls"].to_string().trim_matches('"'), "0");

    // One thread.
    let home = folder.path().join("one-thread");
    run_example(&home, &dags, "customer_segments", &[("RAYON_NUM_THREADS", "1")]);
    assert_eq!(models(&home), models(&first_home));
    assert_eq!(independent(&home, "segments.customers", ASSIGNMENTS), read);

    // The rows in another order.
    let shuffled = folder.path().join("dags");
    fs::create_dir_all(shuffled.join("data")).unwrap();
    fs::copy(dags.join("customer_segments.yaml"), shuffled.join("customer_segments.yaml")).unwrap();
    let text = fs::read_to_string(dags.join("data/cdnow_master.csv")).unwrap();
    let (head, rows) = text.split_once('\n').unwrap();
    let mut rows: Vec<_> = rows.lines().collect();
    let n = rows.len() as u64;
    for i in 0..n {
        // A fixed permutation is enough: every row moves far from its neighbours.
        rows.swap(i as usize, ((i * 48_271 + 11) % n) as usize);
    }
    fs::write(shuffled.join("data/cdnow_master.csv"), format!("{head}\n{}\n", rows.join("\n"))).unwrap();
    let home = folder.path().join("shuffled");
    run_example(&home, &shuffled, "customer_segments", &[]);
    assert_eq!(models(&home), models(&first_home));
    assert_eq!(independent(&home, "segments.customers", ASSIGNMENTS), read);

    // The same command again, on the same home.
    let again = run_example(&first_home, &dags, "customer_segments", &[]);
    assert_eq!(again["run_id"], report["run_id"]);
    assert_eq!(models(&home), models(&first_home));
    assert_eq!(independent(&first_home, "segments.customers", ASSIGNMENTS), read);
}

#[test]
fn households_are_segmented_from_three_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let report = run_example(folder.path(), &root().join("dags"), "store_loyalty", &[]);
    assert_eq!(outputs(&report, "baskets")["rows"], 81_817);
    assert_eq!(outputs(&report, "demographics")["rows"], 801);
    assert_eq!(outputs(&report, "redemptions")["rows"], 2_102);
    assert_eq!(outputs(&report, "segments")["rows"], 801);
    let shown = outputs(&report, "show")["first_rows"].as_array().expect("the last task shows rows");
    let households: i64 = shown.iter().map(|row| row["households"].as_i64().unwrap()).sum();
    assert_eq!(households, 801);
}
