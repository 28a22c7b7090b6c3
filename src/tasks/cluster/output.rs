//! A clustering as tables.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use datafusion::arrow::compute::take;

use crate::core::ids::Timestamp;
use crate::data::DataError;
use crate::segment::Clustering;
use crate::segment::silhouette::Silhouette;

/// What every row carries of where it comes from.
pub(super) struct Labels<'a> {
    pub(super) run_id: &'a str,
    pub(super) as_of: Timestamp,
    pub(super) version: &'a str,
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn numbers(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

fn counts(values: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(values.map(|n| i64::try_from(n).ok()).collect::<Int64Array>())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("columns are of one length, and there is at least one")
}

/// One row per clustered row. `keys` are those of all rows, in the order of the assignments.
pub(super) fn assignments(
    done: &Clustering,
    labels: &Labels<'_>,
    key: &str,
    keys: &ArrayRef,
) -> Result<RecordBatch, DataError> {
    let found: Vec<_> = done.assignments.iter().flatten().collect();
    let kept: UInt64Array = done
        .assignments
        .iter()
        .zip(0..)
        .filter(|(a, _)| a.is_some())
        .map(|(_, row)| row)
        .collect::<Vec<u64>>()
        .into();
    let keys = take(keys, &kept, None).map_err(|error| DataError::Permanent(error.to_string()))?;
    let segments = &done.model.segments;
    let each = found.iter();
    let as_of = TimestampMicrosecondArray::from(vec![labels.as_of.0; found.len()]).with_timezone("UTC");
    Ok(batch(vec![
        (key, keys),
        ("segment_id", texts(each.clone().map(|a| Some(segments[a.segment].segment_id.as_str())))),
        ("segment_name", texts(each.clone().map(|a| Some(segments[a.segment].name.as_str())))),
        ("distance", numbers(each.clone().map(|a| Some(a.distance)))),
        ("second_segment_id", texts(each.clone().map(|a| a.second.map(|s| segments[s].segment_id.as_str())))),
        ("second_distance", numbers(each.clone().map(|a| a.second_distance))),
        ("confidence", numbers(each.clone().map(|a| Some(a.confidence)))),
        ("outlier", Arc::new(each.clone().map(|a| Some(a.outlier)).collect::<BooleanArray>())),
        ("model_version", texts(each.clone().map(|_| Some(labels.version)))),
        ("run_id", texts(each.clone().map(|_| Some(labels.run_id)))),
        ("as_of", Arc::new(as_of)),
        ("source", texts(each.map(|_| Some("batch")))),
    ]))
}

/// One row per segment and prepared column.
pub(super) fn centres(done: &Clustering, labels: &Labels<'_>) -> RecordBatch {
    let each = done.centres.iter();
    let quartile = |at: usize| numbers(done.centres.iter().map(|c| c.quartiles.map(|q| q[at])));
    batch(vec![
        ("model_version", texts(each.clone().map(|_| Some(labels.version)))),
        ("segment_id", texts(each.clone().map(|c| Some(c.segment_id.as_str())))),
        ("feature", texts(each.clone().map(|c| Some(c.feature.as_str())))),
        ("centre_scaled", numbers(each.clone().map(|c| Some(c.centre_scaled)))),
        ("centre_raw", numbers(each.clone().map(|c| Some(c.centre_raw)))),
        ("population_mean", numbers(each.clone().map(|c| Some(c.population_mean)))),
        ("effect_z", numbers(each.clone().map(|c| Some(c.effect_z)))),
        ("p25", quartile(0)),
        ("p50", quartile(1)),
        ("p75", quartile(2)),
        ("n", counts(each.clone().map(|c| c.n))),
        ("share", numbers(each.map(|c| Some(c.share)))),
    ])
}

/// One row per k that was tried.
pub(super) fn k_report(done: &Clustering) -> RecordBatch {
    let each = done.k_report.figures.iter();
    let refused: Vec<String> = done.k_report.figures.iter().map(|f| f.refused.join("; ")).collect();
    batch(vec![
        ("k", counts(each.clone().map(|f| f.k))),
        ("inertia", numbers(each.clone().map(|f| Some(f.inertia)))),
        ("silhouette", numbers(each.clone().map(|f| f.silhouette.map(|s| s.value)))),
        ("silhouette_low", numbers(each.clone().map(|f| f.silhouette.map(|s| s.ci95[0])))),
        ("silhouette_high", numbers(each.clone().map(|f| f.silhouette.map(|s| s.ci95[1])))),
        ("calinski_harabasz", numbers(each.clone().map(|f| f.calinski_harabasz))),
        ("davies_bouldin", numbers(each.clone().map(|f| f.davies_bouldin))),
        ("gap", numbers(each.clone().map(|f| f.gap.map(|gap| gap.value)))),
        ("gap_error", numbers(each.clone().map(|f| f.gap.map(|gap| gap.error)))),
        ("smallest_share", numbers(each.clone().map(|f| Some(f.smallest_share)))),
        ("largest_share", numbers(each.clone().map(|f| Some(f.largest_share)))),
        ("chosen", Arc::new(each.map(|f| Some(f.k == done.k_report.k)).collect::<BooleanArray>())),
        ("refused", texts(refused.iter().map(|text| Some(text.as_str())))),
    ])
}

/// One row per way from an old segment to a new one that customers of both runs took; none in a first run.
pub(super) fn migration(done: &Clustering, labels: &Labels<'_>) -> RecordBatch {
    let mut ways: Vec<(&str, &str, u64)> = Vec::new();
    if let Some(moved) = &done.migration {
        for (from, row) in moved.from.iter().zip(&moved.customers) {
            let taken = moved.into.iter().zip(row).filter(|(_, n)| **n > 0);
            ways.extend(taken.map(|(into, n)| (from.as_str(), into.as_str(), *n)));
        }
    }
    let each = ways.iter();
    batch(vec![
        ("model_version", texts(each.clone().map(|_| Some(labels.version)))),
        ("prev_segment_id", texts(each.clone().map(|way| Some(way.0)))),
        ("segment_id", texts(each.clone().map(|way| Some(way.1)))),
        ("customers", counts(each.map(|way| usize::try_from(way.2).unwrap_or(usize::MAX)))),
    ])
}

/// One row per event of the lineage and pair of segments it is about; none in a first run.
pub(super) fn lineage(done: &Clustering, labels: &Labels<'_>) -> RecordBatch {
    let sides = |ids: &[String]| -> Vec<Option<String>> {
        if ids.is_empty() { vec![None] } else { ids.iter().cloned().map(Some).collect() }
    };
    type Step = (String, Option<String>, Option<String>, Option<f64>);
    let mut steps: Vec<Step> = Vec::new();
    for step in &done.lineage {
        let event = format!("{:?}", step.event).to_lowercase();
        for from in sides(&step.from) {
            for into in sides(&step.into) {
                steps.push((event.clone(), from.clone(), into, step.overlap));
            }
        }
    }
    let each = steps.iter();
    batch(vec![
        ("model_version", texts(each.clone().map(|_| Some(labels.version)))),
        ("event", texts(each.clone().map(|step| Some(step.0.as_str())))),
        ("prev_segment_id", texts(each.clone().map(|step| step.1.as_deref()))),
        ("segment_id", texts(each.clone().map(|step| step.2.as_deref()))),
        ("overlap", numbers(each.map(|step| step.3))),
    ])
}

/// One row per measure of the whole clustering.
pub(super) fn metrics(done: &Clustering, labels: &Labels<'_>) -> RecordBatch {
    let found = &done.metrics;
    let interval = |at: fn(&Silhouette) -> f64| [None, found.silhouette.as_ref().map(at), None, None];
    let names = ["inertia", "silhouette", "calinski_harabasz", "davies_bouldin"];
    let values = [
        Some(found.inertia),
        found.silhouette.map(|s| s.value),
        found.calinski_harabasz,
        found.davies_bouldin,
    ];
    let method = found.silhouette.map(|s| format!("{:?}", s.method).to_lowercase());
    let methods = [Some("exact"), method.as_deref(), Some("exact"), Some("exact")];
    let silhouette_rows = found.silhouette.map_or(0, |s| s.evaluated);
    let rows = done.model.rows;
    batch(vec![
        ("run_id", texts(names.iter().map(|_| Some(labels.run_id)))),
        ("name", texts(names.iter().map(|name| Some(*name)))),
        ("value", numbers(values.into_iter())),
        ("ci_low", numbers(interval(|s| s.ci95[0]).into_iter())),
        ("ci_high", numbers(interval(|s| s.ci95[1]).into_iter())),
        ("method", texts(methods.into_iter())),
        ("n_used", counts([rows, silhouette_rows, rows, rows].into_iter())),
    ])
}
