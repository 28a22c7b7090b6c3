//! Whether batch and single customers get the same segment.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use datafusion::prelude::ident;

use super::super::super::TaskContext;
use super::super::super::cluster::input;
use super::super::judge::{Finding, Status};
use super::super::own::{SAMPLES, Table, cells_of};
use super::super::plan::number;
use super::super::spec::Parity;
use super::judged;
use crate::core::ids::Timestamp;
use crate::data::cells::Cell;
use crate::data::models::Record;
use crate::data::session::of_datafusion;
use crate::data::{DataError, DatasetName, frames};
use crate::segment::prepare::{FittedFeature, Value};
use crate::segment::{Model, assign};

/// What the dataset says of one customer.
#[derive(Debug, PartialEq)]
struct Row {
    segment_id: String,
    distance: Option<f64>,
    second_segment_id: Option<String>,
    confidence: Option<f64>,
}

/// See [`Parity`].
pub(in super::super) async fn parity(
    cx: &TaskContext,
    table: &Table,
    wanted: &Parity,
) -> Result<Finding, DataError> {
    let (record, model) = match judged(cx, table).await? {
        Ok(found) => found,
        Err(finding) => return Ok(finding),
    };
    let expected = "the same segment, distance and confidence for batch and single customers";
    let mut stored = stored(table, &record).await?;
    let fitted = &record.fitted_on;
    let dataset = DatasetName::parse(&fitted.dataset).map_err(DataError::Permanent)?;
    let mut rows = frames::open_at(&cx.shared.lake, &dataset, Some(fitted.version)).await?.rows;
    if let Some(predicate) = &fitted.only {
        rows = frames::filter(rows, predicate)?;
    }
    let as_of = Timestamp::parse(&fitted.as_of).unwrap_or(cx.logical_date);
    let features: Vec<(&str, bool)> = model
        .features
        .features()
        .iter()
        .map(|feature| (feature.name(), matches!(feature, FittedFeature::Categorical(_))))
        .collect();
    let read = input::read(rows, &fitted.key, &features, as_of).await?;
    let drawn = draw(&read.keys, wanted.sample, &record.version);
    let (mut different, mut samples) = (0, Vec::new());
    for &at in &drawn {
        let values: Vec<Value<'_>> = read.columns.iter().map(|(_, column)| column.value(at)).collect();
        let alone = single(&model, &values)?;
        let batch = stored.remove(&*read.keys[at]);
        if alone != batch {
            different += 1;
            if samples.len() < SAMPLES {
                samples.push(format!("{}: {} alone, {} in batch", read.keys[at], told(&alone), told(&batch)));
            }
        }
    }
    if drawn.is_empty() {
        return Ok(Finding::no_data(false, expected));
    }
    let status = if different == 0 { Status::Pass } else { Status::Fail };
    let observed = format!("{different} of {} customers differ", drawn.len());
    Ok(Finding {
        evaluated: drawn.len() as u64,
        failed: different,
        samples,
        value: Some(different as f64),
        ..Finding::new(status, observed, expected)
    })
}

/// One customer through the model, as whoever asks for a single profile is answered.
fn single(model: &Model, values: &[Value<'_>]) -> Result<Option<Row>, DataError> {
    let found = assign(model, values).map_err(|error| DataError::Permanent(error.to_string()))?;
    let id = |segment: usize| model.segments[segment].segment_id.clone();
    Ok(found.map(|found| Row {
        segment_id: id(found.segment),
        distance: Some(found.distance),
        second_segment_id: found.second.map(id),
        confidence: Some(found.confidence),
    }))
}

/// The rows of the dataset by key.
async fn stored(table: &Table, record: &Record) -> Result<BTreeMap<String, Row>, DataError> {
    let columns =
        [record.fitted_on.key.as_str(), "segment_id", "distance", "second_segment_id", "confidence"];
    let rows = table.rows.clone().select(columns.map(ident).to_vec()).map_err(of_datafusion)?;
    let mut found = BTreeMap::new();
    for row in cells_of(rows).await? {
        let [key, segment_id, distance, second, confidence] = row.as_slice() else { continue };
        let row = Row {
            segment_id: segment_id.to_text().unwrap_or_default(),
            distance: number(distance),
            second_segment_id: second.to_text(),
            confidence: number(confidence),
        };
        found.insert(key.to_text().unwrap_or_default(), row);
    }
    Ok(found)
}

/// Places of `sample` keys, drawn by a hash that the version changes.
fn draw(keys: &[std::sync::Arc<str>], sample: usize, version: &str) -> Vec<usize> {
    let hash = |key: &str| {
        let mut hasher = DefaultHasher::new();
        (version, key).hash(&mut hasher);
        hasher.finish()
    };
    let mut drawn: Vec<(u64, usize)> = keys.iter().enumerate().map(|(at, key)| (hash(key), at)).collect();
    drawn.sort_unstable();
    drawn.truncate(sample);
    drawn.into_iter().map(|(_, at)| at).collect()
}

fn told(row: &Option<Row>) -> String {
    let none = "no segment".to_owned();
    row.as_ref().map_or(none, |row| {
        let distance = row.distance.map_or(Cell::Null, Cell::Float).to_text().unwrap_or_default();
        format!("{} at {distance}", row.segment_id)
    })
}
