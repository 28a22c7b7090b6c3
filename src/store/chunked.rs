//! Statements over many rows in few texts: each is made once, for a few numbers of rows, from constants.
//! It must not know a table.

use super::db::{Tx, Value};
use super::error::StoreError;

/// Rows per text, largest first. The widest row has 13 values: 256 of them stay far below the 32,766
/// parameters that SQLite allows.
const SIZES: [usize; 6] = [256, 64, 16, 4, 2, 1];

/// A statement with a list of rows in the middle, and one value, `$1`, that is shared by all of them.
pub(super) struct Chunked {
    postgres: [String; SIZES.len()],
    /// Differs because SQLite looks each parameter with a number up among all that have one: a third of a commit.
    sqlite: [String; SIZES.len()],
    width: usize,
    shared: Shared,
}

/// Where the shared value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    /// Before the values of every row.
    InEveryRow,
    /// Once, ahead of the rows.
    Ahead,
    /// Once, in what follows the rows.
    AtTheEnd,
}

impl Chunked {
    /// `head (…), (…) tail` with `width` values a row; the head or the tail names `$1`, once.
    pub(super) fn values(head: &str, width: usize, tail: &str) -> Self {
        let named = (head.matches("$1").count(), tail.matches("$1").count());
        debug_assert!(matches!(named, (1, 0) | (0, 1)), "`$1` is named once");
        Self::new(head, if named.0 == 1 { Shared::Ahead } else { Shared::AtTheEnd }, width, tail)
    }

    /// `head (…), (…) tail` with `$1` before the `width` values of every row: what an insert needs.
    pub(super) fn insert(head: &str, width: usize, tail: &str) -> Self {
        Self::new(head, Shared::InEveryRow, width, tail)
    }

    fn new(head: &str, shared: Shared, width: usize, tail: &str) -> Self {
        let text = |rows: usize, name: &dyn Fn(usize) -> String| {
            let row = |row: usize| {
                let first = (shared == Shared::InEveryRow).then(|| name(1));
                let others = (0..width).map(|column| name(2 + row * width + column));
                format!("({})", first.into_iter().chain(others).collect::<Vec<_>>().join(", "))
            };
            let rows = (0..rows).map(row).collect::<Vec<_>>().join(", ");
            let [head, tail] = [head, tail].map(|text| text.replace("$1", &name(1)));
            format!("{head} VALUES {rows}{tail}")
        };
        let postgres = SIZES.map(|rows| text(rows, &|number| format!("${number}")));
        let sqlite = SIZES.map(|rows| text(rows, &|_| "?".to_owned()));
        Self { postgres, sqlite, width, shared }
    }

    /// Runs it over `rows`, one after the other in one list, and returns how many rows it changed.
    pub(super) async fn run(
        &'static self,
        tx: &mut Tx<'_>,
        shared: i64,
        rows: &[Value],
    ) -> Result<u64, StoreError> {
        debug_assert_eq!(rows.len() % self.width, 0, "rows of one width");
        let (is_sqlite, shared) = (matches!(tx, Tx::Sqlite(_)), Value::from(shared));
        let texts = if is_sqlite { &self.sqlite } else { &self.postgres };
        let mut rest = rows;
        let mut changed = 0;
        let mut values = Vec::with_capacity(rows.len().min(SIZES[0] * self.width) + SIZES[0]);
        for (size, text) in SIZES.iter().zip(texts) {
            while rest.len() >= size * self.width {
                let (now, later) = rest.split_at(size * self.width);
                values.clear();
                match (is_sqlite, self.shared) {
                    (true, Shared::InEveryRow) => {
                        for row in now.chunks(self.width) {
                            values.push(shared.clone());
                            values.extend_from_slice(row);
                        }
                    }
                    (true, Shared::AtTheEnd) => {
                        values.extend_from_slice(now);
                        values.push(shared.clone());
                    }
                    (true, Shared::Ahead) | (false, _) => {
                        values.push(shared.clone());
                        values.extend_from_slice(now);
                    }
                }
                changed += tx.execute(text, &values).await?;
                rest = later;
            }
        }
        Ok(changed)
    }
}
