//! A run's history in the language of `tests/scenarios/`, for a person to read and to keep.

use std::fmt::Write as _;

use crate::core::dag::{Dag, Expand, TaskIx, WeightRule};
use crate::core::ids::Timestamp;
use crate::core::run::{Capacity, Decision, Input, Outcome, Outputs, Severity, TiRef, UNMAPPED};

use super::store::RunNo;
use super::world::World;

/// One step of a run, as it was decided.
pub(super) struct Past {
    run: RunNo,
    room: String,
    line: String,
}

impl World {
    /// Keeps a step for the scenario, if anybody is going to read it.
    pub(super) fn record(
        &mut self,
        run: RunNo,
        inputs: &[Input],
        room: &Capacity,
        now: Timestamp,
        decision: &Decision,
    ) {
        if !self.trace.is_written() {
            return;
        }
        let dag = &self.store.runs[run].pinned;
        let inputs: Vec<_> = inputs.iter().map(|input| input_text(dag, input)).collect();
        let inputs = if inputs.is_empty() { "tick".to_owned() } else { inputs.join("; ") };
        let line = format!("{} {inputs:<30}  {}", clock_text(now), changes_text(dag, decision));
        self.past.push(Past { run, room: room_text(dag, room), line });
    }

    /// The scenario of a run: its DAG, and every step that was decided on it.
    pub(super) fn scenario(&self, run: RunNo) -> String {
        let row = &self.store.runs[run];
        let mut text = format!(
            "# Run `{}`, as schedulers decided it; some commits may have been refused.\n",
            row.rows.birth.key.run_id
        );
        dag_text(&mut text, &row.pinned);
        let mut room = "";
        for past in self.past.iter().filter(|past| past.run == run) {
            if past.room != room {
                room = &past.room;
                writeln!(text, "room {room}").expect("a string takes everything");
            }
            writeln!(text, "{}", past.line).expect("a string takes everything");
        }
        text
    }
}

fn clock_text(now: Timestamp) -> String {
    let text = now.to_string();
    let time = text.split_once('T').map_or(text.as_str(), |(_, time)| time);
    time.trim_end_matches('Z').to_owned()
}

fn seconds(span: std::time::Duration) -> String {
    format!("{}s", span.as_secs())
}

fn dag_text(text: &mut String, dag: &Dag) {
    let settings = &dag.settings;
    let mut words = vec![format!("dag max_active_tasks={}", settings.max_active_tasks)];
    words.push(format!("max_active_runs={}", settings.max_active_runs));
    words.extend(settings.dagrun_timeout.map(|span| format!("dagrun_timeout={}", seconds(span))));
    words.extend(settings.fail_fast.then(|| "fail_fast".to_owned()));
    writeln!(text, "{}", words.join(" ")).expect("a string takes everything");
    for ix in 0..dag.tasks().len() {
        writeln!(text, "  {}", task_text(dag, ix)).expect("a string takes everything");
    }
    text.push('\n');
}

fn task_text(dag: &Dag, ix: TaskIx) -> String {
    let task = dag.task(ix);
    let names = |all: &mut dyn Iterator<Item = TaskIx>| {
        all.map(|ix| dag.task(ix).id.to_string()).collect::<Vec<_>>().join(",")
    };
    let declared = names(&mut dag.upstream(ix).iter().copied().filter(|up| !task.teardown_for.contains(up)));
    let mut words = vec![task.id.to_string()];
    words.extend((!declared.is_empty()).then(|| format!("after={declared}")));
    words.push(format!("rule={} retries={}", task.trigger_rule, task.retry.retries));
    words.push(format!(
        "retry_delay={} max_retry_delay={}",
        seconds(task.retry.delay),
        seconds(task.retry.delay_max)
    ));
    words.push(format!(
        "backoff={} pool={} slots={}",
        task.retry.exponential_backoff, task.pool, task.pool_slots
    ));
    words.push(format!("queue={}", task.queue));
    // `priority` sets the rule too, so the rule comes after it.
    words.push(format!("priority={}", task.priority_weight));
    words.extend(
        (task.weight_rule != WeightRule::Absolute).then(|| format!("weight_rule={}", task.weight_rule)),
    );
    words.extend(task.setup.then(|| "setup".to_owned()));
    let setups = names(&mut task.teardown_for.iter().copied());
    words.extend((!setups.is_empty()).then(|| format!("teardown_for={setups}")));
    words.extend(task.depends_on_past.then(|| "depends_on_past".to_owned()));
    words.extend(task.wait_for_downstream.then(|| "wait_for_downstream".to_owned()));
    words.extend(task.max_active_tis_per_dag.map(|n| format!("max_active_tis_per_dag={n}")));
    words.extend(task.max_active_tis_per_dagrun.map(|n| format!("max_active_tis_per_dagrun={n}")));
    words.extend(task.expand.as_ref().map(|expand| match expand {
        Expand::Fixed(length) => format!("expand={length}"),
        Expand::Output { task, key } => format!("expand={}.{key}", dag.task(*task).id),
    }));
    words.join(" ")
}

