//! Files: formats, guessing, duplicates, and everything that can be wrong with one.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use mainspring::tasks::TaskError;
use serde_json::json;

use super::{World, problems};

#[tokio::test]
async fn wrong_input_fails_with_file_line_and_what_was_expected_and_publishes_nothing() {
    let world = World::new();
    world.file("ragged.csv", "a,b\n1,2\n3\n");
    world.file("utf8.csv", b"a,b\n1,x\xff\n");
    world.file("type.csv", "a,b\n1,2\nx,3\n");
    world.file("empty.csv", "");
    world.file("twice.csv", "a,a\n1,2\n");
    world.file("lines.jsonl", "{\"a\": 1}\n[2]\n{\"a\": \"x\"}\nnonsense\n");
    world.file("text.parquet", "this is no parquet");
    world.file("broken.csv.gz", "this is no gzip");
    let typed = json!({"a": "integer"});
    for (from, schema, words) in [
        (json!({"file": "raged.csv"}), json!({}), "there is no file `raged.csv`"),
        (json!({"file": "raged.csv"}), json!({}), "did you mean `ragged.csv`?"),
        (json!({"file": "x/*.csv"}), json!({}), "`x/*.csv` matches no file"),
        (json!({"file": ["ragged.csv", "nowhere.csv"]}), json!({}), "there is no file `nowhere.csv`"),
        (json!({"file": "ragged.csv"}), json!({}), "ragged.csv:3: the record has 1 fields, expected 2"),
        (
            json!({"file": "ragged.csv"}),
            json!({}),
            "1 of 2 records are bad, `quarantine.max_share` allows 0.01",
        ),
        (json!({"file": "utf8.csv"}), json!({}), "utf8.csv:2: column `b` is not UTF-8"),
        (json!({"file": "type.csv"}), typed.clone(), "type.csv:3: column `a`: `x` is no integer"),
        (json!({"file": "type.csv"}), json!({"aa": "text"}), "`schema` names the column `aa`"),
        (json!({"file": "empty.csv"}), json!({}), "`empty.csv` is empty"),
        (json!({"file": "twice.csv"}), json!({}), "twice.csv:1: the column `a` occurs twice"),
        (json!({"file": "lines.jsonl"}), typed, "lines.jsonl:2: the record is no JSON object"),
        (json!({"file": "text.parquet"}), json!({}), "`text.parquet` cannot be read as Parquet"),
        (json!({"file": "broken.csv.gz"}), json!({}), "`broken.csv.gz`: "),
    ] {
        let settings = json!({"from": from, "into": "raw.x", "schema": schema});
        let error = world.ingest(settings).await.expect_err(words);
        assert!(matches!(error, TaskError::Permanent(_)), "{words}: {error:?}");
        assert!(error.to_string().contains(words), "expected `{words}` in: {error}");
    }
    assert!(world.shared.lake.list().await.unwrap().is_empty(), "nothing was published");
}

#[tokio::test]
async fn bad_records_within_the_allowance_are_kept_and_replaced_by_a_clean_run() {
    let world = World::new();
    world.file("a.csv", "a,b\n1,2\n3\nx,4\n5,6\n");
    let settings = json!({
        "from": {"file": "a.csv"}, "into": "raw.a", "schema": {"a": "integer", "b": "integer"},
        "quarantine": {"max_share": 0.5},
    });
    let outputs = world.ingest(settings.clone()).await.unwrap();
    assert_eq!((&outputs["rows"], &outputs["quarantined"]), (&json!(2), &json!(2)));
    let kept = "SELECT run_id, source, line, raw, class FROM raw.a__quarantine ORDER BY line";
    assert_eq!(world.ask(kept).await, "run1 a.csv 3 3 ragged; run1 a.csv 4 x,4 type");
    world.file("a.csv", "a,b\n1,2\n");
    world.ingest(settings).await.unwrap();
    assert_eq!(world.ask(kept).await, "");
}

#[tokio::test]
async fn one_record_per_key_stays_the_first_or_the_last() {
    let world = World::new();
    world.file("a.csv", "k,n\na,1\nb,2\na,3\n,4\n");
    for (keep, expected) in [("first", "a 1; b 2"), ("last", "a 3; b 2")] {
        let settings = json!({
            "from": {"file": "a.csv"}, "into": "raw.a", "dedupe": {"key": ["k"], "keep": keep},
            "quarantine": {"max_share": 0.3},
        });
        let outputs = world.ingest(settings).await.unwrap();
        assert_eq!((&outputs["duplicates_dropped"], &outputs["quarantined"]), (&json!(1), &json!(1)));
        assert_eq!(world.ask("SELECT * FROM raw.a ORDER BY k").await, expected);
    }
}

