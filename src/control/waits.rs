//! Why a task instance waits, in one sentence: measured where it stands, said by the core.

use serde::{Deserialize, Serialize};

use super::Control;
use super::ask::{AskError, loaded, tasks};
use super::room::shared;
use crate::core::ids::{RunKey, Timestamp};
use crate::core::run::TiRef;
use crate::core::why::why;
use crate::store::RoomAsked;

/// What keeps a task instance from its next move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// The task.
    pub task_id: String,
    /// Its place in the list, or -1.
    pub map_index: i32,
    /// Its state.
    pub state: String,
    /// The reason, in one sentence.
    pub why: String,
}

/// The reasons of one task's instances, or of all that are not final; all of them if the run has ended.
///
/// # Errors
/// `NotFound` for the run or the task.
pub async fn waits(
    control: &Control,
    key: &RunKey,
    task_id: Option<&str>,
    now: Timestamp,
) -> Result<Vec<Waits>, AskError> {
    let loaded = loaded(control, key).await?;
    let named: Vec<String> = task_id.map(ToOwned::to_owned).into_iter().collect();
    let chosen = tasks(&loaded.dag, &named)?;
    let asked = RoomAsked { pools: true, other_tis: true, previous: true };
    let room = control.store().room(key, asked).await?;
    let room = shared(&loaded.dag, room);
    let open_only = task_id.is_none() && !loaded.run.state.is_final();
    let wanted = |(ti, instance): &(TiRef, &crate::core::run::TaskInstance)| {
        chosen.contains(&ti.task) && !(open_only && instance.state.is_final())
    };
    let reasons = loaded.run.instances().filter(wanted).map(|(ti, instance)| Waits {
        task_id: loaded.dag.task(ti.task).id.to_string(),
        map_index: ti.map_index,
        state: instance.state.to_string(),
        why: why(&loaded.dag, &loaded.run, &room, ti, now).to_string(),
    });
    Ok(reasons.collect())
}
