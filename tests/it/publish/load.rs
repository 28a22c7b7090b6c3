//! What a load leaves in a table, and what it never leaves.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::{StreamExt, TryStreamExt, stream};
use mainspring::data::DataError;
use mainspring::data::cells;
use mainspring::data::load::{DELETE_COLUMN, Load, LoadMode, Loaded, Merge, load};
use mainspring::data::warehouse::{TableName, Warehouse};
use serde_json::{Map, json};

use super::warehouses;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn stream_of(batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let schema = batches[0].schema();
    Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(batches.into_iter().map(Ok))))
}

/// Rows `(id, name, at)`.
fn people(rows: &[(Option<i64>, Option<&str>, i64)]) -> SendableRecordBatchStream {
    stream_of(vec![people_batch(rows)])
}

fn people_batch(rows: &[(Option<i64>, Option<&str>, i64)]) -> RecordBatch {
    batch(vec![
        ("id", Arc::new(rows.iter().map(|r| r.0).collect::<Int64Array>())),
        ("name", Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>())),
        ("at", Arc::new(rows.iter().map(|r| r.2).map(Some).collect::<Int64Array>())),
    ])
}

fn plan(mode: LoadMode, run: &str, fence: i64) -> Load {
    Load {
        table: TableName::parse("people").unwrap(),
        mode,
        removed_share_max: Some(0.2),
        run_key: format!("shop/{run}"),
        task: "publish".to_owned(),
        fence,
    }
}

fn merge(order_by: Option<&str>) -> LoadMode {
    LoadMode::Merge(Merge { key: vec!["id".to_owned()], order_by: order_by.map(str::to_owned) })
}

/// The rows of a query, one per line, values apart by `|`.
async fn rows(warehouse: &Warehouse, sql: &str) -> String {
    let mut batches = warehouse.read(sql, &Map::new()).await.unwrap();
    let mut text = Vec::new();
    while let Some(batch) = batches.try_next().await.unwrap() {
        for row in cells::rows(&batch).unwrap() {
            let row: Vec<String> =
                row.iter().map(|cell| cell.to_text().unwrap_or_else(|| "-".to_owned())).collect();
            text.push(row.join("|"));
        }
    }
    text.join("\n")
}

const PEOPLE: &str = "SELECT id, name, at FROM people ORDER BY id, at, name";

async fn staging_tables(warehouse: &Warehouse) -> String {
    let sql = if warehouse.name() == "pg" {
        "SELECT tablename::text FROM pg_tables WHERE tablename LIKE 'stg%'"
    } else {
        "SELECT name FROM sqlite_master WHERE name LIKE 'stg%'"
    };
    rows(warehouse, sql).await
}

#[tokio::test]
async fn an_append_repeated_replaces_what_it_added() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        let first = [(Some(1), Some("a"), 1), (Some(2), None, 1)];
        load(w, people(&first), &plan(LoadMode::Append, "r1", 1)).await.unwrap();
        load(w, people(&[(Some(3), Some("c"), 2)]), &plan(LoadMode::Append, "r2", 1)).await.unwrap();
        let again = [(Some(1), Some("x"), 1), (Some(2), Some("b\t\\\n"), 1)];
        let loaded = load(w, people(&again), &plan(LoadMode::Append, "r1", 2)).await.unwrap();
        assert_eq!(loaded, Loaded { rows: 2, inserted: 2, updated: 0, deleted: 2 });
        assert_eq!(rows(w, PEOPLE).await, "1|x|1\n2|b\t\\\n|1\n3|c|2");
        assert_eq!(staging_tables(w).await, "");
    }
}

#[tokio::test]
async fn an_overwrite_replaces_all_and_refuses_to_shrink_the_table() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        let ten: Vec<_> = (0..10).map(|id| (Some(id), Some("a"), 1)).collect();
        load(w, people(&ten), &plan(LoadMode::Overwrite, "r1", 1)).await.unwrap();
        load(w, people(&ten[..8]), &plan(LoadMode::Overwrite, "r2", 1)).await.unwrap();
        let error =
            load(w, people(&ten[..6]), &plan(LoadMode::Overwrite, "r3", 1)).await.unwrap_err().to_string();
        assert!(error.contains("would remove 2 of 8 rows (25.0 %), at most 20.0 % may go"), "{error}");
        assert_eq!(rows(w, "SELECT COUNT(*) FROM people").await, "8");
        let allowed = Load { removed_share_max: None, ..plan(LoadMode::Overwrite, "r3", 1) };
        load(w, people(&ten[..1]), &allowed).await.unwrap();
        assert_eq!(rows(w, PEOPLE).await, "0|a|1");
        assert_eq!(staging_tables(w).await, "");
    }
}

