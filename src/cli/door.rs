//! The way to the runs: the database itself. What is asked is the same whoever answers.

use tokio::task::JoinHandle;

use super::{CliError, Globals, home};
use crate::control::ask::{self, AskError, Changed, Selection, Trigger};
use crate::control::{self, Control, Scope, Waits};
use crate::core::ids::{DagId, RunKey};
use crate::core::state::TaskState;
use crate::engine;
use crate::store::StoreError;

/// How often to look for what other processes did to the runs meanwhile.
const POLL_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// Tries of a write while the database cannot be reached.
const TRIES_MAX: u32 = 8;

/// The way to the runs.
pub(super) struct Door {
    control: Control,
    driver: JoinHandle<Result<(), StoreError>>,
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
    /// Opens the database of run state. Nothing is run here: what is asked for is done by the next server.
    pub(super) async fn open(globals: &Globals) -> Result<Self, CliError> {
        let store = home::open_store(globals).await?;
        let settings = control::Settings {
            now: engine::now,
            scope: Scope::Own { pools: home::pools(globals)? },
            poll_every: POLL_EVERY,
            tries_max: Some(TRIES_MAX),
            watch: None,
        };
        let (control, driver) = control::start(store, settings);
        Ok(Self { control, driver })
    }

    /// Waits until everything asked for is written.
    pub(super) async fn close(self) -> Result<(), CliError> {
        let store = self.control.store().clone();
        drop(self.control);
        self.driver
            .await
            .map_err(|e| CliError::Environment(format!("the driver of runs stopped: {e}")))??;
        store.close().await;
        Ok(())
    }

    pub(super) async fn trigger(
        &self,
        globals: &Globals,
        dag_id: &DagId,
        asked: &Trigger,
    ) -> Result<RunKey, CliError> {
        self.take_up(globals, dag_id).await?;
        let file = ask::latest(&self.control, dag_id).await?;
        Ok(ask::trigger(&self.control, &file, asked, engine::now()).await?)
    }

    /// The DAG as its file says now, if it is in the DAG folder: no server may have seen it yet.
    async fn take_up(&self, globals: &Globals, dag_id: &DagId) -> Result<(), CliError> {
        let bag = crate::dagbag::load_path(&globals.config.dags);
        if let Some(file) = bag.dags.iter().find(|file| file.dag.id == *dag_id) {
            self.control.store().put_dag(&file.dag, &file.source, engine::now()).await?;
        }
        Ok(())
    }

    pub(super) async fn clear(&self, key: &RunKey, asked: &Selection) -> Result<Vec<Changed>, CliError> {
        Ok(ask::clear(&self.control, key, asked).await?)
    }

    pub(super) async fn mark(
        &self,
        key: &RunKey,
        asked: &Selection,
        state: TaskState,
    ) -> Result<Vec<Changed>, CliError> {
        Ok(ask::mark(&self.control, key, asked, state).await?)
    }

    pub(super) async fn cancel(&self, key: &RunKey) -> Result<(), CliError> {
        Ok(ask::cancel(&self.control, key).await?)
    }

    pub(super) async fn waits(&self, key: &RunKey, task_id: Option<&str>) -> Result<Vec<Waits>, CliError> {
        Ok(control::waits(&self.control, key, task_id, engine::now()).await?)
    }

    /// False if it is so already.
    pub(super) async fn pause(
        &self,
        globals: &Globals,
        dag_id: &DagId,
        paused: bool,
    ) -> Result<bool, CliError> {
        self.take_up(globals, dag_id).await?;
        let store = self.control.store();
        if store.dag(dag_id).await?.is_none() {
            return Err(CliError::User(format!("there is no DAG `{dag_id}`")));
        }
        Ok(store.set_paused(dag_id, paused, engine::now()).await?)
    }

    /// The newest run, or the one that was named.
    pub(super) async fn find_run(&self, dag_id: &str, run_id: Option<&str>) -> Result<RunKey, CliError> {
        super::runs::find_run(self.control.store(), dag_id, run_id).await
    }
}
