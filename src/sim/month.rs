//! A stretch of one DAG's schedule on a simulated clock: its runs as the scheduler would create and step them,
//! with tasks that take a moment and succeed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::dag::{Dag, Expand, TaskIx};
use crate::core::ids::{Fence, RunId, RunKey, SessionId, Timestamp};
use crate::core::run::{
    Capacity, Input, Outcome, Outputs, PreviousRun, Run, RunBirth, RunType, TiRef, WorkerSlots,
};
use crate::core::state::{RunState, TaskState};
use crate::core::step::step;
use crate::core::timetable::{Fire, Skipped};

/// How long every attempt takes.
pub const ATTEMPT: Duration = Duration::from_secs(60);
/// The length of every list that a task is mapped over.
pub const LIST_LENGTH: u32 = 3;
/// Slots of the one worker.
const SLOTS: u32 = 16;
/// Runs that one look at the schedule creates.
const FIRES_MAX: usize = 100;

/// One run as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Its name.
    pub run_id: RunId,
    /// The moment it stands for.
    pub logical_date: Timestamp,
    /// When its schedule fired.
    pub queued_at: Timestamp,
    /// When it got its place among the active runs.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub state: RunState,
    /// Its task instances.
    pub instances: usize,
}

/// What a stretch of time would bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Runs, in the order of their creation.
    pub runs: Vec<Replayed>,
    /// Instants that the schedule leaves out.
    pub skipped: Vec<Skipped>,
}

struct Driven {
    run: Run,
    next_due: Option<Timestamp>,
    /// Attempts at work, with their ends.
    at_work: BTreeMap<TiRef, (Timestamp, Fence)>,
}

struct Stretch<'a> {
    dag: &'a Dag,
    now: Timestamp,
    runs: Vec<Driven>,
    /// Runs that are not final.
    open: BTreeSet<usize>,
    /// What every success leaves: a list under each name that some task is mapped over.
    left: Outputs,
}

/// Replays the schedule of `dag` from `from` for `span`; runs that are created in it are followed to their ends.
#[must_use]
pub fn replay(dag: &Dag, from: Timestamp, span: Duration) -> Replay {
    let lists = dag.tasks().iter().filter_map(|task| match &task.expand {
        Some(Expand::Output { key, .. }) => Some((key.as_str().into(), LIST_LENGTH)),
        Some(Expand::Fixed(_)) | None => None,
    });
    let left = Outputs { json: "{}".into(), list_lengths: lists.collect(), ..Outputs::default() };
    let mut stretch = Stretch { dag, now: from, runs: Vec::new(), open: BTreeSet::new(), left };
    let (end, mut cursor, mut skipped) = (from.plus(span), None, Vec::new());
    let mut next_fire = Some(from);
    while let Some(now) = next_fire.filter(|&at| at < end).into_iter().chain(stretch.next()).min() {
        stretch.now = now.max(stretch.now);
        if next_fire.is_some_and(|at| at <= now && at < end) {
            let due = dag.settings.schedule.due(cursor, from, now, FIRES_MAX);
            (cursor, next_fire) = (due.cursor, due.next);
            skipped.extend(due.skipped);
            for fire in &due.fires {
                stretch.create(fire);
            }
        }
        stretch.step_all();
    }
    let runs = stretch.runs.iter().map(|driven| replayed(&driven.run)).collect();
    Replay { runs, skipped }
}

fn replayed(run: &Run) -> Replayed {
    Replayed {
        run_id: run.birth.key.run_id.clone(),
        logical_date: run.birth.logical_date,
        queued_at: run.birth.queued_at,
        started_at: run.started_at,
        ended_at: run.ended_at,
        state: run.state,
        instances: run.instances().count(),
    }
}

