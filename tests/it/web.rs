//! The API: who may ask, what is answered, what is refused and in which words.

use std::time::Duration;

use mainspring::core::ids::Timestamp;
use mainspring::core::state::RunState;
use mainspring::web::{self, Pulse};
use reqwest::Method;
use serde_json::{Value, json};

use super::server::{ADMIN, EXPIRED, VIEWER, WORKER, With, World, path_of};

/// Every route with a path that fits it; the test below holds it complete.
const ROUTES: &[(&str, &str, &str)] = &[
    ("Public", "GET", "/livez"),
    ("Public", "GET", "/readyz"),
    ("Read", "GET", "/metrics"),
    ("Read", "GET", "/api/v1/health"),
    ("Read", "GET", "/api/v1/workers"),
    ("Read", "GET", "/api/v1/importErrors"),
    ("Operate", "POST", "/api/v1/prune"),
    ("Operate", "POST", "/api/v1/events/{name}"),
    ("Read", "GET", "/api/v1/dags"),
    ("Read", "GET", "/api/v1/dags/{dag_id}"),
    ("Operate", "PATCH", "/api/v1/dags/{dag_id}"),
    ("Operate", "POST", "/api/v1/dags/{dag_id}/backfills"),
    ("Read", "GET", "/api/v1/dags/{dag_id}/dagRuns"),
    ("Operate", "POST", "/api/v1/dags/{dag_id}/dagRuns"),
    ("Read", "GET", "/api/v1/dags/{dag_id}/dagRuns/{run_id}"),
    ("Operate", "POST", "/api/v1/dags/{dag_id}/dagRuns/{run_id}/cancel"),
    ("Operate", "POST", "/api/v1/dags/{dag_id}/dagRuns/{run_id}/clear"),
    ("Operate", "POST", "/api/v1/dags/{dag_id}/dagRuns/{run_id}/mark"),
    ("Read", "GET", "/api/v1/dags/{dag_id}/dagRuns/{run_id}/waits"),
    ("Read", "GET", "/api/v1/dags/{dag_id}/dagRuns/{run_id}/taskInstances"),
    ("Read", "GET", "/api/v1/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"),
    ("Work", "POST", "/api/v1/worker/sessions"),
    ("Work", "DELETE", "/api/v1/worker/sessions/{session}"),
    ("Work", "POST", "/api/v1/worker/sessions/{session}/heartbeat"),
    ("Work", "POST", "/api/v1/worker/sessions/{session}/exchange"),
    ("Work", "POST", "/api/v1/worker/sessions/{session}/logs"),
    ("Work", "GET", "/api/v1/worker/dagVersions/{hash}"),
];

const TWO_TASKS: &str = "dag_id: two
tasks:
  - {id: first, type: noop}
  - {id: second, type: noop, depends_on: [first]}
";

#[test]
fn the_list_of_routes_above_is_complete() {
    let count = |file: &str| {
        let path = super::cli::root().join("src/web").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let declared = text.matches(".on(").count();
        let public = text.matches("Public,").count() - text.matches("{Operate, Public,").count();
        (declared, public)
    };
    let (api, workers) = (count("api/mod.rs"), count("worker/mod.rs"));
    assert_eq!(api.0 + workers.0, ROUTES.len());
    assert_eq!(workers.1, 0);
}

