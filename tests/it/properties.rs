//! Random DAGs, random inputs, random room: what must hold after every step of the core, whatever happens.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::collections::BTreeSet;
use std::time::Duration;

use mainspring::core::dag::{Because, Dag, DagSettings, Edge, Expand, Task, TriggerRule};
use mainspring::core::ids::{DagHash, DagId, Fence, PoolName, RunId, RunKey, SessionId, TaskId, Timestamp};
use mainspring::core::run::{
    Capacity, Decision, Input, Outcome, Outputs, PoolUse, Run, RunBirth, RunType, Severity, TiRef,
    WorkerSlots,
};
use mainspring::core::state::{TaskState, legal_moves, legal_run_moves};
use mainspring::core::step::step;
use proptest::prelude::*;

/// Numbers that a test draws on; proptest shrinks them.
struct Dice<'a>(std::slice::Iter<'a, u32>);

impl Dice<'_> {
    fn below(&mut self, sides: usize) -> usize {
        self.0.next().map_or(0, |number| *number as usize % sides.max(1))
    }
}

fn random_dag(dice: &mut Dice<'_>) -> Dag {
    let count = 1 + dice.below(9);
    let mut tasks = Vec::new();
    let mut edges = Vec::new();
    for ix in 0..count {
        let mut task = Task::new(TaskId::parse(&format!("t{ix}")).unwrap(), "noop");
        task.trigger_rule = match dice.below(2) {
            0 => TriggerRule::AllSuccess,
            _ => TriggerRule::ALL[dice.below(TriggerRule::ALL.len())],
        };
        task.retry.retries = dice.below(3) as u32;
        task.retry.delay = Duration::from_secs(dice.below(20) as u64);
        task.pool_slots = 1 + dice.below(2) as u32;
        task.max_active_tis_per_dagrun = (dice.below(4) == 0).then_some(1);
        task.setup = dice.below(5) == 0;
        for upstream in 0..ix {
            if dice.below(3) == 0 {
                edges.push(Edge { upstream, downstream: ix, because: Because::Declared });
            }
        }
        match dice.below(6) {
            0 => task.expand = Some(Expand::Fixed(dice.below(4) as u32)),
            1 if ix > 0 => {
                let source = dice.below(ix);
                edges.push(Edge { upstream: source, downstream: ix, because: Because::Outputs });
                task.expand = Some(Expand::Output { task: source, key: "rows".to_owned() });
            }
            2 if ix > 0 => task.teardown_for = vec![dice.below(ix)],
            _ => {}
        }
        tasks.push(task);
    }
    let settings = DagSettings {
        max_active_tasks: 1 + dice.below(4) as u32,
        fail_fast: dice.below(5) == 0,
        dagrun_timeout: (dice.below(6) == 0).then_some(Duration::from_secs(40)),
        ..DagSettings::default()
    };
    Dag::new(DagId::parse("d").unwrap(), DagHash("0".into()), settings, tasks, edges).unwrap()
}

