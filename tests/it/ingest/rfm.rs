//! Recency, frequency and money of the customers of a music shop.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::World;

const RFM: &str = "
    SELECT customer_id,
           (to_unixtime(:logical_date) - to_unixtime(CAST(max(date) AS TIMESTAMP))) / 86400 AS recency_days,
           count(DISTINCT date) AS frequency,
           sum(dollar_value) AS monetary
    FROM raw.orders
    WHERE dollar_value >= :floor AND date < :logical_date
    GROUP BY customer_id";

fn cdnow() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dags/data/cdnow_master.csv")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessed_types_of_real_purchases_are_those_a_person_would_give() {
    let world = World::new();
    world.file("cdnow.csv", std::fs::read(cdnow()).unwrap());
    let begin = Instant::now();
    let outputs = world.ingest(json!({"from": {"file": "cdnow.csv"}, "into": "raw.orders"})).await.unwrap();
    println!("ingest of {} purchases: {:?}", outputs["rows"], begin.elapsed());
    assert_eq!(outputs["rows"], json!(69659));
    assert_eq!((&outputs["quarantined"], &outputs["files"]), (&json!(0), &json!(1)));
    let types = world.ask("SELECT arrow_typeof(date), arrow_typeof(number_of_cds), arrow_typeof(dollar_value) FROM raw.orders LIMIT 1").await;
    assert_eq!(types, "Date32 Int64 Float64");
    let known = world.ask("SELECT count(DISTINCT customer_id), round(sum(dollar_value), 2), min(customer_id) FROM raw.orders").await;
    assert_eq!(known, "23570 2500315.63 00001");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfm_does_not_depend_on_the_order_of_rows_or_the_number_of_threads() {
    let text = std::fs::read_to_string(cdnow()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let header = lines.remove(0);
    let mut shuffled = lines.clone();
    shuffled.sort_by_key(|line| {
        std::hash::BuildHasher::hash_one(
            &std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default(),
            line,
        )
    });
    let mut seen = Vec::new();
    for (rows, threads) in [(lines, 1), (shuffled, 2)] {
        let world = World::new();
        world.file("cdnow.csv", format!("{header}\n{}\n", rows.join("\n")));
        let schema = json!({"customer_id": "bigint", "date": "date", "dollar_value": "decimal(12,2)"});
        let ingest = json!({"from": {"file": "cdnow.csv"}, "into": "raw.orders", "schema": schema});
        world.ingest(ingest).await.unwrap();
        let begin = Instant::now();
        let transform = json!({"sql": RFM, "into": "features.rfm", "threads": threads});
        let outputs = world.run("transform", "run1", transform).await.unwrap();
        println!("rfm of {} customers on {threads} threads: {:?}", outputs["rows"], begin.elapsed());
        assert_eq!(outputs["inputs"], json!({"raw.orders": 0}));
        seen.push(world.ask("SELECT * FROM features.rfm ORDER BY customer_id").await);
    }
    assert!(seen[0].len() > 100_000);
    assert!(seen[0] == seen[1], "the features differ");
}

#[tokio::test]
async fn an_incremental_transform_replaces_only_the_partitions_it_gives() {
    let world = World::new();
    world.file("a.csv", "day,n\n2026-01-01,1\n2026-01-02,2\n");
    world.ingest(json!({"from": {"file": "a.csv"}, "into": "raw.a"})).await.unwrap();
    let all = json!({"sql": "SELECT * FROM raw.a", "into": "daily", "incremental": {"by": "day"}});
    world.run("transform", "run1", all).await.unwrap();
    let one = json!({"sql": "SELECT day, n * :factor AS n FROM raw.a WHERE day = '2026-01-02'", "params": {"factor": 10}, "into": "daily", "incremental": {"by": ["day"]}});
    world.run("transform", "run2", one).await.unwrap();
    assert_eq!(world.ask("SELECT day, n FROM daily ORDER BY day").await, "2026-01-01 1; 2026-01-02 20");
}

#[tokio::test]
async fn a_statement_in_a_file_is_run_and_a_wrong_one_is_named_with_its_place() {
    let world = World::new();
    world.file("a.csv", "customer_id,n\nx,1\n");
    world.ingest(json!({"from": {"file": "a.csv"}, "into": "raw.a"})).await.unwrap();
    world.file("good.sql", "SELECT n FROM a");
    world.run("transform", "run1", json!({"sql_file": "good.sql", "into": "b"})).await.unwrap();
    for (sql, words) in [
        ("SELECT (n FROM raw.a", "bad.sql: line 1, column 11: "),
        ("SELECT customer FROM raw.a", "there is no column `customer`\nhint: did you mean `customer_id`?"),
        ("SELECT 1 FROM raw.aa", "there is no dataset `raw.aa`\nhint: did you mean `raw.a`?"),
        ("SELECT n / 0 FROM raw.a", "ivide by zero"),
        ("INSERT INTO raw.a VALUES (1)", "`INSERT` is not a query"),
    ] {
        world.file("bad.sql", sql);
        let error =
            world.run("transform", "run2", json!({"sql_file": "bad.sql", "into": "b"})).await.unwrap_err();
        assert!(matches!(&error, mainspring::tasks::TaskError::Permanent(_)), "{sql}: {error:?}");
        assert!(error.to_string().contains(words), "{sql}: {error}");
    }
    assert_eq!(world.ask("SELECT * FROM b").await, "1", "a failed transform leaves what was there");
}

#[test]
fn what_a_transform_reads_is_found_in_its_statement() {
    let settings = json!({"sql": "WITH x AS (SELECT * FROM raw.a) SELECT * FROM x JOIN features.b USING (k)", "into": "c"});
    let work = (mainspring::tasks::find("transform").unwrap().read)(&settings).unwrap();
    assert_eq!(
        (work.reads(), work.writes()),
        (vec!["features.b".to_owned(), "raw.a".to_owned()], vec!["c".to_owned()])
    );
    let wrong = super::problems("transform", json!({"sql": "SELECT * FORM x", "into": "c d"}));
    assert!(wrong.len() == 2 && wrong[0].starts_with("sql: line 1, column 10: "), "{wrong:?}");
}
