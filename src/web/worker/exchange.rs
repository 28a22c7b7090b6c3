//! The one hot call: outcomes in, work out.
//!
//! Slots are offered before the outcomes are told, so that claims for them are decided in the very step that takes
//! the outcomes. Nothing is offered while nobody listens: the offer is taken back before the answer, and what was
//! decided until then goes with it. An answer may be lost, so what it handed out is kept until the worker has
//! said that it has seen it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::sessions::{Out, Session, find, lock};
use super::{ApiError, genuine};
use crate::control::wire::{Ack, Begin, ClaimName, Done, Exchange, Exchanged};
use crate::control::{Handout, Report};
use crate::core::ids::{Fence, SessionId};
use crate::web::Shared;

/// How long an exchange waits for work if it brings nothing.
const POLL_MAX: Duration = Duration::from_secs(20);

/// The worker may go away while it waits: the exchange that is under way is told, and ends in good order.
struct Leaving(Option<Arc<Session>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.arrivals.send_modify(|arrivals| *arrivals += 1);
        }
    }
}

pub(super) async fn exchange(api: Shared, id: SessionId, brought: Exchange) -> Result<Exchanged, ApiError> {
    if api.stop.is_cancelled() && brought.reports.is_empty() {
        return Err(ApiError::stopping());
    }
    let session = find(&api, &id, &brought.queues).await?;
    let mut mine = 0;
    session.arrivals.send_modify(|arrivals| {
        *arrivals += 1;
        mine = *arrivals;
    });
    let mut leaving = Leaving(Some(session.clone()));
    // On its own, so that it is not cut off between an offer and its end.
    let answer = tokio::spawn(async move { Visit { api, session, mine }.make(brought).await });
    let answer =
        answer.await.map_err(|error| ApiError::from(crate::store::StoreError::Bug(error.to_string())))?;
    leaving.0 = None;
    answer
}

/// One exchange of one session; `mine` is its number.
struct Visit {
    api: Shared,
    session: Arc<Session>,
    mine: u64,
}

/// What has come out of the session's channel.
#[derive(Default)]
struct Drained {
    begin: Vec<Begin>,
    stop: Vec<ClaimName>,
}

impl Visit {
    async fn make(&self, brought: Exchange) -> Result<Exchanged, ApiError> {
        let Exchange { seen, free, queues: _, reports } = brought;
        let control = &self.api.control;
        let mut inbox = self.session.inbox.lock().await;
        let unseen = {
            let mut out = lock(&self.session.out);
            out.unseen.retain(|(seq, _)| *seq > seen);
            u32::try_from(out.unseen.len()).unwrap_or(u32::MAX)
        };
        let free = if self.api.stop.is_cancelled() { 0 } else { free.saturating_sub(unseen) };
        control.offer(&self.session.id, free).await;
        let waits = reports.is_empty() && unseen == 0;
        let acks = join_all(reports.into_iter().map(|done| self.report(done))).await;
        let mut drained = Drained::default();
        let mut over = self.drain(&mut inbox, &mut drained);
        if waits && !over && drained.begin.is_empty() && drained.stop.is_empty() {
            over = self.wait(&mut inbox, &mut drained).await;
        }
        control.offer(&self.session.id, 0).await;
        over |= self.drain(&mut inbox, &mut drained);
        if over && acks.is_empty() {
            return Err(ApiError::stopping());
        }
        let mut out = lock(&self.session.out);
        out.seq += 1;
        let seq = out.seq;
        out.unseen.extend(drained.begin.into_iter().map(|begin| (seq, begin)));
        let begin = out.unseen.iter().map(|(_, begin)| begin.clone()).collect();
        Ok(Exchanged { seq, acks, begin, stop: drained.stop })
    }

    /// Waits for the first hand-out, as long as nothing newer has come from the worker; true if there will be none.
    async fn wait(&self, inbox: &mut mpsc::UnboundedReceiver<Handout>, drained: &mut Drained) -> bool {
        let mut arrivals = self.session.arrivals.subscribe();
        let newer = arrivals.wait_for(|arrivals| *arrivals > self.mine);
        let first = async {
            loop {
                match inbox.recv().await {
                    Some(handout) => {
                        let mut out = lock(&self.session.out);
                        self.put(&mut out, handout, drained);
                        if !drained.begin.is_empty() || !drained.stop.is_empty() {
                            return false;
                        }
                    }
                    None => return true,
                }
            }
        };
        tokio::select! {
            biased;
            over = first => over,
            _ = newer => false,
            () = self.api.stop.cancelled() => false,
            // The timer is the event that is waited for.
            _ = tokio::time::timeout(POLL_MAX, std::future::pending::<()>()) => false,
        }
    }

    /// Takes what is in the channel; true if nothing will ever come again.
    fn drain(&self, inbox: &mut mpsc::UnboundedReceiver<Handout>, drained: &mut Drained) -> bool {
        let mut out = lock(&self.session.out);
        loop {
            match inbox.try_recv() {
                Ok(handout) => self.put(&mut out, handout, drained),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn put(&self, out: &mut Out, handout: Handout, drained: &mut Drained) {
        match handout {
            Handout::Begin(assignment) => {
                let key = assignment.birth.key.clone();
                let task = &assignment.dag.task(assignment.ti.task).id;
                let claim = ClaimName::of(&key, task, assignment.ti.map_index, assignment.fence);
                out.open.insert((key, assignment.ti, assignment.fence), claim.clone());
                let ticket = self.api.tokens.ticket(claim, assignment.ti.task);
                drained.begin.push(Begin::of(&assignment, ticket));
            }
            // Everybody is told of every void claim; only its holder hears of it.
            Handout::Stop { key, ti, fence } => {
                if let Some(claim) = out.open.get(&(key, ti, fence)) {
                    out.unseen.retain(|(_, begin)| begin.ticket.claim != *claim);
                    drained.begin.retain(|begin| begin.ticket.claim != *claim);
                    drained.stop.push(claim.clone());
                }
            }
        }
    }

    async fn report(&self, done: Done) -> Ack {
        match self.take(done).await {
            Ok(()) => Ack { status: 200, detail: None },
            Err(error) => Ack { status: error.status().as_u16(), detail: Some(error.detail().to_owned()) },
        }
    }

    async fn take(&self, Done { ticket, end }: Done) -> Result<(), ApiError> {
        genuine(&self.api, &ticket)?;
        let (key, ti, fence) = (ticket.claim.run_key()?, ticket.ti(), Fence(ticket.claim.fence));
        let session = self.session.id.clone();
        let report = Report { session, key: key.clone(), ti, fence, outcome: end.outcome()? };
        let taken = self.api.control.report(report).await.map_err(ApiError::from);
        // What can be said again is still open.
        if taken.as_ref().err().is_none_or(|error| !error.status().is_server_error()) {
            let mut out = lock(&self.session.out);
            out.open.remove(&(key, ti, fence));
            out.unseen.retain(|(_, begin)| begin.ticket.claim != ticket.claim);
        }
        taken
    }
}
