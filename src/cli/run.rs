//! `run`: runs DAGs once, now, without a server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::home::{self, Found};
use super::progress::Progress;
use super::{CliError, Globals, Output, print_json, print_line, runs};
use crate::control::{self, Assignment, Control};
use crate::core::dag::DEFAULT_QUEUE;
use crate::core::ids::{Fence, PoolName, QueueName, RunId, RunKey, SessionId, TaskId, Timestamp};
use crate::core::run::{Outcome, RunBirth, RunType, TiRef, UNMAPPED};
use crate::core::state::RunState;
use crate::store::{Created, Store, StoreError};
use crate::{engine, worker};

/// Run DAGs once, now, without a server.
#[derive(Args)]
pub(super) struct Run {
    /// DAG files or names of DAGs
    #[arg(required = true, value_name = "FILE|DAG")]
    which: Vec<String>,
    /// The moment the run stands for (RFC 3339 or a date) [default: now]. Said twice for the same DAG
    /// version and parameters, it is the same run: an unfinished one is continued, a finished one is run again
    #[arg(long, value_name = "TIME")]
    logical_date: Option<String>,
    /// A parameter of the DAG, as NAME=VALUE; repeat for more
    #[arg(long = "param", short = 'p', value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Print nothing but the result
    #[arg(long, short)]
    quiet: bool,
}

pub(super) async fn run(args: Run, globals: Globals) -> Result<(), CliError> {
    let found = home::find_dags(&globals, &args.which)?;
    let logical_date =
        args.logical_date.as_deref().map(|text| parse_time("--logical-date", text)).transpose()?;
    let given = parse_params(&args.params)?;
    let births =
        found.iter().map(|found| birth(found, logical_date, &given)).collect::<Result<Vec<_>, _>>()?;
    let store = home::open_store(&globals).await?;
    let progress = Progress::new(args.quiet || globals.output == Output::Json);
    let Started { control, driver, worker, attempts } = start(&globals, &store, &found, progress)?;
    let mut ends = Vec::new();
    for (found, birth) in found.into_iter().zip(births) {
        let key = birth.key.clone();
        ends.push((key, begin(&store, &control, found, birth).await?));
    }
    let interrupts = tokio::spawn(interrupts(control.clone()));
    let mut states = Vec::new();
    for (key, end) in ends {
        // Without a state the driver has failed; its error is told below.
        states.push((key, end.await.ok()));
    }
    interrupts.abort();
    // Attempts of a cancelled run have been asked to stop: their programs get their grace.
    attempts.close();
    if tokio::time::timeout(STOP_GRACE, attempts.wait()).await.is_err() {
        eprintln!("some programs did not stop in time and are left to themselves");
    }
    drop(control);
    worker.abort();
    driver.await.map_err(|e| CliError::Environment(format!("the driver of runs stopped: {e}")))??;
    finish(&store, &globals, &states).await
}

/// What works for as long as the process does.
struct Started {
    control: Control,
    driver: JoinHandle<Result<(), StoreError>>,
    worker: JoinHandle<()>,
    attempts: TaskTracker,
}

/// How long attempts that were asked to stop may take; a little more than the worker gives each.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// Starts the task that owns runs, and the worker of this process.
fn start(globals: &Globals, store: &Store, found: &[Found], progress: Progress) -> Result<Started, CliError> {
    let mut pools = BTreeMap::new();
    for (name, &slots) in &globals.config.pools {
        pools.insert(PoolName::parse(name).map_err(|e| CliError::User(e.to_string()))?, slots);
    }
    let settings = control::Settings {
        slots: globals.config.slots,
        queues: vec![QueueName::parse(DEFAULT_QUEUE).expect("the constant is a valid name")],
        session: session(),
        pools,
        now: engine::now,
        watch: Some(Box::new(move |dag, birth, decision, at| progress.show(dag, birth, decision, at))),
    };
    let base = found.first().map(|f| f.base.clone()).unwrap_or_default();
    let worker_settings = worker::Settings {
        shared: home::shared(globals, base)?,
        logs: globals.config.logs(),
        now: engine::now,
        trace: None,
    };
    let (handouts, inbox) = mpsc::unbounded_channel();
    let (control, driver) = control::start(store.clone(), settings, handouts);
    let attempts = TaskTracker::new();
    let worker = tokio::spawn(worker::run(worker_settings, control.clone(), inbox, attempts.clone()));
    Ok(Started { control, driver, worker, attempts })
}

pub(super) fn session() -> SessionId {
    let name = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    SessionId::parse(&name).expect("digits and letters make a valid id")
}

/// Takes up the run: new, unfinished, or finished and to be run again.
async fn begin(
    store: &Store,
    control: &Control,
    found: Found,
    birth: RunBirth,
) -> Result<oneshot::Receiver<RunState>, CliError> {
    let dag = Arc::new(found.file.dag);
    store.put_dag_version(&dag.hash, &dag.id, &found.file.source).await?;
    let key = birth.key.clone();
    if let Created::New(run) = store.create_run(&birth, &dag).await? {
        return Ok(control.drive(run, dag, BTreeMap::new()).await);
    }
    let run = store.load_run(&key, &dag).await?.ok_or_else(|| {
        CliError::Environment(format!(
            "the run `{}` was there and is gone: is something pruning it?",
            key.run_id
        ))
    })?;
    if run.state.is_final() {
        return Ok(control.rerun(run, dag).await);
    }
    eprintln!("going on with the unfinished run {}", key.run_id);
    let mut outputs = BTreeMap::new();
    for ((task_id, map_index), json) in store.outputs(&key).await? {
        if let Some(task) = dag.find(&task_id) {
            outputs.insert(TiRef { task, map_index }, json.into());
        }
    }
    Ok(control.drive(run, dag, outputs).await)
}

