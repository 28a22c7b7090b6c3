//! The contract of the whole house: what happened, in; what follows, out.

use super::dag::Dag;
use super::ids::Timestamp;
use super::run::{Capacity, Decision, Input, Run};

/// Applies `inputs` in order, then plans what follows.
pub fn step(_dag: &Dag, _run: &mut Run, _inputs: &[Input], _room: &Capacity, _now: Timestamp) -> Decision {
    todo!()
}
