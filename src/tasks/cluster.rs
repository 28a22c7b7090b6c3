//! `cluster`: customers to segments, with the model that says which is which.
//!
//! Reads one row per key, sorted by key, so that neither the order of rows nor threads change a byte of
//! the model. Writes the assignments (`into`), `<into>__centres`, `<into>__k_report`, `<into>__metrics`, and
//! the model under `<home>/models`. The numerics are [`segment`](crate::segment)'s.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::datasets::{self, METRICS};
use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::data::lake::{WriteMode, Written};
use crate::data::{DataError, DatasetName, cells, frames, models};
use crate::segment::spec::{Algorithm, ClusterSpec, Feature, K, Naming, Scale};
use crate::segment::{ClusterInput, Clustering, cluster};

mod input;
mod output;

/// What follows a dataset's name in the names of the datasets beside it.
const CENTRES: &str = "__centres";
const K_REPORT: &str = "__k_report";

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
    /// How segments get their names.
    #[serde(default)]
    naming: Naming,
    /// The dataset of assignments.
    into: String,
    /// The model's name; default that of `into`.
    #[serde(default)]
    model: Option<String>,
    /// Only `false`: there is no report yet.
    #[serde(default)]
    report: bool,
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
        if self.report {
            problems.push(datasets::problem(&["report"], "there is no report yet, expected `false`"));
        }
        problems.extend(self.spec().problems().into_iter().map(|message| datasets::problem(&[], message)));
        problems
    }

    fn reads(&self) -> Vec<String> {
        vec![self.from.clone()]
    }

    fn writes(&self) -> Vec<String> {
        ["", CENTRES, K_REPORT, METRICS].iter().map(|beside| format!("{}{beside}", self.into)).collect()
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
        let input = input::read(rows, &self.key, &self.features, cx.logical_date).await?;
        cx.log.line(&format!("read {} rows of `{from}` version {}", input.keys.len(), frame.version));
        let (model, spec) = (self.model().clone(), self.spec());
        let (keys, columns) = (input.keys, input.columns);
        let work = move || cluster(ClusterInput { model, keys, columns, spec });
        let done = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| DataError::Permanent(format!("the clustering broke off: {error}")))?
            .map_err(|error| DataError::Permanent(error.to_string()))?;
        report(cx, &done);
        let written = self.publish(cx, &done, &input.key_column).await?;
        Ok(TaskOutput::of(self.figures(&done, &written)))
    }

    /// Model first, assignments last, then the pointer: whoever sees a segment finds its model.
    async fn publish(
        &self,
        cx: &TaskContext,
        done: &Clustering,
        keys: &datafusion::arrow::array::ArrayRef,
    ) -> Result<Written, DataError> {
        let attempt = format!("{}-{}-{}", cx.run_id, cx.task_id, cx.fence.0);
        let (home, model, version) = (cx.shared.home.clone(), self.model().clone(), done.version.clone());
        let text = done.model_json.clone();
        let named = (home.clone(), model.clone(), version.clone(), attempt.clone());
        blocking(move || models::keep(&home, &model, &version, &text, &attempt)).await?;
        let labels =
            output::Labels { run_id: cx.run_id.as_str(), as_of: cx.logical_date, version: &done.version };
        let tables = [
            (CENTRES, output::centres(done, &labels)),
            (K_REPORT, output::k_report(done)),
            (METRICS, output::metrics(done, &labels)),
            ("", output::assignments(done, &labels, &self.key, keys)?),
        ];
        let key = datasets::write_key(cx);
        let mut written = None;
        for (beside, batch) in tables {
            let into = DatasetName::parse(&format!("{}{beside}", self.into)).map_err(DataError::Permanent)?;
            let rows = frames::stream_of(vec![batch]);
            written = Some(cx.shared.lake.write(&into, rows, WriteMode::Overwrite, &[], &key).await?);
        }
        let (home, model, version, attempt) = named;
        blocking(move || models::point(&home, &model, &version, &attempt)).await?;
        Ok(written.expect("four tables are written"))
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
            "segments": segments,
            "warnings": warnings,
        })
    }
}

fn report(cx: &TaskContext, done: &Clustering) {
    let rows: Vec<Vec<String>> = done
        .model
        .segments
        .iter()
        .map(|s| {
            vec![s.segment_id.clone(), s.name.clone(), s.n.to_string(), format!("{:.1} %", s.share * 100.0)]
        })
        .collect();
    cells::table_text(&["segment_id", "name", "customers", "share"], &rows)
        .lines()
        .for_each(|line| cx.log.line(line));
    for warning in &done.warnings {
        cx.log.line(&format!("warning: {}", warning.message));
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), DataError> + Send + 'static) -> Result<(), DataError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| DataError::Permanent(error.to_string()))?
}
