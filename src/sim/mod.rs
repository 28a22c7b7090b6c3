//! The simulator: schedulers, workers, people, a network and a store in one thread, on a clock that is a
//! number, with faults that one seed decides. Schedulers step runs by the real [`core::step`](crate::core::step);
//! the store is a model that writes under the real one's guards.
//!
//! A seed stands for a world: some DAGs with schedules, one to three schedulers and workers, and a few minutes
//! of trouble. Messages are late, lost, doubled and out of order; processes crash between any two events, so
//! between a decision and its commit, between a commit and its hand-out; answers of commits are lost; workers
//! are cut off; clocks step; the database goes away; people clear, mark, cancel, pause, trigger and edit.
//! Then all faults stop, and everything must come to its end. The same seed gives the same history, hash for
//! hash.
//!
//! # Invariants
//! Checked after every step:
//!
//! | | what must hold |
//! |---|---|
//! | I1 | a scheduled instant and a name have one run |
//! | I2 | an attempt begins once, under a fence that was committed for its session; fences rise; a claim has one accepted outcome |
//! | I3 | an attempt ends by its own report or is given up for a stated cause, and then its fence is void; one is given up as lost only when its lease is over, and then nobody is still at it |
//! | I4 | what is final stays as it is unless a person clears or marks it; every move is in the table |
//! | I5 | whatever begins, is skipped or fails by its upstreams does so as its trigger rule says, by the version of the DAG that the run is pinned to |
//! | I6 | the state of a run is what the states of its tasks say |
//! | I7 | whatever is not final has something that drives it; without faults everything becomes final within [`PATIENCE_SECONDS`] |
//! | I8 | pools, active runs, active tasks and workers' slots are within their limits at every instant |
//! | I9 | the journal, folded, gives the rows; the rows are what the step left |
//! | I10 | what people must hear is in the outbox, once, and arrives; nothing else arrives |
//! | I12 | every scheduled instant up to the cursor was fired or noted as skipped, once |
//! | I13 | what a caller was told is so |
//! | retries, losses | an attempt that failed, and only that, uses a retry; the third loss poisons |

mod calendar;
mod campaign;
mod carry;
mod check;
mod dags;
mod door;
mod ledger;
pub mod month;
mod notice;
mod oracle;
mod people;
mod random;
mod room;
mod rows;
mod scenario;
mod scheduler;
mod setup;
mod situation;
mod store;
mod trace;
mod worker;
mod world;

pub use campaign::Tally;
#[cfg(debug_assertions)]
pub use campaign::{Kill, hunt};
pub use check::Violation;
pub use situation::{Seen, Situation};

use trace::Trace;
use world::{SECOND, World};

/// After the end of all faults, how long everything may take to become final, in simulated seconds.
pub const PATIENCE_SECONDS: i64 = 30 * 60;
/// The most events of one seed: beyond it something turns in a circle.
const EVENTS_MAX: u64 = 200_000;

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Of everything that happened: the same seed gives the same hash.
    pub trace_hash: u64,
    /// Events that happened.
    pub events: u64,
    /// Simulated time, in seconds.
    pub simulated_seconds: i64,
    /// Situations that occurred.
    pub seen: Seen,
    /// The first invariant that broke.
    pub violation: Option<Violation>,
    /// What happened, line by line, if it was asked for.
    pub lines: Vec<String>,
    /// The run in which an invariant broke, in the language of `tests/scenarios/`.
    pub scenario: Option<String>,
}

/// Whether the history is to be written down for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The hash alone: fast.
    Hashed,
    /// Every line.
    Written,
}

/// Lets the world of `seed` happen, up to its end or the first invariant that breaks.
#[must_use]
pub fn run(seed: u64, history: History) -> Outcome {
    let mut world = setup::world(seed, Trace::new(history == History::Written));
    let mut calm_since = None;
    while world.check.violation.is_none() {
        if !world.turn() || world.trace.events > EVENTS_MAX {
            world.check.broken("I7", None, format!("{} events and no end", world.trace.events));
        }
        if world.is_calm {
            let since = *calm_since.get_or_insert(world.now);
            if world.is_at_rest() {
                world.check.finish(&world.store);
                break;
            }
            if world.now - since > PATIENCE_SECONDS * SECOND {
                let (run, text) = world.what_is_left();
                world.check.broken("I7", run, text);
            }
        }
    }
    outcome(seed, world)
}

fn outcome(seed: u64, world: World) -> Outcome {
    let simulated_seconds = world.since_begin() / SECOND;
    let violation = world.check.violation.clone();
    let run = violation.as_ref().and_then(|violation| violation.run).filter(|_| world.trace.is_written());
    let scenario = run.map(|run| world.scenario(run));
    Outcome {
        seed,
        trace_hash: world.trace.hash,
        events: world.trace.events,
        simulated_seconds,
        seen: world.seen,
        violation,
        lines: world.trace.into_lines(),
        scenario,
    }
}

impl World {
    /// Whether nothing is left to happen: no run open, no instant to fire, no letter and no report under way.
    fn is_at_rest(&self) -> bool {
        let cursor_is_over =
            |row: &store::DagRow| row.calendar.is_over(row.cursor) || row.calendar.end < row.calendar.start;
        self.store.open.is_empty()
            && self.store.dags.iter().all(cursor_is_over)
            && self.store.outbox.values().all(|delivered| *delivered)
            && self.workers.iter().all(|worker| worker.unanswered.is_empty())
    }

    /// What keeps the world from its rest, for a person.
    fn what_is_left(&self) -> (Option<store::RunNo>, String) {
        if let Some(&run) = self.store.open.first() {
            let value = self.store.load(run);
            let row = &self.store.runs[run];
            let room = self.room(0, run);
            let open = value.instances().filter(|(_, it)| !it.state.is_final());
            let reasons: Vec<String> = open
                .take(4)
                .map(|(ti, it)| {
                    let why = crate::core::why::why(&row.pinned, &value, &room, ti, self.clock(0));
                    format!("{} is `{}`, {why}", scenario::instance_name(&row.pinned, ti), it.state)
                })
                .collect();
            return (Some(run), format!("run {run} is `{}` for ever: {}", value.state, reasons.join("; ")));
        }
        let late: Vec<_> = self
            .store
            .dags
            .iter()
            .filter(|row| !row.calendar.is_over(row.cursor))
            .map(|row| row.id.to_string())
            .collect();
        if !late.is_empty() {
            return (None, format!("instants of {late:?} are never fired"));
        }
        (None, "a letter is never delivered, or a report never answered".to_owned())
    }
}
