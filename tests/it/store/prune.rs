//! Retention deletes what ended long ago, whole, and nothing else.

use mainspring::core::ids::Timestamp;
use mainspring::core::run::{Decision, Reason};
use mainspring::core::state::{RunState, TaskState};
use mainspring::store::RunFilter;

use super::home::{Home, tasks, ti};

pub(crate) async fn only_runs_that_ended_before_are_pruned(home: Home) {
    let mut run = home.run_of(tasks(1)).await;
    run.start().await;
    run.move_to(&[ti(0)], TaskState::Running).await;
    let far = Timestamp(i64::MAX);
    assert_eq!(home.store.prunable(far).await.unwrap(), 0);
    assert_eq!(home.store.prune(far).await.unwrap(), 0, "a run that is not final was pruned");
    run.move_to(&[ti(0)], TaskState::Success).await;
    let run_change = Some(run.run_move(RunState::Success, Reason::AllFinal));
    run.commit(&Decision { run_change, ..Decision::default() }).await.unwrap();
    let ended = run.run.ended_at.unwrap();
    assert_eq!(home.store.prune(ended).await.unwrap(), 0, "it did not end before its end");
    assert_eq!(home.store.prune(Timestamp(ended.0 + 1)).await.unwrap(), 1);
    assert_eq!(home.store.prune(Timestamp(ended.0 + 1)).await.unwrap(), 0);
    assert!(home.store.runs(&RunFilter::default(), 10).await.unwrap().is_empty());
    assert!(home.store.task_instances(&run.key()).await.unwrap().is_empty());
    assert!(home.store.journal(&run.key()).await.unwrap().is_empty());
    assert!(home.store.dag_version(&run.dag.hash).await.unwrap().is_none());
}
