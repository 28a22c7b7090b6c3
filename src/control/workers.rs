//! The workers enlisted with this process: who has free slots, and the way to each.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;

use super::{Handout, Worker};
use crate::core::ids::{Fence, QueueName, RunKey, SessionId};
use crate::core::run::{TiRef, WorkerSlots};

struct Enlisted {
    worker: Worker,
    handouts: mpsc::UnboundedSender<Handout>,
}

/// Everybody who takes hand-outs.
#[derive(Default)]
pub(super) struct Workers {
    by_session: BTreeMap<SessionId, Enlisted>,
}

impl Workers {
    pub(super) fn enlist(&mut self, worker: Worker, handouts: mpsc::UnboundedSender<Handout>) {
        self.by_session.insert(worker.session.clone(), Enlisted { worker, handouts });
    }

    pub(super) fn dismiss(&mut self, session: &SessionId) {
        self.by_session.remove(session);
    }

    pub(super) fn offer(&mut self, session: &SessionId, free: u32) {
        if let Some(enlisted) = self.by_session.get_mut(session) {
            enlisted.worker.free = free;
        }
    }

    /// An attempt of the session has ended.
    pub(super) fn ended(&mut self, session: &SessionId) {
        if let Some(enlisted) = self.by_session.get_mut(session)
            && enlisted.worker.counted
        {
            enlisted.worker.free += 1;
        }
    }

    /// A claim was decided: its slot is taken.
    pub(super) fn take(&mut self, session: &SessionId) {
        if let Some(enlisted) = self.by_session.get_mut(session) {
            enlisted.worker.free = enlisted.worker.free.saturating_sub(1);
        }
    }

    /// A claim came to nothing: its slot is free again.
    pub(super) fn give_back(&mut self, session: &SessionId) {
        if let Some(enlisted) = self.by_session.get_mut(session) {
            enlisted.worker.free += 1;
        }
    }

    pub(super) fn free(&self) -> u32 {
        self.by_session.values().fold(0, |sum, enlisted| sum.saturating_add(enlisted.worker.free))
    }

    /// Queues that somebody with a free slot serves.
    pub(super) fn free_queues(&self) -> BTreeSet<QueueName> {
        let free = self.by_session.values().filter(|enlisted| enlisted.worker.free > 0);
        free.flat_map(|enlisted| enlisted.worker.queues.iter().cloned()).collect()
    }

    /// Free slots as a step is told of them.
    pub(super) fn slots(&self) -> Vec<WorkerSlots> {
        let free = self.by_session.values().filter(|enlisted| enlisted.worker.free > 0);
        let slots = |enlisted: &Enlisted| WorkerSlots {
            session: enlisted.worker.session.clone(),
            free: enlisted.worker.free,
            queues: enlisted.worker.queues.clone(),
        };
        free.map(slots).collect()
    }

    /// Hands out to one worker. One that has gone is forgotten; its lease will run out, and the claim comes
    /// back as lost.
    pub(super) fn hand_out(&mut self, session: &SessionId, handout: Handout) {
        let gone = match self.by_session.get(session) {
            Some(enlisted) => enlisted.handouts.send(handout).is_err(),
            None => false,
        };
        if gone {
            tracing::warn!(%session, "a worker has gone without a word");
            self.by_session.remove(session);
        }
    }

    /// Tells everybody that a claim is void; whoever has it stops.
    pub(super) fn stop(&mut self, key: &RunKey, ti: TiRef, fence: Fence) {
        let stop = || Handout::Stop { key: key.clone(), ti, fence };
        self.by_session.retain(|_, enlisted| enlisted.handouts.send(stop()).is_ok());
    }
}
