//! What one commit must be, whoever decided it: the books on attempts, the verdicts of rules, the limits, and
//! the letters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::core::reason::Reason;
use crate::core::run::{AlertKind, Change, Input, Outcome, Severity, TiRef};
use crate::core::state::{RunState, TaskState, legal_moves};

use super::check::{AT_BIRTH, Checker};
use super::oracle::{self, Verdict};
use super::store::{Commit, Store, instances, letter_keys};

static LEGAL: LazyLock<BTreeSet<(TaskState, TaskState)>> =
    LazyLock::new(|| legal_moves().into_iter().collect());

/// Inputs of a commit that were taken.
fn taken(commit: &Commit) -> impl Iterator<Item = &Input> {
    let refused = |place: usize| commit.decision.refused.iter().any(|(at, _)| *at == place);
    commit.inputs.iter().enumerate().filter(move |(place, _)| !refused(*place)).map(|(_, input)| input)
}

/// Whether a person asked for something to be done to `ti`.
fn by_person(commit: &Commit, ti: TiRef) -> bool {
    taken(commit)
        .any(|input| matches!(input, Input::Clear { tis } | Input::Mark { tis, .. } if tis.contains(&ti)))
}

/// The states that a change goes through, the first one aside.
fn path(change: &Change) -> impl Iterator<Item = TaskState> + Clone {
    change.via.iter().copied().chain([change.to.state])
}

impl Checker {
    /// I2, I3, I4, I9: fences rise, every end has its cause, what is final stays, journal and rows agree.
    pub(super) fn book(&mut self, store: &Store, commit: &Commit) {
        let (run, rows) = (commit.run, &store.runs[commit.run].rows);
        let journal = &store.runs[commit.run].journal;
        for line in &journal[journal.len() - commit.decision.changes.len()..] {
            let folded = self.folded.insert((run, line.ti), (line.to, line.fence)).unwrap_or(AT_BIRTH);
            let from = (line.from, line.from_fence);
            self.demand(folded == from, "I9", run, || {
                format!("{} moves from {from:?}, and the journal says that it was {folded:?}", line.ti)
            });
        }
        for change in &commit.decision.changes {
            let ti = change.ti;
            self.demand(LEGAL.contains(&(change.from, change.to.state)), "I4", run, || {
                format!("{ti} moves from `{}` to `{}`", change.from, change.to.state)
            });
            self.demand(!change.from.is_final() || by_person(commit, ti), "I4", run, || {
                format!("{ti} leaves `{}` and nobody asked for it", change.from)
            });
            self.book_attempt(store, commit, change);
        }
        let same = rows.tasks == commit.after.tasks
            && rows.state == commit.after.state
            && (rows.started_at, rows.ended_at) == (commit.after.started_at, commit.after.ended_at)
            && rows.with_failures == commit.after.with_failures;
        self.demand(same, "I9", run, || "the rows are not as the step left the run".to_owned());
        self.demand(rows.list_lengths == commit.after.list_lengths, "I9", run, || {
            format!("the rows keep lists {:?}, the run {:?}", rows.list_lengths, commit.after.list_lengths)
        });
        self.book_inputs(store, commit);
    }

    fn book_attempt(&mut self, _: &Store, commit: &Commit, change: &Change) {
        let (run, ti) = (commit.run, change.ti);
        let (before, after) = (change.from_fence, change.to.fence);
        self.demand(after >= before, "I2", run, || {
            format!("the fence of {ti} goes from {before:?} to {after:?}")
        });
        let begins =
            change.to.state == TaskState::Running && (change.from != TaskState::Running || after != before);
        if change.from == TaskState::Running && (begins || change.to.state != TaskState::Running) {
            let reported = taken(commit).any(
                |input| matches!(input, Input::Reported { ti: of, fence, .. } if (*of, *fence) == (ti, before)),
            );
            let revoked = commit.decision.revoked.contains(&(ti, before));
            self.demand(reported || revoked, "I3", run, || {
                format!("the attempt at {ti} under fence {} ends without a cause", before.0)
            });
            self.demand(!revoked || after > before, "I3", run, || {
                format!("the attempt at {ti} was given up and its fence {} stands", before.0)
            });
        }
        if begins {
            let holding = (run, ti, after);
            let session = change.to.session.as_ref().map(super::store::session_no);
            let is_new = self.claims.insert(holding, session.unwrap_or(usize::MAX)).is_none();
            self.demand(is_new && after > before, "I2", run, || {
                format!("{ti} starts a second time under fence {}", after.0)
            });
        }
    }

