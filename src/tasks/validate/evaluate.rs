//! Evaluation of all expectations: one scan for as many as possible, the others one by one, then the past.

use std::time::{Duration, Instant};

use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{SessionContext, ident, lit};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Map;

use super::super::TaskContext;
use super::expectation::{Expectation, Nature};
use super::gate::Subject;
use super::history::{self, Change, Rule, Verdict};
use super::judge::{Finding, Status};
use super::own::{self, SAMPLES, Table};
use super::plan::{self, Plan};
use super::results::Past;
use super::spec::History;
use super::{From, Validate};
use crate::core::alert::SignKind;
use crate::data::session::of_datafusion;
use crate::data::warehouse::TableName;
use crate::data::{DataError, DatasetName, cells, frames};

/// An expectation with its verdict; one for each of its dimensions.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) label: String,
    pub(super) finding: Finding,
    pub(super) took: Duration,
}

/// What came of all expectations.
pub(super) struct Evaluated {
    pub(super) table: Table,
    pub(super) results: Vec<Judged>,
    /// One per expectation, in the author's order.
    pub(super) plans: Vec<Result<Plan, DataError>>,
}

impl Validate {
    /// Opens what is validated: of a clustering that waits for its gate, the rows it wrote.
    async fn table(&self, cx: &TaskContext) -> Result<Table, DataError> {
        let named = self.model.as_deref();
        let (rows, warehouse, dataset, subject): (DataFrame, _, _, _) = match &self.from {
            From::Dataset(name) => {
                let dataset = DatasetName::parse(name).map_err(DataError::Permanent)?;
                let subject = Subject::find(cx, Some(&dataset), named).await?;
                let candidate = subject.as_ref().and_then(|subject| subject.candidate.as_ref());
                let version = candidate.and_then(|candidate| candidate.datasets.get(name).copied());
                let frame = frames::open_at(&cx.shared.lake, &dataset, version).await?;
                (frame.rows, None, Some((dataset, frame.version)), subject)
            }
            From::Table(from) => {
                let warehouse = cx.shared.connections.warehouse(&from.connection).await?;
                let table = TableName::parse(&from.table).map_err(DataError::Permanent)?;
                let rows = warehouse.read(&format!("SELECT * FROM {}", table.quoted()), &Map::new()).await?;
                let batches = frames::gather(rows).await?;
                let rows = SessionContext::new().read_batches(batches).map_err(of_datafusion)?;
                (rows, Some(warehouse), None, Subject::find(cx, None, named).await?)
            }
        };
        let all = own::figures(rows.clone(), vec![count(lit(1_i64))]).await?;
        let row_count = all.first().map_or(0, plan::whole);
        Ok(Table { rows, name: self.name(), row_count, warehouse, dataset, subject })
    }

    /// Judges every expectation.
    pub(super) async fn evaluate(&self, cx: &TaskContext) -> Result<Evaluated, DataError> {
        let table = self.table(cx).await?;
        let planned = |e: &Expectation| {
            if e.common().when { plan::plan(&table.rows, table.row_count, e) } else { Ok(Plan::Own) }
        };
        let plans: Vec<Result<Plan, DataError>> = self.expect.iter().map(planned).collect();
        let looks_back = |e: &Expectation| e.compares_with_past() || matches!(e, Expectation::History(_));
        let past = if self.expect.iter().any(looks_back) {
            Past::read(cx, &DatasetName::parse(&self.results).map_err(DataError::Permanent)?).await?
        } else {
            Past::default()
        };
        let started = Instant::now();
        let scanned = scan(&table, &plans).await;
        let scan_took = started.elapsed();
        let labels = labels(&self.expect);
        let mut results = Vec::with_capacity(plans.len());
        for (at, (expectation, plan)) in self.expect.iter().zip(&plans).enumerate() {
            let started = Instant::now();
            let label = &labels[at];
            let figures = scanned.as_ref().ok().map(|all| all[at].as_slice());
            let findings = if !expectation.common().when {
                vec![Finding::skipped("`when` is false", "nothing")]
            } else if let Expectation::History(wanted) = expectation {
                watched(cx, &table, wanted, &past, label).await
            } else {
                answered(cx, &table, expectation, plan, figures).await
            };
            let took = if matches!(plan, Ok(Plan::Own)) { started.elapsed() } else { scan_took };
            for mut finding in findings {
                if expectation.compares_with_past() && finding.status <= Status::Warn {
                    finding = beside_past(finding, expectation, &past, label, cx);
                }
                finding.status = finding.status.capped(self.severity_of(expectation));
                results.push(Judged { label: label.clone(), finding, took });
            }
        }
        Ok(Evaluated { table, results, plans })
    }
}

/// What the results call each expectation; a repeated name gets a number, so that each has its own past.
pub(super) fn labels(expectations: &[Expectation]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::with_capacity(expectations.len());
    for expectation in expectations {
        let label = expectation.common().name.unwrap_or_else(|| expectation.label());
        let mut own = label.clone();
        let mut number = 2;
        while labels.contains(&own) {
            own = format!("{label} #{number}");
            number += 1;
        }
        labels.push(own);
    }
    labels
}

/// The findings on one expectation; `figures` are those of the common scan, if it could be made.
fn answered<'a>(
    cx: &'a TaskContext,
    table: &'a Table,
    expectation: &'a Expectation,
    plan: &'a Result<Plan, DataError>,
    figures: Option<&'a [cells::Cell]>,
) -> BoxFuture<'a, Vec<Finding>> {
    async move {
        let found = match (plan, figures) {
            (Err(error), _) => return vec![Finding::error(error.to_string())],
            (Ok(Plan::Own), _) => own::judge(cx, table, expectation).await,
            (Ok(plan), Some(figures)) => judged(table, plan, figures).await.map(|finding| vec![finding]),
            // One expression the engine cannot compute spoils the scan: then each for itself.
            (Ok(plan), None) => match scan(table, std::slice::from_ref(&Ok(plan))).await {
                Ok(figures) => judged(table, plan, &figures[0]).await.map(|finding| vec![finding]),
                Err(error) => Err(error),
            },
        };
        found.unwrap_or_else(|error| vec![Finding::error(error.to_string())])
    }
    .boxed()
}

