//! `mainspring dags list | show | graph | next`: what the DAG files say; `pause | unpause | trigger` are in
//! `change.rs`.

use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{CliError, Globals, Output, backfill, block_on, change, next, print_json, print_line, table};
use crate::core::dag::{Because, Dag, Edge, TaskIx};
use crate::dagbag::{self, Bag, DagFile};

/// List and show DAGs.
#[derive(clap::Subcommand)]
pub(super) enum Dags {
    /// List all DAGs of the DAG folder
    List,
    /// Show a DAG: its tasks, what each comes after and why, its schedule
    Show {
        /// A DAG's name, or a file
        dag: String,
    },
    /// Draw a DAG
    Graph {
        /// A DAG's name, or a file
        dag: String,
        /// What to draw it in
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Print the next instants at which a DAG is due, on the wall clock of its zone and in UTC
    Next(next::Next),
    /// Create and admit nothing new of a DAG; what runs goes on
    Pause(change::WhichDag),
    /// Let a paused DAG go on
    Unpause(change::WhichDag),
    /// Start a run
    Trigger(change::TriggerRun),
    /// Run past intervals of the schedule
    Backfill(backfill::Backfill),
}

/// What a graph is drawn in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A tree of lines
    Text,
    /// Graphviz
    Dot,
    /// Mermaid
    Mermaid,
}

pub(super) fn run(command: &Dags, globals: &Globals) -> Result<(), CliError> {
    match command {
        Dags::List => list(globals),
        Dags::Show { dag } => find(dag, globals).map(|file| show(&file, globals.output)),
        Dags::Graph { dag, format } => {
            let file = find(dag, globals)?;
            print_line(&match format {
                Format::Text => tree(&file.dag),
                Format::Dot => dot(&file.dag),
                Format::Mermaid => mermaid(&file.dag),
            });
            Ok(())
        }
        Dags::Next(args) => block_on(next::run(args, &find(&args.dag, globals)?, globals)),
        Dags::Pause(which) => block_on(change::pause(which, globals, true)),
        Dags::Unpause(which) => block_on(change::pause(which, globals, false)),
        Dags::Trigger(args) => block_on(change::trigger(args, globals)),
        Dags::Backfill(args) => block_on(backfill::run(args, globals)),
    }
}