    /// One outcome per claim; losses and failures counted since the last clear.
    fn book_inputs(&mut self, store: &Store, commit: &Commit) {
        let run = commit.run;
        let moved: BTreeMap<TiRef, &Change> = commit.decision.changes.iter().map(|it| (it.ti, it)).collect();
        let inputs: Vec<Input> = taken(commit).cloned().collect();
        for input in &inputs {
            match input {
                Input::Reported { ti, fence, outcome } => {
                    let is_first = self.accepted.insert((run, *ti, *fence));
                    self.demand(is_first, "I2", run, || {
                        format!("a second outcome of {ti} under fence {} is taken", fence.0)
                    });
                    let stood = moved.get(ti).is_some_and(|change| {
                        (change.from, change.from_fence) == (TaskState::Running, *fence)
                    });
                    self.demand(stood, "I3", run, || {
                        format!("an outcome of {ti} under fence {} is taken, which did not stand", fence.0)
                    });
                    if let Some(change) = moved.get(ti) {
                        self.book_failure(commit, change, outcome);
                    }
                }
                Input::Lost { ti, fence } => {
                    let holding = (run, *ti, *fence);
                    self.lost.insert(holding);
                    let stood = moved.get(ti).is_some_and(|change| {
                        (change.from, change.from_fence) == (TaskState::Running, *fence)
                    });
                    let holder = self.claims.get(&holding).copied().unwrap_or(usize::MAX);
                    let is_dead = !store.is_live(holder);
                    self.demand(stood, "I3", run, || {
                        format!("a loss of {ti} under fence {} is taken, which did not stand", fence.0)
                    });
                    self.demand(is_dead, "I3", run, || {
                        format!("{ti} is given up as lost while the lease of its session {holder} is good")
                    });
                    if let Some(change) = moved.get(ti) {
                        self.book_loss(store, commit, change);
                    }
                }
                Input::Tick
                | Input::Claimed { .. }
                | Input::Clear { .. }
                | Input::Mark { .. }
                | Input::Cancel => {}
            }
        }
        for change in &commit.decision.changes {
            self.book_tries(commit, change);
        }
    }

    fn book_failure(&mut self, commit: &Commit, change: &Change, outcome: &Outcome) {
        let Outcome::Failed { severity, .. } = outcome else { return };
        let (run, ti) = (commit.run, change.ti);
        let tally = self.tallies.entry((run, ti)).or_default();
        tally.0 += 1;
        let failures = tally.0;
        let retries = commit.dag.task(ti.task).retry.retries;
        let again = !matches!(severity, Severity::Permanent | Severity::Blocked) && failures <= retries;
        let then = path(change).next().unwrap_or(change.to.state);
        let expected = if again { TaskState::UpForRetry } else { TaskState::Failed };
        self.demand(then == expected, "retries", run, || {
            format!("{ti} is `{then}` after failure {failures}, with {retries} retries")
        });
    }

    fn book_loss(&mut self, store: &Store, commit: &Commit, change: &Change) {
        let (run, ti) = (commit.run, change.ti);
        let tally = self.tallies.entry((run, ti)).or_default();
        tally.1 += 1;
        let losses = tally.1;
        let pool = &store.runs[run].pinned.task(ti.task).pool;
        *self.losses_by_pool.entry(pool.clone()).or_default() += 1;
        let then = path(change).next().unwrap_or(change.to.state);
        let expected = if losses >= 3 { TaskState::Failed } else { TaskState::Scheduled };
        self.demand(then == expected, "losses", run, || format!("{ti} is `{then}` after loss {losses}"));
    }

    fn book_tries(&mut self, commit: &Commit, change: &Change) {
        let (run, ti, to) = (commit.run, change.ti, &change.to);
        if path(change).any(|state| state == TaskState::None) && by_person(commit, ti) {
            self.tallies.remove(&(run, ti));
        }
        let (failures, losses) = self.tallies.get(&(run, ti)).copied().unwrap_or_default();
        self.demand(to.lost_count == losses, "losses", run, || {
            format!("{ti} was lost {losses} times and its row says {}", to.lost_count)
        });
        let begins = to.state == TaskState::Running && to.fence != change.from_fence;
        self.demand(!begins || to.try_number == failures + 1, "retries", run, || {
            format!("{ti} begins try {} after {failures} failures", to.try_number)
        });
    }

