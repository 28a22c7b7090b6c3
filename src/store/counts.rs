//! How many there are of what: for gauges.

use crate::core::state::{RunState, TaskState};

use super::Store;
use super::error::StoreError;
use super::runs::{number, parsed};

const RUNS: &str = "SELECT state, COUNT(*) FROM dag_run GROUP BY state ORDER BY state";
/// Of the others there are too many to be counted every few seconds.
const OPEN_INSTANCES: &str = "SELECT state, COUNT(*) FROM task_instance \
     WHERE state IN ('queued', 'running') GROUP BY state ORDER BY state";

impl Store {
    /// Runs by state; states without any are left out.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn count_runs(&self) -> Result<Vec<(RunState, u64)>, StoreError> {
        let mut counts = Vec::new();
        for row in self.read(RUNS, &[]).await? {
            let state = row.text(0)?;
            counts.push((parsed("state", &state, RunState::parse(&state))?, number("runs", row.int(1)?)?));
        }
        Ok(counts)
    }

    /// Task instances that wait for a worker or are with one, by state.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn count_open_instances(&self) -> Result<Vec<(TaskState, u64)>, StoreError> {
        let mut counts = Vec::new();
        for row in self.read(OPEN_INSTANCES, &[]).await? {
            let state = row.text(0)?;
            let state = parsed("state", &state, TaskState::parse(&state))?;
            counts.push((state, number("instances", row.int(1)?)?));
        }
        Ok(counts)
    }
}
