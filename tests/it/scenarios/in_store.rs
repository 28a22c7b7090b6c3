//! The scenarios through a real database: every decision is committed, and after every line the run is
//! loaded again. The texts are the same; a rule that holds in memory only fails here.

use mainspring::core::dag::Dag;
use mainspring::core::ids::Timestamp;
use mainspring::core::run::{Capacity, Decision, Input, Run};
use mainspring::core::step::step;
use mainspring::store::{Created, ErrorClass};
use tokio::runtime::Runtime;

use super::{Bench, every_scenario_on};
use crate::store::home::Home;

/// Everything a scenario leaves, in the order that foreign keys allow.
const FORGET: &str = "DELETE FROM outbox; DELETE FROM pool; DELETE FROM journal; DELETE FROM task_output; \
     DELETE FROM task_try; DELETE FROM task_instance; DELETE FROM dag_run; DELETE FROM dag_version";

/// A database that holds the run of one scenario.
struct InStore<'a> {
    home: &'a Home,
    runtime: &'a Runtime,
    is_born: bool,
}

impl InStore<'_> {
    async fn create(&self, dag: &Dag, run: &Run) {
        let store = &self.home.store;
        store.put_dag_version(&dag.hash, &dag.id, "the source").await.unwrap();
        let created = store.create_run(&run.birth, dag).await.unwrap();
        let Created::New(created) = created else { panic!("the scenario before left its run") };
        assert_eq!(created.rows(), run.rows());
    }

    /// Commits `decision`, which `run` is already as after.
    async fn commit(&self, dag: &Dag, run: &mut Run, decision: &Decision, now: Timestamp) {
        let (store, key) = (&self.home.store, run.birth.key.clone());
        let before = run.version;
        run.version = store.commit(dag, &key, before, decision, now).await.unwrap();
        let repeated = store.commit(dag, &key, before, decision, now).await.unwrap_err();
        assert_eq!(repeated.class(), ErrorClass::Conflict, "of two writers of one version one wins");
        let guarded = |change: &mainspring::core::run::Change| {
            (change.from, change.from_fence) != (change.to.state, change.to.fence)
        };
        if decision.changes.iter().any(guarded) {
            let stale = store.commit(dag, &key, run.version, decision, now).await.unwrap_err();
            assert_eq!(stale.class(), ErrorClass::Conflict, "a stale state or fence is refused: {stale}");
        }
    }

    async fn write(
        &self,
        dag: &Dag,
        run: &mut Run,
        decision: &Decision,
        room: &Capacity,
        now: Timestamp,
    ) -> Run {
        for (pool, use_) in &room.pools {
            self.home.store.set_pool(pool, use_.size).await.unwrap();
        }
        if !decision.is_empty() {
            self.commit(dag, run, decision, now).await;
        }
        self.home.store.load_run(&run.birth.key, dag).await.unwrap().expect("the run is there")
    }
}

impl Bench for InStore<'_> {
    fn step(
        &mut self,
        dag: &Dag,
        run: &mut Run,
        inputs: &[Input],
        room: &Capacity,
        now: Timestamp,
    ) -> Decision {
        if !self.is_born {
            self.runtime.block_on(self.create(dag, run));
            self.is_born = true;
        }
        let decision = step(dag, run, inputs, room, now);
        let loaded = self.runtime.block_on(self.write(dag, run, &decision, room, now));
        assert_eq!(loaded.rows(), run.rows(), "the rows are the value");
        *run = loaded;
        decision
    }

    fn end(self) {
        self.runtime.block_on(self.home.raw(FORGET)).unwrap();
    }
}

#[test]
fn every_scenario_goes_the_same_through_sqlite() {
    let runtime = Runtime::new().unwrap();
    let home = runtime.block_on(Home::on_sqlite());
    every_scenario_on(|| InStore { home: &home, runtime: &runtime, is_born: false });
}

#[test]
fn every_scenario_goes_the_same_through_postgres() {
    let runtime = Runtime::new().unwrap();
    let Some(home) = runtime.block_on(Home::on_postgres()) else { return };
    every_scenario_on(|| InStore { home: &home, runtime: &runtime, is_born: false });
}
