//! Each algorithm's way from prepared rows to centres and a rule.

use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use super::{ClusterError, Given};
use crate::segment::artefact::{Cells, Cores, RuleName};
use crate::segment::choose_k::{Choice, Judge, KReport, choose, choose_k, figures};
use crate::segment::dbscan::{KdTree, NOISE, dbscan, eps_by_knee, within};
use crate::segment::hierarchical::{Tree, fit_of, tree_on, weighted_ward};
use crate::segment::identity::Previous;
use crate::segment::kmeans::{KMeansFit, KMeansOptions, kmeans, kmeans_from, nearest};
use crate::segment::matrix::Matrix;
use crate::segment::prepare::{Column, Preparation, Warning};
use crate::segment::random::{Draws, Purpose};
use crate::segment::rfm::{self, Better, Cuts};
use crate::segment::spec::{
    AlgorithmName, Challenger, ClusterSpec, Cut, Eps, Feature, Init, Linkage, Metric, OnLarge, Role, Select,
    Start,
};
use crate::segment::vectors::{Kernel, Vectors};

/// Rows on which k is chosen.
const SAMPLE: usize = 50_000;
/// Centres that stand for the rows of a large hierarchical clustering.
const MICROCLUSTERS: usize = 2_000;
/// Rows on which the microclusters are fitted.
const MICROCLUSTER_ROWS: usize = 200_000;
/// Lloyd iterations for microclusters.
const MICROCLUSTER_ITERATIONS: usize = 10;
/// A warm fit stops at the iteration that lowers its inertia by less than this share.
const SETTLED: f64 = 1e-3;
/// The segment of rows that no predicate takes.
const OTHER: &str = "Other";
/// The segment of rows in no dense region.
const NOISE_NAME: &str = "Noise";

/// What the algorithms work on.
pub(super) struct Rows<'a> {
    pub(super) spec: &'a ClusterSpec,
    pub(super) matrix: &'a Matrix,
    pub(super) preparation: &'a Preparation,
    pub(super) columns: &'a [(String, Column)],
    pub(super) keys: &'a [Arc<str>],
    /// The input row of every row of the matrix.
    pub(super) kept: &'a [usize],
    pub(super) previous: Option<&'a Previous>,
    /// What predicates said, by input row.
    pub(super) given: Option<&'a Given>,
    pub(super) kernel: Kernel,
}

impl Rows<'_> {
    fn judge(&self) -> Judge {
        Judge { seed: self.spec.algorithm.seed, kernel: self.kernel }
    }
}

/// What an algorithm found.
pub(super) struct Segmented {
    /// k × d.
    pub(super) centres: Vec<Vec<f64>>,
    pub(super) rule: RuleName,
    /// The segment of each row, where that is not the one of the nearest centre.
    pub(super) labels: Option<Vec<u32>>,
    /// Share of the training rows whose label the rule gives back.
    pub(super) agreement: Option<f64>,
    /// Names that belong to the rule; such segments keep their ids by name.
    pub(super) names: Vec<Option<String>>,
    pub(super) cores: Option<Cores>,
    pub(super) cells: Option<Cells>,
    pub(super) k_report: KReport,
    pub(super) tree: Option<Tree>,
    pub(super) refresh: Option<RefreshReport>,
    pub(super) warnings: Vec<Warning>,
}

/// How a warm start and its challenger compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RefreshReport {
    /// Version of the model before.
    pub previous: String,
    /// Inertia of the fit from its centres; `None` when there was no such fit.
    pub warm_inertia: Option<f64>,
    /// Inertia of the fit that knew nothing of it; `None` when there was no such fit.
    pub cold_inertia: Option<f64>,
    /// Which one was kept.
    pub kept: Start,
    /// Why.
    pub reason: String,
}

pub(super) fn segment(rows: &Rows<'_>) -> Result<Segmented, ClusterError> {
    match rows.spec.algorithm.name {
        AlgorithmName::Kmeans | AlgorithmName::MinibatchKmeans => by_kmeans(rows),
        AlgorithmName::Hierarchical => by_tree(rows),
        AlgorithmName::Dbscan => by_density(rows),
        AlgorithmName::Rfm => by_cells(rows),
        AlgorithmName::Rules => by_predicates(rows),
    }
}

