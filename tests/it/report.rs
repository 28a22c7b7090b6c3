//! The report of a clustering: complete, and in need of nothing but itself.

use std::sync::Arc;

use mainspring::report::{About, data, page};
use mainspring::segment::identity::Previous;
use mainspring::segment::prepare::Column;
use mainspring::segment::spec::ClusterSpec;
use mainspring::segment::{ClusterInput, Clustering, Kernel, cluster};

const ABOUT: About<'_> = About {
    model: "shop & co",
    dag_id: "shop",
    run_id: "r1",
    task_id: "segments",
    as_of: String::new(),
    from: "features.rfm",
    from_version: 3,
    into: "segments.customers",
    data_file: "segments.json",
};

/// 600 customers in four groups; with the run before, one customer in twenty has changed.
fn clustering(previous: Option<Previous>, shift: f64) -> Clustering {
    let rows = 600;
    let chance = |row: usize, salt: u64| {
        let mixed = (row as u64 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(salt.wrapping_mul(0x85eb_ca6b_c2b2_ae35));
        ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / (1_u64 << 24) as f64
    };
    let group = |row: usize| row % 4;
    let moved = |row: usize| if row.is_multiple_of(20) { shift } else { 0.0 };
    let recency =
        (0..rows).map(|row| 5.0 + 80.0 * (group(row) / 2) as f64 + 40.0 * chance(row, 1) + moved(row));
    let frequency = (0..rows).map(|row| 1.0 + 6.0 * (group(row) % 2) as f64 + (3.0 * chance(row, 2)).floor());
    let monetary = (0..rows).map(|row| 20.0 + 90.0 * group(row) as f64 + 60.0 * chance(row, 3));
    let plan = (0..rows).map(|row| Some(Arc::from(if chance(row, 4) < 0.3 { "plus" } else { "<basic>" })));
    let spec = serde_json::json!({
        "features": [{"name": "recency_days", "transform": "log1p"}, {"name": "frequency", "transform": "log1p"},
            {"name": "monetary"}, {"name": "plan", "type": "categorical", "weight": 0.3}],
        "k": {"min": 2, "max": 8},
    });
    let spec: ClusterSpec = serde_json::from_value(spec).unwrap();
    cluster(ClusterInput {
        model: "shop".to_owned(),
        keys: (0..rows).map(|row| Arc::from(format!("c{row:04}"))).collect(),
        columns: vec![
            ("recency_days".to_owned(), Column::Numeric(recency.collect())),
            ("frequency".to_owned(), Column::Numeric(frequency.collect())),
            ("monetary".to_owned(), Column::Numeric(monetary.collect())),
            ("plan".to_owned(), Column::Categorical(plan.collect())),
        ],
        spec,
        previous,
        given: None,
        kernel: Kernel::default(),
    })
    .unwrap()
}

/// A clustering beside the run before.
fn refreshed() -> Clustering {
    let first = clustering(None, 0.0);
    let members = first
        .assignments
        .iter()
        .enumerate()
        .filter_map(|(row, found)| Some((Arc::from(format!("c{row:04}")), found.as_ref()?.segment)));
    let members = members.collect();
    let previous = Previous { model: first.model, version: first.version, members };
    clustering(Some(previous), 60.0)
}

/// Every element is closed in its place; gives the number of elements.
fn elements(html: &str) -> usize {
    let void = ["!doctype", "meta"];
    let (mut open, mut count, mut rest) = (Vec::new(), 0, html);
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').expect("a tag ends");
        let (tag, after) = (&rest[at + 1..end], &rest[end + 1..]);
        let name: &str = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "near {}", &html[html.len() - after.len() - 80..][..80]);
        } else if !tag.ends_with('/') && !void.contains(&name) {
            open.push(name);
            count += 1;
        }
        rest = if name == "style" && !tag.starts_with('/') {
            &after[after.find("</style>").unwrap()..]
        } else {
            after
        };
    }
    assert!(open.is_empty(), "{open:?} are left open");
    count
}

#[test]
fn a_page_needs_nothing_else_and_no_script() {
    let html = page(&ABOUT, &refreshed());
    for word in [
        "http:", "https:", "<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import",
        "onload",
    ] {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("default-src 'none'"), "the browser is told to ask nobody");
    assert!(html.contains("prefers-color-scheme: dark"));
    assert!(html.len() < 1 << 20, "{} bytes", html.len());
    assert!(elements(&html) > 200);
    assert!(!html.contains("NaN") && !html.contains("inf"), "a figure that is none");
}

#[test]
fn a_page_shows_every_figure_there_is() {
    let done = refreshed();
    let html = page(&ABOUT, &done);
    for title in [
        "Segments of shop &amp; co",
        "Number of segments",
        "Inertia by number of segments",
        "with 95 % intervals",
        "Silhouettes of single rows by segment",
        "Sizes of the segments",
        "What makes each segment",
        "component 1 (",
        "Who went where",
        "Which segments are alike",
        "Preparation",
        "&lt;basic&gt;",
    ] {
        assert!(html.contains(title), "{title}");
    }
    for segment in &done.model.segments {
        assert!(html.contains(&segment.segment_id), "{}", segment.segment_id);
    }
    assert_eq!(html.matches("class=\"points\"").count(), done.model.segments.len());
}

#[test]
fn a_first_run_has_no_page_of_changes() {
    let html = page(&ABOUT, &clustering(None, 0.0));
    assert!(!html.contains("Who went where"));
    elements(&html);
}

#[test]
fn the_same_figures_stand_in_the_data() {
    let done = refreshed();
    let data = data(&ABOUT, &done);
    assert_eq!(data["k"]["k"], done.k_report.k);
    assert_eq!(data["segments"].as_array().map(Vec::len), Some(done.model.segments.len()));
    assert_eq!(data["migration"]["common"], 600);
    assert!(data["figures"]["map"]["points"].as_array().is_some_and(|points| points.len() == 600));
}