#[tokio::test]
async fn an_overwrite_of_partitions_leaves_the_others() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        let mode = || LoadMode::OverwritePartitions(vec!["at".to_owned()]);
        let both = [(Some(1), Some("a"), 1), (Some(2), Some("b"), 2)];
        load(w, people(&both), &plan(mode(), "r1", 1)).await.unwrap();
        for fence in [1, 2] {
            let second = [(Some(7), Some("z"), 2)];
            let loaded = load(w, people(&second), &plan(mode(), "r2", fence)).await.unwrap();
            assert_eq!((loaded.inserted, loaded.deleted), (1, 1));
            assert_eq!(rows(w, PEOPLE).await, "1|a|1\n7|z|2");
        }
    }
}

#[tokio::test]
async fn a_merge_twice_is_a_merge_once() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        let first = [(Some(1), Some("a"), 1), (Some(2), Some("b"), 1)];
        load(w, people(&first), &plan(merge(None), "r1", 1)).await.unwrap();
        let second = [(Some(2), Some("c"), 2), (Some(3), Some("d"), 2)];
        let loaded = load(w, people(&second), &plan(merge(None), "r2", 1)).await.unwrap();
        assert_eq!(loaded, Loaded { rows: 2, inserted: 1, updated: 1, deleted: 0 });
        let again = load(w, people(&second), &plan(merge(None), "r2", 2)).await.unwrap();
        assert_eq!(again, Loaded { rows: 2, inserted: 0, updated: 0, deleted: 0 });
        assert_eq!(rows(w, PEOPLE).await, "1|a|1\n2|c|2\n3|d|2");
    }
}

#[tokio::test]
async fn a_merge_keeps_the_newest_row_of_a_key_and_the_stored_one_on_a_tie() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        let batch = [(Some(1), Some("old"), 1), (Some(1), Some("new"), 5), (Some(2), Some("b"), 5)];
        load(w, people(&batch), &plan(merge(Some("at")), "r1", 1)).await.unwrap();
        let later = [(Some(1), Some("tie"), 5), (Some(2), Some("late"), 4), (Some(2), Some("newer"), 6)];
        load(w, people(&later), &plan(merge(Some("at")), "r2", 1)).await.unwrap();
        assert_eq!(rows(w, PEOPLE).await, "1|new|5\n2|newer|6");
    }
}

#[tokio::test]
async fn a_merge_deletes_marked_keys_within_the_limit() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        let ten: Vec<_> = (0..10).map(|id| (Some(id), Some("a"), 1)).collect();
        load(w, people(&ten), &plan(merge(None), "r1", 1)).await.unwrap();
        let marked = |ids: &[i64], all: i64| {
            let columns = people_batch(&(0..all).map(|id| (Some(id), Some("b"), 2)).collect::<Vec<_>>());
            let marks: BooleanArray = (0..all).map(|id| Some(ids.contains(&id))).collect();
            let mut named: Vec<(&str, ArrayRef)> =
                ["id", "name", "at"].into_iter().zip(columns.columns().iter().cloned()).collect();
            named.push((DELETE_COLUMN, Arc::new(marks)));
            stream_of(vec![batch(named)])
        };
        let error = load(w, marked(&[0, 1, 2], 3), &plan(merge(None), "r2", 1)).await.unwrap_err();
        assert!(error.to_string().contains("would remove 3 of 10 rows"), "{error}");
        let loaded = load(w, marked(&[0, 1], 3), &plan(merge(None), "r2", 1)).await.unwrap();
        assert_eq!(loaded, Loaded { rows: 3, inserted: 0, updated: 1, deleted: 2 });
        assert_eq!(rows(w, "SELECT MIN(id), COUNT(*) FROM people").await, "2|8");
    }
}