    /// I5, I6, I7: every start and every skip as its rule says, nobody forgotten, the run's state that of its
    /// tasks.
    pub(super) fn judge(&mut self, store: &Store, commit: &Commit) {
        let (run, rows, dag) = (commit.run, &store.runs[commit.run].rows, &store.runs[commit.run].pinned);
        // A verdict stands that was given before `fail_fast` ended what it was given on.
        let fast = |change: &Change| matches!(change.reason, Reason::FailFast { .. });
        let ended_fast = commit.decision.changes.iter().any(fast);
        for change in &commit.decision.changes {
            let leaves_none = change.from == TaskState::None || change.via.contains(&TaskState::None);
            let verdict = || oracle::verdict(dag, &rows.tasks, change.ti.task);
            let active =
                matches!(change.to.state, TaskState::Scheduled | TaskState::Queued | TaskState::Running);
            self.demand(!(leaves_none && active) || verdict() == Verdict::Run, "I5", run, || {
                format!("{} is `{}` and its rule says {:?}", change.ti, change.to.state, verdict())
            });
            let by_rule = matches!(change.reason, Reason::Rule { .. })
                && dag.task(change.ti.task).expand.is_none()
                && !ended_fast;
            let expected =
                if change.to.state == TaskState::Skipped { Verdict::Skip } else { Verdict::UpstreamFailed };
            self.demand(!by_rule || verdict() == expected, "I5", run, || {
                format!("{} is `{}` by its rule, which says {:?}", change.ti, change.to.state, verdict())
            });
        }
        match rows.state {
            RunState::Queued => {}
            RunState::Running => self.nobody_is_forgotten(store, commit),
            RunState::Success | RunState::Failed | RunState::Cancelled => self.is_decided(store, commit),
        }
    }

