//! `load`: a dataset into a table of a warehouse, so that a repetition changes nothing.
//!
//! ```yaml
//! - id: publish
//!   type: load
//!   from: segments.customers
//!   into: {connection: warehouse, table: customer_segments}
//!   mode: merge
//!   key: [customer_id]
//! ```

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::datasets::{self, Columns, ConnectionTable};
use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::data::load::{DELETE_COLUMN, Load as Plan, LoadMode, Loaded, Merge, load};
use crate::data::warehouse::TableName;
use crate::data::{DataError, DatasetName, frames};

/// Writes a dataset to a warehouse table. Readers of the table see it before or after, never between.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Load {
    /// The dataset.
    from: String,
    /// The table; made if it is not there.
    into: ConnectionTable,
    /// How rows meet what is in the table.
    mode: Mode,
    /// `merge`: the columns that identify a row; never null.
    #[serde(default)]
    key: Columns,
    /// `merge`: of several rows with a key the greatest in this column counts, if it is greater than the stored one.
    #[serde(default)]
    order_by: Option<String>,
    /// `overwrite_partitions`: rows that agree in these columns are replaced together.
    #[serde(default)]
    partition_by: Columns,
    /// `merge`: a SQL predicate over the dataset's columns; where it holds, the key is deleted.
    #[serde(default)]
    delete_when: Option<String>,
    /// The largest share of rows that may disappear; default 0.2. An empty table has nothing to lose.
    #[serde(default = "fifth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    max_delete_share: f64,
    /// Lets any number of rows disappear.
    #[serde(default)]
    allow_shrink: bool,
}

/// How rows meet what is in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// They are added; the same load again replaces what it added.
    Append,
    /// They take the place of all.
    Overwrite,
    /// They take the place of the rows of their partitions.
    #[serde(alias = "overwrite_partition")]
    OverwritePartitions,
    /// A known key is updated, an unknown one inserted.
    Merge,
}

fn fifth() -> f64 {
    0.2
}

impl TaskKind for Load {
    const NAME: &'static str = "load";
    const VERBATIM: &'static [&'static str] = &["delete_when"];

    fn check(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: &[&str], message: &str| problems.push(datasets::problem(path, message));
        if let Err(message) = DatasetName::parse(&self.from) {
            problem(&["from"], &message);
        }
        if let Err(message) = TableName::parse(&self.into.table) {
            problem(&["into", "table"], &message);
        }
        let merge = self.mode == Mode::Merge;
        match (merge, self.key.list().is_empty()) {
            (true, true) => problem(&["mode"], "`merge` needs a `key`: the columns that identify a row"),
            (false, false) => problem(&["key"], "only `mode: merge` has a `key`"),
            (true, false) | (false, true) => {}
        }
        if !merge && self.order_by.is_some() {
            problem(&["order_by"], "only `mode: merge` has an `order_by`");
        }
        if !merge && self.delete_when.is_some() {
            problem(&["delete_when"], "only `mode: merge` has a `delete_when`");
        }
        match (self.mode == Mode::OverwritePartitions, self.partition_by.list().is_empty()) {
            (true, true) => problem(&["mode"], "`overwrite_partitions` needs `partition_by`"),
            (false, false) => {
                problem(&["partition_by"], "only `mode: overwrite_partitions` has a `partition_by`")
            }
            (true, false) | (false, true) => {}
        }
        if !(0.0..=1.0).contains(&self.max_delete_share) {
            problem(&["max_delete_share"], "expected a share from 0 to 1");
        }
        problems
    }

    fn reads(&self) -> Vec<String> {
        vec![self.from.clone()]
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        let plan = self.plan(cx)?;
        let from = datasets::dataset(&self.from)?;
        let (loaded, version) = datasets::unless_cancelled(cx, self.load(cx, &from, &plan)).await?;
        let Loaded { rows, inserted, updated, deleted } = loaded;
        cx.log.line(&format!(
            "loaded {rows} rows of `{from}` version {version} into `{}` of `{}`: {inserted} inserted, {updated} updated, {deleted} deleted",
            plan.table, self.into.connection
        ));
        Ok(TaskOutput::of(json!({
            "rows": rows,
            "connection": self.into.connection,
            "table": plan.table.to_string(),
            "dataset": from.as_str(),
            "version": version,
            "inserted": inserted,
            "updated": updated,
            "deleted": deleted,
        })))
    }
}

impl Load {
    fn plan(&self, cx: &TaskContext) -> Result<Plan, TaskError> {
        let mode = match self.mode {
            Mode::Append => LoadMode::Append,
            Mode::Overwrite => LoadMode::Overwrite,
            Mode::OverwritePartitions => LoadMode::OverwritePartitions(self.partition_by.list()),
            Mode::Merge => LoadMode::Merge(Merge { key: self.key.list(), order_by: self.order_by.clone() }),
        };
        let task = match cx.map_index {
            index if index < 0 => cx.task_id.to_string(),
            index => format!("{}[{index}]", cx.task_id),
        };
        Ok(Plan {
            table: TableName::parse(&self.into.table).map_err(TaskError::Permanent)?,
            mode,
            removed_share_max: (!self.allow_shrink).then_some(self.max_delete_share),
            run_key: format!("{}/{}", cx.dag_id, cx.run_id),
            task,
            fence: cx.fence.0,
        })
    }

    async fn load(
        &self,
        cx: &TaskContext,
        from: &DatasetName,
        plan: &Plan,
    ) -> Result<(Loaded, i64), DataError> {
        let frame = frames::open(&cx.shared.lake, from).await?;
        let rows = match &self.delete_when {
            Some(predicate) => frames::mark(frame.rows, DELETE_COLUMN, predicate)?,
            None => frame.rows,
        };
        let warehouse = cx.shared.connections.warehouse(&self.into.connection).await?;
        let batches = frames::stream(rows).await?;
        Ok((load(&warehouse, batches, plan).await?, frame.version))
    }
}
