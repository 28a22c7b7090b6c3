//! Chance without state: every draw is a function of its key.
//!
//! Owns the counter-based generator that seeding and sampling use. A draw depends on the seed, the run,
//! the purpose and its number, never on which thread asked first.

/// What a draw is for; two purposes never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Choosing starting centres.
    Seeding,
    /// Adding one centre to a finished solution.
    Growing,
    /// Choosing the rows on which k is decided.
    Sampling,
    /// Choosing the rows whose silhouette is evaluated, and their references.
    Silhouette,
    /// Choosing the rows that are drawn on the map.
    Map,
    /// Drawing the reference data of the gap statistic.
    Gap,
    /// Choosing the rows of a batch.
    Batch,
    /// Choosing where a centre moves to.
    Swapping,
}

/// A stream of draws, keyed by (seed, run, purpose).
#[derive(Debug, Clone, Copy)]
pub(super) struct Draws {
    key: u64,
}

/// One round of SplitMix64's finaliser: a bijection of 64 bits that leaves no visible pattern.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The odd constant nearest to 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Draws {
    pub(super) fn new(seed: u64, run: u64, purpose: Purpose) -> Self {
        let key = mixed(seed.wrapping_add(STEP));
        let key = mixed(key ^ run.wrapping_mul(STEP));
        Self { key: mixed(key ^ (purpose as u64 + 1).wrapping_mul(STEP)) }
    }

    /// Draw number `counter`: 64 even bits.
    pub(super) fn bits(self, counter: u64) -> u64 {
        mixed(self.key.wrapping_add(counter.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// Draw number `counter` in [0, 1).
    pub(super) fn unit(self, counter: u64) -> f64 {
        (self.bits(counter) >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// A draw that belongs to a text, such as a customer's key, wherever the row stands.
    pub(super) fn of_text(self, text: &str) -> u64 {
        let folded = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        self.bits(folded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_differ_by_purpose() {
        let seeding = Draws::new(42, 0, Purpose::Seeding);
        let growing = Draws::new(42, 0, Purpose::Growing);
        let mean = (0..100_000).map(|i| seeding.unit(i)).sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        assert!((0..1000).all(|i| seeding.bits(i) != growing.bits(i)));
    }
}
