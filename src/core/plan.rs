//! What follows: which task is ready, skipped or failed by its rule, due, admitted, claimed; whether the
//! run begins or ends.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::apply;
use super::dag::{Dag, Expand, MAPPED_MAX, Task, TaskIx};
use super::ids::Timestamp;
use super::index::{Lane, Place, each};
use super::rule::{Verdict, judge, judge_teardown};
use super::run::{Alert, AlertKind, Claim, Instances, Reason, Run, TiRef, UNMAPPED};
use super::state::{RunState, TaskInput, TaskState};
use super::step::Stepper;

/// Plans all that follows.
pub(super) fn all(s: &mut Stepper<'_>) {
    if s.run.state == RunState::Queued {
        begin(s);
    }
    if s.run.state == RunState::Running {
        release_due(s);
        time_out(s);
        judge_all(s);
        admit(s);
        claim(s);
    }
    end(s);
}

/// When to look again if nothing else happens.
pub(super) fn next_due(dag: &Dag, run: &Run) -> Option<Timestamp> {
    if run.state.is_final() {
        return None;
    }
    let timer = run.index.timers.first().map(|(at, _)| *at);
    let deadline = run.started_at.zip(dag.settings.dagrun_timeout).map(|(at, span)| at.plus(span));
    timer.into_iter().chain(deadline).min()
}

/// A queued run begins when the DAG has room for it.
fn begin(s: &mut Stepper<'_>) {
    if s.room.paused || s.room.other_active_runs >= s.dag.settings.max_active_runs {
        return;
    }
    s.run_to(RunState::Running, Reason::Started);
    s.judge.extend(0..s.run.tasks.len());
}

/// What is due now is released now.
fn release_due(s: &mut Stepper<'_>) {
    while let Some(&(at, ti)) = s.run.index.timers.first() {
        if at > s.now {
            return;
        }
        s.must(ti, TaskInput::Due, Reason::Due, |_| {});
    }
}

fn time_out(s: &mut Stepper<'_>) {
    let Some((started, limit)) = s.run.started_at.zip(s.dag.settings.dagrun_timeout) else { return };
    if s.now < started.plus(limit) {
        return;
    }
    apply::end_unfinished(s, TaskInput::RuledOut, &Reason::RunTimedOut, |_, _| true);
    finish(s, RunState::Failed, Reason::RunTimedOut);
}

/// Judges the rules of all tasks that something has happened to, and of those that this decides.
fn judge_all(s: &mut Stepper<'_>) {
    while let Some(task) = s.judge.pop_first() {
        let waits = each(&s.run.tasks[task]).any(|(_, i)| i.state == TaskState::None);
        if !waits {
            continue;
        }
        let definition = s.dag.task(task);
        let verdict = if definition.is_teardown() {
            judge_teardown(s.run.index.upstreams[task], s.run.index.setups[&task])
        } else {
            judge(definition.trigger_rule, s.run.index.upstreams[task])
        };
        match verdict {
            Verdict::Wait => {}
            Verdict::Run => make_ready(s, task),
            Verdict::Skip => rule_out(s, task, TaskInput::RuledOut),
            Verdict::Fail => rule_out(s, task, TaskInput::UpstreamFailed),
        }
    }
}

fn rule_out(s: &mut Stepper<'_>, task: TaskIx, input: TaskInput) {
    let definition = s.dag.task(task);
    let rule = if definition.is_teardown() { "teardown" } else { definition.trigger_rule.as_str() };
    let upstream = decider(s, task, input).map(|ix| s.dag.task(ix).id.clone());
    for ti in waiting(s, task) {
        s.must(ti, input, Reason::Rule { rule, upstream: upstream.clone() }, |_| {});
    }
}

/// The first upstream whose end explains the verdict.
fn decider(s: &Stepper<'_>, task: TaskIx, input: TaskInput) -> Option<TaskIx> {
    let explains = |state: TaskState| {
        let bad = matches!(state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled);
        if input == TaskInput::UpstreamFailed { bad } else { state.is_final() && !bad }
    };
    s.dag.upstream(task).iter().copied().find(|&up| each(&s.run.tasks[up]).any(|(_, i)| explains(i.state)))
}

