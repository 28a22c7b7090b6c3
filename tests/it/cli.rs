//! The program as a person or a script meets it: arguments in; exit code, stdout and stderr out.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn mainspring(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainspring"));
    command.current_dir(root()).env_remove("MAINSPRING_HOME").arg("--home").arg(home).args(args);
    command
}

fn run(home: &Path, args: &[&str]) -> Output {
    mainspring(home, args).output().expect("the program can be started")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("stdout is no JSON ({e}): {}\n{}", stdout(output), stderr(output)))
}

/// Writes a DAG file into a folder of its own and answers its path.
fn dag_file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("dag.yaml");
    fs::write(&path, text).unwrap();
    path
}

fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout:\n{}\nstderr:\n{}", stdout(output), stderr(output));
}

const HELLO: &str = "dag_id: hello
tasks:
  - {id: first, type: bash, command: 'echo 41; echo 42'}
  - {id: second, type: bash, command: 'echo \"got $N\"', env: {N: '{{ outputs.first.return_value }}'}}
";

#[test]
fn a_run_prints_one_json_object_and_hands_outputs_on() {
    let folder = tempfile::tempdir().unwrap();
    let dag = dag_file(folder.path(), HELLO);
    let output = run(&folder.path().join("home"), &["--output", "json", "run", dag.to_str().unwrap()]);
    assert_exit(&output, 0);
    let report = json(&output);
    assert_eq!(report["dag_id"], "hello");
    assert_eq!(report["state"], "success");
    assert_eq!(report["tasks"][0]["outputs"]["return_value"], 42);
    assert_eq!(report["tasks"][1]["outputs"]["return_value"], "got 42");
}

#[test]
fn the_same_logical_date_is_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let dag = dag_file(folder.path(), HELLO);
    let args = ["--output", "json", "run", dag.to_str().unwrap(), "--logical-date", "2026-01-01"];
    let first = json(&run(&home, &args));
    let second = json(&run(&home, &args));
    assert_eq!(first["run_id"], second["run_id"]);
    assert_eq!(second["state"], "success");
    let listed = json(&run(&home, &["--output", "json", "runs", "list"]));
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn a_failed_run_exits_1_and_says_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let dag = dag_file(
        folder.path(),
        "dag_id: broken
tasks:
  - {id: bad, type: bash, command: 'echo before; exit 3'}
  - {id: after, type: noop, depends_on: [bad]}
",
    );
    let home = folder.path().join("home");
    let output = run(&home, &["run", dag.to_str().unwrap()]);
    assert_exit(&output, 1);
    let text = stdout(&output);
    assert!(text.contains("ended with exit code 3"), "{text}");
    assert!(text.contains("upstream_failed"), "{text}");
    let log = stdout(&run(&home, &["tasks", "logs", "broken", "bad"]));
    assert!(log.contains("before") && log.contains("exit code 3"), "{log}");
}

#[test]
fn mistakes_of_the_user_exit_1_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let dag = dag_file(folder.path(), HELLO);
    let dag = dag.to_str().unwrap();
    let dags = folder.path().to_str().unwrap();
    for (args, expected) in [
        (vec!["--dags", dags, "run", "helo"], "did you mean `hello`?"),
        (vec!["run", dag, "--logical-date", "yesterday"], "RFC 3339"),
        (vec!["run", dag, "--param", "x=1"], "x"),
        (vec!["run", "no/such/file.yaml"], "no/such/file.yaml"),
        (vec!["tasks", "test", dag, "frist"], "no task `frist`"),
        (vec!["runs", "list", "--state", "happy"], "queued, running"),
    ] {
        let output = run(&home, &args);
        assert_exit(&output, 1);
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_home_that_cannot_be_written_exits_2_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let dag = dag_file(folder.path(), HELLO);
    let output = run(Path::new("/dev/null/home"), &["run", dag.to_str().unwrap()]);
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("/dev/null/home"), "{}", stderr(&output));
}

