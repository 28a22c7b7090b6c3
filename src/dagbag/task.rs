//! One task of a file: its identity, the keys all kinds share, its kind's own keys, its templates. Everything
//! that is wrong with it is found, and what is right is kept, so that its links can be checked as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drafts::{Draft, MappedOver, with_places};
use super::keys::{CommonKeys, EnvValue, ExpandKey, RetryOnKeys, TaskIdentity, WhenKey};
use super::params::ParamSpec;
use super::problem::{Problem, did_you_mean, listed};
use super::references::{OutputUse, References};
use super::schemas::SCHEMAS;
use super::shape::Shape;
use super::yaml::{Node, Tree};
use crate::core::dag::{Expand, MAPPED_MAX, RetryPolicy, Task, TriggerRule, WeightRule};
use crate::core::ids::{PoolName, QueueName, TaskId};
use crate::tasks::template::is_template;
use crate::tasks::{KINDS, Kind, Work};

/// Keys shared by all kinds that may hold templates; the others are read before there is a run.
const RENDERED: &[&str] = &["env", "when", "expand", "doc_md"];

/// A template that is one output and nothing else.
static SOLE_OUTPUT: LazyLock<Regex> = LazyLock::new(|| {
    let text = concat!(
        r"^\s*\{\{-?\s*(?:outputs\.(?<path>[A-Za-z0-9_.]+)|ti\.xcom_pull\(\s*(?:task_ids\s*=\s*)?",
        r#"['"](?<task>[^'"]+)['"](?:\s*,\s*(?:key\s*=\s*)?['"](?<key>[^'"]+)['"])?\s*\))\s*-?\}\}\s*$"#
    );
    Regex::new(text).expect("the constant is a regular expression")
});

/// One task being read.
pub(super) struct Reading<'a> {
    node: &'a Node,
    source: &'a str,
    params: &'a ParamSpec,
    kind: Option<&'static Kind>,
    /// Keys of the kind.
    own_keys: &'static [String],
    /// The group it is in, with a dot at the end.
    prefix: &'a str,
    /// Whom messages are about: ``task `load`: ``.
    subject: String,
    problems: Vec<Problem>,
}

impl<'a> Reading<'a> {
    /// Begins to read `node`, a mapping with canonical words, the task at `place` (from 0) of its list.
    pub(super) fn new(
        node: &'a Node,
        (source, params): (&'a str, &'a ParamSpec),
        kind: Option<&'static Kind>,
        own_keys: &'static [String],
        prefix: &'a str,
        place: usize,
    ) -> Self {
        let subject = match node.get("id").and_then(Node::text) {
            Some(id) => format!("task `{prefix}{id}`: "),
            None => format!("task {}: ", place + 1),
        };
        Self { node, source, params, kind, own_keys, prefix, subject, problems: Vec::new() }
    }

    /// The task, unless it has no name to call it by; and everything that is wrong with it.
    pub(super) fn read(mut self, defaults: &Map<String, Value>) -> (Option<Draft>, Vec<Problem>) {
        let id = self.identity();
        let keys = self.common(defaults);
        let (spec, work) = self.settings();
        let outputs = self.references();
        let draft = match (id, keys) {
            (Some(id), Some(keys)) => Some(self.draft(id, keys, &spec, work.as_deref(), outputs)),
            _ => None,
        };
        (draft, self.problems)
    }

    fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Takes over what does not fit; answers the keys to blame.
    fn take(&mut self, shape: Shape<'_>) -> BTreeSet<String> {
        let (problems, blamed) = shape.done();
        self.problems.extend(problems);
        blamed
    }

    fn identity(&mut self) -> Option<TaskId> {
        let identity = part(self.node, |key| matches!(key, "id" | "type"));
        let subject = self.subject.clone();
        let mut shape = Shape::new(&SCHEMAS, &subject, &[]);
        let mut read = shape.read(&identity, &SCHEMAS.identity);
        let blamed = self.take(shape);
        if let (None, Some(word)) = (self.kind, identity.get("type").and_then(Node::text)) {
            let names = KINDS.iter().map(|kind| kind.name);
            let hint = did_you_mean(word, names.clone())
                .unwrap_or_else(|| format!("types are {}", listed(names).replace(" or ", " and ")));
            let what = format!("{subject}there is no type `{word}`");
            self.push(Problem::at(identity.along(["type"]).place, what).hint(hint));
        }
        if blamed.contains("id") {
            return None;
        }
        if let Value::Object(map) = &mut read {
            map.entry("type").or_insert_with(|| Value::from("noop"));
        }
        let id = TaskIdentity::deserialize(&read).ok()?.id;
        match TaskId::parse(&format!("{}{id}", self.prefix)) {
            Ok(id) => Some(id),
            Err(error) => {
                self.push(Problem::at(identity.along(["id"]).place, format!("{subject}{error}")));
                None
            }
        }
    }

