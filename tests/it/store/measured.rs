//! How fast it is; run with `cargo test --release store::measured -- --ignored --nocapture --test-threads=1`.

use std::path::Path;
use std::time::Instant;

use mainspring::core::run::TiRef;
use mainspring::core::state::TaskState;
use mainspring::store::{Durability, Store, bench};

use super::home::{Home, tasks, ti};

/// One-task commits one after the other, and task changes in commits of a hundred, per second.
async fn rates(home: &Home) -> (f64, f64) {
    let mut run = home.run_of(tasks(2000)).await;
    let begun = Instant::now();
    for place in 0..200 {
        run.move_to(&[ti(place)], TaskState::Running).await;
        run.move_to(&[ti(place)], TaskState::Success).await;
    }
    let single = 400.0 / begun.elapsed().as_secs_f64();
    let all: Vec<TiRef> = (200..2000).map(ti).collect();
    let begun = Instant::now();
    for state in [TaskState::Queued, TaskState::Running, TaskState::Success] {
        for hundred in all.chunks(100) {
            run.move_to(hundred, state).await;
        }
    }
    (single, 5400.0 / begun.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn commits_per_second_against_the_disk() {
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    for durability in [Durability::Full, Durability::Relaxed] {
        let raw = bench::raw_commits(folder.path(), 400, durability).await.unwrap();
        let url = format!("sqlite://{}/{durability:?}.db", folder.path().display());
        let store = Store::open(&url, durability).await.unwrap();
        let home = Home::with(store, url);
        let (single, hundred) = rates(&home).await;
        println!(
            "sqlite {durability:?}: raw {raw:.0}/s, one-task commits {single:.0}/s ({:.2} of raw), \
             task changes in commits of 100: {hundred:.0}/s",
            single / raw
        );
    }
    let Some(home) = Home::on_postgres().await else { return };
    let (single, hundred) = rates(&home).await;
    println!(
        "postgres (fsync off): one-task commits {single:.0}/s, task changes in commits of 100: {hundred:.0}/s"
    );
}
