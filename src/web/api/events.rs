//! Events from outside that runs follow from.

use axum::Json as Reply;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{ApiError, Json, Shared};
use crate::control::receive::{self, Sent};

pub(super) async fn receive(
    State(api): State<Shared>,
    Path(name): Path<String>,
    Json(sent): Json<Sent>,
) -> Result<Reply<Value>, ApiError> {
    let arrived = receive::receive(&api.control, &name, sent, (api.now)()).await?;
    (api.wake)();
    Ok(Reply(json!({ "received": arrived.new, "known": arrived.known })))
}
