//! Retention: runs that ended long ago go, with their logs, some at a time.

use std::path::Path;

use super::log_folder;
use crate::core::ids::Timestamp;
use crate::store::{Store, StoreError};

/// Deletes some of the runs that ended before `before`; answers how many. Call it until it answers 0: then what
/// only they needed is gone too. Logs go first, so that none is left behind without its run.
///
/// # Errors
/// Of the database. A log that cannot be deleted is said in the log of the process, and left.
pub async fn prune(store: &Store, logs: &Path, before: Timestamp) -> Result<u64, StoreError> {
    let old = store.old_runs(before).await?;
    if old.is_empty() {
        store.delete_rest(before).await?;
        return Ok(0);
    }
    for run in &old {
        let folder = log_folder(logs, &run.key);
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "logs of a run that is deleted stay");
            }
            Ok(()) | Err(_) => {}
        }
    }
    store.delete_runs(old, before).await
}
