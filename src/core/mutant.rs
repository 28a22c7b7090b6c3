//! Faults planted on purpose, to prove that the simulator finds them. Each is a mistake that a trusted
//! scheduler once shipped.
//!
//! A place that could go wrong asks [`is`]. Builds for development and tests keep the answer per thread. In a build
//! without debug assertions, as every release is, the answer is the constant `false`: nothing can be planted, and
//! the compiler removes the question.

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident = $story:literal,)+) => {
        /// One planted fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $(
                #[doc = $story]
                $name,
            )+
        }

        impl Mutant {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// What is wrong, in one line.
            #[must_use]
            pub fn story(self) -> &'static str {
                match self {
                    $(Self::$name => $story,)+
                }
            }

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

mutants! {
    // In the core.
    ZombieReportTaken = "a report is judged by the state of its instance alone, not by its fence",
    RescueOverwrites = "a loss is judged by the state of its instance alone: it ends the attempt after the lost one",
    LossKeepsFence = "a lost attempt keeps its fence, so its late report looks like one that was taken",
    ClearKeepsFence = "clearing a running attempt leaves its fence standing",
    FenceGoesBack = "an interrupted attempt gives its fence back, as if it were a try number",
    SkipOverwritesRunning = "a branch skips children that are running",
    RepeatedReportIsStale = "the repetition of an accepted report is answered `stale`",
    LossIsCharged = "losing a worker uses up a retry",
    LossIsNotCounted = "losses are not counted, so a task that kills its worker goes on for ever",
    OneRetryTooMany = "the first retry is not counted",
    ClaimsMoreThanAsked = "a claim takes one instance more than the worker has room for",
    FirstQueueOnly = "workers are given the first of their queues alone: the others wait for ever",
    SkippedIsSuccess = "`all_success` takes a skipped upstream for a success",
    OpenUpstreamIgnored = "`all_done` is satisfied by the first upstream that is final",
    RetryIsForgotten = "a wait that is over is not released",
    CancelSparesQueued = "cancelling a run forgets what is queued",
    PoolIgnored = "a pool that is full holds nobody back, and the commit does not count again",
    RunLimitIgnored = "`max_active_runs` is judged from what one scheduler saw, and the commit does not count again",
    WaiterKeepsPlace = "a run that can only wait for an earlier one keeps the place that this one needs",
    GiveUpIsSilent = "a task that fails for good is not told to anybody",
    // In the store's guards.
    WriteById = "a commit writes rows by their id: neither version nor state nor fence are compared",
    StaleValueCommitted = "the version of a run is not compared: decisions from an old value are written",
    ExpiredLeaseRenewed = "a heartbeat renews a lease that has run out, after its work was given away",
    SessionNameReused = "a worker that starts again takes its old session over, with what it no longer does",
    CursorApart = "a schedule's cursor moves in a transaction of its own, and a run that is there stops it",
    CursorGoesBack = "a clock that is stepped back takes the schedule's cursor back",
    ManualTakesInstant = "a run made by hand under a scheduled run's name takes its instant away",
    MissedGiveUp = "a schedule that has missed more than three instants is given up",
    // In schedulers and workers.
    AnsweredBeforeCommit = "a report is acknowledged before it is committed",
    LostAnswerTakenForDone = "a commit without an answer is taken for done and never looked at again",
    HandedOutBeforeCommit = "claims are handed out before they are committed",
    StaleRefusalAnswered = "a refusal is answered from a cached run that another scheduler has moved on",
    NewestDagVersion = "a run is stepped by the newest version of its DAG",
    LeaseCutShort = "the reaper takes leases away before they end",
    ClosedSessionForgotten = "the reaper looks at expired leases and forgets sessions that were closed",
    RestartRestartsWork = "a scheduler that starts gives up all running work as lost",
    AlertInsideStep = "alerts are sent when they are decided, before the commit",
    MarkedBeforeSent = "a letter counts as delivered when it is sent",
    SlotsByCounter = "slots of a pool are kept in a counter that a lost attempt never gives back",
    LeaseTrustedForEver = "a worker that is cut off trusts its lease without end",
    AssignmentNotRemembered = "a worker starts an assignment again when the message comes again",
    NoNewSession = "a worker whose lease has run out does not open a new session",
    MissingNotResent = "work that a worker never heard of is not told to it again",
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault in this thread, or takes it out.
#[cfg(debug_assertions)]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this fault is planted.
#[cfg(debug_assertions)]
#[must_use]
pub fn is(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Whether this fault is planted: never, in this build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[must_use]
pub const fn is(_mutant: Mutant) -> bool {
    false
}
