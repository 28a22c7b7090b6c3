//! Situations that a campaign must have seen: a simulator that never gets into trouble proves nothing.

macro_rules! situations {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// Something worth having seen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Situation {
            $(
                #[doc = $text]
                $name,
            )+
        }

        impl Situation {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// In words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

situations! {
    StaleFence = "a report under a stale fence was refused",
    ReportRepeated = "a report that was taken came again",
    ZombieReport = "a report came from an attempt that was given up as lost",
    VersionConflict = "a commit was refused: another writer was faster",
    PoolConflict = "a commit was refused: the pool had filled meanwhile",
    RunsConflict = "a commit was refused: the place among active runs was taken meanwhile",
    CursorConflict = "two schedulers fired the same schedule and one was refused",
    AnswerLost = "a commit was written and its answer lost",
    CrashBeforeCommit = "a scheduler crashed after it decided and before it committed",
    CrashAfterSending = "a commit was written for a scheduler that had crashed meanwhile",
    CrashBeforeHandOut = "a scheduler crashed after a commit with claims and before it handed them out",
    RefusalReconsidered = "a refusal came from an old cached value and was reconsidered",
    LeaseExpiredAlive = "a lease ran out while its worker was alive",
    WorkerCrashed = "a worker crashed with attempts at work",
    WorkerLeft = "a worker stopped and gave its attempts back",
    ClosedWithClaims = "a session was closed while rows said that it held claims",
    LostOnce = "an attempt was lost and repeated",
    Poisoned = "a task was poisoned after three losses",
    ClaimInLosingStep = "an attempt was lost and claimed again in one step",
    MissingResent = "an assignment was lost on its way and told again",
    AssignedTwice = "an assignment came twice",
    TooManyAssigned = "a worker was given more than it had room for and gave some back",
    VoidLearnt = "a worker learnt from its heartbeat that an attempt was void",
    ClearRunning = "a running attempt was cleared",
    ClearFinalRun = "a final run was cleared",
    MarkRunning = "a running attempt was marked",
    CancelClaimed = "a run was cancelled while a worker was at it",
    EditedInFlight = "a DAG was edited while runs of it were under way",
    EditedBack = "a DAG was edited back to an earlier version",
    PausedInFlight = "a DAG was paused while runs of it were under way",
    PoolFull = "a pool was full",
    RunWaited = "a run waited for a place among the active runs",
    GaveWay = "a run went back behind an earlier one that it waits for",
    PastWaited = "a task waited for the run before",
    Retried = "an attempt failed and was repeated",
    GaveUp = "a task failed for good",
    Deferred = "an attempt was put off and continued",
    TimedOut = "an attempt took longer than its timeout",
    RunTimedOut = "a run took longer than its timeout",
    FailedFast = "a failure ended all other work of its run",
    TornDown = "a teardown ran after failed work",
    Mapped = "a list became known and its task was mapped",
    EmptyList = "a list was empty",
    Branched = "a branch chose among its children",
    ShortCircuited = "a short circuit skipped what came after it",
    ClockForward = "a clock stepped forward",
    ClockBack = "a clock stepped back",
    DatabaseAway = "a commit found the database away",
    MissedSkipped = "missed instants were skipped",
    CaughtUp = "several missed instants were fired at once",
    NameTaken = "a run made by hand had taken a scheduled run's name",
    LetterRepeated = "a letter was delivered twice",
    MessageLost = "a message was lost",
    MessageDoubled = "a message came twice",
    RescuedPast = "a person healed a run that others waited for",
}

/// How often each situation occurred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen(Vec<u64>);

impl Default for Seen {
    fn default() -> Self {
        Self(vec![0; Situation::ALL.len()])
    }
}

impl Seen {
    pub(super) fn note(&mut self, situation: Situation) {
        self.0[situation as usize] += 1;
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Each situation with its count.
    pub fn counts(&self) -> impl Iterator<Item = (Situation, u64)> {
        Situation::ALL.iter().copied().zip(self.0.iter().copied())
    }
}
