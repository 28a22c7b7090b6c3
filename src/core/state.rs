//! The states of a run and of a task instance, and the one table that says which may follow which.
//!
//! A state is spelled once, here: SQL, JSON, CSS classes and the command line all use [`TaskState::as_str`]
//! and [`RunState::as_str`]. A column that holds one is never null.
//!
//! [`next`] and [`next_run`] are the only functions that produce a state.

use std::collections::BTreeSet;

macro_rules! spelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// Every one of them, in the order of their lives.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The one spelling.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The state that is spelled so.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(crate) use spelled;

spelled! {
    /// Where a run stands.
    RunState {
        /// Waits for a place among the DAG's active runs.
        Queued = "queued",
        /// Tasks are being run.
        Running = "running",
        /// Every leaf succeeded or was skipped.
        Success = "success",
        /// A leaf failed.
        Failed = "failed",
        /// A person ended it.
        Cancelled = "cancelled",
    }
}

impl RunState {
    /// Whether nothing more happens without a clear.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Success | Self::Failed | Self::Cancelled => true,
        }
    }
}

spelled! {
    /// Where a task instance stands.
    TaskState {
        /// An upstream is unfinished.
        None = "none",
        /// Its trigger rule is satisfied; it waits for a pool or a limit.
        Scheduled = "scheduled",
        /// Admitted; the next free worker takes it.
        Queued = "queued",
        /// A worker holds it under a fence.
        Running = "running",
        /// Gave its slot back until a time.
        Deferred = "deferred",
        /// Failed, and will be tried again at a time.
        UpForRetry = "up_for_retry",
        /// Done.
        Success = "success",
        /// Failed for good.
        Failed = "failed",
        /// Not run, and that is right.
        Skipped = "skipped",
        /// Not run, because what it needs failed.
        UpstreamFailed = "upstream_failed",
        /// No longer part of the run (a mapped instance beyond a shorter list).
        Removed = "removed",
        /// A person ended it.
        Cancelled = "cancelled",
    }
}

