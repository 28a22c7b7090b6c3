//! Runs that go as a test says, through the real step and the real store.

use mainspring::core::dag::{Dag, DagSettings, Task};
use mainspring::core::ids::{DagHash, DagId, RunId, RunKey, SessionId, TaskId, Timestamp};
use mainspring::core::run::{
    Capacity, Input, Outcome, Outputs, Run, RunBirth, RunType, Severity, TiRef, UNMAPPED,
};
use mainspring::core::state::{RunState, TaskState};
use mainspring::core::step::step;
use mainspring::store::{Store, StoreError};

/// 2026-01-01T00:00:00Z.
pub(super) const MIDNIGHT: Timestamp = Timestamp(1_767_225_600_000_000);

pub(super) fn after(start: Timestamp, seconds: i64) -> Timestamp {
    Timestamp(start.0 + seconds * 1_000_000)
}

pub(super) fn task(id: &str, retries: u32) -> Task {
    let mut task = Task::new(TaskId::parse(id).unwrap(), "noop");
    task.retry.retries = retries;
    task.retry.delay = std::time::Duration::from_secs(1);
    task
}

/// A DAG of tasks side by side, stored.
pub(super) async fn stored(store: &Store, id: &str, tasks: Vec<Task>, routes: &[&str]) -> Dag {
    let settings =
        DagSettings { alerts: routes.iter().map(|r| (*r).into()).collect(), ..DagSettings::default() };
    stored_with(store, id, tasks, settings).await
}

pub(super) async fn stored_with(store: &Store, id: &str, tasks: Vec<Task>, settings: DagSettings) -> Dag {
    let hash = format!("{id} of {tasks:?} {settings:?}");
    let dag = Dag::new(DagId::parse(id).unwrap(), DagHash(hash.into()), settings, tasks, Vec::new()).unwrap();
    store.put_dag_version(&dag.hash, &dag.id, "{}").await.unwrap();
    dag
}

pub(super) fn key(dag: &Dag, run_id: &str) -> RunKey {
    RunKey { dag_id: dag.id.clone(), run_id: RunId::parse(run_id).unwrap() }
}

pub(super) async fn create(store: &Store, dag: &Dag, run_id: &str, at: Timestamp) {
    let birth = RunBirth {
        key: key(dag, run_id),
        dag_hash: dag.hash.clone(),
        run_type: RunType::Manual,
        logical_date: at,
        data_interval_start: at,
        data_interval_end: at,
        params: "{}".into(),
        queued_at: at,
    };
    store.create_run(&birth, dag).await.unwrap();
}

pub(super) fn fails(error: &str) -> Outcome {
    Outcome::Failed { error: error.into(), severity: Severity::Retryable }
}

pub(super) fn succeeds() -> Outcome {
    Outcome::Succeeded(Outputs::default())
}

/// What happens next to a run: whoever is queued is claimed, whoever runs reports as `script` says of the task
/// and its attempt.
pub(super) fn next_inputs(dag: &Dag, run: &Run, script: impl Fn(&str, u32) -> Outcome) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (ti, instance) in run.instances() {
        let id = dag.task(ti.task).id.as_str();
        if instance.state == TaskState::Queued {
            let session = SessionId::parse("worker").unwrap();
            inputs.push(Input::Claimed { ti, fence: instance.fence.next(), session });
        } else if instance.state == TaskState::Running {
            let outcome = script(id, instance.try_number);
            inputs.push(Input::Reported { ti, fence: instance.fence, outcome });
        }
    }
    inputs
}

/// One step of the run as it is stored, committed. The run's state after it; a conflict is an error.
pub(super) async fn advance(
    store: &Store,
    dag: &Dag,
    key: &RunKey,
    at: Timestamp,
    script: impl Fn(&str, u32) -> Outcome,
) -> Result<RunState, StoreError> {
    let mut run = store.load_run(key, dag).await?.expect("the run was created");
    if run.state.is_final() {
        return Ok(run.state);
    }
    let inputs = next_inputs(dag, &run, script);
    // A second passes with every commit, so that retries fall due.
    let now = after(at, run.version);
    let version = run.version;
    let decision = step(dag, &mut run, &inputs, &Capacity::default(), now);
    if !decision.is_empty() {
        store.commit(dag, key, version, &decision, now).await?;
    }
    Ok(run.state)
}

/// A run from its creation to its end.
pub(super) async fn told(
    store: &Store,
    dag: &Dag,
    run_id: &str,
    at: Timestamp,
    script: impl Fn(&str, u32) -> Outcome,
) -> RunState {
    create(store, dag, run_id, at).await;
    finish(store, dag, run_id, at, script).await
}

/// A run that was created, to its end.
pub(super) async fn finish(
    store: &Store,
    dag: &Dag,
    run_id: &str,
    at: Timestamp,
    script: impl Fn(&str, u32) -> Outcome,
) -> RunState {
    const STEPS_MAX: usize = 100;
    for _ in 0..STEPS_MAX {
        let state = advance(store, dag, &key(dag, run_id), at, &script).await.unwrap();
        if state.is_final() {
            return state;
        }
    }
    panic!("the run does not end");
}

/// One input to a run as it is stored, committed at `now`.
pub(super) async fn put(store: &Store, dag: &Dag, run_id: &str, now: Timestamp, input: Input) {
    let key = key(dag, run_id);
    let mut run = store.load_run(&key, dag).await.unwrap().unwrap();
    let version = run.version;
    let decision = step(dag, &mut run, &[input], &Capacity::default(), now);
    assert_eq!(decision.refused, []);
    store.commit(dag, &key, version, &decision, now).await.unwrap();
}

pub(super) fn ti(task: usize) -> TiRef {
    TiRef { task, map_index: UNMAPPED }
}
