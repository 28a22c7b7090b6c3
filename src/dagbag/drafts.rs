//! The tasks of a file, one by one: aliases replaced, defaults merged, every key read and checked. How they
//! depend on each other is not known here.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::keys::{
    CommonKeys, EnvValue, ExpandKey, GroupKeys, OneOrMany, RetryOnKeys, TASK_ALIASES, TaskIdentity, WhenKey,
};
use super::params::ParamSpec;
use super::problem::{Place, Problem, did_you_mean, listed};
use super::references::{OutputUse, References};
use super::schemas::{SCHEMAS, Schemas};
use super::shape::Shape;
use super::yaml::{Key, Node, Tree};
use crate::core::dag::{Expand, MAPPED_MAX, RetryPolicy, Task, TriggerRule, WeightRule};
use crate::core::ids::{PoolName, QueueName, TaskId};
use crate::tasks::template::is_template;
use crate::tasks::{KINDS, Kind, Work};

/// Keys shared by all kinds that may hold templates; the others are read before there is a run.
const RENDERED: &[&str] = &["env", "when", "expand", "doc_md"];

/// A task that was read, with what its links are called.
pub(super) struct Draft {
    /// The task, without links.
    pub(super) task: Task,
    /// Where its id stands.
    pub(super) place: Place,
    /// The group it is in, with a dot at the end; empty at the top.
    pub(super) prefix: String,
    /// `depends_on`, each with its place.
    pub(super) depends_on: Vec<(String, Place)>,
    /// `teardown_for`, each with its place.
    pub(super) teardown_for: Vec<(String, Place)>,
    /// Outputs of other tasks that its templates read.
    pub(super) outputs: Vec<OutputUse>,
    /// What it is mapped over, if that is an output of another task.
    pub(super) mapped_over: Option<MappedOver>,
    /// Datasets it reads.
    pub(super) reads: Vec<String>,
    /// Datasets it writes.
    pub(super) writes: Vec<String>,
}

/// An output that `expand` names.
pub(super) struct MappedOver {
    /// The task, as written; with the output's name after a dot if `key` is none.
    pub(super) task: String,
    /// The output.
    pub(super) key: Option<String>,
    /// Where.
    pub(super) place: Place,
}

/// A group of tasks.
pub(super) struct Group {
    /// Its full name.
    pub(super) id: String,
    /// The group it is in, with a dot at the end.
    pub(super) prefix: String,
    /// Where its id stands.
    pub(super) place: Place,
    /// `depends_on`, each with its place.
    pub(super) depends_on: Vec<(String, Place)>,
}

/// Reads the tasks and groups of one DAG.
pub(super) struct Drafts<'a> {
    /// The file's text.
    pub(super) source: &'a str,
    /// The DAG's parameters.
    pub(super) params: &'a ParamSpec,
    /// What was read.
    pub(super) tasks: Vec<Draft>,
    /// The groups.
    pub(super) groups: Vec<Group>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
}

/// Replaces accepted words by canonical ones, in place. Two words for one key are a problem.
pub(super) fn canonical(
    node: &mut Node,
    aliases: &[(&str, &str)],
    own: &[&str],
    problems: &mut Vec<Problem>,
) {
    let Tree::Mapping(entries) = &mut node.tree else { return };
    for place in 0..entries.len() {
        let name = &entries[place].0.name;
        if own.contains(&name.as_str()) {
            continue;
        }
        let Some((alias, word)) = aliases.iter().find(|(alias, _)| alias == name) else { continue };
        if let Some((first, _)) = entries.iter().find(|(key, _)| key.name == *word) {
            let what = format!("`{alias}` and `{word}` are one key, written twice");
            let hint =
                format!("the other one is at line {}, column {}", first.place.line, first.place.column);
            problems.push(Problem::at(entries[place].0.place, what).hint(hint));
            continue;
        }
        entries[place].0.name = (*word).to_owned();
    }
}

impl<'a> Drafts<'a> {
    pub(super) fn new(source: &'a str, params: &'a ParamSpec) -> Self {
        Self { source, params, tasks: Vec::new(), groups: Vec::new(), problems: Vec::new() }
    }

