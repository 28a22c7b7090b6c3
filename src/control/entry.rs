//! One run as this process knows it: the value, what waits for it, and the write that is under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::aside::Refusals;
use super::load::Loaded;
use super::{Assignment, Refused, Reply, SharedOutputs};
use crate::core::dag::Dag;
use crate::core::ids::{Fence, Timestamp};
use crate::core::run::{Claim, Decision, Input, Refusal, Run, RunBirth, RunType, TaskInstance, TiRef};
use crate::core::state::{RunState, TaskState};

/// Who goes first: runs of backfills last, then the earlier logical date.
pub(super) type Rank = (bool, Timestamp);

/// An input that waits for a step.
pub(super) struct Posted {
    pub(super) input: Input,
    pub(super) reply: Option<Reply>,
    /// It was refused on a value that may have been old, and is judged once more on a fresh one.
    pub(super) again: bool,
}

impl Posted {
    pub(super) fn tick() -> Self {
        Self { input: Input::Tick, reply: None, again: false }
    }

    pub(super) fn answer(self, answer: Result<(), Refused>) {
        if let Some(reply) = self.reply
            && reply.send(answer).is_err()
        {
            tracing::debug!("who asked does not wait for the answer");
        }
    }
}

/// A step whose commit is under way.
pub(super) struct InFlight {
    /// What was applied: applied again if the commit is refused.
    pub(super) posted: Vec<Posted>,
    /// What follows.
    pub(super) decision: Arc<Decision>,
    /// When it was decided.
    pub(super) at: Timestamp,
}

/// What is being done for the run outside of this task.
pub(super) enum Stage {
    Idle,
    Loading,
    Measuring,
    Committing(InFlight),
}

/// The run itself, as of its last commit (or of the step that is being committed).
pub(super) struct Value {
    pub(super) dag: Arc<Dag>,
    pub(super) birth: Arc<RunBirth>,
    pub(super) run: Run,
    pub(super) outputs: SharedOutputs,
    triggers: Arc<str>,
}

impl Value {
    /// A run that has just been created, by hand.
    pub(super) fn new(run: Run, dag: Arc<Dag>) -> Self {
        Self::of(Loaded { run, dag, outputs: BTreeMap::new(), triggers: "".into() })
    }

    pub(super) fn of(loaded: Loaded) -> Self {
        let Loaded { run, dag, outputs, triggers } = loaded;
        let birth = Arc::new(run.birth.clone());
        Self { dag, birth, run, outputs: Arc::new(Mutex::new(outputs)), triggers }
    }

    /// What its worker must know of a claim.
    pub(super) fn assignment(&self, claim: &Claim) -> Assignment {
        Assignment {
            dag: self.dag.clone(),
            birth: self.birth.clone(),
            ti: claim.ti,
            fence: claim.fence,
            try_number: claim.try_number,
            outputs: self.outputs.clone(),
            triggers: self.triggers.clone(),
        }
    }

    /// Whether the claim stands as it was decided: then it is its worker's, though the answer to its commit was lost.
    pub(super) fn stands(&self, claim: &Claim) -> bool {
        let holds = |instance: &TaskInstance| {
            instance.state == TaskState::Running
                && instance.fence == claim.fence
                && instance.session.as_ref() == Some(&claim.session)
        };
        self.run.instance(claim.ti).is_some_and(holds)
    }
}

/// A run that this process knows of.
pub(super) struct Entry {
    /// `None` until it is loaded.
    pub(super) value: Option<Box<Value>>,
    /// The value before, while a newer one is loaded.
    old: Option<Box<Value>>,
    pub(super) stage: Stage,
    /// Waits for the next step.
    pub(super) inbox: Vec<Posted>,
    /// When to look again by the clock.
    pub(super) next_due: Option<Timestamp>,
    /// Claims of a commit that was refused when it was repeated: the first try may have been written.
    pub(super) unsure: Vec<Claim>,
    /// Commits that were refused, since one was taken.
    pub(super) refusals: Refusals,
    /// Who goes first, as the value said when it was last here.
    rank: Rank,
    followers: Vec<oneshot::Sender<RunState>>,
}

impl Entry {
    pub(super) fn new(value: Option<Value>) -> Self {
        let mut entry = Self {
            value: None,
            old: None,
            stage: Stage::Idle,
            inbox: Vec::new(),
            next_due: None,
            unsure: Vec::new(),
            refusals: Refusals::default(),
            rank: (false, Timestamp(i64::MIN)),
            followers: Vec::new(),
        };
        if let Some(value) = value {
            entry.put(value);
        }
        entry
    }

    pub(super) fn put(&mut self, value: Value) {
        self.rank = (value.birth.run_type == RunType::Backfill, value.birth.logical_date);
        self.value = Some(Box::new(value));
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// The value is old: the next step begins with a load.
    pub(super) fn forget(&mut self) {
        self.old = self.value.take().or(self.old.take());
    }

    /// Attempts that the value before this one had and `now` has not: another process ended them.
    pub(super) fn lost_claims(&mut self, now: &Value) -> Vec<(TiRef, Fence)> {
        let Some(old) = self.old.take() else { return Vec::new() };
        let held = |run: &Run, ti, fence| {
            run.instance(ti).is_some_and(|it| it.state == TaskState::Running && it.fence == fence)
        };
        let running = old.run.instances().filter(|(_, instance)| instance.state == TaskState::Running);
        let claims = running.map(|(ti, instance)| (ti, instance.fence));
        claims.filter(|&(ti, fence)| !held(&now.run, ti, fence)).collect()
    }

    pub(super) fn follow(&mut self, ended: oneshot::Sender<RunState>) {
        self.followers.push(ended);
    }

    /// Tells everybody who waits for the end; who no longer listens does not matter.
    pub(super) fn tell_end(&mut self, state: RunState) {
        for ended in self.followers.drain(..) {
            if ended.send(state).is_err() {
                tracing::debug!("nobody waits for the end of the run");
            }
        }
    }

    /// Whether nothing would be lost if the entry were dropped: the database can bring it back.
    pub(super) fn is_spare(&self) -> bool {
        let resting = |value: &Value| value.run.state.is_final() || value.run.state == RunState::Queued;
        self.is_idle()
            && self.inbox.is_empty()
            && self.followers.is_empty()
            && self.value.as_deref().is_none_or(resting)
    }

    pub(super) fn rank(&self) -> Rank {
        self.rank
    }
}

/// Answers those who wait. True if some were put back to be judged again on a fresh value: `committed` says
/// that the value they were judged on was the newest.
pub(super) fn judge(
    entry: &mut Entry,
    refused: &[(usize, Refusal)],
    posted: Vec<Posted>,
    committed: bool,
) -> bool {
    let mut refusals: BTreeMap<usize, &Refusal> = refused.iter().map(|(place, why)| (*place, why)).collect();
    let mut again = Vec::new();
    for (place, one) in posted.into_iter().enumerate() {
        match refusals.remove(&place) {
            None => one.answer(Ok(())),
            Some(_) if !committed && !one.again => again.push(Posted { again: true, ..one }),
            Some(refusal) => one.answer(Err(Refused::Input(refusal.clone()))),
        }
    }
    let any = !again.is_empty();
    entry.inbox.splice(0..0, again);
    any
}
