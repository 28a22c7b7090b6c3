//! Task instances and the logs of their attempts.

use axum::Json as Reply;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ApiError, Asked, OfRun, Shared};
use crate::control::{log_path, read_piece};
use crate::core::ids::TaskId;
use crate::core::run::UNMAPPED;
use crate::store::InstanceRow;

/// A log is answered in pieces of this size.
const LOG_PIECE_BYTES_MAX: u64 = 4 << 20;

/// A task instance as JSON shows it.
#[derive(Serialize)]
struct InstanceView {
    task_id: String,
    map_index: i32,
    state: &'static str,
    try_number: u32,
    fence: i64,
    start_date: Option<String>,
    end_date: Option<String>,
    resume_at: Option<String>,
    session_id: Option<String>,
    outputs: Value,
}

pub(super) async fn list(State(api): State<Shared>, OfRun(key): OfRun) -> Result<Reply<Value>, ApiError> {
    let store = api.control.store();
    if store.run_summary(&key).await?.is_none() {
        return Err(ApiError::not_found(format!("the DAG `{}` has no run `{}`", key.dag_id, key.run_id)));
    }
    let mut outputs = store.outputs(&key).await?;
    let view = |InstanceRow { task_id, map_index, instance }| {
        let left = outputs.remove(&(TaskId::clone(&task_id), map_index));
        InstanceView {
            task_id: task_id.to_string(),
            map_index,
            state: instance.state.as_str(),
            try_number: instance.try_number,
            fence: instance.fence.0,
            start_date: instance.started_at.map(|at| at.to_string()),
            end_date: instance.ended_at.map(|at| at.to_string()),
            resume_at: instance.resume_at.map(|at| at.to_string()),
            session_id: instance.session.map(|session| session.to_string()),
            outputs: left.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_else(|| json!({})),
        }
    };
    let rows: Vec<InstanceView> = store.task_instances(&key).await?.into_iter().map(view).collect();
    Ok(Reply(json!({ "total_entries": rows.len(), "task_instances": rows })))
}

#[derive(Deserialize)]
pub(super) struct OfTry {
    task_id: String,
    try_number: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    map_index: Option<i32>,
    #[serde(default)]
    offset: u64,
}

/// The log of an attempt as plain text; of several under one number, the last.
pub(super) async fn log(
    State(api): State<Shared>,
    OfRun(key): OfRun,
    Path(of): Path<OfTry>,
    Asked(piece): Asked<Piece>,
) -> Result<Response, ApiError> {
    let task = TaskId::parse(&of.task_id)?;
    let map_index = piece.map_index.unwrap_or(UNMAPPED);
    let tries = api.control.store().tries(&key, &task).await?;
    let found = tries.iter().rev().find(|one| one.try_number == of.try_number && one.map_index == map_index);
    let fence = found.map(|one| one.fence).ok_or_else(|| {
        ApiError::not_found(format!("`{task}` has no attempt {} in run `{}`", of.try_number, key.run_id))
    })?;
    let path = log_path(&api.logs, &key, &task, map_index, fence);
    let read =
        tokio::task::spawn_blocking(move || read_piece(&path, piece.offset, LOG_PIECE_BYTES_MAX)).await;
    let text = match read {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            return Err(ApiError::from(crate::store::StoreError::Environment(error.to_string())));
        }
        Err(error) => return Err(ApiError::from(crate::store::StoreError::Bug(error.to_string()))),
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
