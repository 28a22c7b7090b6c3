//! Events are written once, for every DAG that follows them, and each is taken by one run.

use std::collections::BTreeSet;
use std::sync::Arc;

use mainspring::control::prune;
use mainspring::core::dag::Dag;
use mainspring::core::ids::{RunKey, Timestamp};
use mainspring::core::run::{Decision, Reason, RunType};
use mainspring::core::state::{RunState, TaskState};
use mainspring::core::timetable::{AssetCondition, Batching, When};
use mainspring::store::{
    Arrival, Arrived, Created, DagRow, ErrorClass, EventSource, Firing, Store, StoreError,
};
use tokio::task::JoinSet;

use super::home::{Driven, Home, birth, dag, task, ti};

const NOW: Timestamp = Timestamp(50_000_000);
const LIMIT: u32 = 1000;

/// A DAG that follows these assets.
async fn follower(store: &Store, id: &str, hash: &str, assets: &[&str]) -> Dag {
    let parts = assets.iter().map(|name| AssetCondition::Asset(Arc::from(*name))).collect();
    let when = When::Assets { condition: AssetCondition::Any(parts), cron: Vec::new() };
    served(store, id, hash, when).await
}

async fn served(store: &Store, id: &str, hash: &str, when: When) -> Dag {
    let mut dag = dag(id, hash, vec![task("only")]);
    dag.settings.schedule.when = when;
    assert!(store.put_dag(&dag, "the source", NOW).await.unwrap());
    // What is new is asked once; then it rests until an event comes.
    let row = store.dag(&dag.id).await.unwrap().unwrap();
    store.fire(&row, &dag, &Firing::default(), NOW).await.unwrap();
    dag
}

/// A run whose one task writes `orders` and `users`.
async fn producer(store: &Store, run_id: &str) -> Driven {
    let mut writes = task("extract");
    writes.outlets = vec!["orders".into(), "users".into()];
    let dag = dag("shop", "shop-hash", vec![writes]);
    store.put_dag_version(&dag.hash, &dag.id, "the source").await.unwrap();
    let Created::New(run) = store.create_run(&birth(&dag, run_id), &dag).await.unwrap() else {
        panic!("the database is not fresh")
    };
    Driven { store: store.clone(), dag, run, now: Timestamp(2_000_000) }
}

impl Driven {
    /// The only task ends well, and that is news.
    async fn publish(&mut self) {
        self.move_to(&[ti(0)], TaskState::Running).await;
        let done = Decision { published: vec![ti(0)], ..self.moving(&[ti(0)], TaskState::Success) };
        self.commit(&done).await.unwrap();
    }
}

async fn waiting(store: &Store, dag: &Dag) -> Vec<String> {
    let events = store.waiting_events(&dag.id, LIMIT).await.unwrap();
    events.into_iter().map(|event| event.name.to_string()).collect()
}

async fn due(store: &Store) -> Vec<String> {
    let rows = store.due_dags(NOW, 10).await.unwrap();
    rows.into_iter().map(|row| row.dag_id.to_string()).collect()
}

/// A run that takes everything that waits, as a scheduler makes it.
async fn fire(store: &Store, dag: &Dag, row: &DagRow, name: &str) -> Result<Option<RunKey>, StoreError> {
    let rings = store.rings(&dag.id).await?;
    let events = store.waiting_events(&dag.id, LIMIT).await?;
    let mut firing = Firing { heard: Some(rings), ..Firing::default() };
    let at = Timestamp(row.cursor.map_or(NOW.0, |before| before.0 + 1));
    let mut run = birth(dag, name);
    (run.run_type, run.logical_date, firing.cursor) = (RunType::Scheduled, at, Some(at));
    if !events.is_empty() {
        let taken = events.iter().map(|event| event.no).collect();
        firing.events.insert(run.key.run_id.clone(), taken);
        firing.births.push(run);
    }
    let created = store.fire(row, dag, &firing, NOW).await?;
    Ok(created.into_iter().next().map(|run| run.key))
}

async fn row(store: &Store, dag: &Dag) -> DagRow {
    store.dag(&dag.id).await.unwrap().unwrap()
}

async fn sources(store: &Store, key: &RunKey) -> Vec<(String, String)> {
    let events = store.events_of(key).await.unwrap();
    let source = |from| match from {
        EventSource::Task { run, .. } => run.run_id.to_string(),
        EventSource::Outside { event_id, .. } => event_id.to_string(),
    };
    events.into_iter().map(|event| (event.name.to_string(), source(event.from))).collect()
}

