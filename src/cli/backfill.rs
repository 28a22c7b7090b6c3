//! `dags backfill`: past intervals of a DAG's schedule, planned first.

use clap::{Args, ValueEnum};

use super::door::Door;
use super::{CliError, Globals, Output, print_json, print_line, run, runs, table};
use crate::control::backfill::{BackfillAsked, Planned, Reprocess};

/// Lines of the plan that are printed for people.
const LINES_MAX: usize = 20;

/// Run past intervals of a DAG's schedule.
#[derive(Args)]
pub(super) struct Backfill {
    /// The DAG
    #[arg(value_name = "DAG")]
    dag_id: String,
    /// The first instant, included
    #[arg(long, value_name = "TIME")]
    from: String,
    /// The last instant, included
    #[arg(long, value_name = "TIME")]
    to: String,
    /// What becomes of intervals that have a run: nothing, or failed ones, or all that have ended run again
    #[arg(long, value_enum, default_value = "none")]
    reprocess: ReprocessArg,
    /// Its runs at once; they do not count against the DAG's own limit
    #[arg(long, default_value_t = 4, value_name = "N")]
    max_active_runs: u32,
    /// The newest interval first
    #[arg(long)]
    backwards: bool,
    /// A parameter of the DAG, as NAME=VALUE; repeat for more
    #[arg(long = "param", short = 'p', value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Only print the plan
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReprocessArg {
    None,
    Failed,
    Completed,
}

pub(super) async fn run(args: &Backfill, globals: &Globals) -> Result<(), CliError> {
    let dag_id = runs::parse_dag_id(&args.dag_id)?;
    let asked = BackfillAsked {
        from: args.from.clone(),
        to: args.to.clone(),
        reprocess: match args.reprocess {
            ReprocessArg::None => Reprocess::None,
            ReprocessArg::Failed => Reprocess::Failed,
            ReprocessArg::Completed => Reprocess::Completed,
        },
        max_active_runs: args.max_active_runs,
        backwards: args.backwards,
        params: run::parse_params(&args.params)?,
        dry_run: args.dry_run,
    };
    let door = Door::open(globals).await?;
    let plan = door.backfill(globals, &dag_id, &asked).await?;
    door.close().await?;
    show(globals, &plan, asked.dry_run);
    Ok(())
}

fn show(globals: &Globals, plan: &[Planned], dry_run: bool) {
    if globals.output == Output::Json {
        return print_json(&plan);
    }
    let mut lines = table::with_head(&["run", "logical_date", "action", "state"]);
    let row = |one: &Planned| {
        let state = one.state.clone().unwrap_or_default();
        [one.run_id.clone(), one.logical_date.clone(), one.action.clone(), state]
    };
    for one in plan.iter().take(LINES_MAX) {
        lines.add_row(row(one));
    }
    print_line(&table::text(&lines));
    if plan.len() > LINES_MAX {
        print_line(&format!("… and {} more; --output json prints all", plan.len() - LINES_MAX));
    }
    let count = |action: &str| plan.iter().filter(|one| one.action == action).count();
    let would = if dry_run { "would be " } else { "" };
    eprintln!(
        "{} intervals: {} {would}created, {} {would}cleared, {} left as they are",
        plan.len(),
        count("create"),
        count("clear"),
        count("leave")
    );
}
