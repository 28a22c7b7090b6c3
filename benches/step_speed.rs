//! How fast the scheduling core steps, without a store: `cargo bench --bench step_speed`.
#![expect(clippy::print_stdout, reason = "figures for a person")]

use std::time::Instant;

use mainspring::core::dag::{Because, Dag, DagSettings, Edge, Task};
use mainspring::core::ids::{DagHash, DagId, RunId, RunKey, SessionId, TaskId, Timestamp};
use mainspring::core::run::{Capacity, Input, Outcome, Outputs, Run, RunBirth, RunType, WorkerSlots};
use mainspring::core::step::step;

fn main() {
    let chain = |ix: usize| if ix == 0 { vec![] } else { vec![ix - 1] };
    measure("chain of 10,000", 10_000, chain);
    measure("wide, 10,000", 10_000, |_| vec![]);
    measure("layers, 20 x 50", 1_000, |ix| {
        if ix < 50 { vec![] } else { (ix / 50 * 50 - 50..ix / 50 * 50).collect() }
    });
    measure("chains, 100 x 100", 10_000, |ix| if ix < 100 { vec![] } else { vec![ix - 100] });
    measure("chain of 100,000", 100_000, chain);
}

/// One report per step, claimed by a local worker without limits.
fn measure(name: &str, count: usize, upstreams: impl Fn(usize) -> Vec<usize>) {
    let begin = Instant::now();
    let dag = dag(count, upstreams);
    let made = begin.elapsed();
    let mut run = Run::new(birth(&dag), &dag);
    let queues = vec![dag.task(0).queue.clone()];
    let session = SessionId::parse("worker").expect("a valid id");
    let room =
        Capacity { workers: vec![WorkerSlots { session, free: 1_000_000, queues }], ..Capacity::default() };
    let begin = Instant::now();
    let mut claims = step(&dag, &mut run, &[Input::Tick], &room, Timestamp(0)).claims;
    let mut steps = 1;
    while let Some(claim) = claims.pop() {
        let outcome = Outcome::Succeeded(Outputs::default());
        let input = Input::Reported { ti: claim.ti, fence: claim.fence, outcome };
        claims.extend(step(&dag, &mut run, &[input], &room, Timestamp(steps)).claims);
        steps += 1;
    }
    assert!(run.state.is_final(), "{name} did not end");
    let spent = begin.elapsed();
    let rate = count as f64 / spent.as_secs_f64();
    println!("{name:<20} {spent:>10.1?} {rate:>12.0} tasks/s   DAG made in {made:.1?}");
}

fn dag(count: usize, upstreams: impl Fn(usize) -> Vec<usize>) -> Dag {
    let tasks = (0..count)
        .map(|ix| Task::new(TaskId::parse(&format!("t{ix}")).expect("a valid id"), "noop"))
        .collect();
    let edge = |upstream, downstream| Edge { upstream, downstream, because: Because::Declared };
    let edges = (0..count).flat_map(|ix| upstreams(ix).into_iter().map(move |up| edge(up, ix))).collect();
    let settings = DagSettings { max_active_tasks: u32::MAX, ..DagSettings::default() };
    Dag::new(DagId::parse("speed").expect("a valid id"), DagHash("0".into()), settings, tasks, edges)
        .expect("edges lead forward")
}

fn birth(dag: &Dag) -> RunBirth {
    let at = Timestamp(0);
    let run_id = RunId::parse("manual__1").expect("a valid id");
    RunBirth {
        key: RunKey { dag_id: dag.id.clone(), run_id },
        dag_hash: dag.hash.clone(),
        run_type: RunType::Manual,
        logical_date: at,
        data_interval_start: at,
        data_interval_end: at,
        params: "{}".into(),
        queued_at: at,
    }
}
