//! Expectations on the datasets of a clustering: sizes and cohesion. Those on its model are in `model`.

use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{ident, lit};

use super::super::TaskContext;
use super::super::datasets::METRICS;
use super::judge::{Finding, Status, bounds_text, of_figure};
use super::model;
use super::own::{SAMPLES, Table, cells_of, shown};
use super::plan::{column, number, whole};
use super::spec::{Cohesion, Metric, SegmentSize};
use crate::data::session::of_datafusion;
use crate::data::{DataError, DatasetName, frames};

pub(super) async fn segment_size(table: &Table, wanted: &SegmentSize) -> Result<Finding, DataError> {
    let (segment, present) = column(&table.rows, &wanted.column)?;
    let groups = table.rows.clone().filter(present).map_err(of_datafusion)?;
    let groups = groups
        .aggregate(vec![segment], vec![count(lit(1_i64)).alias("_n")])
        .and_then(|groups| {
            groups.sort(vec![ident("_n").sort(true, true), ident(&wanted.column).sort(true, true)])
        })
        .map_err(of_datafusion)?;
    let sizes: Vec<(String, u64)> =
        cells_of(groups).await?.iter().map(|row| (shown(&row[..1]), whole(&row[1]))).collect();
    let all: u64 = sizes.iter().map(|(_, n)| n).sum();
    let limits = [
        wanted.min_share.map(|v| format!("shares of at least {v}")),
        wanted.max_share.map(|v| format!("shares of at most {v}")),
        wanted.min_size.map(|v| format!("at least {v} rows each")),
        wanted.max_k.map(|v| format!("at most {v} segments")),
        wanted.effective_k.map(|v| format!("an effective number of at least {v}")),
    ];
    let expected = limits.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let (Some(least), Some(most)) = (sizes.first(), sizes.last()) else {
        return Ok(Finding::new(Status::Fail, "no_data: there are no rows to judge", expected));
    };
    let share = |n: u64| n as f64 / all as f64;
    let effective = sizes.iter().map(|(_, n)| -share(*n) * share(*n).ln()).sum::<f64>().exp();
    let wrong = |n: u64| {
        wanted.min_share.is_some_and(|v| share(n) < v)
            || wanted.max_share.is_some_and(|v| share(n) > v)
            || wanted.min_size.is_some_and(|v| n < v)
    };
    let samples: Vec<String> = sizes
        .iter()
        .filter(|(_, n)| wrong(*n))
        .take(SAMPLES)
        .map(|(id, n)| format!("{id}: {n} rows"))
        .collect();
    let too_many = wanted.max_k.is_some_and(|v| sizes.len() as u64 > v);
    let too_even = wanted.effective_k.is_some_and(|v| effective < v);
    let status = if samples.is_empty() && !too_many && !too_even { Status::Pass } else { Status::Fail };
    let observed = format!(
        "{} segments with shares from {:.4} to {:.4}, effective number {effective:.2}",
        sizes.len(),
        share(least.1),
        share(most.1)
    );
    Ok(Finding {
        evaluated: all,
        samples,
        value: Some(effective),
        ..Finding::new(status, observed, expected)
    })
}

pub(super) async fn cohesion(
    cx: &TaskContext,
    table: &Table,
    wanted: &Cohesion,
) -> Result<Finding, DataError> {
    let metric = match wanted.metric {
        Metric::Silhouette => "silhouette",
        Metric::DaviesBouldin => "davies_bouldin",
        Metric::CalinskiHarabasz => "calinski_harabasz",
        Metric::Inertia => "inertia",
        Metric::InertiaRatio => return model::inertia_ratio(cx, table, wanted).await,
    };
    let name = format!("{}{METRICS}", table.name);
    let judged = table.subject.as_ref().and_then(super::gate::Subject::judged);
    let version = judged.and_then(|record| record.datasets.get(&name).copied());
    let dataset = DatasetName::parse(&name).map_err(DataError::Permanent)?;
    let row = frames::open_at(&cx.shared.lake, &dataset, version)
        .await?
        .rows
        .filter(ident("name").eq(lit(metric)))
        .and_then(|rows| rows.select(vec![ident("value"), ident("ci_low")]))
        .map_err(of_datafusion)?;
    let row = cells_of(row).await?.pop().unwrap_or_default();
    let (value, low) = (row.first().and_then(number), row.get(1).and_then(number));
    let compared = if wanted.point { value } else { low.or(value) };
    let mut finding = of_figure(compared, table.row_count, wanted.bounds());
    if let (Some(value), Some(low)) = (value, low) {
        finding.observed = format!("{value} (at least {low})");
    }
    finding.expected = format!("{metric} {}", bounds_text(&wanted.bounds()));
    Ok(finding)
}