#[tokio::test]
async fn packed_and_plain_files_mix_when_the_format_is_said() {
    let world = World::new();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(b"\xef\xbb\xbfid,at,ok\n007,2026-01-01T10:00:00Z,true\n").unwrap();
    world.file("in/b.csv.gz", packed.finish().unwrap());
    world.file("in/a.csv", "ok,id,at\nfalse,008,\n,\"x, \"\"y\"\"\",2026-01-02\n");
    let outputs =
        world.ingest(json!({"from": {"file": "in/*", "format": "csv"}, "into": "raw.a"})).await.unwrap();
    assert_eq!((&outputs["rows"], &outputs["files"]), (&json!(3), &json!(2)));
    let all = world.ask("SELECT id, at, ok FROM raw.a ORDER BY id").await;
    assert_eq!(all, "007 2026-01-01T10:00:00Z true; 008 - false; x, \"y\" 2026-01-02T00:00:00Z -");
}

#[tokio::test]
async fn json_lines_and_files_without_a_header_are_read() {
    let world = World::new();
    world.file("a.jsonl", "{\"n\": 1, \"who\": {\"x\": 1}}\n\n{\"n\": 2.5, \"day\": \"2026-01-01\"}\n");
    world.ingest(json!({"from": {"file": "a.jsonl"}, "into": "raw.a"})).await.unwrap();
    assert_eq!(
        world.ask("SELECT n, who, day FROM raw.a ORDER BY n").await,
        "1.0 {\"x\":1} -; 2.5 - 2026-01-01"
    );
    world.file("b.csv", "1;NA\n2;x\n");
    let from = json!({"file": "b.csv", "header": false, "columns": ["n", "t"], "delimiter": ";", "null_values": ["NA"]});
    world.ingest(json!({"from": from, "into": "raw.b"})).await.unwrap();
    assert_eq!(world.ask("SELECT n, t FROM raw.b ORDER BY n").await, "1 -; 2 x");
}

#[tokio::test]
async fn a_header_alone_makes_an_empty_dataset() {
    let world = World::new();
    world.file("a.csv", "a,b\n");
    let outputs = world.ingest(json!({"from": {"file": "a.csv"}, "into": "raw.a"})).await.unwrap();
    assert_eq!(outputs["rows"], json!(0));
    assert_eq!(world.ask("SELECT count(a) FROM raw.a").await, "0");
}

#[tokio::test]
async fn appended_files_add_up_by_run_and_a_repeated_run_replaces_its_own() {
    let world = World::new();
    let settings = json!({"from": {"file": "a.csv"}, "into": "raw.a", "mode": "append"});
    world.file("a.csv", "n\n1\n");
    world.run("ingest", "run1", settings.clone()).await.unwrap();
    world.file("a.csv", "n\n10\n");
    world.run("ingest", "run2", settings.clone()).await.unwrap();
    world.file("a.csv", "n\n2\n");
    world.run("ingest", "run1", settings).await.unwrap();
    assert_eq!(world.ask("SELECT sum(n) FROM raw.a").await, "12");
}

#[test]
fn a_pattern_without_an_extension_needs_a_format() {
    let wrong = problems("ingest", json!({"from": {"file": "in/*"}, "into": "raw.a"}));
    assert!(wrong.len() == 1 && wrong[0].contains("the extension of `in/*` names no format"), "{wrong:?}");
}

#[test]
fn settings_that_do_not_belong_together_are_all_reported() {
    let wrong = problems(
        "ingest",
        json!({
            "from": {"file": "a.csv", "http": "ftp://x", "delimiter": "::", "cursor": {"column": "n"}},
            "into": "a/b", "mode": "overwrite_partitions", "quarantine": {"max_share": 3},
        }),
    );
    for words in [
        "several sources",
        "ftp://x",
        "no delimiter",
        "a cursor belongs to",
        "into: ",
        "max_share",
        "partition_by",
    ] {
        assert!(wrong.iter().any(|problem| problem.contains(words)), "`{words}` in {wrong:#?}");
    }
}
