//! Brings a database to the schema of this binary: numbered, forward only, each once, each checked by its sum.

use sha2::{Digest, Sha256};

use super::db::Tx;
use super::error::StoreError;

/// All of them; the place is the schema's number less one.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_init.sql"),
    include_str!("../../migrations/0002_schedules.sql"),
    include_str!("../../migrations/0003_alerts.sql"),
    include_str!("../../migrations/0004_events.sql"),
    include_str!("../../migrations/0005_retention.sql"),
    include_str!("../../migrations/0006_signs.sql"),
];

const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_version \
     (version BIGINT PRIMARY KEY, checksum TEXT NOT NULL)";
const VERSIONS: &str = "SELECT version, checksum FROM schema_version ORDER BY version";
const INSERT_VERSION: &str = "INSERT INTO schema_version (version, checksum) VALUES ($1, $2)";

/// Runs what is missing, in one transaction. Does nothing on a database that is up to date.
///
/// # Errors
/// `Environment` if the database is newer than this binary; `Bug` if a migration was changed after it ran.
pub(super) async fn migrate(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    match tx {
        // Differs because SQLite's write lock is the transaction's and Postgres's the table's.
        Tx::Sqlite(_) => tx.script(format!("BEGIN IMMEDIATE; {CREATE_VERSIONS}")).await?,
        Tx::Postgres(_) => {
            // Two may create a table at once: this lock of the transaction lets one go first.
            tx.script(format!("BEGIN; SELECT pg_advisory_xact_lock(7305); {CREATE_VERSIONS}")).await?;
        }
    }
    let result = run_missing(tx).await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = tx.script(end.to_owned()).await;
    result.and(ended)
}

async fn run_missing(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let mut done = 0;
    for row in tx.fetch_all(VERSIONS, &[]).await? {
        let version = usize::try_from(row.int(0)?).unwrap_or(usize::MAX);
        let Some(text) = version.checked_sub(1).and_then(|place| MIGRATIONS.get(place)) else {
            return Err(newer(version));
        };
        if row.text(1)? != checksum(text) {
            return Err(StoreError::Bug(format!(
                "migration {version} is not the one that this database was made with"
            )));
        }
        done = version;
    }
    for (place, text) in MIGRATIONS.iter().enumerate().skip(done) {
        tx.script(section(text, matches!(tx, Tx::Sqlite(_)))).await?;
        let version = i64::try_from(place + 1).expect("migrations are few");
        tx.execute(INSERT_VERSION, &[version.into(), checksum(text).into()]).await?;
    }
    Ok(())
}

/// The same judgement for whoever only reads: a database without any schema is not newer.
pub(super) fn refuse_newer(version: i64) -> Result<(), StoreError> {
    match usize::try_from(version) {
        Ok(known) if known <= MIGRATIONS.len() => Ok(()),
        _ => Err(newer(version)),
    }
}

fn newer(version: impl std::fmt::Display) -> StoreError {
    StoreError::Environment(format!(
        "the database is from a newer version of mainspring (schema {version}, this binary knows {}): \
         use that version, or another database",
        MIGRATIONS.len()
    ))
}

fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text without the sections of the other database.
fn section(text: &str, sqlite: bool) -> String {
    let (ours, other) = if sqlite { ("-- sqlite:", "-- postgres:") } else { ("-- postgres:", "-- sqlite:") };
    let mut keep = true;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        if line == other {
            keep = false;
        } else if line == ours || line == "-- end" {
            keep = true;
        } else if keep {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::section;

    #[test]
    fn a_section_is_seen_by_its_own_database_only() {
        let text = "a\n-- sqlite:\nb\n-- end\n-- postgres:\nc\n-- end\nd\n";
        assert_eq!(section(text, true), "a\nb\nd\n");
        assert_eq!(section(text, false), "a\nc\nd\n");
    }
}
