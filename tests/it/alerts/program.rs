//! `mainspring alerts` and what `check` and the settings file say of routes, as a person meets them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::receivers::Catcher;

const FAILING: &str = "dag_id: sales
alerts: [oncall]
tasks:
  - {id: load, type: bash, command: 'echo no such table >&2; exit 3'}
";

fn mainspring(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainspring"))
        .current_dir(folder)
        .env_remove("MAINSPRING_HOME")
        .env("HOOK_SECRET", "x".repeat(32))
        .args(args)
        .output()
        .expect("the program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_alert_says_exactly_what_the_receiver_answered() {
    let mut catcher = Catcher::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "[alerts]\ndefault = 'oncall'\n[alerts.routes.oncall]\ntype = 'webhook'\nurl = '{}'\nsecret_env = 'HOOK_SECRET'\n",
        catcher.url
    );
    write(folder.path(), "mainspring.toml", &settings);
    let place = catcher.url.trim_end_matches("/hook").to_owned();
    let refused = mainspring(folder.path(), &["alerts", "test", "oncall"]);
    assert_eq!(refused.status.code(), Some(2));
    let words = text(&refused.stderr);
    assert!(words.contains("answered 503 Service Unavailable: come back later"), "{words}");
    let sent = mainspring(folder.path(), &["alerts", "test", "oncall"]);
    assert_eq!(sent.status.code(), Some(0), "{}", text(&sent.stderr));
    let expected = format!("route `oncall` to {place}: {place} answered 202 Accepted: thank you\n");
    assert_eq!(text(&sent.stdout), expected);
    let call = catcher.next().await;
    assert_eq!(call.json()["commonAnnotations"]["summary"], "this is a test: nothing failed");
    assert!(call.headers.contains_key("webhook-signature"));
    let unknown = mainspring(folder.path(), &["alerts", "test", "oncal"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("there is no alert route `oncal`"), "{}", text(&unknown.stderr));
}

#[test]
fn a_failed_run_leaves_a_problem_and_a_letter_that_list_shows_and_a_success_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "sales.yaml", FAILING);
    assert_eq!(mainspring(folder.path(), &["run", "sales.yaml"]).status.code(), Some(1));
    let json = |args: &[&str]| -> Value {
        let output = mainspring(folder.path(), args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    let list = json(&["alerts", "list", "--output", "json"]);
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list[0]["problem"], "sales/load/task_failed");
    assert_eq!(list[0]["state"], "open");
    assert!(list[0]["error"].as_str().unwrap().contains("no such table"), "{list}");
    assert_eq!(list[0]["deliveries"][0]["route"], "oncall");
    assert_eq!(list[0]["deliveries"][0]["state"], "pending");
    let table = text(&mainspring(folder.path(), &["alerts", "list"]).stdout);
    assert!(table.contains("sales/load/task_failed") && table.contains("oncall of open pending"), "{table}");
    write(folder.path(), "sales.yaml", &FAILING.replace("echo no such table >&2; exit 3", "true"));
    assert_eq!(mainspring(folder.path(), &["run", "sales.yaml"]).status.code(), Some(0));
    assert_eq!(text(&mainspring(folder.path(), &["alerts", "list"]).stdout), "no problem is open\n");
    assert_eq!(json(&["alerts", "list", "--all", "--output", "json"])[0]["state"], "resolved");
}

#[test]
fn check_names_every_route_that_is_not_declared() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "mainspring.toml", "[alerts.routes.oncall]\ntype = 'log'\n");
    let dag = "dag_id: sales
alerts: [oncal]
default_args: {alerts: [log, nobody]}
tasks:
  - {id: load, type: noop, alerts: [oncall, default]}
task_groups:
  - id: more
    tasks:
      - {id: last, type: noop, alerts: [pager]}
";
    write(folder.path(), "dags/sales.yaml", dag);
    let output = mainspring(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text(&output.stderr), @r##"
    error: dags/sales.yaml:2:10: there is no alert route `oncal`
    hint: did you mean `oncall`?
    error: dags/sales.yaml:3:30: there is no alert route `nobody`
    hint: declare it as [alerts.routes.nobody] in the settings file; there are `default`, `log` and `oncall`
    error: dags/sales.yaml:9:41: there is no alert route `pager`
    hint: declare it as [alerts.routes.pager] in the settings file; there are `default`, `log` and `oncall`
    3 problems in 1 file
    "##);
}

#[test]
fn everything_that_is_wrong_with_the_routes_is_said_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[alerts.routes.a]\ntype = 'webhok'\n[alerts.routes.b]\ntype = 'email'\nsmtp = 'mail'\n";
    write(folder.path(), "mainspring.toml", settings);
    let output = mainspring(folder.path(), &["alerts", "list"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text(&output.stderr), @r##"
    error: mainspring.toml: alert route `a`: there is no type `webhok`
    hint: did you mean `webhook`?
    error: mainspring.toml: alert route `b`: `smtp` is not the address of a mail server
    hint: smtp://user@mail.example:587, or smtps://user@mail.example
    error: mainspring.toml: alert route `b`: the key `from` is missing
    hint: from = "mainspring@example.com"
    error: mainspring.toml: alert route `b`: `to` names nobody
    hint: to = "name@example.com"
    "##);
}
