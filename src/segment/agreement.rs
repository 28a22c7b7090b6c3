//! How far two groupings of the same customers agree.
//!
//! Owns the adjusted Rand index, normalised mutual information, Jaccard overlap and the share that moved, all
//! from one table of counts.

/// How many customers are in both of two groups: one row per old group, one column per new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contingency {
    /// Old groups.
    pub old: Vec<String>,
    /// New groups.
    pub new: Vec<String>,
    /// `counts[p][q]`: customers of old group p that are in new group q.
    pub counts: Vec<Vec<u64>>,
}

impl Contingency {
    /// A table from pairs of groups with their counts; groups stand by name.
    #[must_use]
    pub fn of(pairs: &[(String, String, u64)]) -> Self {
        let names = |name: fn(&(String, String, u64)) -> &String| {
            let mut names: Vec<String> = pairs.iter().map(|pair| name(pair).clone()).collect();
            names.sort();
            names.dedup();
            names
        };
        let (old, new) = (names(|pair| &pair.0), names(|pair| &pair.1));
        let mut counts = vec![vec![0; new.len()]; old.len()];
        for (from, to, n) in pairs {
            if let (Ok(p), Ok(q)) = (old.binary_search(from), new.binary_search(to)) {
                counts[p][q] += n;
            }
        }
        Self { old, new, counts }
    }

    /// All customers in the table.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Customers of each old group.
    #[must_use]
    pub fn old_sizes(&self) -> Vec<u64> {
        self.counts.iter().map(|row| row.iter().sum()).collect()
    }

    /// Customers of each new group.
    #[must_use]
    pub fn new_sizes(&self) -> Vec<u64> {
        (0..self.new.len()).map(|q| self.counts.iter().map(|row| row[q]).sum()).collect()
    }

    /// The share of customers whose group has another name; `None` without customers.
    #[must_use]
    pub fn moved_share(&self) -> Option<f64> {
        let all = self.total();
        let stayed: u64 = self.both().map(|(p, q)| self.counts[p][q]).sum();
        (all > 0).then(|| (all - stayed) as f64 / all as f64)
    }

    /// For each old group: customers in it before and now, of those in it before or now. 0 for a group that
    /// is gone.
    #[must_use]
    pub fn jaccards(&self) -> Vec<f64> {
        let (old, new) = (self.old_sizes(), self.new_sizes());
        let mut found = vec![0.0; self.old.len()];
        for (p, q) in self.both() {
            let common = self.counts[p][q];
            found[p] = common as f64 / (old[p] + new[q] - common) as f64;
        }
        found
    }

    /// The adjusted Rand index: 1 for the same grouping, about 0 for chance; `None` without customers.
    #[must_use]
    pub fn adjusted_rand(&self) -> Option<f64> {
        let n = i128::from(self.total());
        if n == 0 {
            return None;
        }
        let squares = |counts: &mut dyn Iterator<Item = u64>| {
            counts.map(|n| i128::from(n) * i128::from(n)).sum::<i128>()
        };
        let both = squares(&mut self.counts.iter().flatten().copied());
        let old = squares(&mut self.old_sizes().into_iter());
        let new = squares(&mut self.new_sizes().into_iter());
        // Ordered pairs: together in both, in one only, in neither.
        let (together, only_old, only_new) = (both - n, old - both, new - both);
        let apart = n * n - both - only_old - only_new;
        if only_old == 0 && only_new == 0 {
            return Some(1.0);
        }
        let (together, only_old, only_new, apart) =
            (together as f64, only_old as f64, only_new as f64, apart as f64);
        let below = (together + only_old) * (only_old + apart) + (together + only_new) * (only_new + apart);
        Some(2.0 * (together * apart - only_old * only_new) / below)
    }

    /// Mutual information over the mean of the two entropies: from 0 to 1; `None` without customers.
    #[must_use]
    pub fn normalised_mutual_information(&self) -> Option<f64> {
        let n = self.total() as f64;
        if n == 0.0 {
            return None;
        }
        let (old, new) = (self.old_sizes(), self.new_sizes());
        let groups = |sizes: &[u64]| sizes.iter().filter(|size| **size > 0).count();
        if groups(&old) == 1 && groups(&new) == 1 {
            return Some(1.0);
        }
        let entropy = |sizes: &[u64]| {
            let shares = sizes.iter().filter(|size| **size > 0).map(|size| *size as f64 / n);
            -shares.map(|share| share * share.ln()).sum::<f64>()
        };
        let mut information = 0.0;
        for (p, row) in self.counts.iter().enumerate() {
            for (q, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                let count = count as f64;
                information += count / n * (count * n / (old[p] as f64 * new[q] as f64)).ln();
            }
        }
        let mean = (entropy(&old) + entropy(&new)) / 2.0;
        Some(if mean == 0.0 { 0.0 } else { (information / mean).clamp(0.0, 1.0) })
    }

    /// Places of the groups that have one name in both.
    fn both(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.old.iter().enumerate().filter_map(|(p, name)| Some((p, self.new.binary_search(name).ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pairs: &[(&str, &str, u64)]) -> Contingency {
        let pairs: Vec<_> = pairs.iter().map(|(p, q, n)| ((*p).to_owned(), (*q).to_owned(), *n)).collect();
        Contingency::of(&pairs)
    }

    #[test]
    fn the_same_grouping_agrees_fully_and_names_matter_to_those_who_move_only() {
        let same = table(&[("a", "a", 5), ("b", "b", 3)]);
        assert_eq!((same.adjusted_rand(), same.moved_share()), (Some(1.0), Some(0.0)));
        assert_eq!(same.jaccards(), [1.0, 1.0]);
        let renamed = table(&[("a", "x", 5), ("b", "y", 3)]);
        assert_eq!((renamed.adjusted_rand(), renamed.moved_share()), (Some(1.0), Some(1.0)));
        assert!((renamed.normalised_mutual_information().unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(renamed.jaccards(), [0.0, 0.0]);
    }

    #[test]
    fn known_figures_come_out() {
        // Labels 0 0 1 1 against 0 0 1 2: scikit-learn gives 0.571428…, 0.8.
        let split = table(&[("0", "0", 2), ("1", "1", 1), ("1", "2", 1)]);
        assert!((split.adjusted_rand().unwrap() - 4.0 / 7.0).abs() < 1e-12);
        assert!((split.normalised_mutual_information().unwrap() - 0.8).abs() < 1e-12);
        assert_eq!(split.moved_share(), Some(0.25));
        assert_eq!(split.jaccards(), [1.0, 0.5]);
        // Nothing in common.
        let crossed = table(&[("0", "0", 1), ("0", "1", 1), ("1", "0", 1), ("1", "1", 1)]);
        assert!((crossed.adjusted_rand().unwrap() + 0.5).abs() < 1e-12);
        assert_eq!(crossed.normalised_mutual_information(), Some(0.0));
    }

    #[test]
    fn without_customers_there_is_no_figure() {
        let none = Contingency::default();
        assert_eq!(
            (none.adjusted_rand(), none.normalised_mutual_information(), none.moved_share()),
            (None, None, None)
        );
    }
}