#[tokio::test]
async fn null_and_repeated_keys_are_refused_and_nothing_is_loaded() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        let good = [(Some(1), Some("a"), 1)];
        load(w, people(&good), &plan(merge(None), "r1", 1)).await.unwrap();
        let nulls = [(None, Some("a"), 1), (Some(2), Some("b"), 1)];
        let error = load(w, people(&nulls), &plan(merge(None), "r2", 1)).await.unwrap_err().to_string();
        assert!(error.contains("1 rows have no value in the key `id`"), "{error}");
        let twice = [(Some(5), Some("a"), 1), (Some(5), Some("b"), 1)];
        let error = load(w, people(&twice), &plan(merge(None), "r2", 1)).await.unwrap_err().to_string();
        assert!(error.contains("occur more than once, for instance `5`"), "{error}");
        assert_eq!(rows(w, PEOPLE).await, "1|a|1");
    }
}

#[tokio::test]
async fn an_attempt_with_a_smaller_fence_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        load(w, people(&[(Some(1), Some("new"), 1)]), &plan(LoadMode::Overwrite, "r1", 3)).await.unwrap();
        let zombie = load(w, people(&[(Some(1), Some("old"), 1)]), &plan(LoadMode::Overwrite, "r1", 2)).await;
        assert!(matches!(zombie, Err(DataError::StaleFence(_))), "{zombie:?}");
        assert_eq!(rows(w, PEOPLE).await, "1|new|1");
    }
}

/// A stream whose second batch comes when it is let go.
fn halting(go: tokio::sync::oneshot::Receiver<()>, rows: [i64; 2]) -> SendableRecordBatchStream {
    let first = people_batch(&[(Some(rows[0]), Some("zombie"), 1)]);
    let second = people_batch(&[(Some(rows[1]), Some("zombie"), 1)]);
    let schema = first.schema();
    let rest = stream::once(async move {
        // A dropped sender lets it go too.
        go.await.unwrap_or_default();
        Ok(second)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Ok(first)]).chain(rest)))
}

#[tokio::test]
async fn a_zombie_that_was_overtaken_while_staging_publishes_nothing() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let (go, wait) = tokio::sync::oneshot::channel();
        let (started, mut begun) = tokio::sync::mpsc::channel(1);
        let zombie = tokio::spawn({
            let warehouse = warehouse.clone();
            async move {
                let rows = halting(wait, [8, 9]);
                let watched = RecordBatchStreamAdapter::new(
                    rows.schema(),
                    rows.inspect(move |_| {
                        started.try_send(()).unwrap_or_default();
                    }),
                );
                load(&warehouse, Box::pin(watched), &plan(LoadMode::Overwrite, "r1", 1)).await
            }
        });
        begun.recv().await.unwrap();
        let loaded =
            load(&warehouse, people(&[(Some(1), Some("new"), 1)]), &plan(LoadMode::Overwrite, "r1", 2)).await;
        loaded.unwrap();
        go.send(()).unwrap();
        assert!(zombie.await.unwrap().is_err());
        assert_eq!(rows(&warehouse, PEOPLE).await, "1|new|1");
    }
}

#[tokio::test]
async fn a_load_killed_in_the_middle_leaves_the_table_and_is_swept_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        load(&warehouse, people(&[(Some(1), Some("old"), 1)]), &plan(LoadMode::Overwrite, "r0", 1))
            .await
            .unwrap();
        let (_go, wait) = tokio::sync::oneshot::channel();
        let (started, mut begun) = tokio::sync::mpsc::channel(1);
        let rows_in = halting(wait, [8, 9]);
        let watched = RecordBatchStreamAdapter::new(
            rows_in.schema(),
            rows_in.inspect(move |_| {
                started.try_send(()).unwrap_or_default();
            }),
        );
        let killed = plan(LoadMode::Overwrite, "r1", 1);
        tokio::select! {
            _ = load(&warehouse, Box::pin(watched), &killed) => panic!("the stream never ends"),
            _ = begun.recv() => {}
        }
        assert_eq!(rows(&warehouse, PEOPLE).await, "1|old|1");
        assert_ne!(staging_tables(&warehouse).await, "");
        load(&warehouse, people(&[(Some(2), Some("new"), 1)]), &plan(LoadMode::Overwrite, "r1", 2))
            .await
            .unwrap();
        assert_eq!(rows(&warehouse, PEOPLE).await, "2|new|1");
        assert_eq!(staging_tables(&warehouse).await, "");
    }
}

