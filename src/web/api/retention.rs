//! Retention by hand.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::ApiError;
use super::{Json as Body, Shared};
use crate::control;
use crate::core::ids::Timestamp;

/// One request deletes for so long; whoever asks asks again.
const WORK_MAX: Duration = Duration::from_secs(10);

/// What is to be deleted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prune {
    /// Runs that ended before this moment, RFC 3339.
    before: String,
    /// Only count them.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize)]
pub(super) struct Pruned {
    runs: u64,
    /// Whether there is more to be deleted.
    more: bool,
}

pub(super) async fn prune(
    State(api): State<Shared>,
    Body(asked): Body<Prune>,
) -> Result<Json<Pruned>, ApiError> {
    let before = Timestamp::parse(&asked.before).ok_or_else(|| {
        ApiError::invalid(format!("`before`: `{}` is no time", asked.before)).hint("2026-01-31T02:00:00Z")
    })?;
    let store = api.control.store();
    if asked.dry_run {
        return Ok(Json(Pruned { runs: store.prunable(before).await?, more: false }));
    }
    let (began, mut runs) = (Instant::now(), 0);
    while began.elapsed() < WORK_MAX {
        match control::prune(store, &api.logs, before).await? {
            0 => return Ok(Json(Pruned { runs, more: false })),
            some => runs += some,
        }
    }
    Ok(Json(Pruned { runs, more: true }))
}
