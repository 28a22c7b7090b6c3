//! What is written comes back.

use std::collections::BTreeMap;

use mainspring::core::ids::{RunId, TaskId, Timestamp};
use mainspring::core::run::{Alert, AlertKind, Decision, Outputs, Reason, RunType, TiRef, UNMAPPED};
use mainspring::core::state::{RunState, TaskState};
use mainspring::store::{Created, ErrorClass, RunFilter};

use super::home::{Driven, Home, birth, dag, fence, mapped, task, tasks, ti};

/// A run of three tasks, one of them mapped, that has seen most of what can happen.
async fn eventful(home: &Home) -> Driven {
    let mut run = home.run_of(vec![task("extract"), mapped("load", 0), task("report")]).await;
    run.start().await;
    run.move_to(&[ti(0)], TaskState::Running).await;
    run.move_to(&[ti(0)], TaskState::UpForRetry).await;
    let again = run.change(ti(0), TaskState::Running, &[TaskState::Scheduled, TaskState::Queued]);
    run.commit(&Decision { changes: vec![again], ..Decision::default() }).await.unwrap();
    let outputs = Outputs {
        json: r#"{"files":[1,2,3]}"#.into(),
        list_lengths: vec![("files".into(), 3)],
        ..Outputs::default()
    };
    let mut done = run.moving(&[ti(0)], TaskState::Success);
    done.outputs = vec![(ti(0), outputs)];
    done.expanded = vec![(1, 3)];
    run.commit(&done).await.unwrap();
    let places: Vec<TiRef> = (0..3).map(|map_index| TiRef { task: 1, map_index }).collect();
    run.move_to(&places, TaskState::Running).await;
    run.move_to(&places[..2], TaskState::Success).await;
    run.move_to(&places[2..], TaskState::Failed).await;
    let mut end = run.moving(&[ti(2)], TaskState::UpstreamFailed);
    end.run_change = Some(run.run_move(RunState::Failed, Reason::AllFinal));
    end.alerts = vec![Alert { kind: AlertKind::RunFailed, ti: None, tries: 0, error: "it failed".into() }; 2];
    run.commit(&end).await.unwrap();
    run
}

pub(crate) async fn a_restored_run_is_the_run_that_was_committed(home: Home) {
    let run = home.run_of(tasks(300)).await;
    run.check().await;
    let mut run = run;
    let all: Vec<TiRef> = (0..300).map(ti).collect();
    run.start().await;
    run.move_to(&all, TaskState::Running).await;
    run.move_to(&all[..150], TaskState::Success).await;
    run.move_to(&all[150..], TaskState::Deferred).await;
    run.check().await;
}

pub(crate) async fn a_mapped_task_becomes_as_many_rows_as_its_list_is_long(home: Home) {
    let run = eventful(&home).await;
    run.check().await;
    let rows = run.store.task_instances(&run.key()).await.unwrap();
    let places: Vec<_> = rows.iter().map(|row| (row.task_id.as_str(), row.map_index)).collect();
    assert_eq!(places, [("extract", -1), ("load", 0), ("load", 1), ("load", 2), ("report", -1)]);
}

pub(crate) async fn the_folded_journal_is_the_rows(home: Home) {
    let run = eventful(&home).await;
    let mut states = BTreeMap::new();
    let mut run_state = "queued".to_owned();
    for line in run.store.journal(&run.key()).await.unwrap() {
        let Some(task) = line.task_id else {
            assert_eq!(line.from, run_state);
            run_state = line.to;
            continue;
        };
        if line.from == line.to {
            continue;
        }
        let before = states.insert((task, line.map_index), (line.to, line.fence, line.try_number));
        assert_eq!(before.map_or("none".to_owned(), |(state, ..)| state), line.from);
    }
    let rows = run.store.task_instances(&run.key()).await.unwrap();
    let rows: BTreeMap<_, _> = rows
        .into_iter()
        .map(|row| {
            let instance = row.instance;
            ((row.task_id, row.map_index), (instance.state.to_string(), instance.fence, instance.try_number))
        })
        .collect();
    assert_eq!(states, rows);
    assert_eq!(run_state, run.run.state.as_str());
}

pub(crate) async fn the_journal_is_in_the_order_of_the_commits(home: Home) {
    let run = eventful(&home).await;
    let journal = run.store.journal(&run.key()).await.unwrap();
    assert!(journal.is_sorted_by_key(|line| (line.version, line.seq)));
    assert!(journal.iter().map(|line| line.seq).eq(1..=u64::try_from(journal.len()).unwrap()));
    assert_eq!(journal[3].via, "scheduled queued");
    assert_eq!(journal[2].reason, "attempt 1 of 2 failed and another follows: the disk is on fire");
}

pub(crate) async fn attempts_are_opened_by_the_claim_and_closed_by_the_outcome(home: Home) {
    let run = eventful(&home).await;
    let tries = run.store.tries(&run.key(), &TaskId::parse("extract").unwrap()).await.unwrap();
    let seen: Vec<_> =
        tries.iter().map(|made| (made.fence, made.try_number, made.end.as_ref().unwrap().outcome)).collect();
    assert_eq!(seen, [(fence(1), 1, TaskState::UpForRetry), (fence(2), 2, TaskState::Success)]);
    let tries = run.store.tries(&run.key(), &TaskId::parse("load").unwrap()).await.unwrap();
    assert_eq!(tries.iter().map(|made| made.map_index).collect::<Vec<_>>(), [0, 1, 2]);
}