fn random_input(dice: &mut Dice<'_>, run: &Run, now: Timestamp) -> Input {
    let all: Vec<TiRef> = run.instances().map(|(ti, _)| ti).collect();
    let busy: Vec<TiRef> =
        run.instances().filter(|(_, it)| it.state.holds_slots()).map(|(ti, _)| ti).collect();
    let pick_from = if busy.is_empty() || dice.below(5) == 0 { &all } else { &busy };
    let ti = pick_from[dice.below(pick_from.len())];
    let current = run.instance(ti).unwrap().fence;
    let fence = if dice.below(8) == 0 { Fence(dice.below(4) as i64) } else { current };
    let outputs = Outputs {
        json: "{}".into(),
        list_lengths: vec![("rows".into(), dice.below(4) as u32)],
        ..Outputs::default()
    };
    let error = "boom".into();
    let outcome = match dice.below(12) {
        0..=3 => Outcome::Succeeded(outputs),
        4..=5 => Outcome::Failed { error, severity: Severity::Retryable },
        6 => Outcome::Failed { error, severity: Severity::Permanent },
        7 => Outcome::Skipped { why: "so".into() },
        8 => Outcome::Deferred { until: now.plus(Duration::from_secs(dice.below(9) as u64)) },
        9 => Outcome::Branched { chosen: Vec::new(), outputs },
        10 => Outcome::ShortCircuited { respect_trigger_rules: dice.below(2) == 0, outputs },
        _ => Outcome::Interrupted,
    };
    match dice.below(24) {
        0 => Input::Tick,
        1..=7 => Input::Claimed { ti, fence: current.next(), session: session(0) },
        8..=18 => Input::Reported { ti, fence, outcome },
        19 => Input::Lost { ti, fence },
        20..=21 => Input::Clear { tis: vec![ti] },
        22 => {
            let states = [TaskState::Success, TaskState::Failed, TaskState::Skipped];
            Input::Mark { tis: vec![ti], state: states[dice.below(3)] }
        }
        _ if dice.below(4) == 0 => Input::Cancel,
        _ => Input::Tick,
    }
}

fn random_room(dice: &mut Dice<'_>, dag: &Dag, run: &Run) -> Capacity {
    let mut room = Capacity::default();
    let held: u32 = run
        .instances()
        .filter(|(_, it)| it.state.holds_slots())
        .map(|(ti, _)| dag.task(ti.task).pool_slots)
        .sum();
    room.pools.insert(PoolName::parse("default_pool").unwrap(), PoolUse { size: POOL_SIZE, used: held });
    for worker in 0..dice.below(3) {
        room.workers.push(WorkerSlots {
            session: session(worker),
            free: dice.below(3) as u32,
            queues: vec![dag.tasks()[0].queue.clone()],
        });
    }
    room.paused = dice.below(10) == 0;
    room
}

const POOL_SIZE: u32 = 4;

fn session(number: usize) -> SessionId {
    SessionId::parse(&format!("worker_{number}")).unwrap()
}

fn new_run(dag: &Dag) -> Run {
    let at = Timestamp(0);
    let key = RunKey { dag_id: dag.id.clone(), run_id: RunId::parse("r").unwrap() };
    let birth = RunBirth {
        key,
        dag_hash: dag.hash.clone(),
        run_type: RunType::Manual,
        logical_date: at,
        data_interval_start: at,
        data_interval_end: at,
        params: "{}".into(),
        queued_at: at,
    };
    Run::new(birth, dag)
}

