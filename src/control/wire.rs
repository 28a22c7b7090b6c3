//! What a server and a worker elsewhere say to each other, as JSON, both ways: the two ends of the worker API
//! are made of these values, and of nothing else.
//!
//! Ids travel as text and are parsed where they arrive. Times are microseconds since 1970, UTC.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::{Assignment, SharedOutputs};
use crate::core::dag::{Dag, Task};
use crate::core::ids::{DagHash, DagId, Fence, RunId, RunKey, TaskId, Timestamp};
use crate::core::run::{Outcome, Outputs, RunBirth, RunType, Severity, Sign, SignKind, TiRef};

/// Both ends must speak the same version.
pub const PROTOCOL: u32 = 1;
/// Outputs of one attempt may have this many bytes here; the worker keeps them below 48 KiB.
const OUTPUTS_BYTES_MAX: usize = 64 * 1024;

/// A claim: one attempt at one task instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimName {
    /// The DAG.
    pub dag_id: String,
    /// The run.
    pub run_id: String,
    /// The task.
    pub task_id: String,
    /// Its place in the list, or -1.
    pub map_index: i32,
    /// The claim.
    pub fence: i64,
}

/// A claim with the right to act on it, which is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Which claim.
    #[serde(flatten)]
    pub claim: ClaimName,
    /// The task's place in its DAG version.
    pub task: usize,
    /// Made by the server for this claim alone.
    pub token: String,
}

/// A worker asks for a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    /// [`PROTOCOL`] of the worker.
    pub protocol: u32,
    /// What people call the worker: a host name.
    pub name: String,
}

/// A session was opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionOpened {
    /// Its name.
    pub session_id: String,
    /// How long it lives without a word, in milliseconds.
    pub lease_ms: u64,
}

/// A worker says that it lives, and what it holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Claims it works on, or whose outcome is not acknowledged yet.
    pub held: Vec<ClaimName>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beaten {
    /// Whether the lease stands; if not, everything held must be stopped.
    pub stands: bool,
    /// Claims that are not the worker's any more: stop them.
    pub void: Vec<ClaimName>,
}

/// A worker brings outcomes and asks for work.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The newest answer that has arrived at the worker; what was handed out after it is handed out again.
    pub seen: u64,
    /// Attempts it can take, those reported here being over.
    pub free: u32,
    /// The queues it serves.
    pub queues: Vec<String>,
    /// How attempts ended.
    pub reports: Vec<Done>,
}

/// The answer to an exchange.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchanged {
    /// Its number: an answer that arrives after a later one is to be thrown away but for its `acks`.
    pub seq: u64,
    /// What became of each report, in their order.
    pub acks: Vec<Ack>,
    /// Attempts to be made. One that is known already is the same one.
    pub begin: Vec<Begin>,
    /// Claims that are void: stop them.
    pub stop: Vec<ClaimName>,
}

/// What became of a report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ack {
    /// As of HTTP: 200 taken, 401 wrong token, 409 the claim is void, 503 to be said again.
    pub status: u16,
    /// Why it was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// An attempt has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// Which.
    pub ticket: Ticket,
    /// How.
    pub end: End,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum End {
    /// Done.
    Succeeded {
        /// What it left.
        left: Left,
    },
    /// Done, and of the direct downstreams only these go on.
    Branched {
        /// Their ids.
        chosen: Vec<String>,
        /// What it left.
        left: Left,
    },
    /// Done, and nothing downstream goes on.
    ShortCircuited {
        /// Let trigger rules judge all but the direct downstreams.
        respect_trigger_rules: bool,
        /// What it left.
        left: Left,
    },
    /// It skipped itself.
    Skipped {
        /// Why.
        why: String,
    },
    /// To be continued.
    Deferred {
        /// When.
        until_us: i64,
    },
    /// Failed.
    Failed {
        /// What went wrong.
        error: String,
        /// `retryable`, `permanent` or `timed_out`.
        severity: String,
    },
    /// Given back unharmed.
    Interrupted,
}

/// What an attempt left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// A JSON object as text, or nothing.
    pub json: String,
    /// The length of each member that is a list.
    pub list_lengths: Vec<(String, u32)>,
    /// What people should hear of: kind and text.
    #[serde(default)]
    pub signs: Vec<(String, String)>,
}

/// An attempt to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begin {
    /// The claim, and the right to report on it.
    pub ticket: Ticket,
    /// The attempt, from 1.
    pub try_number: u32,
    /// The DAG version of the run.
    pub dag_hash: String,
    /// Why the run exists.
    pub run_type: String,
    /// The moment the run stands for.
    pub logical_date_us: i64,
    /// The span of data from here …
    pub data_interval_start_us: i64,
    /// … up to, not including, here.
    pub data_interval_end_us: i64,
    /// The run's parameters: a JSON object as text, or nothing.
    pub params: String,
    /// When the run was created.
    pub queued_at_us: i64,
    /// What the direct upstreams left: place of the task, place in its list, JSON text.
    pub outputs: Vec<(usize, i32, String)>,
    /// The events that started the run, if the task speaks of them: a JSON object as text, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub triggers: String,
}

