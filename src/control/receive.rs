//! Events from outside: judged at the door, and then kept for every DAG that follows them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Control;
use super::ask::AskError;
use crate::core::ids::Timestamp;
use crate::store::{Arrival, Arrived};

/// Events that are received at once.
const EVENTS_MAX: usize = 1_000;
/// What one event says may have this many bytes as JSON; more belongs in a dataset.
const PAYLOAD_BYTES_MAX: usize = 48 * 1024;
/// Characters of what a sender calls its event.
const EVENT_ID_MAX: usize = 200;

/// Events that are sent to one name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// In the order in which they happened.
    pub events: Vec<SentEvent>,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentEvent {
    /// What its sender calls it. The same name again is the same event, so that a sender that got no answer may
    /// send it again. Without one it is always a new event.
    #[serde(default)]
    pub event_id: Option<String>,
    /// What it says.
    pub payload: Value,
}

/// Receives what was sent to `name`. When this returns, the events are kept as safely as any state of a run.
///
/// # Errors
/// `NotFound` if no DAG follows the name: they would wait for nobody. `Invalid` for events that are too many or too
/// large. Nothing is received then.
pub async fn receive(control: &Control, name: &str, sent: Sent, now: Timestamp) -> Result<Arrived, AskError> {
    if sent.events.is_empty() || sent.events.len() > EVENTS_MAX {
        return Err(AskError::Invalid(format!(
            "{} events were sent at once, at least 1 and at most {EVENTS_MAX} can be",
            sent.events.len()
        )));
    }
    let mut arrivals = Vec::with_capacity(sent.events.len());
    for (place, event) in sent.events.into_iter().enumerate() {
        arrivals.push(arrival(event).map_err(|why| AskError::Invalid(format!("event {place}: {why}")))?);
    }
    control.store().receive(name, arrivals, now).await?.ok_or_else(|| {
        AskError::NotFound(format!(
            "no DAG here follows events `{name}`\nhint: write `schedule: {{event: {name}}}` in a DAG file; a server takes it up within seconds"
        ))
    })
}

fn arrival(event: SentEvent) -> Result<Arrival, String> {
    let payload = event.payload.to_string();
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!(
            "its `payload` has {} bytes, at most {PAYLOAD_BYTES_MAX} are kept; write more to a dataset and send its name",
            payload.len()
        ));
    }
    let event_id = event.event_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    // Databases keep no zero characters in texts.
    if event_id.is_empty() || event_id.chars().count() > EVENT_ID_MAX || event_id.contains('\0') {
        return Err(format!("its `event_id` must have 1 to {EVENT_ID_MAX} characters"));
    }
    Ok(Arrival { event_id, payload })
}
