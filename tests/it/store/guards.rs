//! What must not happen is refused, by the store and by the database.

use std::collections::BTreeSet;

use mainspring::core::ids::PoolName;
use mainspring::core::run::{Decision, Reason, TiRef};
use mainspring::core::state::TaskState;
use mainspring::store::{Durability, ErrorClass, Store};
use sqlx::Connection;
use tokio::task::JoinSet;

use super::home::{Home, in_pool, task, tasks, ti};

pub(crate) async fn migrating_again_changes_nothing(home: Home) {
    let run = home.run_of(tasks(1)).await;
    home.store.migrate().await.unwrap();
    home.store.close().await;
    let again = Store::open(&home.url, Durability::Full).await.unwrap();
    again.migrate().await.unwrap();
    assert_eq!(again.load_run(&run.key(), &run.dag).await.unwrap().unwrap().version, 0);
}

pub(crate) async fn a_database_from_a_newer_version_is_refused(home: Home) {
    home.raw("INSERT INTO schema_version VALUES (7, 'of the future')").await.unwrap();
    home.store.close().await;
    let error = match Store::open(&home.url, Durability::Full).await {
        Ok(store) => store.migrate().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.class(), ErrorClass::Environment);
    let text = error.to_string();
    assert!(text.starts_with("the database is from a newer version of mainspring (schema 7, this"), "{text}");
    assert!(text.ends_with("use that version, or another database"), "{text}");
    let reader = Store::open_reader(&home.url).await.unwrap_err();
    assert_eq!(reader.to_string(), text, "who only reads could misread it");
}

pub(crate) async fn a_stale_version_is_a_conflict_and_writes_nothing(home: Home) {
    let mut run = home.run_of(tasks(2)).await;
    run.move_to(&[ti(0)], TaskState::Running).await;
    let late = run.moving(&[ti(1)], TaskState::Running);
    let error = run.store.commit(&run.dag, &run.key(), 0, &late, run.now).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
    assert_eq!(error.to_string(), "run `first` of `dag` is not at version 0");
    run.check().await;
    assert_eq!(run.store.journal(&run.key()).await.unwrap().len(), 1);
}

pub(crate) async fn a_stale_fence_is_a_conflict_and_writes_nothing(home: Home) {
    let mut run = home.run_of(tasks(40)).await;
    let all: Vec<TiRef> = (0..40).map(ti).collect();
    run.move_to(&all, TaskState::Running).await;
    let late = run.moving(&[ti(3)], TaskState::Success);
    run.move_to(&[ti(3)], TaskState::Scheduled).await;
    run.move_to(&[ti(3)], TaskState::Running).await;
    let mut zombie = run.moving(&all, TaskState::Success);
    zombie.changes[3] = late.changes[0].clone();
    let lines = run.store.journal(&run.key()).await.unwrap().len();
    let error = run.commit(&zombie).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict, "{error}");
    run.check().await;
    assert_eq!(run.store.journal(&run.key()).await.unwrap().len(), lines);
}

pub(crate) async fn a_state_that_was_not_expected_is_a_conflict(home: Home) {
    let mut run = home.run_of(tasks(1)).await;
    let mut wrong = run.moving(&[ti(0)], TaskState::Running);
    wrong.changes[0].from = TaskState::Queued;
    let error = run.commit(&wrong).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 of 1 task instances are not in the state and under the fence they were to move from"
    );
    run.check().await;
}

pub(crate) async fn the_database_itself_refuses_an_illegal_move(home: Home) {
    let mut run = home.run_of(tasks(2)).await;
    run.move_to(&[ti(0)], TaskState::Running).await;
    for (what, set) in [
        ("a claim under the old fence", "state = 'running', session_id = 'x' WHERE task_id = 'task_0001'"),
        ("a fence that goes back", "fence = 0 WHERE task_id = 'task_0000'"),
        ("a wait of what never ran", "state = 'deferred', resume_at_us = 1 WHERE task_id = 'task_0001'"),
    ] {
        let error = home.raw(&format!("UPDATE task_instance SET {set}")).await.expect_err(what);
        assert!(error.to_string().contains("illegal move"), "{what}: {error}");
    }
    let mut retry = run.moving(&[ti(1)], TaskState::UpForRetry);
    retry.changes[0].reason = Reason::Ready;
    assert_eq!(run.commit(&retry).await.unwrap_err().class(), ErrorClass::Bug, "a retry of what never ran");
    run.check().await;
}

pub(crate) async fn the_database_itself_refuses_columns_that_contradict_the_state(home: Home) {
    let run = home.run_of(tasks(1)).await;
    for set in [
        "resume_at_us = 1",
        "ended_at_us = 1",
        "session_id = 'x'",
        "state = 'success'",
        "state = 'on_fire'",
        "try_number = -1",
        "state = 'running', fence = 1",
    ] {
        home.raw(&format!("UPDATE task_instance SET {set}")).await.expect_err(set);
    }
    for set in
        ["state = 'running'", "state = 'success'", "ended_at_us = 1", "schedule = 'x'", "state = 'deferred'"]
    {
        home.raw(&format!("UPDATE dag_run SET {set}")).await.expect_err(set);
    }
    run.check().await;
}

