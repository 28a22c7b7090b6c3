//! What the surroundings do to a server: a full disk, a database that stops, a clock that is set back. It says so,
//! loses nothing, and goes on without a restart.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use mainspring::control::{self, Scope};
use mainspring::core::ids::{DagId, Timestamp};
use mainspring::engine::scheduler::{self, Scheduler};
use mainspring::store::{Durability, RunFilter, Store};
use tokio_util::sync::CancellationToken;

use super::postgres;
use super::server::PATIENCE;
use super::service::Served;

const TWO_STEPS: &str = "dag_id: steps
tasks:
  - {id: slow, type: bash, command: 'read x < ../gate'}
  - {id: after, type: noop, depends_on: [slow]}
";

/// Starts a run whose first task is at work until the pipe is written to.
fn at_work(served: &Served) -> std::path::PathBuf {
    let gate = served.pipe("gate");
    served.until_said("the DAG is taken up");
    served.text(&["dags", "trigger", "steps", "--run-id", "one"]);
    served.until(&["runs", "why", "steps", "one"], "a worker is at it");
    gate
}

/// Asks over HTTP: the status.
fn status(served: &Served, path: &str) -> u16 {
    let found = std::fs::read_to_string(served.folder.path().join("home/server.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let url = format!("{}{path}", found["url"].as_str().unwrap());
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(async { reqwest::get(url).await.unwrap().status().as_u16() })
}

/// The run goes on where it was, with the one attempt that was made meanwhile.
fn goes_on(served: &Served) {
    served.until(&["runs", "show", "steps", "one"], "steps one: success");
    let shown = served.json(&["runs", "show", "steps", "one"]);
    let tries: Vec<_> = shown["tasks"].as_array().unwrap().iter().map(|task| &task["try_number"]).collect();
    assert_eq!(tries, [1, 1], "{shown}");
    served.text(&["dags", "pause", "steps"]);
}

#[test]
fn a_full_disk_stops_nothing_but_writing_and_is_recovered_from_without_a_restart() {
    let served = Served::start_with(TWO_STEPS, 4, None);
    let gate = at_work(&served);
    // No file of the process may grow beyond the first kilobytes: to it, that is a disk without room.
    let files_at_most = |size: &str| {
        let pid = served.child.id().to_string();
        let limit = format!("--fsize={size}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    files_at_most("4096");
    let refused = served.cli(&["dags", "trigger", "steps", "--run-id", "two"]);
    assert_eq!(refused.status.code(), Some(2), "it is no mistake of the user's");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("database: ") && said.contains("disk"), "{said}");
    served.let_go(&gate);
    served.until_said("a commit failed; trying again");
    assert_eq!(status(&served, "/livez"), 200, "who is restarted now loses its work");
    assert!(served.text(&["runs", "show", "steps", "one"]).contains("steps one: running"), "it can be read");
    files_at_most("unlimited");
    goes_on(&served);
    let listed = served.json(&["runs", "list", "steps"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "what was refused was not done: {listed}");
    served.text(&["dags", "trigger", "steps", "--run-id", "two"]);
}

#[test]
fn a_database_that_stops_and_starts_again_costs_no_attempt() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(mut database) = runtime.block_on(postgres::Own::start()) else { return };
    let served = Served::start_with(TWO_STEPS, 4, Some(&database.url()));
    let gate = at_work(&served);
    database.stop();
    served.let_go(&gate);
    served.until_said("a commit failed; trying again");
    assert_eq!(status(&served, "/livez"), 200);
    let began = Instant::now();
    while status(&served, "/readyz") != 503 {
        assert!(began.elapsed() < PATIENCE, "it says that it is ready");
    }
    let refused = served.cli(&["dags", "trigger", "steps", "--run-id", "two"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    database.start_again();
    goes_on(&served);
    let began = Instant::now();
    while status(&served, "/readyz") != 200 {
        assert!(began.elapsed() < PATIENCE, "it says that it is not ready");
    }
}

static CLOCK: AtomicI64 = AtomicI64::new(0);

fn clock() -> Timestamp {
    Timestamp(CLOCK.load(Ordering::Relaxed))
}

fn set_clock(time: &str) {
    let at = Timestamp::parse(&format!("2026-11-25T{time}:00Z")).unwrap();
    CLOCK.store(at.0, Ordering::Relaxed);
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async { while !holds().await {} };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_back_an_hour_fires_nothing_twice_and_files_are_still_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("home/mainspring.db").display());
    let store = Store::open(&url, Durability::Relaxed).await.unwrap();
    let dags = folder.path().join("dags");
    std::fs::create_dir(&dags).unwrap();
    let file = |name: &str| {
        let text = format!(
            "dag_id: {name}\nschedule: '*/10 * * * *'\ncatchup: true\ntasks:\n  - {{id: t, type: noop}}\n"
        );
        std::fs::write(dags.join(format!("{name}.yaml")), text).unwrap();
    };
    file("steady");
    set_clock("10:05");
    let poll_every = Duration::from_millis(50);
    let settings =
        control::Settings { now: clock, scope: Scope::All, poll_every, tries_max: None, watch: None };
    let (control, _driver) = control::start(store.clone(), settings);
    let (scheduler, stop) = (Scheduler::default(), CancellationToken::new());
    let settings = scheduler::Settings { now: clock, poll_every, folder: dags.clone() };
    let scheduling = tokio::spawn(scheduler.clone().run(control, settings, stop.clone()));
    let instants = async || {
        let filter = RunFilter { dag_id: Some(DagId::parse("steady").unwrap()), state: None };
        let runs = store.runs(&filter, 100).await.unwrap();
        let mut times: Vec<String> =
            runs.iter().map(|run| run.birth.logical_date.to_string()[11..16].to_owned()).collect();
        times.sort();
        times
    };
    let is_known = async |name: &str| store.dag(&DagId::parse(name).unwrap()).await.unwrap().is_some();
    until("the DAG is taken up", async || is_known("steady").await).await;
    set_clock("10:31");
    until("three instants have their runs", async || instants().await.len() == 3).await;
    // The clock stands still between these: at 10:31 the next look is two seconds away, and stays so.
    file("newcomer");
    set_clock("09:31");
    until("a new file is taken up", async || is_known("newcomer").await).await;
    assert_eq!(instants().await, ["10:10", "10:20", "10:30"]);
    set_clock("10:41");
    until("the next instant has its run", async || instants().await.len() > 3).await;
    assert_eq!(instants().await, ["10:10", "10:20", "10:30", "10:40"], "none twice, none left out");
    stop.cancel();
    scheduling.await.unwrap();
}
