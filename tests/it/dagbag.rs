//! DAG files: what is accepted means what the page says; what is wrong earns its exact message, all at once.
//!
//! `tests/dagbag/bad/*.yaml` stand beside the text they earn (`.stderr`), `tests/dagbag/ok/*.yaml` beside what
//! they mean (`.txt`). `UPDATE_EXPECT=1 cargo test` writes both anew; the difference is then read like code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use mainspring::dagbag::{self, DagFile};

fn folder(name: &str) -> PathBuf {
    Path::new("tests/dagbag").join(name)
}

fn yaml_files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Compares with the text in `file`; answers the difference in words.
#[expect(clippy::disallowed_methods, reason = "the one switch of these tests")]
fn differs(actual: &str, file: &Path) -> Option<String> {
    if std::env::var("UPDATE_EXPECT").is_ok() {
        std::fs::write(file, actual).unwrap();
        return None;
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    (expected != actual).then(|| format!("--- {} expects\n{expected}--- but it is\n{actual}", file.display()))
}

fn meaning(file: &DagFile) -> String {
    let mut text = String::new();
    let dag = &file.dag;
    writeln!(text, "{}: {}", dag.id, file.schedule().describe()).unwrap();
    writeln!(text, "{:?}", dag.settings).unwrap();
    for task in dag.tasks() {
        writeln!(text, "- {} ({}) spec={} extra={}", task.id, task.kind, task.spec, task.extra).unwrap();
        writeln!(
            text,
            "    {} retry={:?} timeout={:?} pool={} when={:?} expand={:?}",
            task.trigger_rule, task.retry, task.execution_timeout, task.pool, task.when, task.expand
        )
        .unwrap();
    }
    for edge in dag.edges() {
        let (up, down) = (&dag.task(edge.upstream).id, &dag.task(edge.downstream).id);
        writeln!(text, "{up} -> {down} {:?}", edge.because).unwrap();
    }
    text
}

#[test]
fn every_wrong_file_earns_its_exact_messages() {
    let mut wrong = Vec::new();
    for path in yaml_files("bad") {
        let bag = dagbag::load_path(&path);
        assert!(!bag.problems.is_empty(), "{} has no problem", path.display());
        let text: String = bag.problems.iter().map(|problem| format!("{problem}\n")).collect();
        wrong.extend(differs(&text, &path.with_extension("stderr")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_right_file_means_what_its_text_says() {
    let mut wrong = Vec::new();
    for path in yaml_files("ok") {
        let bag = dagbag::load_path(&path);
        assert_eq!(bag.problems, [], "{}", path.display());
        let text: String = bag.dags.iter().map(meaning).collect();
        wrong.extend(differs(&text, &path.with_extension("txt")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_dag_is_rebuilt_from_its_source_alone() {
    for path in yaml_files("ok") {
        for file in dagbag::load_path(&path).dags {
            let again = dagbag::dag_from_source(&file.source).unwrap();
            assert_eq!(
                (&again.id, &again.hash, &again.settings),
                (&file.dag.id, &file.dag.hash, &file.dag.settings)
            );
            assert_eq!((again.tasks(), again.edges()), (file.dag.tasks(), file.dag.edges()));
        }
    }
}

#[test]
fn formatting_is_done_after_once_and_changes_no_meaning() {
    let mut changed = 0;
    for path in yaml_files("ok") {
        let text = std::fs::read_to_string(&path).unwrap();
        let formatted = dagbag::format_text(&text).unwrap();
        changed += usize::from(formatted != text);
        assert_eq!(dagbag::format_text(&formatted).unwrap(), formatted, "{}", path.display());
        let hashes = |text: &str| {
            let (files, problems) = dagbag::load_text(text);
            assert_eq!(problems, []);
            files.into_iter().map(|file| file.dag.hash).collect::<Vec<_>>()
        };
        assert_eq!(hashes(&formatted), hashes(&text), "{}", path.display());
    }
    assert!(changed > 0, "no file holds anything to format");
}

#[test]
fn formatting_keeps_comments_quotes_and_long_texts() {
    let text = "name: f   # who\nsteps:\n  - {task_id: 'a', kind: bash, command: \"echo  \"}\n  - id: b\n    type: bash\n    needs: [a]\n    command: |\n      echo 1  \n      id: x\nowner: me  \n\n\n";
    let formatted = dagbag::format_text(text).unwrap();
    assert_eq!(
        formatted,
        "dag_id: f   # who\ntasks:\n  - {id: 'a', type: bash, command: \"echo  \"}\n  - id: b\n    type: bash\n    depends_on: [a]\n    command: |\n      echo 1  \n      id: x\nowner: me\n"
    );
}

#[test]
fn a_broken_file_or_document_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", "dag_id: a\ntasks: [{id: t, type: noop}]\n");
    write("b.yaml", "dag_id: b\ntasks: [\n---\ndag_id: c\ntasks: [{id: t, type: noop}]\n");
    write("c.yml", "dag_id: a\ntasks: [{id: t, type: noop}]\n");
    write("d.yaml", "");
    std::fs::write(folder.path().join("e.yaml"), [0xff, 0xfe]).unwrap();
    write("ignored.txt", "dag_id: x");
    let bag = dagbag::load_path(folder.path());
    let names: Vec<String> = bag.dags.iter().map(|file| file.dag.id.to_string()).collect();
    assert_eq!(names, ["a", "c"]);
    let whats: Vec<&str> = bag.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(
        whats,
        [
            "the `[` opened here is not closed",
            "two DAGs are called `a`",
            "the file is empty",
            "the file is not UTF-8 text (line 1)"
        ]
    );
}

#[test]
fn a_hundred_thousand_tasks_are_accepted() {
    let mut text = "dag_id: huge\ntasks:\n".to_owned();
    for n in 0..100_000 {
        writeln!(text, "  - {{id: t{n}, type: noop, depends_on: [t{}]}}", n / 2).unwrap();
    }
    let text = text.replace("t0, type: noop, depends_on: [t0]", "t0, type: noop");
    let (files, problems) = dagbag::load_text(&text);
    assert_eq!(problems, []);
    assert_eq!(files[0].dag.tasks().len(), 100_000);
}

#[test]
fn a_deep_file_is_refused_with_its_place() {
    let text =
        format!("dag_id: deep\nparams: {{p: {}{}}}\ntasks: []\n", "[".repeat(5_000), "]".repeat(5_000));
    let (_, problems) = dagbag::load_text(&text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].place.line, 2);
}

#[test]
fn params_of_a_run_are_those_given_and_defaults() {
    let text = "dag_id: p\nparams:\n  n: {type: integer, default: 8, maximum: 20}\n  city: {type: string, enum: [Berlin, '7']}\n  free: [1]\ntasks: [{id: t, type: noop}]\n";
    let (files, problems) = dagbag::load_text(text);
    assert_eq!(problems, []);
    let resolve = |given: serde_json::Value| files[0].resolve_params(given.as_object().unwrap());
    let values = resolve(serde_json::json!({"city": 7})).unwrap();
    assert_eq!(serde_json::Value::Object(values), serde_json::json!({"n": 8, "city": "7", "free": [1]}));
    let texts = |given| resolve(given).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        texts(serde_json::json!({"n": 21, "citi": "Rome"})),
        [
            "error: unknown parameter `citi`\nhint: did you mean `city`?",
            "error: the parameter `n` is `21`, expected at most 20",
            "error: the parameter `city` has no default and was not given"
        ]
    );
}

#[test]
fn a_run_by_hand_stands_for_the_last_whole_interval() {
    let interval = |schedule: &str, zone: &str| {
        let text =
            format!("dag_id: i\nschedule: {schedule}\ntimezone: {zone}\ntasks: [{{id: t, type: noop}}]\n");
        let (files, problems) = dagbag::load_text(&text);
        assert_eq!(problems, []);
        let at = mainspring::core::ids::Timestamp::parse("2026-01-31T12:00:00Z").unwrap();
        let (start, end) = files[0].data_interval(at);
        format!("{start} {end}")
    };
    assert_eq!(interval("'0 2 * * *'", "Europe/Berlin"), "2026-01-30T01:00:00Z 2026-01-31T01:00:00Z");
    assert_eq!(interval("'@monthly'", "UTC"), "2025-12-01T00:00:00Z 2026-01-01T00:00:00Z");
    assert_eq!(interval("{every: 15m}", "UTC"), "2026-01-31T11:45:00Z 2026-01-31T12:00:00Z");
}

#[test]
fn the_schema_knows_every_kind_and_every_key() {
    let schema = dagbag::file_schema();
    let kinds = schema["$defs"]["Task"]["oneOf"].as_array().unwrap();
    assert_eq!(kinds.len(), mainspring::tasks::KINDS.len());
    for key in ["dag_id", "schedule", "params", "default_args", "tasks", "task_groups", "steps"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    for key in ["id", "type", "retries", "depends_on", "needs", "expand"] {
        assert!(kinds[0]["properties"][key].is_object(), "{key}");
    }
}
