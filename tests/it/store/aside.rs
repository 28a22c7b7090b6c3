//! A run that cannot be written is set aside and told of; all others go on, and so does it once it can be written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainspring::control::{self, Control, Scope};
use mainspring::core::alert::Problem;
use mainspring::core::run::RunBirth;
use mainspring::core::state::RunState;
use mainspring::engine::{self, watchdog};
use mainspring::store::ProblemFilter;

use super::home::{Home, birth, dag};
use crate::server::PATIENCE;

/// What makes a database swallow every move of the first run without a word: the commit finds that the run is not
/// as it was, and so does every later one.
const SWALLOW_SQLITE: &str = "CREATE TRIGGER swallow BEFORE UPDATE OF state ON dag_run WHEN NEW.run_no = 1 \
     BEGIN SELECT RAISE(IGNORE); END";
const SWALLOW_POSTGRES: &str = "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ \
     BEGIN RETURN NULL; END $$; \
     CREATE TRIGGER swallow BEFORE UPDATE OF state ON dag_run FOR EACH ROW WHEN (NEW.run_no = 1) \
     EXECUTE FUNCTION swallow()";

async fn until(home: &Home, what: &str, holds: impl Fn() -> bool) {
    let asked = async {
        while !holds() {
            home.store.now().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn ended(control: &Control, run: &RunBirth) -> RunState {
    let end = control.follow(run.key.clone()).await;
    tokio::time::timeout(PATIENCE, end).await.expect("the run ends in time").unwrap()
}

/// The open problems after a look of the watchdog.
async fn problems(control: &Control) -> Vec<Problem> {
    watchdog::look(control, &BTreeMap::new(), &BTreeSet::new(), engine::now()).await.unwrap();
    let open = control.store().problems(ProblemFilter::Open, 10).await.unwrap();
    open.into_iter().map(|numbered| numbered.problem).collect()
}

pub(crate) async fn a_run_that_cannot_be_written_keeps_nobody_from_going_on(home: Home) {
    let is_sqlite = home.url.starts_with("sqlite");
    let dag = Arc::new(dag("dag", "hash", Vec::new()));
    home.store.put_dag_version(&dag.hash, &dag.id, "the source").await.unwrap();
    home.raw(if is_sqlite { SWALLOW_SQLITE } else { SWALLOW_POSTGRES }).await.unwrap();
    let settings = control::Settings {
        now: engine::now,
        scope: Scope::All,
        poll_every: Duration::from_millis(100),
        tries_max: None,
        watch: None,
    };
    let (control, _driver) = control::start(home.store.clone(), settings);
    let (stuck, other) = (birth(&dag, "stuck"), birth(&dag, "other"));
    control.create(&stuck, &dag).await.unwrap();
    control.create(&other, &dag).await.unwrap();
    assert_eq!(ended(&control, &other).await, RunState::Success);
    until(&home, "the run is set aside", || !control.set_aside().is_empty()).await;
    let [(key, why)] = control.set_aside().try_into().unwrap();
    assert_eq!(key, stuck.key);
    assert_eq!(why, "its commits are refused again and again: the run is not `queued` any more");
    let [problem] = problems(&control).await.try_into().unwrap();
    assert_eq!(problem.key.to_string(), "dag/-/schedule_stalled");
    assert!(
        problem.error.starts_with("run stuck does not get on: its commits are refused"),
        "{}",
        problem.error
    );
    let late = birth(&dag, "late");
    control.create(&late, &dag).await.unwrap();
    assert_eq!(ended(&control, &late).await, RunState::Success);
    let off = if is_sqlite { "DROP TRIGGER swallow" } else { "DROP TRIGGER swallow ON dag_run" };
    home.raw(off).await.unwrap();
    assert_eq!(ended(&control, &stuck).await, RunState::Success);
    assert!(control.set_aside().is_empty());
    assert!(problems(&control).await.is_empty(), "the problem is over");
}