    /// Reads the keys all kinds share, defaults below them; those with problems count as absent.
    fn common(&mut self, defaults: &Map<String, Value>) -> Option<CommonKeys> {
        let common =
            part(self.node, |key| is_among(key, &SCHEMAS.common_keys) && !is_among(key, self.own_keys));
        let mut unrendered = BTreeSet::new();
        for (key, value) in common.entries() {
            if !RENDERED.contains(&key.name.as_str()) && holds_template(value) {
                let (subject, key) = (&self.subject, &key.name);
                let what = format!("{subject}`{key}` holds a template, but it is read before there is a run");
                unrendered.insert(key.clone());
                self.push(Problem::at(value.place, what).hint("write the value itself"));
            }
        }
        let subject = self.subject.clone();
        let mut shape = Shape::new(&SCHEMAS, &subject, &[]);
        let read = shape.read(&common, &SCHEMAS.common);
        let blamed = self.take(shape);
        let mut merged = defaults.clone();
        if let Value::Object(own) = read {
            let right = |key: &String| !blamed.contains(key) && !unrendered.contains(key);
            merged.extend(own.into_iter().filter(|(key, _)| right(key)));
        }
        match serde_json::from_value(Value::Object(merged)) {
            Ok(keys) => {
                self.patterns(&keys);
                Some(keys)
            }
            Err(error) => {
                self.push(Problem::at(self.node.place, format!("{subject}{error}")));
                None
            }
        }
    }

    fn patterns(&mut self, keys: &CommonKeys) {
        let Some(rule) = &keys.retry_on else { return };
        for (key, text) in [("matching", &rule.matching), ("except", &rule.except)] {
            if let Some(Err(error)) = text.as_deref().map(Regex::new) {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
                let what = format!("{}`retry_on.{key}` is not a regular expression: {why}", self.subject);
                self.push(Problem::at(self.node.along(["retry_on", key]).place, what));
            }
        }
    }

    /// Reads the kind's own keys: as written, and what the kind made of them if it could.
    fn settings(&mut self) -> (Value, Option<Box<dyn Work>>) {
        // Without a known kind nobody can say which of the other keys are right.
        let Some(kind) = self.kind else { return (Value::Null, None) };
        let schema = &SCHEMAS.kinds[kind.name];
        let mine = part(self.node, |key| {
            is_among(key, self.own_keys)
                || !(matches!(key, "id" | "type") || is_among(key, &SCHEMAS.common_keys))
        });
        let subject = self.subject.clone();
        let mut shape = Shape::new(&SCHEMAS, &subject, &SCHEMAS.common_keys);
        let read = shape.read(&mine, schema);
        let dynamic = shape.dynamic;
        let mut work = None;
        // Only words may be in doubt: the kind has the last word on those, for it may know a second name.
        if shape.only_words() {
            match (kind.read)(&read) {
                Ok(found) => {
                    shape.forgive();
                    work = Some(found);
                }
                // With stand-ins in place of templates only the run can tell.
                Err(_) if dynamic || !shape.fits() => {}
                Err(error) => self.push(Problem::at(self.node.place, format!("{subject}{error}"))),
            }
        }
        self.take(shape);
        for found in work.iter().filter(|_| !dynamic).flat_map(|work| work.check()) {
            let place = mine.along(found.path.iter().map(String::as_str)).place;
            let problem = Problem::at(place, format!("{subject}{}", found.message));
            self.problems.push(problem.maybe_hint(found.hint));
        }
        (mine.to_json(), work)
    }

    fn references(&mut self) -> Vec<OutputUse> {
        let mut references = References {
            source: self.source,
            subject: &self.subject,
            params: self.params,
            used: Vec::new(),
            problems: Vec::new(),
        };
        for (key, value) in self.node.entries() {
            match key.name.as_str() {
                "doc_md" => {}
                "when" => references.check_expression(value),
                name if self.kind.is_some_and(|kind| kind.verbatim.contains(&name)) => {}
                _ => references.check(value),
            }
        }
        let References { used, problems, .. } = references;
        self.problems.extend(problems);
        used
    }

    fn draft(
        &mut self,
        id: TaskId,
        keys: CommonKeys,
        spec: &Value,
        work: Option<&dyn Work>,
        outputs: Vec<OutputUse>,
    ) -> Draft {
        let names = |all: Vec<String>| all.into_iter().filter(|name| !is_template(name));
        let mut reads: Vec<String> = names(work.map_or(Vec::new(), Work::reads)).collect();
        let mut writes: Vec<String> = names(work.map_or(Vec::new(), Work::writes)).collect();
        reads.extend(keys.inlets.iter().cloned());
        writes.extend(keys.outlets.iter().cloned());
        for all in [&mut reads, &mut writes] {
            all.sort_unstable();
            all.dedup();
        }
        let depends_on = with_places(&keys.depends_on, self.node.get("depends_on"));
        let teardown_for = with_places(&keys.teardown_for, self.node.get("teardown_for"));
        let mapped_over = self.mapped_over(&keys);
        let mut task = self.core_task(id, keys, spec);
        task.inlets = reads.iter().map(|name| Arc::from(name.as_str())).collect();
        task.outlets = writes.iter().map(|name| Arc::from(name.as_str())).collect();
        let place = self.node.along(["id"]).place;
        let prefix = self.prefix.to_owned();
        Draft { task, place, prefix, depends_on, teardown_for, outputs, mapped_over, reads, writes }
    }

