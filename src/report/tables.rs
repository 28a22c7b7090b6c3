//! The tables of a report.

use std::fmt::Write;

use super::charts::colour;
use super::svg::{count, escaped, short};
use crate::segment::identity::{Lineage, Migration};
use crate::segment::prepare::{FittedFeature, Missing};
use crate::segment::silhouette::Method;
use crate::segment::{Clustering, Model};

/// Effects from which a cell has its full colour, in standard deviations.
const FULL: f64 = 2.0;

/// A head and rows of cells that are HTML already.
fn table(class: &str, head: &[&str], rows: &[Vec<(&str, String)>]) -> String {
    let mut out = format!("<div class=\"scroll\"><table class=\"{class}\"><thead><tr>");
    for (place, name) in head.iter().enumerate() {
        let number = rows.first().and_then(|row| row.get(place)).is_some_and(|(class, _)| *class == "n");
        let class = if number { " class=\"n\"" } else { "" };
        write!(out, "<th{class}>{}</th>", escaped(name)).expect("a string takes all");
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (class, cell) in row {
            let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
            write!(out, "<td{class}>{cell}</td>").expect("a string takes all");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

fn dot(segment: usize) -> String {
    format!("<span class=\"dot\" style=\"background:{}\"></span>", colour(segment))
}

/// Names with their colours.
pub(super) fn legend(model: &Model) -> String {
    let names = model.segments.iter().map(|s| format!("<span>{}{}</span>", dot(s.index), escaped(&s.name)));
    format!("<div class=\"legend\">{}</div>", names.collect::<String>())
}

/// Identity and radii of the segments.
pub(super) fn segments(model: &Model) -> String {
    let rows: Vec<Vec<(&str, String)>> = model
        .segments
        .iter()
        .map(|s| {
            vec![
                ("", format!("{}{}", dot(s.index), escaped(&s.name))),
                ("n", count(s.n as u64)),
                ("n", format!("{:.1} %", s.share * 100.0)),
                ("n", short(s.radius_p50)),
                ("n", short(s.radius_p99)),
                ("id", escaped(&s.segment_id)),
            ]
        })
        .collect();
    table("wide", &["segment", "rows", "share", "median radius", "99 % radius", "id"], &rows)
}

/// Effects by segment and prepared column: raw centre above, distance from the population below.
pub(super) fn heat_map(done: &Clustering) -> String {
    let mut features: Vec<&str> = Vec::new();
    for row in &done.centres {
        if !features.contains(&row.feature.as_str()) {
            features.push(&row.feature);
        }
    }
    let mut out = String::from("<div class=\"scroll\"><table class=\"cells\"><thead><tr><th></th>");
    for feature in &features {
        write!(out, "<th>{}</th>", escaped(feature)).expect("a string takes all");
    }
    out.push_str("</tr></thead><tbody>");
    for segment in &done.model.segments {
        write!(out, "<tr><th>{}{}</th>", dot(segment.index), escaped(&segment.name))
            .expect("a string takes all");
        for feature in &features {
            let found =
                done.centres.iter().find(|c| c.segment_id == segment.segment_id && c.feature == *feature);
            match found {
                Some(c) => {
                    let told = format!(
                        "{}: {} here, {} in all",
                        feature,
                        short(c.centre_raw),
                        short(c.population_mean)
                    );
                    write!(
                        out,
                        "<td style=\"background:{}\" title=\"{}\">{}<small>{:+.2} sd</small></td>",
                        heat(c.effect_z / FULL),
                        escaped(&told),
                        short(c.centre_raw),
                        c.effect_z
                    )
                    .expect("a string takes all");
                }
                None => out.push_str("<td>–</td>"),
            }
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// A colour from blue (-1) over none (0) to orange (1) that text is legible on in light and dark.
fn heat(strength: f64) -> String {
    let alpha = 0.72 * strength.abs().min(1.0);
    let tint = if strength < 0.0 { "40 112 200" } else { "222 104 32" };
    format!("rgb({tint} / {alpha:.2})")
}

/// Everything found for each k.
pub(super) fn choice(done: &Clustering) -> String {
    let report = &done.k_report;
    let optional = |value: Option<f64>| value.map_or("–".to_owned(), short);
    let rows: Vec<Vec<(&str, String)>> = report
        .figures
        .iter()
        .map(|found| {
            let silhouette = found.silhouette.as_ref().map_or("–".to_owned(), |s| match s.method {
                Method::Exact => short(s.value),
                Method::Sampled => {
                    let [low, high] = s.ci95.map(short);
                    format!("{} <small>({low} to {high})</small>", short(s.value))
                }
            });
            let verdict = if found.k == report.k {
                "<b>chosen</b>".to_owned()
            } else if found.refused.is_empty() {
                String::new()
            } else {
                format!("refused: {}", escaped(&found.refused.join(", ")))
            };
            vec![
                ("n", found.k.to_string()),
                ("n", short(found.inertia)),
                ("n", silhouette),
                ("n", optional(found.calinski_harabasz)),
                ("n", optional(found.davies_bouldin)),
                ("n", format!("{:.1} %", found.smallest_share * 100.0)),
                ("n", format!("{:.1} %", found.largest_share * 100.0)),
                ("", verdict),
            ]
        })
        .collect();
    let head = [
        "k",
        "inertia",
        "silhouette",
        "Calinski-Harabasz",
        "Davies-Bouldin",
        "smallest",
        "largest",
        "verdict",
    ];
    table("wide", &head, &rows)
}

/// What preparation did to each feature.
pub(super) fn preparation(done: &Clustering) -> String {
    let rows: Vec<Vec<(&str, String)>> = done
        .model
        .features
        .features()
        .iter()
        .map(|feature| {
            let report = done.features.iter().find(|report| report.name == feature.name());
            let missing = report.map_or(0, |report| report.missing);
            let skewness = |value: Option<f64>| value.map_or("–".to_owned(), short);
            let before = skewness(report.and_then(|report| report.skewness_before));
            let after = skewness(report.and_then(|report| report.skewness_after));
            let mut row = vec![("", escaped(feature.name())), ("n", count(missing as u64))];
            row.extend(steps(feature).map(|text| ("", text)));
            row.extend([("n", before), ("n", after)]);
            row
        })
        .collect();
    let head = [
        "feature",
        "missing",
        "filled with",
        "transform",
        "clipped to",
        "scale",
        "weight",
        "skewness",
        "after",
    ];
    table("wide", &head, &rows)
}

/// Filling, transform, clip, scale and weight in words.
fn steps(feature: &FittedFeature) -> [String; 5] {
    let dash = || "–".to_owned();
    match feature {
        FittedFeature::Numeric(f) => {
            let filled = match f.impute {
                Missing::Fill(value) => short(value),
                Missing::DropRow => "row dropped".to_owned(),
                Missing::Error => "refused".to_owned(),
            };
            let filled = if f.indicator { format!("{filled}, marked") } else { filled };
            let scale = f.scale.map_or("constant, left out".to_owned(), |s| {
                format!("{:?}: (x − {}) × {}", s.kind, short(s.offset), short(s.factor)).to_lowercase()
            });
            [
                filled,
                format!("{:?}", f.transform).to_lowercase(),
                f.clip.map_or_else(dash, |[low, high]| format!("{} to {}", short(low), short(high))),
                scale,
                short(f.weight),
            ]
        }
        FittedFeature::Categorical(f) => {
            let levels =
                if f.levels.is_empty() { "constant, left out".to_owned() } else { f.levels.join(", ") };
            let weight = short(f.mark * std::f64::consts::SQRT_2);
            ["a level of its own".to_owned(), "levels".to_owned(), dash(), escaped(&levels), weight]
        }
    }
}

/// Who went where.
pub(super) fn migration(moved: &Migration) -> String {
    let mut out =
        String::from("<div class=\"scroll\"><table class=\"cells\"><thead><tr><th>from ↓ to →</th>");
    for name in &moved.into_names {
        write!(out, "<th>{}</th>", escaped(name)).expect("a string takes all");
    }
    out.push_str("</tr></thead><tbody>");
    for (place, name) in moved.from_names.iter().enumerate() {
        write!(out, "<tr><th>{}</th>", escaped(name)).expect("a string takes all");
        let row = moved.customers.get(place).map_or(&[][..], Vec::as_slice);
        let all: u64 = row.iter().sum();
        for (to, &n) in row.iter().enumerate() {
            let share = if all == 0 { 0.0 } else { n as f64 / all as f64 };
            let stayed = moved.from.get(place) == moved.into.get(to);
            let tint = if stayed { "28 138 90" } else { "222 104 32" };
            let alpha = 0.72 * share;
            write!(
                out,
                "<td style=\"background:rgb({tint} / {alpha:.2})\">{}<small>{:.1} %</small></td>",
                count(n),
                share * 100.0
            )
            .expect("a string takes all");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// What became of segments, in words.
pub(super) fn lineage(events: &[Lineage], moved: &Migration) -> String {
    fn names(ids: &[String], all: &[String], names: &[String]) -> String {
        let name = |id: &String| {
            let place = all.iter().position(|known| known == id);
            let name = place.and_then(|place| names.get(place)).unwrap_or(id);
            format!("<b>{}</b>", escaped(name))
        };
        ids.iter().map(name).collect::<Vec<_>>().join(", ")
    }
    let lines = events.iter().map(|event| {
        let from = names(&event.from, &moved.from, &moved.from_names);
        let into = names(&event.into, &moved.into, &moved.into_names);
        let overlap = event.overlap.map_or(String::new(), |share| format!(" ({:.1} %)", share * 100.0));
        let sides = match (from.as_str(), into.as_str()) {
            (from, "") => from.to_owned(),
            ("", into) => into.to_owned(),
            (from, into) => format!("{from} → {into}"),
        };
        format!("<li>{}: {sides}{overlap}</li>", format!("{:?}", event.event).to_lowercase())
    });
    format!("<ul>{}</ul>", lines.collect::<String>())
}
