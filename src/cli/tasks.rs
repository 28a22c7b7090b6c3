//! `tasks list`, `tasks logs`, `tasks test`.

use clap::Subcommand;
use serde_json::json;

use super::{CliError, Globals, Output, home, print_json, print_line, run, runs, table};
use crate::core::ids::TaskId;
use crate::worker;

/// List, test and read tasks.
#[derive(Subcommand)]
pub(super) enum Tasks {
    /// List the tasks of a DAG
    List {
        /// A DAG file or the name of a DAG
        #[arg(value_name = "FILE|DAG")]
        dag: String,
    },
    /// Print the log of a task's attempts
    Logs {
        /// The DAG
        #[arg(value_name = "DAG")]
        dag_id: String,
        /// The task
        #[arg(value_name = "TASK")]
        task_id: String,
        /// The run [default: the newest]
        #[arg(long, value_name = "RUN")]
        run_id: Option<String>,
        /// Only this attempt
        #[arg(long = "try", value_name = "N")]
        try_number: Option<u32>,
        /// Only this mapped instance
        #[arg(long, value_name = "I")]
        map_index: Option<i32>,
    },
    /// Run one task alone, now, without recording a run
    Test {
        /// A DAG file or the name of a DAG
        #[arg(value_name = "FILE|DAG")]
        dag: String,
        /// The task
        #[arg(value_name = "TASK")]
        task_id: String,
        /// The moment the run stands for [default: now]
        #[arg(long, value_name = "TIME")]
        logical_date: Option<String>,
        /// A parameter of the DAG, as NAME=VALUE; repeat for more
        #[arg(long = "param", short = 'p', value_name = "NAME=VALUE")]
        params: Vec<String>,
    },
}

pub(super) async fn run(command: Tasks, globals: Globals) -> Result<(), CliError> {
    match command {
        Tasks::List { dag } => list(&globals, &dag),
        Tasks::Logs { dag_id, task_id, run_id, try_number, map_index } => {
            logs(&globals, &dag_id, &task_id, run_id.as_deref(), try_number, map_index).await
        }
        Tasks::Test { dag, task_id, logical_date, params } => {
            run::test_task(globals, &dag, &task_id, logical_date.as_deref(), &params).await
        }
    }
}

fn list(globals: &Globals, dag: &str) -> Result<(), CliError> {
    let found = home::find_dags(globals, &[dag.to_owned()])?;
    let mut lines = table::with_head(&["task", "type", "trigger_rule", "retries", "depends_on"]);
    let mut all = Vec::new();
    for dag in found.iter().map(|f| &f.file.dag) {
        for &ix in dag.topological() {
            let task = dag.task(ix);
            let upstream: Vec<_> = dag.upstream(ix).iter().map(|&up| dag.task(up).id.to_string()).collect();
            lines.add_row([
                task.id.to_string(),
                task.kind.to_string(),
                task.trigger_rule.to_string(),
                task.retry.retries.to_string(),
                upstream.join(", "),
            ]);
            all.push(json!({
                "dag_id": dag.id.as_str(), "task_id": task.id.as_str(), "type": &*task.kind,
                "trigger_rule": task.trigger_rule.as_str(), "retries": task.retry.retries,
                "depends_on": upstream,
            }));
        }
    }
    match globals.output {
        Output::Json => print_json(&all),
        Output::Table => print_line(&table::text(&lines)),
    }
    Ok(())
}

async fn logs(
    globals: &Globals,
    dag_id: &str,
    task_id: &str,
    run_id: Option<&str>,
    try_number: Option<u32>,
    map_index: Option<i32>,
) -> Result<(), CliError> {
    let store = home::open_reader(globals).await?;
    let key = runs::find_run(&store, dag_id, run_id).await?;
    let task = TaskId::parse(task_id).map_err(|e| CliError::User(e.to_string()))?;
    let tries = store.tries(&key, &task).await?;
    if tries.is_empty() {
        return Err(CliError::User(format!("`{task}` has not been tried in run `{}`", key.run_id)));
    }
    for attempt in tries {
        if try_number.is_some_and(|n| n != attempt.try_number) || map_index.is_some_and(|i| i != attempt.map_index) {
            continue;
        }
        let path = worker::log_path(&globals.config.logs(), &key, &task, attempt.map_index, attempt.fence);
        let instance = if attempt.map_index < 0 { task.to_string() } else { format!("{task}[{}]", attempt.map_index) };
        print_line(&format!("--- {instance} attempt {} ({})", attempt.try_number, path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => print_line(text.trim_end()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => print_line("(it wrote nothing)"),
            Err(error) => {
                return Err(CliError::Environment(format!("{} cannot be read: {error}", path.display())));
            }
        }
    }
    Ok(())
}
