//! Expectations that need queries of their own: groups, order, other datasets, statements of an author.
//! Those on clusterings are in `clusterings` and `model`.

use std::collections::BTreeMap;

use datafusion::common::JoinType;
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::{count, max, sum};
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::{ident, lit};
use serde_json::Map;

use super::super::TaskContext;
use super::super::datasets;
use super::expectation::Expectation;
use super::gate::Subject;
use super::judge::{Counts, Finding, Status, of_figure, of_rows};
use super::plan::{aggregate, all_present, column, counted, number, whole};
use super::spec::{
    Compare, Freshness, Monotonic, Nulls, Query, Reference, RowCount, Schema, SchemaMode, Unique, Version,
    VersionWord,
};
use super::{clusterings, model};
use crate::data::cells::{self, Cell};
use crate::data::schema::type_name;
use crate::data::session::{Limits, of_datafusion, select};
use crate::data::sql::{Bound, Select};
use crate::data::warehouse::Warehouse;
use crate::data::{DataError, DatasetName, frames};

/// Failing values shown.
pub(super) const SAMPLES: usize = 5;

/// What is validated.
pub(super) struct Table {
    pub(super) rows: DataFrame,
    pub(super) name: String,
    pub(super) row_count: u64,
    /// Where its rows are, if not in the lake.
    pub(super) warehouse: Option<Warehouse>,
    /// The dataset and its version, if they are in the lake.
    pub(super) dataset: Option<(DatasetName, i64)>,
    /// The model it has to do with.
    pub(super) subject: Option<Subject>,
}

impl Table {
    /// The dataset at the version that `version` means; `None` if there was none before this one.
    pub(super) async fn at(
        &self,
        cx: &TaskContext,
        version: Version,
    ) -> Result<Option<DataFrame>, DataError> {
        let Some((dataset, now)) = &self.dataset else {
            let message = format!("`{}` has no versions: it is a table of a connection", self.name);
            return Err(DataError::Permanent(message));
        };
        let version = match version {
            Version::Number(version) => version,
            Version::Word(VersionWord::Previous) if *now == 0 => return Ok(None),
            Version::Word(VersionWord::Previous) => now - 1,
        };
        Ok(Some(frames::open_at(&cx.shared.lake, dataset, Some(version)).await?.rows))
    }
}

/// Judges what no common scan can answer.
pub(super) async fn judge(
    cx: &TaskContext,
    table: &Table,
    expectation: &Expectation,
) -> Result<Vec<Finding>, DataError> {
    if let Expectation::Drift(e) = expectation {
        return model::drift(cx, table, e).await;
    }
    let finding = match expectation {
        Expectation::Schema(e) => schema(table, e),
        Expectation::RowCount(e) => row_count(cx, table, e).await,
        Expectation::Unique(e) => unique(table, e).await,
        Expectation::Monotonic(e) => monotonic(table, e).await,
        Expectation::Query(e) => query(cx, table, e).await,
        Expectation::Freshness(e) => freshness(cx, table, e).await,
        Expectation::Reference(e) => reference(cx, table, e).await,
        Expectation::SegmentSize(e) => clusterings::segment_size(table, e).await,
        Expectation::Cohesion(e) => clusterings::cohesion(cx, table, e).await,
        Expectation::Separation(e) => model::separation(cx, table, e).await,
        Expectation::Stability(e) => model::stability(cx, table, e).await,
        Expectation::Parity(e) => model::parity(cx, table, e).await,
        Expectation::Compare(e) => compare(cx, table, e).await,
        Expectation::Drift(_)
        | Expectation::History(_)
        | Expectation::NotNull(_)
        | Expectation::NullShare(_)
        | Expectation::DistinctCount(_)
        | Expectation::InSet(_)
        | Expectation::NotInSet(_)
        | Expectation::Range(_)
        | Expectation::Length(_)
        | Expectation::Regex(_)
        | Expectation::Expression(_)
        | Expectation::Aggregate(_) => Ok(Finding::error("is answered elsewhere")),
    };
    Ok(vec![finding?])
}

/// All rows of a frame as cells.
pub(super) async fn cells_of(rows: DataFrame) -> Result<Vec<Vec<Cell>>, DataError> {
    let mut all = Vec::new();
    for batch in frames::collect(rows).await? {
        all.extend(cells::rows(&batch)?);
    }
    Ok(all)
}

/// The one row of an aggregate without groups.
pub(super) async fn figures(
    rows: DataFrame,
    wanted: Vec<datafusion::prelude::Expr>,
) -> Result<Vec<Cell>, DataError> {
    let aliased = wanted.into_iter().enumerate().map(|(at, e)| e.alias(format!("f{at}"))).collect();
    let rows = rows.aggregate(Vec::new(), aliased).map_err(of_datafusion)?;
    Ok(cells_of(rows).await?.pop().unwrap_or_default())
}

