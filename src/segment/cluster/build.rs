//! From fitted centres to a model: order, identity, names, radii, the table of centres.

use rayon::prelude::*;

use super::CentreRow;
use super::fitting::{self, Rows, Segmented};
use super::identity::{Identity, Known};
use crate::segment::artefact::{
    AssignRule, Assignment, Model, ModelMetrics, Reference, RfmCuts, RuleName, Segment, beside, mark_outlier,
    nearest_two,
};
use crate::segment::choose_k::Judge;
use crate::segment::drift::{Bins, level_shares};
use crate::segment::figures::{self, Figures};
use crate::segment::matrix::Matrix;
use crate::segment::metrics::{calinski_harabasz, davies_bouldin};
use crate::segment::points::CHUNK;
use crate::segment::prepare::{Column, FittedFeature};
use crate::segment::rfm::{Better, Cuts};
use crate::segment::silhouette::silhouette_by_label;
use crate::segment::spec::{Metric, Role};
use crate::segment::statistics::{deviation, mean, quantile, sorted};
use crate::segment::vectors::{Kernel, Vectors};

/// Everything a model is built from.
pub(super) struct Fitted<'a> {
    pub(super) name: &'a str,
    pub(super) rows: Rows<'a>,
    pub(super) found: Segmented,
}

/// A model and what it says of its own rows.
pub(super) struct Built {
    pub(super) model: Model,
    /// One per row of the matrix.
    pub(super) assignments: Vec<Assignment>,
    pub(super) centres: Vec<CentreRow>,
    pub(super) figures: Figures,
    pub(super) identity: Identity,
}

/// A prepared column beside the raw values it was made of.
pub(super) struct ColumnView<'a> {
    pub(super) name: String,
    pub(super) feature: &'a FittedFeature,
    prepared: &'a [f64],
    /// Raw values by row of the matrix, missing ones NaN; `None` for levels and indicators.
    pub(super) raw: Option<Vec<f64>>,
}

pub(super) fn build(fitted: Fitted<'_>) -> Built {
    let Fitted { name, rows, mut found } = fitted;
    let matrix = rows.matrix;
    let mut assign = rule_of(&rows, &mut found);
    let mut assignments = assign_rows(matrix, &assign.centres, found.labels.as_deref(), rows.kernel);
    let members = order_by_size(&mut assign, &mut found.names, &mut assignments);
    let views = views(&rows);
    let rfm = rfm_cuts(&rows);
    let effects = effects(&views, &members);
    let identity = Identity::find(&Known {
        model: name,
        rows: &rows,
        views: &views,
        members: &members,
        effects: &effects,
        centres: &assign.centres,
        names: &found.names,
        rfm: rfm.as_ref(),
        segment_of: &assignments,
    });
    let segments: Vec<Segment> = members
        .iter()
        .enumerate()
        .map(|(index, members)| {
            let distances = sorted(&members.iter().map(|&row| assignments[row].distance).collect::<Vec<_>>());
            let radius = |share| if distances.is_empty() { 0.0 } else { quantile(&distances, share) };
            Segment {
                index,
                segment_id: identity.ids[index].clone(),
                name: identity.names[index].clone(),
                n: members.len(),
                share: members.len() as f64 / matrix.rows() as f64,
                radius_p50: radius(0.5),
                radius_p99: radius(0.99),
            }
        })
        .collect();
    assignments.iter_mut().for_each(|found| mark_outlier(found, &segments));
    let centres = centre_rows(&assign.centres, &views, &members, &effects, &segments);
    let reference = reference(&rows, &views);
    let (seed, kernel) = (rows.spec.algorithm.seed, rows.kernel);
    let noise = assign.cores.as_ref().and_then(|cores| cores.noise);
    let (metrics, by_segment) = metrics(matrix, &assignments, noise, segments.len(), Judge { seed, kernel });
    let columns: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    let figures = Figures {
        blades: figures::blades(by_segment),
        map: figures::map(matrix, &columns, &assign.centres, |row| assignments[row].segment, seed),
        dendrogram: match &found.tree {
            Some(tree) => figures::top_of(tree),
            None => figures::tree_of_centres(&assign.centres, &sizes),
        },
    };
    drop(views);
    let model = Model {
        format: Model::format(),
        algorithm: rows.spec.algorithm.name,
        seed,
        rows: matrix.rows(),
        features: rows.preparation.clone(),
        assign,
        segments,
        reference,
        rfm,
        metrics,
    };
    Built { model, assignments, centres, figures, identity }
}

