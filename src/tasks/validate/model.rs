//! Expectations that need a model: how far apart its segments are, and how much of the served one it keeps.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{cast, ident, lit};

use super::super::TaskContext;
use super::super::datasets;
use super::gate::Subject;
use super::judge::{Finding, Status, bounds_text, of_figure};
use super::own::{SAMPLES, Table, cells_of, shown};
use super::plan::whole;
use super::spec::{Bounds, Cohesion, Separation, Stability, StabilityMetric};
use crate::core::alert::SignKind;
use crate::data::models::{self, Record};
use crate::data::session::of_datafusion;
use crate::data::{DataError, DatasetName, frames};
use crate::segment::Model;
use crate::segment::agreement::Contingency;
use crate::segment::artefact::ArtefactError;
use crate::segment::drift::psi;
use crate::segment::prepare::{FittedFeature, NumericFeature};

mod drift;
mod parity;

pub(super) use drift::drift;
pub(super) use parity::parity;

const NO_MODEL: &str = "there is no model: name it with `model:`";
const NO_VERSION: &str = "no_reference: no version of the model has been served yet";

/// Reads one version of a model.
async fn load(cx: &TaskContext, model: &str, version: &str) -> Result<Model, DataError> {
    let (home, name, wanted) = (cx.shared.home.clone(), model.to_owned(), version.to_owned());
    let text = datasets::blocking(move || models::text(&home, &name, &wanted)).await?;
    Model::from_json(&text).map_err(|error| {
        let hint = match error {
            ArtefactError::Format { .. } => "\nhint: another mainspring wrote it; a newer one may read it",
            ArtefactError::Json(_) | ArtefactError::Shape(_) => "",
        };
        DataError::Permanent(format!("model `{model}` version {version}: {error}{hint}"))
    })
}

/// The model that the validated rows belong to, or why there is none.
async fn judged(cx: &TaskContext, table: &Table) -> Result<Result<(Record, Model), Finding>, DataError> {
    let Some(subject) = &table.subject else { return Ok(Err(Finding::error(NO_MODEL))) };
    let Some(record) = subject.judged() else { return Ok(Err(Finding::skipped(NO_VERSION, "a model"))) };
    let model = load(cx, &subject.model, &record.version).await?;
    Ok(Ok((record, model)))
}

/// The version served before the judged one, or why there is none.
fn before(subject: &Subject, version: Option<&str>) -> Result<Result<Record, Finding>, DataError> {
    Ok(subject.before(version)?.ok_or_else(|| Finding::skipped(NO_VERSION, "an earlier version")))
}

/// See [`Separation`].
pub(super) async fn separation(
    cx: &TaskContext,
    table: &Table,
    wanted: &Separation,
) -> Result<Finding, DataError> {
    let model = match judged(cx, table).await? {
        Ok((_, model)) => model,
        Err(finding) => return Ok(finding),
    };
    let bounds = wanted.bounds().or(None, Some(1.0), None, None);
    let (segments, centres) = (&model.segments, &model.assign.centres);
    let mut pairs = Vec::new();
    for (p, left) in segments.iter().enumerate() {
        for (q, right) in segments.iter().enumerate().skip(p + 1) {
            let (Some(a), Some(b)) = (centres.get(p), centres.get(q)) else { continue };
            let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            let apart = squares.sqrt() / (left.radius_p50 + right.radius_p50);
            pairs.push((apart, format!("{} and {}: {apart:.3}", left.name, right.name)));
        }
    }
    let Some(least) = pairs.iter().map(|(apart, _)| *apart).reduce(f64::min) else {
        return Ok(Finding::skipped("there is only one segment with a centre", bounds_text(&bounds)));
    };
    let mut finding = of_figure(Some(least), table.row_count, bounds);
    if finding.status > Status::Pass {
        pairs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        finding.samples = pairs.into_iter().take(SAMPLES).map(|(_, text)| text).collect();
    }
    Ok(finding)
}

