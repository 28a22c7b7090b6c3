//! From fitted centres to a model: order, identity, names, radii, the table of centres.

use rayon::prelude::*;

use super::CentreRow;
use crate::segment::artefact::{
    AssignRule, Assignment, Model, ModelMetrics, Reference, RfmCuts, Segment, assign_prepared, nearest_two,
};
use crate::segment::drift::{Bins, level_shares};
use crate::segment::matrix::Matrix;
use crate::segment::metrics::{calinski_harabasz, davies_bouldin};
use crate::segment::names::{Effect, Portrait, names, segment_id};
use crate::segment::points::CHUNK;
use crate::segment::prepare::{Column, FittedFeature, Preparation};
use crate::segment::rfm::{Better, Cuts};
use crate::segment::silhouette::silhouette;
use crate::segment::spec::{AlgorithmName, ClusterSpec, Feature, NamingMode, Role};
use crate::segment::statistics::{deviation, mean, quantile, sorted};

/// Everything a model is built from.
pub(super) struct Fitted<'a> {
    pub(super) name: &'a str,
    pub(super) spec: &'a ClusterSpec,
    pub(super) columns: &'a [(String, Column)],
    /// The rows `kept` of the input, prepared.
    pub(super) matrix: &'a Matrix,
    pub(super) kept: &'a [usize],
    pub(super) preparation: Preparation,
    /// k × d.
    pub(super) centres: Vec<Vec<f64>>,
}

/// A model and what it says of its own rows.
pub(super) struct Built {
    pub(super) model: Model,
    /// One per row of the matrix.
    pub(super) assignments: Vec<Assignment>,
    pub(super) centres: Vec<CentreRow>,
}

/// A prepared column beside the raw values it was made of.
struct ColumnView<'a> {
    name: String,
    feature: &'a FittedFeature,
    prepared: &'a [f64],
    /// Raw values by row of the matrix, missing ones NaN; `None` for levels and indicators.
    raw: Option<Vec<f64>>,
}

pub(super) fn build(mut fitted: Fitted<'_>) -> Built {
    let found = assign_all(fitted.matrix, |row| nearest_two(&fitted.centres, row));
    let members = order_by_size(&mut fitted.centres, &found);
    let views = views(&fitted);
    let names_of_columns: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    let ids: Vec<String> =
        fitted.centres.iter().map(|centre| segment_id(fitted.name, &names_of_columns, centre)).collect();
    let rfm = rfm_cuts(&fitted, &views);
    let rows = fitted.matrix.rows();
    let mut segments: Vec<Segment> = members
        .iter()
        .enumerate()
        .map(|(index, members)| {
            let distances = sorted(&members.iter().map(|&row| found[row].distance).collect::<Vec<_>>());
            let radius = |share| if distances.is_empty() { 0.0 } else { quantile(&distances, share) };
            Segment {
                index,
                segment_id: ids[index].clone(),
                name: String::new(),
                n: members.len(),
                share: members.len() as f64 / rows as f64,
                radius_p50: radius(0.5),
                radius_p99: radius(0.99),
            }
        })
        .collect();
    let effects = effects(&views, &members);
    let chosen = segment_names(&fitted, &views, &members, &effects, &ids, rfm.as_ref());
    segments.iter_mut().zip(chosen).for_each(|(segment, name)| segment.name = name);
    let centres = centre_rows(&fitted.centres, &views, &members, &effects, &segments);
    let reference = reference(&fitted, &views);
    let metrics = metrics(fitted.matrix, &members, &found, fitted.spec.algorithm.seed);
    let algorithm = match fitted.spec.algorithm.name {
        AlgorithmName::Kmeans => "kmeans",
    };
    let (rule, metric) = ("nearest_centre".to_owned(), "euclidean".to_owned());
    drop(views);
    let model = Model {
        format: Model::format(),
        algorithm: algorithm.to_owned(),
        seed: fitted.spec.algorithm.seed,
        rows,
        features: fitted.preparation,
        assign: AssignRule { rule, metric, centres: fitted.centres },
        segments,
        reference,
        rfm,
        metrics,
    };
    let assignments = assign_all(fitted.matrix, |row| assign_prepared(&model, row));
    Built { model, assignments, centres }
}

/// The assignment of every row, in row order.
fn assign_all(matrix: &Matrix, of: impl Fn(&[f64]) -> Assignment + Sync) -> Vec<Assignment> {
    let chunks = (0..matrix.rows()).into_par_iter().chunks(CHUNK).map(|rows| {
        let mut row = Vec::with_capacity(matrix.width());
        let mut found = Vec::with_capacity(rows.len());
        pulp::Arch::new().dispatch(|| {
            for number in &rows {
                row.clear();
                row.extend(matrix.columns().iter().map(|column| column[*number]));
                found.push(of(&row));
            }
        });
        found
    });
    chunks.collect::<Vec<_>>().concat()
}

/// Puts centres in order of falling size, then of value, and gives the rows of each.
fn order_by_size(centres: &mut Vec<Vec<f64>>, found: &[Assignment]) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); centres.len()];
    found.iter().enumerate().for_each(|(row, found)| members[found.segment].push(row));
    let mut both: Vec<(Vec<f64>, Vec<usize>)> = std::mem::take(centres).into_iter().zip(members).collect();
    both.sort_by(|left, right| {
        let by_value = || {
            let mut values = left.0.iter().zip(&right.0).map(|(left, right)| left.total_cmp(right));
            values.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
        };
        right.1.len().cmp(&left.1.len()).then_with(by_value)
    });
    let (ordered, members) = both.into_iter().unzip();
    *centres = ordered;
    members
}