/// A piece of an attempt's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogChunk {
    /// Whose.
    pub ticket: Ticket,
    /// Bytes of the log before this piece.
    pub offset: u64,
    /// The piece.
    pub text: String,
}

/// How far the log of an attempt is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogKept {
    /// Bytes; the next piece begins here.
    pub offset: u64,
}

/// A DAG version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DagVersion {
    /// Its canonical source.
    pub source: String,
}

/// What has arrived cannot be meant.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Garbled(pub String);

impl ClaimName {
    /// The claim on `ti` of a run of `dag`.
    #[must_use]
    pub fn of(key: &RunKey, task_id: &TaskId, map_index: i32, fence: Fence) -> Self {
        Self {
            dag_id: key.dag_id.to_string(),
            run_id: key.run_id.to_string(),
            task_id: task_id.to_string(),
            map_index,
            fence: fence.0,
        }
    }

    /// The run.
    ///
    /// # Errors
    /// If its names are no names.
    pub fn run_key(&self) -> Result<RunKey, Garbled> {
        Ok(RunKey {
            dag_id: DagId::parse(&self.dag_id).map_err(|e| Garbled(e.to_string()))?,
            run_id: RunId::parse(&self.run_id).map_err(|e| Garbled(e.to_string()))?,
        })
    }

    /// The task.
    ///
    /// # Errors
    /// If its name is no name.
    pub fn task(&self) -> Result<TaskId, Garbled> {
        TaskId::parse(&self.task_id).map_err(|e| Garbled(e.to_string()))
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.claim, f)
    }
}

impl Ticket {
    /// The instance within its run.
    #[must_use]
    pub fn ti(&self) -> TiRef {
        TiRef { task: self.task, map_index: self.claim.map_index }
    }
}

impl From<&Outputs> for Left {
    fn from(outputs: &Outputs) -> Self {
        Self {
            json: outputs.json.to_string(),
            list_lengths: outputs.list_lengths.iter().map(|(name, n)| (name.to_string(), *n)).collect(),
            signs: outputs.signs.iter().map(|sign| (sign.kind.to_string(), sign.text.to_string())).collect(),
        }
    }
}

impl Left {
    fn outputs(self) -> Result<Outputs, Garbled> {
        if self.json.len() > OUTPUTS_BYTES_MAX {
            return Err(Garbled(format!("outputs have at most {OUTPUTS_BYTES_MAX} bytes")));
        }
        if !self.json.is_empty() {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&self.json)
                .map_err(|e| Garbled(format!("outputs must be a JSON object: {e}")))?;
        }
        let list_lengths = self.list_lengths.into_iter().map(|(name, n)| (name.into(), n)).collect();
        let sign = |(kind, text): (String, String)| {
            let kind = SignKind::parse(&kind).ok_or_else(|| Garbled(format!("`{kind}` is no sign")))?;
            Ok(Sign { kind, text: text.into() })
        };
        let signs = self.signs.into_iter().map(sign).collect::<Result<_, _>>()?;
        Ok(Outputs { json: self.json.into(), list_lengths, signs })
    }
}

impl From<&Outcome> for End {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded(outputs) => Self::Succeeded { left: outputs.into() },
            Outcome::Branched { chosen, outputs } => Self::Branched {
                chosen: chosen.iter().map(ToString::to_string).collect(),
                left: outputs.into(),
            },
            Outcome::ShortCircuited { respect_trigger_rules, outputs } => {
                Self::ShortCircuited { respect_trigger_rules: *respect_trigger_rules, left: outputs.into() }
            }
            Outcome::Skipped { why } => Self::Skipped { why: why.to_string() },
            Outcome::Deferred { until } => Self::Deferred { until_us: until.0 },
            Outcome::Failed { error, severity } => {
                Self::Failed { error: error.to_string(), severity: severity.to_string() }
            }
            Outcome::Interrupted => Self::Interrupted,
        }
    }
}

impl End {
    /// As the core says it.
    ///
    /// # Errors
    /// If outputs are too large or no JSON object, or a word is unknown.
    pub fn outcome(self) -> Result<Outcome, Garbled> {
        Ok(match self {
            Self::Succeeded { left } => Outcome::Succeeded(left.outputs()?),
            Self::Branched { chosen, left } => {
                let chosen: Result<_, _> = chosen.iter().map(|id| TaskId::parse(id)).collect();
                let chosen = chosen.map_err(|e| Garbled(e.to_string()))?;
                Outcome::Branched { chosen, outputs: left.outputs()? }
            }
            Self::ShortCircuited { respect_trigger_rules, left } => {
                Outcome::ShortCircuited { respect_trigger_rules, outputs: left.outputs()? }
            }
            Self::Skipped { why } => Outcome::Skipped { why: why.into() },
            Self::Deferred { until_us } => Outcome::Deferred { until: Timestamp(until_us) },
            Self::Failed { error, severity } => Outcome::Failed {
                error: error.into(),
                severity: Severity::parse(&severity)
                    .ok_or_else(|| Garbled(format!("`{severity}` is no severity")))?,
            },
            Self::Interrupted => Outcome::Interrupted,
        })
    }
}

