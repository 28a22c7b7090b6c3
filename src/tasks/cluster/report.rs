//! What a run says of its clustering: a summary in the log, and the report as files in the home:
//! `reports/<dag>/<run>/<task>.html`, and `.json` beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::TaskContext;
use super::super::datasets;
use crate::data::{DataError, cells};
use crate::report::{About, data, page};
use crate::segment::Clustering;
use crate::segment::artefact::Segment;

/// What a report says of where its rows come from.
pub(super) struct Origin<'a> {
    pub(super) model: &'a str,
    pub(super) from: &'a str,
    pub(super) from_version: i64,
    pub(super) into: &'a str,
}

/// Writes the report; gives the path of the page.
pub(super) async fn write(
    cx: &TaskContext,
    done: &Clustering,
    origin: &Origin<'_>,
) -> Result<PathBuf, DataError> {
    let mut name = cx.task_id.to_string();
    if cx.map_index >= 0 {
        name.push_str(&format!(".{}", cx.map_index));
    }
    let data_file = format!("{name}.json");
    let about = About {
        model: origin.model,
        dag_id: cx.dag_id.as_str(),
        run_id: cx.run_id.as_str(),
        task_id: cx.task_id.as_str(),
        as_of: cx.logical_date.to_string(),
        from: origin.from,
        from_version: origin.from_version,
        into: origin.into,
        data_file: &data_file,
    };
    let (html, json) = (page(&about, done), data(&about, done).to_string());
    let folder = cx.shared.home.join("reports").join(cx.dag_id.as_str()).join(cx.run_id.as_str());
    let page = folder.join(format!("{name}.html"));
    let fence = cx.fence.0;
    let written = page.clone();
    datasets::blocking(move || {
        let write = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            replace(&folder.join(&data_file), &json, fence)?;
            replace(&written, &html, fence)
        };
        write().map_err(|error| DataError::Retryable(format!("report {}: {error}", written.display())))
    })
    .await?;
    Ok(page)
}

/// The segments and how they were found, in the log.
pub(super) fn summary(cx: &TaskContext, done: &Clustering) {
    let row = |s: &Segment| {
        vec![s.segment_id.clone(), s.name.clone(), s.n.to_string(), format!("{:.1} %", s.share * 100.0)]
    };
    let rows: Vec<Vec<String>> = done.model.segments.iter().map(row).collect();
    let table = cells::table_text(&["segment_id", "name", "customers", "share"], &rows);
    table.lines().for_each(|line| cx.log.line(line));
    if let Some(silhouette) = &done.metrics.silhouette {
        let [low, high] = silhouette.ci95;
        let text = format!("silhouette {:.3} (95 %: {low:.3} to {high:.3})", silhouette.value);
        cx.log.line(&text);
    }
    let report = &done.k_report;
    if let [first, .., last] = report.figures.as_slice() {
        let elbow = report.elbow.map_or("no elbow".to_owned(), |k| format!("the elbow at {k}"));
        let rule = format!("{:?}", report.select).to_lowercase();
        cx.log.line(&format!("k = {} of {} to {} by `{rule}`, {elbow}", report.k, first.k, last.k));
    }
    if let Some(refresh) = &done.refresh {
        let kept = format!("{:?}", refresh.kept).to_lowercase();
        cx.log.line(&format!("the {kept} fit is kept: {}", refresh.reason));
    }
    if let Some(moved) = &done.migration {
        let share = moved.moved_share * 100.0;
        let (common, arrived, left) = (moved.common, moved.arrived, moved.left);
        let text = format!("{share:.2} % of {common} customers moved, {arrived} are new, {left} are gone");
        cx.log.line(&text);
    }
    for rename in &done.renames {
        cx.log.line(&format!("`{}` would be called `{}` today", rename.name, rename.suggested));
    }
    for warning in &done.warnings {
        cx.log.line(&format!("warning: {}", warning.message));
    }
}

/// Whoever opens the file sees the old text or the new one.
fn replace(path: &Path, text: &str, fence: i64) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{fence}"));
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
