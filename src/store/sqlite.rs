//! SQLite: one task owns the only connection that writes and commits what waits as a group. It must not
//! know what is written.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use tokio::sync::{mpsc, oneshot};

use super::db::{BoxFuture, Tx, Write};
use super::error::StoreError;
use super::{Durability, migrate};

/// Writes that may wait; beyond it askers wait to be let in.
const QUEUE_MAX: usize = 1024;
/// Writes in one commit.
const GROUP_MAX: usize = 512;
/// Connections that read.
const READERS_MAX: u32 = 4;
/// Statement texts kept prepared per connection.
const STATEMENTS_MAX: usize = 256;
/// How long to wait for the process that has the home, and how often to ask.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_AGAIN: Duration = Duration::from_millis(50);
/// The first SQLite without the WAL-reset corruption.
const VERSION_MIN: (u32, u32, u32) = (3, 51, 3);

/// The parts of an open SQLite store.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    pub(super) readers: SqlitePool,
    queue: mpsc::Sender<Message>,
}

enum Message {
    Write(Box<dyn Pending>),
    Close(oneshot::Sender<()>),
}

/// A write in the queue, its answer's type forgotten.
trait Pending: Send {
    fn run<'a>(&'a mut self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<(), StoreError>>;
    fn reply(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Waiting<W: Write> {
    write: W,
    answer: Option<W::Answer>,
    reply: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Write> Pending for Waiting<W> {
    fn run<'a>(&'a mut self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.answer = Some(self.write.run(tx).await?);
            Ok(())
        })
    }

    fn reply(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { answer, reply, write: _ } = *self;
        let answer = committed.map(|()| answer.expect("a write that succeeded has an answer"));
        // An asker that went away does not want the answer; the write stands.
        drop(reply.send(answer));
    }
}

fn environment(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Environment(format!("state database `{}`: {error}", path.display()))
}

/// Opens `path`, creating it and its folder, migrates it and starts the writer.
pub(super) async fn open(path: PathBuf, durability: Durability) -> Result<Sqlite, StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| environment(folder, &error))?;
    }
    let lock = lock(&path).await?;
    let mut writer = SqliteConnection::connect_with(&options(&path, durability)?.create_if_missing(true))
        .await
        .map_err(|error| environment(&path, &error))?;
    let mut tx = Tx::Sqlite(&mut writer);
    check_version(&mut tx).await?;
    migrate::migrate(&mut tx).await?;
    let row = tx.fetch_optional(BUMP_EPOCH, &[]).await?;
    let epoch = row.ok_or_else(|| StoreError::Bug("the table `instance` is empty".into()))?.int(0)?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .min_connections(0)
        .connect_with(options(&path, durability)?.pragma("query_only", "ON"))
        .await
        .map_err(|error| environment(&path, &error))?;
    let (queue, waiting) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(Writer { connection: writer, epoch, waiting, _lock: lock }.work());
    Ok(Sqlite { readers, queue })
}

/// Opens `path` for reading beside the process that owns it. Writes are refused: nobody takes them.
pub(super) async fn open_reader(path: PathBuf) -> Result<Sqlite, StoreError> {
    if !path.exists() {
        return Err(StoreError::Refused(format!(
            "there is no state database `{}` yet: nothing has been run with this home",
            path.display()
        )));
    }
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .connect_with(options(&path, Durability::Full)?.pragma("query_only", "ON"))
        .await
        .map_err(|error| environment(&path, &error))?;
    let (queue, _nobody) = mpsc::channel(1);
    Ok(Sqlite { readers, queue })
}

pub(super) fn options(path: &Path, durability: Durability) -> Result<SqliteConnectOptions, StoreError> {
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    Ok(SqliteConnectOptions::from_str("sqlite::memory:")
        .map_err(|error| environment(path, &error))?
        .in_memory(false)
        .shared_cache(false)
        .filename(path)
        .pragma("journal_mode", "WAL")
        .pragma("synchronous", synchronous)
        .pragma("mmap_size", "0")
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .statement_cache_capacity(STATEMENTS_MAX))
}

/// Takes the lock file beside the database for as long as the returned file is open. A process that was killed
/// may hold it for a moment longer.
async fn lock(path: &Path) -> Result<File, StoreError> {
    let began = Instant::now();
    loop {
        match try_lock(path) {
            Err(StoreError::Busy(_)) if began.elapsed() < LOCK_WAIT => {
                // The timer is the event that is waited for.
                drop(tokio::time::timeout(LOCK_AGAIN, std::future::pending::<()>()).await);
            }
            Err(StoreError::Busy(why)) => return Err(StoreError::Environment(why)),
            taken => return taken,
        }
    }
}

