//! Names of alert routes in DAG files. Which routes there are is not known here: they stand in the settings.

use super::folder::Bag;
use super::problem::{Place, Problem, did_you_mean, listed};
use super::yaml::Node;

/// Every route that a DAG and its tasks name, in the order of the file.
pub(super) fn named_routes(dag: &Node) -> Vec<(String, Place)> {
    let mut named = Vec::new();
    collect(dag, &mut named);
    named
}

/// Looks where `alerts` may stand: in a DAG, a group, defaults or a task.
fn collect(node: &Node, named: &mut Vec<(String, Place)>) {
    for (key, value) in node.entries() {
        match key.name.as_str() {
            "alerts" => {
                let texts =
                    value.items().iter().filter_map(|item| Some((item.text()?.to_owned(), item.place)));
                named.extend(texts);
            }
            "default_args" => collect(value, named),
            "tasks" | "task_groups" => value.items().iter().for_each(|item| collect(item, named)),
            _ => {}
        }
    }
}

impl Bag {
    /// DAGs that name a route which is not among `known` become problems, one for each such name.
    pub fn refuse_unknown_routes(&mut self, known: &[String]) {
        let problems = &mut self.problems;
        self.dags.retain(|dag| {
            let before = problems.len();
            for (name, place) in dag.routes.iter().filter(|(name, _)| !known.contains(name)) {
                let names = || known.iter().map(String::as_str);
                let hint = did_you_mean(name, names()).unwrap_or_else(|| {
                    let there = listed(names()).replace(" or ", " and ");
                    format!("declare it as [alerts.routes.{name}] in the settings file; there are {there}")
                });
                let what = format!("there is no alert route `{name}`");
                let file = dag.path.to_string_lossy().into_owned();
                problems.push(Problem { file, ..Problem::at(*place, what).hint(hint) });
            }
            problems.len() == before
        });
        problems.sort_by(|a, b| (&a.file, a.place, &a.what).cmp(&(&b.file, b.place, &b.what)));
    }
}
