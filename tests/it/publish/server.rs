//! A Postgres of one test binary, and a fresh database for each test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mainspring::data::connections::{Connections, Declared, Secret};
use mainspring::data::warehouse::Warehouse;

struct Server {
    socket_dir: PathBuf,
    _process: Child,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("these tests need Postgres installed");
    let mut found: Vec<PathBuf> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    found.sort();
    found.pop().expect("these tests need Postgres installed")
}

fn start() -> Server {
    let dir = tempfile::Builder::new().prefix("mainspring-pg").tempdir_in("/tmp").unwrap().keep();
    let bin = binaries();
    // Postgres refuses to run as root; the shell ends it when this process does, however it ends.
    let script = format!(
        "set -e; if [ $(id -u) = 0 ]; then chown nobody {d}; r='setpriv --reuid=nobody --regid=nogroup --clear-groups'; fi; \
         $r {b}/initdb -D {d}/data -A trust -U me -E UTF8 --no-locale >/dev/null; \
         $r {b}/postgres -D {d}/data -c listen_addresses= -c unix_socket_directories={d} -c fsync=off >/dev/null 2>&1 & \
         p=$!; read -r _ || true; kill -INT $p; wait $p; rm -rf {d}",
        d = dir.display(),
        b = bin.display()
    );
    let process = Command::new("bash").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    let ready = Command::new("bash")
        .args(["-c", &format!("for _ in $(seq 200); do [ -S {d}/.s.PGSQL.5432 ] && {b}/psql -h {d} -U me -d postgres -c 'select 1' >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1", d = dir.display(), b = bin.display())])
        .status()
        .unwrap();
    assert!(ready.success(), "Postgres did not start in {}", dir.display());
    Server { socket_dir: dir, _process: process }
}

/// The address of a new, empty database.
pub fn postgres_url() -> String {
    let server = SERVER.get_or_init(start);
    let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let made = Command::new(binaries().join("createdb"))
        .args(["-h", &server.socket_dir.display().to_string(), "-U", "me", &name])
        .status()
        .unwrap();
    assert!(made.success());
    let host = server.socket_dir.display().to_string().replace('/', "%2F");
    format!("postgres://me:hunter2@{host}/{name}")
}

/// Connections `warehouse` (SQLite under `home`) and `pg`.
pub fn connections(home: &Path) -> Connections {
    let declared = [("pg".to_owned(), Declared::Url(Secret::new(postgres_url())))];
    Connections::new(declared.into(), &Default::default(), home)
}

/// Both databases, empty.
pub async fn warehouses(home: &Path) -> [Warehouse; 2] {
    let connections = connections(home);
    [connections.warehouse("warehouse").await.unwrap(), connections.warehouse("pg").await.unwrap()]
}
