//! Complete and average linkage by nearest-neighbour chains (Murtagh 1983; Müllner 2011, arXiv 1109.2378): O(n²)
//! time, at most n² / 2 numbers.
//!
//! Distances between rows are not kept: to measure them anew is faster than to read them from memory. Only merged
//! clusters have a line of distances, to what is older than they. And lines are not searched for their least number:
//! a bound is known for each block of each. No cluster comes nearer than one of its parts was, so bounds hold, and
//! few blocks need a look.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Tree;
use super::blocks::{BLOCK, Block, Points, least};
use super::ward::numbered;
use crate::segment::matrix::Matrix;
use crate::segment::vectors::Vectors;

/// Below this many places they are not made fewer any more.
const SMALL: usize = 256;

/// The distance of a merged cluster from another, given those of its two parts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Complete,
    Average,
}

/// The clusters that have not been merged yet, each in a place.
struct Active {
    points: Points,
    /// Infinite where a place is no cluster's any more.
    gone: Vec<Block>,
    /// How many merges there had been when a place got its cluster; none for a row.
    born: Vec<u32>,
    /// By place: which line a merged cluster has.
    line: Vec<usize>,
    /// By block and line: the distances from a merged cluster to all that are older. Lines lie side by side in a
    /// block, so that what they all say of one place is on few pages of memory.
    lines: Vec<Vec<Block>>,
    /// By line: the place of the cluster that has it and when that was born; never, if none has it.
    owners: Vec<(usize, u32)>,
    /// Lines that no cluster has.
    free: Vec<usize>,
    /// By block of places and block: no cluster of the latter is nearer to each of the former than this.
    bounds: Vec<Block>,
    weights: Vec<f64>,
    /// Each one's lowest row, which stands for it until nodes are numbered.
    rows: Vec<usize>,
    count: usize,
    merges: u32,
}

impl Active {
    fn new(points: &Matrix, vectors: Vectors) -> Self {
        let count = points.rows();
        let blocks = count.div_ceil(BLOCK);
        let columns = points.columns();
        let points = Points::new(columns.len(), count, |column, row| columns[column][row]);
        let mut bounds = vec![[0.0; BLOCK]; blocks * blocks];
        bounds.par_chunks_mut(blocks.max(1)).enumerate().for_each(|(number, bounds)| {
            vectors.run(Bounds { points: &points, first: number * BLOCK, count, bounds });
        });
        Self {
            points,
            gone: gone(count),
            born: vec![0; blocks * BLOCK],
            line: vec![0; blocks * BLOCK],
            lines: (0..blocks).map(|_| Vec::with_capacity(count / 2)).collect(),
            owners: Vec::new(),
            free: Vec::new(),
            bounds,
            weights: vec![1.0; count],
            rows: (0..count).collect(),
            count,
            merges: 0,
        }
    }

    /// The first cluster that is not `other`.
    fn first_but(&self, other: usize) -> usize {
        let first = (0..self.rows.len()).find(|&place| place != other && self.is_cluster(place));
        first.expect("more than one cluster is left")
    }

    fn is_cluster(&self, place: usize) -> bool {
        self.gone.as_flattened()[place] == 0.0
    }

    /// The distance between two clusters.
    fn distance(&self, left: usize, right: usize) -> f64 {
        let (young, old) = if self.born[left] < self.born[right] { (right, left) } else { (left, right) };
        if self.born[young] > 0 {
            return self.lines[old / BLOCK][self.line[young]][old % BLOCK];
        }
        let columns = self.points.block(left / BLOCK).iter().zip(self.points.block(right / BLOCK));
        let differences = columns.map(|(of_left, of_right)| of_left[left % BLOCK] - of_right[right % BLOCK]);
        differences.fold(0.0, |sum, difference| sum + difference * difference).sqrt()
    }

