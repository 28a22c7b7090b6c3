//! DAGs as the server has taken them up.

use axum::Json as Reply;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ApiError, Json, OfDag, Shared};
use crate::control::ask;
use crate::core::ids::DagId;
use crate::store::DagRow;

/// A DAG as JSON shows it.
#[derive(Serialize)]
struct DagView {
    dag_id: String,
    is_paused: bool,
    is_active: bool,
    dag_hash: String,
    first_seen: String,
    next_dagrun_create_after: Option<String>,
}

impl From<DagRow> for DagView {
    fn from(row: DagRow) -> Self {
        Self {
            dag_id: row.dag_id.to_string(),
            is_paused: row.paused,
            is_active: row.present,
            dag_hash: row.dag_hash.0.to_string(),
            first_seen: row.first_seen.to_string(),
            next_dagrun_create_after: row.next_fire.filter(|_| row.present).map(|at| at.to_string()),
        }
    }
}

pub(super) async fn list(State(api): State<Shared>) -> Result<Reply<Value>, ApiError> {
    let dags: Vec<DagView> = api.control.store().dags().await?.into_iter().map(DagView::from).collect();
    Ok(Reply(json!({ "total_entries": dags.len(), "dags": dags })))
}

async fn row(api: &Shared, dag_id: &DagId) -> Result<DagRow, ApiError> {
    let row = api.control.store().dag(dag_id).await?;
    row.ok_or_else(|| {
        ApiError::not_found(format!("there is no DAG `{dag_id}` here"))
            .hint("`mainspring dags list` shows them all; a server takes up a new file within seconds")
    })
}

/// With what its file says.
pub(super) async fn get(State(api): State<Shared>, OfDag(dag_id): OfDag) -> Result<Reply<Value>, ApiError> {
    let view = DagView::from(row(&api, &dag_id).await?);
    let file = ask::latest(&api.control, &dag_id).await?;
    let tasks = |ix: usize| {
        let task = file.dag.task(ix);
        let upstream: Vec<&str> =
            file.dag.upstream(ix).iter().map(|&up| file.dag.task(up).id.as_str()).collect();
        json!({
            "task_id": task.id.as_str(), "type": &*task.kind, "queue": task.queue.as_str(),
            "pool": task.pool.as_str(), "retries": task.retry.retries, "upstream_task_ids": upstream,
        })
    };
    let mut value = serde_json::to_value(view).unwrap_or_default();
    value["description"] = json!(file.description);
    value["owner"] = json!(file.owner);
    value["tags"] = json!(file.tags);
    value["tasks"] = (0..file.dag.tasks().len()).map(tasks).collect();
    Ok(Reply(value))
}

/// What can be changed of a DAG.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    is_paused: bool,
}

pub(super) async fn patch(
    State(api): State<Shared>,
    OfDag(dag_id): OfDag,
    Json(asked): Json<Patch>,
) -> Result<Reply<Value>, ApiError> {
    let before = row(&api, &dag_id).await?;
    api.control.store().set_paused(&dag_id, asked.is_paused, (api.now)()).await?;
    (api.wake)();
    api.control.poll().await;
    let mut value = serde_json::to_value(DagView::from(row(&api, &dag_id).await?)).unwrap_or_default();
    value["changed"] = json!(before.paused != asked.is_paused);
    Ok(Reply(value))
}