fn check(dag: &Dag, before: &Run, after: &Run, decision: &Decision, room: &Capacity) {
    assert!(after.index_is_right(dag), "the index has drifted");
    let mut seen = BTreeSet::new();
    let legal = legal_moves();
    for change in &decision.changes {
        assert!(seen.insert(change.ti), "two changes of {}", change.ti);
        assert!(legal.contains(&(change.from, change.to.state)), "{} -> {}", change.from, change.to.state);
        assert_eq!(Some(&change.to), after.instance(change.ti));
        if let Some(instance) = before.instance(change.ti) {
            assert_eq!((change.from, change.from_fence), (instance.state, instance.fence));
            assert!(change.to.fence >= instance.fence, "a fence has returned");
        }
    }
    for (ti, instance) in before.instances().filter(|(ti, _)| !seen.contains(ti)) {
        let unchanged = after.instance(ti).is_none_or(|now| now == instance);
        assert!(unchanged, "{ti} changed without a change");
    }
    if let Some(change) = &decision.run_change {
        assert!(legal_run_moves().contains(&(change.from, change.to)));
    } else {
        assert_eq!(before.state, after.state);
    }
    for (ti, instance) in after.instances() {
        let waits = matches!(instance.state, TaskState::UpForRetry | TaskState::Deferred);
        assert_eq!(instance.resume_at.is_some(), waits, "{ti}");
        assert_eq!(instance.ended_at.is_some(), instance.state.is_final(), "{ti}");
        assert_eq!(instance.session.is_some(), instance.state == TaskState::Running, "{ti}");
        assert!(instance.try_number <= dag.task(ti.task).retry.retries + 1, "{ti} was tried too often");
    }
    assert_eq!(
        after.state.is_final(),
        after.instances().all(|(_, it)| it.state.is_final()) && after.state.is_final()
    );
    let holding: Vec<_> =
        after.instances().filter(|(_, it)| it.state.holds_slots()).map(|(ti, _)| ti).collect();
    assert!(holding.len() <= dag.settings.max_active_tasks as usize, "max_active_tasks");
    let slots: u32 = holding.iter().map(|ti| dag.task(ti.task).pool_slots).sum();
    assert!(slots <= POOL_SIZE, "the pool is overfull: {slots}");
    for (ix, task) in dag.tasks().iter().enumerate() {
        let here = holding.iter().filter(|ti| ti.task == ix).count();
        assert!(task.max_active_tis_per_dagrun.is_none_or(|limit| here <= limit as usize), "task limit");
    }
    for worker in &room.workers {
        let claimed = decision.claims.iter().filter(|claim| claim.session == worker.session).count();
        assert!(claimed <= worker.free as usize, "more claims than free slots");
    }
    let at_hand = |session: &SessionId| room.workers.iter().any(|worker| worker.session == *session);
    assert!(decision.claims.iter().all(|claim| at_hand(&claim.session)), "a claim for nobody");
}

/// Left alone, with every claim answered by success, the run ends.
fn finish(dag: &Dag, run: &mut Run, mut now: Timestamp) {
    let mut inputs = Vec::new();
    for _ in 0..1_000 {
        let held: u32 = run
            .instances()
            .filter(|(_, it)| it.state.holds_slots())
            .map(|(ti, _)| dag.task(ti.task).pool_slots)
            .sum();
        let mut room = Capacity::default();
        room.pools.insert(PoolName::parse("default_pool").unwrap(), PoolUse { size: POOL_SIZE, used: held });
        let queues = vec![dag.tasks()[0].queue.clone()];
        room.workers = vec![WorkerSlots { session: session(0), free: 100, queues }];
        let before = run.clone();
        let decision = step(dag, run, &inputs, &room, now);
        check(dag, &before, run, &decision, &room);
        if run.state.is_final() {
            assert!(run.instances().all(|(_, it)| it.state.is_final()));
            return;
        }
        let running = run.instances().filter(|(_, it)| it.state == TaskState::Running);
        inputs = running
            .map(|(ti, it)| {
                let outputs = Outputs {
                    json: "{}".into(),
                    list_lengths: vec![("rows".into(), 2)],
                    ..Outputs::default()
                };
                Input::Reported { ti, fence: it.fence, outcome: Outcome::Succeeded(outputs) }
            })
            .collect();
        if inputs.is_empty() {
            now = now.max(decision.next_due.expect("an unfinished run has a driver"));
        }
    }
    panic!("the run does not end: {run:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold_and_a_run_left_alone_ends(numbers in prop::collection::vec(any::<u32>(), 0..700)) {
        let mut dice = Dice(numbers.iter());
        let dag = random_dag(&mut dice);
        let mut run = new_run(&dag);
        let mut now = Timestamp(0);
        while dice.0.len() > 0 {
            now = now.plus(Duration::from_secs(dice.below(6) as u64));
            let inputs: Vec<_> = (0..1 + dice.below(3)).map(|_| random_input(&mut dice, &run, now)).collect();
            let room = random_room(&mut dice, &dag, &run);
            let before = run.clone();
            let decision = step(&dag, &mut run, &inputs, &room, now);
            check(&dag, &before, &run, &decision, &room);
            let again = step(&dag, &mut before.clone(), &inputs, &room, now);
            assert_eq!(decision, again, "equal arguments, another answer");
        }
        finish(&dag, &mut run, now);
    }
}
