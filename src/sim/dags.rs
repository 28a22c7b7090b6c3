//! DAGs as chance makes them: chains, layers, diamonds and webs, with every rule and every limit.

use std::time::Duration;

use crate::core::dag::{Because, Dag, DagSettings, Edge, Expand, Task, TaskIx, TriggerRule, WeightRule};
use crate::core::ids::{DagHash, DagId, PoolName, QueueName, TaskId};

use super::random::Dice;

/// The queues that tasks name.
pub(super) const QUEUES: [&str; 2] = ["default", "heavy"];
/// The pools that tasks name; the last has no limit.
pub(super) const POOLS: [&str; 3] = ["narrow", "wide", "default_pool"];
/// The key under which attempts leave a list.
pub(super) const LIST: &str = "rows";
const TASKS_MAX: usize = 9;

/// A queue by its name.
pub(super) fn queue(name: &str) -> QueueName {
    QueueName::parse(name).expect("the constant is a valid name")
}

/// A pool by its name.
pub(super) fn pool(name: &str) -> PoolName {
    PoolName::parse(name).expect("the constant is a valid name")
}

/// Version `version` of the DAG called `name`, for pools of these sizes. One whose name ends in `past` has tasks
/// that wait for the run before.
pub(super) fn random_dag(dice: &mut Dice, name: &str, version: usize, pool_sizes: [u32; 2]) -> Dag {
    let looks_back = name.ends_with("past");
    let count = 1 + dice.below(TASKS_MAX);
    let edges = random_edges(dice, count);
    let scoped = dice.percent(25);
    let mut tasks: Vec<Task> = Vec::new();
    let mut all_edges = edges.clone();
    for ix in 0..count {
        let mut task = random_task(dice, ix, pool_sizes);
        if looks_back && dice.percent(40) {
            task.depends_on_past = true;
            task.wait_for_downstream = dice.percent(30);
        }
        let upstream: Vec<TaskIx> =
            edges.iter().filter(|edge| edge.downstream == ix).map(|edge| edge.upstream).collect();
        if scoped {
            scope(dice, &mut task, &tasks, ix);
        }
        if task.teardown_for.is_empty() && dice.percent(20) {
            task.expand = Some(random_list(dice, &upstream, ix, &mut all_edges));
        } else if edges.iter().any(|edge| edge.upstream == ix) && dice.percent(20) {
            task.kind = if dice.percent(60) { "branch" } else { "short_circuit" }.into();
        }
        tasks.push(task);
    }
    let settings = DagSettings {
        max_active_runs: 1 + dice.below(3) as u32,
        max_active_tasks: if dice.percent(70) { 16 } else { 1 + dice.below(3) as u32 },
        fail_fast: dice.percent(12),
        dagrun_timeout: dice.percent(12).then(|| seconds(dice.between(20, 90))),
        ..DagSettings::default()
    };
    let id = DagId::parse(name).expect("a generated name is valid");
    let hash = DagHash(format!("{name}-v{version}").into());
    Dag::new(id, hash, settings, tasks, all_edges).expect("edges lead forward only")
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.unsigned_abs())
}

fn declared(upstream: TaskIx, downstream: TaskIx) -> Edge {
    Edge { upstream, downstream, because: Because::Declared }
}

fn random_edges(dice: &mut Dice, count: usize) -> Vec<Edge> {
    let mut edges = Vec::new();
    match dice.below(4) {
        0 => edges.extend((1..count).map(|ix| declared(ix - 1, ix))),
        1 => {
            let width = 1 + dice.below(3);
            for ix in width..count {
                let layer = ix / width * width;
                edges.extend((layer - width..layer).map(|upstream| declared(upstream, ix)));
            }
        }
        2 => {
            // A diamond: the first leads to all, all lead to the last.
            for ix in 1..count {
                edges.push(declared(0, ix));
                if ix + 1 < count {
                    edges.push(declared(ix, count - 1));
                }
            }
        }
        _ => {
            for downstream in 1..count {
                for upstream in 0..downstream {
                    if dice.percent(35) {
                        edges.push(declared(upstream, downstream));
                    }
                }
            }
        }
    }
    edges
}

fn random_task(dice: &mut Dice, ix: usize, pool_sizes: [u32; 2]) -> Task {
    let mut task = Task::new(TaskId::parse(&format!("t{ix}")).expect("a valid name"), "noop");
    if dice.percent(45) {
        task.trigger_rule = *dice.pick(TriggerRule::ALL);
    }
    task.retry.retries = dice.below(3) as u32;
    task.retry.delay = seconds(dice.between(0, 12));
    task.retry.exponential_backoff = if dice.percent(30) { 2.0 } else { 0.0 };
    task.retry.delay_max = seconds(40);
    let place = dice.below(POOLS.len());
    task.pool = pool(POOLS[place]);
    if let Some(&size) = pool_sizes.get(place) {
        task.pool_slots = 1 + dice.below(size as usize) as u32;
    }
    task.queue = queue(if dice.percent(75) { QUEUES[0] } else { QUEUES[1] });
    task.priority_weight = dice.between(1, 5) as i32;
    task.weight_rule = *dice.pick(WeightRule::ALL);
    task.execution_timeout = dice.percent(20).then(|| seconds(dice.between(3, 20)));
    task.max_active_tis_per_dagrun = dice.percent(15).then_some(1);
    task.max_active_tis_per_dag = dice.percent(10).then_some(1);
    task
}

/// Makes the task a setup, or the teardown of one that is there.
fn scope(dice: &mut Dice, task: &mut Task, before: &[Task], ix: usize) {
    let setups: Vec<TaskIx> = (0..ix).filter(|&other| before[other].setup).collect();
    if setups.is_empty() {
        task.setup = dice.percent(50);
    } else if dice.percent(35) {
        task.teardown_for = vec![*dice.pick(&setups)];
    }
}

fn random_list(dice: &mut Dice, upstream: &[TaskIx], ix: TaskIx, edges: &mut Vec<Edge>) -> Expand {
    if upstream.is_empty() || dice.percent(50) {
        return Expand::Fixed(dice.below(4) as u32);
    }
    let source = *dice.pick(upstream);
    edges.push(Edge { upstream: source, downstream: ix, because: Because::Outputs });
    Expand::Output { task: source, key: LIST.to_owned() }
}
