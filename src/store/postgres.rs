//! Postgres: a pool, a transaction per write, again if it lost against another. It must not know what is
//! written, and keeps no session state, so that it works behind a transaction pooler.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use super::Durability;
use super::db::{Tx, Write};
use super::error::StoreError;

/// Connections in all.
const CONNECTIONS_MAX: u32 = 8;
/// The longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(15);
/// Statement texts kept prepared per connection.
const STATEMENTS_MAX: usize = 256;
/// How often a write that met a lock or a deadlock is run.
const TRIES_MAX: usize = 5;

/// An open Postgres store.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    pub(super) pool: PgPool,
    begin: &'static str,
}

/// Limits hold for the transaction only.
const BEGIN_FULL: &str = "BEGIN; SET LOCAL lock_timeout = '5s'";
/// The same; the commit does not wait for the disk.
const BEGIN_RELAXED: &str = "BEGIN; SET LOCAL lock_timeout = '5s'; SET LOCAL synchronous_commit = off";

/// Connects; does not migrate.
pub(super) async fn open(url: &str, durability: Durability) -> Result<Postgres, StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| StoreError::Refused(format!("the url of the state database is not valid: {error}")))?
        .application_name("mainspring")
        .statement_cache_capacity(STATEMENTS_MAX);
    let server = format!("{}:{}", options.get_host(), options.get_port());
    let away = |error: &dyn Display| {
        StoreError::Environment(format!("state database on postgres `{server}`: {error}"))
    };
    // The pool would hide why it cannot connect behind its own patience.
    let first = tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options));
    let first = first.await.map_err(|_late| away(&"no answer"))?.map_err(|error| away(&error))?;
    first.close().await.map_err(|error| away(&error))?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(PATIENCE)
        .connect_with(options)
        .await
        .map_err(|error| away(&error))?;
    let begin = match durability {
        Durability::Full => BEGIN_FULL,
        Durability::Relaxed => BEGIN_RELAXED,
    };
    Ok(Postgres { pool, begin })
}

impl Postgres {
    /// Runs a write in a transaction of its own.
    pub(super) async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let mut tries = 1;
        loop {
            match self.write_once(&write).await {
                Err(StoreError::Busy(_)) if tries < TRIES_MAX => tries += 1,
                result => return result,
            }
        }
    }

    async fn write_once<W: Write>(&self, write: &W) -> Result<W::Answer, StoreError> {
        // `begin_with` ends an unfinished transaction when it is dropped, also when the asker goes away.
        let mut transaction = self.pool.begin_with(self.begin).await?;
        let answer = write.run(&mut Tx::Postgres(&mut transaction)).await?;
        transaction.commit().await?;
        Ok(answer)
    }
}
