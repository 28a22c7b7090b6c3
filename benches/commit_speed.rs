//! How fast the store commits, against the disk it commits to: `cargo bench --bench commit_speed`, with
//! `-- postgres://user@host/empty_database` on that database too.
#![expect(clippy::print_stdout, reason = "figures for a person")]

use std::time::Instant;

use mainspring::core::dag::{Dag, DagSettings, Task};
use mainspring::core::ids::{DagHash, DagId, RunId, RunKey, SessionId, TaskId, Timestamp};
use mainspring::core::run::{Capacity, Claim, Input, Outcome, Outputs, Run, RunBirth, RunType, WorkerSlots};
use mainspring::core::step::step;
use mainspring::store::{Created, Durability, Store, bench};

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder can be written");
    for durability in [Durability::Full, Durability::Relaxed] {
        let raw = bench::raw_commits(folder.path(), 400, durability).await.expect("the disk can be written");
        println!("{:<34} {raw:>8.0} commits/s", format!("disk, {durability:?}"));
        let url = format!("sqlite://{}/{durability:?}.db", folder.path().display());
        let store = Store::open(&url, durability).await.expect("the folder is new");
        measure(&format!("sqlite, {durability:?}"), &store).await;
    }
    for url in std::env::args().filter(|word| word.starts_with("postgres")) {
        let store = Store::open(&url, Durability::Full).await.expect("the database is there");
        store.migrate().await.expect("the database is empty or ours");
        measure("postgres", &store).await;
    }
}

async fn measure(name: &str, store: &Store) {
    for (tasks, at_once) in [(400, 1), (5_000, 100)] {
        let dag = dag(tasks);
        let begun = Instant::now();
        let commits = drive(store, &dag, at_once).await;
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{:<34} {:>8.0} commits/s {:>8.0} tasks/s",
            format!("{name}, {at_once} at once"),
            commits as f64 / seconds,
            tasks as f64 / seconds
        );
    }
}

/// Runs independent tasks, `at_once` of them ending, and as many beginning, in each commit.
async fn drive(store: &Store, dag: &Dag, at_once: u32) -> i64 {
    store.put_dag_version(&dag.hash, &dag.id, "{}").await.expect("the store takes a version");
    let birth = birth(dag, at_once);
    let created = store.create_run(&birth, dag).await.expect("the store takes a run");
    let Created::New(mut run) = created else { panic!("run `{}` is there already", birth.key.run_id) };
    let mut inputs = vec![Input::Tick];
    while !run.state.is_final() {
        let claims = hop(store, dag, &mut run, &inputs, at_once).await;
        inputs = claims.into_iter().map(succeeded).collect();
    }
    run.version
}

/// One step and its commit.
async fn hop(store: &Store, dag: &Dag, run: &mut Run, inputs: &[Input], free: u32) -> Vec<Claim> {
    let session = SessionId::parse("worker").expect("a valid id");
    let queues = vec![dag.task(0).queue.clone()];
    let room = Capacity { workers: vec![WorkerSlots { session, free, queues }], ..Capacity::default() };
    let now = Timestamp(run.version);
    let decision = step(dag, run, inputs, &room, now);
    let committed = store.commit(dag, &run.birth.key, run.version, &decision, now).await;
    run.version = committed.expect("nobody else writes this run");
    decision.claims
}

fn succeeded(claim: Claim) -> Input {
    let outcome = Outcome::Succeeded(Outputs::default());
    Input::Reported { ti: claim.ti, fence: claim.fence, outcome }
}

fn dag(tasks: usize) -> Dag {
    let tasks: Vec<Task> = (0..tasks)
        .map(|ix| Task::new(TaskId::parse(&format!("t{ix}")).expect("a valid id"), "noop"))
        .collect();
    let settings = DagSettings { max_active_tasks: u32::MAX, ..DagSettings::default() };
    let hash = DagHash(tasks.len().to_string().into());
    Dag::new(DagId::parse("speed").expect("a valid id"), hash, settings, tasks, Vec::new())
        .expect("there are no edges")
}

fn birth(dag: &Dag, at_once: u32) -> RunBirth {
    let at = Timestamp(0);
    let run_id = RunId::parse(&format!("manual__{at_once}")).expect("a valid id");
    RunBirth {
        key: RunKey { dag_id: dag.id.clone(), run_id },
        dag_hash: dag.hash.clone(),
        run_type: RunType::Manual,
        logical_date: at,
        data_interval_start: at,
        data_interval_end: at,
        params: "{}".into(),
        queued_at: at,
    }
}
