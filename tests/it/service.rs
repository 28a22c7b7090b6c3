//! The service as people meet it: a real server, and the command line beside it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mainspring::core::ids::{DagId, RunId, RunKey};
use mainspring::core::state::TaskState;
use mainspring::store::{RunFilter, Store};
use serde_json::Value;

/// Long enough for whatever a test waits for on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// `mainspring serve` on a home and a DAG folder of its own.
pub(crate) struct Served {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) child: Child,
    lines: mpsc::Receiver<String>,
    /// Lines that came before the server said that it serves: DAGs may be taken up by then.
    early: RefCell<VecDeque<String>>,
    database: Vec<String>,
}

impl Served {
    fn start(dags: &str, slots: u32) -> Self {
        Self::start_with(dags, slots, None)
    }

    /// With its state in this database, if one is given. A write over a limit of files is an error to it and not
    /// its end.
    pub(crate) fn start_with(dags: &str, slots: u32, database: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("dags")).unwrap();
        fs::write(folder.path().join("dags/all.yaml"), dags).unwrap();
        fs::write(folder.path().join("mainspring.toml"), "[pools]\ndb = 1\n").unwrap();
        let database: Vec<String> =
            database.into_iter().flat_map(|url| ["--database".to_owned(), url.to_owned()]).collect();
        let program = Self::program(folder.path());
        let mut child = Command::new("sh")
            .args(["-c", r#"trap "" XFSZ; exec "$@""#, "sh"])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(folder.path())
            .env_remove("MAINSPRING_HOME")
            .args(&database)
            .args(["--slots", &slots.to_string(), "serve", "--listen", "127.0.0.1:0"])
            .env("MAINSPRING_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        let served = Self { folder, child, lines, early: RefCell::default(), database };
        let mut early = VecDeque::new();
        let serves = served.until_line(|line| {
            early.push_back(line.to_owned());
            line.contains("mainspring serves")
        });
        assert!(serves, "the server never said that it serves");
        served.early.replace(early);
        served
    }

    fn program(folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainspring"));
        command.current_dir(folder).env_remove("MAINSPRING_HOME").args(["--home", "home", "--dags", "dags"]);
        command
    }

    /// Waits for a line of the server's log.
    pub(crate) fn until_said(&self, text: &str) {
        assert!(self.until_line(|line| line.contains(text)), "the server never said `{text}`");
    }

    /// Reads lines of the log up to the first that is `wanted`; whether there was one.
    fn until_line(&self, mut wanted: impl FnMut(&str) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let next = || {
            let early = self.early.borrow_mut().pop_front();
            early.or_else(|| self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok())
        };
        std::iter::from_fn(next).any(|line| wanted(&line))
    }

    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        Self::program(self.folder.path()).args(&self.database).args(args).output().unwrap()
    }

    pub(crate) fn text(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(args);
        serde_json::from_str(&self.text(&all)).unwrap()
    }

    /// Asks again and again until the answer has `text` in it.
    pub(crate) fn until(&self, args: &[&str], text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.text(args);
            if answer.contains(text) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{args:?} never answered `{text}`, at last:\n{answer}");
        }
    }