impl TaskState {
    /// Whether nothing more happens without a clear.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::None
            | Self::Scheduled
            | Self::Queued
            | Self::Running
            | Self::Deferred
            | Self::UpForRetry => false,
            Self::Success
            | Self::Failed
            | Self::Skipped
            | Self::UpstreamFailed
            | Self::Removed
            | Self::Cancelled => true,
        }
    }

    /// Whether it holds slots of its pool and counts against limits.
    #[must_use]
    pub fn holds_slots(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

spelled! {
    /// What moves a task instance. Spelled as the participle that completes "a task instance that is …
    /// cannot be …".
    TaskInput {
        /// A worker took it.
        Claimed = "claimed",
        /// The attempt reported success.
        Succeeded = "succeeded",
        /// The attempt failed and another follows.
        Retried = "retried",
        /// It failed for good: no retry left, lost too often, or a list it cannot be mapped over.
        Failed = "failed",
        /// The attempt asked to be continued later.
        Deferred = "deferred",
        /// Its worker was lost or gave it back.
        Returned = "returned",
        /// It, its branch or its rule said that it does not run.
        Skipped = "skipped",
        /// A person cleared it.
        Cleared = "cleared",
        /// A person said that it succeeded.
        MarkedSuccess = "marked `success`",
        /// A person said that it failed.
        MarkedFailed = "marked `failed`",
        /// A person said that it is skipped.
        MarkedSkipped = "marked `skipped`",
        /// A person ended the run.
        Cancelled = "cancelled",
        /// The run ended first (`dagrun_timeout`, `fail_fast`).
        Ended = "ended",
        /// The wait of a retry or a deferral is over.
        Due = "released",
        /// Its trigger rule is satisfied.
        Ready = "scheduled",
        /// Its trigger rule cannot be satisfied, because an upstream failed.
        UpstreamFailed = "failed by an upstream",
        /// The list is shorter now.
        Shrunk = "removed",
        /// Limits have room.
        Admitted = "queued",
    }
}

spelled! {
    /// What moves a run.
    RunInput {
        /// An instance was cleared or marked in a final run.
        Reopened = "reopened",
        /// A person ended it.
        Cancelled = "cancelled",
        /// It has a place among the DAG's active runs.
        Started = "started",
        /// It can only wait for an earlier run, which is queued.
        GaveWay = "put behind an earlier run",
        /// Every instance is final and no leaf failed.
        Succeeded = "succeeded",
        /// Every instance is final and a leaf failed, or it timed out.
        Failed = "failed",
    }
}

/// A pair the table has no row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is `{state}` cannot be {input}")]
pub struct Illegal<State: std::fmt::Display, In: std::fmt::Display> {
    /// The state found.
    pub state: State,
    /// What was asked.
    pub input: In,
}

/// The table of task instances: the state that follows `input` in `state`.
///
/// # Errors
/// [`Illegal`] for every pair that has no row.
pub fn next(state: TaskState, input: TaskInput) -> Result<TaskState, Illegal<TaskState, TaskInput>> {
    use TaskInput as I;
    use TaskState as S;
    match (state, input) {
        (S::None, I::Ready) => Ok(S::Scheduled),
        (S::None, I::UpstreamFailed) => Ok(S::UpstreamFailed),
        (S::None, I::Shrunk) => Ok(S::Removed),
        (S::None | S::Running, I::Failed) => Ok(S::Failed),
        (S::None | S::Scheduled | S::Running, I::Skipped) => Ok(S::Skipped),
        (S::Scheduled, I::Admitted) => Ok(S::Queued),
        (S::Queued, I::Claimed) => Ok(S::Running),
        (S::Running, I::Succeeded) => Ok(S::Success),
        (S::Running, I::Retried) => Ok(S::UpForRetry),
        (S::Running, I::Deferred) => Ok(S::Deferred),
        (S::Running, I::Returned) => Ok(S::Scheduled),
        (S::UpForRetry | S::Deferred, I::Due) => Ok(S::Scheduled),
        (from, I::Ended) if !from.is_final() => Ok(S::Skipped),
        (from, I::Cancelled) if !from.is_final() => Ok(S::Cancelled),
        (_, I::Cleared) => Ok(S::None),
        (_, I::MarkedSuccess) => Ok(S::Success),
        (_, I::MarkedFailed) => Ok(S::Failed),
        (_, I::MarkedSkipped) => Ok(S::Skipped),
        (state, input) => Err(Illegal { state, input }),
    }
}

/// The table of runs: the state that follows `input` in `state`.
///
/// # Errors
/// [`Illegal`] for every pair that has no row.
pub fn next_run(state: RunState, input: RunInput) -> Result<RunState, Illegal<RunState, RunInput>> {
    use RunInput as I;
    use RunState as S;
    match (state, input) {
        (S::Queued, I::Started) => Ok(S::Running),
        (S::Running, I::GaveWay) => Ok(S::Queued),
        (S::Running, I::Succeeded) => Ok(S::Success),
        (S::Running, I::Failed) => Ok(S::Failed),
        (S::Queued | S::Running, I::Cancelled) => Ok(S::Cancelled),
        (from, I::Reopened) if from.is_final() => Ok(S::Queued),
        (state, input) => Err(Illegal { state, input }),
    }
}

/// When within a step an input may come: reports and people's wishes first, then what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Apply,
    Plan,
}

impl TaskInput {
    fn comes_in(self, phase: Phase) -> bool {
        match self {
            // A free local worker claims in the step that queues.
            Self::Claimed | Self::Skipped | Self::Failed => true,
            Self::Succeeded
            | Self::Retried
            | Self::Deferred
            | Self::Returned
            | Self::Cleared
            | Self::MarkedSuccess
            | Self::MarkedFailed
            | Self::MarkedSkipped
            | Self::Cancelled => phase == Phase::Apply,
            Self::Ended | Self::Due | Self::Ready | Self::UpstreamFailed | Self::Shrunk | Self::Admitted => {
                phase == Phase::Plan
            }
        }
    }
}