impl Begin {
    /// The hand-out of `assignment`, whose right to report is `token`.
    ///
    /// # Panics
    /// If another holder of the run's outputs has panicked.
    #[must_use]
    pub fn of(assignment: &Assignment, ticket: Ticket) -> Self {
        let Assignment { dag, birth, ti, try_number, outputs, triggers, .. } = assignment;
        let outputs = outputs.lock().expect("no holder of the outputs panics");
        let left_by = |&task: &usize| {
            outputs.range(TiRef { task, map_index: i32::MIN }..=TiRef { task, map_index: i32::MAX })
        };
        let needed = dag.upstream(ti.task).iter().flat_map(left_by);
        Self {
            ticket,
            try_number: *try_number,
            dag_hash: birth.dag_hash.0.to_string(),
            run_type: birth.run_type.to_string(),
            logical_date_us: birth.logical_date.0,
            data_interval_start_us: birth.data_interval_start.0,
            data_interval_end_us: birth.data_interval_end.0,
            params: birth.params.to_string(),
            queued_at_us: birth.queued_at.0,
            outputs: needed.map(|(ti, json)| (ti.task, ti.map_index, json.to_string())).collect(),
            triggers: if names_triggers(dag.task(ti.task)) { triggers.to_string() } else { String::new() },
        }
    }

    /// As an attempt of this process; `dag` is the version it names.
    ///
    /// # Errors
    /// If its names are no names, or `dag` has no such task.
    pub fn assignment(&self, dag: Arc<Dag>) -> Result<Assignment, Garbled> {
        let named = dag.tasks().get(self.ticket.task).map(|task| task.id.as_str());
        if named != Some(&self.ticket.claim.task_id) {
            return Err(Garbled(format!("the DAG version has no task `{}`", self.ticket.claim.task_id)));
        }
        let run_type = RunType::parse(&self.run_type)
            .ok_or_else(|| Garbled(format!("`{}` is no type of run", self.run_type)))?;
        let left = |(task, map_index, json): &(usize, i32, String)| {
            (TiRef { task: *task, map_index: *map_index }, Arc::from(json.as_str()))
        };
        let outputs: SharedOutputs = Arc::new(Mutex::new(self.outputs.iter().map(left).collect()));
        let birth = RunBirth {
            key: self.ticket.claim.run_key()?,
            dag_hash: DagHash(self.dag_hash.as_str().into()),
            run_type,
            logical_date: Timestamp(self.logical_date_us),
            data_interval_start: Timestamp(self.data_interval_start_us),
            data_interval_end: Timestamp(self.data_interval_end_us),
            params: self.params.as_str().into(),
            queued_at: Timestamp(self.queued_at_us),
        };
        Ok(Assignment {
            dag,
            birth: Arc::new(birth),
            ti: self.ticket.ti(),
            fence: Fence(self.ticket.claim.fence),
            try_number: self.try_number,
            outputs,
            triggers: self.triggers.as_str().into(),
        })
    }
}

/// Whether a template of the task can ask for the events that started the run. They may be many: who does not
/// ask is spared them.
fn names_triggers(task: &Task) -> bool {
    let texts = [&task.spec, &task.extra].into_iter().chain(&task.when);
    texts.into_iter().any(|text| text.contains("triggering_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_arrives_as_it_was_sent() {
        let outputs = Outputs {
            json: r#"{"rows":[1,2]}"#.into(),
            list_lengths: vec![("rows".into(), 2)],
            signs: vec![Sign { kind: SignKind::Shift, text: "drift".into() }],
        };
        for outcome in [
            Outcome::Succeeded(Outputs::default()),
            Outcome::Succeeded(outputs.clone()),
            Outcome::Branched { chosen: vec![TaskId::parse("a.b").unwrap()], outputs: outputs.clone() },
            Outcome::ShortCircuited { respect_trigger_rules: true, outputs },
            Outcome::Skipped { why: "no".into() },
            Outcome::Deferred { until: Timestamp(7) },
            Outcome::Failed { error: "x".into(), severity: Severity::TimedOut },
            Outcome::Failed { error: "x".into(), severity: Severity::Blocked },
            Outcome::Interrupted,
        ] {
            let text = serde_json::to_string(&End::from(&outcome)).unwrap();
            let back: End = serde_json::from_str(&text).unwrap();
            assert_eq!(back.outcome().unwrap(), outcome, "{text}");
        }
    }

    #[test]
    fn outputs_that_are_no_object_are_refused() {
        let left = |json: &str| Left { json: json.into(), ..Left::default() };
        for json in ["[1]", "{", "7"] {
            assert!(End::Succeeded { left: left(json) }.outcome().is_err(), "{json}");
        }
        let large = format!("{{\"x\":\"{}\"}}", "y".repeat(OUTPUTS_BYTES_MAX));
        assert!(End::Succeeded { left: left(&large) }.outcome().is_err());
    }
}