/// The `inertia_ratio` of [`Cohesion`].
pub(super) async fn inertia_ratio(
    cx: &TaskContext,
    table: &Table,
    wanted: &Cohesion,
) -> Result<Finding, DataError> {
    let (subject, model) = match (&table.subject, judged(cx, table).await?) {
        (Some(subject), Ok((_, model))) => (subject, model),
        (None, _) => return Ok(Finding::error(NO_MODEL)),
        (_, Err(finding)) => return Ok(finding),
    };
    let old = match before(subject, None)? {
        Ok(record) => load(cx, &subject.model, &record.version).await?,
        Err(finding) => return Ok(finding),
    };
    let per_row = |model: &Model| model.metrics.inertia / model.rows as f64;
    Ok(of_figure(Some(per_row(&model) / per_row(&old)), table.row_count, wanted.bounds()))
}

/// See [`Stability`].
pub(super) async fn stability(
    cx: &TaskContext,
    table: &Table,
    wanted: &Stability,
) -> Result<Finding, DataError> {
    let Some(subject) = &table.subject else { return Ok(Finding::error(NO_MODEL)) };
    let Some(judged) = subject.judged() else { return Ok(Finding::skipped(NO_VERSION, "a model")) };
    let old = match before(subject, wanted.version.as_deref())? {
        Ok(record) => record,
        Err(finding) => return Ok(finding),
    };
    let bounds = limits(wanted);
    let expected = format!("{} {}", wanted.metric.as_str(), bounds_text(&bounds));
    if wanted.metric == StabilityMetric::CentreShift {
        let new = load(cx, &subject.model, &judged.version).await?;
        let old = load(cx, &subject.model, &old.version).await?;
        let Some((shift, what)) = centre_shift(&old, &new) else {
            return Ok(Finding::no_data(false, &expected));
        };
        let finding = of_figure(Some(shift), table.row_count, bounds);
        let samples = if finding.status > Status::Pass { vec![what] } else { Vec::new() };
        return Ok(Finding { expected, samples, sign: Some(SignKind::Shift), ..finding });
    }
    let pairs = who_went_where(cx, &old, &judged).await?;
    let both = Contingency::of(&pairs);
    let value = match wanted.metric {
        StabilityMetric::Ari => both.adjusted_rand(),
        StabilityMetric::Nmi => both.normalised_mutual_information(),
        StabilityMetric::Jaccard => both.jaccards().into_iter().reduce(f64::min),
        StabilityMetric::MovedShare => both.moved_share(),
        StabilityMetric::SharePsi => share_psi(&both),
        StabilityMetric::CentreShift => None,
    };
    let Some(value) = value else {
        let finding = Finding::no_data(bounds.allow_empty, &expected);
        let observed = format!("no_data: no customer is also in version {}", old.version);
        return Ok(Finding { observed, ..finding });
    };
    let finding = of_figure(Some(value), both.total(), bounds);
    let observed = format!("{value:.4} of version {}", old.version);
    let moves = if finding.status > Status::Pass { largest_moves(&pairs) } else { Vec::new() };
    Ok(Finding { observed, expected, samples: moves, sign: Some(SignKind::Shift), ..finding })
}

/// The bounds of the author, or the usual ones of the measure.
fn limits(wanted: &Stability) -> Bounds {
    let said = wanted.bounds();
    match wanted.metric {
        StabilityMetric::Ari => said.or(Some(0.9), Some(0.75), None, None),
        StabilityMetric::MovedShare => said.or(None, None, Some(0.03), Some(0.1)),
        StabilityMetric::SharePsi => said.or(None, None, Some(0.1), Some(0.25)),
        StabilityMetric::Nmi | StabilityMetric::Jaccard | StabilityMetric::CentreShift => said,
    }
}

/// Counts customers of both versions by their old and new segment.
async fn who_went_where(
    cx: &TaskContext,
    old: &Record,
    new: &Record,
) -> Result<Vec<(String, String, u64)>, DataError> {
    let was = assignments(cx, old, "_old_key", "_old").await?;
    let is = assignments(cx, new, "_new_key", "_new").await?;
    let pairs = was
        .join(is, JoinType::Inner, &["_old_key"], &["_new_key"], None)
        .and_then(|both| {
            both.aggregate(vec![ident("_old"), ident("_new")], vec![count(lit(1_i64)).alias("_n")])
        })
        .and_then(|pairs| pairs.sort(vec![ident("_old").sort(true, true), ident("_new").sort(true, true)]))
        .map_err(of_datafusion)?;
    let rows = cells_of(pairs).await?;
    Ok(rows.iter().map(|row| (shown(&row[..1]), shown(&row[1..2]), whole(&row[2]))).collect())
}

