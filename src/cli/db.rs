//! `db migrate`, `db check`.

use clap::Subcommand;
use serde_json::json;

use super::{CliError, Globals, Output, home, print_json, print_line};

/// Look after the database of run state.
#[derive(Subcommand)]
pub(super) enum Db {
    /// Bring the schema up to this program's version
    Migrate,
    /// Check that the database can be reached, has this program's schema, and is sound
    Check,
}

pub(super) async fn run(command: Db, globals: Globals) -> Result<(), CliError> {
    let store = home::open_store(&globals).await?;
    let what = match command {
        Db::Migrate => {
            store.migrate().await?;
            "migrated"
        }
        Db::Check => {
            store.check().await?;
            "sound"
        }
    };
    let version = store.schema_version().await?;
    match globals.output {
        Output::Json => print_json(&json!({ "state": what, "schema_version": version })),
        Output::Table => print_line(&format!("the database is {what}: schema version {version}")),
    }
    Ok(())
}
