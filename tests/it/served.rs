//! `serve` as a process, and the other commands that find it through its home.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::server::Kept;

pub(crate) fn mainspring(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainspring"));
    command.arg("--home").arg(folder.join("home")).arg("--dags").arg(folder.join("dags")).args(args);
    command
}

pub(crate) fn run(folder: &Path, args: &[&str]) -> Output {
    mainspring(folder, args).output().unwrap()
}

pub(crate) fn ok(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    out.into_owned()
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_str(&ok(output)).unwrap()
}

/// Starts a server, and returns once it answers.
pub(crate) fn serve(folder: &Path, more: &[&str]) -> (Kept, String) {
    let mut command = mainspring(folder, &["serve", "--listen", "127.0.0.1:0"]);
    let mut child = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(" at http://") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "the server has ended");
    }
    // Somebody has to read what it goes on to say.
    std::thread::spawn(move || said.lines().for_each(drop));
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    (Kept(child), url.to_owned())
}

pub(crate) fn folder(dag: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("dags")).unwrap();
    std::fs::write(folder.path().join("dags/dag.yaml"), dag).unwrap();
    folder
}

const SALES: &str = "dag_id: sales
params: {n: {type: integer, default: 1}}
tasks:
  - {id: first, type: bash, command: 'echo $N', env: {N: '{{ params.n }}'}}
  - {id: second, type: noop, depends_on: [first]}
";

/// The server takes up its files within a moment of its start.
pub(crate) fn trigger(folder: &Path, args: &[&str]) -> Output {
    let began = std::time::Instant::now();
    loop {
        let output = run(folder, args);
        let unknown = String::from_utf8_lossy(&output.stderr).contains("there is no DAG");
        if !unknown || began.elapsed() > super::server::PATIENCE {
            return output;
        }
    }
}

#[test]
fn commands_find_the_server_of_their_home_and_ask_it() {
    let folder = folder(SALES);
    let folder = folder.path();
    let (server, _) = serve(folder, &[]);
    let found = folder.join("home/server.json");
    assert_eq!(std::fs::metadata(&found).unwrap().permissions().mode() & 0o777, 0o600);
    let said =
        ["--output", "json", "dags", "trigger", "sales", "--wait", "--param", "n=7", "--run-id", "one"];
    let run_of = json(&trigger(folder, &said));
    assert_eq!((&run_of["run_id"], &run_of["state"]), (&"one".into(), &"success".into()));
    let shown = json(&run(folder, &["--output", "json", "runs", "show", "sales"]));
    assert_eq!(shown["tasks"][0]["outputs"]["return_value"], 7, "{shown}");
    let clear = ["--output", "json", "runs", "clear", "sales", "one", "--task", "first", "--downstream"];
    let would = json(&run(folder, &[&clear[..], &["--dry-run"]].concat()));
    assert_eq!(would.as_array().map(Vec::len), Some(2), "{would}");
    assert_eq!(json(&run(folder, &clear)), would, "exactly what the dry run said");
    let bad = run(folder, &["runs", "cancel", "sales", "none"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("no such run"), "{bad:?}");
    ok(&run(folder, &["dags", "pause", "sales"]));
    let waiting = ok(&trigger(folder, &["dags", "trigger", "sales", "--run-id", "two"]));
    assert_eq!(waiting.trim(), "two");
    let why = ok(&run(folder, &["runs", "why", "sales", "two", "--task", "first"]));
    assert!(why.contains("paused"), "{why}");
    ok(&run(folder, &["dags", "unpause", "sales"]));
    server.signal("-TERM");
    let mut server = server;
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
    assert!(!found.exists(), "a server that has ended says no more that it is there");
}

#[test]
fn a_server_prunes_for_those_who_ask_it() {
    let folder = folder(SALES);
    let folder = folder.path();
    let (_server, _) = serve(folder, &[]);
    ok(&trigger(folder, &["dags", "trigger", "sales", "--wait", "--run-id", "old"]));
    let log = folder.join("home/logs/sales/old");
    assert!(log.exists());
    let prune = ["--output", "json", "db", "prune", "--before"];
    let count = |args: &[&str]| json(&run(folder, &[&prune[..], args].concat()))["runs"].clone();
    assert_eq!(count(&["2001-01-01"]), 0);
    assert_eq!(count(&["2999-01-01", "--dry-run"]), 1);
    assert!(log.exists());
    assert_eq!(count(&["2999-01-01"]), 1);
    assert!(!log.exists());
    assert_eq!(json(&run(folder, &["--output", "json", "runs", "list"])), serde_json::json!([]));
}

#[test]
fn a_server_file_that_was_left_behind_misleads_nobody() {
    let folder = folder(SALES);
    let folder = folder.path();
    let (server, _) = serve(folder, &[]);
    server.signal("-KILL");
    drop(server);
    assert!(folder.join("home/server.json").exists());
    ok(&run(folder, &["dags", "trigger", "sales", "--run-id", "by-hand"]));
    let listed = json(&run(folder, &["--output", "json", "runs", "list"]));
    assert_eq!(listed[0]["run_id"], "by-hand", "{listed}");
}

#[test]
fn a_worker_finds_the_server_of_its_home_and_a_token_file_is_made() {
    let folder = folder(SALES);
    let folder = folder.path();
    let tokens = folder.join("tokens");
    let (_server, url) = serve(folder, &["--no-worker", "--token-file", tokens.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(&tokens).unwrap().permissions().mode() & 0o777, 0o600);
    let elsewhere = folder.join("elsewhere");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainspring"));
    command.arg("--home").arg(&elsewhere).arg("--dags").arg(folder.join("dags"));
    command.args(["worker", "--server", &url, "--token-file"]).arg(&tokens);
    let _worker = Kept(command.spawn().unwrap());
    let run_of = json(&trigger(folder, &["--output", "json", "dags", "trigger", "sales", "--wait"]));
    assert_eq!(run_of["state"], "success", "{run_of}");
}

#[test]
fn an_address_that_others_reach_is_refused_without_a_token_file() {
    let folder = folder(SALES);
    let output = run(folder.path(), &["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--token-file"), "{output:?}");
}
