//! A DAG that fails every minute for an hour of simulated time, with three committers and with couriers that
//! are killed: one problem, told once as it opens and once as it ends, on each route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mainspring::alerts::Routes;
use mainspring::core::dag::Dag;
use mainspring::core::ids::{RunKey, Timestamp};
use mainspring::core::run::Outcome;
use mainspring::engine::courier;
use mainspring::store::{Durability, LetterState, ProblemFilter, Store, StoreError};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Home;
use super::receivers::{Catcher, MailServer};
use super::story::{MIDNIGHT, advance, after, create, fails, key, stored, succeeds, task};

const MINUTES: i64 = 60;
const COMMITTERS: i64 = 3;

/// The simulated clock.
#[derive(Clone)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::SeqCst);
    }
}

/// Where everybody works: on Postgres each with connections of their own.
async fn another(home: &Home) -> Store {
    if home.url.starts_with("sqlite") {
        home.store.clone()
    } else {
        Store::open(&home.url, Durability::Full).await.unwrap()
    }
}

/// `load` fails until the last minute; `flaky` always needs its second attempt.
fn script(minute: i64) -> impl Fn(&str, u32) -> Outcome + Copy + Send + Sync {
    move |id, attempt| match id {
        "flaky" if attempt == 1 => fails("a hiccup"),
        "load" if minute < MINUTES => fails("the warehouse is away"),
        _ => succeeds(),
    }
}

