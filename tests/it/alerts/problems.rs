//! Problems are opened, counted and resolved once; letters are given once and not lost.

use std::time::Duration;

use mainspring::core::alert::{AlertEvent, Problem, ProblemState, Trouble};
use mainspring::core::dag::DagSettings;
use mainspring::core::ids::{DagId, Fence, SessionId, Timestamp};
use mainspring::core::run::{Capacity, Input, Outcome, Outputs, Severity, Sign, SignKind};
use mainspring::core::state::{RunState, TaskState};
use mainspring::core::step::step;
use mainspring::store::{ErrorClass, Letter, LetterState, ProblemFilter, Store};
use tokio::task::JoinSet;

use super::Home;
use super::story::{
    MIDNIGHT, after, create, fails, finish, key, put, stored, stored_with, succeeds, task, ti, told,
};

const LEASE: Duration = Duration::from_secs(60);

async fn problems(store: &Store) -> Vec<Problem> {
    let all = store.problems(ProblemFilter::All, 100).await.unwrap();
    all.into_iter().map(|numbered| numbered.problem).collect()
}

/// Every letter as `event to route`, in the order of problems and posting.
async fn letters(store: &Store) -> Vec<String> {
    let mut all = Vec::new();
    let mut problems = store.problems(ProblemFilter::All, 100).await.unwrap();
    problems.sort_by_key(|numbered| numbered.problem_no);
    for numbered in problems {
        let deliveries = store.deliveries(numbered.problem_no).await.unwrap();
        all.extend(
            deliveries.into_iter().map(|d| format!("{} {} to {}", numbered.problem.key, d.event, d.route)),
        );
    }
    all
}

async fn claim(store: &Store, route: &str, now: Timestamp) -> Vec<Letter> {
    store.claim_letters(route, 10, now, LEASE).await.unwrap()
}

pub(crate) async fn what_fails_in_many_runs_is_one_problem_with_a_count(home: Home) {
    let dag =
        stored(&home.store, "sales", vec![task("load", 2), task("report", 0)], &["oncall", "mail"]).await;
    for minute in 0..3 {
        let at = after(MIDNIGHT, 60 * minute);
        let script = |id: &str, _| if id == "load" { fails("no such table\norders") } else { succeeds() };
        let state = told(&home.store, &dag, &format!("run_{minute}"), at, script).await;
        assert_eq!(state, RunState::Failed);
    }
    let all = problems(&home.store).await;
    let [problem] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(problem.key.to_string(), "sales/load/task_failed");
    assert_eq!((problem.state, problem.occurrences), (ProblemState::Open, 3));
    assert_eq!(problem.summary, "task `load` of `sales` failed after 3 attempts");
    assert_eq!(problem.error, "no such table\norders");
    assert_eq!(problem.last_run_id.as_ref().unwrap().as_str(), "run_2");
    assert!(problem.opened_at < after(MIDNIGHT, 60) && problem.last_seen > after(MIDNIGHT, 120));
    let opened = ["sales/load/task_failed open to mail", "sales/load/task_failed open to oncall"];
    assert_eq!(letters(&home.store).await, opened);
}

pub(crate) async fn a_task_that_a_retry_heals_opens_none(home: Home) {
    let dag = stored(&home.store, "sales", vec![task("flaky", 2)], &[]).await;
    let state =
        told(
            &home.store,
            &dag,
            "run",
            MIDNIGHT,
            |_, attempt| {
                if attempt < 3 { fails("a hiccup") } else { succeeds() }
            },
        );
    assert_eq!(state.await, RunState::Success);
    assert_eq!(problems(&home.store).await, []);
}