    /// Reads `tasks` and `task_groups` of `parent`, the DAG or a group, under the defaults given.
    pub(super) fn read(&mut self, parent: &mut Node, prefix: &str, defaults: &Map<String, Value>) {
        let mut own = defaults.clone();
        own.extend(self.defaults(parent, prefix));
        let Tree::Mapping(entries) = &mut parent.tree else { return };
        for (key, value) in entries {
            match (key.name.as_str(), &mut value.tree) {
                ("tasks", Tree::List(items)) => {
                    for (place, item) in items.iter_mut().enumerate() {
                        self.task(item, place, prefix, &own);
                    }
                }
                ("task_groups", Tree::List(items)) => {
                    for item in items {
                        self.group(item, prefix, &own);
                    }
                }
                ("tasks" | "task_groups", _) => {
                    let what = format!("`{}` is {}", key.name, super::shape::shown(value));
                    self.problems.push(Problem::at(value.place, what).expected("a list"));
                }
                _ => {}
            }
        }
    }

    fn defaults(&mut self, parent: &mut Node, prefix: &str) -> Map<String, Value> {
        let Tree::Mapping(entries) = &mut parent.tree else { return Map::new() };
        let Some((_, node)) = entries.iter_mut().find(|(key, _)| key.name == "default_args") else {
            return Map::new();
        };
        canonical(node, TASK_ALIASES, &[], &mut self.problems);
        let subject = if prefix.is_empty() {
            "`default_args`: ".to_owned()
        } else {
            format!("`default_args` of group `{}`: ", prefix.trim_end_matches('.'))
        };
        let mut shape = Shape::new(&SCHEMAS, &subject, &[]);
        let read = shape.read(node, &SCHEMAS.common);
        self.problems.append(&mut shape.problems);
        match read {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn group(&mut self, node: &mut Node, prefix: &str, defaults: &Map<String, Value>) {
        let own = Node { tree: without(node, &["tasks", "task_groups", "default_args"]), ..node.clone() };
        let before = self.problems.len();
        let mut shape = Shape::new(&SCHEMAS, "task group: ", &["tasks", "task_groups", "default_args"]);
        let read = shape.read(&own, &SCHEMAS.group);
        self.problems.append(&mut shape.problems);
        if self.problems.len() > before {
            return;
        }
        let keys: GroupKeys = match serde_json::from_value(read) {
            Ok(keys) => keys,
            Err(error) => {
                self.problems.push(Problem::at(node.place, format!("task group: {error}")));
                return;
            }
        };
        let place = own.along(["id"]).place;
        let id = format!("{prefix}{}", keys.id);
        if let Some(first) = self.groups.iter().find(|group| group.id == id) {
            let hint = format!("the first one is at line {}", first.place.line);
            self.problems.push(Problem::at(place, format!("two groups are called `{id}`")).hint(hint));
        }
        let depends_on = with_places(&keys.depends_on, own.get("depends_on"));
        self.groups.push(Group { id: id.clone(), prefix: prefix.to_owned(), place, depends_on });
        self.read(node, &format!("{id}."), defaults);
    }

    fn task(&mut self, node: &mut Node, place: usize, prefix: &str, defaults: &Map<String, Value>) {
        if !matches!(node.tree, Tree::Mapping(_)) {
            let what = format!("task {} is {}", place + 1, super::shape::shown(node));
            self.problems.push(Problem::at(node.place, what).expected("a mapping with `id` and `type`"));
            return;
        }
        let kind_word =
            ["type", "operator", "kind"].iter().find_map(|k| node.get(k)?.text().map(str::to_owned));
        let kind = kind_word.as_deref().and_then(crate::tasks::find);
        let own_keys: Vec<&str> = kind.map_or(Vec::new(), |kind| {
            SCHEMAS.properties(&SCHEMAS.kinds[kind.name]).into_iter().map(|(name, _)| name).collect()
        });
        canonical(node, TASK_ALIASES, &own_keys, &mut self.problems);
        let name = node.get("id").and_then(Node::text).map(|id| format!("{prefix}{id}"));
        let subject = match &name {
            Some(name) => format!("task `{name}`: "),
            None => format!("task {}: ", place + 1),
        };
        let identity = part(node, |key| matches!(key, "id" | "type"));
        let before = self.problems.len();
        let mut shape = Shape::new(&SCHEMAS, &subject, &[]);
        let read = shape.read(&identity, &SCHEMAS.identity);
        self.problems.append(&mut shape.problems);
        if let (None, Some(word)) = (kind, &kind_word) {
            self.unknown_kind(node, &subject, word);
        }
        let id =
            TaskIdentity::deserialize(&read).ok().map(|own| TaskId::parse(&format!("{prefix}{}", own.id)));
        if let Some(Err(error)) = &id
            && self.problems.len() == before
        {
            self.problems.push(Problem::at(identity.along(["id"]).place, format!("{subject}{error}")));
        }
        let common = self.common(node, &subject, &own_keys, kind.is_none(), defaults);
        let settings = kind.map(|kind| {
            self.settings(
                node,
                &subject,
                kind,
                SCHEMAS.properties(&SCHEMAS.common).iter().map(|(n, _)| *n).collect(),
            )
        });
        let outputs = self.references(node, &subject, kind);
        if let (Some(Ok(id)), Some(kind), Some(common), Some(settings)) = (id, kind, common, settings) {
            let draft = self.finish(id, kind, common, settings, node, prefix, outputs);
            self.tasks.push(draft);
        }
    }

    fn unknown_kind(&mut self, node: &Node, subject: &str, word: &str) {
        let names = KINDS.iter().map(|kind| kind.name);
        let hint = did_you_mean(word, names.clone())
            .unwrap_or_else(|| format!("types are {}", listed(names).replace(" or ", " and ")));
        let what = format!("{subject}there is no type `{word}`");
        self.problems.push(Problem::at(node.along(["type"]).place, what).hint(hint));
    }

    /// Reads the keys all kinds share, defaults below them.
    fn common(
        &mut self,
        node: &Node,
        subject: &str,
        own_keys: &[&str],
        all: bool,
        defaults: &Map<String, Value>,
    ) -> Option<CommonKeys> {
        let known = SCHEMAS.properties(&SCHEMAS.common);
        let is_common = |key: &str| known.iter().any(|(name, _)| *name == key);
        // Without a known kind nobody can say which of the other keys are right.
        let common = part(node, |key| is_common(key) && (all || !own_keys.contains(&key)));
        let before = self.problems.len();
        for (key, value) in common.entries() {
            if !RENDERED.contains(&key.name.as_str()) && holds_template(value) {
                let what =
                    format!("{subject}`{}` holds a template, but it is read before there is a run", key.name);
                self.problems.push(Problem::at(value.place, what).hint("write the value itself"));
            }
        }
        let mut shape = Shape::new(&SCHEMAS, subject, &[]);
        let read = shape.read(&common, &SCHEMAS.common);
        self.problems.append(&mut shape.problems);
        if self.problems.len() > before {
            return None;
        }
        let mut merged = defaults.clone();
        if let Value::Object(own) = read {
            merged.extend(own);
        }
        match serde_json::from_value(Value::Object(merged)) {
            Ok(keys) => {
                self.patterns(&keys, node, subject);
                Some(keys)
            }
            Err(error) => {
                // Defaults that do not fit were reported where they stand.
                if defaults.is_empty() {
                    self.problems.push(Problem::at(node.place, format!("{subject}{error}")));
                }
                None
            }
        }
    }

    fn patterns(&mut self, keys: &CommonKeys, node: &Node, subject: &str) {
        let Some(rule) = &keys.retry_on else { return };
        for (key, text) in [("matching", &rule.matching), ("except", &rule.except)] {
            if let Some(Err(error)) = text.as_deref().map(Regex::new) {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
                let what = format!("{subject}`retry_on.{key}` is not a regular expression: {why}");
                self.problems.push(Problem::at(node.along(["retry_on", key]).place, what));
            }
        }
    }

    /// Reads the kind's own keys.
    fn settings(&mut self, node: &Node, subject: &str, kind: &Kind, common: Vec<&str>) -> Settings {
        let schemas: &Schemas = &SCHEMAS;
        let schema = &schemas.kinds[kind.name];
        let own: Vec<&str> = schemas.properties(schema).into_iter().map(|(name, _)| name).collect();
        let mine =
            part(node, |key| own.contains(&key) || (!matches!(key, "id" | "type") && !common.contains(&key)));
        let mut shape = Shape::new(schemas, subject, &common);
        let read = shape.read(&mine, schema);
        let dynamic = shape.dynamic;
        let mut problems = std::mem::take(&mut shape.problems);
        let mut work = None;
        if problems.is_empty() {
            match (kind.read)(&read) {
                Ok(found) => work = Some(found),
                // With stand-ins in place of templates only the run can tell.
                Err(_) if dynamic => {}
                Err(error) => problems.push(Problem::at(node.place, format!("{subject}{error}"))),
            }
        }
        if let Some(work) = work.as_ref().filter(|_| !dynamic) {
            for found in work.check() {
                let place = mine.along(found.path.iter().map(String::as_str)).place;
                problems
                    .push(Problem::at(place, format!("{subject}{}", found.message)).maybe_hint(found.hint));
            }
        }
        self.problems.append(&mut problems);
        Settings { spec: mine.to_json(), work }
    }

    fn references(&mut self, node: &Node, subject: &str, kind: Option<&Kind>) -> Vec<OutputUse> {
        let mut references = References {
            source: self.source,
            subject,
            params: self.params,
            used: Vec::new(),
            problems: Vec::new(),
        };
        for (key, value) in node.entries() {
            match key.name.as_str() {
                "doc_md" => {}
                "when" => references.check_expression(value),
                name if kind.is_some_and(|kind| kind.verbatim.contains(&name)) => {}
                _ => references.check(value),
            }
        }
        self.problems.append(&mut references.problems);
        references.used
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one task, each read by its own function")]
    fn finish(
        &mut self,
        id: TaskId,
        kind: &Kind,
        keys: CommonKeys,
        settings: Settings,
        node: &Node,
        prefix: &str,
        outputs: Vec<OutputUse>,
    ) -> Draft {
        let names = |all: Vec<String>| all.into_iter().filter(|name| !is_template(name));
        let work = settings.work.as_deref();
        let mut reads: Vec<String> = names(work.map_or(Vec::new(), Work::reads)).collect();
        let mut writes: Vec<String> = names(work.map_or(Vec::new(), Work::writes)).collect();
        reads.extend(keys.inlets.iter().cloned());
        writes.extend(keys.outlets.iter().cloned());
        for all in [&mut reads, &mut writes] {
            all.sort_unstable();
            all.dedup();
        }
        let depends_on = with_places(&keys.depends_on, node.get("depends_on"));
        let teardown_for = with_places(&keys.teardown_for, node.get("teardown_for"));
        let place = node.along(["id"]).place;
        let mapped_over = self.mapped_over(&id, &keys, node);
        let mut task = to_core(id, kind, keys, &settings.spec);
        task.inlets = reads.iter().map(|name| Arc::from(name.as_str())).collect();
        task.outlets = writes.iter().map(|name| Arc::from(name.as_str())).collect();
        Draft {
            task,
            place,
            prefix: prefix.to_owned(),
            depends_on,
            teardown_for,
            outputs,
            mapped_over,
            reads,
            writes,
        }
    }

    /// Reads an `expand` that is no list.
    fn mapped_over(&mut self, id: &TaskId, keys: &CommonKeys, node: &Node) -> Option<MappedOver> {
        let place = node.along(["expand"]).place;
        match keys.expand.as_ref()? {
            ExpandKey::List(items) => {
                if items.len() > MAPPED_MAX as usize {
                    let what = format!("task `{id}`: `expand` has {} elements", items.len());
                    self.problems.push(Problem::at(place, what).expected(format!("at most {MAPPED_MAX}")));
                }
                None
            }
            ExpandKey::Output(output) => {
                Some(MappedOver { task: output.task.clone(), key: Some(output.key.clone()), place })
            }
            ExpandKey::Template(text) => {
                let Some(found) = SOLE_OUTPUT.captures(text) else {
                    let what = format!("task `{id}`: `expand` is `{text}`");
                    let problem = Problem::at(place, what);
                    self.problems.push(
                        problem.expected("a list, `\"{{ outputs.task.key }}\"` or `{task: …, key: …}`"),
                    );
                    return None;
                };
                Some(match (found.name("path"), found.name("task")) {
                    (Some(path), _) => MappedOver { task: path.as_str().to_owned(), key: None, place },
                    (None, task) => MappedOver {
                        task: task.map_or("", |t| t.as_str()).to_owned(),
                        key: Some(found.name("key").map_or("return_value", |k| k.as_str()).to_owned()),
                        place,
                    },
                })
            }
        }
    }
}

/// A template that is one output and nothing else.
static SOLE_OUTPUT: LazyLock<Regex> = LazyLock::new(|| {
    let text = r#"^\s*\{\{-?\s*(?:outputs\.(?<path>[A-Za-z0-9_.]+)|ti\.xcom_pull\(\s*(?:task_ids\s*=\s*)?['"](?<task>[^'"]+)['"](?:\s*,\s*(?:key\s*=\s*)?['"](?<key>[^'"]+)['"])?\s*\))\s*-?\}\}\s*$"#;
    Regex::new(text).expect("the constant is a regular expression")
});

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

/// A kind's own keys, as written and as far as they could be read.
struct Settings {
    spec: Value,
    work: Option<Box<dyn Work>>,
}

fn to_core(id: TaskId, kind: &Kind, keys: CommonKeys, spec: &Value) -> Task {
    let mut task = Task::new(id, kind.name);
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
    // A name the schema's pattern allows but `parse` does not (`a..b`) keeps the default and was reported.
    task.pool = PoolName::parse(&keys.pool).unwrap_or(task.pool);
    task.queue = QueueName::parse(&keys.queue).unwrap_or(task.queue);
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
    task.expand = expand.as_ref().map(|items| Expand::Fixed(u32::try_from(items.len()).unwrap_or(u32::MAX)));
    let extra = Extra { env: keys.env, retry_on: keys.retry_on, expand, doc_md: keys.doc_md };
    task.extra = serde_json::to_string(&extra).expect("plain values can be written as JSON").into();
    task
}

/// The entries of a mapping whose keys are wanted.
fn part(node: &Node, wanted: impl Fn(&str) -> bool) -> Node {
    let entries = node.entries().iter().filter(|(key, _)| wanted(&key.name)).cloned().collect();
    Node { place: node.place, bytes: node.bytes.clone(), tree: Tree::Mapping(entries) }
}

fn without(node: &Node, keys: &[&str]) -> Tree {
    let kept = |entries: &[(Key, Node)]| {
        entries.iter().filter(|(key, _)| !keys.contains(&key.name.as_str())).cloned().collect()
    };
    match &node.tree {
        Tree::Mapping(entries) => Tree::Mapping(kept(entries)),
        Tree::Scalar { .. } | Tree::List(_) => node.tree.clone(),
    }
}

fn with_places(names: &OneOrMany, node: Option<&Node>) -> Vec<(String, Place)> {
    let place = node.map(|node| node.place).unwrap_or_default();
    match names {
        OneOrMany::One(name) => vec![(name.clone(), place)],
        OneOrMany::Many(names) => {
            let items = node.map_or(&[][..], Node::items);
            let place = |at: usize| items.get(at).map_or(place, |item| item.place);
            names.iter().enumerate().map(|(at, name)| (name.clone(), place(at))).collect()
        }
    }
}

fn holds_template(node: &Node) -> bool {
    match &node.tree {
        Tree::Scalar { text, .. } => is_template(text),
        Tree::List(items) => items.iter().any(holds_template),
        Tree::Mapping(entries) => entries.iter().any(|(_, value)| holds_template(value)),
    }
}