fn options(rows: &Rows<'_>, clusters: usize) -> KMeansOptions {
    let algorithm = &rows.spec.algorithm;
    KMeansOptions {
        clusters,
        runs: algorithm.n_init,
        max_iterations: algorithm.max_iter,
        tolerance: algorithm.tol,
        least_gain: 0.0,
        seed: algorithm.seed,
        init: algorithm.init,
        precision: algorithm.precision,
        kernel: rows.kernel,
        batch: (algorithm.name == AlgorithmName::MinibatchKmeans).then_some(algorithm.batch),
    }
}

fn by_kmeans(rows: &Rows<'_>) -> Result<Segmented, ClusterError> {
    let (spec, matrix) = (rows.spec, rows.matrix);
    let options = options(rows, spec.k.0.fixed.unwrap_or(spec.k.0.min));
    let sample = sample_rows(rows, SAMPLE);
    let Choice { fit, report, mut warnings } = match &sample {
        Some(sample) => choose_k(&matrix.select(sample), matrix.rows(), &spec.k.0, &options)?,
        None => choose_k(matrix, matrix.rows(), &spec.k.0, &options)?,
    };
    let warm = warm_fit(rows, report.k, &options)?;
    let no_challenger = warm.is_some() && spec.refresh.challenger == Challenger::None;
    let cold = match &sample {
        _ if no_challenger => None,
        Some(_) => Some(kmeans_from(matrix, &fit.centres, &options)?),
        None => Some(fit),
    };
    let (fit, refresh) = better(rows, report.k, warm, cold);
    let found = fit.centres.len();
    if found < report.k {
        let message = format!("only {found} clusters of {}: there are no more distinct rows", report.k);
        warnings.push(Warning { code: "fewer_clusters", message });
    }
    if !fit.converged {
        let message = format!("k-means stopped after `max_iter` = {} iterations", options.max_iterations);
        warnings.push(Warning { code: "not_converged", message });
    }
    Ok(Segmented { refresh, ..nearest_centres(fit.centres, report, warnings) })
}

/// A result whose rows belong to their nearest centre.
fn nearest_centres(centres: Vec<Vec<f64>>, k_report: KReport, warnings: Vec<Warning>) -> Segmented {
    Segmented {
        names: vec![None; centres.len()],
        centres,
        rule: RuleName::NearestCentre,
        labels: None,
        agreement: None,
        cores: None,
        cells: None,
        k_report,
        tree: None,
        refresh: None,
        warnings,
    }
}

/// The fit from the centres of the model before, when there is one of as many segments. It follows the customers
/// and stops when going on gains little: no customer is moved for a gain that nobody sees, and what such steps
/// would add up to is the challenger's to find.
fn warm_fit(rows: &Rows<'_>, k: usize, options: &KMeansOptions) -> Result<Option<KMeansFit>, ClusterError> {
    let Some(previous) = rows.previous.filter(|_| rows.spec.refresh.init == Start::Warm) else {
        return Ok(None);
    };
    let centres = &previous.model.assign.centres;
    if previous.model.assign.rule != RuleName::NearestCentre || centres.len() != k {
        return Ok(None);
    }
    let mapped = centres.iter().map(|centre| previous.model.features.remap(centre, rows.preparation));
    match mapped.collect::<Option<Vec<_>>>() {
        Some(start) => {
            let options = KMeansOptions { least_gain: SETTLED, ..options.clone() };
            Ok(Some(kmeans_from(rows.matrix, &start, &options)?))
        }
        None => Ok(None),
    }
}

/// The warm fit, unless there is none or the cold one is better by more than the stated share.
fn better(
    rows: &Rows<'_>,
    k: usize,
    warm: Option<KMeansFit>,
    cold: Option<KMeansFit>,
) -> (KMeansFit, Option<RefreshReport>) {
    let inertia = |fit: &Option<KMeansFit>| fit.as_ref().map(|fit| fit.inertia);
    let (warm_inertia, cold_inertia) = (inertia(&warm), inertia(&cold));
    let gain = rows.spec.refresh.switch_if_inertia_gain;
    let switches = match (warm_inertia, cold_inertia) {
        (Some(warm), Some(cold)) => cold < warm * (1.0 - gain),
        (None, _) => true,
        (Some(_), None) => false,
    };
    let report = rows.previous.map(|previous| {
        let before = previous.model.assign.centres.len();
        let reason = match (warm_inertia, cold_inertia) {
            (None, _) if rows.spec.refresh.init == Start::Cold => "`refresh.init` is `cold`".to_owned(),
            (None, _) if before != k => format!("the model before has {before} segments, {k} were chosen"),
            (None, _) => "the centres before cannot be told in today's units".to_owned(),
            (Some(_), None) => "there is no challenger".to_owned(),
            (Some(warm), Some(cold)) => format!(
                "the challenger's inertia is {:.2} % {}, {:.2} % lower would be needed",
                (1.0 - cold / warm).abs() * 100.0,
                if cold < warm { "lower" } else { "higher" },
                gain * 100.0
            ),
        };
        let kept = if switches { Start::Cold } else { Start::Warm };
        RefreshReport { previous: previous.version.clone(), warm_inertia, cold_inertia, kept, reason }
    });
    let fit = if switches { cold.or(warm) } else { warm.or(cold) };
    (fit.expect("a cold fit is made unless there is a warm one"), report)
}