pub(crate) async fn the_first_success_resolves_and_tells_those_who_were_told(home: Home) {
    let mut own = task("load", 0);
    own.alerts = vec!["owner".into()];
    let dag = stored(&home.store, "sales", vec![own], &["oncall"]).await;
    told(&home.store, &dag, "bad", MIDNIGHT, |_, _| fails("boom")).await;
    // The next version of the DAG names another route: whoever was woken is told that it is over.
    let dag = stored(&home.store, "sales", vec![task("load", 0)], &["oncall"]).await;
    told(&home.store, &dag, "good", after(MIDNIGHT, 60), |_, _| succeeds()).await;
    told(&home.store, &dag, "good_again", after(MIDNIGHT, 120), |_, _| succeeds()).await;
    let all = problems(&home.store).await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].state, ProblemState::Resolved);
    assert_eq!(all[0].resolved_at.map(|at| at < after(MIDNIGHT, 120)), Some(true));
    let told_to = ["sales/load/task_failed open to owner", "sales/load/task_failed resolved to owner"];
    assert_eq!(letters(&home.store).await, told_to);
    // The same again is another problem.
    told(&home.store, &dag, "bad_again", after(MIDNIGHT, 180), |_, _| fails("boom")).await;
    assert_eq!(problems(&home.store).await.len(), 2);
    assert_eq!(letters(&home.store).await.len(), 3);
}

pub(crate) async fn of_many_who_see_the_same_one_opens_and_one_resolves(home: Home) {
    let dag = stored(&home.store, "sales", vec![task("load", 0)], &["oncall"]).await;
    for good in [false, true] {
        let mut writers = JoinSet::new();
        for place in 0..8 {
            let (store, dag) = (home.store.clone(), dag.clone());
            writers.spawn(async move {
                let run_id = format!("run_{good}_{place}");
                let at = after(MIDNIGHT, if good { 60 } else { 0 });
                told(&store, &dag, &run_id, at, |_, _| if good { succeeds() } else { fails("boom") }).await
            });
        }
        writers.join_all().await;
    }
    let all = problems(&home.store).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].state, all[0].occurrences), (ProblemState::Resolved, 8));
    let told = ["sales/load/task_failed open to oncall", "sales/load/task_failed resolved to oncall"];
    assert_eq!(letters(&home.store).await, told);
}

pub(crate) async fn a_success_that_is_older_than_the_failure_resolves_nothing(home: Home) {
    let tasks = vec![task("load", 0), task("slow", 9)];
    let dag = stored(&home.store, "sales", tasks, &[]).await;
    // In the first run `load` succeeds at once, and `slow` goes on.
    create(&home.store, &dag, "early", MIDNIGHT).await;
    for _ in 0..4 {
        let script = |id: &str, _| if id == "load" { succeeds() } else { fails("not yet") };
        super::story::advance(&home.store, &dag, &key(&dag, "early"), MIDNIGHT, script).await.unwrap();
    }
    let bad = |id: &str, _| if id == "load" { fails("boom") } else { succeeds() };
    told(&home.store, &dag, "late", after(MIDNIGHT, 60), bad).await;
    assert_eq!(
        finish(&home.store, &dag, "early", after(MIDNIGHT, 120), |_, _| succeeds()).await,
        RunState::Success
    );
    assert_eq!(problems(&home.store).await[0].state, ProblemState::Open);
    told(&home.store, &dag, "good", after(MIDNIGHT, 180), |_, _| succeeds()).await;
    assert_eq!(problems(&home.store).await[0].state, ProblemState::Resolved);
}

pub(crate) async fn a_task_that_succeeds_in_a_failed_run_is_well_again(home: Home) {
    let dag = stored(&home.store, "sales", vec![task("a", 0), task("b", 0)], &[]).await;
    told(&home.store, &dag, "first", MIDNIGHT, |_, _| fails("boom")).await;
    let only_b = |id: &str, _| if id == "b" { fails("boom") } else { succeeds() };
    assert_eq!(told(&home.store, &dag, "second", after(MIDNIGHT, 60), only_b).await, RunState::Failed);
    let all = problems(&home.store).await;
    let states: Vec<_> = all.iter().map(|p| (p.key.to_string(), p.state, p.occurrences)).collect();
    assert_eq!(
        states,
        [
            ("sales/b/task_failed".to_owned(), ProblemState::Open, 2),
            ("sales/a/task_failed".to_owned(), ProblemState::Resolved, 1),
        ]
    );
    // A task that is no longer in the DAG is over with the first success of the rest.
    let dag = stored(&home.store, "sales", vec![task("a", 0)], &[]).await;
    told(&home.store, &dag, "third", after(MIDNIGHT, 120), |_, _| succeeds()).await;
    assert!(problems(&home.store).await.iter().all(|p| p.state == ProblemState::Resolved));
}