#[tokio::test]
async fn every_type_comes_back_from_the_database_as_it_went_in() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("yes", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("whole", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            ("real", Arc::new(Float64Array::from(vec![Some(0.1), None]))),
            ("Text", Arc::new(StringArray::from(vec![Some("ä\\N\t\"'"), None]))),
            ("day", Arc::new(Date32Array::from(vec![Some(-1), None]))),
            ("moment", Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None]).with_timezone("UTC"))),
            (
                "money",
                Arc::new(
                    Decimal128Array::from(vec![Some(1_234_550), None])
                        .with_precision_and_scale(12, 3)
                        .unwrap(),
                ),
            ),
        ];
        load(w, stream_of(vec![batch(columns)]), &plan(LoadMode::Overwrite, "r1", 1)).await.unwrap();
        let money = if w.name() == "pg" { "1234.550" } else { "1234.55" };
        let sql = "SELECT yes, whole, real, \"Text\", day, moment, money FROM people ORDER BY whole IS NULL";
        let read = rows(w, sql).await;
        let wanted = format!(
            "true|9223372036854775807|0.1|ä\\N\t\"'|1969-12-31|1970-01-01T00:00:00.000001Z|{money}\n-|-|-|-|-|-|-"
        );
        assert_eq!(read, wanted);
    }
}

#[tokio::test]
async fn missing_columns_become_null_and_new_ones_are_added() {
    let home = tempfile::tempdir().unwrap();
    for warehouse in warehouses(home.path()).await {
        let w = &warehouse;
        load(w, people(&[(Some(1), Some("a"), 1)]), &plan(merge(None), "r1", 1)).await.unwrap();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("score", Arc::new(Float64Array::from(vec![0.5]))),
            ("id", Arc::new(Int64Array::from(vec![2]))),
        ];
        load(w, stream_of(vec![batch(columns)]), &plan(merge(None), "r2", 1)).await.unwrap();
        let read = rows(w, "SELECT id, name, score FROM people ORDER BY id").await;
        assert_eq!(read, "1|a|-\n2|-|0.5");
    }
}

#[tokio::test]
async fn an_unknown_key_is_answered_with_the_near_name() {
    let home = tempfile::tempdir().unwrap();
    let warehouse = warehouses(home.path()).await.remove(0);
    let mode = LoadMode::Merge(Merge { key: vec!["idd".to_owned()], order_by: None });
    let error = load(&warehouse, people(&[(Some(1), None, 1)]), &plan(mode, "r1", 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no column `idd`\nhint: did you mean `id`?");
}

#[tokio::test]
async fn a_query_binds_its_parameters_with_the_types_the_database_wants() {
    let home = tempfile::tempdir().unwrap();
    let both = warehouses(home.path()).await;
    let params = json!({"low": 2, "since": "2026-01-01T00:00:00Z", "name": "b"});
    let sql = "SELECT :low + 1 AS n, :name AS name";
    for warehouse in &both {
        let sql = if warehouse.name() == "pg" {
            "SELECT :low::int + 1, :name::text, timestamptz '2026-02-01 00:00Z' > :since, 1.50::numeric * :low"
        } else {
            sql
        };
        let mut batches = warehouse.read(sql, params.as_object().unwrap()).await.unwrap();
        let batch = batches.try_next().await.unwrap().unwrap();
        let row: Vec<_> = cells::rows(&batch).unwrap()[0].iter().filter_map(cells::Cell::to_text).collect();
        let wanted: &[&str] =
            if warehouse.name() == "pg" { &["3", "b", "true", "3.00"] } else { &["3", "b"] };
        assert_eq!(row, wanted);
    }
    let error = both[0].read("SELECT nope", &Map::new()).await.err().unwrap().to_string();
    assert!(error.starts_with("connection `warehouse`: ") && error.contains("nope"), "{error}");
}

#[tokio::test]
async fn an_unreachable_database_is_worth_another_try_and_shows_no_secret() {
    let home = tempfile::tempdir().unwrap();
    let declared = serde_json::from_value(json!({"pg": "postgres://me:hunter2@127.0.0.1:1/x"})).unwrap();
    let connections =
        mainspring::data::connections::Connections::new(declared, &Default::default(), home.path());
    let error = connections.warehouse("pg").await.err().unwrap();
    assert!(matches!(&error, DataError::Retryable(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}