/// The rule as the model keeps it; segments are not in their final order yet.
fn rule_of(rows: &Rows<'_>, found: &mut Segmented) -> AssignRule {
    let algorithm = &rows.spec.algorithm;
    AssignRule {
        rule: found.rule,
        metric: if found.rule == RuleName::NearestCore { algorithm.metric } else { Metric::Euclidean },
        centres: std::mem::take(&mut found.centres),
        agreement_with_training: found.agreement,
        cores: found.cores.take(),
        cells: found.cells.take(),
        rules: if found.rule == RuleName::Rules { algorithm.rules.clone() } else { Vec::new() },
    }
}

/// The assignment of every row, in row order, by the rule; nothing is an outlier yet.
fn assign_rows(
    matrix: &Matrix,
    centres: &[Vec<f64>],
    labels: Option<&[u32]>,
    kernel: Kernel,
) -> Vec<Assignment> {
    let vectors = kernel.vectors().unwrap_or_else(Vectors::detected);
    let chunks = (0..matrix.rows()).into_par_iter().chunks(CHUNK).map(|rows| {
        let mut row = Vec::with_capacity(matrix.width());
        let mut found = Vec::with_capacity(rows.len());
        vectors.run(|| {
            for number in &rows {
                row.clear();
                row.extend(matrix.columns().iter().map(|column| column[*number]));
                found.push(match labels {
                    None => nearest_two(centres, &row),
                    Some(labels) => beside(centres, &row, labels[*number] as usize),
                });
            }
        });
        found
    });
    chunks.collect::<Vec<_>>().concat()
}

/// Puts segments in order of falling size, then of value, and gives the rows of each.
fn order_by_size(
    assign: &mut AssignRule,
    names: &mut Vec<Option<String>>,
    found: &mut [Assignment],
) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); assign.centres.len()];
    found.iter().enumerate().for_each(|(row, found)| members[found.segment].push(row));
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by(|&left, &right| {
        let by_value = || {
            let mut values =
                assign.centres[left].iter().zip(&assign.centres[right]).map(|(l, r)| l.total_cmp(r));
            values.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
        };
        members[right].len().cmp(&members[left].len()).then_with(by_value)
    });
    let mut new_of = vec![0; order.len()];
    order.iter().enumerate().for_each(|(new, &old)| new_of[old] = new);
    for row in found {
        row.segment = new_of[row.segment];
        row.second = row.second.map(|second| new_of[second]);
    }
    assign.centres = order.iter().map(|&old| std::mem::take(&mut assign.centres[old])).collect();
    *names = order.iter().map(|&old| names[old].take()).collect();
    if let Some(cells) = &mut assign.cells {
        cells.names = order.iter().map(|&old| std::mem::take(&mut cells.names[old])).collect();
    }
    if let Some(cores) = &mut assign.cores {
        cores.segments.iter_mut().for_each(|segment| *segment = new_of[*segment]);
        cores.noise = cores.noise.map(|noise| new_of[noise]);
    }
    order.iter().map(|&old| std::mem::take(&mut members[old])).collect()
}

fn views<'a>(rows: &Rows<'a>) -> Vec<ColumnView<'a>> {
    let mut views = Vec::new();
    let names = rows.preparation.column_names();
    for feature in rows.preparation.features() {
        for place in 0..feature.width() {
            let number = views.len();
            let input = rows.columns.iter().find(|(name, _)| name == feature.name());
            let raw = match (feature, input) {
                (FittedFeature::Numeric(numeric), Some((_, Column::Numeric(values))))
                    if place == 0 && numeric.scale.is_some() =>
                {
                    Some(rows.kept.iter().map(|&row| values[row]).collect())
                }
                _ => None,
            };
            let prepared = rows.matrix.columns()[number].as_slice();
            views.push(ColumnView { name: names[number].clone(), feature, prepared, raw });
        }
    }
    views
}

/// Finite values of a column in the given rows.
pub(super) fn finite(values: &[f64], rows: impl Iterator<Item = usize>) -> Vec<f64> {
    rows.map(|row| values[row]).filter(|value| value.is_finite()).collect()
}

/// z by segment and prepared column.
fn effects(views: &[ColumnView<'_>], members: &[Vec<usize>]) -> Vec<Vec<f64>> {
    let population: Vec<(f64, f64)> =
        views.iter().map(|view| (mean(view.prepared), deviation(view.prepared))).collect();
    let z = |rows: &Vec<usize>, view: &ColumnView<'_>, (average, spread): (f64, f64)| {
        if rows.is_empty() || spread == 0.0 {
            return 0.0;
        }
        let own = rows.iter().map(|&row| view.prepared[row]).sum::<f64>() / rows.len() as f64;
        (own - average) / spread
    };
    members
        .iter()
        .map(|rows| views.iter().zip(&population).map(|(view, &figures)| z(rows, view, figures)).collect())
        .collect()
}