    /// The distances from the cluster at `place` to all others.
    fn read(&self, place: usize, vectors: Vectors, out: &mut [Block]) {
        let (block, within, own) = (place / BLOCK, place % BLOCK, self.born[place]);
        if own == 0 {
            vectors.run(Measured { points: &self.points, place, out: &mut *out });
        } else {
            out.iter_mut().zip(&self.lines).for_each(|(out, lines)| *out = lines[self.line[place]]);
        }
        let out = out.as_flattened_mut();
        // In the order of memory, which is faster than only the younger ones in theirs.
        for (line, &(other, born)) in self.lines[block].iter().zip(&self.owners) {
            if born > own {
                out[other] = line[within];
            }
        }
        out[place] = f64::INFINITY;
    }

    /// The distances from the cluster at `place` to those of a block.
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, place: usize, block: usize) -> Block {
        let mut values = [0.0; BLOCK];
        let own = self.born[place];
        if own == 0 {
            self.points.measure(simd, place, block, false, &mut values);
        } else {
            values = self.lines[block][self.line[place]];
        }
        let (first, born) = (block * BLOCK, &self.born[block * BLOCK..][..BLOCK]);
        for offset in 0..BLOCK {
            if born[offset] > own {
                values[offset] = self.lines[place / BLOCK][self.line[first + offset]][place % BLOCK];
            }
        }
        for (value, gone) in values.iter_mut().zip(&self.gone[block]) {
            *value += gone;
        }
        if place / BLOCK == block {
            values[place % BLOCK] = f64::INFINITY;
        }
        values
    }

    /// Puts the merged cluster in the place of `kept`; `gone` goes. `lines` are for its parts' distances.
    fn merge(&mut self, kept: usize, gone: usize, rule: Rule, vectors: Vectors, lines: &mut [Vec<Block>; 2]) {
        let [of_kept, of_gone] = lines;
        self.read(kept, vectors, of_kept);
        self.read(gone, vectors, of_gone);
        self.gone[gone / BLOCK][gone % BLOCK] = f64::INFINITY;
        vectors.run(Merged {
            of_kept,
            of_gone,
            weights: (self.weights[kept], self.weights[gone]),
            gone: &self.gone,
            place: kept,
            bounds: &mut self.bounds,
            rule,
        });
        self.forget(gone);
        self.forget(kept);
        self.keep(kept, of_kept);
        self.weights[kept] += self.weights[gone];
        self.rows[kept] = self.rows[kept].min(self.rows[gone]);
        self.count -= 1;
    }

    /// Gives back the line of the cluster at `place`, if it has one.
    fn forget(&mut self, place: usize) {
        if self.born[place] > 0 {
            self.born[place] = 0;
            self.owners[self.line[place]].1 = 0;
            self.free.push(self.line[place]);
        }
    }

    /// Keeps the line of the cluster at `place`, which has just been born.
    fn keep(&mut self, place: usize, distances: &[Block]) {
        self.merges += 1;
        self.born[place] = self.merges;
        let owner = (place, self.merges);
        if let Some(line) = self.free.pop() {
            self.line[place] = line;
            self.owners[line] = owner;
            self.lines.iter_mut().zip(distances).for_each(|(lines, own)| lines[line] = *own);
        } else {
            self.line[place] = self.owners.len();
            self.owners.push(owner);
            self.lines.iter_mut().zip(distances).for_each(|(lines, own)| lines.push(*own));
        }
    }

    /// Leaves the places out that are no cluster's any more, once they are half of all. `chain` holds places.
    fn tighten(&mut self, chain: &mut [usize]) {
        let before = self.rows.len();
        if self.count * 2 > before || before <= SMALL {
            return;
        }
        let kept: Vec<usize> = (0..before).filter(|&place| self.is_cluster(place)).collect();
        let blocks = kept.len().div_ceil(BLOCK);
        let value =
            |column: usize, place: usize| self.points.block(kept[place] / BLOCK)[column][kept[place] % BLOCK];
        self.points = Points::new(self.points.width, kept.len(), value);
        self.bounds = self.bounds_of(&kept);
        self.tighten_lines(&kept);
        let now = |place: usize| kept.binary_search(&place).expect("a cluster is kept");
        chain.iter_mut().for_each(|place| *place = now(*place));
        self.gone = gone(kept.len());
        self.weights = kept.iter().map(|&place| self.weights[place]).collect();
        self.rows = kept.iter().map(|&place| self.rows[place]).collect();
        self.born = kept.iter().map(|&place| self.born[place]).collect();
        self.born.resize(blocks * BLOCK, 0);
        self.line = vec![0; blocks * BLOCK];
        for (line, owner) in self.owners.iter_mut().enumerate() {
            owner.0 = now(owner.0);
            self.line[owner.0] = line;
        }
    }

    /// Leaves the places out of all lines that are not in `kept`, which rise, and the lines that no cluster has.
    fn tighten_lines(&mut self, kept: &[usize]) {
        let was: Vec<usize> = (0..self.owners.len()).filter(|&line| self.owners[line].1 > 0).collect();
        self.owners = was.iter().map(|&line| self.owners[line]).collect();
        self.free.clear();
        let mut spare = Vec::with_capacity(self.rows.len() / 2);
        for (block, places) in kept.chunks(BLOCK).enumerate() {
            let first = places[0] / BLOCK;
            let sources = &self.lines[first..=places[places.len() - 1] / BLOCK];
            let within: Vec<(usize, usize)> =
                places.iter().map(|place| (place / BLOCK - first, place % BLOCK)).collect();
            let of_line = |&line: &usize| {
                let mut own = [0.0; BLOCK];
                for (own, &(block, offset)) in own.iter_mut().zip(&within) {
                    *own = sources[block][line][offset];
                }
                own
            };
            was.par_iter().with_min_len(BLOCK).map(of_line).collect_into_vec(&mut spare);
            // No later block is made of this one: places only fall.
            std::mem::swap(&mut self.lines[block], &mut spare);
        }
        self.lines.truncate(kept.len().div_ceil(BLOCK));
    }

    /// The bounds of the places in `kept`, which rise: what held for blocks holds for those made of them.
    fn bounds_of(&self, kept: &[usize]) -> Vec<Block> {
        let (old, new) = (self.gone.len(), kept.len().div_ceil(BLOCK));
        let mut bounds = vec![[0.0; BLOCK]; new * new];
        bounds.par_chunks_mut(new).zip(kept.par_chunks(BLOCK)).for_each(|(bounds, places)| {
            for (bound, others) in bounds.iter_mut().zip(kept.chunks(BLOCK)) {
                let blocks = others[0] / BLOCK..=others[others.len() - 1] / BLOCK;
                for (bound, &place) in bound.iter_mut().zip(places) {
                    let own = &self.bounds[place / BLOCK * old..][blocks.clone()];
                    *bound = own.iter().fold(f64::INFINITY, |least, bounds| least.min(bounds[place % BLOCK]));
                }
            }
        });
        bounds
    }
}

