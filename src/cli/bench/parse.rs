//! `bench parse`: writes DAG files, then reads them all as a start of the scheduler would.

use std::fmt::Write;
use std::time::Instant;

use serde_json::json;

use super::super::{CliError, print_line};
use super::rss_mib;
use crate::dagbag;

pub(super) fn run(files: usize) -> Result<(), CliError> {
    let folder = std::env::temp_dir().join(format!("mainspring-bench-{}", uuid::Uuid::new_v4().simple()));
    let wrong = |e: std::io::Error| CliError::Environment(format!("{}: {e}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(wrong)?;
    for n in 0..files {
        std::fs::write(folder.join(format!("dag_{n:05}.yaml")), text(n)).map_err(wrong)?;
    }
    let before = rss_mib();
    let began = Instant::now();
    let bag = dagbag::load_path(&folder);
    let seconds = began.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&folder).map_err(wrong)?;
    if let Some(problem) = bag.problems.first() {
        return Err(CliError::Environment(format!("a file of the workload is wrong: {problem}")));
    }
    let tasks: usize = bag.dags.iter().map(|d| d.dag.tasks().len()).sum();
    print_line(
        &json!({
            "workload": format!("parse --files {files}"), "files": bag.dags.len(), "tasks": tasks,
            "seconds": seconds, "files_per_second": files as f64 / seconds,
            "rss_mib": rss_mib(), "rss_before_mib": before,
        })
        .to_string(),
    );
    Ok(())
}

fn text(n: usize) -> String {
    let mut text = format!(
        "dag_id: dag_{n:05}\ndescription: one of many\nschedule: \"{} 2 * * *\"\ntags: [bench]\n\
         default_args: {{retries: 2, retry_delay: 10s}}\ntasks:\n",
        n % 60
    );
    for t in 0..5 {
        write!(text, "  - id: task_{t}\n    type: bash\n    command: echo {t}\n").expect("a string takes all");
        if t > 0 {
            writeln!(text, "    depends_on: [task_{}]", t - 1).expect("a string takes all");
        }
    }
    text
}
