//! `db migrate`, `db check`, `db prune`.

use clap::Subcommand;
use serde_json::json;

use super::served::Served;
use super::{CliError, Globals, Output, home, print_json, print_line};
use crate::control;
use crate::core::ids::Timestamp;
use crate::engine;
use crate::tasks::units::parse_span;

/// Look after the database of run state.
#[derive(Subcommand)]
pub(super) enum Db {
    /// Bring the schema up to this program's version
    Migrate,
    /// Check that the database can be reached, has this program's schema, and is sound
    Check,
    /// Delete runs that ended long ago, with all that belongs to them
    Prune {
        /// Runs that ended before this moment
        #[arg(long, value_name = "TIME", conflicts_with = "keep")]
        before: Option<String>,
        /// Runs that ended longer ago than this: `90d`
        #[arg(long, value_name = "SPAN", required_unless_present = "before")]
        keep: Option<String>,
        /// Only count them
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(command: Db, globals: Globals) -> Result<(), CliError> {
    let (store, what) = match command {
        Db::Prune { before, keep, dry_run } => {
            let before = limit(before.as_deref(), keep.as_deref())?;
            return prune(&globals, before, dry_run).await;
        }
        Db::Migrate => {
            let store = home::open_store(&globals).await?;
            store.migrate().await?;
            (store, "migrated")
        }
        Db::Check => {
            let store = home::open_store(&globals).await?;
            store.check().await?;
            (store, "sound")
        }
    };
    let version = store.schema_version().await?;
    match globals.output {
        Output::Json => print_json(&json!({ "state": what, "schema_version": version })),
        Output::Table => print_line(&format!("the database is {what}: schema version {version}")),
    }
    Ok(())
}

/// The moment before which runs are old.
fn limit(before: Option<&str>, keep: Option<&str>) -> Result<Timestamp, CliError> {
    if let Some(text) = before {
        return Timestamp::parse(text).ok_or_else(|| {
            CliError::User(format!("--before `{text}` is no time\nhint: 2026-01-31 or 2026-01-31T02:00:00Z"))
        });
    }
    let text = keep.unwrap_or_default();
    let span = parse_span(text)
        .ok_or_else(|| CliError::User(format!("--keep `{text}` is no span of time\nhint: 90d, 12h")))?;
    Ok(engine::now().minus(span))
}

/// Deletes what is old, through the server of the home if one answers.
async fn prune(globals: &Globals, before: Timestamp, dry_run: bool) -> Result<(), CliError> {
    let runs = match Served::find(&globals.config.home).await {
        Some(server) => prune_by(&server, before, dry_run).await?,
        None => prune_here(globals, before, dry_run).await?,
    };
    match globals.output {
        Output::Json => {
            print_json(&json!({ "runs": runs, "before": before.to_string(), "dry_run": dry_run }))
        }
        Output::Table => {
            let verb = if dry_run { "would be deleted" } else { "deleted" };
            print_line(&format!("{runs} runs that ended before {before} {verb}"));
        }
    }
    Ok(())
}

async fn prune_here(globals: &Globals, before: Timestamp, dry_run: bool) -> Result<u64, CliError> {
    let store = home::open_store(globals).await?;
    if dry_run {
        return Ok(store.prunable(before).await?);
    }
    let mut runs = 0;
    loop {
        match control::prune(&store, &globals.config.logs(), before).await? {
            0 => return Ok(runs),
            some => runs += some,
        }
    }
}

async fn prune_by(server: &Served, before: Timestamp, dry_run: bool) -> Result<u64, CliError> {
    let mut runs = 0;
    loop {
        let pruned = server.prune(before, dry_run).await?;
        runs += pruned.runs;
        if !pruned.more {
            return Ok(runs);
        }
    }
}
