//! Whether and when a failed attempt is followed by another. The jitter is a hash, so the answer is a
//! function of its arguments.

use std::time::Duration;

use super::dag::RetryPolicy;
use super::ids::{RunKey, TaskId, Timestamp};
use super::mutant::{self, Mutant};

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Another attempt, from this time on.
    RetryAt(Timestamp),
    /// None.
    GiveUp,
}

/// What follows when attempt `try_number` (from 1) ended at `ended_at` with an error that another attempt
/// may cure.
///
/// With `b = max(1 s, ceil(delay × m^(try_number − 1)))` in whole seconds, m being the policy's factor, the
/// wait is `min(b + hash mod b, delay_max)`, so in [b, 2b). A factor of 0 waits `delay` each time.
/// `salt` comes from [`salt`].
#[must_use]
pub fn after_failure(policy: &RetryPolicy, try_number: u32, ended_at: Timestamp, salt: u64) -> RetryDecision {
    if try_number > policy.retries + u32::from(mutant::is(Mutant::OneRetryTooMany)) {
        return RetryDecision::GiveUp;
    }
    if policy.exponential_backoff <= 0.0 {
        return RetryDecision::RetryAt(ended_at.plus(policy.delay.min(policy.delay_max)));
    }
    let exponent = f64::from(try_number.saturating_sub(1));
    let seconds = policy.delay.as_secs_f64() * policy.exponential_backoff.powf(exponent);
    // A cast from a float saturates: a wait beyond all bounds becomes the longest one.
    let base = Duration::from_secs(seconds.ceil() as u64).clamp(Duration::from_secs(1), LONGEST_BASE);
    let jitter = Duration::from_secs(splitmix(salt ^ u64::from(try_number)) % base.as_secs());
    RetryDecision::RetryAt(ended_at.plus((base + jitter).min(policy.delay_max)))
}

/// A thousand years: keeps sums of durations in range whatever the policy says.
const LONGEST_BASE: Duration = Duration::from_secs(1_000 * 366 * 86_400);

/// The hash that sets the jitter of one task instance in one run; the same everywhere and always.
#[must_use]
pub fn salt(run: &RunKey, task: &TaskId, map_index: i32) -> u64 {
    let texts = [run.dag_id.as_str(), task.as_str(), run.run_id.as_str()];
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0])).chain(map_index.to_le_bytes());
    // FNV-1a; `splitmix` spreads it over all bits.
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(policy: &RetryPolicy, try_number: u32, salt: u64) -> Option<u64> {
        match after_failure(policy, try_number, Timestamp(0), salt) {
            RetryDecision::RetryAt(at) => Some(at.since(Timestamp(0)).as_secs()),
            RetryDecision::GiveUp => None,
        }
    }

    #[test]
    fn a_constant_wait_has_no_jitter_and_ends_with_the_retries() {
        let policy = RetryPolicy { retries: 2, delay: Duration::from_secs(30), ..RetryPolicy::default() };
        assert_eq!([1, 2, 3].map(|n| wait(&policy, n, 7)), [Some(30), Some(30), None]);
    }

    #[test]
    fn backoff_stays_between_one_and_two_times_its_base_and_below_the_longest_wait() {
        let policy = RetryPolicy {
            retries: 2_000,
            delay: Duration::from_secs(10),
            exponential_backoff: 2.0,
            delay_max: Duration::from_secs(3_600),
        };
        for salt in 0..200 {
            for (n, base) in [(1, 10), (2, 20), (3, 40), (4, 80)] {
                let wait = wait(&policy, n, salt).expect("a retry is left");
                assert!((base..2 * base).contains(&wait), "attempt {n}: {wait} s");
            }
            assert_eq!(wait(&policy, 2_000, salt), Some(3_600));
        }
        assert_ne!(wait(&policy, 4, 1), wait(&policy, 4, 2));
    }

    #[test]
    fn a_wait_is_at_least_a_second_under_backoff() {
        let policy = RetryPolicy {
            retries: 1,
            delay: Duration::ZERO,
            exponential_backoff: 3.0,
            ..RetryPolicy::default()
        };
        assert_eq!(wait(&policy, 1, 5), Some(1));
    }
}
