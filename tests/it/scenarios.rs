//! Runs every file of `tests/scenarios/`: a DAG, then lines of time, inputs and what is expected to change.
//!
//! ```text
//! dag max_active_tasks=2                     settings of the DAG
//!   extract  retries=1 retry_delay=30s       its tasks, two spaces in
//!   load     after=extract
//!
//! room pool.db=2 local=1 other_runs=1 paused=yes previous.load=failed
//! 10:00:00 tick                run=running  extract=queued
//! 10:00:01 claim extract       extract=running try=1 fence=1
//! 10:00:02 why load            waits for `extract`
//! ```
//!
//! Inputs of one step are joined by `;`. Changes stand two spaces apart, the run's first, `-` for none. A
//! report without `fence=` comes from the claim that stands.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainspring::core::dag::{Because, Dag, DagSettings, Edge, Expand, Task, TaskIx, TriggerRule, WeightRule};
use mainspring::core::ids::{
    DagHash, DagId, Fence, PoolName, QueueName, RunId, RunKey, SessionId, TaskId, Timestamp,
};
use mainspring::core::run::{
    Capacity, Decision, Input, Instances, Outcome, Outputs, PoolUse, PreviousRun, Run, RunBirth, RunType,
    Severity, TiRef, UNMAPPED, WorkerSlots,
};
use mainspring::core::select::{Reach, select};
use mainspring::core::state::TaskState;
use mainspring::core::step::step;
use mainspring::core::why::why;

mod in_store;

/// Where a scenario's run lives between two lines: in memory, or in a database.
trait Bench: Sized {
    /// Steps the run and keeps what follows.
    fn step(
        &mut self,
        dag: &Dag,
        run: &mut Run,
        inputs: &[Input],
        room: &Capacity,
        now: Timestamp,
    ) -> Decision;

    /// The scenario is over.
    fn end(self) {}
}

/// In memory, the run rebuilt from its plain rows after every line.
struct InMemory;

impl Bench for InMemory {
    fn step(
        &mut self,
        dag: &Dag,
        run: &mut Run,
        inputs: &[Input],
        room: &Capacity,
        now: Timestamp,
    ) -> Decision {
        let decision = step(dag, run, inputs, room, now);
        assert!(run.index_is_right(dag), "the index has drifted from the rows");
        *run = Run::restore(run.rows(), dag);
        decision
    }
}

#[test]
fn every_scenario_goes_as_it_is_written() {
    every_scenario_on(|| InMemory);
}

