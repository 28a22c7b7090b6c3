//! The tasks and groups of a file, one by one, with defaults merged and accepted words replaced. How they
//! depend on each other is not known here.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::keys::{GroupKeys, OneOrMany, TASK_ALIASES};
use super::params::ParamSpec;
use super::problem::{Place, Problem};
use super::references::OutputUse;
use super::schemas::SCHEMAS;
use super::shape::{Shape, shown};
use super::task::Reading;
use super::yaml::{Key, Node, Tree};
use crate::core::dag::Task;
use crate::tasks;

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
    own: &[String],
    problems: &mut Vec<Problem>,
) {
    let Tree::Mapping(entries) = &mut node.tree else { return };
    for place in 0..entries.len() {
        let name = &entries[place].0.name;
        if own.contains(name) {
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
                    let what = format!("`{}` is {}", key.name, shown(value));
                    self.problems.push(Problem::at(value.place, what).expected("a list"));
                }
                _ => {}
            }
        }
    }

    /// Takes over what does not fit; answers the keys to blame.
    fn take(&mut self, shape: Shape<'_>) -> BTreeSet<String> {
        let (problems, blamed) = shape.done();
        self.problems.extend(problems);
        blamed
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
        let blamed = self.take(shape);
        let Value::Object(mut map) = read else { return Map::new() };
        map.retain(|key, _| !blamed.contains(key));
        map
    }

    fn group(&mut self, node: &mut Node, prefix: &str, defaults: &Map<String, Value>) {
        let parts = ["tasks", "task_groups", "default_args"].map(str::to_owned);
        let own = Node { tree: without(node, &parts), ..node.clone() };
        let mut shape = Shape::new(&SCHEMAS, "task group: ", &parts);
        let mut read = shape.read(&own, &SCHEMAS.group);
        let blamed = self.take(shape);
        if own.get("id").is_none() || blamed.contains("id") {
            return;
        }
        if let Value::Object(map) = &mut read {
            map.retain(|key, _| !blamed.contains(key));
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
            let what = format!("task {} is {}", place + 1, shown(node));
            self.problems.push(Problem::at(node.place, what).expected("a mapping with `id` and `type`"));
            return;
        }
        let word =
            ["type", "operator", "kind"].iter().find_map(|key| node.get(key)?.text()).map(str::to_owned);
        let kind = word.as_deref().and_then(tasks::find);
        let own_keys = kind.map_or(&[][..], |kind| SCHEMAS.keys_of(kind.name));
        canonical(node, TASK_ALIASES, own_keys, &mut self.problems);
        let reading = Reading::new(node, (self.source, self.params), kind, own_keys, prefix, place);
        let (draft, problems) = reading.read(defaults);
        self.problems.extend(problems);
        self.tasks.extend(draft);
    }
}

fn without(node: &Node, keys: &[String]) -> Tree {
    let kept = |entries: &[(Key, Node)]| {
        entries.iter().filter(|(key, _)| !keys.contains(&key.name)).cloned().collect()
    };
    match &node.tree {
        Tree::Mapping(entries) => Tree::Mapping(kept(entries)),
        Tree::Scalar { .. } | Tree::List(_) => node.tree.clone(),
    }
}

pub(super) fn with_places(names: &OneOrMany, node: Option<&Node>) -> Vec<(String, Place)> {
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
