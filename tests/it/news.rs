//! Runs that new data and received events start, through real servers that are killed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::served::{folder, json, ok, run, serve, trigger};
use super::server::PATIENCE;

const SHOP: &str = "dag_id: orders
params: {code: 0}
tasks:
  - {id: extract, type: bash, command: 'exit $CODE', env: {CODE: '{{ params.code }}'}, outlets: [raw.orders]}
---
dag_id: users
tasks:
  - {id: extract, type: noop, outlets: [raw.users]}
---
dag_id: both
schedule: {assets: {all: [raw.orders, raw.users]}}
tasks:
  - id: say
    type: bash
    command: 'echo \"from $FROM\"'
    env: {FROM: \"{{ triggering_asset_events['raw.orders'] | map(attribute='source_run_id') | join(' ') }}\"}
---
dag_id: either
schedule: {assets: {any: [raw.orders, raw.users]}}
tasks:
  - {id: see, type: noop}
";

/// Asks again and again until the answer is as expected.
fn until<T>(what: &str, mut asked: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match asked() {
            Ok(answer) => return answer,
            Err(seen) => assert!(began.elapsed() < PATIENCE, "{what}: at last {seen}"),
        }
    }
}

/// Runs of a DAG, oldest first, each with what `runs show` says; none of them is open any more.
fn ended(folder: &Path, database: &[&str], dag_id: &str) -> Result<Vec<Value>, String> {
    let asked = |args: &[&str]| json(&run(folder, &[database, &["--output", "json"], args].concat()));
    let runs = asked(&["runs", "list", dag_id, "--limit", "1000"]);
    let mut shown = Vec::new();
    for listed in runs.as_array().unwrap() {
        let run = asked(&["runs", "show", dag_id, listed["run_id"].as_str().unwrap()]);
        if run["state"] != "success" {
            return Err(format!("{runs}"));
        }
        shown.push(run);
    }
    shown.reverse();
    Ok(shown)
}

fn wait_for_runs(folder: &Path, database: &[&str], dag_id: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} runs of `{dag_id}`"), || {
        let runs = ended(folder, database, dag_id)?;
        if runs.len() == count { Ok(runs) } else { Err(format!("{} runs: {runs:?}", runs.len())) }
    })
}

/// The producers' runs of which `run` has taken the news, by asset.
fn taken(run: &Value) -> BTreeMap<String, Vec<String>> {
    let assets = run["triggering_asset_events"].as_object().unwrap();
    let sources = |events: &Value| {
        let events = events.as_array().unwrap().iter();
        events.map(|event| event["source_run_id"].as_str().unwrap().to_owned()).collect()
    };
    assets.iter().map(|(asset, events)| (asset.clone(), sources(events))).collect()
}

fn of(pairs: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let owned = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    pairs.iter().map(|(asset, names)| ((*asset).to_owned(), owned(names))).collect()
}

#[test]
fn new_data_starts_each_run_once_by_its_rule_and_a_failure_starts_none() {
    let folder = folder(SHOP);
    let folder = folder.path();
    let (_server, _) = serve(folder, &[]);
    let produce = |dag: &str, name: &str, more: &[&str]| {
        let args = [&["dags", "trigger", dag, "--run-id", name, "--wait"], more].concat();
        trigger(folder, &args).status.code()
    };
    assert_eq!(produce("orders", "failed", &["--param", "code=1"]), Some(1));
    assert_eq!(produce("orders", "o1", &[]), Some(0));
    let either = wait_for_runs(folder, &[], "either", 1);
    assert_eq!(taken(&either[0]), of(&[("raw.orders", &["o1"])]));
    let next = run(folder, &["dags", "next", "both"]);
    let said = String::from_utf8(next.stderr).unwrap();
    assert!(
        said.contains("\nwaits for new data in `raw.users`\nnew since the last run: `raw.orders` at "),
        "{said}"
    );
    assert_eq!(produce("orders", "o2", &[]), Some(0));
    wait_for_runs(folder, &[], "either", 2);
    assert_eq!(produce("users", "u1", &[]), Some(0));
    wait_for_runs(folder, &[], "either", 3);
    let both = wait_for_runs(folder, &[], "both", 1);
    assert_eq!(taken(&both[0]), of(&[("raw.orders", &["o1", "o2"]), ("raw.users", &["u1"])]));
    let run_id = both[0]["run_id"].as_str().unwrap();
    let log = ok(&run(folder, &["tasks", "logs", "both", "say", "--run-id", run_id]));
    assert!(log.contains("from o1 o2"), "{log}");
    let shown = ok(&run(folder, &["runs", "show", "both"]));
    assert!(shown.contains("started by `raw.orders`: task `extract` of orders o2 at "), "{shown}");
    assert!(shown.contains(" and 1 more\n"), "{shown}");
    // What was taken counts no more: the next run needs both again.
    assert_eq!(produce("users", "u2", &[]), Some(0));
    let either = wait_for_runs(folder, &[], "either", 4);
    assert_eq!(taken(&either[3]), of(&[("raw.users", &["u2"])]));
    wait_for_runs(folder, &[], "both", 1);
}

