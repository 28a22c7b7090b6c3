//! `mainspring dags next`, as a person and a program meet it.

use std::process::{Command, Output};

use serde_json::Value;

fn next(dag: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dag.yaml");
    std::fs::write(&path, format!("dag_id: nightly\n{dag}\ntasks: [{{id: t, type: noop}}]\n")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_mainspring"))
        .args(["dags", "next"])
        .arg(&path)
        .args(args)
        .env("MAINSPRING_HOME", folder.path().join("home"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const NIGHTLY: &str = "schedule: '30 2 * * *'\ntimezone: Europe/Berlin\ntimetable: data_interval";

#[test]
fn next_shows_both_clocks_and_what_each_run_stands_for() {
    let output = next(NIGHTLY, &["-n", "3", "--from", "2026-03-28T00:00:00Z"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let cells = |line: &str| -> Vec<String> {
        line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    let table: Vec<Vec<String>> = text(&output.stdout).lines().map(cells).collect();
    assert_eq!(
        table,
        [
            ["LOCAL", "UTC", "LOGICAL DATE", "DATA INTERVAL START", "DATA INTERVAL END"],
            [
                "2026-03-28 02:30:00 CET",
                "2026-03-28T01:30:00Z",
                "2026-03-27T01:30:00Z",
                "2026-03-27T01:30:00Z",
                "2026-03-28T01:30:00Z"
            ],
            [
                "2026-03-29 03:30:00 CEST",
                "2026-03-29T01:30:00Z",
                "2026-03-28T01:30:00Z",
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:30:00Z"
            ],
            [
                "2026-03-30 02:30:00 CEST",
                "2026-03-30T00:30:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-30T00:30:00Z"
            ],
        ]
    );
}

#[test]
fn next_is_a_list_for_programs() {
    let output = next(NIGHTLY, &["-n", "1", "--from", "2026-10-25", "--output", "json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        list,
        serde_json::json!([{
            "at": "2026-10-25T00:30:00Z",
            "local": "2026-10-25 02:30:00 CEST",
            "logical_date": "2026-10-24T00:30:00Z",
            "data_interval_start": "2026-10-24T00:30:00Z",
            "data_interval_end": "2026-10-25T00:30:00Z",
        }])
    );
}

#[test]
fn next_says_why_there_is_no_instant() {
    for (dag, why) in [
        ("owner: me", "`nightly` has no instants: it runs by hand\n"),
        (
            "schedule: {assets: raw.orders}",
            "`nightly` has no instants: it runs on new data in raw.orders\nwaits for new data in `raw.orders`\n",
        ),
        (
            "schedule: {event: bought}",
            "`nightly` has no instants: it runs on events `bought`, up to 500 or 1s\n0 of them wait now\n",
        ),
        (
            "schedule: '@daily'\nend_date: 2026-01-01",
            "`nightly` has no instant from 2026-02-01T00:00:00Z on: @daily (UTC)\n",
        ),
    ] {
        let output = next(dag, &["--from", "2026-02-01"]);
        assert!(output.status.success());
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("", why));
    }
    let output = next("owner: me", &["--output", "json"]);
    assert_eq!(text(&output.stdout), "[]\n");
}

#[test]
fn next_refuses_what_it_cannot_read() {
    let output = next(NIGHTLY, &["--from", "tomorrow"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: --from `tomorrow` is not a time\nhint: "));
    assert_eq!(next(NIGHTLY, &["-n", "0"]).status.code(), Some(1));
}

#[test]
fn a_month_of_a_schedule_is_replayed_in_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dag.yaml");
    let dag = "dag_id: nightly\nschedule: '30 2 * * *'\ntimezone: Europe/Berlin\nmax_active_runs: 1\ntasks:\n  - {id: a, type: bash, command: 'exit 1'}\n  - {id: b, type: noop, depends_on: [a]}\n";
    std::fs::write(&file, dag).unwrap();
    let month = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_mainspring"))
            .args(["--home"])
            .arg(folder.path().join("home"))
            .args(["sim", "--month"])
            .arg(&file)
            .args(args)
            .output()
            .unwrap()
    };
    let output = month(&["--from", "2026-03-20", "--output", "json"]);
    let replay: Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs = replay["runs"].as_array().unwrap();
    assert_eq!((replay["dag_id"].as_str(), runs.len()), (Some("nightly"), 31));
    // Summer begins on 29 March, when 02:30 does not exist.
    let dates = [7, 8, 9, 10].map(|day| runs[day]["logical_date"].as_str().unwrap());
    assert_eq!(
        dates,
        ["2026-03-27T01:30:00Z", "2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
    );
    for run in runs {
        assert_eq!(
            (&run["state"], &run["tasks"]),
            (&"success".into(), &2.into()),
            "attempts are stubbed: {run}"
        );
        assert_eq!(run["started_at"], run["logical_date"]);
    }
    assert_eq!(runs[0]["ended_at"], "2026-03-20T01:32:00Z", "two tasks of a minute, one after the other");
    assert!(!folder.path().join("home").exists(), "nothing is written");
    let none = month(&["--from", "soon"]);
    assert_eq!(none.status.code(), Some(1));
}
