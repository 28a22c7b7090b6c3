//! Rows as functions of what is written to them, and the names that are made of them.

use crate::core::ids::{RunId, RunKey};
use crate::core::run::{Change, Decision, Instances, RestoredRun, TaskInstance, TiRef, UNMAPPED};
use crate::core::state::TaskState;

/// Whether an instance begins to hold slots.
pub(super) fn admits(change: &Change) -> bool {
    change.to.state.holds_slots() && !change.from.holds_slots()
}

/// The name of the run of an instant.
pub(super) fn scheduled_id(instant: i64, suffix: &str) -> RunId {
    let name = format!("scheduled__{}{suffix}", instant / 1_000_000);
    RunId::parse(&name).expect("a word and a number are a valid name")
}

/// The letters of a decision, each by what makes it another than all others: every trouble, and the end of the
/// run, which may close what was open. Which of them are one problem is the store's to find out.
pub(super) fn letter_keys(key: &RunKey, version: i64, decision: &Decision) -> Vec<String> {
    let about = |what: &dyn std::fmt::Display, ti: Option<TiRef>| {
        let place = ti.map_or(String::new(), |ti| format!("/{}/{}", ti.task, ti.map_index));
        format!("{}/{}/{version}/{what}{place}", key.dag_id, key.run_id)
    };
    let troubles = decision.alerts.iter().map(|alert| about(&alert.kind, alert.ti));
    troubles.chain(decision.recovery.iter().map(|_| about(&"end", None))).collect()
}

/// Placeholders give way; instances that are missing are added, those that are there stay.
pub(super) fn expand(tasks: &mut [Instances], decision: &Decision) {
    for &(task, length) in decision.expanded.iter().filter(|&&(_, length)| length > 0) {
        let length = length as usize;
        match &mut tasks[task] {
            Instances::Mapped(all) => {
                if all.len() < length {
                    all.resize(length, TaskInstance::new());
                }
            }
            Instances::Unexpanded(_) => {
                tasks[task] = Instances::Mapped(vec![TaskInstance::new(); length]);
            }
            Instances::One(_) => {}
        }
    }
}

/// Lengths of the lists that attempts left, as `store::commit` keeps them: a success replaces what was there,
/// and one after a clear that left nothing takes it away.
pub(super) fn keep_lists(rows: &mut RestoredRun, decision: &Decision) {
    let succeeded = |change: &&Change| {
        let (outcome, _) = change.first_move();
        let marked = decision.revoked.contains(&(change.ti, change.from_fence));
        change.from == TaskState::Running && outcome == TaskState::Success && !marked
    };
    let repeated = decision.changes.iter().filter(|change| change.to.generation > 0);
    let repeated = repeated.filter(succeeded).map(|change| change.ti);
    let left = || decision.outputs.iter().filter(|(ti, _)| ti.map_index == UNMAPPED);
    let anew = repeated.filter(|ti| ti.map_index == UNMAPPED).chain(left().map(|(ti, _)| *ti));
    for TiRef { task, .. } in anew {
        rows.list_lengths.retain(|(owner, _), _| *owner != task);
    }
    for (ti, outputs) in left() {
        let lists = outputs.list_lengths.iter().map(|(key, length)| ((ti.task, key.clone()), *length));
        rows.list_lengths.extend(lists);
    }
}

/// All instances of a run's rows, in ascending order.
pub(super) fn instances(rows: &RestoredRun) -> impl Iterator<Item = (TiRef, &TaskInstance)> {
    rows.tasks.iter().enumerate().flat_map(|(task, instances)| instances.iter(task))
}

/// One instance of a run's rows.
pub(super) fn instance(tasks: &[Instances], ti: TiRef) -> Option<&TaskInstance> {
    match tasks.get(ti.task)? {
        Instances::One(one) | Instances::Unexpanded(one) => (ti.map_index == UNMAPPED).then_some(one),
        Instances::Mapped(all) => all.get(usize::try_from(ti.map_index).ok()?),
    }
}

pub(super) fn instance_mut(tasks: &mut [Instances], ti: TiRef) -> Option<&mut TaskInstance> {
    match tasks.get_mut(ti.task)? {
        Instances::One(one) | Instances::Unexpanded(one) => (ti.map_index == UNMAPPED).then_some(one),
        Instances::Mapped(all) => all.get_mut(usize::try_from(ti.map_index).ok()?),
    }
}
