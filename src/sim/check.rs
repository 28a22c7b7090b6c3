//! The invariants, checked after every step, from the outside: on what was committed, what workers began, what
//! callers were told and what receivers got.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::dag::Dag;
use crate::core::ids::{Fence, PoolName, RunId};
use crate::core::run::{Capacity, Decision, RestoredRun, TiRef};
use crate::core::state::TaskState;

use super::store::{Commit, DagNo, Holding, RunNo, SessionNo, Store, instances};
use super::world::{BEGIN, Node};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one, as the docs of `sim` number them.
    pub invariant: &'static str,
    /// What was found.
    pub text: String,
    /// The run it was found in.
    pub(super) run: Option<RunNo>,
}

/// What was seen so far, and the first invariant that broke.
#[derive(Default)]
pub(super) struct Checker {
    pub(super) violation: Option<Violation>,
    /// The journal, folded: where it says that each instance stands.
    pub(super) folded: BTreeMap<(RunNo, TiRef), (TaskState, Fence)>,
    /// Committed claims, with who holds them.
    pub(super) claims: BTreeMap<Holding, SessionNo>,
    /// Claims whose outcome was committed.
    pub(super) accepted: BTreeSet<Holding>,
    /// Claims that were given up with their worker.
    pub(super) lost: BTreeSet<Holding>,
    /// Since the last clear: attempts that failed, and attempts that were lost.
    pub(super) tallies: BTreeMap<(RunNo, TiRef), (u32, u32)>,
    /// Attempts that workers began.
    begun: BTreeSet<Holding>,
    /// Attempts that workers are at.
    at_work: BTreeMap<(RunNo, TiRef), Vec<(Fence, Node)>>,
    /// Letters that must be there, and letters that arrived.
    pub(super) letters: BTreeSet<String>,
    arrived: BTreeSet<String>,
    acknowledged: BTreeSet<(DagNo, RunId)>,
    pub(super) losses_by_pool: BTreeMap<PoolName, u64>,
}

