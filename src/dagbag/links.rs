//! How the tasks of a file depend on each other: what authors declared, what data, outputs, groups and
//! teardowns imply; and whether that is an order at all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::drafts::{Draft, Group};
use super::problem::{Place, Problem, did_you_mean, listed};
use crate::core::dag::{Because, Dag, DagError, DagSettings, Edge, Expand, Task, TaskIx};
use crate::core::ids::{DagHash, DagId};

/// Puts tasks in order, or says why that cannot be.
pub(super) struct Links<'a> {
    drafts: &'a [Draft],
    groups: &'a [Group],
    by_id: HashMap<&'a str, TaskIx>,
    edges: Vec<Edge>,
    problems: &'a mut Vec<Problem>,
}

/// Links the tasks of a DAG.
pub(super) fn link(
    id: DagId,
    hash: DagHash,
    settings: DagSettings,
    drafts: Vec<Draft>,
    groups: &[Group],
    problems: &mut Vec<Problem>,
) -> Option<Dag> {
    let mut by_id: HashMap<&str, TaskIx> = HashMap::with_capacity(drafts.len());
    for (ix, draft) in drafts.iter().enumerate() {
        if let Some(first) = by_id.insert(draft.task.id.as_str(), ix) {
            let hint = format!("the first one is at line {}", drafts[first].place.line);
            let what = format!("two tasks are called `{}`", draft.task.id);
            problems.push(Problem::at(draft.place, what).hint(hint));
        }
    }
    let mut links = Links { drafts: &drafts, groups, by_id, edges: Vec::new(), problems };
    links.group_names();
    links.declared();
    let teardowns = links.teardowns();
    let mapped = links.outputs();
    links.between_groups();
    links.data();
    let edges = std::mem::take(&mut links.edges);
    let places: Vec<Place> = drafts.iter().map(|draft| draft.place).collect();
    let mut tasks: Vec<Task> = drafts.into_iter().map(|draft| draft.task).collect();
    for (ix, setups) in teardowns {
        tasks[ix].teardown_for = setups;
    }
    for (ix, expand) in mapped {
        tasks[ix].expand = Some(expand);
    }
    let names: Vec<String> = tasks.iter().map(|task| task.id.to_string()).collect();
    match Dag::new(id, hash, settings, tasks, edges) {
        Ok(dag) => Some(dag),
        Err(DagError::Duplicate(_)) => None,
        Err(error @ DagError::TooMany(_)) => {
            problems.push(Problem::at(Place::default(), error.to_string()));
            None
        }
        Err(error @ DagError::Cycle { .. }) => {
            problems.push(cycle(&error, &names, &places));
            None
        }
    }
}

fn cycle(error: &DagError, names: &[String], places: &[Place]) -> Problem {
    let DagError::Cycle { path } = error else { return Problem::at(Place::default(), error.to_string()) };
    let place_of =
        |id: &str| names.iter().position(|name| name == id).map_or(Place::default(), |ix| places[ix]);
    let first = path.first().map_or(Place::default(), |id| place_of(id.as_str()));
    let lines: Vec<String> = path[..path.len().saturating_sub(1)]
        .iter()
        .take(8)
        .map(|id| format!("`{id}` is at line {}", place_of(id.as_str()).line))
        .collect();
    Problem::at(first, error.to_string())
        .hint(format!("{}; one of these dependencies must go", lines.join(", ")))
}

/// What a name in `depends_on` stands for.
enum Named {
    Task(TaskIx),
    Group(usize),
}

