//! A real Postgres for the whole test binary: started by the first test that asks, gone with the process
//! however it ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Connection;

/// Set to `1` where there is no Postgres and that is accepted.
const SKIP: &str = "MAINSPRING_TEST_SKIP_PG";
/// The folder of `initdb` and `postgres`, if they are elsewhere.
const BIN: &str = "MAINSPRING_TEST_PG_BIN";

struct Server {
    port: u16,
    /// Its standard input is the pipe whose end stops the server.
    _supervisor: Child,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The url of a new, empty database; `None` if the tests are to go without.
pub(crate) async fn new_database() -> Option<String> {
    if std::env::var_os(SKIP).is_some_and(|value| value == "1") {
        return None;
    }
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(start)).await.unwrap();
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let base = format!("postgres://mainspring@127.0.0.1:{}", server.port);
    let mut admin = sqlx::PgConnection::connect(&format!("{base}/postgres")).await.unwrap();
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    Some(format!("{base}/{name}"))
}

fn binaries() -> PathBuf {
    let has_both = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    let mut folders: Vec<PathBuf> = std::env::var_os(BIN).map(PathBuf::from).into_iter().collect();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    folders.into_iter().find(has_both).unwrap_or_else(|| {
        panic!(
            "no `initdb` and `postgres` in ${BIN}, /usr/lib/postgresql/*/bin or $PATH: \
             install postgresql, or set {SKIP}=1 to test on SQLite only"
        )
    })
}

/// A command that does not run as root, which Postgres refuses.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("`id` runs");
    id.stdout.starts_with(b"0\n")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A server that a test stops and starts again. Its databases are gone when it is dropped.
pub(crate) struct Own {
    folder: PathBuf,
    port: u16,
    supervisor: Option<Child>,
}

impl Own {
    /// `None` if the tests are to go without.
    pub(crate) async fn start() -> Option<Self> {
        if std::env::var_os(SKIP).is_some_and(|value| value == "1") {
            return None;
        }
        let (folder, port) = make();
        let mut own = Self { folder, port, supervisor: None };
        own.start_again();
        Some(own)
    }

    /// The url of a database that is there.
    pub(crate) fn url(&self) -> String {
        format!("postgres://mainspring@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn start_again(&mut self) {
        self.supervisor = Some(launch(&self.folder, self.port, "true"));
    }

    /// Ends it at once, whoever is connected.
    pub(crate) fn stop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            supervisor.wait().unwrap();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn start() -> Server {
    let (folder, port) = make();
    Server { port, _supervisor: launch(&folder, port, r#"rm -rf "$folder""#) }
}

/// Makes an empty cluster in a folder of its own, and chooses a free port for it.
fn make() -> (PathBuf, u16) {
    let folder = tempfile::Builder::new().prefix("mainspring_pg").tempdir().unwrap().keep();
    if is_root() {
        run(Command::new("chown").arg("nobody:nogroup").arg(&folder));
    }
    let data = folder.join("data");
    let mut initdb = unprivileged(&binaries().join("initdb"));
    initdb
        .args(["-A", "trust", "-U", "mainspring", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
        .arg(&data);
    run(initdb.current_dir(&folder));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (folder, port)
}

/// Starts the server of the cluster in `folder`; it ends when the standard input of its supervisor does, which then
/// does what `last` says.
fn launch(folder: &Path, port: u16, last: &str) -> Child {
    let postgres = unprivileged(&binaries().join("postgres"));
    // The shell outlives us by a moment: `cat` ends when we do, even if we are killed.
    let script = format!(r#"folder=$1; shift; "$@" </dev/null & cat >/dev/null; kill -INT $!; wait; {last}"#);
    let mut supervisor = Command::new("sh");
    supervisor.args(["-c", &script, "sh"]).arg(folder).arg(postgres.get_program()).args(postgres.get_args());
    supervisor.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string(), "-k"]).arg(folder);
    for setting in ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=300", "shared_buffers=64MB"] {
        supervisor.args(["-c", setting]);
    }
    supervisor.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut supervisor = supervisor.process_group(0).spawn().expect("`sh` runs");
    let mut log = BufReader::new(supervisor.stderr.take().expect("it is piped")).lines();
    let mut seen = String::new();
    loop {
        let line = log.next().unwrap_or_else(|| panic!("postgres ended: {seen}")).unwrap();
        if line.contains("ready to accept connections") {
            break;
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    // Somebody has to read what it goes on to say, or it would stop at a full pipe.
    std::thread::spawn(move || log.for_each(drop));
    supervisor
}
