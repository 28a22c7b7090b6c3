//! One document to one [`DagFile`].

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::drafts::{Drafts, canonical};
use super::keys::{DAG_ALIASES, DagKeys};
use super::links::link;
use super::params::ParamSpec;
use super::problem::{Place, Problem};
use super::routes::named_routes;
use super::schedule;
use super::schemas::SCHEMAS;
use super::shape::{Shape, shown};
use super::yaml::{Node, Tree, documents};
use crate::core::dag::{Dag, DagSettings, Overlap};
use crate::core::ids::{DagHash, DagId, Timestamp};
use crate::core::timetable::Schedule;

/// A DAG as a file says it: what runs and when, and the words for people.
#[derive(Debug, Clone)]
pub struct DagFile {
    /// What runs.
    pub dag: Dag,
    /// The document as canonical JSON: its hash is the DAG's, and [`dag_from_source`] reads it back.
    pub source: String,
    /// Its parameters.
    pub params: ParamSpec,
    /// One line for people.
    pub description: Option<String>,
    /// A page for people, in Markdown.
    pub doc_md: Option<String>,
    /// Who is responsible.
    pub owner: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The file it came from; empty if none.
    pub path: PathBuf,
    /// Where its `dag_id` stands.
    pub place: Place,
    /// Alert routes that it and its tasks name, each with its place.
    pub routes: Vec<(String, Place)>,
}

impl DagFile {
    /// The parameters of a run: those given, and defaults for the rest.
    ///
    /// # Errors
    /// Every unknown name, missing value and value that does not fit.
    pub fn resolve_params(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<Problem>> {
        self.params.resolve(given)
    }

    /// When it runs.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.dag.settings.schedule
    }

    /// The span of data that a run by hand at `date` stands for, see [`Schedule::data_interval`].
    #[must_use]
    pub fn data_interval(&self, date: Timestamp) -> (Timestamp, Timestamp) {
        self.schedule().data_interval(date)
    }
}

/// Reads all DAGs of a text; problems have no file name yet.
#[must_use]
pub fn load_text(text: &str) -> (Vec<DagFile>, Vec<Problem>) {
    let (roots, mut problems) = documents(text);
    if roots.is_empty() && problems.is_empty() {
        problems.push(Problem::at(Place::default(), "the file is empty").hint("a DAG begins with `dag_id:`"));
    }
    let files = roots.into_iter().filter_map(|root| read(root, text, &mut problems)).collect();
    (files, problems)
}

/// Reads a DAG back from [`DagFile::source`]: the version a run is pinned to, without its file.
///
/// # Errors
/// If the text is not of this program's making, or a kind of task is missing in this build.
pub fn dag_from_source(source: &str) -> Result<Dag, Vec<Problem>> {
    file_from_source(source).map(|file| file.dag)
}

/// As [`dag_from_source`], with everything that the file said.
///
/// # Errors
/// As there.
pub fn file_from_source(source: &str) -> Result<DagFile, Vec<Problem>> {
    let mut problems = Vec::new();
    let value: Value = serde_json::from_str(source).map_err(|error| {
        vec![Problem::at(Place::default(), format!("the stored DAG cannot be read: {error}"))]
    })?;
    match read(Node::from_json(&value), "", &mut problems) {
        Some(file) => Ok(file),
        None => Err(problems),
    }
}

