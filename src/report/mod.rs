//! The report of a clustering: one HTML file that needs nothing else, and the same figures as JSON.
//!
//! A function of the clustering and of what it is about; no clock, no script, no request. Colours follow the
//! reader's light or dark setting.

use serde_json::{Value, json};

use crate::segment::Clustering;
use crate::segment::silhouette::Method;

mod charts;
mod svg;
mod tables;

use svg::{count, escaped, short};

const STYLE: &str = include_str!("style.css");

/// What a report is about.
pub struct About<'a> {
    /// The model.
    pub model: &'a str,
    /// The DAG that made it.
    pub dag_id: &'a str,
    /// Its run.
    pub run_id: &'a str,
    /// Its task.
    pub task_id: &'a str,
    /// The moment the run stands for.
    pub as_of: String,
    /// The dataset clustered.
    pub from: &'a str,
    /// Its version.
    pub from_version: i64,
    /// The dataset of assignments.
    pub into: &'a str,
    /// The file of [`data`], beside the page.
    pub data_file: &'a str,
}

/// The page: one HTML file.
#[must_use]
pub fn page(about: &About<'_>, done: &Clustering) -> String {
    let mut sections = vec![tiles(done), warnings(done), segments(done), centres(done), choice(done)];
    sections.push(cohesion(done));
    sections.push(map(done));
    sections.push(changes(done));
    sections.push(tree(done));
    sections.push(section(
        "Preparation",
        "What was done to each feature before distances were measured; the same is done to a single customer.",
        &tables::preparation(done),
    ));
    let title = format!("Segments of {}", about.model);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main>{header}{body}{footer}</main></body></html>\n",
        title = escaped(&title),
        header = header(about, done),
        body = sections.concat(),
        footer = footer(about),
    )
}

/// The figures of the page.
#[must_use]
pub fn data(about: &About<'_>, done: &Clustering) -> Value {
    json!({
        "model": about.model,
        "version": done.version,
        "dag_id": about.dag_id,
        "run_id": about.run_id,
        "task_id": about.task_id,
        "as_of": about.as_of,
        "from": about.from,
        "from_version": about.from_version,
        "into": about.into,
        "rows": done.model.rows,
        "segments": done.model.segments,
        "metrics": done.metrics,
        "k": done.k_report,
        "centres": done.centres,
        "figures": done.figures,
        "migration": done.migration,
        "lineage": done.lineage,
        "renames": done.renames,
        "refresh": done.refresh,
        "preparation": {"features": done.model.features, "report": done.features},
        "warnings": done.warnings,
    })
}

fn section(title: &str, about: &str, inside: &str) -> String {
    format!("<section><h2>{}</h2><p>{about}</p>{inside}</section>", escaped(title))
}

fn figure(caption: &str, drawing: &str) -> String {
    if drawing.is_empty() {
        return String::new();
    }
    format!("<figure><figcaption>{}</figcaption>{drawing}</figure>", escaped(caption))
}

fn header(about: &About<'_>, done: &Clustering) -> String {
    format!(
        "<header><h1>Segments of {model}</h1><p>{into}, from {from} version {version}, as of {as_of}</p>\
         <p>version <code>{model_version}</code> by {dag} / {run} / {task}</p></header>",
        model = escaped(about.model),
        into = escaped(about.into),
        from = escaped(about.from),
        version = about.from_version,
        as_of = escaped(&about.as_of),
        model_version = escaped(&done.version),
        dag = escaped(about.dag_id),
        run = escaped(about.run_id),
        task = escaped(about.task_id),
    )
}

fn footer(about: &About<'_>) -> String {
    format!("<footer>All figures of this page as JSON: <code>{}</code></footer>", escaped(about.data_file))
}

fn tiles(done: &Clustering) -> String {
    let tile = |name: &str, value: String, note: String| {
        format!(
            "<div class=\"tile\"><span>{name}</span><b>{value}</b><small>{}</small></div>",
            escaped(&note)
        )
    };
    let optional = |value: Option<f64>| value.map_or("–".to_owned(), short);
    let metrics = &done.metrics;
    let rule = format!("{:?}", done.k_report.select).to_lowercase();
    let interval = metrics.silhouette.as_ref().map_or(String::new(), |s| match s.method {
        Method::Exact => "exact, of all rows".to_owned(),
        Method::Sampled => format!("sampled, 95 %: {} to {}", short(s.ci95[0]), short(s.ci95[1])),
    });
    let mut all = vec![
        tile("rows", count(done.model.rows as u64), String::new()),
        tile("segments", done.model.segments.len().to_string(), format!("chosen by {rule}")),
        tile("silhouette", optional(metrics.silhouette.as_ref().map(|s| s.value)), interval),
        tile("Calinski-Harabasz", optional(metrics.calinski_harabasz), "higher is better".to_owned()),
        tile("Davies-Bouldin", optional(metrics.davies_bouldin), "lower is better".to_owned()),
        tile(
            "inertia",
            short(metrics.inertia),
            format!("{} per row", short(metrics.inertia / done.model.rows as f64)),
        ),
    ];
    if let Some(moved) = &done.migration {
        let note = format!("of {} in both runs", count(moved.common));
        all.push(tile("moved", format!("{:.1} %", moved.moved_share * 100.0), note));
    }
    format!("<div class=\"tiles\">{}</div>", all.concat())
}

