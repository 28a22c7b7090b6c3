//! What happened: a hash of all of it, and the lines of it if a person wants to read them.

use super::random::mix;

/// The history of one seed.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Of everything noted so far: equal seeds give equal hashes.
    pub(super) hash: u64,
    /// Events so far.
    pub(super) events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// With lines, or with the hash alone.
    pub(super) fn new(written: bool) -> Self {
        Self { hash: 0, events: 0, lines: written.then(Vec::new) }
    }

    /// Whether lines are kept.
    pub(super) fn is_written(&self) -> bool {
        self.lines.is_some()
    }

    /// Notes something at `now` microseconds: `numbers` go into the hash, `line` is written if anybody reads.
    pub(super) fn note(&mut self, now: i64, numbers: &[u64], line: impl FnOnce() -> String) {
        self.hash = mix(self.hash ^ now.cast_unsigned());
        for &number in numbers {
            self.hash = mix(self.hash.rotate_left(9) ^ number);
        }
        if let Some(lines) = &mut self.lines {
            let (seconds, millis) = (now / 1_000_000, now / 1_000 % 1_000);
            lines.push(format!("{seconds:>5}.{millis:03}  {}", line()));
        }
    }

    /// The lines.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
