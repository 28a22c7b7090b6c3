//! HTTP services: pages, refusals that pass, and those that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mainspring::tasks::TaskError;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::World;

/// A shop with three orders on two pages; the first two requests are refused.
async fn orders(State(calls): State<Arc<AtomicU32>>, Query(query): Query<Value>) -> Response {
    match calls.fetch_add(1, Ordering::SeqCst) {
        0 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")], "slow down").into_response(),
        1 => (StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response(),
        _ if query["after"] == "2" => {
            axum::Json(json!({"data": [{"id": 3, "total": 1.5}], "next": null})).into_response()
        }
        _ => axum::Json(json!({"data": [{"id": 1, "total": 2}, {"id": 2, "total": 3}], "next": 2}))
            .into_response(),
    }
}

async fn numbered(Query(query): Query<Value>) -> Response {
    let items = if query["page"] == "1" { json!([{"id": 1}, {"id": 2}]) } else { json!([]) };
    axum::Json(items).into_response()
}

async fn linked(Query(query): Query<Value>) -> Response {
    let mut headers = HeaderMap::new();
    if query["p"] != "2" {
        headers.insert("link", "</linked?p=2>; rel=\"next\"".parse().unwrap());
    }
    (headers, axum::Json(json!([{"id": 1}]))).into_response()
}

async fn serve() -> String {
    let router = Router::new()
        .route("/orders", get(orders))
        .route("/numbered", get(numbered))
        .route("/linked", get(linked))
        .route("/forever", get(|| async { axum::Json(json!({"items": [], "next": "/forever?again"})) }))
        .route("/page", get(|| async { "<html>not json</html>" }))
        .route("/forbidden", get(|| async { (StatusCode::FORBIDDEN, "who are you") }))
        .route("/down", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .with_state(Arc::new(AtomicU32::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn pages_are_followed_and_refusals_that_may_pass_are_asked_again() {
    let (world, shop) = (World::new(), serve().await);
    let from = json!({
        "http": format!("{shop}/orders?key=hunter2"), "items": "/data",
        "pages": {"next": "/next", "cursor_param": "after"}, "retries": 3,
    });
    let outputs = world.ingest(json!({"from": from, "into": "raw.orders"})).await.unwrap();
    assert_eq!((&outputs["rows"], &outputs["pages"]), (&json!(3), &json!(2)));
    assert_eq!(world.ask("SELECT id, total FROM raw.orders ORDER BY id").await, "1 2.0; 2 3.0; 3 1.5");
    assert_eq!(
        std::fs::read_dir(world.home.path().join("scratch"))
            .unwrap()
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file()))
            .count(),
        0
    );
}

#[tokio::test]
async fn numbered_and_linked_pages_are_followed_to_their_end() {
    let (world, shop) = (World::new(), serve().await);
    let from = json!({"http": format!("{shop}/numbered"), "pages": {"page_param": "page"}});
    assert_eq!(world.ingest(json!({"from": from, "into": "raw.a"})).await.unwrap()["rows"], json!(2));
    let from = json!({"http": format!("{shop}/linked"), "pages": {"link_header": true}});
    assert_eq!(world.ingest(json!({"from": from, "into": "raw.a"})).await.unwrap()["rows"], json!(2));
}

#[tokio::test]
async fn a_service_that_cannot_give_records_is_named_without_its_secrets() {
    let (world, shop) = (World::new(), serve().await);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/orders?key=hunter2", listener.local_addr().unwrap())
    };
    for (from, retryable, words) in [
        (json!({"http": closed, "retries": 0}), true, "cannot be reached"),
        (json!({"http": format!("{shop}/down?key=hunter2"), "retries": 0}), true, "answered 503"),
        (
            json!({"http": format!("{shop}/forbidden?key=hunter2")}),
            false,
            "answered 403 Forbidden: who are you",
        ),
        (json!({"http": format!("{shop}/page")}), false, "the answer is no JSON"),
        (
            json!({"http": format!("{shop}/numbered?page=1"), "items": "/data"}),
            false,
            "there is nothing at `items: /data`",
        ),
        (
            json!({"http": format!("{shop}/forever"), "items": "/items", "pages": {"next": "/next", "max_pages": 1}}),
            false,
            "more than 1 pages",
        ),
        (
            json!({"http": format!("{shop}/numbered?page=1"), "max_bytes": 5}),
            false,
            "larger than `max_bytes`",
        ),
        (json!({"http": format!("{shop}/numbered?page=9")}), false, "declare them in `schema`"),
    ] {
        let error = world.ingest(json!({"from": from, "into": "raw.a"})).await.expect_err(words);
        assert_eq!(matches!(error, TaskError::Retryable(_)), retryable, "{words}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(words) && !text.contains("hunter2"), "expected `{words}` in: {text}");
    }
}
