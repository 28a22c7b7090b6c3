//! Workers elsewhere, as processes of their own or as the bare protocol, against a real server.

use std::path::Path;
use std::time::Duration;

use mainspring::core::ids::TaskId;
use mainspring::core::run::RunType;
use mainspring::core::state::{RunState, TaskState};
use reqwest::Method;
use serde_json::{Value, json};

use super::server::{
    EXPIRED, PATIENCE, Server, WORKER, With, World, hear, in_time, path_of, start, worker, worker_with,
};

const SHORT: Duration = Duration::from_millis(1500);

fn short_lease() -> With {
    With { lease: SHORT, ..With::default() }
}

fn one_task(command: &str) -> String {
    format!("dag_id: one\ntasks:\n  - {{id: only, type: bash, retries: 0, command: '{command}'}}\n")
}

/// A task that tells the number of its process group over `began` and then lives until it is ended, with a child
/// that ignores TERM and holds `alive`.
fn long_task(began: &Path, alive: &Path) -> String {
    let (began, alive) = (began.display(), alive.display());
    one_task(&format!("exec 3>{alive}; (trap \"\" TERM; sleep 600) & echo $$ >{began}; wait"))
}

async fn instance(world: &World, key: &mainspring::core::ids::RunKey) -> mainspring::core::run::TaskInstance {
    world.store.task_instances(key).await.unwrap().remove(0).instance
}

#[tokio::test]
async fn a_worker_elsewhere_runs_a_dag_hands_outputs_on_and_sends_its_logs() {
    let world = World::new().await;
    world
        .take_up(
            "dag_id: hello
params: {who: {type: string, default: you}}
tasks:
  - {id: first, type: bash, command: 'echo to stderr >&2; echo 41; echo 42'}
  - {id: second, type: bash, command: 'echo \"$W got $N\"', env: {N: '{{ outputs.first.return_value }}', W: '{{ params.who }}'}}
",
        )
        .await;
    let server = world.server().await;
    let _worker = start(worker(&world, &server.url(), &[]));
    let key = server.trigger("hello").await;
    assert_eq!(server.end_of(&key).await, RunState::Success);
    let instances = server.get(&format!("{}/taskInstances", path_of(&key))).await;
    assert_eq!(instances["task_instances"][1]["outputs"]["return_value"], "you got 42", "{instances}");
    let log = format!("{}/taskInstances/first/logs/1", path_of(&key));
    let log = server.request(Method::GET, &log, Some(super::server::VIEWER)).send().await.unwrap();
    let log = log.text().await.unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.iter().any(|line| line.ends_with("Z 41")), "each line has its time: {log}");
    assert!(lines.iter().any(|line| line.ends_with("stderr: to stderr")), "{log}");
    let workers = server.get("/api/v1/workers").await;
    assert_eq!((&workers["total_entries"], &workers["workers"][0]["local"]), (&json!(1), &json!(false)));
}