impl Stretch<'_> {
    /// When something happens to a run by itself.
    fn next(&self) -> Option<Timestamp> {
        let of_run = |&run: &usize| {
            let driven = &self.runs[run];
            let ends = driven.at_work.values().map(|(end, _)| *end);
            ends.chain(driven.next_due).min()
        };
        self.open.iter().filter_map(of_run).min()
    }

    fn create(&mut self, fire: &Fire) {
        let name = format!("scheduled__{}", fire.logical_date);
        let birth = RunBirth {
            key: RunKey {
                dag_id: self.dag.id.clone(),
                run_id: RunId::parse(&name).expect("a time makes a valid id"),
            },
            dag_hash: self.dag.hash.clone(),
            run_type: RunType::Scheduled,
            logical_date: fire.logical_date,
            data_interval_start: fire.data_interval_start,
            data_interval_end: fire.data_interval_end,
            params: "{}".into(),
            queued_at: self.now,
        };
        self.open.insert(self.runs.len());
        let run = Run::new(birth, self.dag);
        self.runs.push(Driven { run, next_due: None, at_work: BTreeMap::new() });
    }

    /// Steps every open run until nothing more follows at this moment: an end may make room for another run.
    fn step_all(&mut self) {
        loop {
            let mut has_moved = false;
            for run in self.open.clone() {
                has_moved |= self.step(run);
            }
            if !has_moved {
                return;
            }
        }
    }

    fn step(&mut self, place: usize) -> bool {
        let (room, now) = (self.room(place), self.now);
        let driven = &mut self.runs[place];
        let over: Vec<(TiRef, Fence)> =
            driven.at_work.iter().filter(|(_, (end, _))| *end <= now).map(|(ti, (_, f))| (*ti, *f)).collect();
        let report = |&(ti, fence): &(TiRef, Fence)| Input::Reported {
            ti,
            fence,
            outcome: Outcome::Succeeded(self.left.clone()),
        };
        let inputs: Vec<Input> = over.iter().map(report).collect();
        for (ti, _) in &over {
            driven.at_work.remove(ti);
        }
        let decision = step(self.dag, &mut driven.run, &inputs, &room, now);
        for (ti, _) in &decision.revoked {
            driven.at_work.remove(ti);
        }
        for claim in &decision.claims {
            driven.at_work.insert(claim.ti, (now.plus(ATTEMPT), claim.fence));
        }
        driven.next_due = decision.next_due.filter(|&at| at > now);
        if driven.run.state.is_final() {
            self.open.remove(&place);
        }
        !decision.is_empty()
    }

    fn room(&self, place: usize) -> Capacity {
        let others = || self.open.iter().filter(move |&&run| run != place).map(|&run| &self.runs[run]);
        let at_work: usize = self.open.iter().map(|&run| self.runs[run].at_work.len()).sum();
        let worker = WorkerSlots {
            session: SessionId::parse("replay").expect("a word is a valid name"),
            free: SLOTS.saturating_sub(u32::try_from(at_work).unwrap_or(u32::MAX)),
            queues: self.dag.tasks().iter().map(|task| task.queue.clone()).collect(),
        };
        let active = others().filter(|driven| driven.run.state == RunState::Running).count();
        let holding = |ix: TaskIx| {
            let held = others().flat_map(move |driven| driven.run.tasks[ix].iter(ix));
            u32::try_from(held.filter(|(_, it)| it.state.holds_slots()).count()).unwrap_or(u32::MAX)
        };
        let limited = |ix: &TaskIx| self.dag.task(*ix).max_active_tis_per_dag.is_some();
        Capacity {
            workers: vec![worker],
            other_active_runs: u32::try_from(active).unwrap_or(u32::MAX),
            other_active_tis: (0..self.dag.tasks().len())
                .filter(limited)
                .map(|ix| (ix, holding(ix)))
                .collect(),
            earlier_waits: self
                .open
                .iter()
                .any(|&run| run < place && self.runs[run].run.state == RunState::Queued)
                && self.dag.tasks().iter().any(|task| task.depends_on_past || task.wait_for_downstream),
            previous: place.checked_sub(1).map(|before| self.states_of(&self.runs[before].run)),
            ..Capacity::default()
        }
    }

    fn states_of(&self, run: &Run) -> PreviousRun {
        let mut previous = PreviousRun::default();
        for (ti, it) in run.instances() {
            let worst = previous.states.entry(self.dag.task(ti.task).id.clone()).or_insert(it.state);
            if matches!(worst, TaskState::Success | TaskState::Skipped) {
                *worst = it.state;
            }
        }
        previous
    }
}