pub(crate) async fn outputs_come_back_and_give_the_lengths_of_their_lists(home: Home) {
    let run = eventful(&home).await;
    let outputs = run.store.outputs(&run.key()).await.unwrap();
    let extract = (TaskId::parse("extract").unwrap(), UNMAPPED);
    assert_eq!(outputs, BTreeMap::from([(extract, r#"{"files":[1,2,3]}"#.to_owned())]));
    assert_eq!(run.run.list_lengths.len(), 1);
    run.check().await;
}

pub(crate) async fn a_repetition_after_a_clear_that_leaves_nothing_takes_the_outputs_away(home: Home) {
    let mut run = home.run_of(tasks(1)).await;
    run.move_to(&[ti(0)], TaskState::Running).await;
    let mut done = run.moving(&[ti(0)], TaskState::Success);
    done.outputs = vec![(
        ti(0),
        Outputs { json: r#"{"a":[1]}"#.into(), list_lengths: vec![("a".into(), 1)], ..Outputs::default() },
    )];
    run.commit(&done).await.unwrap();
    let mut clear = run.moving(&[ti(0)], TaskState::None);
    (clear.changes[0].to.generation, clear.changes[0].to.try_number) = (1, 0);
    run.commit(&clear).await.unwrap();
    run.move_to(&[ti(0)], TaskState::Running).await;
    run.move_to(&[ti(0)], TaskState::Success).await;
    run.run.list_lengths.clear();
    run.check().await;
    assert!(run.store.outputs(&run.key()).await.unwrap().is_empty());
}

pub(crate) async fn creating_a_run_twice_answers_with_the_first(home: Home) {
    let run = home.run_of(tasks(2)).await;
    let mut other = run.run.birth.clone();
    other.params = "{}".into();
    let Created::Existed(found) = home.store.create_run(&other, &run.dag).await.unwrap() else {
        panic!("one key made two runs")
    };
    assert_eq!(found.birth, run.run.birth);
    run.check().await;
}

pub(crate) async fn a_scheduled_instant_is_taken_once_under_any_name(home: Home) {
    let run = home.run_of(tasks(1)).await;
    let mut scheduled = birth(&run.dag, "scheduled");
    scheduled.run_type = RunType::Scheduled;
    let created = home.store.create_run(&scheduled, &run.dag).await.unwrap();
    assert!(matches!(created, Created::New(_)), "a manual run of the same moment is not in its way");
    let mut renamed = scheduled.clone();
    renamed.key.run_id = RunId::parse("another").unwrap();
    let Created::Existed(found) = home.store.create_run(&renamed, &run.dag).await.unwrap() else {
        panic!("one instant made two runs")
    };
    assert_eq!(found.birth, scheduled);
}

pub(crate) async fn a_run_of_a_version_that_was_not_stored_is_refused(home: Home) {
    let dag = dag("dag", "unknown", tasks(1));
    let error = home.store.create_run(&birth(&dag, "first"), &dag).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::User);
    assert_eq!(
        error.to_string(),
        "dag `dag` has no stored version `unknown`: store the version before a run of it"
    );
    assert_eq!(home.store.dag_version(&dag.hash).await.unwrap(), None);
}

pub(crate) async fn a_run_is_not_loaded_with_another_version_of_its_dag(home: Home) {
    let run = home.run_of(tasks(1)).await;
    let (dag_id, source) = home.store.dag_version(&run.dag.hash).await.unwrap().unwrap();
    assert_eq!((dag_id.as_str(), source.as_str()), ("dag", "the source"));
    let other = dag("dag", "other", tasks(2));
    let error = home.store.load_run(&run.key(), &other).await.unwrap_err();
    assert_eq!(error.to_string(), "run `first` of `dag` is pinned to version `hash`, not `other`");
}

pub(crate) async fn runs_are_listed_newest_first_and_filtered(home: Home) {
    let mut run = home.run_of(tasks(1)).await;
    let mut second = birth(&run.dag, "second");
    second.queued_at = Timestamp(second.queued_at.0 + 1);
    home.store.create_run(&second, &run.dag).await.unwrap();
    run.start().await;
    let names = async |filter: RunFilter, limit| {
        let runs = home.store.runs(&filter, limit).await.unwrap();
        runs.iter().map(|run| run.birth.key.run_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(RunFilter::default(), 10).await, ["second", "first"]);
    assert_eq!(names(RunFilter::default(), 1).await, ["second"]);
    let running = RunFilter { dag_id: Some(run.dag.id.clone()), state: Some(RunState::Running) };
    assert_eq!(names(running, 10).await, ["first"]);
    let unfinished = home.store.unfinished_runs().await.unwrap();
    assert_eq!(
        unfinished.iter().map(|run| run.birth.key.run_id.as_str()).collect::<Vec<_>>(),
        ["first", "second"]
    );
}

pub(crate) async fn an_alert_is_in_the_outbox_once_and_until_delivered(home: Home) {
    let run = eventful(&home).await;
    let lease = std::time::Duration::from_secs(60);
    let letters = home.store.claim_letters("default", 10, run.now, lease).await.unwrap();
    let [letter] = letters.as_slice() else { panic!("one alert made {letters:?}") };
    assert_eq!(letter.problem.key.to_string(), "dag/-/run_failed");
    assert_eq!(letter.problem.error, "it failed\n(and 1 more of its instances)");
    home.store.mark_delivered(letter, run.now).await.unwrap();
    home.store.mark_delivered(letter, run.now).await.unwrap();
    let later = run.now.plus(2 * lease);
    assert_eq!(home.store.claim_letters("default", 10, later, lease).await.unwrap(), []);
}

pub(crate) async fn the_clock_of_the_database_is_the_time_of_day(home: Home) {
    let now = home.store.now().await.unwrap();
    let ours = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
    assert!(ours.abs_diff(u128::try_from(now.0).unwrap()) < 60_000_000, "{now}");
}