#[tokio::test]
async fn a_worker_with_a_wrong_or_expired_token_ends_and_says_why() {
    let world = World::new().await;
    let server = world.server().await;
    for (secret, words) in [
        ("unknown-unknown-unknown-unknown", "the token is not one of this server's"),
        (EXPIRED, "the token was good until 2020-01-01"),
    ] {
        let mut command = worker_with(&world, &server.url(), secret, &[]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn a_killed_worker_costs_its_task_no_retry() {
    let world = World::new().await;
    let (began, alive) = (world.fifo("began"), world.fifo("alive"));
    let first = format!("test -e {0} && exit 0; touch {0}; ", world.path("been").display());
    world.take_up(&long_task(&began, &alive).replace("command: '", &format!("command: '{first}"))).await;
    let server = world.server_with(short_lease()).await;
    let killed = start(worker(&world, &server.url(), &["--name", "dies"]));
    let key = server.trigger("one").await;
    let alive = hear(&alive, None);
    let group = in_time(hear(&began, Some(1))).await;
    killed.signal("-KILL");
    killed.end().await;
    // The program of a worker that was killed outlives it: nothing is left here, whatever comes.
    let group = format!("-{}", group.trim());
    assert!(std::process::Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
    in_time(alive).await;
    let _other = start(worker(&world, &server.url(), &["--name", "lives"]));
    assert_eq!(server.end_of(&key).await, RunState::Success);
    let found = instance(&world, &key).await;
    assert_eq!((found.try_number, found.lost_count), (1, 1), "{found:?}");
    assert!(found.fence.0 > 1, "another claim: {found:?}");
}

#[tokio::test]
async fn cancelling_a_run_ends_the_whole_process_group_of_its_task() {
    let world = World::new().await;
    let (began, alive) = (world.fifo("began"), world.fifo("alive"));
    world.take_up(&long_task(&began, &alive)).await;
    let server = world.server().await;
    let _worker = start(worker(&world, &server.url(), &[]));
    let key = server.trigger("one").await;
    let alive = hear(&alive, None);
    in_time(hear(&began, Some(1))).await;
    server.post(&format!("{}/cancel", path_of(&key)), json!({})).await;
    // Its end comes when nobody holds the pipe any more: neither the shell nor its child, which ignores TERM.
    in_time(alive).await;
    assert_eq!(server.end_of(&key).await, RunState::Cancelled);
}

#[tokio::test]
async fn a_drained_worker_gives_back_what_it_cannot_finish() {
    let world = World::new().await;
    let (began, alive) = (world.fifo("began"), world.fifo("alive"));
    let first = format!("test -e {0} && exit 0; touch {0}; ", world.path("been").display());
    world.take_up(&long_task(&began, &alive).replace("command: '", &format!("command: '{first}"))).await;
    let server = world.server().await;
    let drained = start(worker(&world, &server.url(), &["--grace", "0"]));
    let key = server.trigger("one").await;
    let alive = hear(&alive, None);
    in_time(hear(&began, Some(1))).await;
    drained.signal("-TERM");
    assert_eq!(drained.end().await.code(), Some(0));
    in_time(alive).await;
    let found = instance(&world, &key).await;
    assert_eq!((found.state, found.try_number), (TaskState::Queued, 0), "given back unharmed: {found:?}");
    let sessions = world.store.sessions(world.store.now().await.unwrap()).await.unwrap();
    assert!(sessions.is_empty(), "a drained worker closes its session: {sessions:?}");
    let _other = start(worker(&world, &server.url(), &[]));
    assert_eq!(server.end_of(&key).await, RunState::Success);
    assert_eq!(instance(&world, &key).await.try_number, 1);
}

#[tokio::test]
async fn a_drained_worker_lets_tasks_end_within_the_grace() {
    let world = World::new().await;
    let (began, go_on) = (world.fifo("began"), world.fifo("go_on"));
    world.take_up(&one_task(&format!("echo began >{}; cat {}", began.display(), go_on.display()))).await;
    let server = world.server().await;
    let drained = start(worker(&world, &server.url(), &["--grace", "600"]));
    let key = server.trigger("one").await;
    in_time(hear(&began, Some(1))).await;
    drained.signal("-TERM");
    let said = tokio::task::spawn_blocking(move || std::fs::write(go_on, "done\n").unwrap());
    in_time(said).await;
    assert_eq!(drained.end().await.code(), Some(0));
    assert_eq!(server.end_of(&key).await, RunState::Success);
}

#[tokio::test]
async fn a_task_outlives_a_server_that_is_started_again_within_the_lease() {
    let world = World::new().await;
    let (began, go_on) = (world.fifo("began"), world.fifo("go_on"));
    world.take_up(&one_task(&format!("echo began >{}; cat {}", began.display(), go_on.display()))).await;
    let server = world.server().await;
    let _worker = start(worker(&world, &server.url(), &[]));
    let key = server.trigger("one").await;
    in_time(hear(&began, Some(1))).await;
    let address = server.stop().await;
    let server = world.server_with(With { address, ..With::default() }).await;
    let said = tokio::task::spawn_blocking(move || std::fs::write(go_on, "done\n").unwrap());
    in_time(said).await;
    assert_eq!(server.end_of(&key).await, RunState::Success);
    let found = instance(&world, &key).await;
    assert_eq!(
        (found.fence.0, found.lost_count),
        (1, 0),
        "the same attempt, under the same session: {found:?}"
    );
}

#[tokio::test]
async fn a_worker_that_cannot_trust_its_lease_stops_its_tasks() {
    let world = World::new().await;
    let (began, alive) = (world.fifo("began"), world.fifo("alive"));
    world.take_up(&long_task(&began, &alive)).await;
    let server = world.server_with(short_lease()).await;
    let _worker = start(worker(&world, &server.url(), &[]));
    server.trigger("one").await;
    let alive = hear(&alive, None);
    in_time(hear(&began, Some(1))).await;
    server.stop().await;
    in_time(alive).await;
}

/// The bare protocol.
struct Bare<'a> {
    server: &'a Server,
    session: String,
}

impl<'a> Bare<'a> {
    async fn open(server: &'a Server) -> Self {
        let body = json!({"protocol": 1, "name": "bare worker"});
        let (status, opened) = server.call(Method::POST, "/api/v1/worker/sessions", WORKER, body).await;
        assert_eq!(status, 200, "{opened}");
        Self { server, session: opened["session_id"].as_str().unwrap().to_owned() }
    }

    async fn say(&self, what: &str, body: Value) -> (u16, Value) {
        let path = format!("/api/v1/worker/sessions/{}/{what}", self.session);
        self.server.call(Method::POST, &path, WORKER, body).await
    }

    async fn exchange(&self, seen: u64, free: u32, reports: Value) -> Value {
        let body = json!({"seen": seen, "free": free, "queues": ["default"], "reports": reports});
        let (status, answer) = self.say("exchange", body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn heartbeat(&self, held: Value) -> Value {
        self.say("heartbeat", json!({ "held": held })).await.1
    }
}

fn claim(begin: &Value) -> Value {
    let ticket = &begin["ticket"];
    let names = ["dag_id", "run_id", "task_id", "map_index", "fence"];
    names
        .iter()
        .map(|&name| (name.to_owned(), ticket[name].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn succeeded(begin: &Value) -> Value {
    json!({"ticket": begin["ticket"], "end": {"state": "succeeded", "left": {"json": "", "list_lengths": []}}})
}

const NOOP: &str = "dag_id: one\ntasks: [{id: only, type: noop}]\n";

#[tokio::test]
async fn what_a_lost_answer_handed_out_is_handed_out_again() {
    let world = World::new().await;
    world.take_up(NOOP).await;
    let server = world.server().await;
    let bare = Bare::open(&server).await;
    let key = server.trigger("one").await;
    let lost = bare.exchange(0, 1, json!([])).await;
    assert_eq!(lost["begin"].as_array().map(Vec::len), Some(1), "{lost}");
    // The answer is thought lost: nothing was seen.
    let again = bare.exchange(0, 1, json!([])).await;
    assert_eq!(again["begin"], lost["begin"], "the same claim, not another one");
    assert!(again["seq"].as_u64() > lost["seq"].as_u64());
    let done = json!([succeeded(&again["begin"][0])]);
    let told = bare.exchange(again["seq"].as_u64().unwrap(), 1, done.clone()).await;
    assert_eq!((&told["acks"][0]["status"], &told["begin"]), (&json!(200), &json!([])));
    assert_eq!(server.end_of(&key).await, RunState::Success);
    // The acknowledgement may be lost too: the same outcome again is no error.
    let told = bare.exchange(told["seq"].as_u64().unwrap(), 1, done).await;
    assert_eq!(told["acks"][0]["status"], 200, "{told}");
}

#[tokio::test]
async fn what_no_process_remembers_is_given_back_by_the_second_heartbeat() {
    let world = World::new().await;
    world.take_up(NOOP).await;
    let first = world.server().await;
    let bare = Bare::open(&first).await;
    let key = first.trigger("one").await;
    let lost = bare.exchange(0, 1, json!([])).await;
    assert_eq!(lost["begin"][0]["ticket"]["fence"], 1, "{lost}");
    let session = bare.session;
    first.stop().await;
    let second = world.server().await;
    let bare = Bare { server: &second, session };
    let asked = bare.exchange(0, 1, json!([]));
    let beats = async {
        // Only a session that has come to the new process is looked after there.
        let taken_over = async {
            while second.get("/api/v1/workers").await["workers"][0]["running"] != 1 {
                tokio::task::yield_now().await;
            }
        };
        taken_over.await;
        loop {
            assert_eq!(bare.heartbeat(json!([])).await["stands"], true);
            let found = instance(&world, &key).await;
            assert_eq!(found.lost_count, 0, "a worker that lives and never got it has not lost it");
            if found.fence.0 > 1 {
                return;
            }
        }
    };
    let (answer, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(asked, beats) }).await.unwrap();
    assert!(answer["begin"][0]["ticket"]["fence"].as_i64() > Some(1), "another claim: {answer}");
    assert_eq!(answer["begin"][0]["try_number"], 1, "it is not charged to retries");
}

#[tokio::test]
async fn a_held_claim_survives_heartbeats_and_a_void_one_is_called_void() {
    let world = World::new().await;
    world.take_up(NOOP).await;
    let server = world.server().await;
    let bare = Bare::open(&server).await;
    let key = server.trigger("one").await;
    let begin = bare.exchange(0, 1, json!([])).await["begin"][0].clone();
    for _ in 0..3 {
        let beaten = bare.heartbeat(json!([claim(&begin)])).await;
        assert_eq!((&beaten["stands"], &beaten["void"]), (&json!(true), &json!([])));
    }
    assert_eq!(instance(&world, &key).await.lost_count, 0);
    server.post(&format!("{}/cancel", path_of(&key)), json!({})).await;
    let beaten = bare.heartbeat(json!([claim(&begin)])).await;
    assert_eq!(beaten["void"], json!([claim(&begin)]));
}

#[tokio::test]
async fn a_task_token_opens_one_attempt_alone() {
    let world = World::new().await;
    world.take_up(NOOP).await;
    let server = world.server().await;
    let bare = Bare::open(&server).await;
    let key = server.trigger("one").await;
    let answer = bare.exchange(0, 1, json!([])).await;
    let (seq, begin) = (answer["seq"].as_u64().unwrap(), answer["begin"][0].clone());
    for (name, value) in [("fence", json!(2)), ("token", json!("00")), ("run_id", json!("other"))] {
        let mut forged = begin.clone();
        forged["ticket"][name] = value;
        let told = bare.exchange(seq, 0, json!([succeeded(&forged)])).await;
        assert_eq!(told["acks"][0]["status"], 401, "{name}: {told}");
        assert!(told["acks"][0]["detail"].as_str().unwrap().contains("task token"), "{told}");
        let chunk = json!({"ticket": forged["ticket"], "offset": 0, "text": "x"});
        assert_eq!(bare.say("logs", chunk).await.0, 401, "{name}");
    }
    let found = instance(&world, &key).await;
    assert_eq!(found.state, TaskState::Running, "nothing forged was taken");
    let chunk = |offset: u64, text: &str| json!({"ticket": begin["ticket"], "offset": offset, "text": text});
    assert_eq!(bare.say("logs", chunk(0, "one\n")).await.1["offset"], 4);
    assert_eq!(bare.say("logs", chunk(0, "one\n")).await.1["offset"], 4, "the same piece again");
    assert_eq!(bare.say("logs", chunk(4, "two\n")).await.1["offset"], 8);
    let task = TaskId::parse("only").unwrap();
    let path = mainspring::control::log_path(&world.logs(), &key, &task, -1, found.fence);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn an_outcome_of_a_void_claim_is_refused_and_says_why() {
    let world = World::new().await;
    world.take_up(NOOP).await;
    let server = world.server().await;
    let bare = Bare::open(&server).await;
    let key = server.trigger("one").await;
    let answer = bare.exchange(0, 1, json!([])).await;
    let begin = answer["begin"][0].clone();
    server.post(&format!("{}/clear", path_of(&key)), json!({})).await;
    let told = bare.exchange(answer["seq"].as_u64().unwrap(), 0, json!([])).await;
    assert_eq!(told["stop"], json!([claim(&begin)]), "it hears that the claim is void");
    let told = bare.exchange(told["seq"].as_u64().unwrap(), 0, json!([succeeded(&begin)])).await;
    assert_eq!(told["acks"][0]["status"], 409, "{told}");
    assert!(told["acks"][0]["detail"].as_str().unwrap().contains("fence"), "{told}");
}

#[tokio::test]
async fn a_session_that_has_run_out_takes_and_gets_nothing() {
    let world = World::new().await;
    world.take_up(NOOP).await;
    let server = world.server_with(short_lease()).await;
    let bare = Bare::open(&server).await;
    let key = server.trigger("one").await;
    let begin = bare.exchange(0, 1, json!([])).await["begin"][0].clone();
    // Another worker gets the task once the lease of the first is over.
    let other = Bare::open(&server).await;
    let beats = async {
        loop {
            drop(other.heartbeat(json!([])).await);
            tokio::task::yield_now().await;
        }
    };
    let taken = tokio::select! {
        answer = other.exchange(0, 1, json!([])) => answer,
        () = beats => unreachable!("it never ends"),
    };
    assert!(taken["begin"][0]["ticket"]["fence"].as_i64() > Some(1), "another claim: {taken}");
    assert_eq!(bare.heartbeat(json!([claim(&begin)])).await["stands"], false);
    let late = json!({"seen": 0, "free": 1, "queues": ["default"], "reports": [succeeded(&begin)]});
    let (status, answer) = bare.say("exchange", late).await;
    assert_eq!(status, 410, "{answer}");
    assert_eq!(instance(&world, &key).await.state, TaskState::Running, "held by the other");
    let summary = world.store.run_summary(&key).await.unwrap().unwrap();
    assert_eq!(summary.birth.run_type, RunType::Manual);
}

#[tokio::test]
async fn a_worker_of_another_queue_gets_nothing_of_this_one() {
    let world = World::new().await;
    world
        .take_up("dag_id: one\ntasks:\n  - {id: only, type: noop, queue: gpu}\n  - {id: plain, type: noop}\n")
        .await;
    let server = world.server().await;
    let _plain = start(worker(&world, &server.url(), &[]));
    let key = server.trigger("one").await;
    let bare = Bare::open(&server).await;
    let body = json!({"seen": 0, "free": 2, "queues": ["gpu"], "reports": []});
    let (_, answer) = bare.say("exchange", body).await;
    assert_eq!(answer["begin"][0]["ticket"]["task_id"], "only", "{answer}");
    assert_eq!(answer["begin"].as_array().map(Vec::len), Some(1));
    bare.exchange(1, 0, json!([succeeded(&answer["begin"][0])])).await;
    assert_eq!(server.end_of(&key).await, RunState::Success);
}
