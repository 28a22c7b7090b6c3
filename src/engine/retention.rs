//! Deletes what ended long ago, some at a time, so that nobody waits for it.
//!
//! Any number of processes may do it on one database: what is gone is not found again.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::control::prune;
use crate::core::ids::Timestamp;
use crate::store::Store;

/// How often to look for runs that have become old, and how long after the start for the first time.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// Between two deletions others write.
const REST: Duration = Duration::from_millis(100);

/// Deletes runs that ended longer ago than `keep`, with their logs in `logs`, until `stop`.
pub async fn run(
    store: Store,
    logs: PathBuf,
    keep: Duration,
    now: fn() -> Timestamp,
    stop: CancellationToken,
) {
    let (mut wait, mut total) = (FIRST_AFTER, 0);
    // The timer is the event that is waited for.
    while tokio::time::timeout(wait, stop.cancelled()).await.is_err() {
        wait = match prune(&store, &logs, now().minus(keep)).await {
            Ok(0) => {
                if total > 0 {
                    tracing::info!(runs = total, "runs that ended long ago were deleted");
                }
                total = 0;
                LOOK_EVERY
            }
            Ok(some) => {
                total += some;
                REST
            }
            Err(error) => {
                tracing::warn!(%error, "old runs cannot be deleted; trying again");
                FIRST_AFTER
            }
        };
    }
}
