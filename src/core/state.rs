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