fn warnings(done: &Clustering) -> String {
    let mut lines: Vec<String> = done.warnings.iter().map(|warning| escaped(&warning.message)).collect();
    lines.extend(done.renames.iter().map(|rename| {
        format!("segment “{}” would be called “{}” today", escaped(&rename.name), escaped(&rename.suggested))
    }));
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.into_iter().map(|line| format!("<li>{line}</li>")).collect();
    format!("<section class=\"warnings\"><h2>Worth knowing</h2><ul>{lines}</ul></section>")
}

fn segments(done: &Clustering) -> String {
    let inside = format!("{}{}", charts::sizes(&done.model), tables::segments(&done.model));
    section("Segments", "Radii are distances to the centre in prepared units.", &inside)
}

fn centres(done: &Clustering) -> String {
    section(
        "What makes each segment",
        "The centre in the feature's own unit, and how far the segment's mean lies from that of all rows, in standard deviations of the prepared values: blue below, orange above.",
        &tables::heat_map(done),
    )
}

fn choice(done: &Clustering) -> String {
    let report = &done.k_report;
    if report.figures.len() < 2 {
        return section("Number of segments", "It was given.", &tables::choice(done));
    }
    let pair = format!(
        "<div class=\"pair\">{}{}</div>",
        figure("Inertia: where it stops to fall, more explain little", &charts::elbow(report)),
        figure("Silhouette with 95 % intervals; hollow: refused", &charts::silhouettes(report)),
    );
    let elbow = match report.elbow {
        Some(k) => format!("the elbow of the inertia is at {k}"),
        None => "the inertia has no elbow".to_owned(),
    };
    let about = format!(
        "{} segments were chosen (ringed); {elbow}. Found on {} rows. A silhouette compares numbers of segments, never two ways of scaling.",
        report.k,
        count(report.sample as u64)
    );
    section("Number of segments", &about, &format!("{pair}{}", tables::choice(done)))
}

fn cohesion(done: &Clustering) -> String {
    let blades = &done.figures.blades;
    if blades.is_empty() {
        return String::new();
    }
    let overall = done.metrics.silhouette.as_ref().map(|s| s.value);
    section(
        "How well rows fit",
        "The silhouette of single rows, best first: near 1 well inside its segment, 0 on a border, below 0 nearer to another segment.",
        &charts::blades(blades, &done.model, overall),
    )
}

fn map(done: &Clustering) -> String {
    let Some(map) = &done.figures.map else { return String::new() };
    let explained = (map.explained[0] + map.explained[1]) * 100.0;
    let about = format!(
        "{} rows on the plane in which the prepared values differ most; it shows {explained:.1} % of their variance, so what overlaps here may be apart in full.",
        count(map.points.len() as u64)
    );
    let inside = format!("{}{}", tables::legend(&done.model), charts::map(map, &done.model));
    section("Map", &about, &inside)
}

fn changes(done: &Clustering) -> String {
    let Some(moved) = &done.migration else { return String::new() };
    let mut about = format!(
        "{} customers are in this run and in the one served; {} are new, {} are gone. Rows are the old segments, shares are of them; green stayed.",
        count(moved.common),
        count(moved.arrived),
        count(moved.left)
    );
    if let Some(refresh) = &done.refresh {
        let kept = format!("{:?}", refresh.kept).to_lowercase();
        about.push_str(&format!(" The {kept} fit was kept: {}.", escaped(&refresh.reason)));
    }
    let inside = format!("{}{}", tables::migration(moved), tables::lineage(&done.lineage, moved));
    section("Who went where", &about, &inside)
}

fn tree(done: &Clustering) -> String {
    let Some(tree) = &done.figures.dendrogram else { return String::new() };
    let about = "The lower two branches meet, the more alike they are.";
    section("Which segments are alike", about, &charts::dendrogram(tree, &done.model))
}
