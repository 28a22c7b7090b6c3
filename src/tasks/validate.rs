//! `validate`: expectations on a dataset, a warehouse table, a clustering, or a figure's own past. The gate
//! before anything is published.
//!
//! All expectations are evaluated, most of them in one scan; the attempt fails if one fails, with every
//! failure, what was found and what was expected. Nulls (and NaN) are not judged unless `nulls: fail`; no
//! rows at all fail unless `allow_empty: true`. Results are kept in a dataset (`dq.results`), failed or not.
//!
//! Where the rows are the assignments of a clustering of the same run, the verdict decides whether that
//! model is served (see `gate`).

use schemars::JsonSchema;
use serde::Deserialize;

use super::datasets::{self, ConnectionTable};
use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::data::warehouse::TableName;
use crate::data::{DataError, DatasetName};

mod clusterings;
mod evaluate;
mod expectation;
mod gate;
mod history;
mod judge;
#[cfg(feature = "ml")]
mod model;
#[cfg(not(feature = "ml"))]
#[path = "validate/no_model.rs"]
mod model;
mod outcome;
mod own;
mod plan;
mod results;
mod rows;
mod spec;

use evaluate::{Evaluated, Judged};
use expectation::Expectation;
use judge::Status;
use spec::Severity;

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
    /// The model that `drift`, `stability`, `separation` and `parity` look at; default is the one whose
    /// clustering, in this run, wrote `from`.
    #[serde(default)]
    model: Option<String>,
    /// Whether a clustering of this run whose assignments are in `from` is served when this task passes;
    /// `false` makes a mere check of it. Default `true`.
    #[serde(default = "yes")]
    publish: bool,
    /// Keeps rows that failed.
    #[serde(default)]
    store_failures: Option<StoreFailures>,
    /// The rows that pass every expectation of `severity: quarantine`, as a dataset.
    #[serde(default)]
    into: Option<String>,
    /// Where the other rows go.
    #[serde(default)]
    quarantine: Option<Quarantine>,
    /// The dataset that results are added to; default `dq.results`.
    #[serde(default = "results_dataset")]
    results: String,
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
    /// The task fails, and what was published before stays.
    #[default]
    Block,
    /// The task succeeds and publishes; outputs and log say what failed.
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

/// Where rows go that an expectation of `severity: quarantine` refuses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Quarantine {
    /// The dataset: the table's columns and `_expectation`, each row once; default `<from>__quarantine`.
    /// Replaced by each run.
    #[serde(default)]
    table: Option<String>,
    /// The share of rows beyond which the task fails instead; default 0.5.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    max_share: f64,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { table: None, max_share: half() }
    }
}

fn thousand() -> usize {
    1_000
}

fn half() -> f64 {
    0.5
}

fn yes() -> bool {
    true
}

fn results_dataset() -> String {
    results::RESULTS.to_owned()
}