/// What a tree was made of.
struct Linked {
    tree: Tree,
    /// The rows that the tree speaks of, when not all.
    sample: Option<Matrix>,
    /// The leaf of each of these rows, when a leaf is more than a row.
    leaf: Option<Vec<u32>>,
    warning: Option<Warning>,
}

impl Linked {
    fn spread(&self, labels: Vec<u32>) -> Vec<u32> {
        match &self.leaf {
            Some(leaf) => leaf.iter().map(|&leaf| labels[leaf as usize]).collect(),
            None => labels,
        }
    }
}

fn linked(rows: &Rows<'_>) -> Result<Linked, ClusterError> {
    let Rows { spec, matrix, .. } = rows;
    let algorithm = &spec.algorithm;
    let vectors = rows.kernel.vectors().unwrap_or_else(Vectors::detected);
    let (all, limit) = (matrix.rows(), algorithm.max_rows);
    if all <= limit {
        let tree = tree_on(matrix, algorithm.linkage, vectors)?;
        return Ok(Linked { tree, sample: None, leaf: None, warning: None });
    }
    let note = |message: String| Some(Warning { code: "large_input", message });
    match algorithm.on_large {
        OnLarge::Error => Err(ClusterError::TooManyRows { rows: all, limit }),
        OnLarge::Microclusters if algorithm.linkage == Linkage::Ward => {
            let (fit, sample) = microclusters(rows)?;
            let mut sizes = vec![0.0; fit.centres.len()];
            fit.labels.iter().for_each(|&label| sizes[label as usize] += 1.0);
            let column = |column: usize| fit.centres.iter().map(|centre| centre[column]).collect();
            let centres = Matrix::from_columns((0..matrix.width()).map(column).collect());
            let tree = weighted_ward(&centres.expect("every centre has all columns"), &sizes)?;
            let warning =
                note(format!("{all} rows were grouped into {} centres, which were linked", sizes.len()));
            Ok(Linked { tree, sample, leaf: Some(fit.labels), warning })
        }
        OnLarge::Microclusters | OnLarge::Sample => {
            let sample = matrix.select(&sample_rows(rows, limit).unwrap_or_default());
            let tree = tree_on(&sample, algorithm.linkage, vectors)?;
            let warning = note(format!("{limit} of {all} rows, drawn by key, were linked"));
            Ok(Linked { tree, sample: Some(sample), leaf: None, warning })
        }
    }
}

fn by_tree(rows: &Rows<'_>) -> Result<Segmented, ClusterError> {
    let Rows { spec, matrix, .. } = rows;
    let linked = linked(rows)?;
    let points = linked.sample.as_ref().unwrap_or(matrix);
    let (tree, most) = (&linked.tree, linked.tree.rows);
    let fit_of_cut = |labels: Vec<u32>| fit_of(points, linked.spread(labels));
    let cut = spec.algorithm.cut.map(|Cut { k, height }| match (k, height) {
        (Some(k), _) => tree.cut(k.min(most)),
        (None, height) => tree.cut_at(height.unwrap_or(0.0)),
    });
    let (fit, report, mut warnings) = match cut {
        Some(labels) => {
            let fit = fit_of_cut(labels);
            let report = report_of(rows, points, &fit);
            (fit, report, Vec::new())
        }
        None => {
            let range: Vec<usize> = spec.k.0.range(most).collect();
            let fits = range.into_par_iter().map(|k| (k, fit_of_cut(tree.cut(k)))).collect();
            let choice = choose(points, matrix.rows(), &spec.k.0, fits, None, rows.judge())?;
            (choice.fit, choice.report, choice.warnings)
        }
    };
    warnings.extend(linked.warning);
    let all = linked.sample.is_none();
    let agreement = all.then(|| same_share(&nearest(matrix, &fit.centres).0, &fit.labels));
    Ok(Segmented { agreement, tree: Some(linked.tree), ..nearest_centres(fit.centres, report, warnings) })
}

