//! Clears that carry a run over to the newest version of its DAG.

use std::sync::Arc;

use super::ask::{AskError, Changed, Selection, chosen, describe};
use super::{Control, Loaded};
use crate::core::dag::Dag;
use crate::core::run::{Capacity, Input, TiRef, UNMAPPED};
use crate::core::step::step;
use crate::core::version::adopt;
use crate::store::StoreError;

/// Clears task instances of a run that has ended and pins it to `newest`, in one commit: tasks that are new in it
/// run as well, tasks that are gone are part of the run no more. Answers with those that were cleared or are
/// new, or would be.
///
/// # Errors
/// `Invalid` if the run has not ended, or a task cannot be carried over.
pub(super) async fn clear(
    control: &Control,
    loaded: &Loaded,
    newest: &Arc<Dag>,
    asked: &Selection,
) -> Result<Vec<Changed>, AskError> {
    let key = &loaded.run.birth.key;
    if !loaded.run.state.is_final() {
        return Err(AskError::Invalid(format!(
            "the run {} is `{}`: it takes the newest version of its DAG only when it has ended\nhint: cancel it first, or clear it in its own version",
            key.run_id, loaded.run.state
        )));
    }
    let mut adopted = adopt(&loaded.run, &loaded.dag, newest)
        .map_err(|error| AskError::Invalid(format!("{error}\nhint: start a new run")))?;
    let mut tis = chosen(newest, &adopted.run, asked)?;
    tis.extend(adopted.added.iter().map(|&task| TiRef { task, map_index: UNMAPPED }));
    let changed = tis.iter().map(|&ti| describe(newest, &adopted.run, ti)).collect();
    if tis.is_empty() || asked.dry_run {
        return Ok(changed);
    }
    let store = control.store();
    let now = store.now().await?;
    // It waits for a place like any run that is cleared: whoever drives it measures the room.
    let room = Capacity { paused: true, ..Capacity::default() };
    let decision = step(newest, &mut adopted.run, &[Input::Clear { tis }], &room, now);
    control.dags().put(newest.clone());
    match store.commit_adopted(newest, key, &adopted, &decision, now).await {
        Ok(_version) => {
            control.wake(key.clone()).await;
            Ok(changed)
        }
        Err(StoreError::Conflict(why)) => Err(AskError::Invalid(format!(
            "somebody else has changed the run {} at the same time: {why}\nhint: ask again",
            key.run_id
        ))),
        Err(error) => Err(error.into()),
    }
}
