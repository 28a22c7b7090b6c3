//! The lake keeps its promises: one commit per write, a key replaces itself, a stale fence is refused,
//! rivals do not harm each other, a crash leaves nothing half.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::{StreamExt, TryStreamExt, stream};
use mainspring::data::lake::{CursorMove, Lake, WriteKey, WriteMode};
use mainspring::data::session::{Limits, of_datafusion, select};
use mainspring::data::sql::{Bound, Select};
use mainspring::data::{DataError, DatasetName};
use tempfile::TempDir;

fn lake(home: &TempDir) -> Lake {
    Lake::open(home.path().join("lake").to_str().unwrap(), &home.path().join("scratch")).unwrap()
}

fn name(text: &str) -> DatasetName {
    DatasetName::parse(text).unwrap()
}

fn key(app_id: &str, fence: i64) -> WriteKey {
    WriteKey { app_id: app_id.to_owned(), fence }
}

fn rows(values: &[(i64, &str)]) -> SendableRecordBatchStream {
    let numbers = Int64Array::from_iter_values(values.iter().map(|v| v.0));
    let texts = StringArray::from_iter_values(values.iter().map(|v| v.1));
    columns(vec![("n", Arc::new(numbers)), ("place", Arc::new(texts))])
}

fn columns(columns: Vec<(&str, ArrayRef)>) -> SendableRecordBatchStream {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let schema = batch.schema();
    Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter([Ok(batch)])))
}

async fn ask(lake: &Lake, sql: &str) -> Result<String, DataError> {
    let values = BTreeMap::from([("low".to_owned(), Bound::Json(2.into()))]);
    let statement = Select::parse(sql).map_err(|problem| DataError::Permanent(problem.to_string()))?;
    let selected = select(lake, statement, &values, Limits { threads: Some(2), ..Limits::default() }).await?;
    let batches: Vec<RecordBatch> = selected.rows.try_collect().await.map_err(of_datafusion)?;
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let cells = text.lines().skip(3).filter(|line| line.starts_with('|'));
    Ok(cells
        .map(|line| line.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("; "))
}

#[tokio::test]
async fn a_written_dataset_is_read_by_its_name_and_by_its_last_part() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let written = lake
        .write(
            &name("raw.orders"),
            rows(&[(1, "a"), (2, "b"), (3, "b")]),
            WriteMode::Overwrite,
            &[],
            &key("x", 1),
        )
        .await
        .unwrap();
    assert_eq!((written.version, written.rows), (0, 3));
    assert!(written.bytes > 0);
    assert_eq!(ask(&lake, "SELECT sum(n) FROM raw.orders WHERE n >= :low").await.unwrap(), "5");
    assert_eq!(ask(&lake, "SELECT count(*) FROM Orders").await.unwrap(), "3");
    assert_eq!(lake.list().await.unwrap(), [name("raw.orders")]);
    let described = lake.describe(&name("raw.orders")).await.unwrap();
    assert_eq!((described.version, described.rows, described.files), (0, 3, 1));
    assert_eq!(described.commits[0].key, key("x", 1));
}

#[tokio::test]
async fn a_second_write_under_one_key_replaces_and_two_keys_add_up() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let events = name("raw.events");
    lake.write(&events, rows(&[(1, "a")]), WriteMode::Append, &[], &key("run1", 1)).await.unwrap();
    lake.write(&events, rows(&[(10, "a")]), WriteMode::Append, &[], &key("run2", 1)).await.unwrap();
    lake.write(&events, rows(&[(2, "a"), (3, "a")]), WriteMode::Append, &[], &key("run1", 2)).await.unwrap();
    assert_eq!(ask(&lake, "SELECT count(*), sum(n) FROM raw.events").await.unwrap(), "3 15");
    assert_eq!(lake.describe(&events).await.unwrap().version, 2);
}

#[tokio::test]
async fn a_smaller_fence_than_the_last_is_refused_and_an_equal_one_replaces() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let events = name("raw.events");
    for mode in [WriteMode::Append, WriteMode::Overwrite] {
        lake.write(&events, rows(&[(1, "a")]), mode.clone(), &[], &key("run1", 5)).await.unwrap();
        let stale =
            lake.write(&events, rows(&[(9, "a")]), mode.clone(), &[], &key("run1", 4)).await.unwrap_err();
        assert!(matches!(stale, DataError::StaleFence(_)), "{stale:?}");
        lake.write(&events, rows(&[(2, "a")]), mode, &[], &key("run1", 5)).await.unwrap();
        assert_eq!(ask(&lake, "SELECT n FROM raw.events").await.unwrap(), "2");
    }
}