/// Many small clusters of all rows, or of a sample.
fn microclusters(rows: &Rows<'_>) -> Result<(KMeansFit, Option<Matrix>), ClusterError> {
    let sample = sample_rows(rows, MICROCLUSTER_ROWS).map(|sample| rows.matrix.select(&sample));
    let points = sample.as_ref().unwrap_or(rows.matrix);
    let options = KMeansOptions {
        runs: 1,
        max_iterations: MICROCLUSTER_ITERATIONS,
        init: Init::Random,
        ..options(rows, MICROCLUSTERS.min(points.rows()))
    };
    Ok((kmeans(points, &options)?, sample))
}

/// The report of a clustering whose number of segments was not chosen among several.
fn report_of(rows: &Rows<'_>, points: &Matrix, fit: &KMeansFit) -> KReport {
    let (population, k) = (rows.matrix.rows(), fit.centres.len());
    let found = figures(points, population, k, fit, &rows.spec.k.0.guard, rows.judge());
    KReport { k, select: Select::Fixed, elbow: None, sample: points.rows(), figures: vec![found] }
}

fn by_density(rows: &Rows<'_>) -> Result<Segmented, ClusterError> {
    let Rows { spec, matrix, .. } = rows;
    let algorithm = &spec.algorithm;
    let min_samples = algorithm.min_samples.unwrap_or((2 * matrix.width()).max(5));
    let eps = match algorithm.eps {
        Eps::Within(eps) => eps,
        Eps::Auto => {
            eps_by_knee(matrix, min_samples, algorithm.metric)?.ok_or(ClusterError::NoEps { min_samples })?
        }
    };
    let found = dbscan(matrix, eps, min_samples, algorithm.metric)?;
    if found.clusters == 0 {
        return Err(ClusterError::NoDenseRegion { eps, min_samples });
    }
    let noise = found.labels.iter().filter(|label| **label == NOISE).count();
    let mut names = vec![None; found.clusters];
    if noise > 0 {
        names.push(Some(NOISE_NAME.to_owned()));
    }
    let cores = Cores {
        eps,
        points: found.cores.iter().map(|&row| matrix.row(row)).collect(),
        segments: found.cores.iter().map(|&row| found.labels[row] as usize).collect(),
        noise: (noise > 0).then_some(found.clusters),
    };
    let labels = nearest_cores(matrix, &cores, &found.cores, algorithm.metric);
    let last = found.clusters as u32;
    let dense: Vec<usize> = (0..labels.len()).filter(|&row| labels[row] != last).collect();
    let dense_labels: Vec<u32> = dense.iter().map(|&row| labels[row]).collect();
    let dense_rows = matrix.select(&dense);
    let k_report = report_of(rows, &dense_rows, &fit_of(&dense_rows, dense_labels));
    let agreement =
        same_share(&labels, &found.labels.iter().map(|&label| label.min(last)).collect::<Vec<_>>());
    let share = noise as f64 / labels.len() as f64;
    let message = format!(
        "eps = {eps} with min_samples = {min_samples}: {noise} rows ({:.1} %) are noise",
        share * 100.0
    );
    let warnings = vec![Warning { code: "noise", message }];
    let fit = fit_of(matrix, labels);
    Ok(Segmented {
        rule: RuleName::NearestCore,
        labels: Some(fit.labels),
        agreement: Some(agreement),
        names,
        cores: Some(cores),
        ..nearest_centres(fit.centres, k_report, warnings)
    })
}

/// What the rule says of every row: as one row alone would be told, but with a tree.
fn nearest_cores(matrix: &Matrix, cores: &Cores, core_rows: &[usize], metric: Metric) -> Vec<u32> {
    let index = KdTree::new(&matrix.select(core_rows), metric);
    let limit = within(metric, cores.eps);
    let label = |row: usize| {
        let (core, measure) = index.nearest(&matrix.row(row));
        let segment = if measure <= limit { Some(cores.segments[core]) } else { cores.noise };
        segment.expect("a row without a core in reach is noise, and then there is such a segment") as u32
    };
    (0..matrix.rows()).into_par_iter().map(label).collect()
}