async fn other(cx: &TaskContext, name: &str) -> Result<DataFrame, DataError> {
    let dataset = DatasetName::parse(name).map_err(DataError::Permanent)?;
    Ok(frames::open(&cx.shared.lake, &dataset).await?.rows)
}

fn schema(table: &Table, wanted: &Schema) -> Result<Finding, DataError> {
    let found = table.rows.schema().fields();
    let mut problems = Vec::new();
    for column in &wanted.columns {
        let Some(field) = found.iter().find(|field| *field.name() == column.name) else {
            if wanted.mode != SchemaMode::Subset {
                problems.push(format!("`{}` is missing", column.name));
            }
            continue;
        };
        if let Some(text) = &column.data_type {
            let is = type_name(field.data_type());
            if !is_called(&is, text) {
                problems.push(format!("`{}` is of type {is}, expected {text}", column.name));
            }
        }
        if column.nullable == Some(false) && field.is_nullable() {
            problems.push(format!("`{}` may hold nulls", column.name));
        }
    }
    let named = |name: &str| wanted.columns.iter().any(|c| c.name == name);
    if wanted.mode != SchemaMode::Superset {
        problems.extend(
            found.iter().filter(|f| !named(f.name())).map(|f| format!("`{}` is not expected", f.name())),
        );
    }
    if wanted.ordered {
        let theirs: Vec<&String> = found.iter().map(|f| f.name()).filter(|name| named(name)).collect();
        let there = |name: &String| theirs.contains(&name);
        let ours: Vec<&String> = wanted.columns.iter().map(|c| &c.name).filter(|name| there(name)).collect();
        if theirs != ours {
            problems.push("the columns are in another order".to_owned());
        }
    }
    let names: Vec<&str> = wanted.columns.iter().map(|c| c.name.as_str()).collect();
    let expected = format!("columns {}", names.join(", "));
    Ok(if problems.is_empty() {
        Finding::new(Status::Pass, format!("{} columns", found.len()), expected)
    } else {
        Finding::new(Status::Fail, problems.join("; "), expected)
    })
}

/// Whether authors may call the type `is` by `word`.
fn is_called(is: &str, word: &str) -> bool {
    let word: String = word.to_lowercase().split_whitespace().collect();
    match word.as_str() {
        "integer" | "int" => matches!(is, "tinyint" | "smallint" | "integer" | "bigint"),
        "double" | "number" => is == "float",
        "string" | "varchar" => is == "text",
        "bool" => is == "boolean",
        "datetime" => is == "timestamp",
        other => is == other,
    }
}

async fn row_count(cx: &TaskContext, table: &Table, wanted: &RowCount) -> Result<Finding, DataError> {
    let mut bounds = wanted.bounds();
    if let Some(name) = &wanted.equals_table {
        let count = figures(other(cx, name).await?, vec![count(lit(1_i64))]).await?;
        let count = count.first().and_then(number);
        (bounds.min, bounds.max) = (count, count);
    }
    let rows = table.row_count;
    // An empty table is no surprise to those who say `min: 0`.
    let spoken_for =
        rows > 0 || bounds.min.is_some_and(|min| min <= 0.0) || bounds.max.is_some_and(|max| max <= 0.0);
    Ok(of_figure(spoken_for.then_some(rows as f64), rows, bounds))
}

async fn unique(table: &Table, wanted: &Unique) -> Result<Finding, DataError> {
    let present = all_present(&table.rows, &wanted.columns)?;
    let judged = match wanted.by_row().nulls {
        Nulls::Ignore => present,
        Nulls::Fail => lit(true),
    };
    let by: Vec<_> = wanted.columns.iter().map(ident).collect();
    let groups = table.rows.clone().filter(judged).map_err(of_datafusion)?;
    let groups = groups.aggregate(by, vec![count(lit(1_i64)).alias("_n")]).map_err(of_datafusion)?;
    let found = figures(groups.clone(), vec![sum(ident("_n")), count(lit(1_i64))]).await?;
    let [evaluated, different] = found.as_slice() else { return Ok(Finding::error("the count has no rows")) };
    let counts = Counts { all: table.row_count, evaluated: whole(evaluated), passed: whole(different) };
    let mut finding = of_rows(counts, wanted.by_row(), "no value twice");
    if finding.failed > 0 {
        finding.observed = format!("{} rows in excess of one per value", finding.failed);
        let repeated = groups.filter(ident("_n").gt(lit(1_i64))).map_err(of_datafusion)?;
        let order = wanted.columns.iter().map(|name| ident(name).sort(true, true)).collect();
        let repeated = repeated.sort(order).and_then(|r| r.limit(0, Some(SAMPLES))).map_err(of_datafusion)?;
        finding.samples =
            cells_of(repeated).await?.iter().map(|row| shown(&row[..wanted.columns.len()])).collect();
    }
    Ok(finding)
}

