//! What people should hear of: which trouble is one problem, and what ends it.
//!
//! A problem has a key that names no run (`dag/task/kind`): however often the same thing goes wrong, it is
//! opened once, counted, and resolved once. Here stands what a step or another watcher has seen, in words;
//! the store keeps the problems and, in the transaction that writes what happened, finds out whether an
//! [`Occurrence`] opens one, and asks [`is_over`] whether the end of a run resolves one.
//!
//! Only what is final is trouble: an attempt that a retry heals is none. A run that failed because tasks of it
//! did is told by these tasks' problems; it has a problem of its own only if none of them explains it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::dag::Dag;
use super::decision::Decision;
use super::ids::{DagId, RunId, RunKey, SessionId, TaskId, Timestamp};
use super::run::{TiRef, UNMAPPED};
use super::state::spelled;

/// The route of what names none.
pub const DEFAULT_ROUTE: &str = "default";
/// What is kept of an error text, in characters.
const ERROR_CHARS_MAX: usize = 4000;

spelled! {
    /// Kinds of trouble.
    AlertKind {
        /// A run failed, and no failed task of it explains that.
        RunFailed = "run_failed",
        /// A task failed and will not be tried again.
        TaskFailed = "task_failed",
        /// A task was given up because its workers were lost again and again.
        Poisoned = "poisoned",
        /// A gate refused to publish: what was published before stays.
        GateBlocked = "gate_blocked",
        /// A figure left its own past, though the task that watches it went on.
        Anomaly = "anomaly",
        /// Data or segments are no longer what they were, though the task that watches them went on.
        Shift = "shift",
        /// A run has not succeeded in time.
        DeadlineMissed = "deadline_missed",
        /// A schedule did not fire when it should have.
        ScheduleStalled = "schedule_stalled",
        /// A DAG file cannot be read.
        ImportError = "import_error",
        /// A worker is gone.
        WorkerLost = "worker_lost",
    }
}

spelled! {
    /// Where a problem stands.
    ProblemState {
        /// It goes on.
        Open = "open",
        /// It is over.
        Resolved = "resolved",
    }
}

/// Trouble that a step found in its run; part of the [`Decision`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What kind of trouble: `RunFailed`, `TaskFailed`, `Poisoned`, `GateBlocked`, `Anomaly` or `Shift`.
    pub kind: AlertKind,
    /// The task instance, if it is about one.
    pub ti: Option<TiRef>,
    /// Attempts made, if it is about a task instance.
    pub tries: u32,
    /// What went wrong, in one or more lines.
    pub error: Arc<str>,
}

spelled! {
    /// What a task that succeeds may have seen.
    SignKind {
        /// A figure left its own past.
        Anomaly = "anomaly",
        /// Data or segments are no longer what they were.
        Shift = "shift",
    }
}

impl From<SignKind> for AlertKind {
    fn from(kind: SignKind) -> Self {
        match kind {
            SignKind::Anomaly => Self::Anomaly,
            SignKind::Shift => Self::Shift,
        }
    }
}

/// Trouble that a task saw in its data and went on. It is over when the task succeeds without seeing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// What kind.
    pub kind: SignKind,
    /// What was seen, in one or more lines.
    pub text: Arc<str>,
}

/// What the end of a run shows to be well again; part of the [`Decision`] that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Whether the run succeeded.
    pub run_succeeded: bool,
    /// Every task of the DAG; with a time if every instance that ran succeeded: when the last one did.
    pub tasks: Vec<(TaskId, Option<Timestamp>)>,
}

/// Trouble that is not found by stepping a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A schedule did not fire when it should have.
    ScheduleStalled {
        /// The DAG.
        dag_id: DagId,
    },
    /// A DAG file cannot be read.
    ImportError {
        /// The file, as it is named to people.
        file: Arc<str>,
    },
    /// A worker is gone.
    WorkerLost {
        /// Its session.
        session: SessionId,
    },
    /// A run has not succeeded in time. The success of any run of the DAG ends it.
    DeadlineMissed {
        /// The run.
        run: RunKey,
    },
}

