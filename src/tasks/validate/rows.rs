//! Rows that failed: kept for people to look at, or moved out of the way.

use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{Expr, lit, when};

use super::super::TaskContext;
use super::super::datasets;
use super::own::{self, Table};
use super::plan::{self, Plan, RowPlan};
use super::spec::Severity;
use super::{Judged, Quarantine, StoreFailures, Validate};
use crate::data::lake::WriteMode;
use crate::data::session::of_datafusion;
use crate::data::{DataError, DatasetName, frames};

impl Validate {
    /// Keeps the rows that failed expectations which judge row by row.
    pub(super) async fn store(
        &self,
        cx: &TaskContext,
        table: &Table,
        store: &StoreFailures,
        plans: &[Result<Plan, DataError>],
        results: &[Judged],
    ) -> Result<(), DataError> {
        let mut kept = labelled(table, lit(""))?.filter(lit(false)).map_err(of_datafusion)?;
        for (label, rows) in self.row_plans(plans) {
            let failed = results.iter().any(|result| result.label == label && result.finding.failed > 0);
            if failed {
                let failing = labelled(table, lit(label))?.filter(rows.failing()?).map_err(of_datafusion)?;
                let failing = failing.limit(0, Some(store.limit)).map_err(of_datafusion)?;
                kept = kept.union(failing).map_err(of_datafusion)?;
            }
        }
        let written = write(cx, &store.table, kept).await?;
        cx.log.line(&format!("{written} failing rows are kept in `{}`", store.table));
        Ok(())
    }

    /// Writes the rows that pass as `into`, and the others into quarantine; refuses if those are too many.
    pub(super) async fn separate(
        &self,
        cx: &TaskContext,
        table: &Table,
        plans: &[Result<Plan, DataError>],
    ) -> Result<Result<(), String>, DataError> {
        let (Some(into), Some(beside)) = (&self.into, self.quarantine_table()) else { return Ok(Ok(())) };
        // The first expectation that a row breaks is the one it is kept under.
        let mut reason: Option<Expr> = None;
        let mut refused = lit(false);
        for ((label, rows), expectation) in self.row_plans(plans).zip(self.row_expectations(plans)) {
            if self.severity_of(expectation) != Severity::Quarantine || !expectation.common().when {
                continue;
            }
            let failing = rows.failing()?;
            refused = refused.or(failing.clone());
            let broken = when(failing, lit(label)).end().map_err(of_datafusion)?;
            reason = Some(match reason {
                None => broken,
                Some(first) => {
                    when(first.clone().is_not_null(), first).otherwise(broken).map_err(of_datafusion)?
                }
            });
        }
        let bad = labelled(table, reason.unwrap_or_else(|| lit("")))?.filter(refused.clone());
        let bad = bad.map_err(of_datafusion)?;
        let found = own::figures(bad.clone(), vec![count(lit(1_i64))]).await?;
        let quarantined = found.first().map_or(0, plan::whole);
        let limit = self.quarantine.as_ref().map_or(Quarantine::default().max_share, |q| q.max_share);
        if quarantined as f64 > limit * table.row_count as f64 {
            return Ok(Err(format!(
                "{quarantined} of {} rows of `{}` would go into quarantine, `max_share` allows {limit}",
                table.row_count, table.name
            )));
        }
        write(cx, &beside, bad).await?;
        let good = table.rows.clone().filter(!refused).map_err(of_datafusion)?;
        let passed = write(cx, into, good).await?;
        cx.log.line(&format!("{passed} rows are in `{into}`, {quarantined} in quarantine in `{beside}`"));
        Ok(Ok(()))
    }

    /// Expectations that judge single rows, each with its label and plan.
    fn row_plans<'a>(
        &self,
        plans: &'a [Result<Plan, DataError>],
    ) -> impl Iterator<Item = (String, &'a RowPlan)> {
        let labels = super::evaluate::labels(&self.expect);
        labels.into_iter().zip(plans).filter_map(|(label, plan)| match plan {
            Ok(Plan::Rows(rows)) => Some((label, rows)),
            Ok(Plan::Figure { .. } | Plan::Own) | Err(_) => None,
        })
    }

    fn row_expectations<'a>(
        &'a self,
        plans: &'a [Result<Plan, DataError>],
    ) -> impl Iterator<Item = &'a super::Expectation> {
        let both = self.expect.iter().zip(plans);
        both.filter(|(_, plan)| matches!(plan, Ok(Plan::Rows(_)))).map(|(expectation, _)| expectation)
    }
}

/// The table with a column that says which expectation a row breaks.
fn labelled(table: &Table, label: Expr) -> Result<DataFrame, DataError> {
    table.rows.clone().with_column("_expectation", label).map_err(of_datafusion)
}

async fn write(cx: &TaskContext, dataset: &str, rows: DataFrame) -> Result<u64, DataError> {
    let dataset = DatasetName::parse(dataset).map_err(DataError::Permanent)?;
    let rows = frames::stream(rows).await?;
    let key = datasets::write_key(cx);
    Ok(cx.shared.lake.write(&dataset, rows, WriteMode::Overwrite, &[], &key).await?.rows)
}