pub(crate) async fn a_pool_is_never_admitted_over_its_slots(home: Home) {
    let pool = PoolName::parse("small").unwrap();
    home.store.set_pool(&pool, 9).await.unwrap();
    home.store.set_pool(&pool, 3).await.unwrap();
    let mut run =
        home.run_of((0..3).map(|place| in_pool(task(&format!("t{place}")), "small", 2)).collect()).await;
    let error = run.commit(&run.moving(&[ti(0), ti(1)], TaskState::Running)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
    assert_eq!(error.to_string(), "pool `small` has 3 slots, this would make 4 in use");
    run.check().await;
    run.move_to(&[ti(0)], TaskState::Queued).await;
    let used = home.store.pools().await.unwrap()[&pool];
    assert_eq!((used.size, used.used), (3, 2));
    run.move_to(&[ti(0)], TaskState::Running).await;
    run.move_to(&[ti(0)], TaskState::Success).await;
    run.move_to(&[ti(1)], TaskState::Running).await;
    run.check().await;
}

pub(crate) async fn of_many_writers_of_one_version_one_wins(home: Home) {
    let run = home.run_of(tasks(16)).await;
    let mut writers = JoinSet::new();
    for place in 0..16 {
        let (store, dag, key, now) = (run.store.clone(), run.dag.clone(), run.key(), run.now);
        let decision = run.moving(&[ti(place)], TaskState::Running);
        writers.spawn(async move { store.commit(&dag, &key, 0, &decision, now).await });
    }
    let results = writers.join_all().await;
    let classes: Vec<_> =
        results.iter().filter_map(|result| result.as_ref().err()).map(|e| e.class()).collect();
    assert_eq!(classes, [ErrorClass::Conflict; 15]);
    assert_eq!(run.store.journal(&run.key()).await.unwrap().len(), 1);
}

pub(crate) async fn a_failing_commit_does_not_harm_its_neighbours(home: Home) {
    let first = home.run_of(tasks(1)).await;
    let mut writers = JoinSet::new();
    for place in 0..64 {
        let store = first.store.clone();
        let dag = first.dag.clone();
        let birth = super::home::birth(&dag, &format!("run_{place}"));
        let mut decision = first.moving(&[ti(0)], TaskState::Running);
        if place % 2 == 1 {
            decision.changes[0].from_fence = super::home::fence(9);
        }
        let now = first.now;
        writers.spawn(async move {
            store.create_run(&birth, &dag).await.unwrap();
            let result = store.commit(&dag, &birth.key, 0, &decision, now).await;
            let run = store.load_run(&birth.key, &dag).await.unwrap().unwrap();
            (place, result.is_ok(), run.version, store.journal(&birth.key).await.unwrap().len())
        });
    }
    for (place, accepted, version, lines) in writers.join_all().await {
        let expected = if place % 2 == 1 { (false, 0, 0) } else { (true, 1, 1) };
        assert_eq!((accepted, version, lines), expected, "run {place}");
    }
}

pub(crate) async fn a_transaction_that_was_not_finished_leaves_nothing(home: Home) {
    let mut run = home.run_of(tasks(1)).await;
    let begun = "BEGIN; UPDATE dag_run SET version = 99; UPDATE task_instance SET state = 'queued'";
    home.raw(begun).await.unwrap();
    run.check().await;
    // An asker that goes away between statements: all of its commit or none.
    let decision = run.moving(&[ti(0)], TaskState::Running);
    let key = run.key();
    let gone = tokio::time::timeout(
        std::time::Duration::ZERO,
        run.store.commit(&run.dag, &key, 0, &decision, run.now),
    );
    drop(gone.await);
    // The writer takes one after the other: what comes back from this one comes after that one.
    run.store.put_dag_version(&run.dag.hash, &run.dag.id, "").await.unwrap();
    let found = run.store.load_run(&key, &run.dag).await.unwrap().unwrap();
    let lines = run.store.journal(&key).await.unwrap().len();
    assert!(matches!((found.version, lines), (0, 0) | (1, 1)), "{} {lines}", found.version);
    run.run = found;
    run.commit(&Decision::default()).await.ok();
}

#[tokio::test]
async fn a_second_process_on_one_sqlite_home_is_refused_with_the_holder() {
    let home = Home::on_sqlite().await;
    let error = Store::open(&home.url, Durability::Full).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Environment);
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    home.store.close().await;
    Store::open(&home.url, Durability::Full).await.unwrap();
}

#[tokio::test]
async fn a_process_that_another_has_replaced_writes_no_more() {
    let home = Home::on_sqlite().await;
    let mut run = home.run_of(tasks(1)).await;
    home.raw("UPDATE instance SET epoch = epoch + 1").await.unwrap();
    let error = run.commit(&run.moving(&[ti(0)], TaskState::Running)).await.unwrap_err();
    assert_eq!(error.to_string(), "another process has opened this state database since; this one must end");
    run.check().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let url = format!("sqlite://{}/file/state.db", folder.path().display());
    let error = Store::open(&url, Durability::Full).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Environment);
    assert!(error.to_string().contains("/file`"), "{error}");
}

#[tokio::test]
async fn a_url_of_another_kind_is_refused() {
    let error = Store::open("mysql://x", Durability::Full).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::User);
}

#[tokio::test]
async fn the_table_of_legal_moves_is_the_core_s() {
    let home = Home::on_sqlite().await;
    let mut connection = sqlx::SqliteConnection::connect(&home.url).await.unwrap();
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT from_state, to_state FROM legal_move")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let table: BTreeSet<_> = rows.into_iter().collect();
    let moves = mainspring::core::state::legal_moves();
    let core: BTreeSet<_> = moves.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect();
    // A state that stays is not a move to the database.
    let core: BTreeSet<_> = core.into_iter().filter(|(from, to)| from != to).collect();
    assert_eq!(table, core);
}
