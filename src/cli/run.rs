//! `run`: runs DAGs once, now, without a server.

use std::sync::Arc;
use std::time::Duration;

use super::home::{self, Found};
use super::progress::Progress;
use super::{CliError, Globals, Output, local, print_json, print_line, runs};
use crate::control::{self, Assignment, Control, Scope};
use crate::core::ids::{Fence, RunId, RunKey, TaskId, Timestamp};
use crate::core::run::{Input, Outcome, RunBirth, RunType, TiRef, UNMAPPED};
use crate::core::state::RunState;
use crate::store::{Created, Store};
use crate::{engine, worker};
use clap::Args;
use serde_json::{Map, Value};

/// How often to look for what other processes on the same database did to the runs.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Tries of a write while the database cannot be reached; together about half a minute.
const TRIES_MAX: u32 = 10;

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
    let (control, driver) = control::start(store.clone(), settings(&globals, progress)?);
    let base = found.first().map(|f| f.base.clone()).unwrap_or_default();
    let worker = worker::Settings {
        shared: home::shared(&globals, base)?,
        logs: globals.config.logs(),
        now: engine::now,
        trace: None,
    };
    let worker = local::start(&control, worker, globals.config.slots).await?;
    let keys: Vec<RunKey> = births.iter().map(|birth| birth.key.clone()).collect();
    let interrupts = tokio::spawn(interrupts(control.clone(), keys.clone()));
    let mut states = Vec::new();
    for (found, birth) in found.into_iter().zip(births) {
        begin(&control, found, &birth).await?;
    }
    for key in keys {
        let end = control.follow(key.clone()).await;
        // Without a state the driver has failed; its error is told below.
        states.push((key, end.await.ok()));
    }
    interrupts.abort();
    // Attempts of a cancelled run have been asked to stop: their programs get their grace.
    worker.stop().await;
    drop(control);
    driver.await.map_err(|e| CliError::Environment(format!("the driver of runs stopped: {e}")))??;
    finish(&store, &globals, &states).await
}

/// This process works on the runs it was asked for, whatever else the home holds.
fn settings(globals: &Globals, progress: Progress) -> Result<control::Settings, CliError> {
    Ok(control::Settings {
        now: engine::now,
        scope: Scope::Own { pools: home::pools(globals)? },
        poll_every: POLL_EVERY,
        tries_max: Some(TRIES_MAX),
        watch: Some(Box::new(move |dag, birth, decision, at| progress.show(dag, birth, decision, at))),
    })
}

/// Takes up the run: new, unfinished, or finished and to be run again.
async fn begin(control: &Control, found: Found, birth: &RunBirth) -> Result<(), CliError> {
    let dag = Arc::new(found.file.dag);
    let (store, key) = (control.store(), &birth.key);
    store.put_dag_version(&dag.hash, &dag.id, &found.file.source).await?;
    if let Created::New(_) = control.create(birth, &dag).await? {
        return Ok(());
    }
    let run = store.load_run(key, &dag).await?.ok_or_else(|| {
        CliError::Environment(format!(
            "the run `{}` was there and is gone: is something pruning it?",
            key.run_id
        ))
    })?;
    if run.state.is_final() {
        let tis = run.instances().map(|(ti, _)| ti).collect();
        return control
            .apply(key.clone(), Input::Clear { tis })
            .await
            .map_err(|e| CliError::User(e.to_string()));
    }
    eprintln!("going on with the unfinished run {}", key.run_id);
    control.wake(key.clone()).await;
    control.poll().await;
    Ok(())
}

/// The first Ctrl-C cancels the runs, the second ends the process.
async fn interrupts(control: Control, keys: Vec<RunKey>) {
    let mut asked = false;
    while tokio::signal::ctrl_c().await.is_ok() {
        if asked {
            eprintln!("stopped at once; the next run with the same logical date goes on from here");
            std::process::exit(1);
        }
        asked = true;
        eprintln!("cancelling; press Ctrl-C again to stop at once");
        let (control, keys) = (control.clone(), keys.clone());
        tokio::spawn(async move {
            for key in keys {
                if let Err(refused) = control.apply(key.clone(), Input::Cancel).await {
                    tracing::info!(run = %key.run_id, %refused, "nothing is cancelled");
                }
            }
        });
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

pub(super) fn parse_params(given: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut params = Map::new();
    for text in given {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            CliError::User(format!("--param `{text}` has no `=`\nhint: write --param name=value"))
        })?;
        params.insert(name.to_owned(), param_value(value));
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
        triggers: "".into(),
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

/// What `text` would be in a DAG file: a number, truth value, null, list or mapping in brackets, or text in
/// quotes. Anything else is the text as it was given, to the letter.
fn param_value(text: &str) -> Value {
    let options = serde_yaml::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    let raw = || Value::String(text.to_owned());
    let begins = |brackets: &[char]| text.trim_start().starts_with(brackets);
    match serde_yaml::from_str_with_options(text, options) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        Ok(Value::Null) if matches!(text, "null" | "~") => Value::Null,
        Ok(value @ (Value::Array(_) | Value::Object(_))) if begins(&['[', '{']) => value,
        Ok(value @ Value::String(_)) if begins(&['"', '\'']) => value,
        Ok(Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_)) | Err(_) => raw(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_says_what_it_would_say_in_a_file() {
        for (text, value) in [
            ("8", json!(8)),
            ("-1.5", json!(-1.5)),
            ("true", json!(true)),
            ("null", json!(null)),
            ("[Berlin, 7]", json!(["Berlin", 7])),
            (r#"{"a": [1]}"#, json!({"a": [1]})),
            ("'8'", json!("8")),
            ("no", json!("no")),
            ("007", json!("007")),
            ("1_000", json!("1_000")),
            ("2026-01-01", json!("2026-01-01")),
            ("a: b", json!("a: b")),
            ("- a", json!("- a")),
            ("#5", json!("#5")),
            ("one # two", json!("one # two")),
            ("*", json!("*")),
            ("", json!("")),
            ("[a", json!("[a")),
        ] {
            assert_eq!(param_value(text), value, "{text}");
        }
    }
}
