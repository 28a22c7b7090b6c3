//! DAG files: what is accepted means what the page says; what is wrong earns its exact message, all at once.
//!
//! `tests/dagbag/bad/*.yaml` stand beside the text they earn (`.stderr`), `tests/dagbag/ok/*.yaml` beside what
//! they mean (`.txt`). `UPDATE_EXPECT=1 cargo test` writes both anew; the difference is then read like code.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use mainspring::core::dag::{Because, Expand};
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
    writeln!(text, "{}: {}", dag.id, file.schedule.describe()).unwrap();
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
