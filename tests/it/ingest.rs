//! `ingest` and `transform` as tasks: real data through both, and every kind of bad input with the words it
//! earns.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt;
use mainspring::core::ids::{DagId, Fence, RunId, TaskId, Timestamp};
use mainspring::data::cells;
use mainspring::data::connections::Connections;
use mainspring::data::lake::Lake;
use mainspring::data::session::{Limits, select};
use mainspring::data::sql::Select;
use mainspring::tasks::{Shared, TaskContext, TaskError, TaskLog, find};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

mod files;
mod pages;
mod query;
mod rfm;

/// A home with a lake, and a folder of DAG files.
struct World {
    home: TempDir,
    shared: Arc<Shared>,
    log: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let dags_dir = home.path().join("dags");
        std::fs::create_dir(&dags_dir).unwrap();
        let lake = home.path().join("lake");
        let shared = Shared {
            dags_dir,
            home: home.path().to_owned(),
            inherited_env: Vec::new(),
            http: reqwest::Client::new(),
            lake: Lake::open(lake.to_str().unwrap(), &home.path().join("scratch")).unwrap(),
            connections: Connections::new(Default::default(), &Default::default(), home.path()),
        };
        Self { home, shared: Arc::new(shared), log: Arc::default() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.shared.dags_dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs a task of `kind` as run `run`; its outputs or its error.
    async fn run(&self, kind: &str, run: &str, settings: Value) -> Result<Value, TaskError> {
        let work = (find(kind).unwrap().read)(&settings).expect("the settings are well formed");
        let problems = work.check();
        assert!(problems.is_empty(), "{problems:?}");
        let log = Arc::clone(&self.log);
        let at = Timestamp::parse("1998-07-01").unwrap();
        let cx = TaskContext {
            dag_id: DagId::parse("shop").unwrap(),
            run_id: RunId::parse(run).unwrap(),
            task_id: TaskId::parse("task").unwrap(),
            map_index: -1,
            fence: Fence(1),
            try_number: 1,
            now: Timestamp(0),
            queued_at: Timestamp(0),
            logical_date: at,
            data_interval_start: at,
            data_interval_end: at,
            params: Map::from_iter([("floor".to_owned(), json!(0))]),
            env: Vec::new(),
            cancel: Default::default(),
            log: TaskLog::new(move |line| log.lock().unwrap().push(line.to_owned())),
            shared: Arc::clone(&self.shared),
        };
        work.run(&cx).await.map(|output| Value::Object(output.outputs))
    }

    async fn ingest(&self, settings: Value) -> Result<Value, TaskError> {
        self.run("ingest", "run1", settings).await
    }

    /// The rows of a query, cells joined by a space, rows by `; `.
    async fn ask(&self, sql: &str) -> String {
        let selected =
            select(&self.shared.lake, Select::parse(sql).unwrap(), &Default::default(), Limits::default())
                .await
                .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let batches: Vec<_> = selected.rows.try_collect().await.unwrap();
        let rows = batches.iter().flat_map(|batch| cells::rows(batch).unwrap());
        let text = |cell: &cells::Cell| cell.to_text().unwrap_or_else(|| "-".to_owned());
        rows.map(|row| row.iter().map(text).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("; ")
    }
}

/// What is wrong with settings of `kind`.
fn problems(kind: &str, settings: Value) -> Vec<String> {
    let work = (find(kind).unwrap().read)(&settings).expect("the settings are well formed");
    work.check()
        .into_iter()
        .map(|problem| format!("{}: {}", problem.path.join("."), problem.message))
        .collect()
}
