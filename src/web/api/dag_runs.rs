//! Runs: listed, started, ended, cleared, marked, and what each waits for.

use axum::Json as Reply;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ApiError, Asked, Json, OfDag, OfRun, Shared};
use crate::control::ask::{self, Changed, Selection, Trigger};
use crate::control::backfill::{self, BackfillAsked, Planned};
use crate::control::{self, Waits};
use crate::core::ids::RunKey;
use crate::core::state::{RunState, TaskState};
use crate::store::{RunFilter, RunSummary};

/// Runs that a list shows, unless asked, and at most.
const LIST_DEFAULT: u32 = 100;
const LIST_MAX: u32 = 10_000;

/// A run as JSON shows it.
#[derive(Serialize)]
struct RunView {
    dag_id: String,
    run_id: String,
    state: &'static str,
    with_failures: bool,
    run_type: &'static str,
    logical_date: String,
    data_interval_start: String,
    data_interval_end: String,
    queued_at: String,
    start_date: Option<String>,
    end_date: Option<String>,
    conf: Value,
    dag_hash: String,
}

impl From<RunSummary> for RunView {
    fn from(run: RunSummary) -> Self {
        let birth = run.birth;
        Self {
            dag_id: birth.key.dag_id.to_string(),
            run_id: birth.key.run_id.to_string(),
            state: run.state.as_str(),
            with_failures: run.with_failures,
            run_type: birth.run_type.as_str(),
            logical_date: birth.logical_date.to_string(),
            data_interval_start: birth.data_interval_start.to_string(),
            data_interval_end: birth.data_interval_end.to_string(),
            queued_at: birth.queued_at.to_string(),
            start_date: run.started_at.map(|at| at.to_string()),
            end_date: run.ended_at.map(|at| at.to_string()),
            conf: serde_json::from_str(&birth.params).unwrap_or_else(|_nothing| json!({})),
            dag_hash: birth.dag_hash.0.to_string(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    state: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(api): State<Shared>,
    OfDag(dag_id): OfDag,
    Asked(filter): Asked<Filter>,
) -> Result<Reply<Value>, ApiError> {
    let state = filter.state.map(|text| {
        RunState::parse(&text).ok_or_else(|| {
            let all: Vec<_> = RunState::ALL.iter().map(|state| state.as_str()).collect();
            ApiError::invalid(format!("`{text}` is no state of a run"))
                .hint(format!("one of {}", all.join(", ")))
        })
    });
    let limit = filter.limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
    let filter = RunFilter { dag_id: Some(dag_id), state: state.transpose()? };
    let runs = api.control.store().runs(&filter, limit).await?;
    let runs: Vec<RunView> = runs.into_iter().map(RunView::from).collect();
    Ok(Reply(json!({ "dag_runs": runs })))
}

async fn view(api: &Shared, key: &RunKey) -> Result<Reply<Value>, ApiError> {
    let run = api.control.store().run_summary(key).await?;
    let run = run.ok_or_else(|| {
        ApiError::not_found(format!("the DAG `{}` has no run `{}`", key.dag_id, key.run_id))
    })?;
    Ok(Reply(serde_json::to_value(RunView::from(run)).unwrap_or_default()))
}

pub(super) async fn get(State(api): State<Shared>, OfRun(key): OfRun) -> Result<Reply<Value>, ApiError> {
    view(&api, &key).await
}

pub(super) async fn trigger(
    State(api): State<Shared>,
    OfDag(dag_id): OfDag,
    Json(asked): Json<Trigger>,
) -> Result<Reply<Value>, ApiError> {
    let file = ask::latest(&api.control, &dag_id).await?;
    let key = ask::trigger(&api.control, &file, &asked, (api.now)()).await?;
    view(&api, &key).await
}

pub(super) async fn cancel(State(api): State<Shared>, OfRun(key): OfRun) -> Result<Reply<Value>, ApiError> {
    ask::cancel(&api.control, &key).await?;
    view(&api, &key).await
}

/// Task instances that change, or would.
#[derive(Serialize)]
pub(super) struct ChangedList {
    task_instances: Vec<Changed>,
}

pub(super) async fn clear(
    State(api): State<Shared>,
    OfRun(key): OfRun,
    Json(asked): Json<Selection>,
) -> Result<Reply<ChangedList>, ApiError> {
    Ok(Reply(ChangedList { task_instances: ask::clear(&api.control, &key, &asked).await? }))
}

/// Which task instances, and what is said of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    state: String,
    #[serde(default)]
    of: Selection,
}

pub(super) async fn mark(
    State(api): State<Shared>,
    OfRun(key): OfRun,
    Json(asked): Json<Mark>,
) -> Result<Reply<ChangedList>, ApiError> {
    let state = TaskState::parse(&asked.state).ok_or_else(|| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("`{}` is no state", asked.state))
            .hint("success, failed or skipped")
    })?;
    Ok(Reply(ChangedList { task_instances: ask::mark(&api.control, &key, &asked.of, state).await? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfTask {
    task_id: Option<String>,
}

pub(super) async fn waits(
    State(api): State<Shared>,
    OfRun(key): OfRun,
    Asked(of): Asked<OfTask>,
) -> Result<Reply<Vec<Waits>>, ApiError> {
    Ok(Reply(control::waits(&api.control, &key, of.task_id.as_deref(), (api.now)()).await?))
}

/// A backfill, or its plan.
#[derive(Serialize)]
pub(super) struct Plan {
    dag_runs: Vec<Planned>,
}

/// Plans a backfill of the DAG, and does it unless only the plan was asked for.
pub(super) async fn backfill(
    State(shared): State<Shared>,
    OfDag(dag_id): OfDag,
    Json(asked): Json<BackfillAsked>,
) -> Result<Reply<Plan>, ApiError> {
    let file = ask::latest(&shared.control, &dag_id).await?;
    let dag_runs = backfill::backfill(&shared.control, &file, &asked, (shared.now)()).await?;
    Ok(Reply(Plan { dag_runs }))
}
