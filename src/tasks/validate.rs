//! `validate`: expectations on a dataset or a warehouse table. The gate before anything is published.
//!
//! All expectations are evaluated, most of them in one scan; the attempt fails if one fails, with every
//! failure, what was found and what was expected. Nulls (and NaN) are not judged unless `nulls: fail`; no
//! rows at all fail unless `allow_empty: true`.

use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{SessionContext, ident, lit};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::datasets::{self, ConnectionTable};
use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::data::lake::WriteMode;
use crate::data::session::of_datafusion;
use crate::data::warehouse::TableName;
use crate::data::{DataError, DatasetName, cells, frames};

mod expectation;
mod judge;
mod own;
mod plan;
mod spec;

use expectation::Expectation;
use judge::{Finding, Status};
use own::{SAMPLES, Table};
use plan::Plan;
use spec::Severity;

/// Results in the outputs; the log has all.
const RESULTS_MAX: usize = 100;
/// Letters of one result's texts in the outputs.
const TEXT_MAX: usize = 200;

/// Checks a dataset or a table against expectations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Validate {
    /// A dataset, or a table of a connection (read into memory).
    from: From,
    /// What is expected.
    expect: Vec<Expectation>,
    /// What a broken expectation means that does not say so itself.
    #[serde(default)]
    severity: Severity,
    /// `block` fails the task, `warn` only reports.
    #[serde(default)]
    on_error: OnError,
    /// Keeps rows that failed.
    #[serde(default)]
    store_failures: Option<StoreFailures>,
}

/// What is validated.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum From {
    /// A dataset.
    Dataset(String),
    /// A table of a connection.
    Table(ConnectionTable),
}

/// What a failure does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnError {
    /// The task fails.
    #[default]
    Block,
    /// The task succeeds; outputs and log say what failed.
    Warn,
}

/// Where rows that failed are kept: the table's columns and `_expectation`, for expectations that judge row by row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StoreFailures {
    /// The dataset; replaced by each run.
    table: String,
    /// Rows kept of each expectation; default 1000.
    #[serde(default = "thousand")]
    limit: usize,
}

fn thousand() -> usize {
    1_000
}

impl TaskKind for Validate {
    const NAME: &'static str = "validate";
    const VERBATIM: &'static [&'static str] = &[];

    fn check(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let name = match &self.from {
            From::Dataset(name) => DatasetName::parse(name).map(|_| ()),
            From::Table(table) => TableName::parse(&table.table).map(|_| ()),
        };
        if let Err(message) = name {
            problems.push(datasets::problem(&["from"], message));
        }
        if self.expect.is_empty() {
            problems.push(datasets::problem(&["expect"], "nothing is expected"));
        }
        for (at, expectation) in self.expect.iter().enumerate() {
            if let Some(message) = wrong(expectation) {
                problems.push(datasets::problem(&["expect", &at.to_string()], message));
            }
        }
        if let Some(Err(message)) = self.store_failures.as_ref().map(|s| DatasetName::parse(&s.table)) {
            problems.push(datasets::problem(&["store_failures", "table"], message));
        }
        problems
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others read no second dataset")]
    fn reads(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.from {
            From::Dataset(name) => vec![name.clone()],
            From::Table(_) => Vec::new(),
        };
        names.extend(self.expect.iter().filter_map(|e| match e {
            Expectation::Reference(e) => Some(e.table.clone()),
            Expectation::Compare(e) => Some(e.table.clone()),
            Expectation::RowCount(e) => e.equals_table.clone(),
            _ => None,
        }));
        names
    }

    fn writes(&self) -> Vec<String> {
        self.store_failures.iter().map(|s| s.table.clone()).collect()
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        let results = datasets::unless_cancelled(cx, self.evaluate(cx)).await?;
        report(cx, &results);
        let failed: Vec<&Judged> = results.iter().filter(|r| r.finding.status >= Status::Fail).collect();
        if failed.is_empty() || self.on_error == OnError::Warn {
            return Ok(TaskOutput::of(figures(&results)));
        }
        let mut text =
            format!("{} of {} expectations failed on `{}`", failed.len(), results.len(), self.name());
        failed.iter().for_each(|result| text.push_str(&format!("\n- {}", result.sentence())));
        Err(TaskError::Permanent(text))
    }
}

/// What can be seen of an expectation before running.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others can be judged at run time only")]
fn wrong(expectation: &Expectation) -> Option<String> {
    match expectation {
        Expectation::Regex(e) => regex::Regex::new(&e.pattern).err().map(|error| error.to_string()),
        Expectation::Unique(e) if e.columns.is_empty() => Some("`columns` is empty".to_owned()),
        Expectation::Reference(e) if e.columns.is_empty() => Some("`columns` is empty".to_owned()),
        Expectation::Range(e) if e.min.is_none() && e.max.is_none() => {
            Some("there is neither `min` nor `max`".to_owned())
        }
        Expectation::Length(e) if e.min.is_none() && e.max.is_none() => {
            Some("there is neither `min` nor `max`".to_owned())
        }
        Expectation::Aggregate(e) if e.function == spec::Function::Quantile && e.q.is_none() => {
            Some("`quantile` needs `q`, from 0 to 1".to_owned())
        }
        _ => None,
    }
}

/// An expectation with its verdict.
struct Judged {
    label: String,
    finding: Finding,
}

impl Judged {
    fn sentence(&self) -> String {
        let Finding { observed, expected, samples, .. } = &self.finding;
        let shown: Vec<String> = samples.iter().map(|s| format!("`{s}`")).collect();
        let shown =
            if shown.is_empty() { String::new() } else { format!("; for instance {}", shown.join(", ")) };
        format!("{}: {observed}, expected {expected}{shown}", self.label)
    }
}

