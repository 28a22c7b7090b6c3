//! `mainspring dags next`: the instants at which a DAG is due, as the scheduler will see them.

use serde_json::json;

use super::{CliError, Globals, Output, print_json, print_line, run::parse_time, table};
use crate::core::ids::Timestamp;
use crate::core::timetable::{Fire, When};
use crate::dagbag::DagFile;
use crate::engine;

/// How many instants, and from when on.
#[derive(clap::Args)]
pub(super) struct Next {
    /// A DAG's name, or a file
    pub(super) dag: String,
    /// How many instants
    #[arg(short, long = "count", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    n: u32,
    /// The first moment looked at, RFC 3339 or a date (UTC) [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
}

pub(super) fn run(args: &Next, file: &DagFile, globals: &Globals) -> Result<(), CliError> {
    let from = args.from.as_deref().map(|text| parse_time("--from", text)).transpose()?;
    let from = from.unwrap_or_else(engine::now);
    let schedule = file.schedule();
    let count = usize::try_from(args.n).unwrap_or(usize::MAX);
    let fires: Vec<Fire> = schedule.fires(from, Timestamp(i64::MAX)).take(count).collect();
    let local = |at: Timestamp| schedule.local(at).unwrap_or_default();
    match globals.output {
        Output::Json => print_json(
            &fires
                .iter()
                .map(|fire| {
                    json!({
                        "at": fire.at.to_string(),
                        "local": local(fire.at),
                        "logical_date": fire.logical_date.to_string(),
                        "data_interval_start": fire.data_interval_start.to_string(),
                        "data_interval_end": fire.data_interval_end.to_string(),
                    })
                })
                .collect::<Vec<_>>(),
        ),
        Output::Table if fires.is_empty() => {}
        Output::Table => {
            let mut rows = table::with_head(&[
                "local",
                "utc",
                "logical date",
                "data interval start",
                "data interval end",
            ]);
            for fire in &fires {
                rows.add_row([
                    local(fire.at),
                    fire.at.to_string(),
                    fire.logical_date.to_string(),
                    fire.data_interval_start.to_string(),
                    fire.data_interval_end.to_string(),
                ]);
            }
            print_line(&table::text(&rows));
        }
    }
    let (dag, when) = (&file.dag.id, schedule.describe());
    match &schedule.when {
        When::ByHand => eprintln!("`{dag}` has no instants: it runs {when}"),
        When::Event { .. } => eprintln!("`{dag}` has no instants: it runs on {when}"),
        When::Assets { cron, .. } if cron.is_empty() => {
            eprintln!("`{dag}` has no instants: it runs on {when}")
        }
        When::Assets { .. } => {
            eprintln!("`{dag}` runs at these instants, or later, when data is new: {when}")
        }
        When::Cron(_) | When::Once | When::Every(_) if fires.is_empty() => {
            eprintln!("`{dag}` has no instant from {from} on: {when}");
        }
        When::Cron(_) | When::Once | When::Every(_) => {}
    }
    Ok(())
}