pub(crate) async fn a_run_that_times_out_has_a_problem_of_its_own(home: Home) {
    let timeout = Some(Duration::from_secs(30));
    let settings = DagSettings { dagrun_timeout: timeout, ..DagSettings::default() };
    let dag = stored_with(&home.store, "sales", vec![task("load", 0)], settings).await;
    create(&home.store, &dag, "slow", MIDNIGHT).await;
    put(&home.store, &dag, "slow", MIDNIGHT, Input::Tick).await;
    put(&home.store, &dag, "slow", after(MIDNIGHT, 31), Input::Tick).await;
    let all = problems(&home.store).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].key.to_string(), "sales/-/run_failed");
    assert_eq!(all[0].error, "the run took longer than its `dagrun_timeout`");
    assert_eq!(letters(&home.store).await, ["sales/-/run_failed open to default"]);
    told(&home.store, &dag, "quick", after(MIDNIGHT, 60), |_, _| succeeds()).await;
    assert_eq!(problems(&home.store).await[0].state, ProblemState::Resolved);
}

pub(crate) async fn a_poisoned_task_is_told_as_that(home: Home) {
    let dag = stored(&home.store, "sales", vec![task("load", 5)], &[]).await;
    create(&home.store, &dag, "run", MIDNIGHT).await;
    put(&home.store, &dag, "run", MIDNIGHT, Input::Tick).await;
    for loss in 0..3 {
        let session = SessionId::parse("worker").unwrap();
        let claim = Input::Claimed { ti: ti(0), fence: Fence(2 * loss + 1), session };
        put(&home.store, &dag, "run", after(MIDNIGHT, 2 * loss), claim).await;
        let lost = Input::Lost { ti: ti(0), fence: Fence(2 * loss + 1) };
        put(&home.store, &dag, "run", after(MIDNIGHT, 2 * loss + 1), lost).await;
    }
    let all = problems(&home.store).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].key.to_string(), "sales/load/poisoned");
    assert_eq!(all[0].error, "poisoned: its worker was lost 3 times");
}

fn succeeds_and_saw(kind: SignKind, text: &str) -> Outcome {
    Outcome::Succeeded(Outputs { signs: vec![Sign { kind, text: text.into() }], ..Outputs::default() })
}

pub(crate) async fn what_a_success_saw_is_one_problem_until_a_success_does_not_see_it(home: Home) {
    let dag = stored(&home.store, "shop", vec![task("check", 2), task("other", 0)], &["oncall"]).await;
    let saw = |id: &str, _: u32| {
        if id == "check" { succeeds_and_saw(SignKind::Shift, "drift of money") } else { succeeds() }
    };
    for (run_id, seconds) in [("one", 0), ("two", 60)] {
        let state = told(&home.store, &dag, run_id, after(MIDNIGHT, seconds), saw).await;
        assert_eq!(state, RunState::Success);
    }
    let all = problems(&home.store).await;
    let [problem] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(problem.key.to_string(), "shop/check/shift");
    assert_eq!((problem.state, problem.occurrences), (ProblemState::Open, 2));
    assert_eq!(problem.summary, "`check` of `shop` saw its data shift");
    assert_eq!(problem.error, "drift of money");
    // A failure is another problem, and no proof that the data are as they were.
    let breaks = |id: &str, _: u32| if id == "check" { fails("boom") } else { succeeds() };
    told(&home.store, &dag, "three", after(MIDNIGHT, 120), breaks).await;
    let other = |id: &str, _: u32| {
        if id == "check" { succeeds_and_saw(SignKind::Anomaly, "half the rows") } else { succeeds() }
    };
    told(&home.store, &dag, "four", after(MIDNIGHT, 180), other).await;
    let told_of = [
        "shop/check/shift open to oncall",
        "shop/check/shift resolved to oncall",
        "shop/check/task_failed open to oncall",
        "shop/check/task_failed resolved to oncall",
        "shop/check/anomaly open to oncall",
    ];
    assert_eq!(letters(&home.store).await, told_of);
}

