//! Runs from the database, each with the DAG version it is pinned to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::core::dag::Dag;
use crate::core::ids::{DagHash, RunKey};
use crate::core::run::{Run, RunType, TiRef};
use crate::dagbag;
use crate::store::{Store, StoreError};

use super::triggers::as_text;

/// Versions kept although no run in memory needs them.
const IDLE_VERSIONS_MAX: usize = 256;

/// DAG versions by content hash, each read once.
#[derive(Clone, Default)]
pub struct Dags(Arc<Mutex<BTreeMap<DagHash, Arc<Dag>>>>);

/// A run with what belongs to it.
pub struct Loaded {
    /// The value.
    pub run: Run,
    /// The DAG version it is pinned to.
    pub dag: Arc<Dag>,
    /// What its attempts left, as JSON text.
    pub outputs: BTreeMap<TiRef, Arc<str>>,
    /// The events that started it, as [`triggers`](super::triggers()) says them; JSON text or nothing.
    pub triggers: Arc<str>,
}

impl Dags {
    /// Keeps a version.
    pub fn put(&self, dag: Arc<Dag>) {
        let mut versions = self.0.lock().expect("nothing panics while the versions are held");
        if versions.len() >= IDLE_VERSIONS_MAX {
            versions.retain(|_, dag| Arc::strong_count(dag) > 1);
        }
        versions.insert(dag.hash.clone(), dag);
    }

    /// The version with this hash, from memory or from the store; `None` if it was never stored.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if the stored text cannot be read.
    pub async fn get(&self, store: &Store, hash: &DagHash) -> Result<Option<Arc<Dag>>, StoreError> {
        if let Some(dag) = self.0.lock().expect("nothing panics while the versions are held").get(hash) {
            return Ok(Some(dag.clone()));
        }
        let Some((dag_id, source)) = store.dag_version(hash).await? else { return Ok(None) };
        let dag = dagbag::dag_from_source(&source).map_err(|problems| {
            let first = problems.first().map(|problem| problem.what.clone()).unwrap_or_default();
            StoreError::Bug(format!("version `{}` of `{dag_id}` cannot be read back: {first}", hash.0))
        })?;
        let dag = Arc::new(dag);
        self.put(dag.clone());
        Ok(Some(dag))
    }
}

/// The run called `key`; `None` if there is none.
///
/// # Errors
/// Of the surroundings, or `Bug` if its rows or its DAG version cannot be read.
pub async fn load(store: &Store, dags: &Dags, key: &RunKey) -> Result<Option<Loaded>, StoreError> {
    let Some(summary) = store.run_summary(key).await? else { return Ok(None) };
    let hash = &summary.birth.dag_hash;
    let Some(dag) = dags.get(store, hash).await? else {
        return Err(StoreError::Bug(format!("version `{}` of `{}` is not stored", hash.0, key.dag_id)));
    };
    let Some(run) = store.load_run(key, &dag).await? else { return Ok(None) };
    let mut outputs = BTreeMap::new();
    for ((task_id, map_index), json) in store.outputs(key).await? {
        if let Some(task) = dag.find(&task_id) {
            outputs.insert(TiRef { task, map_index }, json.into());
        }
    }
    let by_news = summary.birth.run_type == RunType::Scheduled && dag.settings.schedule.follows_news();
    let triggers = if by_news { as_text(&store.events_of(key).await?) } else { "".into() };
    Ok(Some(Loaded { run, dag, outputs, triggers }))
}
