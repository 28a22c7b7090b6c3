//! The way to the runs through the server that has the home: the same wishes, as JSON over its API.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::CliError;
use super::api::{self, Found};
use crate::control::Waits;
use crate::control::ask::{Changed, Selection, Trigger};
use crate::control::backfill::{BackfillAsked, Planned};
use crate::core::ids::{DagId, RunId, RunKey, Timestamp};
use crate::core::state::{RunState, TaskState};

/// How long a server may take to say that it is there.
const KNOCK_MAX: Duration = Duration::from_secs(2);
/// How long it may take to do what is asked.
const ASK_MAX: Duration = Duration::from_secs(60);
/// How often a run is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A server that answers.
pub(super) struct Served {
    http: reqwest::Client,
    found: Found,
}

#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Deserialize)]
struct RunView {
    run_id: String,
    state: String,
}

#[derive(Deserialize)]
struct ChangedList {
    task_instances: Vec<Changed>,
}

#[derive(Deserialize)]
struct Plan {
    dag_runs: Vec<Planned>,
}

#[derive(Deserialize)]
struct DagView {
    changed: bool,
}

/// What one request for deletion came to.
#[derive(Deserialize)]
pub(super) struct Pruned {
    pub(super) runs: u64,
    pub(super) more: bool,
}

impl Served {
    /// The server of the home; `None` if there is none, or it does not answer any more.
    pub(super) async fn find(home: &Path) -> Option<Self> {
        let found = api::of_home(home).ok()?;
        let http = reqwest::Client::builder().no_proxy().build().ok()?;
        let served = Self { http, found };
        let health = served.http.get(format!("{}/api/v1/health", served.found.url));
        let answer = health.bearer_auth(&served.found.token).timeout(KNOCK_MAX).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Some(served),
            Ok(answer) => {
                tracing::warn!(status = %answer.status(), url = served.found.url, "another server is there");
                None
            }
            Err(error) => {
                tracing::debug!(%error, url = served.found.url, "the server of this home is gone");
                None
            }
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CliError> {
        let environment =
            |what: &str| CliError::Environment(format!("the server at {}: {what}", self.found.url));
        let request = self.http.request(method, format!("{}/api/v1/{path}", self.found.url));
        let mut request = request.bearer_auth(&self.found.token).timeout(ASK_MAX);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| environment(&error.to_string()))?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|error| environment(&error.to_string()))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| environment(&format!("its answer cannot be read: {error}")));
        }
        let Complaint { detail, hint } = serde_json::from_slice(&bytes).unwrap_or_default();
        let what = match (detail.is_empty(), hint) {
            (true, _) => format!("the server answered {status}"),
            (false, None) => detail,
            (false, Some(hint)) => format!("{detail}\nhint: {hint}"),
        };
        let ours = status.is_server_error() || status == StatusCode::UNAUTHORIZED;
        Err(if ours { environment(&what) } else { CliError::User(what) })
    }

    async fn of_run<T: DeserializeOwned>(
        &self,
        key: &RunKey,
        what: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.ask(Method::POST, &format!("{}/{what}", path(key)), Some(body)).await
    }

    pub(super) async fn trigger(&self, dag_id: &DagId, asked: &Trigger) -> Result<RunKey, CliError> {
        let run: RunView = self.ask(Method::POST, &format!("dags/{dag_id}/dagRuns"), Some(asked)).await?;
        let run_id = RunId::parse(&run.run_id).map_err(|error| CliError::Environment(error.to_string()))?;
        Ok(RunKey { dag_id: dag_id.clone(), run_id })
    }

    pub(super) async fn backfill(
        &self,
        dag_id: &DagId,
        asked: &BackfillAsked,
    ) -> Result<Vec<Planned>, CliError> {
        let plan: Plan = self.ask(Method::POST, &format!("dags/{dag_id}/backfills"), Some(asked)).await?;
        Ok(plan.dag_runs)
    }

    /// Waits until the run has ended.
    pub(super) async fn wait(&self, key: &RunKey) -> Result<RunState, CliError> {
        loop {
            let run: RunView = self.ask(Method::GET, &path(key), None::<&()>).await?;
            let state = RunState::parse(&run.state)
                .ok_or_else(|| CliError::Environment(format!("`{}` is no state of a run", run.state)))?;
            if state.is_final() {
                return Ok(state);
            }
            // The timer is the event that is waited for.
            drop(tokio::time::timeout(LOOK_EVERY, std::future::pending::<()>()).await);
        }
    }

    pub(super) async fn clear(&self, key: &RunKey, asked: &Selection) -> Result<Vec<Changed>, CliError> {
        self.of_run::<ChangedList>(key, "clear", asked).await.map(|list| list.task_instances)
    }

    pub(super) async fn mark(
        &self,
        key: &RunKey,
        asked: &Selection,
        state: TaskState,
    ) -> Result<Vec<Changed>, CliError> {
        let body = json!({ "state": state.as_str(), "of": asked });
        self.of_run::<ChangedList>(key, "mark", &body).await.map(|list| list.task_instances)
    }

    pub(super) async fn cancel(&self, key: &RunKey) -> Result<(), CliError> {
        self.of_run::<RunView>(key, "cancel", &json!({})).await.map(drop)
    }

    pub(super) async fn waits(&self, key: &RunKey, task_id: Option<&str>) -> Result<Vec<Waits>, CliError> {
        let of = task_id.map(|task| format!("?task_id={task}")).unwrap_or_default();
        self.ask(Method::GET, &format!("{}/waits{of}", path(key)), None::<&()>).await
    }

    /// Deletes some of the runs that ended before `before`, or counts them.
    pub(super) async fn prune(&self, before: Timestamp, dry_run: bool) -> Result<Pruned, CliError> {
        let body = json!({ "before": before.to_string(), "dry_run": dry_run });
        self.ask(Method::POST, "prune", Some(&body)).await
    }

    pub(super) async fn pause(&self, dag_id: &DagId, paused: bool) -> Result<bool, CliError> {
        let body = json!({ "is_paused": paused });
        self.ask::<DagView>(Method::PATCH, &format!("dags/{dag_id}"), Some(&body))
            .await
            .map(|dag| dag.changed)
    }
}

/// Run ids hold no letter that an address cannot, but `+`.
fn path(key: &RunKey) -> String {
    format!("dags/{}/dagRuns/{}", key.dag_id, key.run_id.as_str().replace('+', "%2B"))
}