impl Validate {
    fn name(&self) -> String {
        match &self.from {
            From::Dataset(name) => name.clone(),
            From::Table(table) => format!("{}.{}", table.connection, table.table),
        }
    }

    async fn table(&self, cx: &TaskContext) -> Result<Table, DataError> {
        let (rows, warehouse): (DataFrame, _) = match &self.from {
            From::Dataset(name) => {
                let dataset = DatasetName::parse(name).map_err(DataError::Permanent)?;
                (frames::open(&cx.shared.lake, &dataset).await?.rows, None)
            }
            From::Table(from) => {
                let warehouse = cx.shared.connections.warehouse(&from.connection).await?;
                let table = TableName::parse(&from.table).map_err(DataError::Permanent)?;
                let rows = warehouse.read(&format!("SELECT * FROM {}", table.quoted()), &Map::new()).await?;
                let batches = frames::gather(rows).await?;
                (SessionContext::new().read_batches(batches).map_err(of_datafusion)?, Some(warehouse))
            }
        };
        let all = own::figures(rows.clone(), vec![count(lit(1_i64))]).await?;
        let row_count = all.first().map_or(0, plan::whole);
        Ok(Table { rows, name: self.name(), row_count, warehouse })
    }

    async fn evaluate(&self, cx: &TaskContext) -> Result<Vec<Judged>, DataError> {
        let table = self.table(cx).await?;
        let plans: Vec<Result<Plan, DataError>> = self
            .expect
            .iter()
            .map(|e| if e.common().when { plan::plan(&table.rows, e) } else { Ok(Plan::Own) })
            .collect();
        let scanned = scan(&table, &plans).await;
        let mut results = Vec::with_capacity(plans.len());
        for (at, (expectation, plan)) in self.expect.iter().zip(&plans).enumerate() {
            let common = expectation.common();
            let finding = match (plan, &scanned) {
                _ if !common.when => Finding::new(Status::Skipped, "`when` is false", "nothing"),
                (Err(error), _) => Finding::error(error.to_string()),
                (Ok(Plan::Own), _) => own::judge(cx, &table, expectation)
                    .await
                    .unwrap_or_else(|e| Finding::error(e.to_string())),
                (Ok(plan), Ok(figures)) => judged(&table, plan, &figures[at]).await?,
                // One expression the engine cannot compute spoils the scan: then each for itself.
                (Ok(plan), Err(_)) => match scan(&table, std::slice::from_ref(&Ok(plan))).await {
                    Ok(figures) => judged(&table, plan, &figures[0]).await?,
                    Err(error) => Finding::error(error.to_string()),
                },
            };
            let status = finding.status.capped(common.severity.unwrap_or(self.severity));
            let label = common.name.unwrap_or_else(|| expectation.label());
            results.push(Judged { label, finding: Finding { status, ..finding } });
        }
        if let Some(store) = &self.store_failures {
            self.store(cx, &table, store, &plans, &results).await?;
        }
        Ok(results)
    }

    /// Keeps the rows that failed expectations which judge row by row.
    async fn store(
        &self,
        cx: &TaskContext,
        table: &Table,
        store: &StoreFailures,
        plans: &[Result<Plan, DataError>],
        results: &[Judged],
    ) -> Result<(), DataError> {
        let labelled =
            |label: &str| table.rows.clone().with_column("_expectation", lit(label)).map_err(of_datafusion);
        let mut kept = labelled("")?.filter(lit(false)).map_err(of_datafusion)?;
        for (plan, result) in plans.iter().zip(results) {
            if let Ok(Plan::Rows(rows)) = plan
                && result.finding.failed > 0
            {
                let failing = labelled(&result.label)?.filter(rows.failing()?).map_err(of_datafusion)?;
                let failing = failing.limit(0, Some(store.limit)).map_err(of_datafusion)?;
                kept = kept.union(failing).map_err(of_datafusion)?;
            }
        }
        let dataset = DatasetName::parse(&store.table).map_err(DataError::Permanent)?;
        let rows = frames::stream(kept).await?;
        let key = datasets::write_key(cx);
        let written = cx.shared.lake.write(&dataset, rows, WriteMode::Overwrite, &[], &key).await?;
        cx.log.line(&format!("{} failing rows are kept in `{dataset}`", written.rows));
        Ok(())
    }
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

fn report(cx: &TaskContext, results: &[Judged]) {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|Judged { label, finding: f }| {
            let counts = [f.evaluated, f.failed, f.ignored].map(|n| n.to_string());
            let texts = [f.status.as_str(), label, &f.observed, &f.expected].map(str::to_owned);
            texts.into_iter().chain(counts).collect()
        })
        .collect();
    let header = ["status", "expectation", "observed", "expected", "judged", "failed", "nulls"];
    cells::table_text(&header, &rows).lines().for_each(|line| cx.log.line(line));
}

fn figures(results: &[Judged]) -> Value {
    let count = |statuses: &[Status]| results.iter().filter(|r| statuses.contains(&r.finding.status)).count();
    let short = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
    let shown: Vec<Value> = results
        .iter()
        .take(RESULTS_MAX)
        .map(|Judged { label, finding }| {
            json!({
                "expectation": short(label),
                "status": finding.status.as_str(),
                "observed": short(&finding.observed),
                "expected": short(&finding.expected),
            })
        })
        .collect();
    json!({
        "passed": count(&[Status::Pass]),
        "warned": count(&[Status::Warn]),
        "failed": count(&[Status::Fail, Status::Error]),
        "skipped": count(&[Status::Skipped]),
        "results": shown,
    })
}