/// Starts a run that waits, and returns once its task has begun.
fn start_waiting(home: &Path, folder: &Path) -> std::process::Child {
    let fifo = folder.join("began");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let dag = dag_file(
        folder,
        &format!(
            "dag_id: waits
tasks:
  - {{id: long, type: bash, command: 'echo $$ > {}; exec sleep 600'}}
",
            fifo.display()
        ),
    );
    let child = mainspring(home, &["run", dag.to_str().unwrap(), "--logical-date", "2026-01-01"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(fs::File::open(&fifo).unwrap()).read_line(&mut line).unwrap();
    fs::write(folder.join("pid"), line.trim()).unwrap();
    child
}

fn is_alive(folder: &Path) -> bool {
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

#[test]
fn ctrl_c_cancels_the_run_and_ends_its_program() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let child = start_waiting(&home, folder.path());
    assert!(is_alive(folder.path()));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_exit(&output, 1);
    assert!(stdout(&output).contains("cancelled"), "{}", stdout(&output));
    assert!(!is_alive(folder.path()), "the program outlived its run");
}

#[test]
fn two_processes_on_one_home_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let mut first = start_waiting(&home, folder.path());
    let second = run(&home, &["run", folder.path().join("dag.yaml").to_str().unwrap()]);
    assert_exit(&second, 2);
    let text = stderr(&second);
    assert!(text.contains(&first.id().to_string()) && text.contains("home"), "{text}");
    let listed = run(&home, &["runs", "list"]);
    assert_exit(&listed, 0);
    assert!(stdout(&listed).contains("running"), "{}", stdout(&listed));
    assert!(Command::new("kill").args(["-INT", &first.id().to_string()]).status().unwrap().success());
    first.wait().unwrap();
}

#[test]
fn a_killed_run_goes_on_with_the_same_command() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let dag = dag_file(
        folder.path(),
        "dag_id: survives
tasks:
  - {id: once, type: bash, command: 'echo x >> once.txt'}
  - {id: dies, type: bash, command: 'if [ ! -e died ]; then touch died; kill -9 $PPID; sleep 5; fi', depends_on: [once]}
",
    );
    let args = ["--output", "json", "run", dag.to_str().unwrap(), "--logical-date", "2026-01-01"];
    assert_eq!(run(&home, &args).status.code(), None, "the first process was killed");
    let output = run(&home, &args);
    assert_exit(&output, 0);
    let report = json(&output);
    assert_eq!(report["state"], "success");
    assert_eq!(report["tasks"][1]["try_number"], 1, "losing a worker uses no retry");
    assert_eq!(
        fs::read_to_string(folder.path().join("once.txt")).unwrap(),
        "x\n",
        "done work was not repeated"
    );
}

#[test]
fn a_program_gets_no_more_memory_and_files_than_its_task_allows() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "memory_limit: 512MiB, open_files_limit: 64";
    let dag = dag_file(
        folder.path(),
        &format!(
            "dag_id: limited
tasks:
  - {{id: shell, type: bash, {limits}, command: 'echo $(ulimit -v) $(ulimit -n)'}}
  - {{id: program, type: bash, {limits}, command: [sh, -c, 'echo $(ulimit -v) $(ulimit -n)']}}
"
        ),
    );
    let home = folder.path().join("home");
    let report = json(&run(&home, &["--output", "json", "run", dag.to_str().unwrap()]));
    let of = |task: &str| report["tasks"].as_array().unwrap().iter().find(|t| t["task_id"] == task).cloned();
    assert_eq!(of("shell").unwrap()["outputs"]["return_value"], "524288 64", "{report}");
    assert_eq!(of("program").unwrap()["outputs"]["return_value"], "524288 64", "{report}");
    let small = dag_file(
        folder.path(),
        "dag_id: small\ntasks: [{id: t, type: bash, command: 'true', memory_limit: 1MiB, open_files_limit: 3}]\n",
    );
    let output = run(&home, &["check", small.to_str().unwrap()]);
    assert_exit(&output, 1);
    let text = stdout(&output) + &stderr(&output);
    assert!(text.contains("16 MiB") && text.contains("16 open files"), "{text}");
}

#[test]
fn a_secret_is_hidden_in_logs_and_errors() {
    let folder = tempfile::tempdir().unwrap();
    let dag = dag_file(
        folder.path(),
        "dag_id: secretive
tasks:
  - {id: tells, type: bash, command: 'echo \"got $API_TOKEN of $PLAIN\"', env: {API_TOKEN: hunter2-and-more, PLAIN: everyone}}
",
    );
    let home = folder.path().join("home");
    assert_exit(&run(&home, &["run", dag.to_str().unwrap()]), 0);
    let log = stdout(&run(&home, &["tasks", "logs", "secretive", "tells"]));
    assert!(log.contains("got *** of everyone") && !log.contains("hunter2"), "{log}");
}
