//! The world that a seed stands for: how many of everybody, which DAGs, and which faults when.

use std::sync::Arc;

use crate::core::ids::DagId;

use super::calendar::Calendar;
use super::dags::{POOLS, pool, random_dag};
use super::people::{Fault, Faults};
use super::random::Dice;
use super::scheduler::Scheduler;
use super::store::{DagRow, Store};
use super::trace::Trace;
use super::worker::Worker;
use super::world::{BEGIN, Event, SECOND, World};

/// Makes the world of `seed`.
pub(super) fn world(seed: u64, trace: Trace) -> World {
    let mut dice = Dice::new(seed);
    let faults = random_faults(&mut dice);
    let sizes = [1 + dice.below(3) as u32, 2 + dice.below(5) as u32];
    let mut store = Store::new(POOLS.iter().zip(sizes).map(|(name, size)| (pool(name), size)).collect());
    let trouble = dice.between(40 * SECOND, 150 * SECOND);
    for number in 0..1 + dice.below(3) {
        store.dags.push(random_row(&mut dice, number, sizes, trouble));
    }
    let mut world = World::new(dice, faults, store, trace);
    let (schedulers, workers) = (1 + world.dice.below(3), 1 + world.dice.below(3));
    for s in 0..schedulers {
        let skew = if world.faults.clocks_differ { world.dice.between(-8 * SECOND, 8 * SECOND) } else { 0 };
        world.schedulers.push(Scheduler { skew, ..Scheduler::default() });
        world.start_scheduler(s);
    }
    for w in 0..workers {
        let slots = 1 + world.dice.below(4);
        world.workers.push(Worker::with_slots(slots));
        world.start_worker(w);
    }
    let after = world.dice.between(0, 10 * SECOND);
    world.put(after, Event::Person);
    plan_faults(&mut world, trouble);
    world.put(trouble, Event::Calm);
    world
}

/// Each kind of fault is there or not, and then more or less of it.
fn random_faults(dice: &mut Dice) -> Faults {
    let mut some = |most: i64| if dice.percent(50) { dice.between(1, most).unsigned_abs() as u32 } else { 0 };
    Faults {
        loss_percent: some(12),
        double_percent: some(15),
        slow_percent: some(6),
        answer_lost_percent: some(12),
        long_percent: some(15),
        clocks_differ: some(10) > 5,
    }
}

fn random_row(dice: &mut Dice, number: usize, sizes: [u32; 2], trouble: i64) -> DagRow {
    let name = if dice.percent(20) { format!("d{number}past") } else { format!("d{number}") };
    let dag = random_dag(dice, &name, 0, sizes);
    let every = dice.between(15, 60) * SECOND;
    let calendar = Calendar {
        start: BEGIN + dice.between(-60, 20) * SECOND,
        every,
        end: if dice.percent(80) { BEGIN + trouble - 10 * SECOND } else { BEGIN - 200 * SECOND },
        catchup: dice.percent(50),
    };
    DagRow {
        id: DagId::parse(&name).expect("a generated name is valid"),
        versions: vec![Arc::new(dag)],
        latest: 0,
        paused: false,
        calendar,
        cursor: None,
        skipped: Vec::new(),
    }
}

fn plan_faults(world: &mut World, trouble: i64) {
    let kinds: Vec<usize> = (0..8).filter(|_| world.dice.percent(50)).collect();
    if kinds.is_empty() {
        return;
    }
    for _ in 0..world.dice.below(9) {
        let at = world.dice.between(0, trouble - SECOND);
        let (schedulers, workers) = (world.schedulers.len(), world.workers.len());
        let s = world.dice.below(schedulers);
        let w = world.dice.below(workers);
        let fault = match *world.dice.pick(&kinds) {
            0 => Fault::SchedulerCrashes(s),
            1 | 2 => Fault::WorkerCrashes(w),
            3 => Fault::WorkerLeaves(w),
            4 => Fault::WorkerCutOff(w),
            5 => Fault::DatabaseAway,
            6 if world.faults.clocks_differ => {
                let far = if world.dice.percent(20) { 120 } else { 20 };
                Fault::ClockSteps(s, world.dice.between(-far, far) * SECOND)
            }
            _ => {
                let dags = world.store.dags.len();
                Fault::Edit(world.dice.below(dags))
            }
        };
        world.put(at, Event::Break(fault));
    }
}
