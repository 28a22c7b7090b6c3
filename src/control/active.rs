//! One run that is being driven: the value, what waits for it, and what it holds of the shared room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::SharedOutputs;
use super::room::Held;
use crate::core::dag::Dag;
use crate::core::ids::Timestamp;
use crate::core::run::{Decision, Input, Run, RunBirth, TiRef};
use crate::core::state::RunState;

/// A step whose commit is under way.
pub(super) struct InFlight {
    /// What was applied: applied again if the commit is refused.
    pub(super) inputs: Vec<Input>,
    /// What follows.
    pub(super) decision: Arc<Decision>,
    /// When it was decided.
    pub(super) at: Timestamp,
}

/// One run that is being driven.
pub(super) struct Active {
    pub(super) dag: Arc<Dag>,
    pub(super) birth: Arc<RunBirth>,
    pub(super) run: Run,
    pub(super) outputs: SharedOutputs,
    /// Waits for the next step.
    pub(super) inbox: Vec<Input>,
    pub(super) in_flight: Option<InFlight>,
    /// When to look again by the clock.
    pub(super) next_due: Option<Timestamp>,
    /// What it holds of pools and limits, as after the last step.
    pub(super) held: Held,
    ended: Vec<oneshot::Sender<RunState>>,
}

impl Active {
    pub(super) fn new(
        run: Run,
        dag: Arc<Dag>,
        outputs: BTreeMap<TiRef, Arc<str>>,
        ended: oneshot::Sender<RunState>,
    ) -> Self {
        Self {
            birth: Arc::new(run.birth.clone()),
            held: Held::of(&dag, &run),
            dag,
            run,
            outputs: Arc::new(Mutex::new(outputs)),
            inbox: vec![Input::Tick],
            in_flight: None,
            next_due: None,
            ended: vec![ended],
        }
    }

    /// Another caller waits for the end of the same run.
    pub(super) fn also_tell(&mut self, ended: oneshot::Sender<RunState>) {
        self.ended.push(ended);
    }

    /// Tells everybody who waits; who no longer listens does not matter.
    pub(super) fn tell_end(&mut self) {
        for ended in self.ended.drain(..) {
            if ended.send(self.run.state).is_err() {
                tracing::debug!(run = %self.birth.key.run_id, "nobody waits for the end of the run");
            }
        }
    }
}
