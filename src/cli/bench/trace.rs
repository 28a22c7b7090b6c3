//! When attempts began and ended, and from it the hand-offs: from the end of the last upstream's work to
//! the beginning of the downstream's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::control::Assignment;
use crate::core::dag::{Dag, TaskIx};

#[derive(Default)]
struct Seen {
    dag: Option<Arc<Dag>>,
    spans: BTreeMap<TaskIx, (Instant, Instant)>,
}

/// Records one run of unmapped tasks.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Seen>);

impl Recorder {
    pub(super) fn record(&self, assignment: &Assignment, began: Instant, ended: Instant) {
        let mut seen = self.0.lock().expect("recording does not panic");
        seen.dag.get_or_insert_with(|| assignment.dag.clone());
        seen.spans.insert(assignment.ti.task, (began, ended));
    }

    /// All hand-offs in milliseconds, ascending; none for tasks without upstreams.
    pub(super) fn handoffs_ms(&self) -> Vec<f64> {
        let seen = self.0.lock().expect("recording does not panic");
        let Some(dag) = &seen.dag else { return Vec::new() };
        let mut all: Vec<f64> = seen
            .spans
            .iter()
            .filter_map(|(&ix, (began, _))| {
                let last = dag.upstream(ix).iter().filter_map(|up| seen.spans.get(up)).map(|s| s.1).max()?;
                Some(began.saturating_duration_since(last).as_secs_f64() * 1000.0)
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// The value below which the share `q` of an ascending list lies.
pub(super) fn quantile(ascending: &[f64], q: f64) -> Option<f64> {
    let last = ascending.len().checked_sub(1)?;
    let place = (last as f64 * q).round() as usize;
    ascending.get(place).copied()
}
