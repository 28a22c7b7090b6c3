//! One session of a worker: what it holds, what it says to the server, and how it ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{CallError, Client};
use super::heartbeat::{Beat, Heart, Held};
use super::logs::Logs;
use super::outbox::Outbox;
use super::{Reports, WAIT_FIRST, WAIT_MAX};
use crate::control::wire::{Begin, ClaimName, DagVersion, Done, End, Exchange, Exchanged, Ticket};
use crate::control::{Handout, log_path};
use crate::core::dag::Dag;
use crate::core::ids::Fence;
use crate::core::run::{Outcome, Severity};
use crate::dagbag;
use crate::worker::{self, Key, Link, Running, Settings};

/// Longer than a server lets a worker wait for work.
const EXCHANGE_MAX: Duration = Duration::from_secs(40);
const VERSION_MAX: Duration = Duration::from_secs(20);
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long attempts that were stopped may take to end.
const STOP_MAX: Duration = Duration::from_secs(15);
/// How long outcomes are still offered once everything has ended.
const LAST_WORDS_MAX: Duration = Duration::from_secs(10);
/// DAG versions kept.
const VERSIONS_MAX: usize = 256;

/// An open session.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) id: String,
    pub(super) lease: Duration,
    /// When it was asked for.
    pub(super) opened: Instant,
    pub(super) queues: Vec<String>,
    pub(super) slots: u32,
    pub(super) grace: Duration,
    pub(super) drain: CancellationToken,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// As it was told to.
    Drained,
    /// Its lease cannot be trusted any more.
    Lost,
}

/// What was asked of the server.
enum Answer {
    Exchanged {
        carrying: bool,
        answer: Result<Exchanged, CallError>,
    },
    Version(String, Result<DagVersion, CallError>),
    /// The log of an attempt that has ended was carried.
    Told(Done),
}

struct Work {
    session: Session,
    settings: Arc<Settings>,
    outbox: Outbox,
    /// What the worker has, with the right to report on it.
    tickets: BTreeMap<Key, Ticket>,
    held: Held,
    /// Hand-outs that wait for their DAG version.
    waiting: BTreeMap<String, Vec<Begin>>,
    versions: BTreeMap<String, Arc<Dag>>,
    handouts: mpsc::UnboundedSender<Handout>,
    logs: Logs,
    calls: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Exchanges under way: two at most, of which one carries outcomes.
    exchanges: u32,
    /// Those outcomes.
    carried: Option<Vec<Done>>,
    /// Attempts whose outcome is not known.
    busy: u32,
    /// Outcomes that wait for the rest of their logs.
    telling: u32,
    seen: u64,
    draining: bool,
    /// After a call that failed nothing is asked until then.
    again_at: Option<Instant>,
    wait: Duration,
}

impl Session {
    /// Works until the session is over. Answers with the outcomes that nobody has taken.
    pub(super) async fn work(
        self,
        settings: Arc<Settings>,
        unsaid: VecDeque<Done>,
    ) -> (Ended, VecDeque<Done>) {
        let (tell, mut ended) = mpsc::unbounded_channel();
        let (handouts, inbox) = mpsc::unbounded_channel();
        let (running, attempts) = (Running::default(), TaskTracker::new());
        let link = Link::Remote(Reports(tell));
        let worker = worker::run(settings.clone(), link, inbox, running.clone(), attempts.clone());
        let worker = tokio::spawn(worker);
        let held = Held::default();
        let closed = CancellationToken::new();
        let mut heart = Beat {
            client: self.client.clone(),
            session: self.id.clone(),
            lease: self.lease,
            asked: self.opened,
            held: held.clone(),
            stop: closed.clone(),
        }
        .start();
        let logs = Logs::new(self.client.clone(), self.id.clone());
        let carrier = tokio::spawn(logs.clone().carry_on());
        let mut work = Work {
            session: self,
            settings,
            outbox: Outbox::new(unsaid),
            tickets: BTreeMap::new(),
            held,
            waiting: BTreeMap::new(),
            versions: BTreeMap::new(),
            handouts,
            logs,
            calls: FuturesUnordered::new(),
            exchanges: 0,
            carried: None,
            busy: 0,
            telling: 0,
            seen: 0,
            draining: false,
            again_at: None,
            wait: WAIT_FIRST,
        };
        let how = work.go_on(&mut heart, &mut ended, &running).await;
        if how == Ended::Lost {
            work.let_go(&running, &mut ended).await;
        }
        closed.cancel();
        carrier.abort();
        if how == Ended::Drained
            && let Err(error) =
                work.session.client.delete(&format!("sessions/{}", work.session.id), CLOSE_MAX).await
        {
            tracing::warn!(%error, "the session is not closed; its lease will run out");
        }
        let Work { handouts, outbox, .. } = work;
        drop(handouts);
        if let Err(error) = worker.await {
            tracing::error!(%error, "the worker's loop ended badly");
        }
        (how, outbox.into_waiting())
    }
}

/// Waits for a time; for ever without one.
async fn until(time: Option<Instant>) {
    match time {
        // The timer is the event that is waited for.
        Some(time) => drop(tokio::time::timeout_at(time.into(), std::future::pending::<()>()).await),
        None => std::future::pending().await,
    }
}