/// Kills servers again and again while producers succeed; in the end each of their successes was taken once.
fn no_success_is_lost(servers: usize, database: &[&str]) {
    const ROUNDS: usize = 5;
    let folder = folder(SHOP);
    let folder = folder.path();
    let mut up: Vec<_> = Vec::new();
    let homes: Vec<_> = (0..servers).map(|server| folder.join(format!("server{server}"))).collect();
    for home in &homes {
        std::fs::create_dir(home).unwrap();
        std::os::unix::fs::symlink(folder.join("dags"), home.join("dags")).unwrap();
        up.push(serve(home, database).0);
    }
    for round in 0..ROUNDS {
        let victim = round % servers;
        let name = format!("o{round}");
        let args = [database, &["dags", "trigger", "orders", "--run-id", &name, "--wait"]].concat();
        assert_eq!(trigger(&homes[victim], &args).status.code(), Some(0), "{name}");
        up[victim].signal("-KILL");
        up[victim] = serve(&homes[victim], database).0;
    }
    let all: Vec<String> = (0..ROUNDS).map(|round| format!("o{round}")).collect();
    until("every success is taken once", || {
        let runs = ended(&homes[0], database, "either")?;
        let mut seen: Vec<String> = Vec::new();
        for run in &runs {
            let taken = taken(run);
            assert_eq!(taken.keys().collect::<Vec<_>>(), ["raw.orders"]);
            seen.extend(taken.into_values().flatten());
        }
        seen.sort();
        let once = seen.iter().zip(&all).all(|(seen, run)| seen == run) && seen.len() <= all.len();
        assert!(once || seen.len() < all.len(), "{seen:?}");
        if seen == all { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn a_server_that_is_killed_loses_no_news() {
    no_success_is_lost(1, &[]);
}

#[test]
fn two_servers_on_postgres_of_which_one_is_killed_lose_no_news_and_take_none_twice() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(url) = runtime.block_on(super::postgres::new_database()) {
        no_success_is_lost(2, &["--database", &url]);
    }
}

const EVENTS: &str = "dag_id: bought
schedule: {event: bought, max_wait: 300ms, max_batch: 3}
tasks:
  - id: sum
    type: bash
    command: 'echo \"$SUM\"'
    env: {SUM: \"{{ triggering_events | map(attribute='payload.price') | sum }}\"}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_events_start_runs_in_batches_each_event_in_one() {
    let folder = folder(EVENTS);
    let folder = folder.path();
    let (_server, url) = serve(folder, &[]);
    let found: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("home/server.json")).unwrap()).unwrap();
    let http = reqwest::Client::new();
    let send = async |name: &str, body: Value| {
        let request = http.post(format!("{url}/api/v1/events/{name}")).json(&body);
        let answer = request.bearer_auth(found["token"].as_str().unwrap()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let events = |range: std::ops::Range<u32>| -> Value {
        let event = |n| json!({"event_id": format!("e{n}"), "payload": {"price": n}});
        json!({ "events": range.map(event).collect::<Vec<_>>() })
    };
    let began = Instant::now();
    while send("bought", events(0..7)).await.0 == 404 {
        assert!(began.elapsed() < PATIENCE, "the DAG is not taken up");
    }
    assert_eq!(send("bought", events(5..7)).await, (200, json!({"received": 0, "known": 2})));
    let runs = wait_for_runs(folder, &[], "bought", 3);
    let sums: Vec<Value> =
        runs.iter().map(|run| run["tasks"][0]["outputs"]["return_value"].clone()).collect();
    assert_eq!(sums, [json!(3), json!(12), json!(6)], "two full batches, and one that had waited");
    let ids: Vec<&str> = runs
        .iter()
        .flat_map(|run| run["triggering_events"].as_array().unwrap())
        .map(|event| event["event_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["e0", "e1", "e2", "e3", "e4", "e5", "e6"]);
    let nobody = send("sold", events(0..1)).await;
    assert_eq!(nobody.0, 404);
    assert_eq!(nobody.1["detail"], "no DAG here follows events `sold`");
    let large = json!({"events": [{"payload": "x".repeat(50_000)}]});
    let refused = send("bought", large).await;
    assert_eq!(refused.0, 400);
    assert!(
        refused.1["detail"].as_str().unwrap().starts_with("event 0: its `payload` has 50002 bytes"),
        "{refused:?}"
    );
    assert_eq!(send("bought", json!({"events": []})).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_find_a_run_at_work_wait_for_the_next_if_runs_may_not_overlap() {
    let alone = EVENTS.replace("max_batch: 3}", "max_batch: 1}\nmax_active_runs: 1\noverlap: skip");
    let folder = folder(&alone);
    let folder = folder.path();
    let (_server, url) = serve(folder, &[]);
    let found: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("home/server.json")).unwrap()).unwrap();
    let events: Vec<Value> = (1..4).map(|n| json!({"payload": {"price": n}})).collect();
    let began = Instant::now();
    loop {
        let request = reqwest::Client::new().post(format!("{url}/api/v1/events/bought"));
        let request = request.bearer_auth(found["token"].as_str().unwrap()).json(&json!({"events": events}));
        if request.send().await.unwrap().status().is_success() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the DAG is not taken up");
    }
    let runs = wait_for_runs(folder, &[], "bought", 3);
    let sums: Vec<Value> =
        runs.iter().map(|run| run["tasks"][0]["outputs"]["return_value"].clone()).collect();
    assert_eq!(sums, [json!(1), json!(2), json!(3)]);
}
