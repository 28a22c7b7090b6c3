//! `runs clear | mark | cancel | why`, `dags pause | unpause | trigger`, and the table of what changes.

use clap::Args;

use super::door::Door;
use super::{CliError, Globals, Output, print_json, print_line, run, runs, table};
use crate::control::ask::{Changed, Selection, Trigger};
use crate::core::state::{RunState, TaskState};

/// A run of a DAG.
#[derive(Args)]
pub(super) struct Which {
    /// The DAG
    #[arg(value_name = "DAG")]
    dag_id: String,
    /// The run [default: the newest]
    #[arg(value_name = "RUN")]
    run_id: Option<String>,
}

/// Task instances of a run.
#[derive(Args)]
pub(super) struct Instances {
    /// Only this task; repeat for more [default: all]
    #[arg(long = "task", short, value_name = "TASK")]
    task_ids: Vec<String>,
    /// Only this mapped instance
    #[arg(long, value_name = "I")]
    map_index: Option<i32>,
    /// Also everything before them
    #[arg(long)]
    upstream: bool,
    /// Also everything after them
    #[arg(long)]
    downstream: bool,
    /// The same in all earlier runs
    #[arg(long)]
    past: bool,
    /// The same in all later runs
    #[arg(long)]
    future: bool,
    /// Only list what would change
    #[arg(long)]
    dry_run: bool,
}

/// Clear task instances: they run again.
#[derive(Args)]
pub(super) struct Clear {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    instances: Instances,
    /// Of all that, only what failed
    #[arg(long)]
    only_failed: bool,
    /// In the newest version of the DAG, not in the one that the run began with; tasks that are new in it run as
    /// well. The run must have ended
    #[arg(long)]
    latest: bool,
}

/// Say how task instances ended.
#[derive(Args)]
pub(super) struct Mark {
    #[command(flatten)]
    which: Which,
    /// success, failed or skipped
    #[arg(long)]
    state: String,
    #[command(flatten)]
    instances: Instances,
}

/// End a run.
#[derive(Args)]
pub(super) struct Cancel {
    #[command(flatten)]
    which: Which,
}

/// Say what each task instance waits for.
#[derive(Args)]
pub(super) struct Why {
    #[command(flatten)]
    which: Which,
    /// Only this task
    #[arg(long = "task", short, value_name = "TASK")]
    task_id: Option<String>,
}

/// A DAG.
#[derive(Args)]
pub(super) struct WhichDag {
    /// The DAG
    #[arg(value_name = "DAG")]
    dag_id: String,
}

/// Start a run.
#[derive(Args)]
pub(super) struct TriggerRun {
    #[command(flatten)]
    which: WhichDag,
    /// The moment the run stands for (RFC 3339 or a date) [default: now]
    #[arg(long, value_name = "TIME")]
    logical_date: Option<String>,
    /// A parameter of the DAG, as NAME=VALUE; repeat for more
    #[arg(long = "param", short = 'p', value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// The name of the run; said twice it is the same run [default: made from the moment]
    #[arg(long, value_name = "RUN")]
    run_id: Option<String>,
    /// Wait until the run has ended; exit 0 iff it succeeded
    #[arg(long)]
    wait: bool,
}

impl Instances {
    fn selection(self, only_failed: bool) -> Selection {
        let Self { task_ids, map_index, upstream, downstream, past, future, dry_run } = self;
        let latest = false;
        Selection { task_ids, map_index, upstream, downstream, only_failed, past, future, latest, dry_run }
    }
}

pub(super) async fn clear(args: Clear, globals: &Globals) -> Result<(), CliError> {
    let door = Door::open(globals).await?;
    let key = door.find_run(&args.which.dag_id, args.which.run_id.as_deref()).await?;
    let asked = Selection { latest: args.latest, ..args.instances.selection(args.only_failed) };
    let changed = door.clear(globals, &key, &asked).await?;
    door.close().await?;
    show(globals, &changed, if asked.dry_run { "would be cleared" } else { "cleared" });
    Ok(())
}