/// The first Ctrl-C cancels the runs, the second ends the process.
async fn interrupts(control: Control) {
    let mut asked = false;
    while tokio::signal::ctrl_c().await.is_ok() {
        if asked {
            eprintln!("stopped at once; the next run with the same logical date goes on from here");
            std::process::exit(1);
        }
        asked = true;
        eprintln!("cancelling; press Ctrl-C again to stop at once");
        control.cancel_all().await;
    }
}

async fn finish(
    store: &Store,
    globals: &Globals,
    states: &[(RunKey, Option<RunState>)],
) -> Result<(), CliError> {
    let mut all = Vec::new();
    for (key, _) in states {
        let report = runs::report(store, key).await?;
        match globals.output {
            Output::Json => all.push(report),
            Output::Table => print_line(&runs::summary(&report)),
        }
    }
    if globals.output == Output::Json {
        match all.as_slice() {
            [one] => print_json(one),
            several => print_json(&several),
        }
    }
    if states.iter().all(|(_, state)| *state == Some(RunState::Success)) {
        Ok(())
    } else {
        Err(CliError::Failed)
    }
}

pub(super) fn parse_time(flag: &str, text: &str) -> Result<Timestamp, CliError> {
    Timestamp::parse(text).ok_or_else(|| {
        CliError::User(format!(
            "{flag} `{text}` is not a time\nhint: RFC 3339, for instance 2026-01-31T02:00:00Z, or a date"
        ))
    })
}

fn parse_params(given: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut params = Map::new();
    for text in given {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            CliError::User(format!("--param `{text}` has no `=`\nhint: write --param name=value"))
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        params.insert(name.to_owned(), value);
    }
    Ok(params)
}

/// Names the run. With a logical date the name follows from the DAG version, the date and the parameters,
/// so that the same command finds the same run; without, it is unique.
fn birth(
    found: &Found,
    logical_date: Option<Timestamp>,
    given: &Map<String, Value>,
) -> Result<RunBirth, CliError> {
    use sha2::{Digest, Sha256};
    let params = found.file.resolve_params(given).map_err(|problems| {
        CliError::User(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    let params = if params.is_empty() { String::new() } else { Value::Object(params).to_string() };
    let now = engine::now();
    let date = logical_date.unwrap_or(now);
    let suffix = if logical_date.is_some() {
        let digest = Sha256::digest(format!("{}\n{params}", found.file.dag.hash.0));
        format!("{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
    } else {
        uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
    };
    let run_id =
        RunId::parse(&format!("manual__{date}_{suffix}")).map_err(|e| CliError::User(e.to_string()))?;
    let (data_interval_start, data_interval_end) = found.file.data_interval(date);
    Ok(RunBirth {
        key: RunKey { dag_id: found.file.dag.id.clone(), run_id },
        dag_hash: found.file.dag.hash.clone(),
        run_type: RunType::Manual,
        logical_date: date,
        data_interval_start,
        data_interval_end,
        params: params.into(),
        queued_at: now,
    })
}

/// Runs one task alone: `tasks test`.
pub(super) async fn test_task(
    globals: Globals,
    dag: &str,
    task_id: &str,
    logical_date: Option<&str>,
    params: &[String],
) -> Result<(), CliError> {
    let mut found = home::find_dags(&globals, &[dag.to_owned()])?;
    let Some(found) = found.pop() else { return Err(CliError::User(format!("`{dag}` holds no DAG"))) };
    let task_id = TaskId::parse(task_id).map_err(|e| CliError::User(e.to_string()))?;
    let Some(task) = found.file.dag.find(&task_id) else {
        return Err(CliError::User(format!(
            "the DAG `{}` has no task `{task_id}`\nhint: `mainspring tasks list {}` shows them all",
            found.file.dag.id, found.file.dag.id
        )));
    };
    let logical_date = logical_date.map(|text| parse_time("--logical-date", text)).transpose()?;
    let birth = birth(&found, logical_date, &parse_params(params)?)?;
    let settings = worker::Settings {
        shared: home::shared(&globals, found.base)?,
        logs: globals.config.home.join("test-logs"),
        now: engine::now,
        trace: None,
    };
    let assignment = Assignment {
        dag: Arc::new(found.file.dag),
        birth: Arc::new(birth),
        ti: TiRef { task, map_index: UNMAPPED },
        fence: Fence(1),
        try_number: 1,
        outputs: control::SharedOutputs::default(),
    };
    let log = worker::log_path(&settings.logs, &assignment.birth.key, &task_id, UNMAPPED, Fence(1));
    let outcome = worker::once(settings, &assignment).await;
    if let Ok(text) = std::fs::read_to_string(&log) {
        eprint!("{text}");
    }
    match outcome {
        Outcome::Succeeded(outputs)
        | Outcome::Branched { outputs, .. }
        | Outcome::ShortCircuited { outputs, .. } => {
            let value: Value = serde_json::from_str(&outputs.json).unwrap_or_default();
            print_json(&value);
            Ok(())
        }
        Outcome::Skipped { why } => {
            eprintln!("skipped: {why}");
            Ok(())
        }
        Outcome::Deferred { until } => {
            eprintln!("deferred until {until}");
            Ok(())
        }
        Outcome::Failed { error, severity } => Err(CliError::User(format!("{error} ({severity})"))),
        Outcome::Interrupted => Err(CliError::User("the attempt was interrupted".to_owned())),
    }
}