pub(crate) async fn a_gate_that_refuses_is_told_as_that_and_not_tried_again(home: Home) {
    let dag = stored(&home.store, "shop", vec![task("gate", 5)], &[]).await;
    let refuses = |_: &str, _: u32| Outcome::Failed {
        error: "stability(ari): 0.2".into(),
        severity: Severity::Blocked,
    };
    told(&home.store, &dag, "bad", MIDNIGHT, refuses).await;
    let all = problems(&home.store).await;
    let [problem] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(problem.key.to_string(), "shop/gate/gate_blocked");
    assert_eq!(problem.summary, "`gate` of `shop` blocked what was to be published");
    told(&home.store, &dag, "good", after(MIDNIGHT, 60), |_, _| succeeds()).await;
    assert_eq!(problems(&home.store).await[0].state, ProblemState::Resolved);
}

pub(crate) async fn trouble_outside_of_runs_is_one_occurrence_until_it_is_over(home: Home) {
    let dag_id = DagId::parse("sales").unwrap();
    let file = Trouble::ImportError { file: "dags/sales.yaml".into() };
    let stalled = Trouble::ScheduleStalled { dag_id: dag_id.clone() };
    let missed = |run: &str| {
        let run_id = mainspring::core::ids::RunId::parse(run).unwrap();
        Trouble::DeadlineMissed { run: mainspring::core::ids::RunKey { dag_id: dag_id.clone(), run_id } }
    };
    let raised = |trouble: &Trouble| AlertEvent::Raised {
        trouble: trouble.clone(),
        error: "it is so".into(),
        routes: vec!["oncall".into(), "oncall".into()],
    };
    let lost = Trouble::WorkerLost { session: SessionId::parse("worker_1").unwrap() };
    for second in 0..5 {
        let events = [raised(&file), raised(&stalled), raised(&lost), raised(&missed("run_1"))];
        home.store.raise(&events, after(MIDNIGHT, second)).await.unwrap();
    }
    // Two runs that are late at once are two, however often they are seen in turn.
    for second in 6..9 {
        let events = [raised(&missed("run_2")), raised(&missed("run_1"))];
        home.store.raise(&events, after(MIDNIGHT, second)).await.unwrap();
    }
    let mut seen: Vec<_> =
        problems(&home.store).await.iter().map(|p| (p.key.to_string(), p.occurrences)).collect();
    seen.sort();
    let expected = [
        ("-/dags/sales.yaml/import_error", 1),
        ("-/worker_1/worker_lost", 1),
        ("sales/-/deadline_missed", 2),
        ("sales/-/schedule_stalled", 1),
    ];
    assert_eq!(seen, expected.map(|(key, count)| (key.to_owned(), count)));
    assert_eq!(letters(&home.store).await.len(), 4, "each was opened once, on one route");
    let over = |trouble: &Trouble| AlertEvent::Over { trouble: trouble.clone() };
    for second in 10..12 {
        home.store.raise(&[over(&file), over(&stalled)], after(MIDNIGHT, second)).await.unwrap();
    }
    assert_eq!(letters(&home.store).await.len(), 6);
    // What is seen and over in one look is told of twice.
    let other = Trouble::WorkerLost { session: SessionId::parse("worker_2").unwrap() };
    home.store.raise(&[raised(&other), over(&other)], after(MIDNIGHT, 20)).await.unwrap();
    let posted = letters(&home.store).await;
    let posted: Vec<_> = posted.iter().filter(|letter| letter.contains("worker_2")).collect();
    assert_eq!(
        posted,
        ["-/worker_2/worker_lost open to oncall", "-/worker_2/worker_lost resolved to oncall"]
    );
    // A run says nothing about schedules and workers; its success ends missed deadlines.
    let dag = stored(&home.store, "sales", vec![task("load", 0)], &[]).await;
    told(&home.store, &dag, "run_3", after(MIDNIGHT, 60), |_, _| succeeds()).await;
    let open = home.store.problems(ProblemFilter::Open, 10).await.unwrap();
    let open: Vec<_> = open.iter().map(|n| n.problem.key.to_string()).collect();
    assert_eq!(open, ["-/worker_1/worker_lost"]);
}

