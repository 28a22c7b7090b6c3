//! The channel `log`: one line in the log of the process. Always there.

use super::{Channel, Lines, Message, Sending};
use crate::core::alert::ProblemState;
use crate::core::ids::Timestamp;

/// Writes to the log of the process.
pub(super) struct Log;

impl Channel for Log {
    fn send<'a>(&'a self, message: &'a Message, _now: Timestamp) -> Sending<'a> {
        let Message { id, problem, .. } = message;
        let line = Lines::of(problem).in_one();
        match problem.state {
            ProblemState::Open => tracing::error!(problem = %problem.key, delivery = %id, "{line}"),
            ProblemState::Resolved => tracing::warn!(problem = %problem.key, delivery = %id, "{line}"),
        }
        Box::pin(async { Ok("written to the log".to_owned()) })
    }

    fn place(&self) -> String {
        "the log of the process".to_owned()
    }
}
