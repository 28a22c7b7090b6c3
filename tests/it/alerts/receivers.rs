//! Those who are told: a real mail server, and a service that is called. Both keep what they are given.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::sync::mpsc;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mail server in a process of its own; it ends with this value, or with the test.
pub(super) struct MailServer {
    child: Child,
    pub(super) port: u16,
    mails: mpsc::UnboundedReceiver<Value>,
}

/// The interpreter that has the mail server's library: the one of the test command, or the one it keeps.
fn python() -> std::ffi::OsString {
    if let Some(python) = std::env::var_os("MAINSPRING_TEST_PYTHON") {
        return python;
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&home).join(".cache"), Into::into);
    let kept = cache.join("mainspring/python/bin/python");
    if kept.exists() { kept.into() } else { "python3".into() }
}

impl MailServer {
    pub(super) fn start(args: &[&str]) -> Self {
        let script = crate::cli::root().join("tests/smtp_server.py");
        let mut child = Command::new(python())
            .arg(script)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 can be started");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_else(|| {
            panic!("the mail server did not start: `bash tests/run.sh` installs what tests/requirements.txt names")
        });
        let first: Value = serde_json::from_str(&first).unwrap();
        let (sender, mails) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, port: first["port"].as_u64().unwrap().try_into().unwrap(), mails }
    }

    /// The next mail.
    pub(super) async fn next(&mut self) -> Value {
        tokio::time::timeout(PATIENCE, self.mails.recv()).await.expect("a mail comes").unwrap()
    }

    /// Mails that have come and were not looked at.
    pub(super) fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.mails.try_recv().ok()).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One call as it came.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Call {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn delivery(&self) -> String {
        self.headers["x-mainspring-delivery"].clone()
    }
}

/// A service that takes calls.
pub(super) struct Catcher {
    pub(super) url: String,
    calls: mpsc::UnboundedReceiver<Call>,
}

#[derive(Clone)]
struct Catching {
    /// Calls still to be refused.
    refuse: Arc<AtomicU32>,
    calls: mpsc::UnboundedSender<Call>,
}

impl Catcher {
    /// Refuses the first `refuse` calls for the moment.
    pub(super) async fn start(refuse: u32) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let state = Catching { refuse: Arc::new(AtomicU32::new(refuse)), calls: sender };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().route("/hook", post(caught)).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, calls }
    }

    /// The next call that was taken.
    pub(super) async fn next(&mut self) -> Call {
        tokio::time::timeout(PATIENCE, self.calls.recv()).await.expect("a call comes").unwrap()
    }

    /// Calls that have come and were not looked at.
    pub(super) fn rest(&mut self) -> Vec<Call> {
        std::iter::from_fn(|| self.calls.try_recv().ok()).collect()
    }
}

async fn caught(
    State(state): State<Catching>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let refused = state.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if refused.is_ok() {
        return (StatusCode::SERVICE_UNAVAILABLE, "come back later");
    }
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = String::from_utf8(body.to_vec()).unwrap();
    state.calls.send(Call { headers, body }).unwrap();
    (StatusCode::ACCEPTED, "thank you")
}
