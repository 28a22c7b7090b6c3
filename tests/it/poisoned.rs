//! A poisoned input through the program itself: the gate holds, what was served stays, somebody is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::cli::root;

/// The shop of the example, every third customer of it.
struct Shop {
    folder: tempfile::TempDir,
    head: String,
    rows: Vec<String>,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dags = root().join("dags");
        fs::create_dir_all(folder.path().join("dags/data")).unwrap();
        for file in ["customer_segments.yaml", "segment_health.yaml"] {
            fs::copy(dags.join(file), folder.path().join("dags").join(file)).unwrap();
        }
        let text = fs::read_to_string(dags.join("data/cdnow_master.csv")).unwrap();
        let (head, rows) = text.split_once('\n').unwrap();
        let third = |row: &&str| row.split(',').next().unwrap().parse::<u64>().unwrap() % 3 == 0;
        let rows = rows.lines().filter(third).map(str::to_owned).collect();
        Self { head: head.to_owned(), rows, folder }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Writes the purchases, each as `change` has it.
    fn sell(&self, change: impl Fn(usize, &str) -> String) {
        let rows: Vec<String> = self.rows.iter().enumerate().map(|(at, row)| change(at, row)).collect();
        let text = format!("{}\n{}\n", self.head, rows.join("\n"));
        fs::write(self.folder.path().join("dags/data/cdnow_master.csv"), text).unwrap();
    }

    fn mainspring(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mainspring"))
            .env_remove("MAINSPRING_HOME")
            .arg("--home")
            .arg(self.home())
            .arg("--dags")
            .arg(self.folder.path().join("dags"))
            .args(args)
            .output()
            .expect("the program can be started")
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.mainspring(&[&["--output", "json"], args].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn run(&self, day: &str) -> Value {
        self.json(&["run", "customer_segments", "--logical-date", day])
    }

    /// What a visitor of the shop is served from: the model, and the table of the warehouse.
    fn served(&self) -> (Value, String) {
        let models = self.json(&["models", "list"]);
        (models[0]["current"].clone(), table(&self.home()))
    }
}

fn table(home: &Path) -> String {
    let sql = "SELECT customer_id || ':' || segment_id || ':' || run_id FROM customer_segments ORDER BY customer_id";
    let python =
        "import sqlite3, sys\nfor r in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(r[0])";
    let output = Command::new("python3")
        .args(["-c", python, home.join("warehouse.db").to_str().unwrap(), sql])
        .output()
        .expect("python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn task<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["tasks"].as_array().unwrap().iter().find(|task| task["task_id"] == id).unwrap()
}

/// An amount (the last value of a row) times 100.
fn times_100(row: &str) -> String {
    let (rest, amount) = row.rsplit_once(',').unwrap();
    format!("{rest},{:.2}", amount.parse::<f64>().unwrap() * 100.0)
}

#[test]
fn poison_is_blocked_the_served_stays_and_the_results_say_why() {
    let shop = Shop::new();
    shop.sell(|_, row| row.to_owned());
    let report = shop.run("2026-01-01");
    assert_eq!(report["state"], "success", "{report}");
    let served = shop.served();
    assert_eq!(served.1.lines().count(), 7_856);
    let health = shop.json(&["run", "segment_health", "--logical-date", "2026-01-01"]);
    assert_eq!(task(&health, "customers")["state"], "success", "{health}");

    // Half of the amounts times 100.
    shop.sell(|at, row| if at % 2 == 0 { times_100(row) } else { row.to_owned() });
    let report = shop.run("2026-01-02");
    assert_eq!(report["state"], "failed", "{report}");
    let drifted = &task(&report, "features_ok")["outputs"]["alerts"];
    assert!(drifted.to_string().contains("drift(psi) of monetary"), "{report}");
    let gate = task(&report, "gate");
    assert_eq!(
        (&gate["state"], &task(&report, "publish")["state"]),
        (&"failed".into(), &"upstream_failed".into())
    );
    let error = gate["error"].as_str().unwrap();
    assert!(error.contains("stability(ari)") && error.contains("is blocked: version"), "{error}");
    assert_eq!(shop.served(), served);
    let shown = shop.json(&["models", "show", "customers"]);
    assert_eq!((&shown["version"], &shown["current"]), (&served.0, &true.into()));
    assert_eq!(shown["stale_since"], "2026-01-02T00:00:00Z");

    // No purchases at all.
    let empty = format!("{}\n", shop.head);
    fs::write(shop.folder.path().join("dags/data/cdnow_master.csv"), empty).unwrap();
    let report = shop.run("2026-01-03");
    assert_eq!(report["state"], "failed", "{report}");
    let error = task(&report, "features_ok")["error"].to_string();
    assert!(error.contains("no_data"), "{report}");
    assert_eq!(shop.served(), served);

    // Every failure has told somebody: a problem is open for each, and its letter is written.
    let sql = "SELECT group_concat(p.problem_key, ' ') FROM problem p JOIN outbox o ON o.problem_no = p.problem_no \
         WHERE p.state = 'open' AND o.event = 'open'";
    let python =
        "import sqlite3, sys\nprint(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0])";
    let output = Command::new("python3")
        .args(["-c", python, shop.home().join("mainspring.db").to_str().unwrap(), sql])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for key in [
        "customer_segments/gate/gate_blocked",
        "customer_segments/features_ok/shift",
        "customer_segments/features_ok/task_failed",
    ] {
        assert!(told.contains(key), "{key} is not in {told}");
    }

    // A person may overrule the gate, and come back.
    let blocked = shop.json(&["models", "diff", "customers"])["new"].as_str().unwrap().to_owned();
    let forced = shop.mainspring(&["models", "promote", "customers", &blocked, "--reason", "a sale"]);
    assert!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
    assert_eq!(shop.served().0, blocked);
    let history = shop.json(&["models", "show", "customers"])["history"].to_string();
    assert!(history.contains("\"forced\"") && history.contains("a sale"), "{history}");
    let unknown = shop.mainspring(&["models", "promote", "customers", "0000000000000000", "--reason", "x"]);
    assert_eq!(unknown.status.code(), Some(1));
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(text.contains("has no version `0000000000000000`"), "{text}");
}
