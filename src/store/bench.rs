//! What the disk can do, to hold our commits against.

use std::path::Path;
use std::time::Instant;

use sqlx::{ConnectOptions as _, Connection as _};

use super::db::Tx;
use super::{Durability, StoreError, sqlite};

/// Commits per second of SQLite itself: `count` transactions of one row each, one after the other, in a new
/// file in `dir` (which is removed again), under the settings the store uses.
///
/// # Errors
/// `Environment` if `dir` cannot be written.
pub async fn raw_commits(dir: &Path, count: u32, durability: Durability) -> Result<f64, StoreError> {
    let path = dir.join("raw_commits.db");
    let mut connection = sqlite::options(&path, durability)?.create_if_missing(true).connect().await?;
    let mut tx = Tx::Sqlite(&mut connection);
    tx.execute("CREATE TABLE IF NOT EXISTS line (place BIGINT PRIMARY KEY, text TEXT NOT NULL)", &[]).await?;
    tx.execute("DELETE FROM line", &[]).await?;
    let begun = Instant::now();
    for place in 0..count {
        let values = [i64::from(place).into(), "a line about as long as a row of the journal is".into()];
        tx.execute("INSERT INTO line (place, text) VALUES ($1, $2)", &values).await?;
    }
    let took = begun.elapsed();
    connection.close().await?;
    for end in ["", "-wal", "-shm"] {
        let file = dir.join(format!("raw_commits.db{end}"));
        if file.exists() {
            std::fs::remove_file(&file)
                .map_err(|error| StoreError::Environment(format!("`{}`: {error}", file.display())))?;
        }
    }
    Ok(f64::from(count) / took.as_secs_f64())
}
