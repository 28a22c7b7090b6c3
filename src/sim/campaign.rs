//! Many seeds: what they add up to, and whether they find faults that were planted.

use super::random::mix;
use super::{History, Outcome, Seen, Violation, run};

/// What a range of seeds adds up to; the order in which they are added does not matter.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Seeds.
    pub seeds: u64,
    /// Events that happened.
    pub events: u64,
    /// Simulated time, in seconds.
    pub simulated_seconds: i64,
    /// Of all histories.
    pub trace_hash: u64,
    /// Situations that occurred.
    pub seen: Seen,
    /// Seeds that broke an invariant, in ascending order.
    pub broken: Vec<(u64, Violation)>,
}

impl Tally {
    /// Runs `seed` and adds what came of it.
    pub fn run(&mut self, seed: u64) {
        self.add(run(seed, History::Hashed));
    }

    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.simulated_seconds += outcome.simulated_seconds;
        self.trace_hash = self.trace_hash.wrapping_add(mix(outcome.seed ^ outcome.trace_hash));
        self.seen.add(&outcome.seen);
        self.broken.extend(outcome.violation.map(|violation| (outcome.seed, violation)));
    }

    /// Adds another range.
    pub fn join(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.simulated_seconds += other.simulated_seconds;
        self.trace_hash = self.trace_hash.wrapping_add(other.trace_hash);
        self.seen.add(&other.seen);
        self.broken.extend(other.broken);
        self.broken.sort_by_key(|(seed, _)| *seed);
    }
}

/// How a planted fault was found.
#[cfg(debug_assertions)]
#[derive(Debug, Clone)]
pub struct Kill {
    /// Seeds that it took.
    pub seeds: u64,
    /// The invariant that broke; `panic` if the code stopped itself.
    pub invariant: &'static str,
    /// What was found.
    pub text: String,
}

/// Plants `mutant` and runs seeds from 0 until one finds it, at most `seeds_max`.
#[cfg(debug_assertions)]
#[must_use]
pub fn hunt(mutant: crate::core::mutant::Mutant, seeds_max: u64) -> Option<Kill> {
    use crate::core::mutant::plant;
    plant(Some(mutant));
    let found = (0..seeds_max).find_map(|seed| {
        let kill = |invariant, text| Some(Kill { seeds: seed + 1, invariant, text });
        match std::panic::catch_unwind(|| run(seed, History::Hashed)) {
            Ok(outcome) => outcome.violation.and_then(|found| kill(found.invariant, found.text)),
            Err(_) => kill("panic", "the code stopped itself".to_owned()),
        }
    });
    plant(None);
    found
}
