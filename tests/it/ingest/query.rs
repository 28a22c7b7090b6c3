//! Queries on a connection, whole and by what is new.

use serde_json::{Map, json};

use super::World;

async fn change(world: &World, sql: &str) {
    let warehouse = world.shared.connections.warehouse("warehouse").await.unwrap();
    warehouse.change(sql, &Map::new()).await.unwrap();
}

#[tokio::test]
async fn only_new_rows_are_read_and_a_repeated_run_reads_its_own_window() {
    let world = World::new();
    change(&world, "CREATE TABLE orders (id INTEGER, total REAL)").await;
    change(&world, "INSERT INTO orders VALUES (1, 1.5), (2, 2.5), (3, 3.5)").await;
    let settings = json!({
        "from": {"connection": "warehouse", "query": "SELECT * FROM orders WHERE total > :floor;",
                 "cursor": {"column": "id", "start": 1}},
        "into": "raw.orders",
    });
    let outputs = world.run("ingest", "run1", settings.clone()).await.unwrap();
    assert_eq!((&outputs["rows"], &outputs["cursor"]), (&json!(2), &json!(3)));
    change(&world, "INSERT INTO orders VALUES (4, 4.5)").await;
    assert_eq!(world.run("ingest", "run1", settings.clone()).await.unwrap()["rows"], json!(2));
    assert_eq!(world.run("ingest", "run2", settings.clone()).await.unwrap()["rows"], json!(1));
    assert_eq!(world.run("ingest", "run3", settings).await.unwrap()["rows"], json!(0));
    assert_eq!(world.ask("SELECT id FROM raw.orders ORDER BY id").await, "2; 3; 4");
}

#[tokio::test]
async fn a_whole_query_replaces_and_a_wrong_one_is_permanent() {
    let world = World::new();
    change(&world, "CREATE TABLE orders (id INTEGER)").await;
    change(&world, "INSERT INTO orders VALUES (1), (2)").await;
    let of = |query: &str| json!({"from": {"connection": "warehouse", "query": query}, "into": "raw.orders"});
    for _ in 0..2 {
        assert_eq!(world.ingest(of("SELECT id FROM orders")).await.unwrap()["rows"], json!(2));
    }
    assert_eq!(world.ask("SELECT count(*) FROM raw.orders").await, "2");
    let error = world.ingest(of("SELECT idd FROM orders")).await.unwrap_err();
    assert!(
        matches!(&error, mainspring::tasks::TaskError::Permanent(text) if text.contains("idd")),
        "{error:?}"
    );
}