impl Checker {
    /// Notes the first violation.
    pub(super) fn broken(&mut self, invariant: &'static str, run: Option<RunNo>, text: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, text, run });
        }
    }

    pub(super) fn demand(
        &mut self,
        holds: bool,
        invariant: &'static str,
        run: RunNo,
        text: impl FnOnce() -> String,
    ) {
        if !holds {
            self.broken(invariant, Some(run), text());
        }
    }

    /// What the step decided is within what it was given.
    pub(super) fn decided(&mut self, dag: &Dag, after: &RestoredRun, decision: &Decision, room: &Capacity) {
        for worker in &room.workers {
            let taken = decision.claims.iter().filter(|claim| claim.session == worker.session).count();
            if taken > worker.free as usize {
                let text = format!("{taken} claims for a worker with {} free slots", worker.free);
                self.broken("I8", None, text);
            }
            let serves = |ti: TiRef| worker.queues.contains(&dag.task(ti.task).queue);
            let strange =
                decision.claims.iter().any(|claim| claim.session == worker.session && !serves(claim.ti));
            if strange {
                self.broken("I8", None, "a claim of a queue that the worker does not serve".to_owned());
            }
        }
        let Some(previous) = &room.previous else { return };
        for change in decision
            .changes
            .iter()
            .filter(|change| change.to.state.holds_slots() && !change.from.holds_slots())
        {
            let task = dag.task(change.ti.task);
            let stands = previous.states.get(&task.id);
            let passes = stands.is_none_or(|state| matches!(state, TaskState::Success | TaskState::Skipped));
            if (task.depends_on_past || task.wait_for_downstream) && !passes {
                let text = format!("`{}` begins over a past that is {stands:?}", task.id);
                self.broken("I5", None, text);
            }
        }
        debug_assert_eq!(after.tasks.len(), dag.tasks().len(), "the run is one of this DAG");
    }

    /// A worker begins an attempt. Nobody may still be at one that was given up as lost.
    pub(super) fn began(&mut self, w: Node, session: SessionNo, holding: Holding) {
        let (run, ti, fence) = holding;
        let holder = self.claims.get(&holding).copied();
        self.demand(holder == Some(session), "I2", run, || {
            format!("w{w} begins {ti} under fence {} that its session {session} does not hold", fence.0)
        });
        let is_first = self.begun.insert(holding);
        self.demand(is_first, "I2", run, || format!("{ti} is begun twice under fence {}", fence.0));
        let others = self.at_work.entry((run, ti)).or_default().clone();
        for (other, at) in others {
            let is_over = !self.lost.contains(&(run, ti, other));
            self.demand(is_over, "I3", run, || {
                format!("w{w} begins {ti} under fence {} while w{at} is at it under {}", fence.0, other.0)
            });
        }
        self.at_work.entry((run, ti)).or_default().push((fence, w));
    }

    /// A session is renewed, or not. One whose lease has run out never lives again.
    pub(super) fn renewed(&mut self, session: SessionNo, was_live: bool, lives: bool) {
        if lives && !was_live {
            self.broken("I3", None, format!("the lease of session {session} had run out and is renewed"));
        }
    }

    /// A worker stops an attempt, however it ended.
    pub(super) fn ended(&mut self, w: Node, (run, ti, fence): Holding) {
        if let Some(all) = self.at_work.get_mut(&(run, ti)) {
            all.retain(|&it| it != (fence, w));
        }
    }

    /// A worker is told how its report was taken.
    pub(super) fn answered(&mut self, store: &Store, holding: Holding, taken: bool) {
        let (run, ti, fence) = holding;
        let was_accepted = self.accepted.contains(&holding);
        let text = |what: &str| format!("the report on {ti} under fence {} is answered `{what}`", fence.0);
        if taken {
            self.demand(was_accepted, "I13", run, || text("taken") + ", and no outcome of it was committed");
            return;
        }
        self.demand(!store.stands(holding), "I13", run, || text("stale") + ", and its claim stands");
        let current = super::store::instance(&store.runs[run].rows.tasks, ti).map(|it| it.fence);
        let is_moved_on = !was_accepted || current != Some(fence);
        self.demand(is_moved_on, "I13", run, || text("stale") + ", and it was taken before");
    }

    pub(super) fn was_lost(&self, holding: Holding) -> bool {
        self.lost.contains(&holding)
    }

    /// Losses of tasks of a pool.
    pub(super) fn losses_in(&self, pool: &PoolName) -> u64 {
        self.losses_by_pool.get(pool).copied().unwrap_or(0)
    }

    /// A letter arrives; false if it came before.
    pub(super) fn received(&mut self, key: &str) -> bool {
        if !self.letters.contains(key) {
            self.broken("I10", None, format!("letter `{key}` tells of what was never committed"));
        }
        self.arrived.insert(key.to_owned())
    }

    /// A person was told that the run exists.
    pub(super) fn acknowledged(&mut self, store: &Store, dag: DagNo, run_id: &RunId) {
        self.acknowledged.insert((dag, run_id.clone()));
        self.created(store);
    }

    /// One run per name and one per scheduled instant.
    pub(super) fn created(&mut self, store: &Store) {
        let Some(newest) = store.runs.last() else { return };
        let number = store.runs.len() - 1;
        let same = |it: &&super::store::RunRow| {
            let twins = newest.instant.is_some() && it.instant == newest.instant;
            it.dag == newest.dag && (twins || it.rows.birth.key == newest.rows.birth.key)
        };
        let twin = store.runs[..number].iter().find(same);
        if let Some(twin) = twin {
            let text = format!("`{}` was made twice", twin.rows.birth.key.run_id);
            self.broken("I1", Some(number), text);
        }
    }

    /// Every instant up to the cursor was fired or skipped, once.
    pub(super) fn fired(&mut self, store: &Store, dag: DagNo) {
        let row = &store.dags[dag];
        let of_dag = store.runs.iter().filter(|run| run.dag == dag);
        let mut found: Vec<i64> =
            of_dag.filter_map(|run| run.instant).chain(row.skipped.iter().copied()).collect();
        found.sort_unstable();
        let upto = |at: &i64| row.cursor.is_some_and(|cursor| *at <= cursor);
        let expected: Vec<i64> = row.calendar.instants().take_while(upto).collect();
        if found != expected {
            let seconds = |all: &[i64]| all.iter().map(|at| (at - BEGIN) / 1_000_000).collect::<Vec<_>>();
            let text = format!(
                "d{dag}: fired or skipped at seconds {:?}, expected {:?}",
                seconds(&found),
                seconds(&expected)
            );
            self.broken("I12", None, text);
        }
    }

    /// Every end has its cause, and so on: what one commit may do. See `committed` in `ledger`.
    pub(super) fn committed(&mut self, store: &Store, commit: &Commit) {
        let row = &store.runs[commit.run];
        let run = commit.run;
        self.demand(commit.dag.hash == row.rows.birth.dag_hash, "I5", run, || {
            format!("stepped by {:?}, pinned to {:?}", commit.dag.hash, row.rows.birth.dag_hash)
        });
        self.book(store, commit);
        self.judge(store, commit);
        self.limits(store, commit);
        self.letters_of(store, commit);
    }

    /// At the end, when everything has come to rest.
    pub(super) fn finish(&mut self, store: &Store) {
        for (number, run) in store.runs.iter().enumerate() {
            for (ti, it) in instances(&run.rows) {
                let folded = self.folded.get(&(number, ti)).copied().unwrap_or(AT_BIRTH);
                self.demand(folded == (it.state, it.fence), "I9", number, || {
                    format!("the journal says {folded:?} of {ti}, its row {:?}", (it.state, it.fence))
                });
            }
        }
        for dag in 0..store.dags.len() {
            self.fired(store, dag);
        }
        for (dag, run_id) in self.acknowledged.clone() {
            if !store.runs.iter().any(|run| run.dag == dag && run.rows.birth.key.run_id == run_id) {
                self.broken("I13", None, format!("`{run_id}` was acknowledged and is not there"));
            }
        }
        let kept: BTreeSet<String> = store.outbox.keys().cloned().collect();
        if kept != self.letters {
            let strange: Vec<_> = kept.symmetric_difference(&self.letters).collect();
            self.broken("I10", None, format!("the outbox and what should be told differ: {strange:?}"));
        }
        if kept != self.arrived {
            let strange: Vec<_> = kept.symmetric_difference(&self.arrived).collect();
            self.broken("I10", None, format!("the outbox and what arrived differ: {strange:?}"));
        }
    }
}

/// Where an instance stands that the journal does not speak of.
pub(super) const AT_BIRTH: (TaskState, Fence) = (TaskState::None, Fence(0));
