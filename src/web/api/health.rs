//! How this process is: for those who restart it, those who watch it, and those who look.

use std::fmt::Write;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::ApiError;
use super::Shared;
use crate::core::ids::Timestamp;
use crate::core::state::RunState;
use crate::web::Pulse;

/// A scheduler whose loop has not come round for so long is stuck.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// The process lives: it answers.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Why the process does not do its work, if it does not.
fn complaint(pulse: &Pulse, now: Timestamp) -> Option<String> {
    if let Some(trouble) = &pulse.trouble {
        return Some(format!("the database cannot be used: {trouble}"));
    }
    match pulse.last_round {
        None => Some("the scheduler has not come round yet".to_owned()),
        Some(at) if now.since(at) > ROUND_MAX => {
            Some(format!("the scheduler last came round {} s ago", now.since(at).as_secs()))
        }
        Some(_) => None,
    }
}

/// The process does its work.
pub(super) async fn ready(State(api): State<Shared>) -> Response {
    if api.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n").into_response();
    }
    match complaint(&(api.pulse)(), (api.now)()) {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

pub(super) async fn health(State(api): State<Shared>) -> Json<Value> {
    let pulse = (api.pulse)();
    let complaint = complaint(&pulse, (api.now)());
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "scheduler": {
            "status": if complaint.is_none() { "healthy" } else { "unhealthy" },
            "reason": complaint,
            "latest_round": pulse.last_round.map(|at| at.to_string()),
            "lag_ms": u64::try_from(pulse.lag.as_millis()).unwrap_or(u64::MAX),
        },
        "import_errors": pulse.import_errors.len(),
    }))
}

pub(super) async fn import_errors(State(api): State<Shared>) -> Json<Value> {
    let errors = (api.pulse)().import_errors;
    Json(json!({ "total_entries": errors.len(), "import_errors": errors }))
}

/// A worker as JSON shows it.
#[derive(Serialize)]
struct WorkerRow {
    session_id: String,
    opened_at: String,
    lease_until: String,
    local: bool,
    running: u32,
}

pub(super) async fn workers(State(api): State<Shared>) -> Result<Json<Value>, ApiError> {
    let store = api.control.store();
    let sessions = store.sessions(store.now().await?).await?;
    let rows: Vec<WorkerRow> = sessions
        .into_iter()
        .map(|session| WorkerRow {
            session_id: session.session.to_string(),
            opened_at: session.opened_at.to_string(),
            lease_until: session.lease_until.to_string(),
            local: session.local,
            running: session.running,
        })
        .collect();
    Ok(Json(json!({ "total_entries": rows.len(), "workers": rows })))
}

/// Gauges in the text format of Prometheus. What cannot be read is left out, and says so.
pub(super) async fn metrics(State(api): State<Shared>) -> Response {
    let pulse = (api.pulse)();
    let mut page = Page::default();
    page.head("mainspring_scheduler_lag_seconds", "By how much the scheduler's loop was late");
    page.line("mainspring_scheduler_lag_seconds", pulse.lag.as_secs_f64());
    page.head("mainspring_scheduler_healthy", "1 if runs are created and tasks handed out");
    let healthy = complaint(&pulse, (api.now)()).is_none();
    page.line("mainspring_scheduler_healthy", f64::from(u8::from(healthy)));
    page.head("mainspring_import_errors", "Problems of DAG files");
    #[expect(clippy::cast_precision_loss, reason = "there are not 2^53 problems")]
    page.line("mainspring_import_errors", pulse.import_errors.len() as f64);
    let read = from_database(&api, &mut page).await;
    page.head("mainspring_database_up", "1 if the figures above could be read from the database");
    page.line("mainspring_database_up", f64::from(u8::from(read.is_ok())));
    if let Err(error) = read {
        tracing::warn!(%error, "metrics cannot be read");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.0).into_response()
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge").expect("a string takes all");
    }

    fn line(&mut self, name: &str, value: f64) {
        writeln!(self.0, "{name} {value}").expect("a string takes all");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge that is off by one in 2^53 harms nobody")]
async fn from_database(api: &Shared, page: &mut Page) -> Result<(), crate::store::StoreError> {
    let store = api.control.store();
    let runs = store.count_runs().await?;
    page.head("mainspring_dag_runs", "Runs by state");
    for &state in RunState::ALL {
        let count = runs.iter().find(|(of, _)| *of == state).map_or(0, |(_, count)| *count);
        page.line(&format!("mainspring_dag_runs{{state=\"{state}\"}}"), count as f64);
    }
    page.head("mainspring_task_instances", "Task instances that wait for a worker or are with one");
    for (state, count) in store.count_open_instances().await? {
        page.line(&format!("mainspring_task_instances{{state=\"{state}\"}}"), count as f64);
    }
    let sessions = store.sessions(store.now().await?).await?;
    page.head("mainspring_worker_sessions", "Workers that live");
    for local in [true, false] {
        let count = sessions.iter().filter(|session| session.local == local).count();
        page.line(&format!("mainspring_worker_sessions{{local=\"{local}\"}}"), count as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_is_ready_while_it_comes_round_and_the_database_answers() {
        let now = Timestamp::parse("2026-01-01").unwrap();
        let pulse = |last_round, trouble: Option<&str>| Pulse {
            last_round,
            trouble: trouble.map(ToOwned::to_owned),
            ..Pulse::default()
        };
        assert_eq!(complaint(&pulse(Some(now), None), now), None);
        let says = |pulse, words: &str| {
            let text = complaint(&pulse, now).unwrap_or_default();
            assert!(text.contains(words), "{text}");
        };
        says(pulse(None, None), "not come round yet");
        says(pulse(Some(now.minus(ROUND_MAX * 2)), None), "60 s ago");
        says(pulse(Some(now), Some("disk full")), "disk full");
    }
}