/// The keys, as text, and segments of one version.
async fn assignments(
    cx: &TaskContext,
    of: &Record,
    key: &str,
    segment: &str,
) -> Result<DataFrame, DataError> {
    let dataset = DatasetName::parse(&of.assignments).map_err(DataError::Permanent)?;
    let version = of.datasets.get(&of.assignments).copied();
    let rows = frames::open_at(&cx.shared.lake, &dataset, version).await?.rows;
    rows.select(vec![
        cast(ident(&of.fitted_on.key), DataType::Utf8).alias(key),
        ident("segment_id").alias(segment),
    ])
    .map_err(of_datafusion)
}

fn share_psi(both: &Contingency) -> Option<f64> {
    let all = both.total();
    if all == 0 {
        return None;
    }
    let mut names: Vec<&String> = both.old.iter().chain(&both.new).collect();
    names.sort();
    names.dedup();
    let shares = |of: &[String], sizes: Vec<u64>| -> Vec<f64> {
        let size = |name: &String| of.binary_search(name).map_or(0, |at| sizes[at]);
        names.iter().map(|name| size(name) as f64 / all as f64).collect()
    };
    Some(psi(&shares(&both.new, both.new_sizes()), &shares(&both.old, both.old_sizes())))
}

/// The commonest ways from one segment to another.
fn largest_moves(pairs: &[(String, String, u64)]) -> Vec<String> {
    let mut moves: Vec<_> = pairs.iter().filter(|(from, to, _)| from != to).collect();
    moves.sort_by_key(|(from, to, n)| (std::cmp::Reverse(*n), from, to));
    moves.iter().take(SAMPLES).map(|(from, to, n)| format!("{n} from {from} to {to}")).collect()
}

/// The farthest that a centre moved in one numeric feature, in the old model's standard deviations.
fn centre_shift(old: &Model, new: &Model) -> Option<(f64, String)> {
    let (old_columns, new_columns) = (numeric_columns(old), numeric_columns(new));
    let mut farthest: Option<(f64, String)> = None;
    for segment in &new.segments {
        let Some(was) = old.segments.iter().find(|s| s.segment_id == segment.segment_id) else { continue };
        for (place, feature) in &old_columns {
            let Some((at, now)) = new_columns.iter().find(|(_, now)| now.name == feature.name) else {
                continue;
            };
            let spread = old.reference.deviations.get(*place).copied().filter(|spread| *spread > 0.0);
            let (Some(before), Some(after), Some(spread)) = (
                old.assign.centres.get(was.index).and_then(|centre| centre.get(*place)),
                new.assign.centres.get(segment.index).and_then(|centre| centre.get(*at)),
                spread,
            ) else {
                continue;
            };
            let Some(after) = now.inverse(*after).and_then(|raw| in_units_of(feature, raw)) else { continue };
            let shift = (after - before).abs() / spread;
            if farthest.as_ref().is_none_or(|(most, _)| shift > *most) {
                farthest = Some((shift, format!("{} in {}: {shift:.3}", segment.name, feature.name)));
            }
        }
    }
    farthest
}

/// Numeric features with the place of their column.
fn numeric_columns(model: &Model) -> Vec<(usize, &NumericFeature)> {
    let mut place = 0;
    let mut found = Vec::new();
    for feature in model.features.features() {
        if let FittedFeature::Numeric(numeric) = feature
            && numeric.scale.is_some()
        {
            found.push((place, numeric));
        }
        place += feature.width();
    }
    found
}

/// A raw value in a feature's prepared units, not clipped.
fn in_units_of(feature: &NumericFeature, raw: f64) -> Option<f64> {
    let scale = feature.scale?;
    let value = feature.transformed_value(raw).ok()?;
    Some((value - scale.offset) * scale.factor * feature.weight)
}