impl Work {
    async fn go_on(
        &mut self,
        heart: &mut Heart,
        ended: &mut mpsc::UnboundedReceiver<(Key, Outcome)>,
        running: &Running,
    ) -> Ended {
        let drain = self.session.drain.clone();
        let mut give_back_at = None;
        let mut over_at = None;
        loop {
            if self.draining && self.busy == 0 && over_at.is_none() {
                over_at = Some(Instant::now() + LAST_WORDS_MAX);
            }
            if over_at.is_some() && self.outbox.is_empty() && self.calls.is_empty() {
                return Ended::Drained;
            }
            self.ask();
            tokio::select! {
                biased;
                () = heart.lost.cancelled() => return Ended::Lost,
                Some(answer) = self.calls.next(), if !self.calls.is_empty() => {
                    if self.take(answer) == Some(Ended::Lost) {
                        return Ended::Lost;
                    }
                }
                Some((key, outcome)) = ended.recv() => {
                    self.ended(key, &outcome);
                    while let Ok((key, outcome)) = ended.try_recv() {
                        self.ended(key, &outcome);
                    }
                }
                Some(claim) = heart.void.recv() => self.stop(&claim),
                () = drain.cancelled(), if !self.draining => {
                    self.draining = true;
                    give_back_at = Some(Instant::now() + self.session.grace);
                }
                () = until(give_back_at) => {
                    give_back_at = None;
                    running.give_back();
                }
                () = until(over_at) => return Ended::Drained,
                () = until(self.again_at) => self.again_at = None,
            }
        }
    }

    /// Asks for what is wanted: one exchange that listens, and one that carries outcomes, which ends the listening.
    fn ask(&mut self) {
        if self.again_at.is_some() {
            return;
        }
        let carrying = !self.outbox.is_empty() && self.carried.is_none();
        let listens = self.exchanges == 0 && !self.draining;
        if !(carrying || listens) {
            return;
        }
        let reports = if carrying { self.outbox.take() } else { Vec::new() };
        if carrying {
            self.carried = Some(reports.clone());
        }
        let free = if self.draining { 0 } else { self.session.slots.saturating_sub(self.busy) };
        let body = Exchange { seen: self.seen, free, queues: self.session.queues.clone(), reports };
        self.exchanges += 1;
        let client = self.session.client.clone();
        let path = format!("sessions/{}/exchange", self.session.id);
        self.calls.push(Box::pin(async move {
            Answer::Exchanged { carrying, answer: client.post(&path, &body, EXCHANGE_MAX).await }
        }));
    }

    fn take(&mut self, answer: Answer) -> Option<Ended> {
        match answer {
            Answer::Told(done) => {
                self.telling -= 1;
                self.outbox.put(done);
            }
            Answer::Version(hash, version) => self.version(hash, version),
            Answer::Exchanged { carrying, answer } => {
                self.exchanges -= 1;
                let carried = if carrying { self.carried.take() } else { None }.unwrap_or_default();
                match answer {
                    Ok(answer) => {
                        self.wait = WAIT_FIRST;
                        self.exchanged(carried, answer);
                    }
                    Err(error) => {
                        self.outbox.put_back(carried);
                        if matches!(error, CallError::Gone(_)) {
                            tracing::error!(%error, "the server has given this session up");
                            return Some(Ended::Lost);
                        }
                        self.failed(&error);
                    }
                }
            }
        }
        None
    }

