//! Couriers by themselves: several at once, a receiver that is away for days, one that never answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mainspring::alerts::Routes;
use mainspring::core::alert::{AlertEvent, Trouble};
use mainspring::core::ids::Timestamp;
use mainspring::engine::courier;
use mainspring::store::{Delivery, Durability, LetterState, ProblemFilter, Store};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Home;
use super::receivers::Catcher;
use super::routes::routes;
use super::story::{MIDNIGHT, after};

/// Opens a problem for each file, told on `route`.
async fn raise(store: &Store, files: std::ops::Range<u32>, route: &str) {
    let raised = |file: u32| AlertEvent::Raised {
        trouble: Trouble::ImportError { file: format!("{route}_{file}.yaml").into() },
        error: "it cannot be read".into(),
        routes: vec![route.into()],
    };
    store.raise(&files.map(raised).collect::<Vec<_>>(), MIDNIGHT).await.unwrap();
}

fn hook(url: &str) -> serde_json::Value {
    json!({"type": "webhook", "url": url})
}

async fn deliveries(store: &Store) -> Vec<Delivery> {
    let mut all = Vec::new();
    for numbered in store.problems(ProblemFilter::All, 100).await.unwrap() {
        all.extend(store.deliveries(numbered.problem_no).await.unwrap());
    }
    all
}

/// Waits until the letters are as they should be.
async fn until(store: &Store, are_so: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
    const PATIENCE: Duration = Duration::from_secs(60);
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let looks = async {
        loop {
            let found = deliveries(store).await;
            if are_so(&found) {
                return found;
            }
            drop(tokio::time::timeout(LOOK_EVERY, std::future::pending::<()>()).await);
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.expect("the letters come to where they should be")
}

fn start(
    store: Store,
    routes: Arc<Routes>,
    clock: Arc<AtomicI64>,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let now = move || Timestamp(clock.load(Ordering::SeqCst));
    tokio::spawn(courier::run(store, routes, now, stop.clone()))
}

fn clock() -> Arc<AtomicI64> {
    Arc::new(AtomicI64::new(MIDNIGHT.0))
}

pub(crate) async fn three_couriers_send_every_letter_once(home: Home) {
    const LETTERS: usize = 60;
    let mut catcher = Catcher::start(0).await;
    let routes = Arc::new(routes(json!({"routes": {"oncall": hook(&catcher.url)}}), &[]).unwrap());
    let stop = CancellationToken::new();
    let mut couriers = Vec::new();
    for _ in 0..3 {
        let store = if home.url.starts_with("sqlite") {
            home.store.clone()
        } else {
            Store::open(&home.url, Durability::Full).await.unwrap()
        };
        couriers.push(start(store, routes.clone(), clock(), &stop));
    }
    raise(&home.store, 0..60, "oncall").await;
    let all_delivered = |found: &[Delivery]| {
        found.len() == LETTERS && found.iter().all(|d| d.state == LetterState::Delivered)
    };
    let found = until(&home.store, all_delivered).await;
    stop.cancel();
    for courier in couriers {
        courier.await.unwrap();
    }
    let mut sent: Vec<String> = catcher.rest().iter().map(super::receivers::Call::delivery).collect();
    let mut posted: Vec<String> = found.into_iter().map(|delivery| delivery.id).collect();
    sent.sort();
    posted.sort();
    assert_eq!(sent, posted, "each letter once");
}

pub(crate) async fn a_receiver_that_stays_away_is_given_up_after_days_and_others_do_not_wait(home: Home) {
    let mut catcher = Catcher::start(0).await;
    let away = Catcher::start(u32::MAX).await;
    // It takes the connection and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}/", silent.local_addr().unwrap());
    let settings = json!({"routes": {
        "away": hook(&away.url), "silent": hook(&silent_url), "well": hook(&catcher.url),
    }});
    let routes = Arc::new(routes(settings, &[]).unwrap());
    let (clock, stop) = (clock(), CancellationToken::new());
    for route in ["away", "silent", "well"] {
        raise(&home.store, 0..1, route).await;
    }
    let courier = start(home.store.clone(), routes.clone(), clock.clone(), &stop);
    let begun = std::time::Instant::now();
    assert_eq!(catcher.next().await.json()["receiver"], "well");
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited for another route");
    let of = |route: &'static str| move |found: &[Delivery]| found.iter().find(|d| d.route == route).cloned();
    let refused = |d: &Delivery| {
        d.last_error.as_ref().is_some_and(|e| e.ends_with("503 Service Unavailable: come back later"))
    };
    let found = until(&home.store, |all| of("away")(all).is_some_and(|d| refused(&d))).await;
    let first = of("away")(&found).unwrap();
    assert_eq!((first.state, first.attempts), (LetterState::Pending, 1));
    let wait = first.next_attempt_at.unwrap().since(MIDNIGHT);
    assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&wait), "{wait:?}");
    clock.store(after(MIDNIGHT, 3 * 86_400).0, Ordering::SeqCst);
    let found = until(&home.store, |all| of("away")(all).is_some_and(|d| d.state == LetterState::Dead)).await;
    let last = of("away")(&found).unwrap();
    assert_eq!(last.attempts, 2);
    assert!(refused(&last), "{last:?}");
    stop.cancel();
    courier.await.unwrap();
    let unheard = of("silent")(&deliveries(&home.store).await).unwrap();
    assert!(unheard.last_error.is_some_and(|error| error.contains("did not answer within 15s")));
}

pub(crate) async fn a_route_that_is_no_longer_declared_is_stood_in_for_by_the_default_one(home: Home) {
    let mut catcher = Catcher::start(0).await;
    let settings = json!({"default": "oncall", "routes": {"oncall": hook(&catcher.url)}});
    let routes = Arc::new(routes(settings, &[]).unwrap());
    let stop = CancellationToken::new();
    raise(&home.store, 0..1, "gone").await;
    raise(&home.store, 0..1, "default").await;
    let courier = start(home.store.clone(), routes, clock(), &stop);
    let mut receivers =
        [catcher.next().await, catcher.next().await].map(|call| call.json()["receiver"].clone());
    receivers.sort_by_key(ToString::to_string);
    assert_eq!(receivers, ["default", "gone"]);
    stop.cancel();
    courier.await.unwrap();
}