    fn nobody_is_forgotten(&mut self, store: &Store, commit: &Commit) {
        let (run, rows, dag) = (commit.run, &store.runs[commit.run].rows, &store.runs[commit.run].pinned);
        let mut is_driven = false;
        for (ti, it) in instances(rows) {
            is_driven |= !it.state.is_final() && it.state != TaskState::None;
            if it.state != TaskState::None {
                continue;
            }
            let verdict = oracle::verdict(dag, &rows.tasks, ti.task);
            let waits = verdict == Verdict::Wait
                || (verdict == Verdict::Run && oracle::list_is_open(dag, &rows.tasks, ti.task));
            self.demand(waits, "I7", run, || format!("{ti} is `none` and its rule says {verdict:?}"));
        }
        self.demand(is_driven, "I7", run, || "the run is `running` and nothing drives it".to_owned());
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other reasons are judged by the oracle")]
    fn is_decided(&mut self, store: &Store, commit: &Commit) {
        let (run, rows, dag) = (commit.run, &store.runs[commit.run].rows, &store.runs[commit.run].pinned);
        let open = instances(rows).find(|(_, it)| !it.state.is_final()).map(|(ti, _)| ti);
        self.demand(open.is_none(), "I6", run, || {
            format!("the run is `{}` and {open:?} is open", rows.state)
        });
        let Some(change) = &commit.decision.run_change else { return };
        let expected = match change.reason {
            Reason::Cancelled => RunState::Cancelled,
            Reason::RunTimedOut => RunState::Failed,
            _ if oracle::run_failed(dag, &rows.tasks) => RunState::Failed,
            _ => RunState::Success,
        };
        self.demand(change.to == expected, "I6", run, || {
            format!("the run is `{}` and its tasks say `{expected}`", change.to)
        });
        let asked = taken(commit).any(|input| *input == Input::Cancel);
        self.demand(change.to != RunState::Cancelled || asked, "I6", run, || {
            "the run is `cancelled` and nobody asked for it".to_owned()
        });
    }

    /// I8: pools, active runs, and the limits of the run and of its tasks.
    pub(super) fn limits(&mut self, store: &Store, commit: &Commit) {
        let run = commit.run;
        let row = &store.runs[run];
        for (pool, size) in &store.pools {
            let used = store.slots_used(pool);
            self.demand(used <= u64::from(*size), "I8", run, || {
                format!("{used} slots of pool `{pool}` are held, it has {size}")
            });
        }
        let starts = commit.decision.run_change.as_ref().is_some_and(|change| change.to == RunState::Running);
        if starts {
            let (active, limit) = (store.active_runs(row.dag), row.pinned.settings.max_active_runs);
            self.demand(active <= limit, "I8", run, || {
                format!("{active} runs are active, the limit is {limit}")
            });
        }
        let holding: Vec<TiRef> =
            instances(&row.rows).filter(|(_, it)| it.state.holds_slots()).map(|(ti, _)| ti).collect();
        let limit = row.pinned.settings.max_active_tasks;
        self.demand(holding.len() <= limit as usize, "I8", run, || {
            format!("{} tasks are active, `max_active_tasks` is {limit}", holding.len())
        });
        for change in commit
            .decision
            .changes
            .iter()
            .filter(|change| change.to.state.holds_slots() && !change.from.holds_slots())
        {
            let task = row.pinned.task(change.ti.task);
            let Some(limit) = task.max_active_tis_per_dag else { continue };
            let active = store.instances_of(row.dag, &task.id);
            self.demand(active <= limit as usize, "I8", run, || {
                format!("{active} instances of `{}` are active in all runs, the limit is {limit}", task.id)
            });
        }
        for (ix, task) in row.pinned.tasks().iter().enumerate() {
            let Some(limit) = task.max_active_tis_per_dagrun else { continue };
            let here = holding.iter().filter(|ti| ti.task == ix).count();
            self.demand(here <= limit as usize, "I8", run, || {
                format!("{here} instances of `{}` are active in the run, the limit is {limit}", task.id)
            });
        }
    }

    /// I10: each failure for good and each end of a run has its letter, and there is no other.
    pub(super) fn letters_of(&mut self, store: &Store, commit: &Commit) {
        let (run, row) = (commit.run, &store.runs[commit.run]);
        let failed = commit.decision.changes.iter().filter(|change| {
            path(change).any(|state| state == TaskState::Failed) && !by_person(commit, change.ti)
        });
        let failed: BTreeSet<usize> = failed.map(|change| change.ti.task).collect();
        let marked: BTreeSet<usize> = commit
            .decision
            .changes
            .iter()
            .filter(|it| by_person(commit, it.ti))
            .map(|it| it.ti.task)
            .collect();
        let of_failure = |kind: AlertKind| !matches!(kind, AlertKind::Anomaly | AlertKind::Shift);
        let alerts = commit.decision.alerts.iter().filter(|alert| of_failure(alert.kind));
        let told: BTreeSet<usize> = alerts.filter_map(|alert| alert.ti).map(|ti| ti.task).collect();
        let differ: Vec<_> =
            failed.symmetric_difference(&told).filter(|task| !marked.contains(task)).collect();
        self.demand(differ.is_empty(), "I10", run, || {
            format!("tasks {failed:?} failed for good and letters tell of {told:?}")
        });
        let of_run: Vec<AlertKind> = commit
            .decision
            .alerts
            .iter()
            .filter(|alert| alert.ti.is_none())
            .map(|alert| alert.kind)
            .collect();
        let end = commit.decision.run_change.as_ref().filter(|it| it.to.is_final());
        let by_tasks = end.is_some_and(|it| matches!(it.reason, Reason::TasksFailed { .. }))
            && instances(&row.rows).any(|(_, it)| it.state == TaskState::Failed);
        let expected = match end.map(|it| it.to) {
            Some(RunState::Failed) if !by_tasks => vec![AlertKind::RunFailed],
            _ => Vec::new(),
        };
        self.demand(of_run == expected, "I10", run, || {
            format!("the run is `{}` and letters say {of_run:?}", row.rows.state)
        });
        let told_of_end = commit.decision.recovery.as_ref().map(|recovery| recovery.run_succeeded);
        let expected = end.map(|it| it.to).filter(|&to| to != RunState::Cancelled);
        self.demand(told_of_end == expected.map(|to| to == RunState::Success), "I10", run, || {
            format!("the run is `{}` and what is well again says {told_of_end:?}", row.rows.state)
        });
        let keys = letter_keys(&row.rows.birth.key, row.rows.version, &commit.decision);
        self.letters.extend(keys);
    }
}
