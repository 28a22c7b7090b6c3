//! Outcomes that no server has taken yet, in the order in which they came.

use std::collections::VecDeque;

use crate::control::wire::{Ack, Done, End, Left};

/// An exchange carries at most so many outcomes, and about so many bytes of what they left.
const REPORTS_MAX: usize = 1024;
const BYTES_MAX: usize = 4 << 20;

/// See the head of the file.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Done>,
}

fn size(done: &Done) -> usize {
    let left = |left: &Left| left.json.len() + left.list_lengths.len() * 32;
    512 + match &done.end {
        End::Succeeded { left: of }
        | End::Branched { left: of, .. }
        | End::ShortCircuited { left: of, .. } => left(of),
        End::Failed { error: text, .. } | End::Skipped { why: text } => text.len(),
        End::Deferred { .. } | End::Interrupted => 0,
    }
}

impl Outbox {
    pub(super) fn new(waiting: VecDeque<Done>) -> Self {
        Self { waiting }
    }

    pub(super) fn put(&mut self, done: Done) {
        self.waiting.push_back(done);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// As many as one exchange carries.
    pub(super) fn take(&mut self) -> Vec<Done> {
        let mut bytes = 0;
        let mut count = 0;
        for done in self.waiting.iter().take(REPORTS_MAX) {
            bytes += size(done);
            if count > 0 && bytes > BYTES_MAX {
                break;
            }
            count += 1;
        }
        self.waiting.drain(..count).collect()
    }

    /// They were not heard.
    pub(super) fn put_back(&mut self, carried: Vec<Done>) {
        for done in carried.into_iter().rev() {
            self.waiting.push_front(done);
        }
    }

    /// Keeps what has to be said again; answers what is settled, taken or refused.
    pub(super) fn settle(&mut self, carried: Vec<Done>, acks: &[Ack]) -> Vec<Done> {
        let mut settled = Vec::with_capacity(carried.len());
        let mut again = Vec::new();
        for (place, done) in carried.into_iter().enumerate() {
            match acks.get(place) {
                Some(ack) if ack.status < 500 => {
                    if let Some(why) = &ack.detail {
                        let claim = &done.ticket.claim;
                        tracing::info!(
                            run = claim.run_id,
                            task = claim.task_id,
                            why,
                            "an outcome does not count"
                        );
                    }
                    settled.push(done);
                }
                Some(_) | None => again.push(done),
            }
        }
        self.put_back(again);
        settled
    }

    pub(super) fn into_waiting(self) -> VecDeque<Done> {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::{ClaimName, Ticket};

    fn done(fence: i64, bytes: usize) -> Done {
        let claim =
            ClaimName { dag_id: "d".into(), run_id: "r".into(), task_id: "t".into(), map_index: -1, fence };
        let left = Left { json: "x".repeat(bytes), ..Left::default() };
        Done { ticket: Ticket { claim, task: 0, token: String::new() }, end: End::Succeeded { left } }
    }

    fn fences(all: &[Done]) -> Vec<i64> {
        all.iter().map(|done| done.ticket.claim.fence).collect()
    }

    #[test]
    fn what_was_not_heard_is_said_again_first_and_in_order() {
        let mut outbox = Outbox::default();
        (1..=4).for_each(|fence| outbox.put(done(fence, 0)));
        let carried = outbox.take();
        outbox.put(done(5, 0));
        let ack = |status| Ack { status, detail: None };
        let settled = outbox.settle(carried, &[ack(200), ack(503), ack(409)]);
        assert_eq!(fences(&settled), [1, 3], "taken or refused for good");
        assert_eq!(fences(&outbox.take()), [2, 4, 5]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_exchange_carries_a_bounded_load_and_at_least_one() {
        let mut outbox = Outbox::default();
        outbox.put(done(1, BYTES_MAX * 2));
        (2..=4).for_each(|fence| outbox.put(done(fence, BYTES_MAX / 2)));
        assert_eq!(fences(&outbox.take()), [1]);
        assert_eq!(fences(&outbox.take()), [2]);
        assert_eq!(fences(&outbox.take()), [3]);
    }
}
