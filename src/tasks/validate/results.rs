//! Results as rows of a dataset, one per expectation and run, and the past that `history` looks at.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::prelude::{ident, lit};

use super::super::TaskContext;
use super::super::datasets;
use super::Judged;
use super::history::Point;
use super::judge::Status;
use super::own::cells_of;
use super::plan::number;
use crate::core::ids::Timestamp;
use crate::data::cells::Cell;
use crate::data::lake::WriteMode;
use crate::data::session::of_datafusion;
use crate::data::{DataError, DatasetName, frames};

/// Where results go unless told.
pub(super) const RESULTS: &str = "dq.results";

/// Adds the results of this run; a second attempt replaces those of the first.
pub(super) async fn keep(
    cx: &TaskContext,
    into: &DatasetName,
    validated: &str,
    results: &[Judged],
) -> Result<(), DataError> {
    let rows = frames::stream_of(vec![batch(cx, validated, results)]);
    let key = datasets::write_key(cx);
    cx.shared.lake.write(into, rows, WriteMode::Append, &[], &key).await?;
    Ok(())
}

fn batch(cx: &TaskContext, validated: &str, results: &[Judged]) -> RecordBatch {
    let rows = results.len();
    let same = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows])) };
    let texts = |of: &dyn Fn(&Judged) -> String| -> ArrayRef {
        Arc::new(results.iter().map(|result| Some(of(result))).collect::<StringArray>())
    };
    let counts = |of: &dyn Fn(&Judged) -> u64| -> ArrayRef {
        Arc::new(results.iter().map(|result| i64::try_from(of(result)).ok()).collect::<Int64Array>())
    };
    let at = TimestampMicrosecondArray::from(vec![cx.logical_date.0; rows]).with_timezone("UTC");
    let values: Float64Array = results.iter().map(|result| result.finding.value).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("dag_id", same(cx.dag_id.as_str())),
        ("run_id", same(cx.run_id.as_str())),
        ("task", same(cx.task_id.as_str())),
        ("logical_date", Arc::new(at)),
        ("validated", same(validated)),
        ("expectation", texts(&|r| r.label.clone())),
        ("dimension", texts(&|r| r.finding.dimension.clone())),
        ("status", texts(&|r| r.finding.status.as_str().to_owned())),
        ("observed", texts(&|r| r.finding.observed.clone())),
        ("expected", texts(&|r| r.finding.expected.clone())),
        ("value", Arc::new(values)),
        ("evaluated", counts(&|r| r.finding.evaluated)),
        ("failed", counts(&|r| r.finding.failed)),
        ("ignored", counts(&|r| r.finding.ignored)),
        ("sample_keys", texts(&|r| r.finding.samples.join("\n"))),
        ("duration_ms", counts(&|r| u64::try_from(r.took.as_millis()).unwrap_or(u64::MAX))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("columns are of one length, and there is at least one")
}

/// The figures of earlier runs, by expectation and dimension.
#[derive(Debug, Default)]
pub(super) struct Past(BTreeMap<(String, String), Vec<Earlier>>);

#[derive(Debug)]
struct Earlier {
    run_id: String,
    failed: bool,
    point: Point,
}

impl Past {
    /// The past of this task in the dataset `from`; empty if there is none yet.
    pub(super) async fn read(cx: &TaskContext, from: &DatasetName) -> Result<Self, DataError> {
        if !cx.shared.lake.exists(from).await? {
            return Ok(Self::default());
        }
        let columns = ["expectation", "dimension", "run_id", "status", "logical_date", "value"];
        let rows = frames::open(&cx.shared.lake, from)
            .await?
            .rows
            .filter(
                ident("dag_id")
                    .eq(lit(cx.dag_id.as_str()))
                    .and(ident("task").eq(lit(cx.task_id.as_str())))
                    .and(ident("run_id").not_eq(lit(cx.run_id.as_str())))
                    .and(ident("value").is_not_null()),
            )
            .and_then(|rows| rows.select_columns(&columns))
            .map_err(of_datafusion)?;
        let mut past: BTreeMap<(String, String), Vec<Earlier>> = BTreeMap::new();
        for row in cells_of(rows).await? {
            let text = |at: usize| row.get(at).and_then(Cell::to_text).unwrap_or_default();
            let (Some(Cell::Time { micros, .. }), Some(value)) = (row.get(4), row.get(5).and_then(number))
            else {
                continue;
            };
            let failed = [Status::Fail, Status::Error].iter().any(|status| status.as_str() == text(3));
            let point = Point { at: Timestamp(*micros), value };
            past.entry((text(0), text(1))).or_default().push(Earlier { run_id: text(2), failed, point });
        }
        Ok(Self(past))
    }

    /// The points that count: those that failed only if a person `accepted` their run.
    pub(super) fn points(&self, expectation: &str, dimension: &str, accepted: &[String]) -> Vec<Point> {
        let earlier = self.0.get(&(expectation.to_owned(), dimension.to_owned()));
        earlier
            .into_iter()
            .flatten()
            .filter(|earlier| !earlier.failed || accepted.contains(&earlier.run_id))
            .map(|earlier| earlier.point.clone())
            .collect()
    }
}