pub(crate) async fn a_commit_that_is_refused_tells_nobody(home: Home) {
    let dag = stored(&home.store, "sales", vec![task("load", 0)], &[]).await;
    create(&home.store, &dag, "run", MIDNIGHT).await;
    put(&home.store, &dag, "run", MIDNIGHT, Input::Tick).await;
    let key = key(&dag, "run");
    let mut run = home.store.load_run(&key, &dag).await.unwrap().unwrap();
    let mark = Input::Mark { tis: vec![ti(0)], state: TaskState::Failed };
    let decision = step(&dag, &mut run, &[mark], &Capacity::default(), MIDNIGHT);
    assert_eq!(decision.alerts.len(), 1);
    let error = home.store.commit(&dag, &key, 0, &decision, MIDNIGHT).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
    assert_eq!(problems(&home.store).await, []);
    home.store.commit(&dag, &key, run.version, &decision, MIDNIGHT).await.unwrap();
    let all = problems(&home.store).await;
    assert_eq!((all.len(), all[0].error.as_str()), (1, "a person marked it"));
}

async fn one_letter(home: &Home) -> Letter {
    let file = Trouble::ImportError { file: "a.yaml".into() };
    let raised = AlertEvent::Raised { trouble: file, error: "bad".into(), routes: vec!["oncall".into()] };
    home.store.raise(&[raised], MIDNIGHT).await.unwrap();
    let [letter] = claim(&home.store, "oncall", MIDNIGHT).await.try_into().unwrap();
    letter
}

async fn delivery(store: &Store) -> (LetterState, u32, Option<String>) {
    let problem = &store.problems(ProblemFilter::All, 1).await.unwrap()[0];
    let delivery = &store.deliveries(problem.problem_no).await.unwrap()[0];
    (delivery.state, delivery.attempts, delivery.last_error.clone())
}

pub(crate) async fn the_database_itself_refuses_columns_that_contradict_each_other(home: Home) {
    one_letter(&home).await;
    for set in [
        "state = 'resolved'",
        "resolved_at_us = 1",
        "state = 'on_fire'",
        "kind = 'hunger'",
        "version = 0",
        "occurrences = 9",
        "subject = NULL",
    ] {
        home.raw(&format!("UPDATE problem SET {set}")).await.expect_err(set);
    }
    for set in [
        "state = 'delivered'",
        "state = 'dead', next_attempt_at_us = NULL",
        "next_attempt_at_us = NULL",
        "delivered_at_us = 1",
        "event = 'maybe'",
        "attempts = -1",
    ] {
        home.raw(&format!("UPDATE outbox SET {set}")).await.expect_err(set);
    }
    home.raw("DELETE FROM problem").await.expect_err("a letter without its problem");
    let twin = "INSERT INTO problem (problem_key, kind, subject, state, version, occurrences, opened_at_us, \
        last_seen_us, summary, error, routes) VALUES ('-/a.yaml/import_error', 'import_error', 'a.yaml', 'open', \
        1, 1, 0, 0, '', '', '[]')";
    home.raw(twin).await.expect_err("a second open problem of one key");
}