fn room_text(dag: &Dag, room: &Capacity) -> String {
    let mut words: Vec<String> = Vec::new();
    for (pool, pool_use) in &room.pools {
        words.push(format!("pool.{pool}={} pool_used.{pool}={}", pool_use.size, pool_use.used));
    }
    for worker in &room.workers {
        words.push(format!("worker.{}={}", worker.session, worker.free));
    }
    words.push(format!("other_runs={}", room.other_active_runs));
    words.extend(room.other_active_tis.iter().map(|(ix, n)| format!("other_tis.{}={n}", dag.task(*ix).id)));
    for (task, state) in room.previous.iter().flat_map(|previous| &previous.states) {
        words.push(format!("previous.{task}={state}"));
    }
    words.extend(room.earlier_waits.then(|| "earlier_waits=yes".to_owned()));
    words.push(format!("paused={}", if room.paused { "yes" } else { "no" }));
    words.join(" ")
}

/// `load` or `load[2]`.
pub(super) fn instance_name(dag: &Dag, ti: TiRef) -> String {
    let id = &dag.task(ti.task).id;
    if ti.map_index == UNMAPPED { id.to_string() } else { format!("{id}[{}]", ti.map_index) }
}

fn names(dag: &Dag, tis: &[TiRef]) -> String {
    if tis.is_empty() {
        return "nothing".to_owned();
    }
    tis.iter().map(|&ti| instance_name(dag, ti)).collect::<Vec<_>>().join(",")
}

/// An input as a scenario spells it.
pub(super) fn input_text(dag: &Dag, input: &Input) -> String {
    match input {
        Input::Tick => "tick".to_owned(),
        Input::Claimed { ti, fence, .. } => format!("claim {} fence={}", instance_name(dag, *ti), fence.0),
        Input::Reported { ti, fence, outcome } => {
            let (verb, words) = outcome_text(outcome);
            format!("{verb} {}{words} fence={}", instance_name(dag, *ti), fence.0)
        }
        Input::Lost { ti, fence } => format!("lost {} fence={}", instance_name(dag, *ti), fence.0),
        Input::Clear { tis } => format!("clear {}", names(dag, tis)),
        Input::Mark { tis, state } => format!("mark {} {state}", names(dag, tis)),
        Input::Cancel => "cancel".to_owned(),
    }
}

fn outcome_text(outcome: &Outcome) -> (&'static str, String) {
    let list = |outputs: &Outputs| -> String {
        outputs.list_lengths.iter().map(|(key, length)| format!(" list={key}:{length}")).collect()
    };
    match outcome {
        Outcome::Succeeded(outputs) => ("succeed", list(outputs)),
        Outcome::Branched { chosen, outputs } => {
            let chosen: Vec<_> = chosen.iter().map(ToString::to_string).collect();
            ("branch", format!(" chosen={}{}", chosen.join(","), list(outputs)))
        }
        Outcome::ShortCircuited { respect_trigger_rules, outputs } => {
            let respect = if *respect_trigger_rules { " respect" } else { "" };
            ("short", format!("{respect}{}", list(outputs)))
        }
        Outcome::Skipped { .. } => ("skip", String::new()),
        Outcome::Deferred { until } => ("defer", format!(" until={}", clock_text(*until))),
        Outcome::Failed { severity: Severity::Retryable, .. } => ("fail", String::new()),
        Outcome::Failed { severity, .. } => ("fail", format!(" {severity}")),
        Outcome::Interrupted => ("interrupt", String::new()),
    }
}

/// The right-hand side of a scenario's line.
pub(super) fn changes_text(dag: &Dag, decision: &Decision) -> String {
    let mut items: Vec<String> = Vec::new();
    if let Some(change) = &decision.run_change {
        let mark = if change.with_failures { " with_failures" } else { "" };
        items.push(format!("run={}{mark}", change.to));
    }
    for &(task, length) in &decision.expanded {
        items.push(format!("{}=list of {length}", dag.task(task).id));
    }
    for change in &decision.changes {
        let mut item = format!("{}={}", instance_name(dag, change.ti), change.to.state);
        if let Some(session) = &change.to.session {
            write!(item, " try={} fence={}", change.to.try_number, change.to.fence.0)
                .expect("a string takes everything");
            write!(item, " by={session}").expect("a string takes everything");
        }
        if let Some(at) = change.to.resume_at {
            write!(item, " at={}", clock_text(at)).expect("a string takes everything");
        }
        items.push(item);
    }
    items.extend(
        decision
            .revoked
            .iter()
            .map(|(ti, fence)| format!("killed {} fence={}", instance_name(dag, *ti), fence.0)),
    );
    items.extend(decision.refused.iter().map(|(_, refusal)| format!("refused: {refusal}")));
    if items.is_empty() { "-".to_owned() } else { items.join("  ") }
}