pub(crate) async fn a_success_is_news_for_every_dag_that_follows_an_asset(home: Home) {
    let store = &home.store;
    let orders = follower(store, "orders_only", "h1", &["orders"]).await;
    let both = follower(store, "both", "h2", &["orders", "users"]).await;
    let rates = follower(store, "rates", "h3", &["rates"]).await;
    let mut run = producer(store, "one").await;
    assert!(due(store).await.is_empty());
    run.move_to(&[ti(0)], TaskState::Running).await;
    run.move_to(&[ti(0)], TaskState::UpForRetry).await;
    assert!(due(store).await.is_empty(), "a failure is no news");
    run.move_to(&[ti(0)], TaskState::Scheduled).await;
    run.move_to(&[ti(0)], TaskState::Queued).await;
    run.publish().await;
    assert_eq!(due(store).await, ["both", "orders_only"]);
    assert_eq!(waiting(store, &orders).await, ["orders"]);
    assert_eq!(waiting(store, &both).await, ["orders", "users"]);
    assert!(waiting(store, &rates).await.is_empty());
    let key = fire(store, &both, &row(store, &both).await, "taker").await.unwrap().unwrap();
    let names = |name: &str| (name.to_owned(), "one".to_owned());
    assert_eq!(sources(store, &key).await, [names("orders"), names("users")]);
    assert!(waiting(store, &both).await.is_empty());
    assert_eq!(waiting(store, &orders).await, ["orders"], "what one DAG takes the other still has");
    assert_eq!(due(store).await, ["orders_only"]);
}

pub(crate) async fn a_commit_that_is_refused_is_no_news(home: Home) {
    let orders = follower(&home.store, "orders_only", "h1", &["orders"]).await;
    let mut run = producer(&home.store, "one").await;
    run.move_to(&[ti(0)], TaskState::Running).await;
    let done = Decision { published: vec![ti(0)], ..run.moving(&[ti(0)], TaskState::Success) };
    run.commit(&done).await.unwrap();
    let (version, now) = (run.run.version - 1, run.now);
    let again = home.store.commit(&run.dag, &run.key(), version, &done, now).await;
    assert_eq!(again.unwrap_err().class(), ErrorClass::Conflict);
    assert_eq!(waiting(&home.store, &orders).await, ["orders"], "one success, one event");
    assert_eq!(home.store.rings(&orders.id).await.unwrap(), 1);
}

pub(crate) async fn news_that_comes_while_a_schedule_is_asked_is_not_forgotten(home: Home) {
    let orders = follower(&home.store, "orders_only", "h1", &["orders"]).await;
    producer(&home.store, "one").await.publish().await;
    let rings = home.store.rings(&orders.id).await.unwrap();
    assert_eq!(waiting(&home.store, &orders).await, ["orders"]);
    producer(&home.store, "two").await.publish().await;
    // The schedule was asked without the second event, and found nothing to do.
    let firing = Firing { heard: Some(rings), ..Firing::default() };
    home.store.fire(&row(&home.store, &orders).await, &orders, &firing, NOW).await.unwrap();
    assert_eq!(due(&home.store).await, ["orders_only"]);
    let firing = Firing { heard: Some(2), ..Firing::default() };
    home.store.fire(&row(&home.store, &orders).await, &orders, &firing, NOW).await.unwrap();
    assert!(due(&home.store).await.is_empty(), "it was asked with both and wants to be left alone");
    assert_eq!(waiting(&home.store, &orders).await, ["orders", "orders"]);
}

pub(crate) async fn events_of_a_run_that_cannot_be_made_wait_on(home: Home) {
    let orders = follower(&home.store, "orders_only", "h1", &["orders"]).await;
    producer(&home.store, "one").await.publish().await;
    // Somebody has made a run of that name by hand.
    home.store.create_run(&birth(&orders, "taker"), &orders).await.unwrap();
    assert_eq!(fire(&home.store, &orders, &row(&home.store, &orders).await, "taker").await.unwrap(), None);
    assert_eq!(due(&home.store).await, ["orders_only"]);
    let key = fire(&home.store, &orders, &row(&home.store, &orders).await, "next").await.unwrap().unwrap();
    assert_eq!(sources(&home.store, &key).await.len(), 1);
}

pub(crate) async fn among_many_writers_and_schedulers_each_event_is_taken_once(home: Home) {
    const WRITERS: usize = 4;
    const RUNS: usize = 12;
    const SCHEDULERS: usize = 3;
    let dag = Arc::new(follower(&home.store, "orders_only", "h1", &["orders"]).await);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = home.store.clone();
        writers.spawn(async move {
            for run in 0..RUNS {
                producer(&store, &format!("w{writer}_{run}")).await.publish().await;
            }
        });
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut schedulers = JoinSet::new();
    for scheduler in 0..SCHEDULERS {
        let (store, dag, stopped) = (home.store.clone(), dag.clone(), stopped.clone());
        schedulers.spawn(async move {
            let mut taken = Vec::new();
            for round in 0.. {
                let last = *stopped.borrow();
                let row = row(&store, &dag).await;
                match fire(&store, &dag, &row, &format!("s{scheduler}_{round}")).await {
                    Ok(Some(key)) => taken.push(key),
                    Ok(None) if last => break,
                    Ok(None) => tokio::task::yield_now().await,
                    Err(error) => assert_eq!(error.class(), ErrorClass::Conflict, "{error}"),
                }
            }
            taken
        });
    }
    writers.join_all().await;
    stop.send(true).unwrap();
    let mut seen = Vec::new();
    for key in schedulers.join_all().await.concat() {
        let events = sources(&home.store, &key).await;
        assert!(!events.is_empty(), "{key:?} has nothing to do");
        seen.extend(events);
    }
    let distinct: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!((seen.len(), distinct.len()), (WRITERS * RUNS, WRITERS * RUNS));
    assert!(waiting(&home.store, &dag).await.is_empty());
}

