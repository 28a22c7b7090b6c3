//! Expectations as expressions over the table, so that one scan answers as many as possible.

use datafusion::common::ScalarValue;
use datafusion::functions::expr_fn::{character_length, isnan, regexp_like};
use datafusion::functions_aggregate::count::count_distinct;
use datafusion::functions_aggregate::expr_fn::{
    approx_distinct, avg, count, max, median, min, stddev_pop, sum,
};
use datafusion::functions_aggregate::percentile_cont::percentile_cont;
use datafusion::prelude::{DataFrame, Expr, ident, lit, when};
use serde_json::Value;

use super::expectation::Expectation;
use super::judge::{Counts, Finding, of_figure, of_rows};
use super::spec::{Bounds, ByRow, Function, Nulls, Range};
use crate::data::cells::Cell;
use crate::data::session::of_datafusion;
use crate::data::{DataError, frames, hint_near};

/// Rows of which different values are counted one by one; of more they are estimated.
const DISTINCT_EXACT_MAX: u64 = 1_000_000;

/// How an expectation is answered.
pub(super) enum Plan {
    /// By counting rows in the common scan.
    Rows(RowPlan),
    /// By one figure of the common scan; the second part counts the rows it rests on.
    Figure { value: Expr, evaluated: Expr, bounds: Bounds, note: &'static str },
    /// By queries of its own.
    Own,
}

/// A predicate that rows pass or not.
pub(super) struct RowPlan {
    /// Which rows are judged.
    pub(super) judged: Expr,
    /// Which of them pass; null is not passing.
    pub(super) passed: Expr,
    pub(super) by_row: ByRow,
    pub(super) wanted: String,
    /// Columns that samples show.
    pub(super) shown: Vec<String>,
}

impl RowPlan {
    /// The rows that are judged and do not pass.
    pub(super) fn failing(&self) -> Result<Expr, DataError> {
        let passed = when(self.passed.clone(), lit(true)).otherwise(lit(false)).map_err(of_datafusion)?;
        Ok(self.judged.clone().and(!passed))
    }
}

impl Plan {
    /// What the common scan computes for it.
    pub(super) fn figures(&self) -> Result<Vec<Expr>, DataError> {
        Ok(match self {
            Self::Rows(plan) => {
                vec![counted(plan.judged.clone())?, counted(plan.judged.clone().and(plan.passed.clone()))?]
            }
            Self::Figure { value, evaluated, .. } => vec![value.clone(), evaluated.clone()],
            Self::Own => Vec::new(),
        })
    }

    /// The verdict on what the scan computed, of a table of `all` rows.
    pub(super) fn judge(&self, all: u64, figures: &[Cell]) -> Option<Finding> {
        match (self, figures) {
            (Self::Rows(plan), [evaluated, passed]) => {
                let counts = Counts { all, evaluated: whole(evaluated), passed: whole(passed) };
                Some(of_rows(counts, plan.by_row, &plan.wanted))
            }
            (Self::Figure { bounds, note, .. }, [value, evaluated]) => {
                let evaluated = whole(evaluated);
                let value = if evaluated == 0 { None } else { number(value) };
                let mut finding = of_figure(value, evaluated, *bounds);
                finding.observed.push_str(note);
                Some(finding)
            }
            _ => None,
        }
    }
}

/// A count in a cell.
pub(super) fn whole(cell: &Cell) -> u64 {
    number(cell).map_or(0, |n| n as u64)
}

/// A number in a cell.
pub(super) fn number(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Int(i) => Some(*i as f64),
        Cell::Float(f) => Some(*f),
        Cell::Bool(b) => Some(f64::from(u8::from(*b))),
        Cell::Decimal { .. } => cell.to_text()?.parse().ok(),
        Cell::Null | Cell::Text(_) | Cell::Bytes(_) | Cell::Date(_) | Cell::Time { .. } => None,
    }
}

/// Counts the rows for which `holds`.
pub(super) fn counted(holds: Expr) -> Result<Expr, DataError> {
    Ok(count(when(holds, lit(1_i64)).end().map_err(of_datafusion)?))
}

