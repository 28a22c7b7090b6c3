//! Retention deletes what ended long ago, whole, and nothing else.

use mainspring::control::{log_path, prune, put_piece};
use mainspring::core::ids::{Fence, Timestamp};
use mainspring::core::run::{Decision, Reason};
use mainspring::core::state::{RunState, TaskState};
use mainspring::store::RunFilter;

use super::home::{Home, tasks, ti};

pub(crate) async fn only_runs_that_ended_before_are_pruned(home: Home) {
    let mut run = home.run_of(tasks(1)).await;
    run.start().await;
    run.move_to(&[ti(0)], TaskState::Running).await;
    let logs = tempfile::tempdir().unwrap();
    let log = log_path(logs.path(), &run.key(), &run.dag.tasks()[0].id, -1, Fence(1));
    put_piece(&log, 0, "said\n").unwrap();
    let prune = |before| prune(&home.store, logs.path(), before);
    let far = Timestamp(i64::MAX);
    assert_eq!(home.store.prunable(far).await.unwrap(), 0);
    assert_eq!(prune(far).await.unwrap(), 0, "a run that is not final was pruned");
    run.move_to(&[ti(0)], TaskState::Success).await;
    let run_change = Some(run.run_move(RunState::Success, Reason::AllFinal));
    run.commit(&Decision { run_change, ..Decision::default() }).await.unwrap();
    let ended = run.run.ended_at.unwrap();
    assert_eq!(prune(ended).await.unwrap(), 0, "it did not end before its end");
    assert!(log.exists(), "the log went before its run");
    assert_eq!(prune(Timestamp(ended.0 + 1)).await.unwrap(), 1);
    assert_eq!(prune(Timestamp(ended.0 + 1)).await.unwrap(), 0);
    assert!(!log.exists(), "the log of a deleted run is left");
    assert!(home.store.runs(&RunFilter::default(), 10).await.unwrap().is_empty());
    assert!(home.store.task_instances(&run.key()).await.unwrap().is_empty());
    assert!(home.store.journal(&run.key()).await.unwrap().is_empty());
    assert!(home.store.dag_version(&run.dag.hash).await.unwrap().is_none());
}
