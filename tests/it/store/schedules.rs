//! Schedules, backfills, and what a scheduler finds again.

use std::collections::BTreeSet;

use mainspring::core::dag::Dag;
use mainspring::core::ids::{QueueName, RunId, Timestamp};
use mainspring::core::run::{Decision, Reason, RunBirth, RunType};
use mainspring::core::state::{RunState, TaskState};
use mainspring::store::{Backfill, Created, DagRow, ErrorClass, Firing, RoomAsked, SkippedInstants};

use super::home::{Driven, Home, birth, dag, tasks, ti};

const NOW: Timestamp = Timestamp(10_000_000);

async fn served(home: &Home, limit: u32) -> (Dag, DagRow) {
    let mut dag = dag("dag", "hash", tasks(1));
    dag.settings.max_active_runs = limit;
    assert!(home.store.put_dag(&dag, "the source", NOW).await.unwrap());
    let row = home.store.dag(&dag.id).await.unwrap().unwrap();
    (dag, row)
}

fn at(dag: &Dag, run_type: RunType, second: i64) -> RunBirth {
    let mut birth = birth(dag, &format!("{run_type}__{second}"));
    (birth.run_type, birth.logical_date) = (run_type, Timestamp(second * 1_000_000));
    birth
}

fn firing(births: Vec<RunBirth>) -> Firing {
    let cursor = births.last().map(|birth| birth.logical_date);
    Firing { births, cursor, next_fire: Some(Timestamp(99_000_000)), ..Firing::default() }
}

pub(crate) async fn of_two_schedulers_one_moves_a_schedule_on(home: Home) {
    let (dag, seen) = served(&home, 16).await;
    let firing = firing(vec![at(&dag, RunType::Scheduled, 1), at(&dag, RunType::Scheduled, 2)]);
    assert_eq!(home.store.fire(&seen, &dag, &firing, NOW).await.unwrap().len(), 2);
    let late = home.store.fire(&seen, &dag, &firing, NOW).await.unwrap_err();
    assert_eq!(late.class(), ErrorClass::Conflict);
    let row = home.store.dag(&dag.id).await.unwrap().unwrap();
    assert_eq!((row.cursor, row.next_fire), (firing.cursor, firing.next_fire));
    // The clock steps back, and the instants are asked for again: they have their runs.
    assert!(home.store.fire(&row, &dag, &firing, NOW).await.unwrap().is_empty());
    assert_eq!(home.store.runs(&Default::default(), 10).await.unwrap().len(), 2);
}

pub(crate) async fn what_a_schedule_leaves_out_is_kept(home: Home) {
    let (dag, seen) = served(&home, 16).await;
    let left_out = SkippedInstants {
        from: Timestamp(1),
        to: Timestamp(5),
        instants: None,
        why: "no_catchup".to_owned(),
    };
    let firing = Firing { skipped: vec![left_out.clone()], ..firing(Vec::new()) };
    home.store.fire(&seen, &dag, &firing, NOW).await.unwrap();
    assert_eq!(home.store.skipped(&dag.id, 10).await.unwrap(), vec![left_out]);
}

pub(crate) async fn a_paused_or_lost_dag_is_not_due(home: Home) {
    let (dag, _) = served(&home, 16).await;
    assert_eq!(home.store.due_dags(NOW, 10).await.unwrap().len(), 1);
    assert!(home.store.set_paused(&dag.id, true, NOW).await.unwrap());
    assert!(!home.store.set_paused(&dag.id, true, NOW).await.unwrap(), "it was paused already");
    assert_eq!(home.store.paused().await.unwrap(), vec![dag.id.clone()]);
    assert!(home.store.due_dags(NOW, 10).await.unwrap().is_empty());
    assert!(home.store.set_paused(&dag.id, false, NOW).await.unwrap());
    home.store.lose_dag(&dag.id).await.unwrap();
    assert!(home.store.due_dags(NOW, 10).await.unwrap().is_empty());
    assert!(home.store.put_dag(&dag, "the source", NOW).await.unwrap(), "its file is back");
    assert!(!home.store.put_dag(&dag, "the source", NOW).await.unwrap(), "nothing is new");
}