fn views<'a>(fitted: &'a Fitted<'_>) -> Vec<ColumnView<'a>> {
    let mut views = Vec::new();
    for feature in fitted.preparation.features() {
        let names = fitted.preparation.column_names();
        for place in 0..feature.width() {
            let number = views.len();
            let input = fitted.columns.iter().find(|(name, _)| name == feature.name());
            let raw = match (feature, input) {
                (FittedFeature::Numeric(numeric), Some((_, Column::Numeric(values))))
                    if place == 0 && numeric.scale.is_some() =>
                {
                    Some(fitted.kept.iter().map(|&row| values[row]).collect())
                }
                _ => None,
            };
            let prepared = fitted.matrix.columns()[number].as_slice();
            views.push(ColumnView { name: names[number].clone(), feature, prepared, raw });
        }
    }
    views
}

/// Finite values of a column in the given rows.
fn finite(values: &[f64], rows: impl Iterator<Item = usize>) -> Vec<f64> {
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

/// The view and the specification of the feature with this role.
fn with_role<'a, 'b>(
    spec: &ClusterSpec,
    views: &'b [ColumnView<'a>],
    role: Role,
) -> Option<&'b ColumnView<'a>> {
    let Feature(found) = spec.features.iter().find(|Feature(feature)| feature.role() == Some(role))?;
    views.iter().find(|view| view.raw.is_some() && view.feature.name() == found.name)
}

fn rfm_cuts(fitted: &Fitted<'_>, views: &[ColumnView<'_>]) -> Option<RfmCuts> {
    let cuts = |role, better| {
        let raw = with_role(fitted.spec, views, role)?.raw.as_ref()?;
        Some(Cuts::of(&finite(raw, 0..raw.len()), better))
    };
    Some(RfmCuts {
        r: cuts(Role::Recency, Better::Lower)?,
        f: cuts(Role::Frequency, Better::Higher)?,
        m: cuts(Role::Monetary, Better::Higher)?,
    })
}

fn segment_names(
    fitted: &Fitted<'_>,
    views: &[ColumnView<'_>],
    members: &[Vec<usize>],
    effects: &[Vec<f64>],
    ids: &[String],
    rfm: Option<&RfmCuts>,
) -> Vec<String> {
    let spec = fitted.spec;
    let portrait = |index: usize| {
        let given = spec.naming.overrides.get(&ids[index]).map(String::as_str);
        let scores = rfm.and_then(|cuts| {
            let recency = median_score(with_role(spec, views, Role::Recency)?, &members[index], &cuts.r)?;
            let frequency = median_score(with_role(spec, views, Role::Frequency)?, &members[index], &cuts.f)?;
            Some((recency, frequency))
        });
        let features = views.iter().zip(&effects[index]).filter_map(|(view, &z)| {
            let Feature(feature) = spec.features.iter().find(|Feature(of)| of.name == view.feature.name())?;
            let counts = view.raw.is_some() && (scores.is_none() || feature.role().is_none());
            counts.then_some(Effect {
                feature: &feature.name,
                z,
                low_word: feature.low_word.as_deref(),
                high_word: feature.high_word.as_deref(),
            })
        });
        Portrait { given, rfm: scores, effects: features.collect() }
    };
    match spec.naming.mode {
        NamingMode::Centres => names(&(0..members.len()).map(portrait).collect::<Vec<_>>()),
        NamingMode::Numbers => (0..members.len())
            .map(|index| {
                let given = spec.naming.overrides.get(&ids[index]);
                given.cloned().unwrap_or_else(|| format!("Segment {}", index + 1))
            })
            .collect(),
    }
}

/// The median of the members' scores, halves up.
fn median_score(view: &ColumnView<'_>, members: &[usize], cuts: &Cuts) -> Option<u8> {
    let values = finite(view.raw.as_ref()?, members.iter().copied());
    let scores: Vec<f64> = values.iter().map(|&value| f64::from(cuts.score(value))).collect();
    (!scores.is_empty()).then(|| quantile(&sorted(&scores), 0.5).round() as u8)
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
fn reference(fitted: &Fitted<'_>, views: &[ColumnView<'_>]) -> Reference {
    let bins = views.iter().filter_map(|view| Some((view.name.clone(), Bins::of(view.raw.as_ref()?)?)));
    let shares = fitted.preparation.features().iter().filter_map(|feature| {
        let (_, column) = fitted.columns.iter().find(|(name, _)| name == feature.name())?;
        match column {
            Column::Categorical(levels) => {
                let kept = fitted.kept.iter().map(|&row| levels[row].as_deref());
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

fn metrics(matrix: &Matrix, members: &[Vec<usize>], found: &[Assignment], seed: u64) -> ModelMetrics {
    let mut labels = vec![0; matrix.rows()];
    for (index, rows) in members.iter().enumerate() {
        rows.iter().for_each(|&row| labels[row] = index as u32);
    }
    ModelMetrics {
        inertia: found.iter().map(|found| found.distance * found.distance).sum(),
        silhouette: silhouette(matrix, &labels, seed).ok(),
        calinski_harabasz: calinski_harabasz(matrix, &labels).ok(),
        davies_bouldin: davies_bouldin(matrix, &labels).ok(),
    }
}