    /// Reads an `expand` that is no list.
    fn mapped_over(&mut self, keys: &CommonKeys) -> Option<MappedOver> {
        let place = self.node.along(["expand"]).place;
        match keys.expand.as_ref()? {
            ExpandKey::List(items) => {
                if items.len() > MAPPED_MAX as usize {
                    let what = format!("{}`expand` has {} elements", self.subject, items.len());
                    self.push(Problem::at(place, what).expected(format!("at most {MAPPED_MAX}")));
                }
                None
            }
            ExpandKey::Output(output) => {
                Some(MappedOver { task: output.task.clone(), key: Some(output.key.clone()), place })
            }
            ExpandKey::Template(text) => {
                let Some(found) = SOLE_OUTPUT.captures(text) else {
                    let what = format!("{}`expand` is `{text}`", self.subject);
                    let expected = "a list, `\"{{ outputs.task.key }}\"` or `{task: …, key: …}`";
                    self.push(Problem::at(place, what).expected(expected));
                    return None;
                };
                let named = |name: &str| found.name(name).map(|part| part.as_str().to_owned());
                Some(match (named("path"), named("task")) {
                    (Some(path), _) => MappedOver { task: path, key: None, place },
                    (None, task) => MappedOver {
                        task: task.unwrap_or_default(),
                        key: Some(named("key").unwrap_or_else(|| "return_value".to_owned())),
                        place,
                    },
                })
            }
        }
    }

    fn core_task(&mut self, id: TaskId, keys: CommonKeys, spec: &Value) -> Task {
        let mut task = Task::new(id, self.kind.map_or("", |kind| kind.name));
        task.spec = Arc::from(spec.to_string());
        task.trigger_rule = TriggerRule::parse(&keys.trigger_rule).expect("the schema allows only these");
        task.weight_rule = WeightRule::parse(&keys.weight_rule).expect("the schema allows only these");
        task.when = keys.when.map(|when| match when {
            WhenKey::Expression(text) => Arc::from(text),
            WhenKey::Plain(answer) => Arc::from(answer.to_string()),
        });
        task.retry = RetryPolicy {
            retries: keys.retries,
            delay: keys.retry_delay.0,
            exponential_backoff: keys.retry_exponential_backoff,
            delay_max: keys.max_retry_delay.0,
        };
        task.execution_timeout = keys.execution_timeout.map(|span| span.0);
        match (PoolName::parse(&keys.pool), QueueName::parse(&keys.queue)) {
            (Ok(pool), Ok(queue)) => (task.pool, task.queue) = (pool, queue),
            (pool, queue) => {
                for (key, error) in [("pool", pool.err()), ("queue", queue.err())] {
                    if let Some(error) = error {
                        let place = self.node.along([key]).place;
                        self.push(Problem::at(place, format!("{}{error}", self.subject)));
                    }
                }
            }
        }
        task.pool_slots = keys.pool_slots;
        task.priority_weight = keys.priority_weight;
        task.depends_on_past = keys.depends_on_past;
        task.wait_for_downstream = keys.wait_for_downstream;
        task.max_active_tis_per_dag = keys.max_active_tis_per_dag;
        task.max_active_tis_per_dagrun = keys.max_active_tis_per_dagrun;
        task.setup = keys.setup;
        task.alerts = keys.alerts.iter().map(|name| Arc::from(name.as_str())).collect();
        let expand = match keys.expand {
            Some(ExpandKey::List(items)) => Some(items),
            Some(ExpandKey::Output(_) | ExpandKey::Template(_)) | None => None,
        };
        task.expand =
            expand.as_ref().map(|items| Expand::Fixed(u32::try_from(items.len()).unwrap_or(u32::MAX)));
        let extra = Extra { env: keys.env, retry_on: keys.retry_on, expand, doc_md: keys.doc_md };
        task.extra = serde_json::to_string(&extra).expect("plain values can be written as JSON").into();
        task
    }
}

/// What the worker needs beside the core's task.
#[derive(Serialize)]
struct Extra {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, EnvValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_on: Option<RetryOnKeys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expand: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doc_md: Option<String>,
}

fn is_among(key: &str, names: &[String]) -> bool {
    names.iter().any(|name| name == key)
}

/// The entries of a mapping whose keys are wanted.
fn part(node: &Node, wanted: impl Fn(&str) -> bool) -> Node {
    let entries = node.entries().iter().filter(|(key, _)| wanted(&key.name)).cloned().collect();
    Node { place: node.place, bytes: node.bytes.clone(), tree: Tree::Mapping(entries) }
}

fn holds_template(node: &Node) -> bool {
    match &node.tree {
        Tree::Scalar { text, .. } => is_template(text),
        Tree::List(items) => items.iter().any(holds_template),
        Tree::Mapping(entries) => entries.iter().any(|(_, value)| holds_template(value)),
    }
}
