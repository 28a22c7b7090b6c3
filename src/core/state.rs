//! The states of a run and of a task instance, and the one table that says which may follow which.
//!
//! A state is spelled once, here: SQL, JSON, CSS classes and the command line all use [`TaskState::as_str`]
//! and [`RunState::as_str`]. A column that holds one is never null.

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
    /// What happens to a task instance, as the table below knows it.
    TaskInput {
        /// Its trigger rule is satisfied.
        Ready = "made ready",
        /// Limits and pool have room.
        Admitted = "admitted",
        /// A worker took it.
        Claimed = "claimed",
        /// The attempt succeeded.
        Succeeded = "reported as succeeded",
        /// The attempt skipped itself.
        SkippedItself = "reported as skipped",
        /// The attempt failed and another follows.
        RetryLater = "reported as failed",
        /// The attempt failed and none follows.
        GaveUp = "given up",
        /// The attempt asked to be continued later.
        Deferred = "deferred",
        /// The wait of a retry or a deferral is over.
        Due = "released",
        /// The attempt is repeated: its worker is gone, or gave it back.
        Repeated = "repeated",
        /// The trigger rule, a branch, an empty list or the end of the run says that it does not run.
        RuledOut = "skipped",
        /// The trigger rule says that what it needs failed.
        UpstreamFailed = "failed by its upstream",
        /// Its place in the list is gone.
        Removed = "removed",
        /// A person ended it.
        Cancelled = "cancelled",
        /// A person wants it to run again.
        Cleared = "cleared",
        /// A person says that it succeeded.
        MarkedSuccess = "marked success",
        /// A person says that it failed.
        MarkedFailed = "marked failed",
        /// A person says that it is skipped.
        MarkedSkipped = "marked skipped",
    }
}

/// A pair that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task instance that is `{state}` cannot be {input}")]
pub struct Illegal {
    /// The state found.
    pub state: TaskState,
    /// What was asked.
    pub input: TaskInput,
}

/// The table: which state follows from a state and what happened. Nothing else makes a state.
///
/// # Errors
/// [`Illegal`] for every pair that is not in it.
pub fn next(state: TaskState, input: TaskInput) -> Result<TaskState, Illegal> {
    use TaskInput as I;
    use TaskState as S;
    match (state, input) {
        (S::None, I::Ready) => Ok(S::Scheduled),
        (S::Scheduled, I::Admitted) => Ok(S::Queued),
        (S::Queued, I::Claimed) => Ok(S::Running),
        (S::Running, I::Succeeded) => Ok(S::Success),
        (S::Running, I::SkippedItself) => Ok(S::Skipped),
        (S::Running, I::RetryLater) => Ok(S::UpForRetry),
        (S::Running, I::Deferred) => Ok(S::Deferred),
        (S::Running, I::Repeated) => Ok(S::Scheduled),
        (S::UpForRetry | S::Deferred, I::Due) => Ok(S::Scheduled),
        // A mapped task whose list is missing or too long fails without having run.
        (S::Running | S::None, I::GaveUp) => Ok(S::Failed),
        (S::None, I::UpstreamFailed) => Ok(S::UpstreamFailed),
        (s, I::RuledOut) if !s.is_final() => Ok(S::Skipped),
        (s, I::Cancelled) if !s.is_final() => Ok(S::Cancelled),
        (s, I::Removed) if s != S::Running && s != S::Removed => Ok(S::Removed),
        (s, I::Cleared) if s != S::Removed => Ok(S::None),
        (s, I::MarkedSuccess) if s != S::Removed => Ok(S::Success),
        (s, I::MarkedFailed) if s != S::Removed => Ok(S::Failed),
        (s, I::MarkedSkipped) if s != S::Removed => Ok(S::Skipped),
        (state, input) => Err(Illegal { state, input }),
    }
}

/// Every (from, to) that one step may write down for a task instance: a step may pass through several
/// states, of which only the first and the last are written. The store holds rows to this list.
#[must_use]
pub fn legal_moves() -> Vec<(TaskState, TaskState)> {
    let mut moves = Vec::new();
    for &from in TaskState::ALL {
        let mut reached = std::collections::BTreeSet::new();
        let mut todo = vec![from];
        while let Some(state) = todo.pop() {
            for &input in TaskInput::ALL {
                if let Ok(to) = next(state, input)
                    && reached.insert(to)
                {
                    todo.push(to);
                }
            }
        }
        moves.extend(reached.into_iter().map(|to| (from, to)));
    }
    moves
}

/// Which state of a run may follow which, within one step.
#[must_use]
pub fn legal_run_moves() -> Vec<(RunState, RunState)> {
    use RunState as R;
    let mut moves = vec![
        (R::Queued, R::Running),
        (R::Queued, R::Cancelled),
        (R::Queued, R::Success),
        (R::Queued, R::Failed),
    ];
    moves.extend([
        (R::Running, R::Success),
        (R::Running, R::Failed),
        (R::Running, R::Cancelled),
        (R::Running, R::Queued),
    ]);
    for ended in [R::Success, R::Failed, R::Cancelled] {
        for to in [R::Queued, R::Running, R::Success, R::Failed] {
            if ended != to {
                moves.push((ended, to));
            }
        }
    }
    moves
}
