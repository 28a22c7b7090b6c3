//! A home with a lake, and kinds run in it as a worker runs them; `load` and `sql`.

use std::path::Path;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use mainspring::core::ids::{DagId, Fence, RunId, TaskId, Timestamp};
use mainspring::data::DatasetName;
use mainspring::data::connections::Connections;
use mainspring::data::frames;
use mainspring::data::lake::{Lake, WriteKey, WriteMode};
use mainspring::tasks::{Shared, SpecProblem, TaskContext, TaskError, TaskLog, find};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// A home folder that goes when the test ends.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    lake: Lake,
    log: Arc<Mutex<Vec<String>>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = folder.path().join("lake").display().to_string();
        let lake = Lake::open(&lake, &folder.path().join("scratch")).unwrap();
        Self { folder, lake, log: Arc::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Everything logged since the last call.
    pub(crate) fn log(&self) -> String {
        std::mem::take(&mut *self.log.lock().unwrap()).join("\n")
    }

    pub(crate) async fn write(&self, dataset: &str, columns: Vec<(&str, ArrayRef)>) {
        let columns = columns.into_iter().map(|(name, array)| (name, array, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let name = DatasetName::parse(dataset).unwrap();
        let key = WriteKey { app_id: format!("test/{dataset}"), fence: 1 };
        self.lake
            .write(&name, frames::stream_of(vec![batch]), WriteMode::Overwrite, &[], &key)
            .await
            .unwrap();
    }

    /// All rows of a dataset, in the order of its first column, one per line.
    pub(crate) async fn read(&self, dataset: &str, columns: &[&str]) -> String {
        let name = DatasetName::parse(dataset).unwrap();
        let rows = frames::open(&self.lake, &name).await.unwrap().rows;
        let batches = frames::collect(rows.select_columns(columns).unwrap()).await.unwrap();
        let mut lines: Vec<String> = Vec::new();
        for batch in &batches {
            for row in mainspring::data::cells::rows(batch).unwrap() {
                let row: Vec<String> =
                    row.iter().map(|c| c.to_text().unwrap_or_else(|| "-".into())).collect();
                lines.push(row.join("|"));
            }
        }
        lines.sort();
        lines.join("\n")
    }

    pub(crate) fn context(&self, task: &str, run: &str, fence: i64) -> TaskContext {
        let log = Arc::clone(&self.log);
        let at = Timestamp::parse("2026-01-02").unwrap();
        TaskContext {
            dag_id: DagId::parse("shop").unwrap(),
            run_id: RunId::parse(run).unwrap(),
            task_id: TaskId::parse(task).unwrap(),
            map_index: -1,
            fence: Fence(fence),
            try_number: 1,
            now: Timestamp(0),
            queued_at: Timestamp(0),
            logical_date: at,
            data_interval_start: at,
            data_interval_end: at,
            params: Map::new(),
            env: Vec::new(),
            cancel: CancellationToken::new(),
            log: TaskLog::new(move |line| log.lock().unwrap().push(line.to_owned())),
            shared: Arc::new(Shared {
                inherited_env: Vec::new(),
                dags_dir: self.path().to_owned(),
                home: self.path().to_owned(),
                http: reqwest::Client::new(),
                lake: self.lake.clone(),
                connections: Connections::new(Default::default(), &Default::default(), self.path()),
            }),
        }
    }

    /// Runs one attempt of `kind`; its outputs.
    pub(crate) async fn run(&self, kind: &str, spec: Value) -> Result<Value, TaskError> {
        self.run_as(kind, spec, "r1", 1).await
    }

    pub(crate) async fn run_as(
        &self,
        kind: &str,
        spec: Value,
        run: &str,
        fence: i64,
    ) -> Result<Value, TaskError> {
        self.run_in(kind, spec, self.context("task", run, fence)).await
    }

    /// Runs one attempt of the run of `day` (2026-01-`day`).
    pub(crate) async fn run_on(&self, kind: &str, spec: Value, day: u32) -> Result<Value, TaskError> {
        let at = Timestamp::parse(&format!("2026-01-{day:02}")).unwrap();
        let cx = TaskContext { logical_date: at, ..self.context(kind, &format!("day{day}"), 1) };
        self.run_in(kind, spec, cx).await
    }

    async fn run_in(&self, kind: &str, spec: Value, cx: TaskContext) -> Result<Value, TaskError> {
        let work = (find(kind).unwrap().read)(&spec).unwrap();
        assert_eq!(work.check(), Vec::<SpecProblem>::new(), "{spec}");
        work.run(&cx).await.map(|output| Value::Object(output.outputs))
    }
}

/// What `check` says, or why the settings cannot be read.
pub(crate) fn problems(kind: &str, spec: Value) -> String {
    match (find(kind).unwrap().read)(&spec) {
        Ok(work) => work.check().iter().map(|p| format!("{}: {}\n", p.path.join("."), p.message)).collect(),
        Err(error) => error,
    }
}

pub(crate) fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

pub(crate) fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[tokio::test]
async fn a_dataset_is_loaded_and_shown_and_a_second_attempt_changes_nothing() {
    let home = Home::new();
    home.write("people", vec![("id", ints(&[2, 1])), ("name", texts(&[Some("b"), None]))]).await;
    let spec = json!({"from": "people", "into": {"table": "people"}, "mode": "merge", "key": "id"});
    let outputs = home.run("load", spec.clone()).await.unwrap();
    let figures =
        |o: &Value| [&o["rows"], &o["inserted"], &o["updated"], &o["deleted"]].map(|n| n.as_u64().unwrap());
    assert_eq!(figures(&outputs), [2, 2, 0, 0], "{outputs}");
    assert_eq!((&outputs["table"], &outputs["connection"]), (&json!("people"), &json!("warehouse")));
    let again = home.run_as("load", spec, "r1", 2).await.unwrap();
    assert_eq!(figures(&again), [2, 0, 0, 0], "{again}");
    home.log();
    let shown = home
        .run(
            "sql",
            json!({"sql": "SELECT id, name FROM people WHERE id > :low ORDER BY id", "params": {"low": 0}}),
        )
        .await
        .unwrap();
    assert_eq!(shown["rows"], 2);
    assert_eq!(shown["first_rows"], json!([{"id": 1, "name": null}, {"id": 2, "name": "b"}]));
    assert_eq!(home.log(), "| id | name |\n|----|------|\n| 1  |      |\n| 2  | b    |");
}

#[tokio::test]
async fn marked_rows_delete_their_keys() {
    let home = Home::new();
    home.write("people", vec![("id", ints(&[1, 2])), ("gone", ints(&[0, 0]))]).await;
    let spec = json!({"from": "people", "into": {"table": "people"}, "mode": "merge", "key": ["id"],
        "delete_when": "gone = 1", "max_delete_share": 0.5});
    home.run("load", spec.clone()).await.unwrap();
    home.write("people", vec![("id", ints(&[1, 2])), ("gone", ints(&[1, 0]))]).await;
    let outputs = home.run_as("load", spec, "r2", 1).await.unwrap();
    assert_eq!((&outputs["deleted"], &outputs["inserted"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn a_statement_that_changes_something_says_how_much() {
    let home = Home::new();
    let run = |sql: &str| home.run("sql", json!({"sql": sql}));
    run("CREATE TABLE t (a INTEGER)").await.unwrap();
    assert_eq!(run("INSERT INTO t VALUES (1), (2)").await.unwrap()["rows"], 2);
    let error = run("SELECT a FROM t WHERE a = :low").await.unwrap_err().to_string();
    assert!(error.contains("`:low`, which has no value"), "{error}");
    assert_eq!(run("SELECT :ds AS day").await.unwrap()["first_rows"], json!([{"day": "2026-01-02"}]));
}

#[test]
fn settings_that_do_not_go_together_are_all_reported() {
    let spec =
        json!({"from": "a b", "into": {"table": "x-y"}, "mode": "append", "key": ["id"], "order_by": "at"});
    let problems = problems("load", spec);
    for path in ["from: ", "into.table: ", "key: only `mode: merge`", "order_by: only `mode: merge`"] {
        assert!(problems.contains(path), "{path} is not in {problems}");
    }
}

#[tokio::test]
async fn an_unknown_dataset_and_connection_are_answered_with_the_near_name() {
    let home = Home::new();
    home.write("raw.orders", vec![("id", ints(&[1]))]).await;
    let spec = |from: &str, connection: &str| json!({"from": from, "into": {"connection": connection, "table": "t"}, "mode": "overwrite"});
    let error = home.run("load", spec("raw.order", "warehouse")).await.unwrap_err().to_string();
    assert!(error.contains("did you mean `raw.orders`"), "{error}");
    let error = home.run("load", spec("raw.orders", "warehose")).await.unwrap_err().to_string();
    assert!(error.contains("did you mean `warehouse`"), "{error}");
}