/// `Busy` if another process has it.
fn try_lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).open(&name).map_err(|error| {
            let refused = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
            let hint = "\nhint: the user of this process must be able to write its folder";
            environment(&name, &format!("{error}{}", if refused { hint } else { "" }))
        })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(|error| environment(&name, &error))?;
            return Err(StoreError::Busy(format!(
                "state database `{}`: in use by process {}; one process owns a SQLite home (use that one, or postgres)",
                path.display(),
                holder.trim()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(environment(&name, &error)),
    }
    let pid = std::process::id();
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{pid}"))
        .map_err(|error| environment(&name, &error))?;
    Ok(file)
}

async fn check_version(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let row = tx.fetch_optional("SELECT sqlite_version()", &[]).await?;
    let text = row.map_or(Ok(String::new()), |row| row.text(0))?;
    if is_new_enough(&text) {
        return Ok(());
    }
    let (a, b, c) = VERSION_MIN;
    Err(StoreError::Environment(format!(
        "this binary is linked with SQLite {text}, which can corrupt its log; {a}.{b}.{c} or newer is needed"
    )))
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= VERSION_MIN
}

/// A new process takes a new number; older ones are refused from then on.
const BUMP_EPOCH: &str = "UPDATE instance SET epoch = epoch + 1 RETURNING epoch";
/// In one text: every statement costs a way to SQLite's thread and back.
const BEGIN: &str = "BEGIN IMMEDIATE; SELECT epoch FROM instance";

impl Sqlite {
    /// Queues a write and waits until it is committed.
    pub(super) async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let waiting = Box::new(Waiting { write, answer: None, reply });
        self.queue.send(Message::Write(waiting)).await.map_err(|_gone| closed())?;
        answer.await.map_err(|_gone| closed())?
    }

    /// Finishes what waits and lets go of the file.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        self.readers.close().await;
        if self.queue.send(Message::Close(done)).await.is_ok() {
            // An error means that the writer is gone already, which is what was asked for.
            drop(closed.await);
        }
    }
}

fn closed() -> StoreError {
    StoreError::Environment("the state database is closed".into())
}

struct Writer {
    connection: SqliteConnection,
    epoch: i64,
    waiting: mpsc::Receiver<Message>,
    _lock: File,
}

impl Writer {
    async fn work(mut self) {
        let mut messages = Vec::with_capacity(GROUP_MAX);
        let mut done = None;
        while done.is_none() && self.waiting.recv_many(&mut messages, GROUP_MAX).await > 0 {
            let mut group = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Write(pending) => group.push(pending),
                    Message::Close(reply) => done = Some(reply),
                }
            }
            if !group.is_empty() {
                self.commit(group).await;
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the state database did not close cleanly");
        }
        drop(self._lock);
        if done.is_some_and(|done| done.send(()).is_err()) {
            tracing::debug!("nobody waits for the state database to close");
        }
    }

    /// One transaction for all of `group`; each is told after the commit.
    async fn commit(&mut self, mut group: Vec<Box<dyn Pending>>) {
        let mut results = Vec::with_capacity(group.len());
        let committed = match self.try_commit(&mut group, &mut results).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // A transaction that SQLite has ended itself cannot be ended again: that error says nothing new.
                let _nothing_open = Tx::Sqlite(&mut self.connection).execute("ROLLBACK", &[]).await;
                Err(error)
            }
        };
        results.resize(group.len(), Ok(()));
        for (pending, result) in group.into_iter().zip(results) {
            pending.reply(result.and_then(|()| committed.clone()));
        }
    }

    async fn try_commit(
        &mut self,
        group: &mut [Box<dyn Pending>],
        results: &mut Vec<Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        let mut tx = Tx::Sqlite(&mut self.connection);
        let row = tx.fetch_optional(BEGIN, &[]).await?;
        if row.map(|row| row.int(0)).transpose()? != Some(self.epoch) {
            return Err(StoreError::Environment(
                "another process has opened this state database since; this one must end".into(),
            ));
        }
        if let [alone] = group {
            alone.run(&mut tx).await?;
            results.push(Ok(()));
        } else {
            for pending in group {
                tx.execute("SAVEPOINT one", &[]).await?;
                let result = pending.run(&mut tx).await;
                if result.is_err() {
                    tx.execute("ROLLBACK TO one", &[]).await?;
                }
                tx.execute("RELEASE one", &[]).await?;
                results.push(result);
            }
        }
        tx.execute("COMMIT", &[]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sqlite_with_the_wal_reset_fault_is_refused() {
        for (version, good) in [
            ("3.51.3", true),
            ("3.52.0", true),
            ("4.0.0", true),
            ("3.51.2", false),
            ("3.9.9", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), good, "{version}");
        }
    }
}
