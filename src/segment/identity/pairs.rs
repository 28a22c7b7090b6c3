//! The assignment problem: rows and columns paired so that the weights of the pairs sum to the most.
//!
//! Owns the Hungarian algorithm (Kuhn 1955, in the shortest-path form with potentials) and the rule that among
//! equally good pairings the lexicographically lowest is taken.

/// Weights this near to the best count as equal to it.
const EQUAL: f64 = 1e-12;

/// The column of every row, so that the sum of `weights` (rows × columns) is largest; a row without a column
/// left over gets `None`.
///
/// Every weight is finite, all rows have one length. Among pairings of equal sum the first row has the lowest
/// column it can have, then the second, and so on.
pub fn best_pairs(weights: &[Vec<f64>]) -> Vec<Option<usize>> {
    let rows = weights.len();
    let columns = weights.first().map_or(0, Vec::len);
    let size = rows.max(columns);
    if columns == 0 {
        return vec![None; rows];
    }
    let cost = |row: usize, column: usize| {
        if row < rows && column < columns { -weights[row][column] } else { 0.0 }
    };
    let solved = solve(size, &cost);
    lowest(size, &cost, solved)
        .into_iter()
        .take(rows)
        .map(|column| Some(column).filter(|c| *c < columns))
        .collect()
}

/// A cheapest pairing with the potentials that prove it.
struct Solved {
    column_of: Vec<usize>,
    row_potential: Vec<f64>,
    column_potential: Vec<f64>,
}

/// Adds one row after the other, each along the shortest augmenting path. Index 0 of the arrays of columns
/// (from 1) stands for the row being added.
fn solve(size: usize, cost: &impl Fn(usize, usize) -> f64) -> Solved {
    let mut row_potential = vec![0.0; size + 1];
    let mut column_potential = vec![0.0; size + 1];
    let mut row_of = vec![0_usize; size + 1];
    for row in 1..=size {
        row_of[0] = row;
        let mut at = 0;
        let mut shortest = vec![f64::INFINITY; size + 1];
        let mut before = vec![0_usize; size + 1];
        let mut visited = vec![false; size + 1];
        while row_of[at] != 0 {
            visited[at] = true;
            let from = row_of[at];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for column in (1..=size).filter(|&column| !visited[column]) {
                let reduced = cost(from - 1, column - 1) - row_potential[from] - column_potential[column];
                if reduced < shortest[column] {
                    shortest[column] = reduced;
                    before[column] = at;
                }
                if shortest[column] < step {
                    step = shortest[column];
                    next = column;
                }
            }
            for column in 0..=size {
                if visited[column] {
                    row_potential[row_of[column]] += step;
                    column_potential[column] -= step;
                } else {
                    shortest[column] -= step;
                }
            }
            at = next;
        }
        while at != 0 {
            row_of[at] = row_of[before[at]];
            at = before[at];
        }
    }
    let mut column_of = vec![0; size];
    (1..=size).for_each(|column| column_of[row_of[column] - 1] = column - 1);
    Solved {
        column_of,
        row_potential: row_potential.split_off(1),
        column_potential: column_potential.split_off(1),
    }
}

/// Moves to the lexicographically lowest pairing of equal cost: every cheapest pairing uses tight pairs only.
fn lowest(size: usize, cost: &impl Fn(usize, usize) -> f64, solved: Solved) -> Vec<usize> {
    let Solved { mut column_of, row_potential, column_potential } = solved;
    let tight = |row: usize, column: usize| {
        (cost(row, column) - row_potential[row] - column_potential[column]).abs() <= EQUAL
    };
    let mut row_of = vec![0; size];
    column_of.iter().enumerate().for_each(|(row, &column)| row_of[column] = row);
    for row in 0..size {
        let current = column_of[row];
        for column in 0..current {
            // The column's present row must find another way, back to the column that `row` gives up.
            let mut visited = vec![false; size];
            visited[column] = true;
            if row_of[column] > row
                && tight(row, column)
                && reroute(row_of[column], current, row, &tight, &mut visited, &mut row_of)
            {
                row_of[column] = row;
                break;
            }
        }
        row_of.iter().enumerate().for_each(|(column, &row)| column_of[row] = column);
    }
    column_of
}

/// Gives `row` another tight column, along rows above `fixed` only, so that `free` is taken in the end.
fn reroute(
    row: usize,
    free: usize,
    fixed: usize,
    tight: &impl Fn(usize, usize) -> bool,
    visited: &mut [bool],
    row_of: &mut [usize],
) -> bool {
    for column in 0..visited.len() {
        if visited[column] || !tight(row, column) {
            continue;
        }
        visited[column] = true;
        let owner = row_of[column];
        if column == free || (owner > fixed && reroute(owner, free, fixed, tight, visited, row_of)) {
            row_of[column] = row;
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All ways to pair, the best first, the lexicographically lowest of equals.
    fn brute(weights: &[Vec<f64>]) -> (f64, Vec<Option<usize>>) {
        fn extend(
            weights: &[Vec<f64>],
            taken: &mut Vec<Option<usize>>,
            sum: f64,
            best: &mut (f64, Vec<Option<usize>>),
        ) {
            let row = taken.len();
            if row == weights.len() {
                if sum > best.0 + EQUAL {
                    *best = (sum, taken.clone());
                }
                return;
            }
            let columns = weights[0].len();
            let spare = weights.len() > columns;
            for column in (0..columns).map(Some).chain(spare.then_some(None)) {
                if column.is_some() && taken.contains(&column) {
                    continue;
                }
                taken.push(column);
                extend(weights, taken, sum + column.map_or(0.0, |column| weights[row][column]), best);
                taken.pop();
            }
        }
        let mut best = (f64::NEG_INFINITY, Vec::new());
        extend(weights, &mut Vec::new(), 0.0, &mut best);
        best
    }

    #[test]
    fn pairs_cost_what_trying_all_costs_up_to_seven() {
        let chance =
            |n: u64| ((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1_u64 << 24) as f64;
        for case in 0..300_u64 {
            let (rows, columns) = (1 + case as usize % 7, 1 + (case as usize / 7) % 7);
            let weight = |row: usize, column: usize| {
                let value = chance(case * 100 + (row * columns + column) as u64);
                // Every third case has many equal weights.
                if case % 3 == 0 { (value * 3.0).floor() } else { value }
            };
            let weights: Vec<Vec<f64>> =
                (0..rows).map(|row| (0..columns).map(|column| weight(row, column)).collect()).collect();
            let found = best_pairs(&weights);
            let sum: f64 = found.iter().zip(&weights).filter_map(|(column, row)| Some(row[(*column)?])).sum();
            let (best, lowest) = brute(&weights);
            assert!((sum - best).abs() < 1e-9, "case {case}: {sum} is not {best}");
            if rows <= columns {
                assert_eq!(found, lowest, "case {case}: {weights:?}");
            }
        }
    }

    #[test]
    fn nothing_to_pair_is_no_pair() {
        assert!(best_pairs(&[]).is_empty());
        assert_eq!(best_pairs(&[vec![], vec![]]), [None, None]);
    }
}
