//! `mainspring dags next`: the instants at which a DAG is due, as the scheduler will see them.

use std::collections::BTreeMap;

use serde_json::json;

use super::{CliError, Globals, Output, home, print_json, print_line, run::parse_time, table};
use crate::core::ids::Timestamp;
use crate::core::timetable::{AssetDue, AssetEvent, Fire, When};
use crate::dagbag::DagFile;
use crate::engine;
use crate::store::WaitingEvent;

/// Events that are looked at to say what a DAG waits for.
const EVENTS_MAX: u32 = 10_000;

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

pub(super) async fn run(args: &Next, file: &DagFile, globals: &Globals) -> Result<(), CliError> {
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
        When::Event { .. } => {
            eprintln!("`{dag}` has no instants: it runs on {when}");
            let waiting = waiting(file, globals).await.1.len();
            eprintln!("{waiting} of them wait now");
        }
        When::Assets { cron, .. } => {
            if cron.is_empty() {
                eprintln!("`{dag}` has no instants: it runs on {when}");
            } else {
                eprintln!("`{dag}` runs at these instants, or later, when data is new: {when}");
            }
            say_news(file, globals).await;
        }
        When::Cron(_) | When::Once | When::Every(_) if fires.is_empty() => {
            eprintln!("`{dag}` has no instant from {from} on: {when}");
        }
        When::Cron(_) | When::Once | When::Every(_) => {}
    }
    Ok(())
}

/// The events that wait for the DAG, after the last instant its schedule has dealt with. Without a database, or
/// before a server has seen the DAG, none do.
async fn waiting(file: &DagFile, globals: &Globals) -> (Option<Timestamp>, Vec<WaitingEvent>) {
    let Ok(store) = home::open_reader(globals).await else { return (None, Vec::new()) };
    let dag_id = &file.dag.id;
    let cursor = store.dag(dag_id).await.ok().flatten().and_then(|row| row.cursor);
    (cursor, store.waiting_events(dag_id, EVENTS_MAX).await.unwrap_or_default())
}

/// Says which assets are new since the last run, and which the next one waits for.
async fn say_news(file: &DagFile, globals: &Globals) {
    let (cursor, waiting) = waiting(file, globals).await;
    let mut new: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for event in &waiting {
        let at = new.entry(&event.name).or_insert(event.at);
        *at = event.at.max(*at);
    }
    let events: Vec<AssetEvent> =
        waiting.iter().map(|event| AssetEvent { asset: event.name.clone(), at: event.at }).collect();
    let now = engine::now();
    match file.schedule().due_by_assets(&events, cursor, now, now) {
        AssetDue::Fire { .. } => eprintln!("a run is due: a server that is up creates it within seconds"),
        AssetDue::Wait { missing, next } => {
            if !missing.is_empty() {
                let names: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
                eprintln!("waits for new data in {}", names.join(", "));
            } else if let Some(next) = next {
                eprintln!("data is new; waits for {next}");
            }
        }
    }
    for (name, at) in new {
        eprintln!("new since the last run: `{name}` at {at}");
    }
}
