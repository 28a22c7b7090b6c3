//! Makes the value of a run from its rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::dag::{Dag, TaskIx};
use crate::core::ids::Timestamp;
use crate::core::run::{Instances, Run, RunBirth, TaskInstance};
use crate::core::state::RunState;

/// What the rows of a run say.
pub(super) struct RestoredRun {
    pub(super) birth: RunBirth,
    pub(super) state: RunState,
    pub(super) version: i64,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) with_failures: bool,
    pub(super) tasks: Vec<Instances>,
    pub(super) list_lengths: BTreeMap<(TaskIx, Arc<str>), u32>,
}

/// A run as it is created.
pub(super) fn new_run(birth: RunBirth, dag: &Dag) -> Run {
    let instances = |task: &crate::core::dag::Task| match task.expand {
        Some(_) => Instances::Unexpanded(TaskInstance::new()),
        None => Instances::One(TaskInstance::new()),
    };
    let rows = RestoredRun {
        birth,
        state: RunState::Queued,
        version: 0,
        started_at: None,
        ended_at: None,
        with_failures: false,
        tasks: dag.tasks().iter().map(instances).collect(),
        list_lengths: BTreeMap::new(),
    };
    restore_run(rows, dag)
}

/// A run as it was left.
pub(super) fn restore_run(rows: RestoredRun, _dag: &Dag) -> Run {
    let RestoredRun { birth, state, version, started_at, ended_at, with_failures, tasks, list_lengths } =
        rows;
    Run { birth, state, version, started_at, ended_at, with_failures, tasks, list_lengths }
}