    fn failed(&mut self, error: &CallError) {
        tracing::warn!(%error, "the server does not do what it is asked; trying again");
        self.again_at = Some(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(WAIT_MAX);
    }

    fn exchanged(&mut self, carried: Vec<Done>, answer: Exchanged) {
        for done in self.outbox.settle(carried, &answer.acks) {
            self.held.lock().expect("nothing panics while it is held").remove(&done.ticket.claim);
        }
        for claim in &answer.stop {
            self.stop(claim);
        }
        // An answer that was overtaken holds nothing that the later one did not.
        if answer.seq > self.seen {
            self.seen = answer.seq;
            for begin in answer.begin {
                self.begin(begin);
            }
        }
    }

    fn begin(&mut self, begin: Begin) {
        let key = match key(&begin.ticket) {
            Ok(key) => key,
            Err(error) => return tracing::error!(%error, "a hand-out cannot be read"),
        };
        if !self.held.lock().expect("nothing panics while it is held").insert(begin.ticket.claim.clone()) {
            return;
        }
        self.busy += 1;
        self.tickets.insert(key, begin.ticket.clone());
        match self.versions.get(&begin.dag_hash).cloned() {
            Some(dag) => self.start(&begin, dag),
            None => {
                let hash = begin.dag_hash.clone();
                let others = self.waiting.entry(hash.clone()).or_default();
                others.push(begin);
                if others.len() == 1 {
                    self.fetch(hash, None);
                }
            }
        }
    }

    fn fetch(&mut self, hash: String, wait_until: Option<Instant>) {
        let client = self.session.client.clone();
        self.calls.push(Box::pin(async move {
            if wait_until.is_some() {
                until(wait_until).await;
            }
            let version = client.get(&format!("dagVersions/{hash}"), VERSION_MAX).await;
            Answer::Version(hash, version)
        }));
    }

    fn version(&mut self, hash: String, version: Result<DagVersion, CallError>) {
        let read = match version {
            Ok(DagVersion { source }) => dagbag::dag_from_source(&source).map_err(|problems| {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                format!(
                    "this worker cannot read the DAG version: {first}\nhint: was it built with all features?"
                )
            }),
            Err(CallError::Unreachable(why)) => {
                tracing::warn!(why, "a DAG version is not there yet; trying again");
                let again_at = Instant::now() + self.wait;
                self.wait = (self.wait * 2).min(WAIT_MAX);
                return self.fetch(hash, Some(again_at));
            }
            Err(error) => Err(format!("the server does not give the DAG version: {error}")),
        };
        let waiting = self.waiting.remove(&hash).unwrap_or_default();
        match read {
            Ok(dag) => {
                let dag = Arc::new(dag);
                if self.versions.len() >= VERSIONS_MAX {
                    self.versions.retain(|_, dag| Arc::strong_count(dag) > 1);
                }
                self.versions.insert(hash, dag.clone());
                for begin in waiting {
                    self.start(&begin, dag.clone());
                }
            }
            Err(why) => {
                for begin in waiting {
                    self.cannot_start(&begin.ticket, &why);
                }
            }
        }
    }

    fn start(&mut self, begin: &Begin, dag: Arc<Dag>) {
        let assignment = match begin.assignment(dag) {
            Ok(assignment) => assignment,
            Err(error) => return self.cannot_start(&begin.ticket, &error.to_string()),
        };
        let birth = assignment.birth.clone();
        let task = &assignment.dag.task(assignment.ti.task).id;
        let path = log_path(&self.settings.logs, &birth.key, task, assignment.ti.map_index, assignment.fence);
        let key = (birth.key.clone(), assignment.ti, assignment.fence);
        self.logs.begin(key, begin.ticket.clone(), path);
        if self.handouts.send(Handout::Begin(assignment)).is_err() {
            self.cannot_start(&begin.ticket, "the worker's loop has ended");
        }
    }

    fn cannot_start(&mut self, ticket: &Ticket, why: &str) {
        tracing::error!(task = ticket.claim.task_id, why, "an attempt cannot be made");
        let outcome = Outcome::Failed { error: why.into(), severity: Severity::Permanent };
        if let Ok(key) = key(ticket) {
            self.ended(key, &outcome);
        }
    }

    /// An attempt has ended: its outcome goes out behind its log.
    fn ended(&mut self, key: Key, outcome: &Outcome) {
        let Some(ticket) = self.tickets.remove(&key) else { return };
        self.busy -= 1;
        let done = Done { ticket, end: End::from(outcome) };
        if self.logs.has_rest(&key) {
            let logs = self.logs.clone();
            self.telling += 1;
            self.calls.push(Box::pin(async move {
                logs.end(&key).await;
                Answer::Told(done)
            }));
        } else {
            self.outbox.put(done);
        }
    }

    /// A claim is void: whoever has it stops. Its outcome will be refused.
    fn stop(&self, claim: &ClaimName) {
        let found = self.tickets.iter().find(|(_, ticket)| ticket.claim == *claim);
        if let Some(((key, ti, fence), _)) = found
            && self.handouts.send(Handout::Stop { key: key.clone(), ti: *ti, fence: *fence }).is_err()
        {
            tracing::debug!("there is nothing left to stop");
        }
    }

    /// The lease is over: stops everything and waits for its end. What ended before that is still offered, to
    /// whoever is next; he knows whether it counts.
    async fn let_go(&mut self, running: &Running, ended: &mut mpsc::UnboundedReceiver<(Key, Outcome)>) {
        running.give_back();
        for begin in std::mem::take(&mut self.waiting).into_values().flatten() {
            if let Ok(key) = key(&begin.ticket) {
                self.ended(key, &Outcome::Interrupted);
            }
        }
        let over_at = Some(Instant::now() + STOP_MAX);
        while self.busy > 0 {
            tokio::select! {
                Some((key, outcome)) = ended.recv() => self.ended(key, &outcome),
                () = until(over_at) => {
                    tracing::error!(attempts = self.busy, "attempts did not end in time and are given up");
                    break;
                }
            }
        }
        // The rest of a log is carried, or left, within its own time; what else is under way is not waited for.
        let over_at = Some(Instant::now() + LAST_WORDS_MAX);
        while self.telling > 0 {
            tokio::select! {
                Some(answer) = self.calls.next() => drop(self.take(answer)),
                () = until(over_at) => break,
            }
        }
        self.outbox.put_back(self.carried.take().unwrap_or_default());
    }
}

fn key(ticket: &Ticket) -> Result<Key, crate::control::wire::Garbled> {
    Ok((ticket.claim.run_key()?, ticket.ti(), Fence(ticket.claim.fence)))
}