pub(crate) async fn a_letter_is_given_once_within_its_lease_and_again_after_it(home: Home) {
    let dag =
        stored(&home.store, "sales", (0..40).map(|n| task(&format!("t{n}"), 0)).collect(), &["oncall"]).await;
    told(&home.store, &dag, "run", MIDNIGHT, |_, _| fails("boom")).await;
    let now = after(MIDNIGHT, 60);
    let mut couriers = JoinSet::new();
    for _ in 0..8 {
        let store = home.store.clone();
        couriers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let some = store.claim_letters("oncall", 3, now, LEASE).await.unwrap();
                // Rows that another courier holds for a moment are passed over: look until none is left at all.
                if some.is_empty() && store.waiting_routes().await.unwrap()[0].1 > now {
                    return mine;
                }
                mine.extend(some.into_iter().map(|letter| letter.id));
            }
        });
    }
    let mut given: Vec<String> = couriers.join_all().await.into_iter().flatten().collect();
    assert_eq!(given.len(), 40);
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 40, "none was given twice");
    assert_eq!(claim(&home.store, "oncall", Timestamp(after(now, 60).0 - 1)).await, []);
    assert_eq!(claim(&home.store, "elsewhere", after(now, 60)).await, []);
    let again = claim(&home.store, "oncall", after(now, 60)).await;
    assert_eq!(again.len(), 10, "at most as many as were asked for");
    assert!(again.iter().all(|letter| letter.attempts == 2 && given.contains(&letter.id)));
}

pub(crate) async fn a_claim_that_no_longer_stands_changes_nothing_but_a_delivery_counts(home: Home) {
    let first = one_letter(&home).await;
    let second = claim(&home.store, "oncall", after(MIDNIGHT, 60)).await.remove(0);
    assert_eq!((second.id.as_str(), second.attempts), (first.id.as_str(), 2));
    // The first courier was slow, not dead.
    home.store.postpone(&first, MIDNIGHT, "late").await.unwrap();
    home.store.give_back(&first, MIDNIGHT).await.unwrap();
    home.store.bury(&first, "late").await.unwrap();
    assert_eq!(delivery(&home.store).await, (LetterState::Pending, 2, None));
    assert_eq!(claim(&home.store, "oncall", after(MIDNIGHT, 61)).await, []);
    home.store.mark_delivered(&first, after(MIDNIGHT, 62)).await.unwrap();
    home.store.mark_delivered(&second, after(MIDNIGHT, 63)).await.unwrap();
    home.store.postpone(&second, after(MIDNIGHT, 64), "no").await.unwrap();
    assert_eq!(delivery(&home.store).await, (LetterState::Delivered, 2, None));
    assert_eq!(home.store.waiting_routes().await.unwrap(), []);
}

pub(crate) async fn the_end_is_never_told_before_the_opening(home: Home) {
    let opened = one_letter(&home).await;
    let over = AlertEvent::Over { trouble: Trouble::ImportError { file: "a.yaml".into() } };
    home.store.raise(&[over], after(MIDNIGHT, 1)).await.unwrap();
    home.store.postpone(&opened, after(MIDNIGHT, 100), "refused").await.unwrap();
    assert_eq!(claim(&home.store, "oncall", after(MIDNIGHT, 50)).await, []);
    assert_eq!(home.store.waiting_routes().await.unwrap(), [("oncall".to_owned(), after(MIDNIGHT, 100))]);
    let again = claim(&home.store, "oncall", after(MIDNIGHT, 100)).await;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].problem.state, &again[0].id), (ProblemState::Open, &again[0].first_id));
    home.store.mark_delivered(&again[0], after(MIDNIGHT, 101)).await.unwrap();
    let end = claim(&home.store, "oncall", after(MIDNIGHT, 102)).await;
    assert_eq!(end.len(), 1);
    assert_eq!((end[0].problem.state, &end[0].first_id), (ProblemState::Resolved, &opened.id));
    assert_ne!(end[0].id, opened.id);
}

pub(crate) async fn a_letter_that_was_given_up_stays_visible(home: Home) {
    let letter = one_letter(&home).await;
    home.store.bury(&letter, "nobody is there").await.unwrap();
    assert_eq!(delivery(&home.store).await, (LetterState::Dead, 1, Some("nobody is there".into())));
    assert_eq!(claim(&home.store, "oncall", after(MIDNIGHT, 9999)).await, []);
}