impl TaskKind for Validate {
    const NAME: &'static str = "validate";
    const VERBATIM: &'static [&'static str] = &[];

    fn check(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut name = |path: &[&str], name: Option<&str>| {
            if let Some(Err(message)) = name.map(DatasetName::parse) {
                problems.push(datasets::problem(path, message));
            }
        };
        if let From::Dataset(from) = &self.from {
            name(&["from"], Some(from));
        }
        name(&["model"], self.model.as_deref());
        name(&["results"], Some(&self.results));
        name(&["into"], self.into.as_deref());
        name(&["store_failures", "table"], self.store_failures.as_ref().map(|s| s.table.as_str()));
        name(&["quarantine", "table"], self.quarantine.as_ref().and_then(|q| q.table.as_deref()));
        if let From::Table(table) = &self.from
            && let Err(message) = TableName::parse(&table.table)
        {
            problems.push(datasets::problem(&["from"], message));
        }
        if self.expect.is_empty() {
            problems.push(datasets::problem(&["expect"], "nothing is expected"));
        }
        for (at, expectation) in self.expect.iter().enumerate() {
            if let Some(message) = self.wrong(expectation) {
                problems.push(datasets::problem(&["expect", &at.to_string()], message));
            }
        }
        let quarantines = self.expect.iter().any(|e| self.severity_of(e) == Severity::Quarantine);
        if quarantines && self.into.is_none() {
            problems.push(datasets::problem(
                &["into"],
                "an expectation has `severity: quarantine`, expected the dataset of the rows that pass as `into`",
            ));
        }
        problems
    }

    fn reads(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.from {
            From::Dataset(name) => vec![name.clone()],
            From::Table(_) => Vec::new(),
        };
        names.extend(self.expect.iter().filter_map(Expectation::reads));
        names
    }

    fn writes(&self) -> Vec<String> {
        let mut names: Vec<String> = self.store_failures.iter().map(|s| s.table.clone()).collect();
        names.extend(self.into.clone());
        names.extend(self.quarantine_table());
        names
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        let evaluated = datasets::unless_cancelled(cx, self.evaluate(cx)).await?;
        outcome::log(cx, &evaluated.results);
        let kept = async {
            let into = DatasetName::parse(&self.results).map_err(DataError::Permanent)?;
            results::keep(cx, &into, &self.name(), &evaluated.results).await
        };
        datasets::unless_cancelled(cx, kept).await?;
        datasets::unless_cancelled(cx, self.conclude(cx, &evaluated)).await?
    }
}

impl Validate {
    fn name(&self) -> String {
        match &self.from {
            From::Dataset(name) => name.clone(),
            From::Table(table) => format!("{}.{}", table.connection, table.table),
        }
    }

    fn severity_of(&self, expectation: &Expectation) -> Severity {
        expectation.common().severity.unwrap_or(self.severity)
    }

    /// The dataset of rows in quarantine, if there may be any.
    fn quarantine_table(&self) -> Option<String> {
        self.into.as_ref()?;
        let named = self.quarantine.as_ref().and_then(|q| q.table.clone());
        Some(named.unwrap_or_else(|| format!("{}__quarantine", self.name())))
    }

    /// What can be seen of an expectation before running.
    fn wrong(&self, expectation: &Expectation) -> Option<String> {
        if self.severity_of(expectation) == Severity::Quarantine && !expectation.judges_single_rows() {
            return Some(format!(
                "`severity: quarantine` is for expectations that judge single rows, `{}` judges all together",
                expectation.label()
            ));
        }
        expectation.wrong()
    }

    /// What the verdict does: to the model that waits for it, to rows, to the task.
    async fn conclude(
        &self,
        cx: &TaskContext,
        evaluated: &Evaluated,
    ) -> Result<Result<TaskOutput, TaskError>, DataError> {
        let Evaluated { table, results, plans } = evaluated;
        let failed: Vec<&Judged> = results.iter().filter(|r| r.finding.status >= Status::Fail).collect();
        let waits = table.subject.as_ref().filter(|_| self.publish);
        let waits = waits.and_then(|subject| Some((subject, subject.candidate.as_ref()?)));
        if let Some(store) = &self.store_failures {
            self.store(cx, table, store, plans, results).await?;
        }
        if !failed.is_empty() && self.on_error == OnError::Block {
            let mut text = outcome::sentences(&self.name(), results.len(), &failed);
            if let Some((subject, candidate)) = waits {
                text.push_str(&format!("\n{}", subject.block(cx, candidate, &text).await?));
                return Ok(Err(TaskError::Blocked(text)));
            }
            return Ok(Err(TaskError::Permanent(text)));
        }
        if let Err(text) = self.separate(cx, table, plans).await? {
            return Ok(Err(TaskError::Permanent(text)));
        }
        let mut outputs = outcome::figures(&self.name(), results);
        if let Some((subject, candidate)) = waits {
            subject.promote(cx, candidate).await?;
            outputs["model"] = subject.model.clone().into();
            outputs["model_version"] = candidate.version.clone().into();
        }
        let signs = outcome::signs(&self.name(), results);
        Ok(Ok(TaskOutput { signs, ..TaskOutput::of(outputs) }))
    }
}
