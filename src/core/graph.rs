//! What follows from the edges alone: order, cycles, priorities, the scope of setups. Computed once, when a
//! DAG is made; knows nothing of runs.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graph::{DiGraph, NodeIndex};

use super::dag::{Task, TaskIx, WeightRule};
use super::ids::TaskId;

/// All that comes after `from`, without it.
pub(super) fn reach(from: TaskIx, next: &[Vec<TaskIx>]) -> BTreeSet<TaskIx> {
    let mut seen = BTreeSet::new();
    let mut todo: Vec<TaskIx> = next[from].clone();
    while let Some(ix) = todo.pop() {
        if seen.insert(ix) {
            todo.extend(&next[ix]);
        }
    }
    seen
}

/// Every task after all its upstreams, ties in ascending order; `None` if there is a cycle.
pub(super) fn topological_order(upstream: &[Vec<TaskIx>], downstream: &[Vec<TaskIx>]) -> Option<Vec<TaskIx>> {
    let mut missing: Vec<usize> = upstream.iter().map(Vec::len).collect();
    let mut ready: std::collections::BinaryHeap<_> =
        (0..missing.len()).filter(|&ix| missing[ix] == 0).map(std::cmp::Reverse).collect();
    let mut order = Vec::with_capacity(missing.len());
    while let Some(std::cmp::Reverse(ix)) = ready.pop() {
        order.push(ix);
        for &down in &downstream[ix] {
            missing[down] -= 1;
            if missing[down] == 0 {
                ready.push(std::cmp::Reverse(down));
            }
        }
    }
    (order.len() == missing.len()).then_some(order)
}

/// One round trip inside a strongly connected component that has one.
pub(super) fn cycle_path(tasks: &[Task], downstream: &[Vec<TaskIx>]) -> Vec<TaskId> {
    let mut graph = DiGraph::<(), (), usize>::default();
    for _ in tasks {
        graph.add_node(());
    }
    for (up, down) in
        downstream.iter().enumerate().flat_map(|(up, all)| all.iter().map(move |&down| (up, down)))
    {
        graph.add_edge(NodeIndex::new(up), NodeIndex::new(down), ());
    }
    let name = |n: NodeIndex<usize>| tasks[n.index()].id.clone();
    for component in petgraph::algo::tarjan_scc(&graph) {
        let members: BTreeSet<_> = component.iter().copied().collect();
        let Some(&start) = members.first() else { continue };
        let inside = |n: NodeIndex<usize>| {
            let mut next: Vec<_> = graph.neighbors(n).filter(|m| members.contains(m)).collect();
            next.sort_unstable();
            next
        };
        if members.len() == 1 && inside(start).is_empty() {
            continue;
        }
        let mut path = vec![start];
        let mut seen = BTreeSet::from([start]);
        loop {
            let here = path[path.len() - 1];
            let next = inside(here);
            if let Some(&again) = next.iter().find(|n| seen.contains(n)) {
                let begin = path.iter().position(|&n| n == again).expect("it was seen on the path");
                let mut names: Vec<_> = path[begin..].iter().map(|&n| name(n)).collect();
                names.push(name(again));
                return names;
            }
            let step = next[0];
            seen.insert(step);
            path.push(step);
        }
    }
    unreachable_cycle(tasks)
}

/// Only a graph without a topological order asks for its cycle.
fn unreachable_cycle(tasks: &[Task]) -> Vec<TaskId> {
    panic!("no cycle among {} tasks that have no order", tasks.len())
}

/// Beyond this many tasks, summing descendants would cost more than the ordering is worth; the heaviest
/// path to an end takes its place.
const EXACT_PRIORITY_TASKS_MAX: usize = 5_000;

/// The priority of each task under its own weight rule.
pub(super) fn priorities(
    tasks: &[Task],
    topological: &[TaskIx],
    upstream: &[Vec<TaskIx>],
    downstream: &[Vec<TaskIx>],
) -> Vec<i64> {
    let asked = |rule| tasks.iter().any(|task| task.weight_rule == rule);
    let forward = || topological.iter().copied();
    let after = asked(WeightRule::Downstream).then(|| weights(tasks, forward().rev(), downstream));
    let before = asked(WeightRule::Upstream).then(|| weights(tasks, forward(), upstream));
    let sum = |sums: &Option<Vec<i64>>, ix: TaskIx| sums.as_ref().map_or(0, |sums| sums[ix]);
    (0..tasks.len())
        .map(|ix| match tasks[ix].weight_rule {
            WeightRule::Absolute => i64::from(tasks[ix].priority_weight),
            WeightRule::Downstream => sum(&after, ix),
            WeightRule::Upstream => sum(&before, ix),
        })
        .collect()
}

/// Own weight plus that of everything reachable through `next`; `order` visits `next` first.
fn weights(tasks: &[Task], order: impl Iterator<Item = TaskIx>, next: &[Vec<TaskIx>]) -> Vec<i64> {
    let own = |ix: TaskIx| i64::from(tasks[ix].priority_weight);
    let mut sums = vec![0; tasks.len()];
    if tasks.len() > EXACT_PRIORITY_TASKS_MAX {
        for ix in order {
            sums[ix] = own(ix) + next[ix].iter().map(|&other| sums[other]).max().unwrap_or(0);
        }
        return sums;
    }
    // One bit per task: reachable sets are joined, so that a diamond counts once.
    let words = tasks.len().div_ceil(64);
    let mut reachable = vec![0_u64; words * tasks.len()];
    for ix in order {
        let mut mine = vec![0_u64; words];
        mine[ix / 64] |= 1 << (ix % 64);
        for &other in &next[ix] {
            let theirs = &reachable[other * words..(other + 1) * words];
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine |= theirs);
        }
        for (word, &bits) in mine.iter().enumerate() {
            let mut left = bits;
            while left != 0 {
                sums[ix] += own(word * 64 + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
        reachable[ix * words..(ix + 1) * words].copy_from_slice(&mine);
    }
    sums
}

/// For each task the setups whose success it needs: those upstream of it, directly or not, that have no
/// teardown or whose teardown comes after it. Teardowns need none: they have a rule of their own.
pub(super) fn needed_setups(
    tasks: &[Task],
    upstream: &[Vec<TaskIx>],
    downstream: &[Vec<TaskIx>],
) -> Vec<Vec<TaskIx>> {
    let mut needed = vec![Vec::new(); tasks.len()];
    let mut teardowns = BTreeMap::<TaskIx, Vec<TaskIx>>::new();
    for (ix, task) in tasks.iter().enumerate() {
        if task.setup {
            teardowns.entry(ix).or_default();
        }
        for &setup in &task.teardown_for {
            teardowns.entry(setup).or_default().push(ix);
        }
    }
    for (setup, teardowns) in teardowns {
        let inside: BTreeSet<_> = teardowns.iter().flat_map(|&teardown| reach(teardown, upstream)).collect();
        for ix in reach(setup, downstream) {
            if !tasks[ix].is_teardown() && (teardowns.is_empty() || inside.contains(&ix)) {
                needed[ix].push(setup);
            }
        }
    }
    needed
}
