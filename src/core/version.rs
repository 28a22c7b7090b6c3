//! A run that has ended goes on in another version of its DAG: which instances it keeps, gets and loses.

use std::collections::BTreeMap;

use super::dag::{Dag, TaskIx};
use super::ids::TaskId;
use super::run::{Instances, RestoredRun, Run, TaskInstance};

/// A run in another version of its DAG.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// The run; tasks it had keep their instances, new ones are `none`.
    pub run: Run,
    /// Tasks that are new to it, by their place in the new version.
    pub added: Vec<TaskIx>,
    /// Tasks that are not part of it any more.
    pub removed: Vec<TaskId>,
}

/// A task that is mapped in one of two versions and not in the other: its instances cannot be carried over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task `{0}` is mapped in only one of the two versions of the DAG")]
pub struct MappedOtherwise(pub TaskId);

/// The run of `old` as one of `new`, pinned to it. Nothing else changes: whoever asks for it clears what is to run
/// again.
///
/// # Errors
/// [`MappedOtherwise`], with the first such task.
pub fn adopt(run: &Run, old: &Dag, new: &Dag) -> Result<Adopted, MappedOtherwise> {
    let mut added = Vec::new();
    let mut tasks = Vec::with_capacity(new.tasks().len());
    for (ix, task) in new.tasks().iter().enumerate() {
        let Some(before) = old.find(&task.id) else {
            added.push(ix);
            let fresh = TaskInstance::new();
            let is_mapped = task.expand.is_some();
            tasks.push(if is_mapped { Instances::Unexpanded(fresh) } else { Instances::One(fresh) });
            continue;
        };
        if old.task(before).expand.is_some() != task.expand.is_some() {
            return Err(MappedOtherwise(task.id.clone()));
        }
        tasks.push(run.tasks[before].clone());
    }
    let gone = old.tasks().iter().filter(|task| new.find(&task.id).is_none());
    let removed = gone.map(|task| task.id.clone()).collect();
    let lengths = run
        .list_lengths
        .iter()
        .filter_map(|((ix, name), length)| Some(((new.find(&old.task(*ix).id)?, name.clone()), *length)));
    let list_lengths: BTreeMap<_, _> = lengths.collect();
    let rows = run.rows();
    let mut birth = rows.birth;
    birth.dag_hash = new.hash.clone();
    let run = Run::restore(RestoredRun { birth, tasks, list_lengths, ..rows }, new);
    Ok(Adopted { run, added, removed })
}