fn list(globals: &Globals) -> Result<(), CliError> {
    let Bag { mut dags, problems } = dagbag::load_path(&globals.config.dags);
    dags.sort_by(|a, b| a.dag.id.cmp(&b.dag.id));
    match globals.output {
        Output::Json => print_json(&dags.iter().map(summary).collect::<Vec<_>>()),
        Output::Table => {
            let mut rows = table::with_head(&["dag", "tasks", "schedule", "owner", "tags", "file"]);
            for file in &dags {
                rows.add_row([
                    file.dag.id.to_string(),
                    file.dag.tasks().len().to_string(),
                    file.schedule().describe(),
                    file.owner.clone().unwrap_or_default(),
                    file.tags.join(", "),
                    file.path.display().to_string(),
                ]);
            }
            print_line(&table::text(&rows));
        }
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() { Ok(()) } else { Err(CliError::Failed) }
}

fn summary(file: &DagFile) -> Value {
    json!({
        "dag_id": file.dag.id.as_str(),
        "description": file.description,
        "owner": file.owner,
        "tags": file.tags,
        "schedule": file.schedule().describe(),
        "tasks": file.dag.tasks().len(),
        "file": file.path,
        "hash": &*file.dag.hash.0,
    })
}

pub(super) fn find(name: &str, globals: &Globals) -> Result<DagFile, CliError> {
    let path = Path::new(name);
    let is_file = path.is_file();
    let bag = dagbag::load_path(if is_file { path } else { &globals.config.dags });
    let mut dags = bag.dags;
    let found = if is_file {
        (!dags.is_empty()).then_some(0)
    } else {
        dags.iter().position(|f| f.dag.id.as_str() == name)
    };
    if let Some(at) = found {
        return Ok(dags.swap_remove(at));
    }
    for problem in &bag.problems {
        eprintln!("{problem}");
    }
    let within = globals.config.dags.display();
    Err(CliError::User(format!(
        "there is no DAG `{name}` in {within}\nhint: `mainspring dags list` shows them all; a file can be named by its path"
    )))
}

fn show(file: &DagFile, output: Output) {
    let dag = &file.dag;
    if output == Output::Json {
        let mut all = summary(file);
        let tasks: Vec<Value> = (0..dag.tasks().len())
            .map(|ix| {
                let task = dag.task(ix);
                json!({
                    "task_id": task.id.as_str(),
                    "type": &*task.kind,
                    "trigger_rule": task.trigger_rule.as_str(),
                    "retries": task.retry.retries,
                    "pool": task.pool.as_str(),
                    "upstream": upstream(dag, ix).map(|edge| json!({
                        "task_id": dag.task(edge.upstream).id.as_str(), "because": implied(&edge.because).unwrap_or_else(|| "declared".to_owned())
                    })).collect::<Vec<_>>(),
                })
            })
            .collect();
        all["tasks"] = Value::Array(tasks);
        return print_json(&all);
    }
    print_line(&format!("{} ({})", dag.id, file.schedule().describe()));
    if let Some(description) = &file.description {
        print_line(description);
    }
    let mut rows = table::with_head(&["task", "type", "trigger rule", "retries", "comes after"]);
    for &ix in dag.topological() {
        let task = dag.task(ix);
        let after: Vec<String> = upstream(dag, ix)
            .map(|edge| match implied(&edge.because) {
                None => dag.task(edge.upstream).id.to_string(),
                Some(why) => format!("{} ({why})", dag.task(edge.upstream).id),
            })
            .collect();
        rows.add_row([
            task.id.to_string(),
            task.kind.to_string(),
            task.trigger_rule.to_string(),
            task.retry.retries.to_string(),
            after.join(", "),
        ]);
    }
    print_line(&table::text(&rows));
}

fn upstream(dag: &Dag, ix: TaskIx) -> impl Iterator<Item = &Edge> {
    dag.edges().iter().filter(move |edge| edge.downstream == ix)
}

/// Why one task comes after another though nobody declared it.
fn implied(why: &Because) -> Option<String> {
    match why {
        Because::Declared => None,
        Because::Data(name) => Some(format!("reads {name}")),
        Because::Outputs => Some("reads its outputs".to_owned()),
        Because::Teardown => Some("cleans up after it".to_owned()),
    }
}

/// Every task once, below the last of those it comes after; the others are named behind it.
fn tree(dag: &Dag) -> String {
    let mut place = vec![0; dag.tasks().len()];
    for (at, &ix) in dag.topological().iter().enumerate() {
        place[ix] = at;
    }
    let mut depth = vec![0; dag.tasks().len()];
    let mut text = String::new();
    let parent = |ix: TaskIx| dag.upstream(ix).iter().copied().max_by_key(|&up| place[up]);
    let mut children: Vec<Vec<TaskIx>> = vec![Vec::new(); dag.tasks().len()];
    let mut todo: Vec<TaskIx> = Vec::new();
    for &ix in dag.topological() {
        match parent(ix) {
            Some(up) => {
                depth[ix] = depth[up] + 1;
                children[up].push(ix);
            }
            None => todo.push(ix),
        }
    }
    todo.reverse();
    while let Some(ix) = todo.pop() {
        let others: Vec<&str> = dag
            .upstream(ix)
            .iter()
            .filter(|&&up| Some(up) != parent(ix))
            .map(|&up| dag.task(up).id.as_str())
            .collect();
        let also =
            if others.is_empty() { String::new() } else { format!("  (also after {})", others.join(", ")) };
        let indent = "  ".repeat(depth[ix]);
        let arrow = if depth[ix] == 0 { "" } else { "└ " };
        writeln!(text, "{indent}{arrow}{}{also}", dag.task(ix).id).expect("a string takes all");
        todo.extend(children[ix].iter().rev());
    }
    text.trim_end().to_owned()
}

fn dot(dag: &Dag) -> String {
    let mut text = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n", dag.id);
    for task in dag.tasks() {
        writeln!(text, "  \"{}\" [label=\"{}\\n{}\"];", task.id, task.id, task.kind)
            .expect("a string takes all");
    }
    for edge in dag.edges() {
        let (up, down) = (&dag.task(edge.upstream).id, &dag.task(edge.downstream).id);
        let style = match implied(&edge.because) {
            None => String::new(),
            Some(why) => format!(" [style=dashed, label=\"{why}\"]"),
        };
        writeln!(text, "  \"{up}\" -> \"{down}\"{style};").expect("a string takes all");
    }
    text.push('}');
    text
}

fn mermaid(dag: &Dag) -> String {
    let mut text = "flowchart LR\n".to_owned();
    for (ix, task) in dag.tasks().iter().enumerate() {
        writeln!(text, "  t{ix}[\"{} ({})\"]", task.id, task.kind).expect("a string takes all");
    }
    for edge in dag.edges() {
        let arrow = match implied(&edge.because) {
            None => "-->".to_owned(),
            Some(why) => format!("-. {why} .->"),
        };
        writeln!(text, "  t{} {arrow} t{}", edge.upstream, edge.downstream).expect("a string takes all");
    }
    text.trim_end().to_owned()
}