/// Infinite beyond the places of so many clusters.
fn gone(count: usize) -> Vec<Block> {
    let mut gone = vec![[0.0; BLOCK]; count.div_ceil(BLOCK)];
    gone.as_flattened_mut()[count..].fill(f64::INFINITY);
    gone
}

/// The first bounds, of a block of rows.
struct Bounds<'a> {
    points: &'a Points,
    first: usize,
    count: usize,
    bounds: &'a mut [Block],
}

impl WithSimd for Bounds<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Bounds { points, first, count, bounds } = self;
        let mut squared = [0.0; BLOCK];
        for (block, bounds) in bounds.iter_mut().enumerate() {
            for place in first..count.min(first + BLOCK) {
                points.measure(simd, place, block, true, &mut squared);
                if place / BLOCK == block {
                    squared[place % BLOCK] = f64::INFINITY;
                }
                bounds[place - first] = least(simd, &squared).sqrt();
            }
        }
    }
}

/// The distances of a row from all rows.
struct Measured<'a> {
    points: &'a Points,
    place: usize,
    out: &'a mut [Block],
}

impl WithSimd for Measured<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for block in 0..self.out.len() {
            self.points.measure(simd, self.place, block, false, &mut self.out[block]);
        }
    }
}

/// The line of a merged cluster and the least of each of its blocks, from the lines of its parts.
struct Merged<'a> {
    of_kept: &'a mut [Block],
    of_gone: &'a [Block],
    weights: (f64, f64),
    gone: &'a [Block],
    place: usize,
    bounds: &'a mut [Block],
    rule: Rule,
}

