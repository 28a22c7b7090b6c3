//! Waiting: for a time, and for a database that cannot be reached for a moment.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::StoreError;

/// The first wait after a failed access to the database; it doubles up to the longest.
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// The longest of these waits.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Does what the database may be unable to do for a moment, with growing waits between.
pub(super) async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    tries_max: Option<u32>,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let mut wait = WAIT_FIRST;
    let mut tries = 0;
    loop {
        tries += 1;
        match attempt().await {
            Err(StoreError::Environment(why) | StoreError::Busy(why))
                if tries_max.is_none_or(|max| tries < max) =>
            {
                tracing::warn!(why, "{what}; trying again");
                until(Some(wait)).await;
                wait = (wait * 2).min(WAIT_MAX);
            }
            answered => return answered,
        }
    }
}

/// Waits for a span; for ever without one.
pub(super) async fn until(span: Option<Duration>) {
    match span {
        Some(span) => at(Instant::now() + span).await,
        None => std::future::pending().await,
    }
}

/// Waits for a time.
pub(super) async fn at(time: Instant) {
    // The timer is the event that is waited for.
    drop(tokio::time::timeout_at(time, std::future::pending::<()>()).await);
}
