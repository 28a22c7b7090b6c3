//! What people and programs ask: DAGs, runs, task instances, logs, workers, health. Airflow's names of things.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::routing::MethodFilter;
use serde::de::DeserializeOwned;

use super::Shared;
use super::error::ApiError;
use super::gate::{Operate, Public, Read, Routes};
use crate::core::ids::{DagId, RunId, RunKey};

mod dag_runs;
mod dags;
mod events;
mod health;
mod retention;
mod task_instances;

pub(super) fn routes(routes: Routes) -> Routes {
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PATCH: MethodFilter = MethodFilter::PATCH;
    routes
        .on(Public, GET, "/livez", health::live)
        .on(Public, GET, "/readyz", health::ready)
        .on(Read, GET, "/metrics", health::metrics)
        .on(Read, GET, "/api/v1/health", health::health)
        .on(Read, GET, "/api/v1/workers", health::workers)
        .on(Read, GET, "/api/v1/importErrors", health::import_errors)
        .on(Operate, POST, "/api/v1/prune", retention::prune)
        .on(Operate, POST, "/api/v1/events/{name}", events::receive)
        .on(Read, GET, "/api/v1/dags", dags::list)
        .on(Read, GET, "/api/v1/dags/{dag_id}", dags::get)
        .on(Operate, PATCH, "/api/v1/dags/{dag_id}", dags::patch)
        .on(Operate, POST, "/api/v1/dags/{dag_id}/backfills", dag_runs::backfill)
        .on(Read, GET, "/api/v1/dags/{dag_id}/dagRuns", dag_runs::list)
        .on(Operate, POST, "/api/v1/dags/{dag_id}/dagRuns", dag_runs::trigger)
        .on(Read, GET, "/api/v1/dags/{dag_id}/dagRuns/{run_id}", dag_runs::get)
        .on(Operate, POST, "/api/v1/dags/{dag_id}/dagRuns/{run_id}/cancel", dag_runs::cancel)
        .on(Operate, POST, "/api/v1/dags/{dag_id}/dagRuns/{run_id}/clear", dag_runs::clear)
        .on(Operate, POST, "/api/v1/dags/{dag_id}/dagRuns/{run_id}/mark", dag_runs::mark)
        .on(Read, GET, "/api/v1/dags/{dag_id}/dagRuns/{run_id}/waits", dag_runs::waits)
        .on(Read, GET, "/api/v1/dags/{dag_id}/dagRuns/{run_id}/taskInstances", task_instances::list)
        .on(
            Read,
            GET,
            "/api/v1/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}",
            task_instances::log,
        )
}

/// A body of JSON. It must say that it is JSON, which a page of another site cannot make a browser say.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_json = kind.is_some_and(|kind| {
            kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
        });
        if !is_json {
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be JSON")
                .hint("send `Content-Type: application/json`"));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::new(error.status(), format!("the body: {}", error.body_text())))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::invalid(format!("the body is not what is expected here: {error}")))
    }
}

/// What stands behind the `?`.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(ApiError::invalid(error.body_text())),
        }
    }
}

/// The DAG that the path names.
pub(super) struct OfDag(pub(super) DagId);

/// The run that the path names.
pub(super) struct OfRun(pub(super) RunKey);

/// What the path names, as text.
#[derive(serde::Deserialize)]
struct Named {
    dag_id: String,
    #[serde(default)]
    run_id: String,
}

async fn named<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Named, ApiError> {
    let path = Path::<Named>::from_request_parts(parts, state).await;
    path.map(|Path(named)| named).map_err(|error| ApiError::invalid(error.body_text()))
}

impl<S: Send + Sync> FromRequestParts<S> for OfDag {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(DagId::parse(&named(parts, state).await?.dag_id)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfRun {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Named { dag_id, run_id } = named(parts, state).await?;
        Ok(Self(RunKey { dag_id: DagId::parse(&dag_id)?, run_id: RunId::parse(&run_id)? }))
    }
}