pub(crate) async fn a_dag_that_follows_other_news_forgets_what_waited(home: Home) {
    let dag = follower(&home.store, "changes", "h1", &["orders", "rates"]).await;
    producer(&home.store, "one").await.publish().await;
    assert_eq!(waiting(&home.store, &dag).await, ["orders"]);
    follower(&home.store, "changes", "h2", &["users"]).await;
    assert!(waiting(&home.store, &dag).await.is_empty());
    producer(&home.store, "two").await.publish().await;
    assert_eq!(waiting(&home.store, &dag).await, ["users"]);
    // Back as it was: what came meanwhile is not made up for.
    follower(&home.store, "changes", "h1", &["orders", "rates"]).await;
    assert!(waiting(&home.store, &dag).await.is_empty());
    served(&home.store, "changes", "h3", When::ByHand).await;
    producer(&home.store, "three").await.publish().await;
    assert!(waiting(&home.store, &dag).await.is_empty());
}

pub(crate) async fn a_dag_that_was_there_before_events_were_follows_them_once_a_server_starts(home: Home) {
    let dag = follower(&home.store, "orders_only", "h1", &["orders"]).await;
    // As a database is that was made before these tables were.
    home.raw("DELETE FROM listener; DELETE FROM bell").await.unwrap();
    assert!(!home.store.put_dag(&dag, "the source", NOW).await.unwrap(), "its file has not changed");
    producer(&home.store, "one").await.publish().await;
    assert_eq!(waiting(&home.store, &dag).await, ["orders"]);
    assert_eq!(due(&home.store).await, ["orders_only"]);
}

pub(crate) async fn an_event_that_is_sent_twice_is_received_once(home: Home) {
    let store = &home.store;
    let batching = Batching { wait_max: std::time::Duration::from_secs(1), max: 2 };
    let when = When::Event { name: "bought".into(), batching };
    let dag = served(store, "shop_events", "h1", when).await;
    let arrivals = |ids: &[&str]| {
        let arrival =
            |id: &&str| Arrival { event_id: (*id).to_owned(), payload: format!("{{\"n\":\"{id}\"}}") };
        ids.iter().map(arrival).collect::<Vec<_>>()
    };
    assert_eq!(store.receive("sold", arrivals(&["a"]), NOW).await.unwrap(), None, "nobody follows it");
    let first = store.receive("bought", arrivals(&["a", "b", "a"]), NOW).await.unwrap();
    assert_eq!(first, Some(Arrived { new: 2, known: 1 }));
    let again = store.receive("bought", arrivals(&["b", "c"]), NOW).await.unwrap();
    assert_eq!(again, Some(Arrived { new: 1, known: 1 }));
    assert_eq!(due(store).await, ["shop_events"]);
    let key = fire(store, &dag, &row(store, &dag).await, "taker").await.unwrap().unwrap();
    let names: Vec<String> = sources(store, &key).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let EventSource::Outside { payload, .. } = &store.events_of(&key).await.unwrap()[0].from else {
        panic!("it came from outside")
    };
    assert_eq!(&**payload, r#"{"n":"a"}"#);
}

pub(crate) async fn old_events_are_pruned_but_for_those_that_a_run_is_still_to_have(home: Home) {
    let store = &home.store;
    let (logs, far) = (tempfile::tempdir().unwrap(), Timestamp(i64::MAX));
    let dag = follower(store, "orders_only", "h1", &["orders"]).await;
    for name in ["one", "two", "three"] {
        producer(store, name).await.publish().await;
    }
    assert_eq!(prune(store, logs.path(), far).await.unwrap(), 0);
    assert_eq!(waiting(store, &dag).await, ["orders"], "the newest still makes the run due");
    let key = fire(store, &dag, &row(store, &dag).await, "taker").await.unwrap().unwrap();
    assert_eq!(prune(store, logs.path(), far).await.unwrap(), 0);
    assert_eq!(sources(store, &key).await, [("orders".to_owned(), "three".to_owned())]);
    let run = store.load_run(&key, &dag).await.unwrap().unwrap();
    let mut run = Driven { store: store.clone(), dag: dag.clone(), run, now: NOW };
    let run_change = Some(run.run_move(RunState::Cancelled, Reason::Cancelled));
    let end = Decision { run_change, ..run.moving(&[ti(0)], TaskState::Cancelled) };
    run.commit(&end).await.unwrap();
    assert_eq!(prune(store, logs.path(), far).await.unwrap(), 1);
    assert_eq!(prune(store, logs.path(), far).await.unwrap(), 0);
    assert!(store.events_of(&key).await.unwrap().is_empty());
    // What waits for a DAG without a file waits in vain.
    producer(store, "four").await.publish().await;
    store.lose_dag(&dag.id).await.unwrap();
    assert_eq!(prune(store, logs.path(), far).await.unwrap(), 0);
    assert!(waiting(store, &dag).await.is_empty());
}