/// The column as an expression, and where it has a value (NaN is none).
pub(super) fn column(rows: &DataFrame, name: &str) -> Result<(Expr, Expr), DataError> {
    let fields = rows.schema().fields();
    let Some(field) = fields.iter().find(|field| field.name() == name) else {
        let hint = hint_near(name, fields.iter().map(|field| field.name().as_str()));
        return Err(DataError::Permanent(format!("there is no column `{name}`{hint}")));
    };
    let column = ident(name);
    let present = column.clone().is_not_null();
    let present = if field.data_type().is_floating() { present.and(!isnan(column.clone())) } else { present };
    Ok((column, present))
}

/// Where all of these columns have a value.
pub(super) fn all_present(rows: &DataFrame, names: &[String]) -> Result<Expr, DataError> {
    let mut all = lit(true);
    for name in names {
        all = all.and(column(rows, name)?.1);
    }
    Ok(all)
}

/// How to answer `expectation` about `rows`, of which there are `all`.
#[expect(clippy::too_many_lines, reason = "one arm per expectation, each a few lines")]
pub(super) fn plan(rows: &DataFrame, all: u64, expectation: &Expectation) -> Result<Plan, DataError> {
    let judged =
        |name: &str, by_row: ByRow, wanted: String, test: &dyn Fn(Expr) -> Result<Expr, DataError>| {
            let (value, present) = column(rows, name)?;
            let passed = test(value)?;
            let (judged, passed) = match by_row.nulls {
                Nulls::Ignore => (present, passed),
                Nulls::Fail => (lit(true), present.and(passed)),
            };
            Ok(Plan::Rows(RowPlan { judged, passed, by_row, wanted, shown: vec![name.to_owned()] }))
        };
    match expectation {
        Expectation::NotNull(e) => {
            let (_, present) = column(rows, &e.column)?;
            let (wanted, shown) = ("to have a value".to_owned(), vec![e.column.clone()]);
            Ok(Plan::Rows(RowPlan { judged: lit(true), passed: present, by_row: e.by_row(), wanted, shown }))
        }
        Expectation::InSet(e) => {
            let wanted = format!("to be one of {}", texts(&e.values));
            judged(&e.column, e.by_row(), wanted, &|value| Ok(value.in_list(literals(&e.values)?, false)))
        }
        Expectation::NotInSet(e) => {
            let wanted = format!("to be none of {}", texts(&e.values));
            judged(&e.column, e.by_row(), wanted, &|value| Ok(value.in_list(literals(&e.values)?, true)))
        }
        Expectation::Range(e) => judged(&e.column, e.by_row(), range_text(e), &|value| within(value, e)),
        Expectation::Length(e) => {
            let limit = |n: Option<i64>, words: &str| n.map(|n| format!("{words} {n}"));
            let limits: Vec<String> =
                [limit(e.min, "at least"), limit(e.max, "at most")].into_iter().flatten().collect();
            let wanted = format!("to have {} characters", limits.join(" and "));
            judged(&e.column, e.by_row(), wanted, &|value| {
                let length = character_length(value);
                let low = e.min.map(|n| length.clone().gt_eq(lit(n)));
                let high = e.max.map(|n| length.lt_eq(lit(n)));
                Ok(low.into_iter().chain(high).fold(lit(true), Expr::and))
            })
        }
        Expectation::Regex(e) => {
            let wanted = format!("to match `{}`", e.pattern);
            judged(&e.column, e.by_row(), wanted, &|value| {
                Ok(regexp_like(value, lit(e.pattern.as_str()), None))
            })
        }
        Expectation::Expression(e) => {
            let passed = frames::predicate_of(rows, &e.sql)?;
            let shown = passed.column_refs().into_iter().map(|c| c.name.clone()).collect();
            let wanted = format!("`{}`", e.sql.trim());
            Ok(Plan::Rows(RowPlan { judged: lit(true), passed, by_row: e.by_row(), wanted, shown }))
        }
        Expectation::NullShare(e) => {
            let (_, present) = column(rows, &e.column)?;
            let absent = when(present, lit(0.0)).otherwise(lit(1.0)).map_err(of_datafusion)?;
            let (value, evaluated) = (avg(absent), count(lit(1_i64)));
            Ok(Plan::Figure { value, evaluated, bounds: e.bounds(), note: "" })
        }
        Expectation::DistinctCount(e) => {
            let (value, present) = column(rows, &e.column)?;
            let value = when(present.clone(), value).end().map_err(of_datafusion)?;
            let (value, note) = match all {
                0..=DISTINCT_EXACT_MAX => (count_distinct(value), ""),
                _ => (approx_distinct(value), " (HyperLogLog, standard error 0.8 %)"),
            };
            Ok(Plan::Figure { value, evaluated: counted(present)?, bounds: e.bounds(), note })
        }
        Expectation::Aggregate(e) => {
            let (value, evaluated) = aggregate(rows, &e.column, e.function, e.q)?;
            Ok(Plan::Figure { value, evaluated, bounds: e.bounds(), note: "" })
        }
        Expectation::Schema(_)
        | Expectation::RowCount(_)
        | Expectation::Unique(_)
        | Expectation::Monotonic(_)
        | Expectation::Query(_)
        | Expectation::Freshness(_)
        | Expectation::Reference(_)
        | Expectation::SegmentSize(_)
        | Expectation::Cohesion(_)
        | Expectation::Separation(_)
        | Expectation::Stability(_)
        | Expectation::Parity(_)
        | Expectation::Drift(_)
        | Expectation::History(_)
        | Expectation::Compare(_) => Ok(Plan::Own),
    }
}

