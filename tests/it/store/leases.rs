//! Sessions of workers, and what those hold that fell silent.

use mainspring::core::ids::Timestamp;
use mainspring::core::state::TaskState;

use super::home::{Home, session, tasks, ti};

const LEASE: Timestamp = Timestamp(1_000_000_000);

pub(crate) async fn a_lease_that_ran_out_or_was_closed_is_not_renewed(home: Home) {
    let (store, now) = (&home.store, Timestamp(1));
    let worker = session("worker");
    store.open_session(&worker, now, LEASE).await.unwrap();
    store.open_session(&worker, now, LEASE).await.unwrap_err();
    let later = Timestamp(LEASE.0 + 9);
    assert!(!store.heartbeat(&worker, LEASE, later).await.unwrap(), "a lease that ran out");
    assert!(store.heartbeat(&worker, now, later).await.unwrap());
    store.close_session(&worker, now).await.unwrap();
    assert!(!store.heartbeat(&worker, now, LEASE).await.unwrap(), "a session that was closed");
}

pub(crate) async fn what_a_dead_session_holds_is_found(home: Home) {
    let mut run = home.run_of(tasks(2)).await;
    run.start().await;
    run.store.open_session(&session("local"), run.now, LEASE).await.unwrap();
    run.move_to(&[ti(0)], TaskState::Running).await;
    assert_eq!(run.store.expired(run.now, 10).await.unwrap(), []);
    let orphans = run.store.expired(LEASE, 10).await.unwrap();
    assert_eq!(orphans.len(), 1);
    assert_eq!((&orphans[0].task_id, orphans[0].fence), (&run.dag.task(0).id, run.instance(ti(0)).fence));
}