/// Values apart by commas.
pub(super) fn shown(row: &[Cell]) -> String {
    let texts: Vec<String> = row.iter().map(|c| c.to_text().unwrap_or_else(|| "null".to_owned())).collect();
    texts.join(", ")
}

async fn monotonic(table: &Table, wanted: &Monotonic) -> Result<Finding, DataError> {
    let (value, present) = column(&table.rows, &wanted.column)?;
    let (by, ordered) = column(&table.rows, &wanted.by)?;
    let before = lag(value.clone(), Some(1), None)
        .order_by(vec![by.clone().sort(true, true)])
        .build()
        .map_err(of_datafusion)?;
    let rows = table.rows.clone().filter(present.and(ordered)).map_err(of_datafusion)?;
    let steps = rows
        .select(vec![value.alias("_value"), by.alias("_by"), before.alias("_before")])
        .map_err(of_datafusion)?;
    let (now, then) = (ident("_value"), ident("_before"));
    let passed = match (wanted.decreasing, wanted.strict) {
        (false, false) => now.gt_eq(then.clone()),
        (false, true) => now.gt(then.clone()),
        (true, false) => now.lt_eq(then.clone()),
        (true, true) => now.lt(then.clone()),
    };
    let passed = then.is_null().or(passed);
    let found = figures(steps.clone(), vec![count(lit(1_i64)), counted(passed.clone())?]).await?;
    let [evaluated, ok] = found.as_slice() else { return Ok(Finding::error("the count has no rows")) };
    let counts = Counts { all: table.row_count, evaluated: whole(evaluated), passed: whole(ok) };
    let direction = if wanted.decreasing { "fall" } else { "rise" };
    let mut finding = of_rows(counts, wanted.by_row(), &format!("to {direction} with `{}`", wanted.by));
    if finding.failed > 0 {
        let failing =
            steps.filter(!passed).and_then(|rows| rows.limit(0, Some(SAMPLES))).map_err(of_datafusion)?;
        finding.samples = cells_of(failing).await?.iter().map(|row| shown(row)).collect();
    }
    Ok(finding)
}