impl RunInput {
    fn comes_in(self, phase: Phase) -> bool {
        match self {
            Self::Reopened | Self::Cancelled => phase == Phase::Apply,
            Self::Started | Self::GaveWay | Self::Succeeded | Self::Failed => phase == Phase::Plan,
        }
    }
}

/// Every (from, to) that one step can write for a task instance, in ascending order. Moves within one step
/// are written as one, so `none` to `running` is among them.
#[must_use]
pub fn legal_moves() -> Vec<(TaskState, TaskState)> {
    let arrows = |phase| {
        let inputs = TaskInput::ALL.iter().copied().filter(move |input| input.comes_in(phase));
        move |from| inputs.clone().filter_map(|input| next(from, input).ok()).collect()
    };
    coalesced(TaskState::ALL, arrows(Phase::Apply), arrows(Phase::Plan))
}

/// Every (from, to) that one step can write for a run, in ascending order.
#[must_use]
pub fn legal_run_moves() -> Vec<(RunState, RunState)> {
    let arrows = |phase| {
        let inputs = RunInput::ALL.iter().copied().filter(move |input| input.comes_in(phase));
        move |from| inputs.clone().filter_map(|input| next_run(from, input).ok()).collect()
    };
    coalesced(RunState::ALL, arrows(Phase::Apply), arrows(Phase::Plan))
}

/// The ends of all walks of at least one move: any number of the first kind, then any of the second.
fn coalesced<S: Copy + Ord>(
    all: &[S],
    apply: impl Fn(S) -> Vec<S>,
    plan: impl Fn(S) -> Vec<S>,
) -> Vec<(S, S)> {
    let mut pairs = BTreeSet::new();
    for &from in all {
        let mut seen = BTreeSet::new();
        let mut todo = vec![(Phase::Apply, from)];
        while let Some((phase, state)) = todo.pop() {
            let applied = if phase == Phase::Apply { apply(state) } else { Vec::new() };
            let moves = applied.into_iter().map(|to| (Phase::Apply, to));
            for place in moves.chain(plan(state).into_iter().map(|to| (Phase::Plan, to))) {
                if seen.insert(place) {
                    todo.push(place);
                }
            }
        }
        pairs.extend(seen.into_iter().map(|(_, to)| (from, to)));
    }
    pairs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_state_is_left_by_people_alone() {
        for &state in TaskState::ALL.iter().filter(|state| state.is_final()) {
            for &input in TaskInput::ALL.iter().filter(|&&input| next(state, input).is_ok()) {
                use TaskInput as I;
                let by_people =
                    matches!(input, I::Cleared | I::MarkedSuccess | I::MarkedFailed | I::MarkedSkipped);
                assert!(by_people, "{state} may be {input}");
            }
        }
    }

    #[test]
    fn moves_within_one_step_are_written_as_one() {
        use TaskState as S;
        let moves = legal_moves();
        for pair in [
            (S::None, S::Running),
            (S::Running, S::Running),
            (S::Running, S::Success),
            (S::Failed, S::Queued),
        ] {
            assert!(moves.contains(&pair), "{pair:?}");
        }
        for pair in [(S::None, S::UpForRetry), (S::None, S::Deferred), (S::Scheduled, S::UpForRetry)] {
            assert!(!moves.contains(&pair), "{pair:?}");
        }
        assert!(legal_run_moves().contains(&(RunState::Failed, RunState::Running)));
    }

    #[test]
    fn every_state_reads_back_as_it_is_spelled() {
        for &state in TaskState::ALL {
            assert_eq!(TaskState::parse(state.as_str()), Some(state));
        }
        for &state in RunState::ALL {
            assert_eq!(RunState::parse(state.as_str()), Some(state));
        }
    }
}