fn waiting(s: &Stepper<'_>, task: TaskIx) -> Vec<TiRef> {
    each(&s.run.tasks[task])
        .filter(|(_, i)| i.state == TaskState::None)
        .map(|(map_index, _)| TiRef { task, map_index })
        .collect()
}

/// The rule says run: a mapped task takes its shape first.
fn make_ready(s: &mut Stepper<'_>, task: TaskIx) {
    if let Instances::Unexpanded(_) = s.run.tasks[task]
        && !expand(s, task)
    {
        return;
    }
    for ti in waiting(s, task) {
        s.must(ti, TaskInput::Ready, Reason::Ready, |_| {});
    }
}

/// Whether there are instances to be run.
fn expand(s: &mut Stepper<'_>, task: TaskIx) -> bool {
    let placeholder = TiRef { task, map_index: UNMAPPED };
    let (length, missing) = match &s.dag.task(task).expand {
        None => panic!("only a mapped task has a placeholder"),
        Some(Expand::Fixed(length)) => (Some(*length), String::new()),
        Some(Expand::Output { task: from, key }) => {
            let length = s.run.list_lengths.get(&(*from, key.as_str().into())).copied();
            (length, format!("`{}` left no list `{key}` to expand over", s.dag.task(*from).id))
        }
    };
    match length {
        Some(0) => {
            s.must(placeholder, TaskInput::RuledOut, Reason::EmptyList, |_| {});
            false
        }
        Some(length) if length <= MAPPED_MAX => {
            s.expand(task, length);
            true
        }
        Some(length) => {
            s.must(placeholder, TaskInput::GaveUp, Reason::Expansion { length }, |_| {});
            apply::failed_for_good(
                s,
                placeholder,
                &format!("a list of {length} is longer than {MAPPED_MAX}"),
            );
            false
        }
        None => {
            let reason = Reason::GaveUp { error: missing.as_str().into() };
            s.must(placeholder, TaskInput::GaveUp, reason, |_| {});
            apply::failed_for_good(s, placeholder, &missing);
            false
        }
    }
}

/// Admits ready instances in order of priority while there is room. A lane whose first instance has no
/// room is left as a whole: everything in it needs the same.
fn admit(s: &mut Stepper<'_>) {
    if s.room.paused {
        return;
    }
    let mut heads: BinaryHeap<(std::cmp::Reverse<Place>, Lane)> = s
        .run
        .index
        .ready
        .iter()
        .filter_map(|(lane, places)| Some((std::cmp::Reverse(*places.first()?), lane.clone())))
        .collect();
    let mut used: BTreeMap<_, u32> = BTreeMap::new();
    while let Some((std::cmp::Reverse((_, ti)), lane)) = heads.pop() {
        if s.run.index.holding >= s.dag.settings.max_active_tasks {
            return;
        }
        let taken = used.get(&lane.pool).copied().unwrap_or_default();
        if pool_block(s, &lane, taken).is_some() || task_block(s.dag, s.run, s.room, ti.task).is_some() {
            continue;
        }
        s.must(ti, TaskInput::Admitted, Reason::Ready, |_| {});
        *used.entry(lane.pool.clone()).or_default() += lane.slots;
        if let Some(&next) = s.run.index.ready.get(&lane).and_then(BTreeSet::first) {
            heads.push((std::cmp::Reverse(next), lane));
        }
    }
}

/// What the pool says to one more instance; `taken` is what this step has taken already.
fn pool_block(s: &Stepper<'_>, lane: &Lane, taken: u32) -> Option<Reason> {
    let pool = s.room.pools.get(&lane.pool)?;
    let used = pool.used + taken;
    (used + lane.slots > pool.size).then(|| Reason::WaitsForPool {
        pool: lane.pool.clone(),
        used,
        size: pool.size,
    })
}

