//! The store as a model: the rows, their unique keys, and the guards under which the real one writes them.
//! It decides nothing.
//!
//! One method is one transaction: all of it or nothing. What it must hold is what `store::commit` holds: the
//! version of the run, state and fence of every instance that moves, pools and active runs counted again under
//! their lock, one letter per key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::dag::Dag;
use crate::core::ids::{DagId, Fence, PoolName, RunId, RunKey, SessionId, TaskId, Timestamp};
use crate::core::mutant::{self, Mutant};
use crate::core::run::{
    Decision, Input, RestoredRun, Run, RunBirth, RunChange, RunType, TaskInstance, TiRef,
};
use crate::core::state::{RunState, TaskState};

use super::calendar::Calendar;
use super::rows::{admits, expand, instance_mut, keep_lists};
pub(super) use super::rows::{instance, instances, letter_keys, scheduled_id};
use super::worker::LEASE;

/// A DAG's place in [`Store::dags`].
pub(super) type DagNo = usize;
/// A run's place in [`Store::runs`].
pub(super) type RunNo = usize;
/// A worker session's number; its name follows from it.
pub(super) type SessionNo = usize;
/// One claim: the run, the instance, the fence.
pub(super) type Holding = (RunNo, TiRef, Fence);

/// The row of a DAG.
pub(super) struct DagRow {
    pub(super) id: DagId,
    /// Every version there ever was.
    pub(super) versions: Vec<Arc<Dag>>,
    /// The one that new runs get.
    pub(super) latest: usize,
    pub(super) paused: bool,
    pub(super) calendar: Calendar,
    /// The last instant that was fired or skipped.
    pub(super) cursor: Option<i64>,
    /// Instants that a policy left out.
    pub(super) skipped: Vec<i64>,
}

/// The row of a run with those of its instances.
pub(super) struct RunRow {
    pub(super) dag: DagNo,
    /// The version it is pinned to.
    pub(super) pinned: Arc<Dag>,
    pub(super) rows: RestoredRun,
    /// The scheduled instant it was made for.
    pub(super) instant: Option<i64>,
    pub(super) next_due: Option<Timestamp>,
    pub(super) journal: Vec<Line>,
}

/// A line of a run's journal: one move of one instance.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) ti: TiRef,
    pub(super) from: TaskState,
    pub(super) from_fence: Fence,
    pub(super) to: TaskState,
    pub(super) fence: Fence,
}

/// A worker session.
#[derive(Debug, Clone)]
pub(super) struct SessionRow {
    pub(super) worker: usize,
    pub(super) lease_until: Timestamp,
    pub(super) closed: bool,
}

/// A decision on its way to the store, with what the checks ask about it.
pub(super) struct Commit {
    /// Rises with every commit that is sent.
    pub(super) number: u64,
    pub(super) by: usize,
    pub(super) run: RunNo,
    pub(super) expected_version: i64,
    pub(super) inputs: Vec<Input>,
    pub(super) decision: Decision,
    /// The version of the DAG the decision was made by.
    pub(super) dag: Arc<Dag>,
    /// The run as the step left it.
    pub(super) after: RestoredRun,
}

/// Why a transaction was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Something is not as the decision assumed: load, step, commit again.
    Conflict(&'static str),
    /// The database cannot be reached, or the answer did not come.
    Away,
}

/// The rows.
pub(super) struct Store {
    pub(super) dags: Vec<DagRow>,
    pub(super) runs: Vec<RunRow>,
    /// Runs that are not final.
    pub(super) open: BTreeSet<RunNo>,
    keys: BTreeMap<(DagNo, RunId), RunNo>,
    pub(super) sessions: BTreeMap<SessionNo, SessionRow>,
    /// Letters by their key; true once delivered.
    pub(super) outbox: BTreeMap<String, bool>,
    /// Sizes of the pools that have a limit, in the order of their names.
    pub(super) pools: Vec<(PoolName, u32)>,
    /// The database is down.
    pub(super) is_away: bool,
    /// The database's own clock, by which leases are judged.
    pub(super) clock: Timestamp,
}

/// The name of a session.
pub(super) fn session_id(number: SessionNo) -> SessionId {
    SessionId::parse(&format!("s{number}")).expect("a letter and a number are a valid name")
}

