//! The sessions of workers elsewhere, as far as this process hands out to them.
//!
//! The lease is a row of the database; what is kept here can be lost: another process takes a session over by its
//! name, while the lease stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use axum::http::StatusCode;
use tokio::sync::{mpsc, watch};

use super::ApiError;
use crate::control::wire::{Beaten, Begin, ClaimName};
use crate::control::{Handout, Worker};
use crate::core::ids::{Fence, QueueName, RunKey, SessionId};
use crate::core::run::TiRef;
use crate::store::Orphan;
use crate::web::{Api, Shared};

/// Sessions opened by workers begin so; those of workers inside a server do not.
const PREFIX: &str = "w-";
/// Letters of a worker's own name in that of its session.
const NAME_CHARS_MAX: usize = 60;

pub(super) type Key = (RunKey, TiRef, Fence);

/// The sessions this process hands out to.
#[derive(Default)]
pub(in crate::web) struct Sessions {
    by_id: Mutex<BTreeMap<SessionId, Arc<Session>>>,
    /// Held while a session is taken over, so that it is enlisted once.
    taking_over: tokio::sync::Mutex<()>,
}

pub(super) struct Session {
    pub(super) id: SessionId,
    /// Held by the exchange that is being answered.
    pub(super) inbox: tokio::sync::Mutex<mpsc::UnboundedReceiver<Handout>>,
    /// How many exchanges have come: an older one that waits leaves when it rises.
    pub(super) arrivals: watch::Sender<u64>,
    pub(super) out: Mutex<Out>,
    beaten: Mutex<Beats>,
}

/// What was handed out.
#[derive(Default)]
pub(super) struct Out {
    /// The number of the last answer.
    pub(super) seq: u64,
    /// By answer, as long as the worker has not said that it has seen it.
    pub(super) unseen: Vec<(u64, Begin)>,
    /// Without an outcome yet.
    pub(super) open: BTreeMap<Key, ClaimName>,
}

struct Beats {
    last: Instant,
    /// Claims that the database had and the worker had not, at the last heartbeat.
    missing: BTreeSet<ClaimName>,
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nothing panics while it is held")
}

fn gone(session: &SessionId) -> ApiError {
    ApiError::new(StatusCode::GONE, format!("the session `{session}` is over"))
        .hint("stop what it holds and open a new one")
}

/// The name of a session that a worker opened.
pub(super) fn parse(text: &str) -> Result<SessionId, ApiError> {
    let session = SessionId::parse(text)?;
    if session.as_str().starts_with(PREFIX) { Ok(session) } else { Err(gone(&session)) }
}

/// Opens a session for a worker that calls itself `name`.
pub(super) async fn open(api: &Shared, name: &str) -> Result<SessionId, ApiError> {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let name: String = letters.take(NAME_CHARS_MAX).collect();
    let session = SessionId::parse(&format!("{PREFIX}{name}-{}", uuid::Uuid::new_v4().simple()))?;
    let store = api.control.store();
    let now = store.now().await?;
    store.open_session(&session, now, now.plus(api.lease)).await?;
    tracing::info!(%session, "a worker has opened a session");
    Ok(session)
}

/// The session, taken over from another process if need be.
pub(super) async fn find(api: &Shared, id: &SessionId, queues: &[String]) -> Result<Arc<Session>, ApiError> {
    if let Some(session) = lock(&api.workers.by_id).get(id) {
        return Ok(session.clone());
    }
    let queues: Result<Vec<QueueName>, _> = queues.iter().map(|queue| QueueName::parse(queue)).collect();
    let queues = queues?;
    let _one_at_a_time = api.workers.taking_over.lock().await;
    if let Some(session) = lock(&api.workers.by_id).get(id) {
        return Ok(session.clone());
    }
    if !renew(api, id).await? {
        return Err(gone(id));
    }
    let worker = Worker { session: id.clone(), queues, free: 0, counted: false };
    let inbox = api.control.enlist(worker).await;
    let session = Arc::new(Session {
        id: id.clone(),
        inbox: tokio::sync::Mutex::new(inbox),
        arrivals: watch::Sender::new(0),
        out: Mutex::default(),
        beaten: Mutex::new(Beats { last: Instant::now(), missing: BTreeSet::new() }),
    });
    lock(&api.workers.by_id).insert(id.clone(), session.clone());
    tokio::spawn(watch_over(api.clone(), session.clone()));
    Ok(session)
}

async fn renew(api: &Shared, id: &SessionId) -> Result<bool, ApiError> {
    let store = api.control.store();
    let now = store.now().await?;
    Ok(store.heartbeat(id, now, now.plus(api.lease)).await?)
}

/// Hands out no more to the session.
pub(super) async fn forget(api: &Api, id: &SessionId) {
    if lock(&api.workers.by_id).remove(id).is_some() {
        api.control.dismiss(id).await;
    }
}

/// Forgets the session once nothing was heard of it for a lease.
async fn watch_over(api: Shared, session: Arc<Session>) {
    loop {
        let silent = lock(&session.beaten).last.elapsed();
        let Some(left) = api.lease.checked_sub(silent).filter(|left| !left.is_zero()) else { break };
        // The timer is the event that is waited for.
        if tokio::time::timeout(left, api.stop.cancelled()).await.is_ok() {
            return;
        }
        if !lock(&api.workers.by_id).contains_key(&session.id) {
            return;
        }
    }
    tracing::warn!(session = %session.id, "a worker has said nothing for a lease");
    forget(&api, &session.id).await;
}

/// The worker lives and holds `held`. Claims that are not its any more are void; those it does not know of though
/// the database has had them for it since the heartbeat before, it never got: they are given back.
pub(super) async fn beat(api: &Shared, id: &SessionId, held: Vec<ClaimName>) -> Result<Beaten, ApiError> {
    if !renew(api, id).await? {
        forget(api, id).await;
        return Ok(Beaten { stands: false, void: Vec::new() });
    }
    let rows = api.control.store().held(id).await?;
    let name =
        |orphan: &Orphan| ClaimName::of(&orphan.run_key, &orphan.task_id, orphan.map_index, orphan.fence);
    let claims: BTreeMap<ClaimName, Orphan> = rows.into_iter().map(|row| (name(&row), row)).collect();
    let void = held.iter().filter(|claim| !claims.contains_key(claim)).cloned().collect();
    let held: BTreeSet<ClaimName> = held.into_iter().collect();
    let mut missing: BTreeMap<ClaimName, Orphan> =
        claims.into_iter().filter(|(claim, _)| !held.contains(claim)).collect();
    let session = lock(&api.workers.by_id).get(id).cloned();
    if let Some(session) = session {
        let before = {
            let mut beats = lock(&session.beaten);
            beats.last = Instant::now();
            std::mem::replace(&mut beats.missing, missing.keys().cloned().collect())
        };
        missing.retain(|claim, _| before.contains(claim));
        {
            let mut out = lock(&session.out);
            out.unseen.retain(|(_, begin)| !missing.contains_key(&begin.ticket.claim));
            out.open.retain(|_, claim| !missing.contains_key(claim));
        }
        for (claim, orphan) in missing {
            tracing::warn!(session = %id, run = claim.run_id, task = claim.task_id, "a hand-out was lost on the way");
            api.control.undelivered(orphan).await;
        }
    }
    Ok(Beaten { stands: true, void })
}
