//! The way to the runs: through the server of the home if one answers, or else into the database itself. What is
//! asked is the same whoever answers.

use tokio::task::JoinHandle;

use super::served::Served;
use super::{CliError, Globals, home};
use crate::control::ask::{self, AskError, Changed, Selection, Trigger};
use crate::control::backfill::{BackfillAsked, Planned, backfill};
use crate::control::{self, Control, Scope, Waits};
use crate::core::ids::{DagId, RunKey};
use crate::core::state::{RunState, TaskState};
use crate::engine;
use crate::store::{Store, StoreError};

/// How often to look for what other processes did to the runs meanwhile.
const POLL_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// Tries of a write while the database cannot be reached.
const TRIES_MAX: u32 = 8;

/// The way to the runs.
pub(super) enum Door {
    /// Through the server that has the home.
    Served {
        server: Served,
        /// For reading only.
        store: Store,
    },
    /// Into the database.
    Direct { control: Control, driver: JoinHandle<Result<(), StoreError>> },
}

impl From<AskError> for CliError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Store(error) => error.into(),
            AskError::NotFound(_) | AskError::Invalid(_) | AskError::Refused(_) => {
                Self::User(error.to_string())
            }
        }
    }
}

impl Door {
    /// Finds the way. Without a server nothing is run: what is asked for is done by the next one.
    pub(super) async fn open(globals: &Globals) -> Result<Self, CliError> {
        if let Some(server) = Served::find(&globals.config.home).await {
            return Ok(Self::Served { server, store: home::open_reader(globals).await? });
        }
        let store = home::open_store(globals).await?;
        let settings = control::Settings {
            now: engine::now,
            scope: Scope::Own { pools: home::pools(globals)? },
            poll_every: POLL_EVERY,
            tries_max: Some(TRIES_MAX),
            watch: None,
        };
        let (control, driver) = control::start(store, settings);
        Ok(Self::Direct { control, driver })
    }

    /// Waits until everything asked for is written.
    pub(super) async fn close(self) -> Result<(), CliError> {
        match self {
            Self::Served { store, .. } => store.close().await,
            Self::Direct { control, driver } => {
                let store = control.store().clone();
                drop(control);
                driver
                    .await
                    .map_err(|e| CliError::Environment(format!("the driver of runs stopped: {e}")))??;
                store.close().await;
            }
        }
        Ok(())
    }

    pub(super) async fn trigger(
        &self,
        globals: &Globals,
        dag_id: &DagId,
        asked: &Trigger,
    ) -> Result<RunKey, CliError> {
        match self {
            Self::Served { server, .. } => server.trigger(dag_id, asked).await,
            Self::Direct { control, .. } => {
                take_up(control, globals, dag_id).await?;
                let file = ask::latest(control, dag_id).await?;
                Ok(ask::trigger(control, &file, asked, engine::now()).await?)
            }
        }
    }

    /// Waits until a run has ended.
    pub(super) async fn wait(&self, key: &RunKey) -> Result<RunState, CliError> {
        match self {
            Self::Served { server, .. } => server.wait(key).await,
            Self::Direct { .. } => Err(CliError::User(format!(
                "the run {} waits for a server\nhint: start `mainspring serve`; `mainspring run` runs a DAG without one",
                key.run_id
            ))),
        }
    }

    pub(super) async fn clear(
        &self,
        globals: &Globals,
        key: &RunKey,
        asked: &Selection,
    ) -> Result<Vec<Changed>, CliError> {
        match self {
            Self::Served { server, .. } => server.clear(key, asked).await,
            Self::Direct { control, .. } => {
                if asked.latest {
                    take_up(control, globals, &key.dag_id).await?;
                }
                Ok(ask::clear(control, key, asked).await?)
            }
        }
    }

    pub(super) async fn mark(
        &self,
        key: &RunKey,
        asked: &Selection,
        state: TaskState,
    ) -> Result<Vec<Changed>, CliError> {
        match self {
            Self::Served { server, .. } => server.mark(key, asked, state).await,
            Self::Direct { control, .. } => Ok(ask::mark(control, key, asked, state).await?),
        }
    }

    pub(super) async fn cancel(&self, key: &RunKey) -> Result<(), CliError> {
        match self {
            Self::Served { server, .. } => server.cancel(key).await,
            Self::Direct { control, .. } => Ok(ask::cancel(control, key).await?),
        }
    }

    pub(super) async fn waits(&self, key: &RunKey, task_id: Option<&str>) -> Result<Vec<Waits>, CliError> {
        match self {
            Self::Served { server, .. } => server.waits(key, task_id).await,
            Self::Direct { control, .. } => Ok(control::waits(control, key, task_id, engine::now()).await?),
        }
    }

    pub(super) async fn backfill(
        &self,
        globals: &Globals,
        dag_id: &DagId,
        asked: &BackfillAsked,
    ) -> Result<Vec<Planned>, CliError> {
        match self {
            Self::Served { server, .. } => server.backfill(dag_id, asked).await,
            Self::Direct { control, .. } => {
                take_up(control, globals, dag_id).await?;
                let file = ask::latest(control, dag_id).await?;
                Ok(backfill(control, &file, asked, engine::now()).await?)
            }
        }
    }

    /// False if it is so already.
    pub(super) async fn pause(
        &self,
        globals: &Globals,
        dag_id: &DagId,
        paused: bool,
    ) -> Result<bool, CliError> {
        let control = match self {
            Self::Served { server, .. } => return server.pause(dag_id, paused).await,
            Self::Direct { control, .. } => control,
        };
        take_up(control, globals, dag_id).await?;
        let store = control.store();
        if store.dag(dag_id).await?.is_none() {
            return Err(CliError::User(format!("there is no DAG `{dag_id}`")));
        }
        Ok(store.set_paused(dag_id, paused, engine::now()).await?)
    }

    /// The newest run, or the one that was named.
    pub(super) async fn find_run(&self, dag_id: &str, run_id: Option<&str>) -> Result<RunKey, CliError> {
        let store = match self {
            Self::Served { store, .. } => store,
            Self::Direct { control, .. } => control.store(),
        };
        super::runs::find_run(store, dag_id, run_id).await
    }
}

/// The DAG as its file says now, if it is in the DAG folder: no server may have seen it yet.
async fn take_up(control: &Control, globals: &Globals, dag_id: &DagId) -> Result<(), CliError> {
    let bag = crate::dagbag::load_path(&globals.config.dags);
    if let Some(file) = bag.dags.iter().find(|file| file.dag.id == *dag_id) {
        control.store().put_dag(&file.dag, &file.source, engine::now()).await?;
    }
    Ok(())
}