/// Commits until the run is final; conflicts mean that another was faster.
async fn commit_to_the_end(store: Store, dag: Arc<Dag>, key: RunKey, minute: i64) {
    loop {
        match advance(&store, &dag, &key, after(MIDNIGHT, 60 * minute), script(minute)).await {
            Ok(state) if state.is_final() => return,
            Ok(_) | Err(StoreError::Conflict(_) | StoreError::Busy(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn courier(store: Store, routes: &Arc<Routes>, clock: &Clock, stop: &CancellationToken) -> JoinHandle<()> {
    let (routes, clock, stop) = (routes.clone(), clock.clone(), stop.clone());
    tokio::spawn(async move { courier::run(store, routes, move || clock.now(), stop).await })
}

/// Routes to both receivers, by mail and by hook.
fn routes_to(mail: &MailServer, hook: &Catcher) -> Arc<Routes> {
    let settings = json!({"routes": {
        "mail": {
            "type": "email", "smtp": format!("smtp://127.0.0.1:{}", mail.port),
            "from": "mainspring@example.com", "to": "oncall@example.com",
        },
        "hook": {"type": "webhook", "url": hook.url, "secret": "x".repeat(32)},
    }});
    Arc::new(super::routes::routes(settings, &[]).unwrap())
}

/// One minute: a run is created, and all committers work on it, of whom one is killed wherever it is; the others
/// have to end the run.
async fn a_minute(stores: &[Store], dag: &Arc<Dag>, minute: i64) {
    let now = after(MIDNIGHT, 60 * minute);
    let key = key(dag, &format!("run_{minute}"));
    create(&stores[0], dag, key.run_id.as_str(), now).await;
    let mut committers: Vec<_> = stores
        .iter()
        .map(|store| tokio::spawn(commit_to_the_end(store.clone(), dag.clone(), key.clone(), minute)))
        .collect();
    for _ in 0..minute * 3 {
        tokio::task::yield_now().await;
    }
    let victim = committers.swap_remove(usize::try_from(minute % COMMITTERS).unwrap());
    victim.abort();
    for committer in committers {
        committer.await.unwrap();
    }
    drop(victim.await);
}

/// A courier that dies with letters in its hands, and one that dies after it has sent them; answers the latter.
async fn couriers_die(store: &Store, routes: &Routes, minute: i64) -> Vec<String> {
    let (now, mut sent) = (after(MIDNIGHT, 60 * minute), Vec::new());
    for (route, sends) in [("mail", minute % 2 == 0), ("hook", minute % 2 == 1)] {
        for letter in store.claim_letters(route, 8, now, Duration::from_secs(90)).await.unwrap() {
            if sends {
                let message = mainspring::alerts::Message {
                    id: letter.id.clone(),
                    first_id: letter.first_id,
                    route: letter.route,
                    problem: letter.problem,
                };
                let answer = routes.find(route).unwrap().send(&message, now).await;
                sent.extend(answer.is_ok().then_some(letter.id));
            }
        }
    }
    sent
}

/// The one problem that all of it was; answers its letters by id.
async fn one_problem_that_has_ended(store: &Store) -> (i64, BTreeSet<String>) {
    let all = store.problems(ProblemFilter::All, 10).await.unwrap();
    let [numbered] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(numbered.problem.key.to_string(), "feed/load/task_failed");
    assert_eq!(numbered.problem.occurrences, u64::try_from(MINUTES).unwrap());
    assert!(numbered.problem.resolved_at.is_some_and(|at| at >= after(MIDNIGHT, 60 * MINUTES)));
    assert!(numbered.problem.opened_at < after(MIDNIGHT, 60));
    let letters = store.deliveries(numbered.problem_no).await.unwrap();
    (numbered.problem_no, letters.into_iter().map(|letter| letter.id).collect())
}

fn id_of(mail: &serde_json::Value) -> String {
    mail["headers"]["x-mainspring-delivery"].as_str().unwrap().to_owned()
}

pub(crate) async fn an_hour_of_failures_is_told_once_and_its_end_once(home: Home) {
    // Both receivers are away at first.
    let (mut mail, mut hook) = (MailServer::start(&["--refuse", "2"]), Catcher::start(3).await);
    let routes = routes_to(&mail, &hook);
    let dag = Arc::new(
        stored(&home.store, "feed", vec![task("load", 0), task("flaky", 1)], &["mail", "hook"]).await,
    );
    let clock = Clock(Arc::new(AtomicI64::new(MIDNIGHT.0)));
    let stop = CancellationToken::new();
    let mut stores = Vec::new();
    for _ in 0..=COMMITTERS {
        stores.push(another(&home).await);
    }
    let courier_store = stores.pop().unwrap();
    let mut at_work = courier(courier_store.clone(), &routes, &clock, &stop);
    let (mut sent_by_the_dead, mut kills) = (Vec::new(), 0);
    for minute in 0..=MINUTES {
        clock.set(after(MIDNIGHT, 60 * minute));
        a_minute(&stores, &dag, minute).await;
        if minute % 7 == 3 || minute == MINUTES {
            at_work.abort();
            kills += 1;
            sent_by_the_dead.extend(couriers_die(&home.store, &routes, minute).await);
            at_work = courier(courier_store.clone(), &routes, &clock, &stop);
        }
    }
    let (problem_no, expected) = one_problem_that_has_ended(&home.store).await;
    assert_eq!(expected.len(), 4, "two routes, each told of the opening and of the end");
    // Time goes on until the last lease and the last wait have ended.
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    while told.len() < expected.len() {
        clock.set(after(clock.now(), 600));
        let id = tokio::select! {
            call = hook.next() => call.delivery(),
            mail = mail.next() => id_of(&mail),
        };
        *told.entry(id).or_default() += 1;
    }
    stop.cancel();
    at_work.await.unwrap();
    let deliveries = home.store.deliveries(problem_no).await.unwrap();
    assert!(deliveries.iter().all(|d| d.state == LetterState::Delivered), "{deliveries:?}");
    let late = hook.rest().into_iter().map(|call| call.delivery());
    for id in late.chain(mail.rest().iter().map(id_of)) {
        *told.entry(id).or_default() += 1;
    }
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), expected, "none is lost and none is invented");
    // Only a courier that died between sending and noting is followed by a repetition, under the same id.
    let repeated: u32 = told.values().map(|count| count - 1).sum();
    assert!(repeated as usize <= sent_by_the_dead.len() + 2 * kills, "{told:?}");
}