#[tokio::test]
async fn no_route_opens_without_the_permission_it_declares() {
    let world = World::new().await;
    let server = world.server().await;
    for &(need, method, path) in ROUTES {
        let path = path
            .replace("{dag_id}", "d")
            .replace("{run_id}", "r")
            .replace("{task_id}", "t")
            .replace("{try_number}", "1")
            .replace("{session}", "w-x")
            .replace("{hash}", "h")
            .replace("{name}", "n");
        let method: Method = method.parse().unwrap();
        let statuses = async |token: Option<&str>| {
            server.request(method.clone(), &path, token).send().await.unwrap().status().as_u16()
        };
        let passes = |status: u16| !matches!(status, 401 | 403);
        assert_eq!(passes(statuses(None).await), need == "Public", "{method} {path} without a token");
        assert_eq!(passes(statuses(Some("wrong")).await), need == "Public", "{method} {path}");
        assert_eq!(passes(statuses(Some(EXPIRED)).await), need == "Public", "{method} {path}");
        let viewer = matches!(need, "Public" | "Read");
        assert_eq!(passes(statuses(Some(VIEWER)).await), viewer, "{method} {path} as a viewer");
        let worker = matches!(need, "Public" | "Work");
        assert_eq!(passes(statuses(Some(WORKER)).await), worker, "{method} {path} as a worker");
        assert!(passes(statuses(Some(ADMIN)).await), "{method} {path} as an admin");
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong_and_what_to_do() {
    let world = World::new().await;
    world.take_up(TWO_TASKS).await;
    let server = world.server().await;
    let runs = "/api/v1/dags/two/dagRuns";
    for (method, path, token, body, status, words) in [
        ("GET", "/api/v1/dags", "nonsense", Value::Null, 401, "not one of this server's"),
        ("GET", "/api/v1/dags", EXPIRED, Value::Null, 401, "was good until 2020-01-01"),
        ("PATCH", "/api/v1/dags/two", VIEWER, json!({"is_paused": true}), 403, "Viewer"),
        ("GET", "/api/v1/dags/three", ADMIN, Value::Null, 404, "no DAG `three`"),
        ("GET", "/api/v1/dags/..%2Fx", ADMIN, Value::Null, 400, "not a valid dag_id"),
        ("GET", "/api/v1/nothing", ADMIN, Value::Null, 404, "nothing at `/api/v1/nothing`"),
        ("POST", runs, ADMIN, json!({"logical_date": "soon"}), 400, "`soon` is no time"),
        ("POST", runs, ADMIN, json!({"prams": {}}), 400, "prams"),
        ("POST", runs, ADMIN, json!({"params": {"x": 1}}), 400, "x"),
        (
            "POST",
            runs,
            ADMIN,
            json!({"run_id": "scheduled__2026-01-01T00:00:00Z"}),
            400,
            "begins with `scheduled__`, which is kept for the runs of schedules",
        ),
        ("POST", runs, ADMIN, json!({"run_id": "backfill__x"}), 400, "begins with `backfill__`"),
        ("GET", "/api/v1/dags/two/dagRuns?state=happy", ADMIN, Value::Null, 400, "`happy` is no state"),
        ("GET", "/api/v1/dags/two/dagRuns?limit=many", ADMIN, Value::Null, 400, "limit"),
        ("GET", "/api/v1/dags/two/dagRuns/none", ADMIN, Value::Null, 404, "no run `none`"),
        ("POST", "/api/v1/dags/two/dagRuns/none/cancel", ADMIN, json!({}), 404, "no such run"),
    ] {
        let (found, answer) = server.call(method.parse().unwrap(), path, token, body).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        let text = answer.to_string();
        assert!(text.contains(words) && answer["title"].is_string(), "{method} {path}: {text}");
    }
    let post = || server.request(Method::POST, runs, Some(ADMIN));
    let plain = post().header("content-type", "text/plain").body("{}").send().await.unwrap();
    assert_eq!(plain.status(), 415, "a form of another site could send this");
    let large = format!("{{\"run_id\": \"{}\"}}", "x".repeat(300_000));
    let large = post().header("content-type", "application/json").body(large).send().await.unwrap();
    assert_eq!(large.status(), 413);
}

#[tokio::test]
async fn pages_of_other_sites_cannot_ask_through_a_browser() {
    let world = World::new().await;
    let server = world.server().await;
    let get = |host: &str| server.request(Method::GET, "/livez", None).header("host", host.to_owned());
    assert_eq!(get("rebound.example:8080").send().await.unwrap().status(), 421);
    assert_eq!(get("localhost:9").send().await.unwrap().status(), 200);
    let post = |origin: String| {
        let request = server.request(Method::POST, "/api/v1/dags/d/dagRuns/r/cancel", Some(ADMIN));
        request.header("origin", origin)
    };
    let cross = post("http://evil.example".to_owned()).json(&json!({})).send().await.unwrap();
    assert_eq!(cross.status(), 403);
    let own = post(server.url()).json(&json!({})).send().await.unwrap();
    assert_eq!(own.status(), 404, "it passes, and there is no such run");
}

#[tokio::test]
async fn an_address_that_other_machines_reach_needs_a_token_file() {
    let refused = web::listen("0.0.0.0:0".parse().unwrap(), false).await.unwrap_err();
    assert!(refused.contains("--token-file"), "{refused}");
    assert!(web::listen("127.0.0.1:0".parse().unwrap(), false).await.is_ok());
    assert!(web::listen("0.0.0.0:0".parse().unwrap(), true).await.is_ok());
}

#[tokio::test]
async fn readiness_says_why_not() {
    let world = World::new().await;
    let now = mainspring::engine::now();
    let ago = |span: u64| Some(Timestamp(now.0).minus(Duration::from_secs(span)));
    for (pulse, status, words) in [
        (Pulse { last_round: ago(0), ..Pulse::default() }, 200, "ok"),
        (Pulse::default(), 503, "not come round yet"),
        (Pulse { last_round: ago(600), ..Pulse::default() }, 503, "s ago"),
        (
            Pulse { last_round: ago(0), trouble: Some("no space left".to_owned()), ..Pulse::default() },
            503,
            "no space left",
        ),
    ] {
        let server = world.server_with(With { pulse, ..With::default() }).await;
        let answer = server.request(Method::GET, "/readyz", None).send().await.unwrap();
        assert_eq!(answer.status(), status);
        let text = answer.text().await.unwrap();
        assert!(text.contains(words), "{text}");
        let alive = server.request(Method::GET, "/livez", None).send().await.unwrap();
        assert_eq!(alive.status(), 200);
    }
}

#[tokio::test]
async fn a_run_can_be_started_watched_marked_cleared_and_ended() {
    let world = World::new().await;
    world.take_up(TWO_TASKS).await;
    let server = world.server().await;
    let dags = server.get("/api/v1/dags").await;
    assert_eq!(dags["dags"][0]["dag_id"], "two");
    let key = server.trigger("two").await;
    let path = path_of(&key);
    // There is no worker, so the first task waits for one.
    let names_first = |waits: &Value| waits[0]["why"].as_str().is_some_and(|why| why.contains("first"));
    server.until(&format!("{path}/waits?task_id=second"), names_first).await;
    let marked = server.post(&format!("{path}/mark"), json!({"state": "success"})).await;
    assert_eq!(marked["task_instances"].as_array().map(Vec::len), Some(2), "{marked}");
    assert_eq!(server.end_of(&key).await, RunState::Success);
    let dry = json!({"task_ids": ["first"], "downstream": true, "dry_run": true});
    let would = server.post(&format!("{path}/clear"), dry).await;
    assert_eq!(server.get(&path).await["state"], "success", "a dry run changes nothing");
    let wet = json!({"task_ids": ["first"], "downstream": true});
    assert_eq!(server.post(&format!("{path}/clear"), wet).await, would);
    assert_eq!(would["task_instances"].as_array().map(Vec::len), Some(2), "{would}");
    let instances = server.get(&format!("{path}/taskInstances")).await;
    assert_ne!(instances["task_instances"][0]["state"], "success", "{instances}");
    assert_eq!(server.post(&format!("{path}/cancel"), json!({})).await["state"], "cancelled");
    let (status, again) = server.call(Method::POST, &format!("{path}/cancel"), ADMIN, json!({})).await;
    assert_eq!(status, 409, "{again}");
    let listed = server.get("/api/v1/dags/two/dagRuns?state=cancelled").await;
    assert_eq!(listed["dag_runs"][0]["run_id"], key.run_id.as_str());
    let metrics = server.request(Method::GET, "/metrics", Some(VIEWER)).send().await.unwrap().text().await;
    let metrics = metrics.unwrap();
    assert!(metrics.contains("mainspring_dag_runs{state=\"cancelled\"} 1\n"), "{metrics}");
    assert!(metrics.contains("mainspring_database_up 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_paused_dag_starts_nothing_until_it_goes_on() {
    let world = World::new().await;
    world.take_up(TWO_TASKS).await;
    let server = world.server().await;
    let pause = async |paused: bool| {
        let body = json!({ "is_paused": paused });
        let (status, dag) = server.call(Method::PATCH, "/api/v1/dags/two", ADMIN, body).await;
        assert_eq!((status, &dag["is_paused"]), (200, &json!(paused)), "{dag}");
        dag["changed"].as_bool().unwrap()
    };
    assert!(pause(true).await);
    assert!(!pause(true).await, "it is so already");
    let key = server.trigger("two").await;
    let waits = server.get(&format!("{}/waits", path_of(&key))).await;
    assert!(waits[0]["why"].as_str().unwrap().contains("paused"), "{waits}");
    assert!(pause(false).await);
}

#[tokio::test]
async fn the_same_trigger_twice_is_one_run() {
    let world = World::new().await;
    world.take_up(TWO_TASKS).await;
    let server = world.server().await;
    let body = json!({"run_id": "by-hand", "logical_date": "2026-01-01"});
    let first = server.post("/api/v1/dags/two/dagRuns", body.clone()).await;
    let second = server.post("/api/v1/dags/two/dagRuns", body).await;
    assert_eq!(first["run_id"], second["run_id"]);
    assert_eq!(first["logical_date"], "2026-01-01T00:00:00Z");
    let listed = server.get("/api/v1/dags/two/dagRuns").await;
    assert_eq!(listed["dag_runs"].as_array().map(Vec::len), Some(1));
}