impl WithSimd for Merged<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (left, right) = self.weights;
        let blocks = self.of_kept.len();
        for block in 0..blocks {
            let (kept, other) = (&mut self.of_kept[block], &self.of_gone[block]);
            for ((own, other), gone) in kept.iter_mut().zip(other).zip(&self.gone[block]) {
                let apart = match self.rule {
                    Rule::Complete => own.max(*other),
                    Rule::Average => (left * *own + right * other) / (left + right),
                };
                *own = apart + gone;
            }
            if matches!(self.rule, Rule::Average) {
                // It can be nearer than the part that had its place.
                let bounds = &mut self.bounds[block * blocks + self.place / BLOCK];
                for (bound, value) in bounds.iter_mut().zip(&*kept) {
                    *bound = if value < bound { *value } else { *bound };
                }
            }
            self.bounds[self.place / BLOCK * blocks + block][self.place % BLOCK] = least(simd, kept);
        }
    }
}

/// The cluster nearest to the one at `place` and its distance. Of equals `before` wins, or else a chain might turn in
/// a circle, then the lower place.
struct Nearest<'a> {
    active: &'a mut Active,
    place: usize,
    before: Option<usize>,
}

impl WithSimd for Nearest<'_> {
    type Output = (f64, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f64, usize) {
        let Nearest { active, place, before } = self;
        let blocks = active.gone.len();
        let mut best = (f64::INFINITY, usize::MAX);
        if let Some(before) = before {
            best = (active.distance(place, before), before);
        }
        let (first, within) = (place / BLOCK * blocks, place % BLOCK);
        // The likeliest block first: then the others seldom need a look.
        let mut likely = 0;
        for block in 1..blocks {
            if active.bounds[first + block][within] < active.bounds[first + likely][within] {
                likely = block;
            }
        }
        for block in std::iter::once(likely).chain(0..blocks) {
            let bound = active.bounds[first + block][within];
            let lower = block < best.1 / BLOCK && Some(best.1) != before && best.0 < f64::INFINITY;
            if bound < best.0 || lower && bound == best.0 {
                let values = active.block(simd, place, block);
                let least = least(simd, &values);
                active.bounds[first + block][within] = least;
                if least < best.0 || lower && least == best.0 {
                    let offset = values.iter().position(|value| *value == least);
                    best = (least, block * BLOCK + offset.expect("the least of a block is in the block"));
                }
            }
        }
        best
    }
}