/// The number of a session.
pub(super) fn session_no(id: &SessionId) -> SessionNo {
    id.as_str()[1..].parse().expect("sessions are named by `session_id`")
}

impl Store {
    pub(super) fn new(pools: Vec<(PoolName, u32)>) -> Self {
        Self {
            dags: Vec::new(),
            runs: Vec::new(),
            open: BTreeSet::new(),
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            outbox: BTreeMap::new(),
            pools,
            is_away: false,
            clock: Timestamp(super::world::BEGIN),
        }
    }

    /// The run as a value, as `store::load_run` makes it.
    pub(super) fn load(&self, run: RunNo) -> Run {
        let row = &self.runs[run];
        Run::restore(row.rows.clone(), &row.pinned)
    }

    /// A run that is made by hand; the one that is there already, if the name is taken.
    pub(super) fn create(&mut self, dag: DagNo, run_id: &RunId, now: Timestamp) -> RunNo {
        if let Some(&there) = self.keys.get(&(dag, run_id.clone())) {
            return there;
        }
        self.insert(dag, run_id.clone(), None, now)
    }

    fn insert(&mut self, dag: DagNo, run_id: RunId, instant: Option<i64>, now: Timestamp) -> RunNo {
        let row = &self.dags[dag];
        let pinned = row.versions[row.latest].clone();
        let logical_date = instant.map_or(now, Timestamp);
        let birth = RunBirth {
            key: RunKey { dag_id: row.id.clone(), run_id: run_id.clone() },
            dag_hash: pinned.hash.clone(),
            run_type: if instant.is_some() { RunType::Scheduled } else { RunType::Manual },
            logical_date,
            data_interval_start: logical_date,
            data_interval_end: logical_date,
            params: "{}".into(),
            queued_at: now,
        };
        let number = self.runs.len();
        let rows = Run::new(birth, &pinned).rows();
        self.runs.push(RunRow { dag, pinned, rows, instant, next_due: None, journal: Vec::new() });
        self.open.insert(number);
        self.keys.insert((dag, run_id), number);
        number
    }

    /// Makes the runs of these instants, notes those that are skipped and moves the cursor: one transaction,
    /// under the guard that the cursor is where it was seen.
    pub(super) fn fire(
        &mut self,
        dag: DagNo,
        seen: Option<i64>,
        due: &super::calendar::Due,
        now: Timestamp,
    ) -> Result<Vec<RunNo>, Refused> {
        if self.is_away {
            return Err(Refused::Away);
        }
        if self.dags[dag].cursor != seen && !mutant::is(Mutant::CursorGoesBack) {
            return Err(Refused::Conflict("the cursor has moved"));
        }
        let mut made = Vec::new();
        for &instant in &due.fire {
            let taken = self.runs.iter().any(|run| run.dag == dag && run.instant == Some(instant));
            if taken && mutant::is(Mutant::CursorApart) {
                return Err(Refused::Conflict("unique key"));
            }
            if !taken {
                made.extend(self.scheduled(dag, instant, now));
            }
        }
        // Some of the second transactions never come.
        if mutant::is(Mutant::CursorApart) && now.0 / 1_000_000 % 5 == 0 {
            return Ok(made);
        }
        let row = &mut self.dags[dag];
        row.skipped.extend(&due.skip);
        row.cursor = due.cursor;
        Ok(made)
    }

    /// The run of an instant. Its name may have been taken by hand: the instant still gets its run.
    pub(super) fn scheduled(&mut self, dag: DagNo, instant: i64, now: Timestamp) -> Option<RunNo> {
        let mut name = scheduled_id(instant, "");
        if self.keys.contains_key(&(dag, name.clone())) {
            if mutant::is(Mutant::ManualTakesInstant) {
                return None;
            }
            name = scheduled_id(instant, ".scheduled");
        }
        Some(self.insert(dag, name, Some(instant), now))
    }

    /// Registers a session; false if the name was ever used.
    pub(super) fn open_session(&mut self, number: SessionNo, worker: usize) -> bool {
        let lease_until = self.clock.plus(LEASE);
        if self.sessions.contains_key(&number) && !mutant::is(Mutant::SessionNameReused) {
            return false;
        }
        self.sessions.insert(number, SessionRow { worker, lease_until, closed: false });
        true
    }