fn rfm_cuts(rows: &Rows<'_>) -> Option<RfmCuts> {
    let cuts = |role, better| {
        let (_, raw) = fitting::raw_of_role(rows, role)?;
        Some(Cuts::of(&finite(&raw, 0..raw.len()), better))
    };
    Some(RfmCuts {
        r: cuts(Role::Recency, Better::Lower)?,
        f: cuts(Role::Frequency, Better::Higher)?,
        m: cuts(Role::Monetary, Better::Higher)?,
    })
}

fn centre_rows(
    centres: &[Vec<f64>],
    views: &[ColumnView<'_>],
    members: &[Vec<usize>],
    effects: &[Vec<f64>],
    segments: &[Segment],
) -> Vec<CentreRow> {
    let population: Vec<f64> = views
        .iter()
        .map(|view| match &view.raw {
            Some(raw) => mean(&finite(raw, 0..raw.len())),
            None => raw_of(view, mean(view.prepared)),
        })
        .collect();
    let mut rows = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        for (column, view) in views.iter().enumerate() {
            let own = view.raw.as_ref().map(|raw| sorted(&finite(raw, members[index].iter().copied())));
            let own = own.filter(|own| !own.is_empty());
            rows.push(CentreRow {
                segment_id: segment.segment_id.clone(),
                feature: view.name.clone(),
                centre_scaled: centres[index][column],
                centre_raw: raw_of(view, centres[index][column]),
                population_mean: population[column],
                effect_z: effects[index][column],
                quartiles: own.map(|own| [0.25, 0.5, 0.75].map(|share| quantile(&own, share))),
                n: segment.n,
                share: segment.share,
            });
        }
    }
    rows
}

/// A prepared value in raw units; for levels and indicators a share.
fn raw_of(view: &ColumnView<'_>, prepared: f64) -> f64 {
    match view.feature {
        FittedFeature::Numeric(feature) => {
            let raw = view.raw.as_ref().and_then(|_| feature.inverse(prepared));
            raw.unwrap_or(prepared / feature.weight)
        }
        FittedFeature::Categorical(feature) => prepared / feature.mark,
    }
}

/// What later rows are compared with.
fn reference(rows: &Rows<'_>, views: &[ColumnView<'_>]) -> Reference {
    let bins = views.iter().filter_map(|view| Some((view.name.clone(), Bins::of(view.raw.as_ref()?)?)));
    let shares = rows.preparation.features().iter().filter_map(|feature| {
        let (_, column) = rows.columns.iter().find(|(name, _)| name == feature.name())?;
        match column {
            Column::Categorical(levels) => {
                let kept = rows.kept.iter().map(|&row| levels[row].as_deref());
                Some((feature.name().to_owned(), level_shares(kept)))
            }
            Column::Numeric(_) => None,
        }
    });
    Reference {
        feature_quantiles: feature_quantiles(views),
        feature_bins: bins.collect(),
        level_shares: shares.collect(),
        deviations: views.iter().map(|view| deviation(view.prepared)).collect(),
    }
}

fn feature_quantiles(views: &[ColumnView<'_>]) -> Vec<(String, Vec<f64>)> {
    let deciles = |raw: &Vec<f64>| {
        let values = sorted(&finite(raw, 0..raw.len()));
        (0..=10).map(|decile| quantile(&values, f64::from(decile) / 10.0)).collect()
    };
    views.iter().filter_map(|view| Some((view.name.clone(), deciles(view.raw.as_ref()?)))).collect()
}

/// Figures of all rows but noise, and the silhouettes they rest on by segment.
fn metrics(
    matrix: &Matrix,
    found: &[Assignment],
    noise: Option<usize>,
    segments: usize,
    judge: Judge,
) -> (ModelMetrics, Vec<Vec<f64>>) {
    let labels: Vec<u32> = found.iter().map(|found| found.segment as u32).collect();
    let dense: Option<Vec<usize>> =
        noise.map(|noise| (0..labels.len()).filter(|&row| labels[row] as usize != noise).collect());
    let picked = dense.as_ref().map(|dense| {
        let labels: Vec<u32> = dense.iter().map(|&row| labels[row]).collect();
        (matrix.select(dense), labels)
    });
    let (points, labels) = picked.as_ref().map_or((matrix, &labels), |(points, labels)| (points, labels));
    let (silhouette, mut by_segment) = match silhouette_by_label(points, labels, judge.seed, judge.kernel) {
        Ok((silhouette, values)) => (Some(silhouette), values),
        Err(_) => (None, Vec::new()),
    };
    by_segment.resize(segments, Vec::new());
    let inertia = found.iter().filter(|found| Some(found.segment) != noise);
    let metrics = ModelMetrics {
        inertia: inertia.map(|found| found.distance * found.distance).sum(),
        silhouette,
        calinski_harabasz: calinski_harabasz(points, labels).ok(),
        davies_bouldin: davies_bouldin(points, labels).ok(),
    };
    (metrics, by_segment)
}