    /// A pipe with a name: a task that reads from it runs until [`let_go`](Self::let_go).
    pub(crate) fn pipe(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    pub(crate) fn let_go(&self, pipe: &Path) {
        fs::write(pipe, "go\n").unwrap();
    }

    async fn reader(&self) -> Store {
        let url = format!("sqlite://{}", self.folder.path().join("home/mainspring.db").display());
        Store::open_reader(&url).await.unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn key(dag_id: &str, run_id: &str) -> RunKey {
    RunKey { dag_id: DagId::parse(dag_id).unwrap(), run_id: RunId::parse(run_id).unwrap() }
}

const WAITING: &str = "dag_id: upstream
tasks:
  - {id: slow, type: bash, command: 'read x < ../one'}
  - {id: after, type: noop, depends_on: [slow]}
---
dag_id: pool
tasks:
  - {id: first, type: bash, command: 'read x < ../two', pool: db, priority_weight: 9}
  - {id: second, type: noop, pool: db}
---
dag_id: runs
max_active_runs: 1
tasks:
  - {id: slow, type: bash, command: 'read x < ../three'}
---
dag_id: tasks
tasks:
  - {id: each, type: bash, command: 'read x < ../four', expand: [1, 2], max_active_tis_per_dagrun: 1}
---
dag_id: retry
tasks:
  - {id: fails, type: bash, command: 'exit 3', retries: 1, retry_delay: 1h}
---
dag_id: paused
tasks:
  - {id: idle, type: noop}
---
dag_id: past
tasks:
  - {id: careful, type: bash, command: 'exit 3', depends_on_past: true}
---
dag_id: sensor
tasks:
  - {id: there, type: sensor, file: never, poke_interval: 1h}
";

#[test]
fn why_says_what_each_task_waits_for() {
    let served = Served::start(WAITING, 16);
    for name in ["one", "two", "three", "four"] {
        served.pipe(name);
    }
    for _ in 0..8 {
        served.until_said("the DAG is taken up");
    }
    served.text(&["dags", "pause", "paused"]);
    for dag in ["upstream", "pool", "runs", "tasks", "retry", "paused", "past", "sensor"] {
        served.text(&["dags", "trigger", dag, "--logical-date", "2026-01-01", "--run-id", "one"]);
    }
    served.until(&["runs", "show", "past", "one"], "failed");
    served.until(&["runs", "show", "runs", "one"], "running");
    for dag in ["runs", "past"] {
        served.text(&["dags", "trigger", dag, "--logical-date", "2026-01-02", "--run-id", "two"]);
    }
    for (dag, run, task, reason) in [
        ("upstream", "one", "after", "`slow`"),
        ("pool", "one", "second", "pool `db`: 1 of 1"),
        ("runs", "two", "slow", "`max_active_runs` is 1"),
        ("tasks", "one", "each", "max_active_tis_per_dagrun"),
        ("retry", "one", "fails", "attempt 1 of 2 failed"),
        ("paused", "one", "idle", "paused"),
        ("past", "two", "careful", "depends_on_past"),
        ("sensor", "one", "there", "asked to be continued"),
    ] {
        served.until(&["runs", "why", dag, run, "--task", task], reason);
    }
}

#[test]
fn a_run_keeps_the_version_of_its_dag() {
    let before = "dag_id: edited
tasks:
  - {id: a, type: bash, command: 'read x < ../gate'}
  - {id: b, type: bash, command: 'echo version one', depends_on: [a]}
";
    let after = "dag_id: edited
tasks:
  - {id: b, type: bash, command: 'echo version two'}
  - {id: c, type: noop, depends_on: [b]}
";
    let served = Served::start(before, 4);
    let gate = served.pipe("gate");
    served.until_said("the DAG is taken up");
    served.text(&["dags", "trigger", "edited", "--run-id", "first"]);
    served.until(&["runs", "show", "edited", "first"], "running");
    fs::write(served.folder.path().join("dags/all.yaml"), after).unwrap();
    served.until_said("the DAG is taken up");
    served.text(&["dags", "trigger", "edited", "--run-id", "second"]);
    served.let_go(&gate);
    let names = |run: &str| {
        served.until(&["runs", "show", "edited", run], &format!("edited {run}: success"));
        let report = served.json(&["runs", "show", "edited", run]);
        let tasks = report["tasks"].as_array().unwrap();
        let mut names: Vec<_> =
            tasks.iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names("first"), ["a", "b"]);
    assert_eq!(names("second"), ["b", "c"]);
    let log = |run: &str| served.text(&["tasks", "logs", "edited", "b", "--run-id", run]);
    assert!(log("first").contains("version one"), "{}", log("first"));
    assert!(log("second").contains("version two"), "{}", log("second"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_replaced_by_garbage_or_deleted_leaves_the_last_good_version_or_its_runs() {
    let served =
        Served::start("dag_id: kept\ntasks:\n  - {id: a, type: bash, command: 'read x < ../gate'}\n", 4);
    let gate = served.pipe("gate");
    served.until_said("the DAG is taken up");
    let file = served.folder.path().join("dags/all.yaml");
    fs::write(&file, "dag_id: [what\n").unwrap();
    served.until_said("its last good version stays");
    served.text(&["dags", "trigger", "kept", "--run-id", "one"]);
    served.until(&["runs", "show", "kept", "one"], "running");
    fs::remove_file(&file).unwrap();
    served.until_said("the DAG has no file any more");
    served.let_go(&gate);
    served.until(&["runs", "show", "kept", "one"], "kept one: success");
    let row = served.reader().await.dag(&DagId::parse("kept").unwrap()).await.unwrap().unwrap();
    assert!(!row.present);
}

#[test]
fn clearing_a_running_task_ends_its_program_and_runs_it_again() {
    use std::os::unix::fs::OpenOptionsExt;
    const O_NONBLOCK: i32 = 0o4000;
    let served = Served::start(
        "dag_id: again
tasks:
  - {id: a, type: bash, command: 'test -e ../been && exit 0; touch ../been; read x < ../gate'}
",
        2,
    );
    let gate = served.pipe("gate");
    served.until_said("the DAG is taken up");
    served.text(&["dags", "trigger", "again", "--run-id", "one"]);
    // Nobody can write to a pipe that nobody reads from.
    let is_read = || fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&gate).is_ok();
    let began = Instant::now();
    while !is_read() {
        assert!(began.elapsed() < PATIENCE, "the program never began");
    }
    served.text(&["runs", "clear", "again", "one"]);
    served.until(&["runs", "show", "again", "one"], "again one: success");
    let began = Instant::now();
    while is_read() {
        assert!(began.elapsed() < PATIENCE, "the program of the cleared attempt goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_does_exactly_what_its_dry_run_lists() {
    let served = Served::start(
        "dag_id: diamond
tasks:
  - {id: a, type: noop}
  - {id: b, type: noop, depends_on: [a]}
  - {id: c, type: noop, depends_on: [a]}
  - {id: d, type: noop, depends_on: [b, c]}
",
        4,
    );
    served.until_said("the DAG is taken up");
    served.text(&["dags", "trigger", "diamond", "--run-id", "one", "--wait"]);
    let clear = ["runs", "clear", "diamond", "one", "--task", "b", "--downstream"];
    let planned = served.json(&[&clear[..], &["--dry-run"]].concat());
    let cleared = |rows: &Value| -> Vec<String> {
        rows.as_array().unwrap().iter().map(|row| row["task_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(cleared(&planned), ["b", "d"]);
    let store = served.reader().await;
    let generations = async || {
        let rows = store.task_instances(&key("diamond", "one")).await.unwrap();
        rows.into_iter().map(|row| row.instance.generation).collect::<Vec<_>>()
    };
    assert_eq!(generations().await, [0, 0, 0, 0], "a dry run changes nothing");
    assert_eq!(served.json(&clear), planned);
    served.until(&["runs", "show", "diamond", "one"], "diamond one: success");
    assert_eq!(generations().await, [0, 1, 0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_of_a_year_ends_and_lets_others_go_first() {
    let served = Served::start(
        "dag_id: daily
schedule: '0 0 * * *'
tasks:
  - {id: a, type: noop}
  - {id: b, type: noop, depends_on: [a]}
  - {id: c, type: noop, depends_on: [a]}
  - {id: d, type: noop, depends_on: [b, c]}
  - {id: e, type: noop, depends_on: [d]}
---
dag_id: urgent
tasks:
  - {id: a, type: noop}
  - {id: b, type: noop, depends_on: [a]}
  - {id: c, type: noop, depends_on: [b]}
",
        1,
    );
    served.until_said("the DAG is taken up");
    served.until_said("the DAG is taken up");
    let backfill = ["dags", "backfill", "daily", "--from", "2025-01-01", "--to", "2025-12-31"];
    let nothing = served.cli(&[
        "dags",
        "backfill",
        "daily",
        "--from",
        "2025-01-01T01:00:00Z",
        "--to",
        "2025-01-01T02:00:00Z",
    ]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("there is nothing to backfill"));
    let plan = served.json(&[&backfill[..], &["--dry-run"]].concat());
    assert_eq!(plan.as_array().unwrap().len(), 365);
    let store = served.reader().await;
    assert!(store.runs(&RunFilter::default(), 1).await.unwrap().is_empty(), "a dry run creates nothing");
    assert_eq!(served.json(&backfill), plan);
    served.text(&["dags", "trigger", "urgent", "--run-id", "now", "--wait"]);
    let urgent = store.task_instances(&key("urgent", "now")).await.unwrap();
    let first = urgent.iter().map(|row| row.instance.started_at.unwrap()).min().unwrap();
    let last = urgent.iter().map(|row| row.instance.started_at.unwrap()).max().unwrap();
    let filter = RunFilter { dag_id: Some(DagId::parse("daily").unwrap()), state: None };
    let deadline = Instant::now() + PATIENCE;
    let mut seen_open = false;
    loop {
        let runs = store.runs(&filter, 1000).await.unwrap();
        assert_eq!(runs.len(), 365);
        let open = runs.iter().filter(|run| !run.state.is_final()).count();
        seen_open |= open > 0;
        if open == 0 {
            assert!(runs.iter().all(|run| run.state.as_str() == "success"));
            break;
        }
        assert!(Instant::now() < deadline, "{open} runs are still open");
    }
    assert!(seen_open, "the backfill was over before the urgent run came: nothing was shown");
    for day in plan.as_array().unwrap() {
        for row in store.task_instances(&key("daily", day["run_id"].as_str().unwrap())).await.unwrap() {
            assert_eq!(row.instance.state, TaskState::Success);
            let began = row.instance.started_at.unwrap();
            assert!(began <= first || began >= last, "{} began amid the urgent run", row.task_id);
        }
    }
}

#[test]
fn a_run_that_waits_for_its_past_lets_the_cleared_run_before_it_go_first() {
    let served = Served::start(
        "dag_id: past
max_active_runs: 1
tasks:
  - {id: careful, type: bash, command: 'test -e ../mended', depends_on_past: true}
",
        4,
    );
    served.until_said("the DAG is taken up");
    let trigger = |day: &str, run: &str| {
        served.text(&["dags", "trigger", "past", "--logical-date", day, "--run-id", run]);
    };
    trigger("2026-01-01", "one");
    served.until(&["runs", "show", "past", "one"], "past one: failed");
    trigger("2026-01-02", "two");
    trigger("2026-01-03", "three");
    served.until(&["runs", "why", "past", "two"], "`careful` is `failed` there and `depends_on_past` is set");
    served.until(&["runs", "why", "past", "three"], "`max_active_runs` is 1");
    fs::write(served.folder.path().join("mended"), "").unwrap();
    served.text(&["runs", "clear", "past", "one"]);
    for run in ["one", "two", "three"] {
        served.until(&["runs", "show", "past", run], &format!("past {run}: success"));
    }
}

#[test]
fn missed_runs_that_depend_on_the_past_are_made_up_for_one_after_the_other() {
    let hours_ago = mainspring::engine::now().minus(Duration::from_secs(20 * 3600));
    let served = Served::start(
        &format!(
            "dag_id: past
schedule: '0 * * * *'
start_date: {hours_ago}
catchup: true
tasks:
  - {{id: careful, type: noop, depends_on_past: true}}
"
        ),
        4,
    );
    let began = Instant::now();
    let states = || {
        let runs = served.json(&["runs", "list", "past"]);
        let states = runs.as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap().to_owned());
        states.collect::<Vec<_>>()
    };
    while !(states().len() >= 20 && states().iter().all(|state| state == "success")) {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", states());
    }
}

#[test]
fn a_backwards_backfill_of_tasks_that_depend_on_the_past_is_refused() {
    let served = Served::start(
        "dag_id: past\nschedule: '@daily'\ntasks:\n  - {id: careful, type: noop, depends_on_past: true}\n",
        1,
    );
    served.until_said("the DAG is taken up");
    let backfill = ["dags", "backfill", "past", "--from", "2025-01-01", "--to", "2025-01-03", "--backwards"];
    let refused = served.cli(&backfill);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("`careful` depends on the run before, so the newest interval cannot begin"),
        "{said}"
    );
    assert!(said.contains("hint: backfill forwards"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_with_latest_carries_the_run_over_to_the_newest_version() {
    let version = |b: &str| {
        format!(
            "dag_id: edited\ntasks:\n  - {{id: a, type: noop}}\n{b}  - {{id: d, type: noop, depends_on: [a]}}\n"
        )
    };
    let served = Served::start(&version("  - {id: b, type: bash, command: 'exit 3', depends_on: [a]}\n"), 4);
    let edit = |text: &str| {
        fs::write(served.folder.path().join("dags/all.yaml"), text).unwrap();
        served.until_said("the DAG is taken up");
    };
    served.until_said("the DAG is taken up");
    served.text(&["dags", "trigger", "edited", "--run-id", "one"]);
    served.until(&["runs", "show", "edited", "one"], "edited one: failed");
    edit(&version(
        "  - {id: b, type: bash, command: 'echo version two', depends_on: [a]}\n  - {id: c, type: bash, command: 'read x < ../gate', depends_on: [b]}\n",
    ));
    let gate = served.pipe("gate");
    let clear = ["runs", "clear", "edited", "one", "--only-failed", "--latest"];
    let planned = served.json(&[&clear[..], &["--dry-run"]].concat());
    let rows: Vec<_> =
        planned.as_array().unwrap().iter().map(|row| (&row["task_id"], &row["state"])).collect();
    assert_eq!(rows, [(&"b".into(), &"failed".into()), (&"c".into(), &"none".into())]);
    assert_eq!(served.json(&clear), planned);
    served.until(&["runs", "why", "edited", "one", "--task", "c"], "a worker is at it");
    served.let_go(&gate);
    served.until(&["runs", "show", "edited", "one"], "edited one: success");
    let log = served.text(&["tasks", "logs", "edited", "b", "--run-id", "one"]);
    assert!(log.contains("version two"), "{log}");
    // A task that leaves the run and comes back counts its fences on: its earlier attempts stay in the history.
    let store = served.reader().await;
    let fence = async || {
        let rows = store.task_instances(&key("edited", "one")).await.unwrap();
        rows.into_iter().find(|row| row.task_id.as_str() == "b").map(|row| row.instance.fence.0)
    };
    let before = fence().await.unwrap();
    edit(&version(""));
    served.text(&["runs", "clear", "edited", "one", "--latest", "--task", "d"]);
    served.until(&["runs", "show", "edited", "one"], "edited one: success");
    assert_eq!(fence().await, None);
    edit(&version("  - {id: b, type: bash, command: 'echo version four', depends_on: [a]}\n"));
    served.text(&["runs", "clear", "edited", "one", "--latest", "--task", "d"]);
    served.until(&["runs", "show", "edited", "one"], "edited one: success");
    assert!(fence().await.unwrap() > before);
    let log = served.text(&["tasks", "logs", "edited", "b", "--run-id", "one"]);
    assert!(log.contains("version four"), "{log}");
}

#[test]
fn a_run_that_has_not_ended_is_not_carried_over() {
    let slow = |id: &str| {
        format!("dag_id: slow\ntasks:\n  - {{id: {id}, type: bash, command: 'read x < ../gate'}}\n")
    };
    let served = Served::start(&slow("a"), 4);
    let gate = served.pipe("gate");
    served.until_said("the DAG is taken up");
    served.text(&["dags", "trigger", "slow", "--run-id", "one"]);
    served.until(&["runs", "why", "slow", "one"], "a worker is at it");
    fs::write(served.folder.path().join("dags/all.yaml"), slow("b")).unwrap();
    served.until_said("the DAG is taken up");
    let refused = served.cli(&["runs", "clear", "slow", "one", "--latest"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("the run one is `running`: it takes the newest version of its DAG only when"),
        "{said}"
    );
    served.let_go(&gate);
    served.until(&["runs", "show", "slow", "one"], "slow one: success");
}
