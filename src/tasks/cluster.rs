//! `cluster`: customers to segments, with the model that says which is which.
//!
//! Reads one row per key, sorted by key, so that neither the order of rows nor threads change a byte of
//! the model. Writes the assignments (`into`), `<into>__centres`, `<into>__k_report`, `<into>__metrics`,
//! `<into>__migration`, `<into>__lineage`, and the model under `<home>/models`, as a candidate: a `validate`
//! task that passes on `into` has it served. Segments keep the ids and names that they have in the version
//! served before. The numerics are [`segment`](crate::segment)'s.

use datafusion::dataframe::DataFrame;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::datasets::{self, METRICS};
use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::data::lake::{WriteMode, Written};
use crate::data::{DataError, DatasetName, frames, models};
use crate::segment::prepare::Column;
use crate::segment::spec::{
    Algorithm, ClusterSpec, Feature, FeatureKind, FeatureSpec, K, Naming, Refresh, Scale,
};
use crate::segment::{ClusterInput, Clustering, Given, Kernel, cluster};

pub(super) mod input;
mod output;
mod previous;
mod report;

/// What follows a dataset's name in the names of the datasets beside it.
const CENTRES: &str = "__centres";
const K_REPORT: &str = "__k_report";
const MIGRATION: &str = "__migration";
const LINEAGE: &str = "__lineage";

/// Divides the rows of a dataset into segments.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    /// The dataset: one row per key.
    from: String,
    /// The column that identifies a row; never null, no value twice.
    key: String,
    /// A SQL predicate over the dataset's columns; only rows where it holds are taken.
    #[serde(default, rename = "where")]
    only: Option<String>,
    /// What rows are compared by. Booleans count as 0 and 1, times as age in days at the logical date;
    /// text must be declared `type: categorical`.
    features: Vec<Feature>,
    /// Scaling of features that say nothing themselves.
    #[serde(default)]
    scale: Scale,
    /// The algorithm and its settings.
    #[serde(default)]
    algorithm: Algorithm,
    /// How many segments.
    #[serde(default)]
    k: K,
    /// What a later run keeps of the one before.
    #[serde(default)]
    refresh: Refresh,
    /// How segments get their names.
    #[serde(default)]
    naming: Naming,
    /// The dataset of assignments.
    into: String,
    /// The model's name; default that of `into`.
    #[serde(default)]
    model: Option<String>,
    /// Whether a page of figures is written, `<home>/reports/<dag>/<run>/<task>.html`. Default `true`.
    #[serde(default = "yes")]
    report: bool,
}

fn yes() -> bool {
    true
}

impl TaskKind for Cluster {
    const NAME: &'static str = "cluster";
    const VERBATIM: &'static [&'static str] = &["where"];

    fn check(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        for (key, name) in [("from", &self.from), ("into", &self.into), ("model", self.model())] {
            if let Err(message) = DatasetName::parse(name) {
                problems.push(datasets::problem(&[key], message));
            }
        }
        if self.features.is_empty() {
            problems
                .push(datasets::problem(&["features"], "there is no feature, expected at least one column"));
        }
        problems.extend(self.spec().problems().into_iter().map(|message| datasets::problem(&[], message)));
        problems
    }

    fn reads(&self) -> Vec<String> {
        vec![self.from.clone()]
    }

    fn writes(&self) -> Vec<String> {
        let besides = ["", CENTRES, K_REPORT, METRICS, MIGRATION, LINEAGE];
        besides.iter().map(|beside| format!("{}{beside}", self.into)).collect()
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        datasets::unless_cancelled(cx, self.segment(cx)).await
    }
}

impl Cluster {
    fn model(&self) -> &String {
        self.model.as_ref().unwrap_or(&self.into)
    }

    fn spec(&self) -> ClusterSpec {
        ClusterSpec {
            features: self.features.clone(),
            scale: self.scale,
            algorithm: self.algorithm.clone(),
            k: self.k.clone(),
            refresh: self.refresh,
            naming: self.naming.clone(),
        }
    }