async fn query(cx: &TaskContext, table: &Table, wanted: &Query) -> Result<Finding, DataError> {
    let values = datasets::bound_values(cx, &Map::new());
    let rows = match &table.warehouse {
        Some(warehouse) => warehouse.read(&wanted.sql, &values).await?,
        None => {
            let statement = Select::parse(&wanted.sql).map_err(|p| DataError::Permanent(p.to_string()))?;
            let values: BTreeMap<String, Bound> =
                values.into_iter().map(|(k, v)| (k, Bound::Json(v))).collect();
            select(&cx.shared.lake, statement, &values, Limits::default()).await?.rows
        }
    };
    let batches = frames::gather(rows).await?;
    let count: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let mut some = Vec::new();
    for batch in &batches {
        some.extend(cells::rows(&batch.slice(0, batch.num_rows().min(SAMPLES)))?);
    }
    some.truncate(SAMPLES);
    if let Some(rows) = wanted.rows {
        let status = if count as u64 == rows { Status::Pass } else { Status::Fail };
        let samples =
            if status == Status::Fail { some.iter().map(|row| shown(row)).collect() } else { Vec::new() };
        let evaluated = count as u64;
        let finding = Finding::new(status, format!("{count} rows"), format!("{rows} rows"));
        return Ok(Finding { samples, evaluated, ..finding });
    }
    match some.as_slice() {
        [row] if row.len() == 1 && count == 1 => Ok(of_figure(number(&row[0]), 1, wanted.bounds())),
        _ => Ok(Finding::error(format!("the query gives {count} rows, expected one number; or say `rows:`"))),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these cells are times")]
async fn freshness(cx: &TaskContext, table: &Table, wanted: &Freshness) -> Result<Finding, DataError> {
    let (value, _) = column(&table.rows, &wanted.column)?;
    let newest = figures(table.rows.clone(), vec![max(value)]).await?.pop().unwrap_or(Cell::Null);
    let expected = format!("at most {} s old at {}", wanted.max_age.0.as_secs(), cx.logical_date);
    let micros = match &newest {
        Cell::Null => return Ok(Finding::new(Status::Fail, "no_data: there are no rows to judge", expected)),
        Cell::Date(days) => i64::from(*days) * 86_400_000_000,
        Cell::Time { micros, .. } => *micros,
        other => {
            return Ok(Finding::error(format!(
                "the newest value `{}` is no time",
                shown(std::slice::from_ref(other))
            )));
        }
    };
    let age = i128::from(cx.logical_date.0) - i128::from(micros);
    let older = |than: std::time::Duration| age > i128::try_from(than.as_micros()).unwrap_or(i128::MAX);
    let ahead = -age > i128::try_from(wanted.skew.0.as_micros()).unwrap_or(i128::MAX);
    let status = if ahead || older(wanted.max_age.0) {
        Status::Fail
    } else if wanted.warn_after.is_some_and(|after| older(after.0)) {
        Status::Warn
    } else {
        Status::Pass
    };
    let observed = format!("{} s old (newest {})", age / 1_000_000, newest.to_text().unwrap_or_default());
    Ok(Finding { evaluated: table.row_count, ..Finding::new(status, observed, expected) })
}

async fn reference(cx: &TaskContext, table: &Table, wanted: &Reference) -> Result<Finding, DataError> {
    let to = if wanted.to.is_empty() { &wanted.columns } else { &wanted.to };
    if to.len() != wanted.columns.len() {
        return Ok(Finding::error(format!("{} columns refer to {} columns", wanted.columns.len(), to.len())));
    }
    let there = other(cx, &wanted.table).await?;
    all_present(&there, to)?;
    let names: Vec<String> = (0..to.len()).map(|at| format!("_to{at}")).collect();
    let there = there
        .select(to.iter().zip(&names).map(|(name, alias)| ident(name).alias(alias)).collect::<Vec<_>>())
        .and_then(DataFrame::distinct)
        .map_err(of_datafusion)?;
    let judged =
        table.rows.clone().filter(all_present(&table.rows, &wanted.columns)?).map_err(of_datafusion)?;
    let chosen =
        judged.select(wanted.columns.iter().map(ident).collect::<Vec<_>>()).map_err(of_datafusion)?;
    let evaluated = figures(chosen.clone(), vec![count(lit(1_i64))]).await?;
    let left: Vec<&str> = wanted.columns.iter().map(String::as_str).collect();
    let right: Vec<&str> = names.iter().map(String::as_str).collect();
    let dangling = chosen.join(there, JoinType::LeftAnti, &left, &right, None).map_err(of_datafusion)?;
    let failed = figures(dangling.clone(), vec![count(lit(1_i64))]).await?;
    let (evaluated, failed) = (evaluated.first().map_or(0, whole), failed.first().map_or(0, whole));
    let counts = Counts { all: table.row_count, evaluated, passed: evaluated - failed };
    let mut finding = of_rows(counts, wanted.by_row(), &format!("to occur in `{}`", wanted.table));
    if failed > 0 {
        let some =
            dangling.distinct().and_then(|rows| rows.limit(0, Some(SAMPLES))).map_err(of_datafusion)?;
        finding.samples = cells_of(some).await?.iter().map(|row| shown(row)).collect();
    }
    Ok(finding)
}

async fn compare(cx: &TaskContext, table: &Table, wanted: &Compare) -> Result<Finding, DataError> {
    let there = match (&wanted.table, wanted.version) {
        (None, Some(version)) => table.at(cx, version).await?,
        (Some(name), Some(Version::Number(version))) => {
            let dataset = DatasetName::parse(name).map_err(DataError::Permanent)?;
            Some(frames::open_at(&cx.shared.lake, &dataset, Some(version)).await?.rows)
        }
        (Some(name), None) => Some(other(cx, name).await?),
        _ => return Ok(Finding::error("says neither `table` nor `version`")),
    };
    let Some(there) = there else {
        return Ok(Finding::skipped("no_reference: this is the first version", "two figures to compare"));
    };
    let mut found = Vec::new();
    for rows in [&table.rows, &there] {
        let (figure, _) = aggregate(rows, &wanted.column, wanted.function, wanted.q)?;
        found.push(figures(rows.clone(), vec![figure]).await?.first().and_then(number));
    }
    let [Some(here), Some(there)] = found.as_slice() else {
        return Ok(Finding::new(
            Status::Fail,
            "no_data: one of the tables has no value",
            "two figures to compare",
        ));
    };
    let difference = (here - there).abs();
    let allowed = wanted.absolute.unwrap_or(0.0).max(wanted.relative.unwrap_or(0.0) * there.abs());
    let status = if difference <= allowed { Status::Pass } else { Status::Fail };
    Ok(Finding {
        value: Some(difference),
        ..Finding::new(
            status,
            format!("{here}, differs by {difference}"),
            format!("{there} give or take {allowed}"),
        )
    })
}