#[tokio::test]
async fn partitions_in_the_input_are_replaced_and_others_stay() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let sales = name("sales");
    let by = ["place".to_owned()];
    let first = rows(&[(1, "a"), (2, "b/ c%d"), (3, "c")]);
    lake.write(&sales, first, WriteMode::OverwritePartitions, &by, &key("run1", 1)).await.unwrap();
    let second = rows(&[(20, "b/ c%d"), (4, "d")]);
    lake.write(&sales, second, WriteMode::OverwritePartitions, &[], &key("run2", 1)).await.unwrap();
    let all = ask(&lake, "SELECT place, n FROM sales ORDER BY 1").await.unwrap();
    assert_eq!(all, "a 1; b/ c%d 20; c 3; d 4");
    let wrong =
        lake.write(&sales, rows(&[(1, "a")]), WriteMode::Append, &["n".to_owned()], &key("run3", 1)).await;
    assert!(wrong.unwrap_err().to_string().contains("it is partitioned by `place`"));
}

#[tokio::test]
async fn columns_may_be_added_and_are_not_changed_in_place() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let events = name("raw.events");
    let text = |values: &[&str]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let number = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    lake.write(&events, rows(&[(1, "a")]), WriteMode::Append, &[], &key("run1", 1)).await.unwrap();
    let wider = columns(vec![("place", text(&["b"])), ("sepal length (cm)", number(1.5))]);
    lake.write(&events, wider, WriteMode::Append, &[], &key("run2", 1)).await.unwrap();
    let all = ask(&lake, "SELECT place, n IS NULL, \"sepal length (cm)\" > 1 FROM raw.events ORDER BY 1")
        .await
        .unwrap();
    assert_eq!(all, "a false; b true true");
    let narrow = columns(vec![("n", text(&["x"]))]);
    let error = lake.write(&events, narrow, WriteMode::Append, &[], &key("run3", 1)).await.unwrap_err();
    assert!(error.to_string().contains("column `n` is bigint and the input has text"), "{error}");
    let replaced = columns(vec![("n", text(&["x"]))]);
    lake.write(&events, replaced, WriteMode::Overwrite, &[], &key("run4", 1)).await.unwrap();
    assert_eq!(ask(&lake, "SELECT * FROM raw.events").await.unwrap(), "x");
}

