//! A server in this process for the tests of the API and of workers: a real store, a real scheduler's control, the
//! real router on a free port.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainspring::control::{self, Control, Scope};
use mainspring::core::ids::{RunKey, Timestamp};
use mainspring::core::state::RunState;
use mainspring::store::{Durability, Store};
use mainspring::web::{self, Parts, Pulse, Role, Tokens};
use mainspring::{dagbag, engine};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ADMIN: &str = "admin-admin-admin-admin-admin";
pub(crate) const VIEWER: &str = "viewer-viewer-viewer-viewer";
pub(crate) const WORKER: &str = "worker-worker-worker-worker";
pub(crate) const EXPIRED: &str = "expired-expired-expired-expired";

/// Long enough for whatever a test waits for on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A home with a database.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
}

/// A process's worth of server.
pub(crate) struct Server {
    pub(crate) control: Control,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    answering: JoinHandle<std::io::Result<()>>,
    http: reqwest::Client,
}

/// What is different from the usual.
#[derive(Clone)]
pub(crate) struct With {
    pub(crate) lease: Duration,
    pub(crate) address: SocketAddr,
    pub(crate) pulse: Pulse,
    pub(crate) any_host: bool,
}

impl Default for With {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            address: "127.0.0.1:0".parse().unwrap(),
            pulse: Pulse { last_round: Some(Timestamp(i64::MAX)), ..Pulse::default() },
            any_host: false,
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("home/mainspring.db").display());
        let store = Store::open(&url, Durability::Relaxed).await.unwrap();
        Self { folder, store }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path("home/logs")
    }

    pub(crate) async fn server(&self) -> Server {
        self.server_with(With::default()).await
    }

    pub(crate) async fn server_with(&self, with: With) -> Server {
        let settings = control::Settings {
            now: engine::now,
            scope: Scope::All,
            poll_every: Duration::from_millis(100),
            tries_max: None,
            watch: None,
        };
        let (control, _driver) = control::start(self.store.clone(), settings);
        let stop = CancellationToken::new();
        let past = Timestamp::parse("2020-01-01").unwrap();
        let tokens = Tokens::new("a key that servers share")
            .with(Role::Admin, ADMIN, None)
            .with(Role::Viewer, VIEWER, None)
            .with(Role::Worker, WORKER, None)
            .with(Role::Worker, EXPIRED, Some(past));
        let With { lease, address, pulse, any_host } = with;
        let router = web::router(Parts {
            control: control.clone(),
            tokens,
            any_host,
            lease,
            logs: self.logs(),
            now: engine::now,
            pulse: Box::new(move || pulse.clone()),
            wake: Box::new(|| {}),
            stop: stop.clone(),
        });
        let listener = web::listen(address, any_host).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = tokio::spawn(web::serve(listener, router, stop.clone()));
        Server { control, address, stop, answering, http: reqwest::Client::new() }
    }

    /// Takes up a DAG file's text as a server would.
    pub(crate) async fn take_up(&self, text: &str) {
        let path = self.path("dag.yaml");
        std::fs::write(&path, text).unwrap();
        let (files, problems) = dagbag::load_file(&path);
        assert!(problems.is_empty(), "{problems:?}");
        for file in files {
            self.store.put_dag(&file.dag, &file.source, engine::now()).await.unwrap();
        }
    }

    /// A file that holds a token for workers.
    pub(crate) fn token_file(&self, secret: &str) -> PathBuf {
        let path = self.path(&format!("token-{}", &secret[..6]));
        std::fs::write(&path, format!("worker {secret}\n")).unwrap();
        path
    }

    /// A pipe with a name: its reader hears of what a program says, and of the end of all who have it.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn request(&self, method: Method, path: &str, token: Option<&str>) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url())).timeout(PATIENCE);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The status, and the answer if it is JSON.
    pub(crate) async fn call(&self, method: Method, path: &str, token: &str, body: Value) -> (u16, Value) {
        let mut request = self.request(method, path, Some(token));
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call(Method::GET, path, ADMIN, Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Asks again and again until the answer is as expected.
    pub(crate) async fn until(&self, path: &str, expected: impl Fn(&Value) -> bool) -> Value {
        let asked = async {
            loop {
                let answer = self.get(path).await;
                if expected(&answer) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("it comes to be so in time")
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, ADMIN, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub(crate) async fn trigger(&self, dag_id: &str) -> RunKey {
        let run = self.post(&format!("/api/v1/dags/{dag_id}/dagRuns"), json!({})).await;
        RunKey {
            dag_id: dag_id.parse().unwrap(),
            run_id: mainspring::core::ids::RunId::parse(run["run_id"].as_str().unwrap()).unwrap(),
        }
    }

    pub(crate) async fn end_of(&self, key: &RunKey) -> RunState {
        let end = self.control.follow(key.clone()).await;
        tokio::time::timeout(PATIENCE, end).await.expect("the run ends in time").unwrap()
    }

    /// Stops answering, as a process that ends in good order.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.stop.cancel();
        self.answering.await.unwrap().unwrap();
        self.address
    }
}

pub(crate) fn path_of(key: &RunKey) -> String {
    format!("/api/v1/dags/{}/dagRuns/{}", key.dag_id, key.run_id.as_str().replace('+', "%2B"))
}

/// A worker as a process of its own.
pub(crate) fn worker(world: &World, server: &str, more: &[&str]) -> std::process::Command {
    worker_with(world, server, WORKER, more)
}

pub(crate) fn worker_with(world: &World, server: &str, token: &str, more: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mainspring"));
    let home = world.path("worker");
    command.arg("--home").arg(home).arg("--dags").arg(world.folder.path()).arg("worker");
    command.args(["--server", server, "--token-file"]).arg(world.token_file(token)).args(more);
    command.env("MAINSPRING_LOG", "info");
    command
}

/// A process that does not outlive its test.
pub(crate) struct Kept(pub(crate) std::process::Child);

impl Kept {
    pub(crate) fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args([name, &self.0.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end on a thread of its own.
    pub(crate) async fn end(mut self) -> std::process::ExitStatus {
        let ended = tokio::task::spawn_blocking(move || {
            let status = self.0.wait().unwrap();
            drop(self);
            status
        });
        tokio::time::timeout(PATIENCE, ended).await.expect("the process ends in time").unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn start(mut command: std::process::Command) -> Kept {
    Kept(command.spawn().unwrap())
}

/// Reads from a named pipe, in the background: `lines` of it, or all until nobody has it open for writing.
pub(crate) fn hear(path: &Path, lines: Option<usize>) -> JoinHandle<String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        use std::io::{BufRead, BufReader, Read};
        let mut reader = BufReader::new(std::fs::File::open(path).unwrap());
        let mut text = String::new();
        match lines {
            Some(count) => {
                for _ in 0..count {
                    reader.read_line(&mut text).unwrap();
                }
            }
            None => {
                reader.read_to_string(&mut text).unwrap();
            }
        }
        text
    })
}

pub(crate) async fn in_time<T>(what: JoinHandle<T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens in time").unwrap()
}