/// The raw values of the feature with this role, by row of the matrix.
pub(super) fn raw_of_role<'a>(rows: &Rows<'a>, role: Role) -> Option<(&'a str, Vec<f64>)> {
    let Feature(feature) = rows.spec.features.iter().find(|Feature(feature)| feature.role() == Some(role))?;
    let (name, column) = rows.columns.iter().find(|(name, _)| *name == feature.name)?;
    match column {
        Column::Numeric(values) => Some((name.as_str(), rows.kept.iter().map(|&row| values[row]).collect())),
        Column::Categorical(_) => None,
    }
}

fn by_cells(rows: &Rows<'_>) -> Result<Segmented, ClusterError> {
    let grid = rows.spec.algorithm.grid;
    let roles = [Role::Recency, Role::Frequency, Role::Monetary];
    let [Some(recency), Some(frequency), Some(monetary)] = roles.map(|role| raw_of_role(rows, role)) else {
        return Err(ClusterError::NoRfm);
    };
    let cuts = |values: &[f64], better| {
        let present: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        Cuts::of(&present, better)
    };
    let (r, f, m) = (
        cuts(&recency.1, Better::Lower),
        cuts(&frequency.1, Better::Higher),
        cuts(&monetary.1, Better::Higher),
    );
    let name = |row: usize| {
        let measures = [recency.1[row], frequency.1[row], monetary.1[row]];
        if measures.iter().all(|value| value.is_finite()) {
            rfm::cell(grid, r.score(measures[0]), f.score(measures[1]), m.score(measures[2]))
        } else {
            rfm::INACTIVE
        }
    };
    let of_row: Vec<&str> = (0..rows.matrix.rows()).map(name).collect();
    let found = by_names(rows, RuleName::RfmGrid, &of_row);
    let names = found.names.iter().flatten().cloned().collect();
    let features = [recency.0, frequency.0, monetary.0].map(str::to_owned);
    Ok(Segmented { cells: Some(Cells { grid, features, names }), ..found })
}

fn by_predicates(rows: &Rows<'_>) -> Result<Segmented, ClusterError> {
    let Some(Given(given)) = rows.given else { return Err(ClusterError::NoPredicates) };
    let rules = &rows.spec.algorithm.rules;
    let name = |&row: &usize| match given[row].and_then(|number| rules.get(number)) {
        Some(rule) => rule.name.as_str(),
        None => OTHER,
    };
    let of_row: Vec<&str> = rows.kept.iter().map(name).collect();
    Ok(by_names(rows, RuleName::Rules, &of_row))
}

/// Segments by the names of rows, numbered as the names first occur.
fn by_names(rows: &Rows<'_>, rule: RuleName, of_row: &[&str]) -> Segmented {
    let mut names: Vec<&str> = Vec::new();
    let labels: Vec<u32> = of_row
        .iter()
        .map(|name| {
            let known = names.iter().position(|known| known == name);
            known.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            }) as u32
        })
        .collect();
    let fit = fit_of(rows.matrix, labels);
    let k_report = report_of(rows, rows.matrix, &fit);
    let names = names.into_iter().map(|name| Some(name.to_owned())).collect();
    Segmented { rule, labels: Some(fit.labels), names, ..nearest_centres(fit.centres, k_report, Vec::new()) }
}

/// As many rows as wanted, rising; `None` for all. A key is in or out wherever its row stands.
fn sample_rows(rows: &Rows<'_>, wanted: usize) -> Option<Vec<usize>> {
    if rows.kept.len() <= wanted {
        return None;
    }
    let draws = Draws::new(rows.spec.algorithm.seed, 0, Purpose::Sampling);
    let mut drawn: Vec<(u64, usize)> =
        rows.kept.iter().enumerate().map(|(place, &row)| (draws.of_text(&rows.keys[row]), place)).collect();
    drawn.select_nth_unstable(wanted);
    drawn.truncate(wanted);
    let mut rows: Vec<usize> = drawn.into_iter().map(|(_, place)| place).collect();
    rows.sort_unstable();
    Some(rows)
}

/// Share of rows whose two labels are equal.
fn same_share(left: &[u32], right: &[u32]) -> f64 {
    let same = left.iter().zip(right).filter(|(left, right)| left == right).count();
    same as f64 / left.len().max(1) as f64
}