#[tokio::test]
async fn an_empty_input_makes_an_empty_dataset_with_its_columns() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let none = Schema::new(vec![datafusion::arrow::datatypes::Field::new("n", DataType::Int64, false)]);
    let none: SendableRecordBatchStream =
        Box::pin(RecordBatchStreamAdapter::new(Arc::new(none), stream::empty()));
    let written = lake.write(&name("empty"), none, WriteMode::Overwrite, &[], &key("x", 1)).await.unwrap();
    assert_eq!(written.rows, 0);
    assert_eq!(ask(&lake, "SELECT count(n) FROM empty").await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_all_succeed_and_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let writers: Vec<_> = (1..=8)
        .map(|i| {
            let lake = lake.clone();
            tokio::spawn(async move {
                let app = format!("run{i}");
                lake.write(&name("raw.events"), rows(&[(i, "a")]), WriteMode::Append, &[], &key(&app, 1))
                    .await
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(ask(&lake, "SELECT count(*), sum(n) FROM raw.events").await.unwrap(), "8 36");
}

#[tokio::test]
async fn files_without_a_commit_are_invisible_and_swept_later() {
    let home = tempfile::tempdir().unwrap();
    let events = name("raw.events");
    lake(&home).write(&events, rows(&[(1, "a")]), WriteMode::Append, &[], &key("run1", 1)).await.unwrap();
    // A writer that is killed: rows staged, the stream never ends.
    let (schema, batch) = {
        let mut some = rows(&[(7, "z")]);
        (some.schema(), some.next().await.unwrap().unwrap())
    };
    let failing =
        stream::iter([Ok(batch), Err(datafusion::error::DataFusionError::Internal("killed".to_owned()))]);
    let failing: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, failing));
    let killed = lake(&home).write(&events, failing, WriteMode::Overwrite, &[], &key("run2", 1)).await;
    assert!(killed.is_err());
    let orphan = home.path().join("lake/raw.events/by-0011223344556677/part-0.parquet");
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "half a file").unwrap();

    let reopened = lake(&home);
    assert_eq!(ask(&reopened, "SELECT n FROM raw.events").await.unwrap(), "1");
    reopened.vacuum(&events, Duration::from_secs(3600)).await.unwrap();
    assert!(orphan.exists(), "a young file may belong to a writer at work");
    reopened.vacuum(&events, Duration::ZERO).await.unwrap();
    assert!(!orphan.exists());
    assert_eq!(ask(&reopened, "SELECT n FROM raw.events").await.unwrap(), "1");
}

#[tokio::test]
async fn old_versions_can_be_read_and_unknown_ones_are_named() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let events = name("raw.events");
    lake.write(&events, rows(&[(1, "a")]), WriteMode::Overwrite, &[], &key("run1", 1)).await.unwrap();
    lake.write(&events, rows(&[(2, "a")]), WriteMode::Overwrite, &[], &key("run2", 1)).await.unwrap();
    assert_eq!(lake.table(&events, Some(0)).await.unwrap().1, 0);
    assert_eq!(lake.table(&events, None).await.unwrap().1, 1);
    let error = lake.table(&events, Some(7)).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("has no version 7"), "{error}");
    let error = lake.table(&name("raw.event"), None).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("did you mean `raw.events`?"), "{error}");
}

#[tokio::test]
async fn wrong_names_in_sql_are_reported_with_the_near_name() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    lake.write(&name("raw.orders"), rows(&[(1, "a")]), WriteMode::Overwrite, &[], &key("x", 1))
        .await
        .unwrap();
    for (sql, words) in [
        ("SELECT * FROM raw.order", "there is no dataset `raw.order`\nhint: did you mean `raw.orders`?"),
        ("SELECT plaec FROM raw.orders", "there is no column `plaec`\nhint: did you mean `place`?"),
        ("SELECT n FROM raw.orders WHERE n > :lows", "did you mean `low`?"),
        ("SELECT countt(place) FROM raw.orders", "invalid function 'countt'\nhint: did you mean 'count'?"),
        ("SELECT CAST(place AS INT) FROM raw.orders", "cannot cast string 'a'"),
    ] {
        let error = ask(&lake, sql).await.unwrap_err();
        assert!(matches!(error, DataError::Permanent(_)), "{error:?}");
        assert!(error.to_string().contains(words), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_cursor_moves_with_the_rows_and_only_from_where_it_was_read() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let events = name("raw.events");
    let step = |from: Option<i64>, to: i64| CursorMove {
        from: from.map(Into::into),
        to: to.into(),
        repeated: false,
    };
    let write = |app: &'static str, cursor: CursorMove| {
        let (lake, events) = (lake.clone(), events.clone());
        async move {
            lake.write_moving(&events, rows(&[(1, "a")]), WriteMode::Append, &[], &key(app, 1), Some(&cursor))
                .await
        }
    };
    write("run1", step(None, 10)).await.unwrap();
    assert!(matches!(write("run2", step(None, 12)).await, Err(DataError::Retryable(_))));
    write("run2", step(Some(10), 12)).await.unwrap();
    let described = lake.describe(&events).await.unwrap();
    assert_eq!(described.cursor, Some(12.into()));
    assert_eq!(described.commits[1].cursor, Some((None, 10.into())));
}

/// What one commit costs; printed, and held to a generous bound.
#[tokio::test]
async fn a_small_commit_takes_less_than_a_second() {
    let home = tempfile::tempdir().unwrap();
    let lake = lake(&home);
    let begin = std::time::Instant::now();
    for i in 0..20 {
        let app = format!("run{i}");
        lake.write(&name("raw.events"), rows(&[(i, "a")]), WriteMode::Append, &[], &key(&app, 1))
            .await
            .unwrap();
    }
    let each = begin.elapsed() / 20;
    println!("one commit of the lake: {each:?}");
    assert!(each < Duration::from_secs(1), "{each:?}");
}
