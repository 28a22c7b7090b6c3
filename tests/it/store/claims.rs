//! Claims by workers elsewhere, and their sessions.

use std::collections::BTreeSet;

use mainspring::core::ids::{QueueName, Timestamp};
use mainspring::core::run::{Decision, TiRef};
use mainspring::core::state::TaskState;
use mainspring::store::ErrorClass;
use tokio::task::JoinSet;

use super::home::{Driven, Home, on_queue, session, task, tasks, ti};

const LEASE: Timestamp = Timestamp(1_000_000_000);

fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

async fn queued(home: &Home, count: usize) -> Driven {
    let mut run = home.run_of(tasks(count)).await;
    run.start().await;
    let all: Vec<TiRef> = (0..count).map(ti).collect();
    let changes = all.iter().map(|&ti| run.change(ti, TaskState::Queued, &[TaskState::Scheduled])).collect();
    run.commit(&Decision { changes, ..Decision::default() }).await.unwrap();
    run
}

pub(crate) async fn eight_claimers_never_get_one_instance_twice(home: Home) {
    let run = queued(&home, 200).await;
    let mut claimers = JoinSet::new();
    for worker in 0..8 {
        let (store, now) = (run.store.clone(), run.now);
        claimers.spawn(async move {
            let session = session(&format!("worker_{worker}"));
            store.open_session(&session, now, LEASE).await.unwrap();
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim(&session, &[queue("default")], 7, now).await.unwrap();
                assert!(claimed.len() <= 7);
                mine.extend(claimed.into_iter().map(|claim| claim.task_id));
                let left = store.task_instances(&claim_key()).await.unwrap();
                if left.iter().all(|row| row.instance.state == TaskState::Running) {
                    return mine;
                }
            }
        });
    }
    let all: Vec<_> = claimers.join_all().await.into_iter().flatten().collect();
    assert_eq!(all.len(), 200);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 200);
}

fn claim_key() -> mainspring::core::ids::RunKey {
    super::home::birth(&super::home::dag("dag", "hash", tasks(1)), "first").key
}

pub(crate) async fn a_claim_is_seen_by_the_run_as_a_new_version(home: Home) {
    let mut run = queued(&home, 2).await;
    let worker = session("worker");
    run.store.open_session(&worker, run.now, LEASE).await.unwrap();
    let claimed = run.store.claim(&worker, &[queue("default")], 1, run.now).await.unwrap();
    assert_eq!((claimed.len(), claimed[0].fence.0, claimed[0].try_number), (1, 1, 1));
    assert_eq!(claimed[0].run_key, run.key());
    let error = run.commit(&run.moving(&[ti(1)], TaskState::Running)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
    run.run = run.store.load_run(&run.key(), &run.dag).await.unwrap().unwrap();
    assert_eq!(run.instance(ti(0)).session, Some(worker));
    run.move_to(&[ti(0)], TaskState::Success).await;
    let tries = run.store.tries(&run.key(), &claimed[0].task_id).await.unwrap();
    assert_eq!(tries[0].end.as_ref().map(|end| end.outcome), Some(TaskState::Success));
}

pub(crate) async fn a_session_that_is_not_live_gets_nothing(home: Home) {
    let run = queued(&home, 1).await;
    let worker = session("worker");
    let queues = [queue("default")];
    let error = run.store.claim(&worker, &queues, 1, run.now).await.unwrap_err();
    assert_eq!(error.to_string(), "session `worker` is not live: open a new session before claiming");
    run.store.open_session(&worker, run.now, LEASE).await.unwrap();
    run.store.open_session(&worker, run.now, LEASE).await.unwrap_err();
    run.store.claim(&worker, &queues, 1, LEASE).await.unwrap_err();
    assert!(
        !run.store.heartbeat(&worker, LEASE, Timestamp(LEASE.0 + 9)).await.unwrap(),
        "a lease that ran out"
    );
    assert!(run.store.heartbeat(&worker, run.now, Timestamp(LEASE.0 + 9)).await.unwrap());
    run.store.close_session(&worker, run.now).await.unwrap();
    run.store.claim(&worker, &queues, 1, run.now).await.unwrap_err();
    assert!(!run.store.heartbeat(&worker, run.now, LEASE).await.unwrap(), "a session that was closed");
}

pub(crate) async fn what_a_dead_session_holds_is_found(home: Home) {
    let run = queued(&home, 2).await;
    let worker = session("worker");
    run.store.open_session(&worker, run.now, LEASE).await.unwrap();
    let claimed = run.store.claim(&worker, &[queue("default")], 1, run.now).await.unwrap();
    assert_eq!(run.store.expired(run.now, 10).await.unwrap(), []);
    let orphans = run.store.expired(LEASE, 10).await.unwrap();
    assert_eq!(orphans.len(), 1);
    assert_eq!((&orphans[0].task_id, orphans[0].fence), (&claimed[0].task_id, claimed[0].fence));
}

pub(crate) async fn a_claim_takes_only_its_queues_and_the_highest_priority_first(home: Home) {
    let names = [("low", "default", 1), ("high", "default", 5), ("big", "gpu", 9)];
    let all = names.iter().map(|(id, queue, weight)| on_queue(task(id), queue, *weight)).collect();
    let mut run = home.run_of(all).await;
    run.start().await;
    run.move_to(&[ti(0), ti(1), ti(2)], TaskState::Queued).await;
    let worker = session("worker");
    run.store.open_session(&worker, run.now, LEASE).await.unwrap();
    let claimed = run.store.claim(&worker, &[queue("default")], 5, run.now).await.unwrap();
    assert_eq!(claimed.iter().map(|claim| claim.task_id.as_str()).collect::<Vec<_>>(), ["high", "low"]);
}