pub(crate) async fn runs_start_in_order_within_the_limit_and_backfills_last(home: Home) {
    let (dag, seen) = served(&home, 2).await;
    let backfill = Backfill { id: "b".into(), dag_id: dag.id.clone(), max_active_runs: 1, backwards: true };
    let past = [at(&dag, RunType::Backfill, 1), at(&dag, RunType::Backfill, 2)];
    home.store.create_backfill(&backfill, &past, &dag, NOW).await.unwrap();
    let births = (5..8).map(|second| at(&dag, RunType::Scheduled, second)).collect();
    home.store.fire(&seen, &dag, &firing(births), NOW).await.unwrap();
    let startable = || async {
        let runs = home.store.startable_runs(10).await.unwrap();
        runs.into_iter().map(|run| run.key.run_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(startable().await, ["scheduled__5", "scheduled__6", "backfill__2"]);
    start(&home, &dag, "scheduled__5").await.unwrap();
    start(&home, &dag, "backfill__2").await.unwrap();
    assert_eq!(startable().await, ["scheduled__6"]);
    start(&home, &dag, "scheduled__6").await.unwrap();
    assert!(startable().await.is_empty());
    // Whoever counted before another started is refused.
    assert_eq!(start(&home, &dag, "scheduled__7").await.unwrap_err().class(), ErrorClass::Conflict);
    assert_eq!(start(&home, &dag, "backfill__1").await.unwrap_err().class(), ErrorClass::Conflict);
    assert_eq!(home.store.running_runs().await.unwrap().len(), 3);
    let (key, asked) =
        (at(&dag, RunType::Backfill, 1).key, RoomAsked { pools: true, ..RoomAsked::default() });
    let room = home.store.room(&key, asked).await.unwrap();
    assert_eq!((room.other_active_runs, room.active_runs_max, room.paused), (1, Some(1), false));
}

async fn start(home: &Home, dag: &Dag, run_id: &str) -> Result<(), mainspring::store::StoreError> {
    let mut key = birth(dag, "any").key;
    key.run_id = RunId::parse(run_id).unwrap();
    let run = home.store.load_run(&key, dag).await.unwrap().unwrap();
    let mut driven = Driven { store: home.store.clone(), dag: dag.clone(), run, now: NOW };
    let run_change = Some(driven.run_move(RunState::Running, Reason::Started));
    driven.commit(&Decision { run_change, ..Decision::default() }).await
}

pub(crate) async fn a_run_is_found_by_its_time_and_by_what_waits_for_a_worker(home: Home) {
    let mut run = home.run_of(tasks(2)).await;
    run.start().await;
    assert!(home.store.due_runs(NOW, 10).await.unwrap().is_empty());
    run.move_to(&[ti(0)], TaskState::Running).await;
    let retry = Decision { next_due: Some(NOW), ..run.moving(&[ti(0)], TaskState::UpForRetry) };
    run.commit(&retry).await.unwrap();
    assert!(home.store.due_runs(Timestamp(NOW.0 - 1), 10).await.unwrap().is_empty());
    let due = home.store.due_runs(NOW, 10).await.unwrap();
    assert_eq!((due[0].key.clone(), due[0].version), (run.key(), run.run.version));
    let queues = BTreeSet::from([QueueName::parse("default").unwrap()]);
    assert!(home.store.claimable_runs(&queues, 10).await.unwrap().is_empty());
    run.move_to(&[ti(1)], TaskState::Queued).await;
    assert_eq!(home.store.claimable_runs(&queues, 10).await.unwrap()[0].key, run.key());
    let others = BTreeSet::from([QueueName::parse("gpu").unwrap()]);
    assert!(home.store.claimable_runs(&others, 10).await.unwrap().is_empty());
}

pub(crate) async fn the_run_before_is_the_one_with_the_date_before(home: Home) {
    let (dag, seen) = served(&home, 16).await;
    let births: Vec<_> = (1..4).map(|second| at(&dag, RunType::Scheduled, second)).collect();
    home.store.fire(&seen, &dag, &firing(births.clone()), NOW).await.unwrap();
    let asked = RoomAsked { previous: true, ..RoomAsked::default() };
    assert!(home.store.room(&births[0].key, asked).await.unwrap().previous.is_none());
    let previous = home.store.room(&births[2].key, asked).await.unwrap().previous.unwrap();
    assert_eq!(previous.states[&dag.task(0).id], TaskState::None);
    assert!(matches!(home.store.create_run(&births[0], &dag).await.unwrap(), Created::Existed(_)));
}

pub(crate) async fn an_earlier_run_that_waits_for_its_place_is_seen(home: Home) {
    let (dag, seen) = served(&home, 16).await;
    let births: Vec<_> = (1..4).map(|second| at(&dag, RunType::Scheduled, second)).collect();
    home.store.fire(&seen, &dag, &firing(births.clone()), NOW).await.unwrap();
    let backwards = Backfill { id: "b".into(), dag_id: dag.id.clone(), max_active_runs: 1, backwards: true };
    let past = [at(&dag, RunType::Backfill, 1), at(&dag, RunType::Backfill, 2)];
    home.store.create_backfill(&backwards, &past, &dag, NOW).await.unwrap();
    let waits = async |birth: &RunBirth| {
        let asked = RoomAsked { previous: true, ..RoomAsked::default() };
        home.store.room(&birth.key, asked).await.unwrap().earlier_waits
    };
    assert_eq!((waits(&births[0]).await, waits(&births[1]).await), (false, true));
    assert!(!waits(&past[1]).await, "the newest interval goes first there");
    start(&home, &dag, "scheduled__1").await.unwrap();
    assert_eq!(
        (waits(&births[1]).await, waits(&births[2]).await),
        (false, true),
        "it runs and waits no more"
    );
    assert!(!home.store.room(&births[2].key, RoomAsked::default()).await.unwrap().earlier_waits, "not asked");
}