/// What the task's own limits say to one more instance.
pub(super) fn task_block(dag: &Dag, run: &Run, room: &super::run::Capacity, task: TaskIx) -> Option<Reason> {
    let definition = dag.task(task);
    let here = run.index.holding_by_task.get(&task).copied().unwrap_or_default();
    if let Some(limit) = definition.max_active_tis_per_dagrun
        && here >= limit
    {
        return Some(Reason::WaitsForTaskLimit { key: "max_active_tis_per_dagrun", limit });
    }
    let elsewhere = room.other_active_tis.get(&task).copied().unwrap_or_default();
    if let Some(limit) = definition.max_active_tis_per_dag
        && here + elsewhere >= limit
    {
        return Some(Reason::WaitsForTaskLimit { key: "max_active_tis_per_dag", limit });
    }
    past_block(dag, definition, task, room)
}

fn past_block(dag: &Dag, definition: &Task, task: TaskIx, room: &super::run::Capacity) -> Option<Reason> {
    let previous = room.previous.as_ref()?;
    let stands_in_the_way = |ix: TaskIx| {
        let state = previous.states.get(&dag.task(ix).id).copied()?;
        (!matches!(state, TaskState::Success | TaskState::Skipped)).then_some(state)
    };
    if (definition.depends_on_past || definition.wait_for_downstream)
        && let Some(state) = stands_in_the_way(task)
    {
        return Some(Reason::WaitsForPast { key: "depends_on_past", state });
    }
    if definition.wait_for_downstream {
        let state = dag.downstream(task).iter().find_map(|&down| stands_in_the_way(down))?;
        return Some(Reason::WaitsForPast { key: "wait_for_downstream", state });
    }
    None
}

/// The worker of this process takes what it has slots for, by priority over all its queues.
fn claim(s: &mut Stepper<'_>) {
    let Some(local) = &s.room.local else { return };
    for _ in 0..local.free {
        let first = local.queues.iter().filter_map(|q| s.run.index.queued.get(q)?.first()).min().copied();
        let Some((_, ti)) = first else { return };
        if let Err(refusal) = apply::claim(s, ti, &local.session) {
            panic!("a queued instance can be claimed: {refusal}");
        }
        let instance = s.get(ti).expect("it has just been claimed");
        let claim = Claim { ti, fence: instance.fence, try_number: instance.try_number };
        s.decision.claims.push(claim);
    }
}

/// Decides the run when every instance is final.
fn end(s: &mut Stepper<'_>) {
    let decided_otherwise = matches!(s.run.state, RunState::Queued | RunState::Cancelled);
    if s.run.index.unfinished > 0 || decided_otherwise {
        return;
    }
    let bad = |state: TaskState| {
        matches!(state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled)
    };
    let is_bad = |s: &Stepper<'_>, task: TaskIx| each(&s.run.tasks[task]).any(|(_, i)| bad(i.state));
    // A final run is decided anew only if somebody has just marked an instance.
    if s.run.state.is_final() && (s.is_unchanged() || s.decision.run_change.is_some()) {
        return;
    }
    let tasks = 0..s.run.tasks.len();
    let any_failed = tasks.clone().any(|task| is_bad(s, task));
    let fail_fast = s.dag.settings.fail_fast
        && tasks.clone().any(|task| !s.dag.task(task).is_teardown() && is_bad(s, task));
    let leaf_failed = tasks.clone().any(|task| s.dag.is_leaf(task) && is_bad(s, task));
    let to = if fail_fast || leaf_failed { RunState::Failed } else { RunState::Success };
    s.run.with_failures = to == RunState::Success && any_failed;
    if s.run.state != to {
        finish(s, to, Reason::AllFinal);
    }
}

fn finish(s: &mut Stepper<'_>, to: RunState, reason: Reason) {
    if to == RunState::Failed {
        let summary = format!("run `{}` of `{}` failed: {reason}", s.run.birth.key.run_id, s.dag.id);
        s.decision.alerts.push(Alert { kind: AlertKind::RunFailed, ti: None, summary });
    }
    s.run_to(to, reason);
}
