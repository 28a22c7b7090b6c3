//! `mainspring check`: every problem of DAG files, at once.

use std::path::PathBuf;

use serde_json::json;

use super::{CliError, Globals, Output, print_json, print_line};
use crate::dagbag::{self, Bag};

/// Check DAG files; every problem at once.
#[derive(clap::Args)]
pub(super) struct Check {
    /// Files or folders [default: the DAG folder]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Check, globals: &Globals) -> Result<(), CliError> {
    let default = [globals.config.dags.clone()];
    let paths = if args.paths.is_empty() { &default[..] } else { &args.paths[..] };
    let mut all = Bag::default();
    for path in paths {
        let bag = dagbag::load_path(path);
        all.dags.extend(bag.dags);
        all.problems.extend(bag.problems);
    }
    all.refuse_namesakes();
    all.refuse_unknown_routes(&globals.config.alerts.names());
    let tasks: usize = all.dags.iter().map(|file| file.dag.tasks().len()).sum();
    match globals.output {
        Output::Json => {
            print_json(&json!({ "dags": all.dags.len(), "tasks": tasks, "problems": all.problems }));
        }
        Output::Table => {
            for problem in &all.problems {
                eprintln!("{problem}");
            }
            if all.problems.is_empty() {
                print_line(&format!("ok: {}, {}", count(all.dags.len(), "DAG"), count(tasks, "task")));
            } else {
                eprintln!("{} in {}", count(all.problems.len(), "problem"), count(files(&all), "file"));
            }
        }
    }
    if all.problems.is_empty() { Ok(()) } else { Err(CliError::Failed) }
}

fn files(bag: &Bag) -> usize {
    let mut files: Vec<&str> = bag.problems.iter().map(|problem| problem.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    files.len()
}

fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
