//! The lease of a worker session: kept by a thread of its own, so that no load on this process lets it lapse.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::core::ids::SessionId;
use crate::store::{Store, StoreError};

/// How long a worker that says nothing is held to be alive.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often it says something; three words may be lost within a lease.
pub const BEAT: Duration = Duration::from_secs(5);

/// How the keeping of a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// On request; the session is closed.
    Closed,
    /// It ran out: what the session held may have been given to others.
    Lost,
}

/// Opens the session of the worker inside this process.
///
/// # Errors
/// As [`Store::open_local_session`].
pub async fn open_local(store: &Store, session: &SessionId) -> Result<(), StoreError> {
    let now = store.now().await?;
    store.open_local_session(session, now, now.plus(LEASE)).await
}

/// Keeps the lease of an open session until `stop`, then closes it. Times are the database's.
#[must_use]
pub fn keep(store: Store, session: SessionId, stop: CancellationToken) -> oneshot::Receiver<Kept> {
    let (ended, end) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        let kept = runtime.block_on(beat(&store, &session, &stop));
        if ended.send(kept).is_err() {
            tracing::debug!(%session, "nobody asks how the lease ended");
        }
    });
    end
}

async fn beat(store: &Store, session: &SessionId, stop: &CancellationToken) -> Kept {
    while tokio::time::timeout(BEAT, stop.cancelled()).await.is_err() {
        match renew(store, session).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::error!(%session, "the lease of this worker has run out");
                return Kept::Lost;
            }
            Err(error) => tracing::warn!(%session, %error, "the lease cannot be renewed; trying again"),
        }
    }
    let closed = async { store.close_session(session, store.now().await?).await };
    if let Err(error) = closed.await {
        tracing::warn!(%session, %error, "the session cannot be closed; its lease will run out");
    }
    Kept::Closed
}

async fn renew(store: &Store, session: &SessionId) -> Result<bool, StoreError> {
    let now = store.now().await?;
    store.heartbeat(session, now, now.plus(LEASE)).await
}
