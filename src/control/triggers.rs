//! The events that started a run, as templates and people see them.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::store::{EventSource, TakenEvent};

/// What a run has taken, under the names that templates use: `triggering_asset_events` has a list of events for
/// each asset, `triggering_events` is the list of received events. A name without events is left out.
#[must_use]
pub fn triggers(events: &[TakenEvent]) -> Map<String, Value> {
    let mut assets: Map<String, Value> = Map::new();
    let mut received = Vec::new();
    for TakenEvent { name, at, from } in events {
        match from {
            EventSource::Task { run, task_id, map_index } => {
                let event = json!({
                    "timestamp": at.to_string(),
                    "source_dag_id": run.dag_id.as_str(),
                    "source_run_id": run.run_id.as_str(),
                    "source_task_id": task_id.as_str(),
                    "source_map_index": map_index,
                });
                let all = assets.entry(name.to_string()).or_insert_with(|| json!([]));
                all.as_array_mut().expect("it was made a list").push(event);
            }
            EventSource::Outside { event_id, payload } => received.push(json!({
                "event": &**name,
                "event_id": &**event_id,
                "timestamp": at.to_string(),
                "payload": serde_json::from_str::<Value>(payload).unwrap_or_default(),
            })),
        }
    }
    let mut all = Map::new();
    if !assets.is_empty() {
        all.insert("triggering_asset_events".to_owned(), assets.into());
    }
    if !received.is_empty() {
        all.insert("triggering_events".to_owned(), received.into());
    }
    all
}

/// The same as JSON text; empty for a run that no event started.
pub(super) fn as_text(events: &[TakenEvent]) -> Arc<str> {
    if events.is_empty() { "".into() } else { Value::Object(triggers(events)).to_string().into() }
}