/// Finds the figure that `history` watches and compares it with its past.
async fn watched(
    cx: &TaskContext,
    table: &Table,
    wanted: &History,
    past: &Past,
    label: &str,
) -> Vec<Finding> {
    let plan = plan::plan(&table.rows, table.row_count, &wanted.of);
    let findings = answered(cx, table, &wanted.of, &plan, None).await;
    let compared = |finding: Finding| {
        let Some(value) = finding.value else { return finding };
        let points = past.points(label, &finding.dimension, &wanted.accepted);
        let values = points.iter().map(|point| point.value).chain([value]);
        let rule = Rule::of(wanted, never_negative(&wanted.of, values));
        let verdict = history::judge(&points, cx.logical_date, value, &rule);
        against(Finding { samples: Vec::new(), ..finding }, value, verdict, &rule)
    };
    findings.into_iter().map(compared).collect()
}

/// A finding within its bounds, judged by its past too: the worse counts.
fn beside_past(
    finding: Finding,
    expectation: &Expectation,
    past: &Past,
    label: &str,
    cx: &TaskContext,
) -> Finding {
    let Some(value) = finding.value else { return finding };
    let points = past.points(label, &finding.dimension, &[]);
    let rule = Rule::usual(never_negative(expectation, points.iter().map(|p| p.value).chain([value])));
    match history::judge(&points, cx.logical_date, value, &rule) {
        Verdict::WarmingUp { .. } | Verdict::Usual(_) => finding,
        verdict @ Verdict::Anomaly(_) => against(finding, value, verdict, &rule),
    }
}

fn never_negative(of: &Expectation, mut values: impl Iterator<Item = f64>) -> bool {
    match of.nature() {
        Some(Nature::Count) => true,
        Some(Nature::Sum) => values.all(|value| value >= 0.0),
        Some(Nature::Any) | None => false,
    }
}

/// The finding on a figure in the light of its past.
fn against(finding: Finding, value: f64, verdict: Verdict, rule: &Rule) -> Finding {
    let usual =
        |change: &Change| format!("about {} (the median of {} earlier)", change.median, change.points);
    let seen = |change: &Change| {
        format!("{value} ({:+.1} %, robust z {:.1})", change.relative * 100.0, change.robust_z)
    };
    let (status, observed, expected, sign) = match verdict {
        Verdict::WarmingUp { points, needed } => {
            let observed = format!("{value}; warming_up: {points} of {needed} earlier points");
            (Status::Skipped, observed, "what is usual".to_owned(), None)
        }
        Verdict::Usual(change) => (Status::Pass, seen(&change), usual(&change), None),
        Verdict::Anomaly(change) => {
            let limits = format!("within {} % or z of {}", rule.min_change * 100.0, rule.max_z);
            let expected = format!("{}, {limits}", usual(&change));
            (Status::Fail, seen(&change), expected, Some(SignKind::Anomaly))
        }
    };
    Finding { status, observed, expected, sign, value: Some(value), ..finding }
}

/// One scan of the table for all plans; the figures of each.
async fn scan<P: std::borrow::Borrow<Plan>>(
    table: &Table,
    plans: &[Result<P, DataError>],
) -> Result<Vec<Vec<cells::Cell>>, DataError> {
    let mut wanted = Vec::new();
    let mut widths = Vec::with_capacity(plans.len());
    for plan in plans {
        let figures = plan.as_ref().map_or_else(|_| Ok(Vec::new()), |plan| plan.borrow().figures())?;
        widths.push(figures.len());
        wanted.extend(figures);
    }
    if wanted.is_empty() {
        return Ok(vec![Vec::new(); plans.len()]);
    }
    let mut found = own::figures(table.rows.clone(), wanted).await?.into_iter();
    Ok(widths.into_iter().map(|width| found.by_ref().take(width).collect()).collect())
}

/// The verdict of the scan, with some of the rows that failed.
async fn judged(table: &Table, plan: &Plan, figures: &[cells::Cell]) -> Result<Finding, DataError> {
    let Some(mut finding) = plan.judge(table.row_count, figures) else {
        return Ok(Finding::error("the scan gave no figures"));
    };
    if let Plan::Rows(rows) = plan
        && finding.failed > 0
    {
        // The first column is most often the key.
        let mut names: Vec<&str> =
            table.rows.schema().fields().iter().take(1).map(|f| f.name().as_str()).collect();
        names.extend(
            rows.shown.iter().map(String::as_str).filter(|name| !names.contains(name)).collect::<Vec<_>>(),
        );
        let failing = table.rows.clone().filter(rows.failing()?).map_err(of_datafusion)?;
        let failing = failing
            .select(names.iter().map(|name| ident(*name)).collect::<Vec<_>>())
            .and_then(|failing| failing.limit(0, Some(SAMPLES)))
            .map_err(of_datafusion)?;
        for row in own::cells_of(failing).await? {
            let shown: Vec<String> = names
                .iter()
                .zip(&row)
                .map(|(name, cell)| format!("{name}={}", cell.to_text().unwrap_or_else(|| "null".to_owned())))
                .collect();
            finding.samples.push(shown.join(", "));
        }
    }
    Ok(finding)
}
