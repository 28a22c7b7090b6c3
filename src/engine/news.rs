//! Runs that events start: which of the waiting events make a run due is asked of the core, and the run takes them
//! in the write that creates it.

use super::scheduler::birth;
use crate::core::ids::Timestamp;
use crate::core::timetable::{AssetDue, AssetEvent, When};
use crate::dagbag::DagFile;
use crate::store::{DagRow, Firing, Store, StoreError};

/// Events that one run takes of assets; more wait for the next run.
const ASSET_EVENTS_MAX: u32 = 10_000;
/// Received events that one look brings; full batches beyond them wait for the next look.
const RECEIVED_EVENTS_MAX: u32 = 10_000;

/// What the events that wait for the DAG of `row` make due.
///
/// # Errors
/// Of the surroundings.
pub(super) async fn firing(
    store: &Store,
    row: &DagRow,
    file: &DagFile,
    now: Timestamp,
) -> Result<Firing, StoreError> {
    // An event that comes after this is not among `heard`, though it may be among those that wait: at worst the
    // schedule is asked once more in vain.
    let heard = store.rings(&row.dag_id).await?;
    match &file.schedule().when {
        When::Event { batching, .. } => {
            // A batch is never cut short by the limit of the look.
            let limit = RECEIVED_EVENTS_MAX.max(batching.max);
            by_batches(store, row, file, heard, limit, now).await
        }
        When::Assets { .. } => by_assets(store, row, file, heard, now).await,
        When::ByHand | When::Cron(_) | When::Once | When::Every(_) => Ok(Firing::default()),
    }
}

async fn by_assets(
    store: &Store,
    row: &DagRow,
    file: &DagFile,
    heard: i64,
    now: Timestamp,
) -> Result<Firing, StoreError> {
    let waiting = store.waiting_events(&row.dag_id, ASSET_EVENTS_MAX).await?;
    let events: Vec<AssetEvent> =
        waiting.iter().map(|event| AssetEvent { asset: event.name.clone(), at: event.at }).collect();
    match file.schedule().due_by_assets(&events, row.cursor, row.first_seen, now) {
        AssetDue::Wait { next, .. } => {
            Ok(Firing { cursor: row.cursor, next_fire: next, heard: Some(heard), ..Firing::default() })
        }
        AssetDue::Fire { fire, cursor } => {
            let birth = birth(file, &fire, now);
            let taken = waiting.iter().map(|event| event.no).collect();
            let all = waiting.len() < ASSET_EVENTS_MAX as usize;
            Ok(Firing {
                events: [(birth.key.run_id.clone(), taken)].into(),
                births: vec![birth],
                cursor: Some(cursor),
                next_fire: if all { file.schedule().next_fire(cursor.max(now)) } else { Some(now) },
                heard: Some(heard),
                ..Firing::default()
            })
        }
    }
}

async fn by_batches(
    store: &Store,
    row: &DagRow,
    file: &DagFile,
    heard: i64,
    limit: u32,
    now: Timestamp,
) -> Result<Firing, StoreError> {
    let waiting = store.waiting_events(&row.dag_id, limit).await?;
    let arrivals: Vec<Timestamp> = waiting.iter().map(|event| event.at).collect();
    let due = file.schedule().due_by_events(&arrivals, row.cursor, now, super::scheduler::FIRES_MAX);
    let is_cut = waiting.len() == limit as usize;
    let mut firing = Firing {
        cursor: due.cursor,
        next_fire: if is_cut && !due.fires.is_empty() { Some(now) } else { due.next },
        heard: Some(heard),
        ..Firing::default()
    };
    let mut rest = waiting.iter().map(|event| event.no);
    for (fire, events) in due.fires {
        let birth = birth(file, &fire, now);
        firing.events.insert(birth.key.run_id.clone(), rest.by_ref().take(events).collect());
        firing.births.push(birth);
    }
    Ok(firing)
}