/// A figure over the values of a column, and the count of those values.
pub(super) fn aggregate(
    rows: &DataFrame,
    name: &str,
    function: Function,
    q: Option<f64>,
) -> Result<(Expr, Expr), DataError> {
    let (value, present) = column(rows, name)?;
    let value = when(present.clone(), value).end().map_err(of_datafusion)?;
    let figure = match function {
        Function::Mean => avg(value),
        Function::Median => median(value),
        Function::Sum => sum(value),
        Function::Sd => stddev_pop(value),
        Function::Quantile => {
            let q = q.ok_or_else(|| DataError::Permanent("`quantile` needs `q`, from 0 to 1".to_owned()))?;
            percentile_cont(value.sort(true, false), lit(q))
        }
        Function::Min => min(value),
        Function::Max => max(value),
    };
    Ok((figure, counted(present)?))
}

fn literals(values: &[Value]) -> Result<Vec<Expr>, DataError> {
    values.iter().map(literal).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "JSON makes no other cell of a single value")]
fn literal(value: &Value) -> Result<Expr, DataError> {
    Ok(match Cell::of_json(value) {
        Cell::Bool(b) => lit(b),
        Cell::Int(i) => lit(i),
        Cell::Float(f) => lit(f),
        Cell::Text(text) if value.is_string() => lit(text),
        Cell::Null => lit(ScalarValue::Null),
        _ => return Err(DataError::Permanent(format!("`{value}` is no single value"))),
    })
}

fn texts(values: &[Value]) -> String {
    let shown: Vec<String> = values.iter().take(10).map(|v| format!("`{}`", plain(v))).collect();
    format!("{}{}", shown.join(", "), if values.len() > 10 { ", …" } else { "" })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn within(value: Expr, range: &Range) -> Result<Expr, DataError> {
    let mut all = lit(true);
    if let Some(least) = &range.min {
        let least = literal(least)?;
        all = all.and(if range.strict_min { value.clone().gt(least) } else { value.clone().gt_eq(least) });
    }
    if let Some(most) = &range.max {
        let most = literal(most)?;
        all = all.and(if range.strict_max { value.lt(most) } else { value.lt_eq(most) });
    }
    Ok(all)
}

fn range_text(range: &Range) -> String {
    let least =
        range.min.as_ref().map(|v| format!("{} {}", if range.strict_min { ">" } else { ">=" }, plain(v)));
    let most =
        range.max.as_ref().map(|v| format!("{} {}", if range.strict_max { "<" } else { "<=" }, plain(v)));
    let limits: Vec<String> = least.into_iter().chain(most).collect();
    format!("to be {}", limits.join(" and "))
}
