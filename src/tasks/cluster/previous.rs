//! The run before: what is served when this run begins, and who was where in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::prelude::ident;

use super::super::TaskContext;
use super::super::datasets;
use super::Cluster;
use crate::data::models::{self, Record};
use crate::data::session::of_datafusion;
use crate::data::{DataError, DatasetName, cells, frames};
use crate::segment::{Model, Previous};

impl Cluster {
    /// What was served before this run made its first candidate, so that a repeated attempt begins where the
    /// first one did; `None` before the first promotion.
    pub(super) async fn previous(&self, cx: &TaskContext) -> Result<Option<Previous>, DataError> {
        let (home, name) = (cx.shared.home.clone(), self.model().clone());
        let (dag_id, run_id) = (cx.dag_id.to_string(), cx.run_id.to_string());
        let served = datasets::blocking(move || {
            let Some(record) = models::history(&home, &name)?.served_before_run(&dag_id, &run_id) else {
                return Ok(None);
            };
            let model = Model::from_json(&models::text(&home, &name, &record.version)?).map_err(|error| {
                DataError::Permanent(format!(
                    "model `{name}` version {}, which is served: {error}\n\
                     hint: its segments would lose their ids; give this clustering another `model`, or have a \
                     version served that can be read (`models promote`)",
                    record.version
                ))
            })?;
            Ok(Some((record, model)))
        })
        .await?;
        let Some((record, model)) = served else { return Ok(None) };
        let members = match members(cx, &record, &model).await {
            // Its rows are gone; its centres are enough to know segments again.
            Err(DataError::Permanent(why)) => {
                cx.log.line(&format!("warning: customers cannot be compared with the version served: {why}"));
                Vec::new()
            }
            found => found?,
        };
        cx.log.line(&format!("version {} is served, with {} rows", record.version, members.len()));
        Ok(Some(Previous { model, version: record.version, members }))
    }
}

/// Keys, rising by bytes, with the place of their segment in the model.
async fn members(
    cx: &TaskContext,
    record: &Record,
    model: &Model,
) -> Result<Vec<(Arc<str>, usize)>, DataError> {
    let dataset = DatasetName::parse(&record.assignments).map_err(DataError::Permanent)?;
    let version = record.datasets.get(&record.assignments).copied();
    let rows = frames::open_at(&cx.shared.lake, &dataset, version).await?.rows;
    let columns = [record.fitted_on.key.as_str(), "segment_id"].map(ident);
    let batches = frames::collect(rows.select(columns.to_vec()).map_err(of_datafusion)?).await?;
    let places: BTreeMap<&str, usize> =
        model.segments.iter().map(|segment| (segment.segment_id.as_str(), segment.index)).collect();
    let mut members = Vec::new();
    for batch in batches {
        let keys = cells::cells(&record.fitted_on.key, batch.column(0))?;
        let segments = cells::cells("segment_id", batch.column(1))?;
        for (key, segment) in keys.iter().zip(&segments) {
            let place = segment.to_text().and_then(|id| places.get(id.as_str()).copied());
            if let Some((key, place)) = key.to_text().zip(place) {
                members.push((Arc::from(key), place));
            }
        }
    }
    members.sort_unstable();
    members.dedup_by(|later, earlier| later.0 == earlier.0);
    Ok(members)
}