/// Plays every file on a bench of its own.
fn every_scenario_on<B: Bench>(new_bench: impl Fn() -> B) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 60, "only {} scenarios", files.len());
    let mut report = String::new();
    for file in files {
        let written = std::fs::read_to_string(&file).unwrap();
        let mut bench = new_bench();
        let actual = replay(&written, &mut bench);
        bench.end();
        if actual != written {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            writeln!(report, "=== {name}\n{}", difference(&written, &actual)).unwrap();
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

fn difference(written: &str, actual: &str) -> String {
    let mut text = String::new();
    for (written, actual) in written.lines().zip(actual.lines()) {
        if written == actual {
            writeln!(text, "  {written}").unwrap();
        } else {
            writeln!(text, "- {written}\n+ {actual}").unwrap();
        }
    }
    text
}

/// The text with its right-hand sides as they really are; those that say the same are left as they stand.
fn replay(text: &str, bench: &mut impl Bench) -> String {
    let mut lines = text.lines().peekable();
    let mut out = String::new();
    let mut settings = String::new();
    let mut tasks = Vec::new();
    while let Some(line) = lines.peek() {
        if let Some(rest) = line.strip_prefix("dag") {
            settings = rest.to_owned();
        } else if line.starts_with("  ") {
            tasks.push((*line).to_owned());
        } else if !line.is_empty() && !line.starts_with('#') {
            break;
        }
        writeln!(out, "{}", lines.next().unwrap()).unwrap();
    }
    let dag = dag_of(&settings, &tasks);
    let mut run = Run::new(birth(), &dag);
    let mut room = Room::default();
    for line in lines {
        if let Some(words) = line.strip_prefix("room ") {
            room.change(words, &dag);
            writeln!(out, "{line}").unwrap();
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            writeln!(out, "{line}").unwrap();
            continue;
        }
        let (time, rest) = line.split_once(' ').unwrap();
        let (input, expected) = rest.split_once("  ").unwrap_or((rest, ""));
        let now = at(time);
        let mut capacity = room.measured(&dag, &run);
        let actual = match input.strip_prefix("why ") {
            Some(name) => why(&dag, &run, &capacity, ti(&dag, name), now).to_string(),
            None => {
                let inputs: Vec<_> = input.split("; ").map(|text| input_of(&dag, &run, text)).collect();
                if let Some(worker) = capacity.workers.first_mut() {
                    worker.free += ended(&run, &inputs);
                }
                let before = run.clone();
                let decision = bench.step(&dag, &mut run, &inputs, &capacity, now);
                show(&dag, &before, &decision)
            }
        };
        if expected.trim() == actual {
            writeln!(out, "{line}").unwrap();
        } else {
            writeln!(out, "{:<39} {actual}", format!("{time} {input} ")).unwrap();
        }
    }
    out
}

/// What the run shares with others, as `room` lines say.
#[derive(Default)]
struct Room {
    pools: BTreeMap<PoolName, (u32, u32)>,
    local: Option<(u32, Vec<QueueName>)>,
    other_runs: u32,
    other_tis: BTreeMap<TaskIx, u32>,
    previous: Option<PreviousRun>,
    earlier_waits: bool,
    paused: bool,
}

impl Room {
    fn change(&mut self, words: &str, dag: &Dag) {
        for (key, value) in words.split_whitespace().map(|word| word.split_once('=').unwrap()) {
            let (key, name) = key.split_once('.').unwrap_or((key, ""));
            match key {
                "pool" => {
                    self.pools.entry(PoolName::parse(name).unwrap()).or_default().0 = value.parse().unwrap()
                }
                "pool_others" => {
                    self.pools.entry(PoolName::parse(name).unwrap()).or_default().1 = value.parse().unwrap();
                }
                "local" => self.local.get_or_insert((0, vec![queue("default")])).0 = value.parse().unwrap(),
                "queues" => self.local.as_mut().unwrap().1 = value.split(',').map(queue).collect(),
                "other_runs" => self.other_runs = value.parse().unwrap(),
                "other_tis" => {
                    self.other_tis.insert(task_of(dag, name), value.parse().unwrap());
                }
                "previous" => {
                    let state = TaskState::parse(value).unwrap();
                    let states = &mut self.previous.get_or_insert_default().states;
                    states.insert(TaskId::parse(name).unwrap(), state);
                }
                "earlier_waits" => self.earlier_waits = value == "yes",
                "paused" => self.paused = value == "yes",
                other => panic!("what is room `{other}`?"),
            }
        }
    }

    fn measured(&self, dag: &Dag, run: &Run) -> Capacity {
        let held = |pool: &PoolName| -> u32 {
            let holds =
                run.instances().filter(|(ti, it)| it.state.holds_slots() && dag.task(ti.task).pool == *pool);
            holds.map(|(ti, _)| dag.task(ti.task).pool_slots).sum()
        };
        let running = run.instances().filter(|(_, it)| it.state == TaskState::Running).count() as u32;
        Capacity {
            pools: self
                .pools
                .iter()
                .map(|(pool, &(size, others))| (pool.clone(), PoolUse { size, used: others + held(pool) }))
                .collect(),
            workers: Vec::from_iter(self.local.as_ref().map(|(slots, queues)| WorkerSlots {
                session: session(),
                free: slots.saturating_sub(running),
                queues: queues.clone(),
            })),
            active_runs_max: None,
            other_active_runs: self.other_runs,
            other_active_tis: self.other_tis.clone(),
            previous: self.previous.clone(),
            earlier_waits: self.earlier_waits,
            paused: self.paused,
        }
    }
}

/// Attempts that have ended in the worker, as their reports say.
fn ended(run: &Run, inputs: &[Input]) -> u32 {
    let stands =
        |ti, fence| run.instance(ti).is_some_and(|it| it.state == TaskState::Running && it.fence == fence);
    let ends = |input: &&Input| matches!(input, Input::Reported { ti, fence, .. } if stands(*ti, *fence));
    inputs.iter().filter(ends).count() as u32
}

fn input_of(dag: &Dag, run: &Run, text: &str) -> Input {
    let mut words = text.split_whitespace();
    let verb = words.next().unwrap();
    let rest: Vec<&str> = words.collect();
    let value = |key: &str| rest.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let has = |word: &str| rest.contains(&word);
    match verb {
        "tick" => return Input::Tick,
        "cancel" => return Input::Cancel,
        "mark" => {
            let tis = rest[0].split(',').flat_map(|name| named(dag, run, name)).collect();
            return Input::Mark { tis, state: TaskState::parse(rest[1]).unwrap() };
        }
        "clear" => {
            let reach = Reach {
                upstream: has("upstream"),
                downstream: has("downstream"),
                only_failed: has("only_failed"),
            };
            if rest[0].ends_with(']') || rest[0] == "nothing" {
                return Input::Clear {
                    tis: rest[0].split(',').flat_map(|name| named(dag, run, name)).collect(),
                };
            }
            let tasks: Vec<_> = rest[0].split(',').map(|name| task_of(dag, name)).collect();
            return Input::Clear { tis: select(dag, run, &tasks, reach) };
        }
        _ => {}
    }
    let ti = ti(dag, rest[0]);
    let current = run.instance(ti).map_or(Fence(0), |instance| instance.fence);
    let fence = value("fence").map(|fence| Fence(fence.parse().unwrap()));
    if verb == "claim" {
        return Input::Claimed { ti, fence: fence.unwrap_or(current.next()), session: session() };
    }
    let fence = fence.unwrap_or(current);
    if verb == "lost" {
        return Input::Lost { ti, fence };
    }
    let list = value("list").map(|list| list.split_once(':').unwrap());
    let outputs = Outputs {
        json: if list.is_some() { "{}".into() } else { "".into() },
        list_lengths: list.iter().map(|(key, length)| (Arc::from(*key), length.parse().unwrap())).collect(),
        ..Outputs::default()
    };
    let outcome = match verb {
        "succeed" => Outcome::Succeeded(outputs),
        "branch" => {
            let chosen = value("chosen").unwrap().split(',').filter(|id| !id.is_empty());
            Outcome::Branched { chosen: chosen.map(|id| TaskId::parse(id).unwrap()).collect(), outputs }
        }
        "short" => Outcome::ShortCircuited { respect_trigger_rules: has("respect"), outputs },
        "skip" => Outcome::Skipped { why: "nothing to do".into() },
        "defer" => Outcome::Deferred { until: at(value("until").unwrap()) },
        "interrupt" => Outcome::Interrupted,
        "fail" => {
            let severity = match () {
                () if has("permanent") => Severity::Permanent,
                () if has("blocked") => Severity::Blocked,
                () if has("timed_out") => Severity::TimedOut,
                () => Severity::Retryable,
            };
            Outcome::Failed { error: "boom".into(), severity }
        }
        other => panic!("what is input `{other}`?"),
    };
    Input::Reported { ti, fence, outcome }
}

/// The right-hand side: the run's move, instances by task, new instances, killed attempts, refusals.
fn show(dag: &Dag, before: &Run, decision: &Decision) -> String {
    let mut items = Vec::new();
    if let Some(change) = &decision.run_change {
        let mark = if change.with_failures { " with_failures" } else { "" };
        items.push(format!("run={}{mark}", change.to));
    }
    for &(task, length) in &decision.expanded {
        items.push(format!("{}=list of {length}", dag.task(task).id));
    }
    for change in &decision.changes {
        if let Some(instance) = before.instance(change.ti) {
            assert_eq!(
                (change.from, change.from_fence),
                (instance.state, instance.fence),
                "the guard of the write"
            );
        }
        let to = &change.to;
        let mut item = format!("{}={}", name(dag, change.ti), to.state);
        if to.state == TaskState::Running {
            write!(item, " try={} fence={}", to.try_number, to.fence.0).unwrap();
        }
        if let Some(at) = to.resume_at {
            let text = at.to_string();
            write!(item, " at={}", &text["2026-01-01T".len()..text.len() - 1]).unwrap();
        }
        items.push(item);
    }
    for (ti, fence) in &decision.revoked {
        items.push(format!("killed {} fence={}", name(dag, *ti), fence.0));
    }
    for (_, refusal) in &decision.refused {
        items.push(format!("refused: {refusal}"));
    }
    if items.is_empty() { "-".to_owned() } else { items.join("  ") }
}

fn dag_of(settings: &str, lines: &[String]) -> Dag {
    let ids: Vec<&str> = lines.iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    let find =
        |id: &str| ids.iter().position(|other| *other == id).unwrap_or_else(|| panic!("no task `{id}`"));
    let mut edges = Vec::new();
    let mut tasks = Vec::new();
    for (downstream, line) in lines.iter().enumerate() {
        let mut task = Task::new(TaskId::parse(ids[downstream]).unwrap(), "noop");
        for (key, value) in
            line.split_whitespace().skip(1).map(|word| word.split_once('=').unwrap_or((word, "yes")))
        {
            let all = || value.split(',').map(find);
            match key {
                "after" => {
                    edges.extend(all().map(|upstream| Edge {
                        upstream,
                        downstream,
                        because: Because::Declared,
                    }));
                }
                "expand" => {
                    task.expand = Some(match value.split_once('.') {
                        None => Expand::Fixed(value.parse().unwrap()),
                        Some((source, key)) => Expand::Output { task: find(source), key: key.to_owned() },
                    });
                }
                "teardown_for" => task.teardown_for = all().collect(),
                _ => set(&mut task, key, value),
            }
        }
        tasks.push(task);
    }
    let mut all = DagSettings::default();
    for (key, value) in settings.split_whitespace().map(|word| word.split_once('=').unwrap_or((word, "yes")))
    {
        match key {
            "max_active_tasks" => all.max_active_tasks = value.parse().unwrap(),
            "max_active_runs" => all.max_active_runs = value.parse().unwrap(),
            "dagrun_timeout" => all.dagrun_timeout = Some(seconds(value)),
            "fail_fast" => all.fail_fast = true,
            other => panic!("what is DAG setting `{other}`?"),
        }
    }
    Dag::new(DagId::parse("sales").unwrap(), DagHash("0".into()), all, tasks, edges).unwrap()
}

fn set(task: &mut Task, key: &str, value: &str) {
    let number = || value.parse::<u32>().unwrap();
    match key {
        "rule" => task.trigger_rule = TriggerRule::parse(value).unwrap(),
        "retries" => task.retry.retries = number(),
        "retry_delay" => task.retry.delay = seconds(value),
        "backoff" => task.retry.exponential_backoff = value.parse().unwrap(),
        "max_retry_delay" => task.retry.delay_max = seconds(value),
        "pool" => task.pool = PoolName::parse(value).unwrap(),
        "slots" => task.pool_slots = number(),
        "queue" => task.queue = queue(value),
        "priority" => {
            task.priority_weight = value.parse().unwrap();
            task.weight_rule = WeightRule::Absolute;
        }
        "weight_rule" => task.weight_rule = WeightRule::parse(value).unwrap(),
        "setup" => task.setup = true,
        "depends_on_past" => task.depends_on_past = true,
        "wait_for_downstream" => task.wait_for_downstream = true,
        "max_active_tis_per_dag" => task.max_active_tis_per_dag = Some(number()),
        "max_active_tis_per_dagrun" => task.max_active_tis_per_dagrun = Some(number()),
        other => panic!("what is task key `{other}`?"),
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap())
}

fn at(time: &str) -> Timestamp {
    Timestamp::parse(&format!("2026-01-01T{time}Z")).unwrap()
}

fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

fn session() -> SessionId {
    SessionId::parse("worker").unwrap()
}

fn task_of(dag: &Dag, name: &str) -> TaskIx {
    dag.find(&TaskId::parse(name).unwrap()).unwrap_or_else(|| panic!("no task `{name}`"))
}

/// `load` or `load[2]`.
fn ti(dag: &Dag, name: &str) -> TiRef {
    match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
        Some((task, index)) => TiRef { task: task_of(dag, task), map_index: index.parse().unwrap() },
        None => TiRef { task: task_of(dag, name), map_index: UNMAPPED },
    }
}

/// One instance, or all those of a mapped task.
fn named(dag: &Dag, run: &Run, name: &str) -> Vec<TiRef> {
    if name == "nothing" {
        return Vec::new();
    }
    let one = ti(dag, name);
    match &run.tasks[one.task] {
        Instances::Mapped(all) if one.map_index == UNMAPPED => {
            (0..all.len() as i32).map(|map_index| TiRef { task: one.task, map_index }).collect()
        }
        Instances::One(_) | Instances::Unexpanded(_) | Instances::Mapped(_) => vec![one],
    }
}

fn name(dag: &Dag, ti: TiRef) -> String {
    let id = &dag.task(ti.task).id;
    if ti.map_index == UNMAPPED { id.to_string() } else { format!("{id}[{}]", ti.map_index) }
}

fn birth() -> RunBirth {
    let start = at("10:00:00");
    RunBirth {
        key: RunKey { dag_id: DagId::parse("sales").unwrap(), run_id: RunId::parse("manual__1").unwrap() },
        dag_hash: DagHash("0".into()),
        run_type: RunType::Manual,
        logical_date: start,
        data_interval_start: start,
        data_interval_end: start,
        params: "{}".into(),
        queued_at: start,
    }
}