impl Links<'_> {
    fn group_names(&mut self) {
        for group in self.groups {
            if let Some(&ix) = self.by_id.get(group.id.as_str()) {
                let what = format!("a group and a task are both called `{}`", group.id);
                let hint = format!("the task is at line {}", self.drafts[ix].place.line);
                self.problems.push(Problem::at(group.place, what).hint(hint));
            }
        }
    }

    /// Finds `name` as seen from within the group `prefix`: the innermost first.
    fn find(&self, name: &str, prefix: &str) -> Option<Named> {
        let mut within = prefix;
        loop {
            let full = format!("{within}{name}");
            if let Some(&ix) = self.by_id.get(full.as_str()) {
                return Some(Named::Task(ix));
            }
            if let Some(at) = self.groups.iter().position(|group| group.id == full) {
                return Some(Named::Group(at));
            }
            if within.is_empty() {
                return None;
            }
            within = within[..within.len() - 1].rfind('.').map_or("", |dot| &within[..=dot]);
        }
    }

    fn not_there(&mut self, place: Place, sentence: &str, name: &str) {
        let ids = self.drafts.iter().map(|draft| draft.task.id.as_str());
        let groups = self.groups.iter().map(|group| group.id.as_str());
        let hint = did_you_mean(name, ids.clone().chain(groups));
        let hint = hint.or_else(|| {
            (self.drafts.len() <= 12)
                .then(|| format!("its tasks are {}", listed(ids).replace(" or ", " and ")))
        });
        let what = format!("{sentence} `{name}`, which is not in this DAG");
        self.problems.push(Problem::at(place, what).maybe_hint(hint));
    }

    fn after(&mut self, upstream: TaskIx, downstream: TaskIx, because: Because) {
        self.edges.push(Edge { upstream, downstream, because });
    }

    fn declared(&mut self) {
        for (ix, draft) in self.drafts.iter().enumerate() {
            for (name, place) in &draft.depends_on {
                match self.find(name, &draft.prefix) {
                    Some(Named::Task(up)) => self.after(up, ix, Because::Declared),
                    Some(Named::Group(at)) => {
                        if draft.task.id.as_str().starts_with(&format!("{}.", self.groups[at].id)) {
                            let what = format!(
                                "task `{}` comes after the group `{name}` that it is in",
                                draft.task.id
                            );
                            self.problems.push(Problem::at(*place, what));
                        }
                    }
                    None => {
                        let sentence = format!("task `{}` comes after", draft.task.id);
                        self.not_there(*place, &sentence, name);
                    }
                }
            }
        }
    }

    fn teardowns(&mut self) -> Vec<(TaskIx, Vec<TaskIx>)> {
        let mut all = Vec::new();
        for (ix, draft) in self.drafts.iter().enumerate() {
            let mut setups = Vec::new();
            for (name, place) in &draft.teardown_for {
                match self.find(name, &draft.prefix) {
                    Some(Named::Task(setup)) => {
                        if !self.drafts[setup].task.setup {
                            let what = format!(
                                "task `{}` cleans up after `{name}`, which is no setup",
                                draft.task.id
                            );
                            let hint = format!(
                                "write `setup: true` in `{name}`, at line {}",
                                self.drafts[setup].place.line
                            );
                            self.problems.push(Problem::at(*place, what).hint(hint));
                        }
                        setups.push(setup);
                    }
                    Some(Named::Group(_)) => {
                        let what =
                            format!("task `{}` cleans up after `{name}`, which is a group", draft.task.id);
                        self.problems.push(Problem::at(*place, what).expected("the id of a task"));
                    }
                    None => {
                        self.not_there(*place, &format!("task `{}` cleans up after", draft.task.id), name)
                    }
                }
            }
            if !setups.is_empty() {
                all.push((ix, setups));
            }
        }
        all
    }

    /// Tasks whose templates or `expand` read outputs come after those who leave them.
    fn outputs(&mut self) -> Vec<(TaskIx, Expand)> {
        let mut mapped = Vec::new();
        for (ix, draft) in self.drafts.iter().enumerate() {
            for used in &draft.outputs {
                match self.leaver(&used.name, used.dotted, &draft.prefix) {
                    Some((up, _)) => self.after(up, ix, Because::Outputs),
                    None => {
                        let name =
                            if used.dotted { used.name.split('.').next().unwrap_or("") } else { &used.name };
                        let sentence = format!("task `{}` reads outputs of", draft.task.id);
                        self.not_there(used.place, &sentence, name);
                    }
                }
            }
            let Some(over) = &draft.mapped_over else { continue };
            match (self.leaver(&over.task, over.key.is_none(), &draft.prefix), &over.key) {
                (Some((up, rest)), key) => {
                    self.after(up, ix, Because::Outputs);
                    let key = key.clone().unwrap_or(rest);
                    if key.is_empty() || key.contains('.') {
                        let what = format!(
                            "task `{}`: `expand` must name one output of `{}`",
                            draft.task.id, self.drafts[up].task.id
                        );
                        self.problems
                            .push(Problem::at(over.place, what).hint("write `{{ outputs.task.key }}`"));
                    }
                    mapped.push((ix, Expand::Output { task: up, key }));
                }
                // A template was reported with the other templates.
                (None, None) => {}
                (None, Some(_)) => {
                    if !draft.outputs.iter().any(|used| used.name == over.task) {
                        self.not_there(
                            over.place,
                            &format!("task `{}` is mapped over", draft.task.id),
                            &over.task,
                        );
                    }
                }
            }
        }
        mapped
    }

    /// The task whose id `name` is, or begins with, and what follows it. Outputs are read by full id.
    fn leaver(&self, name: &str, dotted: bool, prefix: &str) -> Option<(TaskIx, String)> {
        if !dotted {
            return match self.find(name, prefix) {
                Some(Named::Task(ix)) => Some((ix, String::new())),
                Some(Named::Group(_)) | None => None,
            };
        }
        let mut end = name.len();
        loop {
            if let Some(&ix) = self.by_id.get(&name[..end]) {
                return Some((ix, name[end..].trim_start_matches('.').to_owned()));
            }
            end = name[..end].rfind('.')?;
        }
    }

    /// `depends_on` of and to groups: the first tasks of a group come after the last of another.
    fn between_groups(&mut self) {
        let mut pairs: Vec<(Vec<TaskIx>, Vec<TaskIx>)> = Vec::new();
        let ends: Vec<(Vec<TaskIx>, Vec<TaskIx>)> =
            (0..self.groups.len()).map(|at| self.ends_of(at)).collect();
        for (ix, draft) in self.drafts.iter().enumerate() {
            for (name, _) in &draft.depends_on {
                if let Some(Named::Group(at)) = self.find(name, &draft.prefix) {
                    pairs.push((ends[at].1.clone(), vec![ix]));
                }
            }
        }
        for (at, group) in self.groups.iter().enumerate() {
            for (name, place) in &group.depends_on {
                match self.find(name, &group.prefix) {
                    Some(Named::Task(up)) => pairs.push((vec![up], ends[at].0.clone())),
                    Some(Named::Group(up)) => pairs.push((ends[up].1.clone(), ends[at].0.clone())),
                    None => self.not_there(*place, &format!("group `{}` comes after", group.id), name),
                }
            }
        }
        for (ups, downs) in pairs {
            for &up in &ups {
                for &down in &downs {
                    self.after(up, down, Because::Declared);
                }
            }
        }
    }

    /// The tasks of a group that come after no other of it, and those before no other of it.
    fn ends_of(&self, at: usize) -> (Vec<TaskIx>, Vec<TaskIx>) {
        let prefix = format!("{}.", self.groups[at].id);
        let members: Vec<TaskIx> = (0..self.drafts.len())
            .filter(|&ix| self.drafts[ix].task.id.as_str().starts_with(&prefix))
            .collect();
        let inside: HashSet<TaskIx> = members.iter().copied().collect();
        let within =
            self.edges.iter().filter(|e| inside.contains(&e.upstream) && inside.contains(&e.downstream));
        let (mut with_up, mut with_down) = (HashSet::new(), HashSet::new());
        for edge in within {
            with_up.insert(edge.downstream);
            with_down.insert(edge.upstream);
        }
        let first = members.iter().copied().filter(|ix| !with_up.contains(ix)).collect();
        let last = members.iter().copied().filter(|ix| !with_down.contains(ix)).collect();
        (first, last)
    }

    /// A task that reads a dataset comes after the tasks that write it, unless it was told to come before.
    fn data(&mut self) {
        let mut writers: BTreeMap<&str, Vec<TaskIx>> = BTreeMap::new();
        for (ix, draft) in self.drafts.iter().enumerate() {
            for name in &draft.writes {
                writers.entry(name).or_default().push(ix);
            }
        }
        if writers.is_empty() {
            return;
        }
        let mut downstream: Vec<Vec<TaskIx>> = vec![Vec::new(); self.drafts.len()];
        for edge in &self.edges {
            downstream[edge.upstream].push(edge.downstream);
        }
        for (name, all) in &writers {
            self.in_order(name, all, &downstream);
        }
        for (ix, draft) in self.drafts.iter().enumerate() {
            for name in &draft.reads {
                for &writer in writers.get(name.as_str()).map_or(&[][..], Vec::as_slice) {
                    if writer != ix && !reaches(ix, writer, &downstream) {
                        self.after(writer, ix, Because::Data(Arc::from(name.as_str())));
                    }
                }
            }
        }
    }

    /// Several writers of one dataset must come one after the other, or the last to finish would win.
    fn in_order(&mut self, name: &str, writers: &[TaskIx], downstream: &[Vec<TaskIx>]) {
        for (at, &one) in writers.iter().enumerate() {
            for &other in &writers[at + 1..] {
                if !reaches(one, other, downstream) && !reaches(other, one, downstream) {
                    let (a, b) = (&self.drafts[one], &self.drafts[other]);
                    let what =
                        format!("tasks `{}` and `{}` both write `{name}`, in no order", a.task.id, b.task.id);
                    let hint = "let one come after the other with `depends_on`, or write to two datasets";
                    self.problems.push(Problem::at(b.place, what).hint(hint));
                    return;
                }
            }
        }
    }
}

fn reaches(from: TaskIx, to: TaskIx, downstream: &[Vec<TaskIx>]) -> bool {
    let mut seen = HashSet::from([from]);
    let mut todo = vec![from];
    while let Some(ix) = todo.pop() {
        for &next in &downstream[ix] {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                todo.push(next);
            }
        }
    }
    false
}