pub(super) fn tree(points: &Matrix, rule: Rule, vectors: Vectors) -> Tree {
    let rows = points.rows();
    let mut active = Active::new(points, vectors);
    let mut merges: Vec<(f64, usize, usize)> = Vec::with_capacity(rows - 1);
    let mut chain: Vec<usize> = Vec::new();
    let mut lines = [(); 2].map(|()| vec![[0.0; BLOCK]; active.gone.len()]);
    while active.count > 1 {
        if chain.is_empty() {
            chain.push(active.first_but(usize::MAX));
        }
        let at = chain[chain.len() - 1];
        let before = chain.len().checked_sub(2).map(|place| chain[place]);
        let (height, mut next) = vectors.run(Nearest { active: &mut active, place: at, before });
        if next == usize::MAX {
            // Something is nearest even when every distance is infinite.
            next = active.first_but(at);
        }
        if Some(next) != before {
            chain.push(next);
            continue;
        }
        chain.truncate(chain.len() - 2);
        merges.push((height, active.rows[at], active.rows[next]));
        active.merge(next, at, rule, vectors, &mut lines);
        active.tighten(&mut chain);
        lines.iter_mut().for_each(|line| line.truncate(active.gone.len()));
    }
    numbered(rows, merges, &vec![1.0; rows])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::random::{Draws, Purpose};
    use crate::segment::vectors::Kernel;

    fn scattered(rows: usize, width: usize) -> Matrix {
        let draws = Draws::new(7, rows as u64, Purpose::Map);
        let column = |number: usize| {
            (0..rows).map(|row| draws.unit((row * width + number) as u64)).collect::<Vec<f64>>()
        };
        Matrix::from_columns((0..width).map(column).collect()).unwrap()
    }

    #[test]
    fn heights_and_sizes_are_those_of_a_plain_triangle() {
        for (rows, width) in [(1, 2), (2, 1), (3, 2), (8, 3), (9, 2), (300, 1), (1_100, 5)] {
            let points = scattered(rows, width);
            for (rule, method) in
                [(Rule::Complete, kodama::Method::Complete), (Rule::Average, kodama::Method::Average)]
            {
                let ours = tree(&points, rule, Vectors::detected());
                let mut distances = Vec::new();
                for left in 0..rows {
                    for right in left + 1..rows {
                        let (left, right) = (points.row(left), points.row(right));
                        let sum: f64 = left.iter().zip(&right).map(|(l, r)| (l - r) * (l - r)).sum();
                        distances.push(sum.sqrt());
                    }
                }
                let theirs = kodama::linkage(&mut distances, rows, method);
                assert_eq!(ours.merges.len(), theirs.len());
                for (ours, theirs) in ours.merges.iter().zip(theirs.steps()) {
                    let apart = (ours.height - theirs.dissimilarity).abs() / theirs.dissimilarity;
                    assert!(
                        apart <= 1e-9,
                        "{rows} rows, {rule:?}: {} and {}",
                        ours.height,
                        theirs.dissimilarity
                    );
                    assert_eq!(ours.size, theirs.size, "{rows} rows, {rule:?}");
                }
            }
        }
    }

    #[test]
    fn of_equally_near_clusters_all_instructions_choose_the_same() {
        let whole = |column: &Vec<f64>| column.iter().map(|value| (value * 5.0).floor()).collect();
        let points = Matrix::from_columns(scattered(1_300, 3).columns().iter().map(whole).collect()).unwrap();
        for rule in [Rule::Complete, Rule::Average] {
            let kernels = [Kernel::Baseline, Kernel::Avx2, Kernel::Avx512].into_iter();
            let mut trees =
                kernels.filter_map(Kernel::vectors).map(|vectors| tree(&points, rule, vectors).merges);
            let first = trees.next().unwrap();
            assert!(trees.all(|other| other == first), "{rule:?}");
        }
    }

    #[test]
    fn equal_rows_and_rows_infinitely_far_apart_have_a_tree() {
        for values in [vec![3.0; 700], (0..700).map(|row| f64::from(row % 2) * 1e300).collect()] {
            let points = Matrix::from_columns(vec![values.clone(), values]).unwrap();
            for rule in [Rule::Complete, Rule::Average] {
                assert_eq!(tree(&points, rule, Vectors::detected()).merges.len(), 699, "{rule:?}");
            }
            for linkage in [crate::segment::spec::Linkage::Ward, crate::segment::spec::Linkage::Single] {
                assert_eq!(super::super::tree(&points, linkage).unwrap().merges.len(), 699, "{linkage:?}");
            }
        }
    }
}
