//! Statements over many rows in few texts: each is made once, for a few numbers of rows, from constants.
//! It must not know a table.

use super::db::{Tx, Value};
use super::error::StoreError;

/// Rows per text, largest first. The widest row has 13 values: 256 of them stay far below the 32,766
/// parameters that SQLite allows.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// A statement with a list of rows in the middle. `$1` is shared by all of them.
pub(super) struct Chunked {
    texts: [String; SIZES.len()],
    width: usize,
}

impl Chunked {
    /// `head (…), (…) tail` with `width` values a row.
    pub(super) fn values(head: &str, width: usize, tail: &str) -> Self {
        Self::new(head, "", width, tail)
    }

    /// The same with `$1` before the values of every row: what an insert needs.
    pub(super) fn insert(head: &str, width: usize, tail: &str) -> Self {
        Self::new(head, "$1, ", width, tail)
    }

    fn new(head: &str, first: &str, width: usize, tail: &str) -> Self {
        let texts = SIZES.map(|rows| {
            let mut text = format!("{head} VALUES ");
            for row in 0..rows {
                text.push_str(if row == 0 { "(" } else { ", (" });
                text.push_str(first);
                for column in 0..width {
                    let comma = if column == 0 { "" } else { ", " };
                    text.push_str(&format!("{comma}${}", 2 + row * width + column));
                }
                text.push(')');
            }
            text.push_str(tail);
            text
        });
        Self { texts, width }
    }

    /// Runs it over `rows`, one after the other in one list, and returns how many rows it changed.
    pub(super) async fn run(
        &'static self,
        tx: &mut Tx<'_>,
        first: i64,
        rows: &[Value],
    ) -> Result<u64, StoreError> {
        debug_assert_eq!(rows.len() % self.width, 0, "rows of one width");
        let mut rest = rows;
        let mut changed = 0;
        let mut values = Vec::with_capacity(1 + rows.len().min(SIZES[0] * self.width));
        for (size, text) in SIZES.iter().zip(&self.texts) {
            while rest.len() >= size * self.width {
                let (now, later) = rest.split_at(size * self.width);
                values.clear();
                values.push(Value::from(first));
                values.extend_from_slice(now);
                changed += tx.execute(text, &values).await?;
                rest = later;
            }
        }
        Ok(changed)
    }
}