    /// Prolongs a lease that has not run out.
    pub(super) fn heartbeat(&mut self, number: SessionNo) -> bool {
        let (now, until) = (self.clock, self.clock.plus(LEASE));
        let Some(row) = self.sessions.get_mut(&number) else { return false };
        let ended = row.lease_until <= now && !mutant::is(Mutant::ExpiredLeaseRenewed);
        if row.closed || ended {
            return false;
        }
        row.lease_until = until;
        true
    }

    /// Whether a session may be given work.
    pub(super) fn is_live(&self, number: SessionNo) -> bool {
        self.sessions.get(&number).is_some_and(|row| !row.closed && row.lease_until > self.clock)
    }

    /// Running instances whose session is closed, unknown, or past its lease.
    pub(super) fn expired(&self) -> Vec<Holding> {
        let mut lost = Vec::new();
        let early = if mutant::is(Mutant::LeaseCutShort) { LEASE * 3 / 5 } else { Duration::ZERO };
        let now = self.clock.plus(early);
        for (run, ti, instance) in self.held() {
            let holder = instance.session.as_ref().map(session_no).and_then(|no| self.sessions.get(&no));
            let gone = holder.is_none_or(|session| {
                (session.closed && !mutant::is(Mutant::ClosedSessionForgotten))
                    || (!session.closed && session.lease_until <= now)
            });
            if gone {
                lost.push((run, ti, instance.fence));
            }
        }
        lost
    }

    /// What a session holds, as the rows say.
    pub(super) fn held_by(&self, number: SessionNo) -> Vec<(Holding, u32)> {
        let name = session_id(number);
        let mine = self.held().filter(|(_, _, it)| it.session.as_ref() == Some(&name));
        mine.map(|(run, ti, it)| ((run, ti, it.fence), it.try_number)).collect()
    }

    /// Everything that runs, as the rows say.
    pub(super) fn running(&self) -> Vec<Holding> {
        self.held().map(|(run, ti, it)| (run, ti, it.fence)).collect()
    }

    fn held(&self) -> impl Iterator<Item = (RunNo, TiRef, &TaskInstance)> {
        let instances = self
            .open
            .iter()
            .flat_map(|&run| instances(&self.runs[run].rows).map(move |(ti, it)| (run, ti, it)));
        instances.filter(|(_, _, it)| it.state == TaskState::Running)
    }

    /// Whether this claim stands.
    pub(super) fn stands(&self, (run, ti, fence): Holding) -> bool {
        instance(&self.runs[run].rows.tasks, ti)
            .is_some_and(|it| it.state == TaskState::Running && it.fence == fence)
    }

    /// Writes a decision; the new version.
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<i64, Refused> {
        if self.is_away {
            return Err(Refused::Away);
        }
        let row = &self.runs[commit.run];
        let decision = &commit.decision;
        let by_id = mutant::is(Mutant::WriteById);
        let blind = by_id || mutant::is(Mutant::StaleValueCommitted);
        if row.rows.version != commit.expected_version && !blind {
            return Err(Refused::Conflict("version"));
        }
        let mut tasks = row.rows.tasks.clone();
        expand(&mut tasks, decision);
        for change in &decision.changes {
            let Some(instance) = instance_mut(&mut tasks, change.ti) else {
                return Err(Refused::Conflict("no such instance"));
            };
            if (instance.state, instance.fence) != (change.from, change.from_fence) && !by_id {
                return Err(Refused::Conflict("state or fence"));
            }
            *instance = change.to.clone();
        }
        if let Some(change) = &decision.run_change
            && change.from != row.rows.state
            && !by_id
        {
            return Err(Refused::Conflict("state of the run"));
        }
        self.count_runs(commit)?;
        self.open.insert(commit.run);
        let before = std::mem::replace(&mut self.runs[commit.run].rows.tasks, tasks);
        if let Err(refused) = self.count_slots(commit).and_then(|()| self.count_instances(commit)) {
            self.runs[commit.run].rows.tasks = before;
            if self.runs[commit.run].rows.state.is_final() {
                self.open.remove(&commit.run);
            }
            return Err(refused);
        }
        Ok(self.write(commit))
    }

