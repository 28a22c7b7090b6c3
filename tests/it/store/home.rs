//! A fresh database, and decisions built by hand.

use std::sync::Arc;

use mainspring::core::dag::{Dag, DagSettings, Expand, Task};
use mainspring::core::ids::{DagHash, DagId, Fence, PoolName, RunId, RunKey, SessionId, TaskId, Timestamp};
use mainspring::core::run::{
    Change, Decision, Instances, Reason, Run, RunBirth, RunChange, RunType, TaskInstance, TiRef, UNMAPPED,
};
use mainspring::core::state::{RunState, TaskState};
use mainspring::store::{Created, Durability, Store, StoreError};
use sqlx::Connection;

pub(crate) struct Home {
    pub(crate) store: Store,
    pub(crate) url: String,
    /// Keeps the folder of SQLite.
    _folder: Option<tempfile::TempDir>,
}

impl Home {
    pub(crate) async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("home/state.db").display());
        let store = Store::open(&url, Durability::Relaxed).await.unwrap();
        Self { store, url, _folder: Some(folder) }
    }

    pub(crate) async fn on_postgres() -> Option<Self> {
        let url = crate::postgres::new_database().await?;
        let store = Store::open(&url, Durability::Full).await.unwrap();
        store.migrate().await.unwrap();
        Some(Self { store, url, _folder: None })
    }

    /// Runs a script past the store, as a person with a shell would.
    pub(crate) async fn raw(&self, sql: &str) -> Result<u64, sqlx::Error> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.url.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await?;
            Ok(sqlx::raw_sql(sql).execute(&mut connection).await?.rows_affected())
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await?;
            Ok(sqlx::raw_sql(sql).execute(&mut connection).await?.rows_affected())
        }
    }

    /// A stored DAG version with a new run of it.
    pub(crate) async fn run_of(&self, tasks: Vec<Task>) -> Driven {
        let dag = dag("dag", "hash", tasks);
        self.store.put_dag_version(&dag.hash, &dag.id, "the source").await.unwrap();
        let Created::New(run) = self.store.create_run(&birth(&dag, "first"), &dag).await.unwrap() else {
            panic!("the database is not fresh")
        };
        Driven { store: self.store.clone(), dag, run, now: Timestamp(2_000_000) }
    }
}

pub(crate) fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

pub(crate) fn task(id: &str) -> Task {
    Task::new(TaskId::parse(id).unwrap(), "noop")
}

pub(crate) fn tasks(count: usize) -> Vec<Task> {
    (0..count).map(|place| task(&format!("task_{place:04}"))).collect()
}

pub(crate) fn mapped(id: &str, upstream: usize) -> Task {
    let mut task = task(id);
    task.expand = Some(Expand::Output { task: upstream, key: "files".into() });
    task
}

pub(crate) fn in_pool(mut task: Task, pool: &str, slots: u32) -> Task {
    task.pool = PoolName::parse(pool).unwrap();
    task.pool_slots = slots;
    task
}

pub(crate) fn dag(id: &str, hash: &str, tasks: Vec<Task>) -> Dag {
    let id = DagId::parse(id).unwrap();
    Dag::new(id, DagHash(hash.into()), DagSettings::default(), tasks, Vec::new()).unwrap()
}

pub(crate) fn birth(dag: &Dag, run_id: &str) -> RunBirth {
    RunBirth {
        key: RunKey { dag_id: dag.id.clone(), run_id: RunId::parse(run_id).unwrap() },
        dag_hash: dag.hash.clone(),
        run_type: RunType::Manual,
        logical_date: Timestamp(1_000_000),
        data_interval_start: Timestamp(0),
        data_interval_end: Timestamp(1_000_000),
        params: r#"{"day":1}"#.into(),
        queued_at: Timestamp(1_000_000),
    }
}

pub(crate) fn ti(task: usize) -> TiRef {
    TiRef { task, map_index: UNMAPPED }
}

/// A run as a value beside its rows; every commit moves both.
pub(crate) struct Driven {
    pub(crate) store: Store,
    pub(crate) dag: Dag,
    pub(crate) run: Run,
    pub(crate) now: Timestamp,
}

impl Driven {
    pub(crate) fn key(&self) -> RunKey {
        self.run.birth.key.clone()
    }