/// A DAG without problems, or none and what is wrong with it.
fn read(mut root: Node, text: &str, problems: &mut Vec<Problem>) -> Option<DagFile> {
    let before = problems.len();
    if !matches!(root.tree, Tree::Mapping(_)) {
        let what = format!("the document is {}", shown(&root));
        problems.push(Problem::at(root.place, what).expected("a DAG: a mapping with `dag_id` and `tasks`"));
        return None;
    }
    canonical(&mut root, DAG_ALIASES, &[], problems);
    let keys = dag_keys(&root, problems);
    let params = ParamSpec::read(root.get("params"), problems);
    let mut drafts = Drafts::new(text, &params);
    drafts.read(&mut root, "", &Map::new());
    problems.append(&mut drafts.problems);
    let (tasks, groups) = (std::mem::take(&mut drafts.tasks), std::mem::take(&mut drafts.groups));
    drop(drafts);
    let schedule = keys.as_ref().map(|keys| schedule::read(keys, &root, problems)).unwrap_or_default();
    let id = keys.as_ref().and_then(|keys| match DagId::parse(&keys.dag_id) {
        Ok(id) => Some(id),
        Err(error) => {
            problems.push(Problem::at(root.along(["dag_id"]).place, error.to_string()));
            None
        }
    });
    let (source, hash) = fingerprint(&root);
    let settings = keys.as_ref().map(|keys| settings(keys, schedule)).unwrap_or_default();
    let name = id.unwrap_or_else(|| DagId::parse(UNNAMED).expect("the constant is a valid name"));
    let dag = link(name, hash, settings, tasks, &groups, problems)?;
    let keys = keys?;
    if problems.len() > before {
        return None;
    }
    Some(DagFile {
        dag,
        source,
        params,
        description: keys.description,
        doc_md: keys.doc_md,
        owner: keys.owner,
        tags: keys.tags,
        path: PathBuf::new(),
        place: root.along(["dag_id"]).place,
        routes: named_routes(&root),
    })
}

/// The canonical JSON of a document, and the name of this version.
fn fingerprint(root: &Node) -> (String, DagHash) {
    let source = root.to_json().to_string();
    let mut hash = String::with_capacity(64);
    for byte in Sha256::digest(&source) {
        write!(hash, "{byte:02x}").expect("a string takes all");
    }
    (source, DagHash(Arc::from(hash)))
}

/// Stands for the name of a DAG that has none, so that the rest of it can be checked.
const UNNAMED: &str = "unnamed";

/// Reads the keys of a DAG; those with problems count as absent.
fn dag_keys(root: &Node, problems: &mut Vec<Problem>) -> Option<DagKeys> {
    let parts = ["params", "default_args", "tasks", "task_groups"].map(str::to_owned);
    let entries = root.entries().iter().filter(|(key, _)| !parts.contains(&key.name)).cloned();
    let own = Node { place: root.place, bytes: root.bytes.clone(), tree: Tree::Mapping(entries.collect()) };
    let mut shape = Shape::new(&SCHEMAS, "", &parts);
    let mut read = shape.read(&own, &SCHEMAS.dag);
    let (found, blamed) = shape.done();
    problems.extend(found);
    if root.get("tasks").is_none() && root.get("task_groups").is_none() {
        let hint = "a DAG has at least one task: `tasks: [{id: first, type: noop}]`";
        problems.push(Problem::at(root.place, "the key `tasks` is missing").hint(hint));
    }
    if let Value::Object(map) = &mut read {
        map.retain(|key, _| !blamed.contains(key));
        map.entry("dag_id").or_insert_with(|| Value::from(UNNAMED));
    }
    match serde_json::from_value(read) {
        Ok(keys) => Some(keys),
        Err(error) => {
            problems.push(Problem::at(root.place, error.to_string()));
            None
        }
    }
}

fn settings(keys: &DagKeys, schedule: Schedule) -> DagSettings {
    DagSettings {
        max_active_runs: keys.max_active_runs,
        overlap: Overlap::parse(&keys.overlap).expect("the schema allows only these"),
        max_active_tasks: keys.max_active_tasks,
        dagrun_timeout: keys.dagrun_timeout.map(|span| span.0),
        fail_fast: keys.fail_fast,
        max_consecutive_failed_dag_runs: keys.max_consecutive_failed_dag_runs,
        alerts: keys.alerts.iter().map(|name| Arc::from(name.as_str())).collect(),
        schedule,
        deadline: schedule::deadline(keys),
    }
}
