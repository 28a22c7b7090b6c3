//! Shows a run as it goes: on a terminal a bar for the run and a line for each running task; elsewhere a
//! line for each task that ends.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::core::dag::Dag;
use crate::core::ids::{RunId, Timestamp};
use crate::core::run::{Change, Decision, RunBirth, TiRef};
use crate::core::state::TaskState;

/// Shows runs as they go.
pub(super) struct Progress {
    /// Whether stderr is a terminal.
    live: bool,
    /// Whether anything is written at all.
    quiet: bool,
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    runs: BTreeMap<RunId, ProgressBar>,
    tasks: BTreeMap<(RunId, TiRef), ProgressBar>,
}

impl Progress {
    /// For a person at a terminal, or for a log.
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            live: std::io::stderr().is_terminal() && !quiet,
            quiet,
            bars: MultiProgress::new(),
            state: Mutex::default(),
        }
    }

    /// Shows what was decided.
    pub(super) fn show(&self, dag: &Dag, birth: &RunBirth, decision: &Decision, at: Timestamp) {
        if self.quiet {
            return;
        }
        for change in &decision.changes {
            if self.live {
                self.draw(dag, birth, change);
            }
            if change.to.state.is_final() || change.to.state == TaskState::UpForRetry {
                self.say(&line(dag, birth, change, at));
            }
        }
        if let Some(change) = &decision.run_change
            && change.to.is_final()
            && let Some(bar) =
                self.state.lock().expect("drawing does not panic").runs.remove(&birth.key.run_id)
        {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        if self.live {
            // A terminal that has gone away is noticed by whoever reads it.
            if self.bars.println(line).is_err() {
                tracing::debug!("the terminal is gone");
            }
        } else {
            eprintln!("{line}");
        }
    }

    fn draw(&self, dag: &Dag, birth: &RunBirth, change: &Change) {
        let mut state = self.state.lock().expect("drawing does not panic");
        let run = state.runs.entry(birth.key.run_id.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix:.bold} {wide_bar} {pos}/{len} {elapsed}")
                .expect("the template is a constant");
            let bar = ProgressBar::new(dag.tasks().len() as u64).with_style(style);
            self.bars.add(bar.with_prefix(birth.key.dag_id.to_string()))
        });
        if change.to.state.is_final() {
            run.inc(1);
        }
        let key = (birth.key.run_id.clone(), change.ti);
        if change.to.state == TaskState::Running {
            let style = ProgressStyle::with_template("  {spinner} {msg} {elapsed}")
                .expect("the template is a constant");
            let spinner = self.bars.add(ProgressBar::new_spinner().with_style(style));
            spinner.set_message(name(dag, change.ti));
            spinner.enable_steady_tick(Duration::from_millis(100));
            state.tasks.insert(key, spinner);
        } else if let Some(spinner) = state.tasks.remove(&key) {
            spinner.finish_and_clear();
        }
    }
}

/// A task instance's name for people: `orders`, `part[3]`.
fn name(dag: &Dag, ti: TiRef) -> String {
    let id = &dag.task(ti.task).id;
    if ti.map_index < 0 { id.to_string() } else { format!("{id}[{}]", ti.map_index) }
}

fn line(dag: &Dag, birth: &RunBirth, change: &Change, at: Timestamp) -> String {
    let took = match change.to.started_at {
        Some(started) if change.from == TaskState::Running => {
            let micros = i64::try_from(at.since(started).as_micros()).unwrap_or(i64::MAX);
            format!(" in {}", super::table::span(micros))
        }
        _ => String::new(),
    };
    let why =
        if change.to.state == TaskState::Success { String::new() } else { format!(": {}", change.reason) };
    format!("{} {} {}{took}{why}", birth.key.dag_id, name(dag, change.ti), change.to.state)
}