    pub(crate) fn instance(&self, ti: TiRef) -> &TaskInstance {
        match (&self.run.tasks[ti.task], usize::try_from(ti.map_index)) {
            (Instances::Mapped(all), Ok(place)) => &all[place],
            (Instances::One(one) | Instances::Unexpanded(one), Err(_)) => one,
            (found, _) => panic!("{ti} is not among {found:?}"),
        }
    }

    /// The move of an instance into `state`, with all columns as that state wants them.
    pub(crate) fn change(&self, ti: TiRef, state: TaskState, via: &[TaskState]) -> Change {
        let from = self.instance(ti);
        let mut to = from.clone();
        to.state = state;
        to.resume_at = None;
        to.session = None;
        to.ended_at = state.is_final().then_some(self.now);
        let mut reason = Reason::Ready;
        if matches!(state, TaskState::UpForRetry | TaskState::Deferred) {
            to.resume_at = Some(Timestamp(self.now.0 + 60));
            reason = Reason::WillRetry { error: "the disk is on fire".into(), try_number: 1, tries_max: 2 };
        }
        if state == TaskState::Running {
            to.fence = from.fence.next();
            to.try_number += 1;
            to.session = Some(session("local"));
            to.started_at = Some(self.now);
        }
        let first_reason = (!via.is_empty()).then(|| reason.clone());
        Change { ti, from: from.state, from_fence: from.fence, to, via: via.to_vec(), first_reason, reason }
    }

    pub(crate) fn moving(&self, tis: &[TiRef], state: TaskState) -> Decision {
        Decision {
            changes: tis.iter().map(|&ti| self.change(ti, state, &[])).collect(),
            ..Decision::default()
        }
    }

    /// Commits, and brings the value up to date if that is accepted.
    pub(crate) async fn commit(&mut self, decision: &Decision) -> Result<(), StoreError> {
        self.now = Timestamp(self.now.0 + 1000);
        let version = self.store.commit(&self.dag, &self.key(), self.run.version, decision, self.now).await?;
        self.run.version = version;
        for &(ix, length) in &decision.expanded {
            self.run.tasks[ix] = Instances::Mapped((0..length).map(|_| TaskInstance::new()).collect());
        }
        for change in &decision.changes {
            let place = usize::try_from(change.ti.map_index);
            match (&mut self.run.tasks[change.ti.task], place) {
                (Instances::Mapped(all), Ok(place)) => all[place] = change.to.clone(),
                (Instances::One(one) | Instances::Unexpanded(one), Err(_)) => *one = change.to.clone(),
                (found, _) => panic!("{} is not among {found:?}", change.ti),
            }
        }
        for (ti, outputs) in &decision.outputs {
            for (name, length) in &outputs.list_lengths {
                self.run.list_lengths.insert((ti.task, Arc::clone(name)), *length);
            }
        }
        if let Some(change) = &decision.run_change {
            self.run.state = change.to;
            (self.run.started_at, self.run.ended_at) = (change.started_at, change.ended_at);
        }
        Ok(())
    }

    /// Moves these instances in one commit.
    pub(crate) async fn move_to(&mut self, tis: &[TiRef], state: TaskState) {
        let decision = self.moving(tis, state);
        self.commit(&decision).await.unwrap();
    }

    /// The move of the run itself at the time of the next commit.
    pub(crate) fn run_move(&self, to: RunState, reason: Reason) -> RunChange {
        let now = Timestamp(self.now.0 + 1000);
        RunChange {
            from: self.run.state,
            to,
            started_at: self.run.started_at.or(Some(now)),
            ended_at: to.is_final().then_some(now),
            with_failures: false,
            reason,
        }
    }

    pub(crate) async fn start(&mut self) {
        let run_change = Some(self.run_move(RunState::Running, Reason::Started));
        self.commit(&Decision { run_change, ..Decision::default() }).await.unwrap();
    }

    /// The rows are the value.
    pub(crate) async fn check(&self) {
        let rows = self.store.load_run(&self.key(), &self.dag).await.unwrap().expect("the run is there");
        assert_eq!(rows.birth, self.run.birth);
        assert_eq!(rows.state, self.run.state);
        assert_eq!(rows.version, self.run.version);
        assert_eq!((rows.started_at, rows.ended_at), (self.run.started_at, self.run.ended_at));
        assert_eq!(rows.with_failures, self.run.with_failures);
        assert_eq!(rows.tasks, self.run.tasks);
        assert_eq!(rows.list_lengths, self.run.list_lengths);
    }
}

pub(crate) fn fence(number: i64) -> Fence {
    Fence(number)
}