/// What a watcher outside of runs has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertEvent {
    /// The trouble is there. Again is harmless: it is the same occurrence until the trouble is over (or, for
    /// a missed deadline, until another run misses it).
    Raised {
        /// What.
        trouble: Trouble,
        /// What went wrong, in one or more lines.
        error: Arc<str>,
        /// The routes of the DAG it is about; empty means the default route.
        routes: Vec<Arc<str>>,
    },
    /// The trouble is over. Without effect if there was none.
    Over {
        /// What.
        trouble: Trouble,
    },
}

/// Names a problem: the same in every run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProblemKey {
    /// The DAG, if it is about one.
    pub dag_id: Option<DagId>,
    /// The task, the file or the worker; absent for what concerns a DAG as a whole.
    pub subject: Option<Arc<str>>,
    /// What kind of trouble.
    pub kind: AlertKind,
}

impl fmt::Display for ProblemKey {
    /// `dag/task/kind`, with `-` for what is absent: no id begins with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dag = self.dag_id.as_ref().map_or("-", DagId::as_str);
        write!(f, "{dag}/{}/{}", self.subject.as_deref().unwrap_or("-"), self.kind)
    }
}

/// One sight of a problem, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// Which problem.
    pub key: ProblemKey,
    /// The run it was seen in. Another run is another occurrence; the same one, or none, is not.
    pub run_id: Option<RunId>,
    /// Who is to be told if this opens the problem; never empty, each once.
    pub routes: Vec<Arc<str>>,
    /// What is wrong, in one line.
    pub summary: String,
    /// What went wrong, in one or more lines.
    pub error: Arc<str>,
}

/// A problem as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub key: ProblemKey,
    /// Where it stands.
    pub state: ProblemState,
    /// When it was first seen.
    pub opened_at: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// In how many runs it was seen, one after the other; 1 for what is not about runs.
    pub occurrences: u64,
    /// When it ended; present exactly when resolved.
    pub resolved_at: Option<Timestamp>,
    /// The run it was last seen in.
    pub last_run_id: Option<RunId>,
    /// What is wrong, in one line, as last seen.
    pub summary: String,
    /// What went wrong, as last seen.
    pub error: String,
}

/// The problems that a decision has seen, in ascending order of their keys. Several instances of one task are
/// one occurrence.
#[must_use]
pub fn occurrences(dag: &Dag, run: &RunKey, decision: &Decision) -> Vec<Occurrence> {
    let mut seen: BTreeMap<ProblemKey, (Occurrence, usize)> = BTreeMap::new();
    for alert in &decision.alerts {
        let task = alert.ti.map(|ti| dag.task(ti.task));
        let key = ProblemKey {
            dag_id: Some(run.dag_id.clone()),
            subject: task.map(|task| task.id.as_str().into()),
            kind: alert.kind,
        };
        if let Some((_, more)) = seen.get_mut(&key) {
            *more += 1;
            continue;
        }
        let named = task.map_or(&[][..], |task| task.alerts.as_slice());
        let named = if named.is_empty() { dag.settings.alerts.as_slice() } else { named };
        let occurrence = Occurrence {
            key: key.clone(),
            run_id: Some(run.run_id.clone()),
            routes: routes(named),
            summary: summary(dag, alert),
            error: shortened(&alert.error),
        };
        seen.insert(key, (occurrence, 0));
    }
    seen.into_values()
        .map(|(mut occurrence, more)| {
            if more > 0 {
                occurrence.error = format!("{}\n(and {more} more of its instances)", occurrence.error).into();
            }
            occurrence
        })
        .collect()
}