pub(super) async fn mark(args: Mark, globals: &Globals) -> Result<(), CliError> {
    let state = TaskState::parse(&args.state).ok_or_else(|| {
        CliError::User(format!("`{}` is no state\nhint: success, failed or skipped", args.state))
    })?;
    let door = Door::open(globals).await?;
    let key = door.find_run(&args.which.dag_id, args.which.run_id.as_deref()).await?;
    let asked = args.instances.selection(false);
    let changed = door.mark(&key, &asked, state).await?;
    door.close().await?;
    let verb = if asked.dry_run { "would be marked" } else { "marked" };
    show(globals, &changed, &format!("{verb} {state}"));
    Ok(())
}

pub(super) async fn cancel(args: Cancel, globals: &Globals) -> Result<(), CliError> {
    let door = Door::open(globals).await?;
    let key = door.find_run(&args.which.dag_id, args.which.run_id.as_deref()).await?;
    door.cancel(&key).await?;
    door.close().await?;
    eprintln!("cancelled {} {}", key.dag_id, key.run_id);
    Ok(())
}

pub(super) async fn why(args: Why, globals: &Globals) -> Result<(), CliError> {
    let door = Door::open(globals).await?;
    let key = door.find_run(&args.which.dag_id, args.which.run_id.as_deref()).await?;
    let waits = door.waits(&key, args.task_id.as_deref()).await?;
    door.close().await?;
    if globals.output == Output::Json {
        print_json(&waits);
        return Ok(());
    }
    let mut lines = table::with_head(&["task", "state", "why"]);
    for wait in &waits {
        lines.add_row([instance(&wait.task_id, wait.map_index), wait.state.clone(), wait.why.clone()]);
    }
    print_line(&table::text(&lines));
    Ok(())
}

pub(super) async fn pause(which: &WhichDag, globals: &Globals, paused: bool) -> Result<(), CliError> {
    let dag_id = runs::parse_dag_id(&which.dag_id)?;
    let door = Door::open(globals).await?;
    let changed = door.pause(globals, &dag_id, paused).await?;
    door.close().await?;
    let (now, already) = if paused { ("paused", "paused already") } else { ("goes on", "is not paused") };
    eprintln!("{dag_id}: {}", if changed { now } else { already });
    Ok(())
}

pub(super) async fn trigger(args: &TriggerRun, globals: &Globals) -> Result<(), CliError> {
    let dag_id = runs::parse_dag_id(&args.which.dag_id)?;
    let asked = Trigger {
        logical_date: args.logical_date.clone(),
        params: run::parse_params(&args.params)?,
        run_id: args.run_id.clone(),
    };
    let door = Door::open(globals).await?;
    let key = door.trigger(globals, &dag_id, &asked).await?;
    let state = if args.wait { Some(door.wait(&key).await?) } else { None };
    door.close().await?;
    match globals.output {
        Output::Json => print_json(&serde_json::json!({
            "dag_id": key.dag_id.as_str(), "run_id": key.run_id.as_str(), "state": state.map(RunState::as_str),
        })),
        Output::Table => print_line(key.run_id.as_str()),
    }
    match state {
        None | Some(RunState::Success) => Ok(()),
        Some(state) => {
            eprintln!("the run ended as {state}");
            Err(CliError::Failed)
        }
    }
}

fn instance(task_id: &str, map_index: i32) -> String {
    if map_index < 0 { task_id.to_owned() } else { format!("{task_id}[{map_index}]") }
}

fn show(globals: &Globals, changed: &[Changed], what: &str) {
    if globals.output == Output::Json {
        return print_json(&changed);
    }
    let mut lines = table::with_head(&["run", "task", "state"]);
    for one in changed {
        lines.add_row([one.run_id.clone(), instance(&one.task_id, one.map_index), one.state.clone()]);
    }
    if !changed.is_empty() {
        print_line(&table::text(&lines));
    }
    eprintln!("{} task instances {what}", changed.len());
}
