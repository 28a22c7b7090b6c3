//! What a problem says to the person who is woken by it: what failed, since when, how often, the error, and
//! the next command to type.

use crate::core::alert::{AlertKind, Problem, ProblemState};
use crate::core::ids::Timestamp;

/// The message in parts, each a line or a few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// What is wrong, or what is over.
    pub head: String,
    /// Since when, how often, in which run.
    pub story: String,
    /// The error, as it was reported.
    pub error: String,
    /// Commands to type next, the most useful first; none once it is over.
    pub next: Vec<String>,
}

impl Lines {
    /// The message about `problem` as it stands.
    #[must_use]
    pub fn of(problem: &Problem) -> Self {
        let head = subject(problem);
        let run = problem.last_run_id.as_ref();
        match (problem.state, problem.resolved_at) {
            (ProblemState::Resolved, Some(end)) => {
                let lasted = span(problem.opened_at, end);
                let (from, to) = (second(problem.opened_at), second(end));
                let story = format!("it lasted {lasted}, from {from} to {to}{}", times(problem));
                Self { head, story, error: problem.error.clone(), next: Vec::new() }
            }
            (ProblemState::Open | ProblemState::Resolved, _) => {
                let seen = times(problem);
                let run = run.map_or_else(String::new, |run| format!(", last in run {run}"));
                let story = format!("since {}{seen}{run}", second(problem.opened_at));
                Self { head, story, error: problem.error.clone(), next: next_commands(problem) }
            }
        }
    }

    /// All of it in one line, for a log.
    #[must_use]
    pub fn in_one(&self) -> String {
        let error = self.error.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut line = format!("{}: {error} ({})", self.head, self.story);
        if let Some(next) = self.next.first() {
            line.push_str(&format!("; next: {next}"));
        }
        line
    }

    /// All of it in lines, for a mail.
    #[must_use]
    pub fn in_lines(&self) -> String {
        let mut text = format!("{}\n{}\n\n{}\n", self.head, self.story, self.error.trim_end());
        if !self.next.is_empty() {
            text.push_str("\nnext:\n");
            for command in &self.next {
                text.push_str(&format!("  {command}\n"));
            }
        }
        text
    }
}

/// The message in one short line: what is wrong, or that it is over.
#[must_use]
pub fn subject(problem: &Problem) -> String {
    match problem.state {
        ProblemState::Open => problem.summary.clone(),
        ProblemState::Resolved => format!("resolved: {}", problem.summary),
    }
}

fn times(problem: &Problem) -> String {
    match problem.occurrences {
        0 | 1 => String::new(),
        runs => format!(", seen in {runs} runs"),
    }
}

/// What to type next. Ids hold no character that a shell would read; a file name might, and stands last.
fn next_commands(problem: &Problem) -> Vec<String> {
    let key = &problem.key;
    let dag = key.dag_id.as_ref().map_or("", |dag| dag.as_str());
    let subject = key.subject.as_deref().unwrap_or_default();
    let run = problem.last_run_id.as_ref().map_or("", |run| run.as_str());
    match key.kind {
        AlertKind::TaskFailed
        | AlertKind::Poisoned
        | AlertKind::GateBlocked
        | AlertKind::Anomaly
        | AlertKind::Shift => vec![
            format!("mainspring tasks logs {dag} {subject} --run-id {run}"),
            format!("mainspring runs why {dag} {run} {subject}"),
        ],
        AlertKind::RunFailed | AlertKind::DeadlineMissed => {
            vec![format!("mainspring runs show {dag} {run}"), format!("mainspring runs why {dag} {run}")]
        }
        AlertKind::ScheduleStalled => {
            vec![format!("mainspring dags next {dag}"), format!("mainspring runs list {dag}")]
        }
        AlertKind::ImportError => vec![format!("mainspring check '{}'", subject.replace('\'', "'\\''"))],
        AlertKind::WorkerLost => vec!["mainspring runs list --state running".to_owned()],
    }
}

/// A time to the second: nobody reads microseconds at night.
fn second(at: Timestamp) -> String {
    match at.to_utc() {
        Some(time) => time.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => at.to_string(),
    }
}

/// `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`.
fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.since(from).as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