fn summary(dag: &Dag, alert: &Alert) -> String {
    let place = alert.ti.map_or_else(String::new, |ti| {
        let task = &dag.task(ti.task).id;
        if ti.map_index == UNMAPPED { format!("`{task}`") } else { format!("`{task}[{}]`", ti.map_index) }
    });
    let dag = &dag.id;
    match alert.kind {
        AlertKind::TaskFailed if alert.tries > 1 => {
            format!("task {place} of `{dag}` failed after {} attempts", alert.tries)
        }
        AlertKind::TaskFailed => format!("task {place} of `{dag}` failed"),
        AlertKind::Poisoned => format!("task {place} of `{dag}` was given up: its workers were lost"),
        AlertKind::GateBlocked => format!("{place} of `{dag}` blocked what was to be published"),
        AlertKind::Anomaly => format!("{place} of `{dag}` saw a figure leave its past"),
        AlertKind::Shift => format!("{place} of `{dag}` saw its data shift"),
        AlertKind::RunFailed
        | AlertKind::DeadlineMissed
        | AlertKind::ScheduleStalled
        | AlertKind::ImportError
        | AlertKind::WorkerLost => format!("a run of `{dag}` failed"),
    }
}

impl Trouble {
    /// The key of the problem.
    #[must_use]
    pub fn key(&self) -> ProblemKey {
        let (dag_id, subject, kind) = match self {
            Self::ScheduleStalled { dag_id } => (Some(dag_id), None, AlertKind::ScheduleStalled),
            Self::ImportError { file } => (None, Some(file.clone()), AlertKind::ImportError),
            Self::WorkerLost { session } => (None, Some(session.as_str().into()), AlertKind::WorkerLost),
            Self::DeadlineMissed { run } => (Some(&run.dag_id), None, AlertKind::DeadlineMissed),
        };
        ProblemKey { dag_id: dag_id.cloned(), subject, kind }
    }

    /// The sight of it, in words.
    #[must_use]
    pub fn occurrence(&self, error: Arc<str>, routes: &[Arc<str>]) -> Occurrence {
        let (run_id, summary) = match self {
            Self::ScheduleStalled { dag_id } => {
                (None, format!("the schedule of `{dag_id}` did not fire when it should have"))
            }
            Self::ImportError { file } => (None, format!("the DAG file `{file}` cannot be read")),
            Self::WorkerLost { session } => (None, format!("the worker `{session}` is gone")),
            Self::DeadlineMissed { run } => {
                (Some(run.run_id.clone()), format!("a run of `{}` has not succeeded in time", run.dag_id))
            }
        };
        Occurrence {
            key: self.key(),
            run_id,
            routes: self::routes(routes),
            summary,
            error: shortened(&error),
        }
    }
}

/// The text, or its beginning if it is long.
fn shortened(text: &Arc<str>) -> Arc<str> {
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => format!("{} … (shortened)", &text[..end]).into(),
        None => text.clone(),
    }
}

/// The routes named, each once; the default one if none is.
fn routes(named: &[Arc<str>]) -> Vec<Arc<str>> {
    let mut routes = named.to_vec();
    routes.sort();
    routes.dedup();
    if routes.is_empty() {
        routes.push(DEFAULT_ROUTE.into());
    }
    routes
}

/// Whether the end of a run ends this open problem of its DAG.
///
/// A task's problem ends with a success of the task that is not older than its last failure, or when a version
/// of the DAG without the task succeeds; what a success saw ends with a later success that does not see it. The
/// problems of runs end with any run's success. A problem with the schedule is not judged by runs.
#[must_use]
pub fn is_over(problem: &Problem, recovery: &Recovery) -> bool {
    match problem.key.kind {
        AlertKind::RunFailed | AlertKind::DeadlineMissed => recovery.run_succeeded,
        AlertKind::TaskFailed
        | AlertKind::Poisoned
        | AlertKind::GateBlocked
        | AlertKind::Anomaly
        | AlertKind::Shift => {
            let is_sign = matches!(problem.key.kind, AlertKind::Anomaly | AlertKind::Shift);
            // The success that saw it is no proof that it is over.
            let proves = |at: Timestamp| at > problem.last_seen || (at == problem.last_seen && !is_sign);
            let subject = problem.key.subject.as_deref().unwrap_or_default();
            match recovery.tasks.iter().find(|(task, _)| task.as_str() == subject) {
                Some((_, at)) => at.is_some_and(proves),
                None => recovery.run_succeeded,
            }
        }
        AlertKind::ScheduleStalled | AlertKind::ImportError | AlertKind::WorkerLost => false,
    }
}
