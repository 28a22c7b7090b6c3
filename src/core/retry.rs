//! Whether a failed attempt is followed by another, and when.

use std::time::Duration;

use super::dag::RetryPolicy;
use super::ids::Timestamp;

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Another attempt, not before this time.
    RetryAt(Timestamp),
    /// None.
    GiveUp,
}

/// The shortest first wait.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Attempt `try_number` (from 1 since the last clear) ended at `ended_at` with an error that another
/// attempt may help.
///
/// With m = `exponential_backoff` and n = `try_number`, b = max(1 s, ⌈delay · mⁿ⁻¹⌉) in whole seconds, and the
/// wait is b + (salt mod b), at most `delay_max`: chance enters only through `salt`, a hash of names. With
/// m = 0 the wait is `delay`, without jitter.
#[must_use]
pub fn after_failure(policy: &RetryPolicy, try_number: u32, ended_at: Timestamp, salt: u64) -> RetryDecision {
    if try_number > policy.retries {
        return RetryDecision::GiveUp;
    }
    if policy.exponential_backoff == 0.0 {
        return RetryDecision::RetryAt(ended_at.plus(policy.delay.min(policy.delay_max)));
    }
    let power = policy.exponential_backoff.powi(i32::try_from(try_number - 1).unwrap_or(i32::MAX));
    let seconds = (policy.delay.as_secs_f64() * power).ceil();
    let longest = policy.delay_max.as_secs_f64().max(1.0);
    // Past the longest wait the exact figure does not matter, and it may be infinite.
    let base = if seconds.is_finite() { seconds.clamp(WAIT_MIN.as_secs_f64(), longest) } else { longest };
    let base = Duration::from_secs_f64(base);
    let jitter = Duration::from_secs(salt % base.as_secs().max(1));
    RetryDecision::RetryAt(ended_at.plus((base + jitter).min(policy.delay_max)))
}

/// A hash that is the same on every machine and in every version (FNV-1a, 64 bits, parts ended by a zero).
#[must_use]
pub fn salt(parts: &[&str], number: u32) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let text = parts.iter().flat_map(|part| part.bytes().chain([0]));
    number.to_le_bytes().into_iter().chain(text).fold(BASIS, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(retries: u32, delay: u64, m: f64, max: u64) -> RetryPolicy {
        RetryPolicy {
            retries,
            delay: Duration::from_secs(delay),
            exponential_backoff: m,
            delay_max: Duration::from_secs(max),
        }
    }

    fn wait(policy: &RetryPolicy, n: u32, salt: u64) -> Option<u64> {
        match after_failure(policy, n, Timestamp(0), salt) {
            RetryDecision::RetryAt(at) => Some(at.since(Timestamp(0)).as_secs()),
            RetryDecision::GiveUp => None,
        }
    }

    #[test]
    fn a_constant_wait_has_no_jitter() {
        let policy = policy(2, 30, 0.0, 86_400);
        assert_eq!(
            [wait(&policy, 1, 7), wait(&policy, 2, 99), wait(&policy, 3, 0)],
            [Some(30), Some(30), None]
        );
    }

    #[test]
    fn a_growing_wait_lies_between_once_and_twice_its_base_and_below_the_limit() {
        let policy = policy(200, 10, 2.0, 300);
        for (n, base) in [(1, 10), (2, 20), (3, 40), (4, 80)] {
            for salt in [0, 1, 12_345, u64::MAX] {
                let got = wait(&policy, n, salt).unwrap();
                assert!((base..2 * base).contains(&got), "attempt {n}: {got}");
            }
        }
        assert_eq!(wait(&policy, 200, 5), Some(300), "far attempts wait the longest, and nothing overflows");
    }
}