    async fn segment(&self, cx: &TaskContext) -> Result<TaskOutput, DataError> {
        let from = DatasetName::parse(&self.from).map_err(DataError::Permanent)?;
        let frame = frames::open(&cx.shared.lake, &from).await?;
        let rows = match &self.only {
            Some(predicate) => frames::filter(frame.rows, predicate)?,
            None => frame.rows,
        };
        let (rows, with_rules) = self.with_rules(rows)?;
        let features: Vec<(&str, bool)> = with_rules
            .iter()
            .map(|Feature(f)| (f.name.as_str(), f.kind == Some(FeatureKind::Categorical)))
            .collect();
        let input = input::read(rows, &self.key, &features, cx.logical_date).await?;
        cx.log.line(&format!("read {} rows of `{from}` version {}", input.keys.len(), frame.version));
        let (model, spec) = (self.model().clone(), self.spec());
        let (keys, mut columns) = (input.keys, input.columns);
        let given = self.given(&mut columns, keys.len());
        let previous = self.previous(cx).await?;
        let work = move || {
            cluster(ClusterInput { model, keys, columns, spec, previous, given, kernel: Kernel::Auto })
        };
        let done = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| DataError::Permanent(format!("the clustering broke off: {error}")))?
            .map_err(|error| DataError::Permanent(error.to_string()))?;
        report::summary(cx, &done);
        let fitted_on = models::FittedOn {
            dataset: self.from.clone(),
            version: frame.version,
            key: self.key.clone(),
            only: self.only.clone(),
            as_of: cx.logical_date.to_string(),
        };
        let written = self.propose(cx, &done, &input.key_column, fitted_on).await?;
        let mut outputs = self.figures(&done, &written);
        if self.report {
            let origin = report::Origin {
                model: self.model(),
                from: &self.from,
                from_version: frame.version,
                into: &self.into,
            };
            let page = report::write(cx, &done, &origin).await?;
            cx.log.line(&format!("report: {}", page.display()));
            outputs["report"] = page.display().to_string().into();
        }
        Ok(TaskOutput::of(outputs))
    }

    /// The rows with a column for each rule, and the features with these columns after them.
    fn with_rules(&self, mut rows: DataFrame) -> Result<(DataFrame, Vec<Feature>), DataError> {
        let mut features = self.features.clone();
        for (number, rule) in self.algorithm.rules.iter().enumerate() {
            let mark = format!("__rule_{number}");
            rows = frames::mark(rows, &mark, &rule.when)?;
            features.push(Feature(FeatureSpec::named(mark)));
        }
        Ok((rows, features))
    }

    /// The first rule that holds, by row, taken out of the columns; `None` without rules.
    fn given(&self, columns: &mut Vec<(String, Column)>, rows: usize) -> Option<Given> {
        let marks = columns.split_off(columns.len() - self.algorithm.rules.len());
        let holds = |mark: &Column, row: usize| match mark {
            Column::Numeric(values) => values[row] == 1.0,
            Column::Categorical(_) => false,
        };
        let first = |row: usize| marks.iter().position(|(_, mark)| holds(mark, row));
        (!marks.is_empty()).then(|| Given((0..rows).map(first).collect()))
    }

    /// Model first, assignments last, then the note that there is a candidate: whoever sees a segment finds
    /// its model.
    async fn propose(
        &self,
        cx: &TaskContext,
        done: &Clustering,
        keys: &datafusion::arrow::array::ArrayRef,
        fitted_on: models::FittedOn,
    ) -> Result<Written, DataError> {
        let attempt = format!("{}-{}-{}", cx.run_id, cx.task_id, cx.fence.0);
        let (home, model, version) = (cx.shared.home.clone(), self.model().clone(), done.version.clone());
        let text = done.model_json.clone();
        datasets::blocking(move || models::keep(&home, &model, &version, &text, &attempt)).await?;
        let labels =
            output::Labels { run_id: cx.run_id.as_str(), as_of: cx.logical_date, version: &done.version };
        let tables = [
            (CENTRES, output::centres(done, &labels)),
            (K_REPORT, output::k_report(done)),
            (METRICS, output::metrics(done, &labels)),
            (MIGRATION, output::migration(done, &labels)),
            (LINEAGE, output::lineage(done, &labels)),
            ("", output::assignments(done, &labels, &self.key, keys)?),
        ];
        let key = datasets::write_key(cx);
        let mut written = None;
        let mut datasets = std::collections::BTreeMap::new();
        for (beside, batch) in tables {
            let into = DatasetName::parse(&format!("{}{beside}", self.into)).map_err(DataError::Permanent)?;
            let rows = frames::stream_of(vec![batch]);
            let table = cx.shared.lake.write(&into, rows, WriteMode::Overwrite, &[], &key).await?;
            datasets.insert(into.to_string(), table.version);
            written = Some(table);
        }
        let record = models::Record {
            event: models::Event::Candidate,
            version: done.version.clone(),
            dag_id: cx.dag_id.to_string(),
            run_id: cx.run_id.to_string(),
            task_id: cx.task_id.to_string(),
            at: cx.logical_date.to_string(),
            assignments: self.into.clone(),
            datasets,
            fitted_on,
            why: String::new(),
        };
        let (home, model) = (cx.shared.home.clone(), self.model().clone());
        datasets::blocking(move || models::note(&home, &model, &record)).await?;
        cx.log.line(&format!(
            "version {} of model `{}` is a candidate: a `validate` task on `{}` that passes has it served",
            done.version,
            self.model(),
            self.into
        ));
        Ok(written.expect("six tables are written"))
    }

    fn figures(&self, done: &Clustering, written: &Written) -> Value {
        let segments: Vec<Value> = done
            .model
            .segments
            .iter()
            .map(|s| json!({"segment_id": s.segment_id, "name": s.name, "n": s.n, "share": s.share}))
            .collect();
        let warnings: Vec<&str> = done.warnings.iter().map(|w| w.message.as_str()).collect();
        json!({
            "rows": written.rows,
            "bytes": written.bytes,
            "dataset": self.into,
            "version": written.version,
            "k": done.model.segments.len(),
            "inertia": done.metrics.inertia,
            "silhouette": done.metrics.silhouette.map(|s| s.value),
            "calinski_harabasz": done.metrics.calinski_harabasz,
            "davies_bouldin": done.metrics.davies_bouldin,
            "model": self.model(),
            "model_version": done.version,
            "moved_share": done.migration.as_ref().map(|moved| moved.moved_share),
            "segments": segments,
            "warnings": warnings,
        })
    }
}