    fn write(&mut self, commit: &Commit) -> i64 {
        let row = &mut self.runs[commit.run];
        let decision = &commit.decision;
        row.rows.version = row.rows.version.max(commit.expected_version) + 1;
        for change in &decision.changes {
            row.journal.push(Line {
                ti: change.ti,
                from: change.from,
                from_fence: change.from_fence,
                to: change.to.state,
                fence: change.to.fence,
            });
        }
        if let Some(change) = &decision.run_change {
            row.rows.state = change.to;
            (row.rows.started_at, row.rows.ended_at) = (change.started_at, change.ended_at);
            row.rows.with_failures = change.with_failures;
            if change.to.is_final() {
                self.open.remove(&commit.run);
            } else {
                self.open.insert(commit.run);
            }
        }
        keep_lists(&mut row.rows, decision);
        row.next_due = decision.next_due;
        let key = row.rows.birth.key.clone();
        let version = row.rows.version;
        for letter in letter_keys(&key, version, decision) {
            self.outbox.entry(letter).or_insert(false);
        }
        version
    }

    /// Active runs of the DAG, counted again by whoever starts one.
    fn count_runs(&self, commit: &Commit) -> Result<(), Refused> {
        let starts = |change: &RunChange| change.to == RunState::Running && change.from != RunState::Running;
        if !commit.decision.run_change.as_ref().is_some_and(starts) || mutant::is(Mutant::RunLimitIgnored) {
            return Ok(());
        }
        let row = &self.runs[commit.run];
        if self.active_runs(row.dag) >= row.pinned.settings.max_active_runs {
            return Err(Refused::Conflict("active runs"));
        }
        Ok(())
    }

    /// Instances of tasks with a limit over all runs that this commit admits, counted again with it.
    fn count_instances(&self, commit: &Commit) -> Result<(), Refused> {
        for change in commit.decision.changes.iter().filter(|change| admits(change)) {
            let row = &self.runs[commit.run];
            let task = row.pinned.task(change.ti.task);
            let limit = task.max_active_tis_per_dag.unwrap_or(u32::MAX);
            if limit < u32::MAX && self.instances_of(row.dag, &task.id) > limit as usize {
                return Err(Refused::Conflict("task limit"));
            }
        }
        Ok(())
    }

    /// Instances of a task that hold slots, over all runs of its DAG.
    pub(super) fn instances_of(&self, dag: DagNo, task: &TaskId) -> usize {
        let runs = self.open.iter().map(|&run| &self.runs[run]).filter(|row| row.dag == dag);
        let of_run = |row: &RunRow| {
            let Some(ix) = row.pinned.find(task) else { return 0 };
            row.rows.tasks[ix].iter(ix).filter(|(_, it)| it.state.holds_slots()).count()
        };
        runs.map(of_run).sum()
    }

    /// Runs of a DAG that are active.
    pub(super) fn active_runs(&self, dag: DagNo) -> u32 {
        let active = self
            .open
            .iter()
            .filter(|&&run| self.runs[run].dag == dag && self.runs[run].rows.state == RunState::Running);
        u32::try_from(active.count()).expect("a seed has few runs")
    }

    /// Slots of the pools that this commit admits into, counted again with it.
    fn count_slots(&self, commit: &Commit) -> Result<(), Refused> {
        if mutant::is(Mutant::PoolIgnored) {
            return Ok(());
        }
        let pinned = &self.runs[commit.run].pinned;
        let into: BTreeSet<_> = commit
            .decision
            .changes
            .iter()
            .filter(|change| admits(change))
            .map(|c| &pinned.task(c.ti.task).pool)
            .collect();
        let full = self
            .pools
            .iter()
            .filter(|(pool, _)| into.contains(pool))
            .any(|(pool, size)| self.slots_used(pool) > u64::from(*size));
        if full { Err(Refused::Conflict("pool")) } else { Ok(()) }
    }

    /// Slots of a pool that are held, over all runs.
    pub(super) fn slots_used(&self, pool: &PoolName) -> u64 {
        let mut used = 0;
        for &run in &self.open {
            let row = &self.runs[run];
            for (ti, _) in instances(&row.rows).filter(|(_, it)| it.state.holds_slots()) {
                let task = row.pinned.task(ti.task);
                if task.pool == *pool {
                    used += u64::from(task.pool_slots);
                }
            }
        }
        used
    }
}
