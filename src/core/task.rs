//! One task of a DAG with its settings, every gap filled. What its kind reads stays closed to this floor.

use std::sync::Arc;
use std::time::Duration;

use super::dag::TaskIx;
use super::ids::{PoolName, QueueName, TaskId};
use super::state::spelled;

spelled! {
    /// When a task runs, judged on its direct upstreams.
    TriggerRule {
        /// Every upstream succeeded.
        AllSuccess = "all_success",
        /// Every upstream failed.
        AllFailed = "all_failed",
        /// Every upstream is final.
        AllDone = "all_done",
        /// Every upstream was skipped.
        AllSkipped = "all_skipped",
        /// One upstream succeeded; does not wait for the others.
        OneSuccess = "one_success",
        /// One upstream failed; does not wait for the others.
        OneFailed = "one_failed",
        /// One upstream succeeded or failed; does not wait for the others.
        OneDone = "one_done",
        /// Every upstream succeeded or was skipped.
        NoneFailed = "none_failed",
        /// Every upstream succeeded or was skipped, and one succeeded.
        NoneFailedMinOneSuccess = "none_failed_min_one_success",
        /// Every upstream is final and none was skipped.
        NoneSkipped = "none_skipped",
        /// Every upstream is final, none was skipped, one succeeded.
        AllDoneMinOneSuccess = "all_done_min_one_success",
        /// At once.
        Always = "always",
    }
}

spelled! {
    /// How a task's priority grows from its place in the DAG.
    WeightRule {
        /// Its own weight plus those of all its descendants.
        Downstream = "downstream",
        /// Its own weight plus those of all its ancestors.
        Upstream = "upstream",
        /// Its own weight.
        Absolute = "absolute",
    }
}

/// When and how often a failed attempt is followed by another.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: u32,
    /// The wait after the first failed attempt.
    pub delay: Duration,
    /// The factor from one wait to the next; 0 is a constant wait without jitter.
    pub exponential_backoff: f64,
    /// No wait is longer.
    pub delay_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 0,
            delay: Duration::from_secs(300),
            exponential_backoff: 0.0,
            delay_max: Duration::from_secs(86_400),
        }
    }
}

/// Dynamic mapping: one instance for each element of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expand {
    /// A list written in the file: its length.
    Fixed(u32),
    /// The list that an upstream's attempt left under `key`.
    Output {
        /// The upstream; always among the task's direct upstreams.
        task: TaskIx,
        /// The name of the output.
        key: String,
    },
}

/// One task of a DAG.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name; with its groups' names in front.
    pub id: TaskId,
    /// The kind of work, for instance `transform`.
    pub kind: Arc<str>,
    /// The kind's own settings as JSON text, closed to this floor.
    pub spec: Arc<str>,
    /// When it runs.
    pub trigger_rule: TriggerRule,
    /// A template expression that the worker judges before the work; false skips the task.
    pub when: Option<Arc<str>>,
    /// Whether the kind chooses among its direct downstreams (`branch`, `short_circuit`).
    pub retry: RetryPolicy,
    /// The longest one attempt may take.
    pub execution_timeout: Option<Duration>,
    /// Where its slots come from.
    pub pool: PoolName,
    /// How many slots one instance holds.
    pub pool_slots: u32,
    /// Its own weight.
    pub priority_weight: i32,
    /// How its priority grows from its place.
    pub weight_rule: WeightRule,
    /// Which workers may take it.
    pub queue: QueueName,
    /// The same task in the run before must be `success` or `skipped`.
    pub depends_on_past: bool,
    /// As `depends_on_past`, and also the direct downstreams of that task.
    pub wait_for_downstream: bool,
    /// Running instances at once over all runs.
    pub max_active_tis_per_dag: Option<u32>,
    /// Running instances at once within one run.
    pub max_active_tis_per_dagrun: Option<u32>,
    /// One instance per element of a list.
    pub expand: Option<Expand>,
    /// Prepares what others need; see `teardown_for`.
    pub setup: bool,
    /// The setups that this task cleans up after; empty for a task that is no teardown.
    pub teardown_for: Vec<TaskIx>,
    /// Names of assets read and written, for lineage.
    pub inlets: Vec<Arc<str>>,
    /// Names of assets written.
    pub outlets: Vec<Arc<str>>,
    /// Alert routes; empty means those of the DAG.
    pub alerts: Vec<Arc<str>>,
    /// The settings all kinds share but this floor does not judge (`env`, `retry_on`, the elements of
    /// `expand`, `doc_md`), as JSON text for the worker.
    pub extra: Arc<str>,
}

impl Task {
    /// A task with every default, as a DAG file that says only `id` and `type` means it.
    #[must_use]
    pub fn new(id: TaskId, kind: &str) -> Self {
        Self {
            id,
            kind: kind.into(),
            spec: "{}".into(),
            trigger_rule: TriggerRule::AllSuccess,
            when: None,
            retry: RetryPolicy::default(),
            execution_timeout: None,
            pool: PoolName::parse(DEFAULT_POOL).expect("the constant is a valid name"),
            pool_slots: 1,
            priority_weight: 1,
            weight_rule: WeightRule::Downstream,
            queue: QueueName::parse(DEFAULT_QUEUE).expect("the constant is a valid name"),
            depends_on_past: false,
            wait_for_downstream: false,
            max_active_tis_per_dag: None,
            max_active_tis_per_dagrun: None,
            expand: None,
            setup: false,
            teardown_for: Vec::new(),
            inlets: Vec::new(),
            outlets: Vec::new(),
            alerts: Vec::new(),
            extra: "{}".into(),
        }
    }

    /// Whether it cleans up after setups.
    #[must_use]
    pub fn is_teardown(&self) -> bool {
        !self.teardown_for.is_empty()
    }
}

/// The pool of tasks that name none. It has no limit unless one is set.
pub const DEFAULT_POOL: &str = "default_pool";
/// The queue of tasks that name none.
pub const DEFAULT_QUEUE: &str = "default";
