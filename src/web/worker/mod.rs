//! Workers elsewhere: a session each, heartbeats, and the exchange of outcomes for work.
//!
//! What is handed out and lost on the way is handed out again by the next exchange with this process; a process
//! that takes over a session finds by its second heartbeat what the worker never got, and gives it back.

use axum::Json as Reply;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::MethodFilter;

use super::Shared;
use super::api::Json;
use super::error::ApiError;
use super::gate::{Routes, Work};
use crate::control::wire::{
    Beaten, DagVersion, Exchange, Exchanged, Heartbeat, LogChunk, LogKept, OpenSession, PROTOCOL,
    SessionOpened, Ticket,
};
use crate::control::{log_path, put_piece};
use crate::core::ids::{DagHash, Fence, SessionId};
use crate::store::StoreError;

mod exchange;
mod sessions;

pub(super) use sessions::Sessions;

pub(super) fn routes(routes: Routes) -> Routes {
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    routes
        .on(Work, POST, "/api/v1/worker/sessions", open)
        .on(Work, MethodFilter::DELETE, "/api/v1/worker/sessions/{session}", close)
        .on(Work, POST, "/api/v1/worker/sessions/{session}/heartbeat", heartbeat)
        .on(Work, POST, "/api/v1/worker/sessions/{session}/exchange", exchange)
        .on(Work, POST, "/api/v1/worker/sessions/{session}/logs", logs)
        .on(Work, GET, "/api/v1/worker/dagVersions/{hash}", dag_version)
}

async fn open(
    State(api): State<Shared>,
    Json(asked): Json<OpenSession>,
) -> Result<Reply<SessionOpened>, ApiError> {
    if asked.protocol != PROTOCOL {
        let (theirs, ours) = (asked.protocol, PROTOCOL);
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("the worker speaks version {theirs} of the protocol, this server version {ours}"),
        )
        .hint("run the same version of mainspring on both sides"));
    }
    let session = sessions::open(&api, &asked.name).await?;
    let lease_ms = u64::try_from(api.lease.as_millis()).unwrap_or(u64::MAX);
    Ok(Reply(SessionOpened { session_id: session.to_string(), lease_ms }))
}

async fn close(
    State(api): State<Shared>,
    Path(session): Path<String>,
) -> Result<Reply<serde_json::Value>, ApiError> {
    let session = sessions::parse(&session)?;
    let store = api.control.store();
    store.close_session(&session, store.now().await?).await?;
    sessions::forget(&api, &session).await;
    Ok(Reply(serde_json::json!({})))
}

async fn heartbeat(
    State(api): State<Shared>,
    Path(session): Path<String>,
    Json(beat): Json<Heartbeat>,
) -> Result<Reply<Beaten>, ApiError> {
    Ok(Reply(sessions::beat(&api, &sessions::parse(&session)?, beat.held).await?))
}

async fn exchange(
    State(api): State<Shared>,
    Path(session): Path<String>,
    Json(brought): Json<Exchange>,
) -> Result<Reply<Exchanged>, ApiError> {
    let session: SessionId = sessions::parse(&session)?;
    Ok(Reply(exchange::exchange(api, session, brought).await?))
}

/// The right to act on a claim, or why not.
fn genuine(api: &Shared, ticket: &Ticket) -> Result<(), ApiError> {
    if api.tokens.is_genuine(ticket) {
        return Ok(());
    }
    let claim = &ticket.claim;
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        format!("the task token is not that of attempt {} at `{}`", claim.fence, claim.task_id),
    )
    .hint("it is made for one attempt, by servers that share a key"))
}

async fn logs(
    State(api): State<Shared>,
    Path(session): Path<String>,
    Json(chunk): Json<LogChunk>,
) -> Result<Reply<LogKept>, ApiError> {
    sessions::parse(&session)?;
    genuine(&api, &chunk.ticket)?;
    let claim = &chunk.ticket.claim;
    let (key, task) = (claim.run_key()?, claim.task()?);
    let path = log_path(&api.logs, &key, &task, claim.map_index, Fence(claim.fence));
    let put = tokio::task::spawn_blocking(move || {
        put_piece(&path, chunk.offset, &chunk.text).map_err(|error| {
            StoreError::Environment(format!("{} cannot be written: {error}", path.display()))
        })
    });
    let offset = put.await.map_err(|error| StoreError::Bug(error.to_string()))??;
    Ok(Reply(LogKept { offset }))
}

async fn dag_version(
    State(api): State<Shared>,
    Path(hash): Path<String>,
) -> Result<Reply<DagVersion>, ApiError> {
    let hash = DagHash(hash.into());
    let found = api.control.store().dag_version(&hash).await?;
    let (_, source) =
        found.ok_or_else(|| ApiError::not_found(format!("there is no DAG version `{}`", hash.0)))?;
    Ok(Reply(DagVersion { source }))
}
