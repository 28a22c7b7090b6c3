//! The charts of a report, each a drawing of plain figures.

use super::svg::{Axis, Drawing, count, short};
use crate::segment::Model;
use crate::segment::choose_k::KReport;
use crate::segment::figures::{Blade, Dendrogram, Map};

/// Colours there are; more segments share them.
const COLOURS: usize = 10;

/// Pixels for the names beside bars, and the letters that fit there.
const NAMES: f64 = 224.0;
const NAME_LETTERS: usize = 28;
/// Pixels of a letter of a label, and from one label to the next below it.
const LETTER: f64 = 7.2;
const LABEL_LINE: f64 = 15.0;
/// Lines of a name under a tree.
const NAME_LINES: usize = 3;

/// A segment's colour.
pub(super) fn colour(segment: usize) -> String {
    format!("var(--s{})", segment % COLOURS)
}

/// Inertia by k, with the knee and the choice.
pub(super) fn elbow(report: &KReport) -> String {
    let (width, height) = (500.0, 290.0);
    let (left, right, top, bottom) = (64.0, width - 16.0, 18.0, height - 48.0);
    let mut drawing = Drawing::new(width, height);
    let ks = || report.figures.iter().map(|found| found.k as f64);
    let most = report.figures.iter().map(|found| found.inertia).fold(0.0, f64::max);
    let x =
        Axis::new(ks().fold(f64::INFINITY, f64::min), ks().fold(0.0, f64::max), left + 14.0, right - 14.0);
    let y = Axis::rounded(0.0, most, bottom, top);
    drawing.left_axis(&y, left, right);
    for found in &report.figures {
        drawing.text("", (x.at(found.k as f64), bottom + 17.0), "middle", &found.k.to_string());
    }
    drawing.text("strong", (f64::midpoint(left, right), height - 8.0), "middle", "number of segments k");
    if let Some(elbow) = report.elbow {
        let at = x.at(elbow as f64);
        drawing.line("rule", (at, top), (at, bottom));
        drawing.text("halo", (at + 7.0, top + 12.0), "start", &format!("elbow at {elbow}"));
    }
    let points: Vec<(f64, f64)> =
        report.figures.iter().map(|found| (x.at(found.k as f64), y.at(found.inertia))).collect();
    drawing.through("line", &points);
    for (found, at) in report.figures.iter().zip(points) {
        let told = format!("k {}: inertia {}", found.k, short(found.inertia));
        drawing.circle("mark", at, 4.0, &told);
        if found.k == report.k {
            drawing.circle("chosen", at, 8.5, &format!("{told}, chosen"));
        }
    }
    drawing.finish("Inertia by number of segments")
}

/// Silhouette by k with its interval; a k that the guard refuses is hollow.
pub(super) fn silhouettes(report: &KReport) -> String {
    let (width, height) = (500.0, 290.0);
    let (left, right, top, bottom) = (64.0, width - 16.0, 18.0, height - 48.0);
    let mut drawing = Drawing::new(width, height);
    let found = || report.figures.iter().filter_map(|of| Some((of, of.silhouette.as_ref()?)));
    let low = found().map(|(_, s)| s.ci95[0]).fold(f64::INFINITY, f64::min);
    let high = found().map(|(_, s)| s.ci95[1]).fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return String::new();
    }
    let ks = || report.figures.iter().map(|found| found.k as f64);
    let x =
        Axis::new(ks().fold(f64::INFINITY, f64::min), ks().fold(0.0, f64::max), left + 14.0, right - 14.0);
    let margin = (high - low).max(0.02) * 0.1;
    let y = Axis::rounded(low - margin, high + margin, bottom, top);
    drawing.left_axis(&y, left, right);
    for of in &report.figures {
        drawing.text("", (x.at(of.k as f64), bottom + 17.0), "middle", &of.k.to_string());
    }
    drawing.text("strong", (f64::midpoint(left, right), height - 8.0), "middle", "number of segments k");
    let points: Vec<(f64, f64)> = found().map(|(of, s)| (x.at(of.k as f64), y.at(s.value))).collect();
    drawing.through("line", &points);
    for ((of, s), at) in found().zip(points) {
        let ends = [s.ci95[0], s.ci95[1]].map(|end| (at.0, y.at(end)));
        drawing.line("whisker", ends[0], ends[1]);
        for (x, y) in ends {
            drawing.line("whisker", (x - 5.0, y), (x + 5.0, y));
        }
        let interval = format!("{} to {}", short(s.ci95[0]), short(s.ci95[1]));
        let mut told = format!("k {}: silhouette {} (95 %: {interval})", of.k, short(s.value));
        if !of.refused.is_empty() {
            told.push_str(&format!("; refused: {}", of.refused.join(", ")));
        }
        drawing.circle(if of.refused.is_empty() { "mark" } else { "hollow" }, at, 4.0, &told);
        if of.k == report.k {
            drawing.circle("chosen", at, 8.5, &format!("{told}, chosen"));
        }
    }
    drawing.finish("Silhouette by number of segments, with 95 % intervals")
}

/// Sizes of the segments as bars.
pub(super) fn sizes(model: &Model) -> String {
    let (row, width, left) = (30.0, 660.0, NAMES);
    let height = row * model.segments.len() as f64 + 6.0;
    let mut drawing = Drawing::new(width, height);
    let most = model.segments.iter().map(|s| s.share).fold(0.0, f64::max);
    let x = Axis::new(0.0, most.max(f64::MIN_POSITIVE), left, width - 130.0);
    for (place, segment) in model.segments.iter().enumerate() {
        let y = row * place as f64 + 4.0;
        let told = format!("{}: {} rows", segment.name, count(segment.n as u64));
        drawing.text("strong", (left - 10.0, y + 15.0), "end", &clipped(&segment.name, NAME_LETTERS));
        let wide = (x.at(segment.share) - left).max(1.0);
        drawing.bar(&colour(segment.index), (left, y), (wide, row - 10.0), &told);
        let label = format!("{}  ·  {:.1} %", count(segment.n as u64), segment.share * 100.0);
        drawing.text("", (left + wide + 8.0, y + 15.0), "start", &label);
    }
    drawing.finish("Sizes of the segments")
}

/// Silhouettes of single rows by segment, falling.
pub(super) fn blades(blades: &[Blade], model: &Model, overall: Option<f64>) -> String {
    let rows: usize = blades.iter().map(|blade| blade.n).sum();
    let (width, left, top, gap) = (660.0, NAMES, 12.0, 9.0);
    // A segment is as thick as it is large, but never too thin to see.
    let thick = |blade: &Blade| 26.0 + 260.0 * blade.n as f64 / rows.max(1) as f64;
    let inside: f64 = blades.iter().map(|blade| thick(blade) + gap).sum();
    let (bottom, height) = (top + inside, top + inside + 44.0);
    let values = || blades.iter().flat_map(|blade| &blade.values);
    let low = values().copied().fold(0.0, f64::min);
    let high = values().copied().fold(0.1, f64::max);
    let x = Axis::rounded(low, high, left, width - 20.0);
    let mut drawing = Drawing::new(width, height);
    drawing.bottom_axis(&x, top, bottom);
    let mut y = top + gap / 2.0;
    for blade in blades {
        let tall = thick(blade);
        let name = model.segments.get(blade.segment).map_or("", |segment| segment.name.as_str());
        let last = blade.values.len().saturating_sub(1).max(1) as f64;
        let mut outline = vec![(x.at(0.0), y)];
        let along = |place: usize| y + tall * place as f64 / last;
        outline.extend(blade.values.iter().enumerate().map(|(place, value)| (x.at(*value), along(place))));
        outline.push((x.at(0.0), y + tall));
        let told = format!("{name}: mean silhouette {} of {} rows", short(blade.mean), count(blade.n as u64));
        drawing.shape(&colour(blade.segment), &outline, &told);
        let middle = y + tall / 2.0;
        drawing.text("strong", (left - 12.0, middle - 1.0), "end", &clipped(name, NAME_LETTERS));
        drawing.text("", (left - 12.0, middle + 14.0), "end", &format!("mean {}", short(blade.mean)));
        y += tall + gap;
    }
    if let Some(mean) = overall {
        drawing.line("rule", (x.at(mean), top), (x.at(mean), bottom));
        drawing.text("halo", (x.at(mean) + 6.0, top + 10.0), "start", &format!("mean {}", short(mean)));
    }
    drawing.text("strong", (f64::midpoint(left, width - 20.0), height - 6.0), "middle", "silhouette");
    drawing.finish("Silhouettes of single rows by segment")
}

/// Rows on their first two principal components.
pub(super) fn map(map: &Map, model: &Model) -> String {
    let (width, height) = (720.0, 480.0);
    let (left, right, top, bottom) = (58.0, width - 14.0, 12.0, height - 50.0);
    let all = || map.points.iter().map(|p| [p.x, p.y]).chain(map.centres.iter().copied());
    let ends = |axis: usize| {
        let values = all().map(|point| point[axis]);
        values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let ((x0, x1), (y0, y1)) = (ends(0), ends(1));
    let pad = |low: f64, high: f64| (high - low).max(1e-9) * 0.03;
    let x = Axis::new(x0 - pad(x0, x1), x1 + pad(x0, x1), left, right);
    let y = Axis::new(y0 - pad(y0, y1), y1 + pad(y0, y1), bottom, top);
    let mut drawing = Drawing::new(width, height);
    drawing.left_axis(&y, left, right);
    drawing.bottom_axis(&x, top, bottom);
    for segment in &model.segments {
        let own = map.points.iter().filter(|point| point.segment == segment.index);
        drawing.dots(&colour(segment.index), own.map(|point| (x.at(point.x), y.at(point.y))));
    }
    let mut labels: Vec<(f64, f64, f64)> = Vec::new();
    for (segment, centre) in model.segments.iter().zip(&map.centres) {
        let at = (x.at(centre[0]), y.at(centre[1]));
        drawing.circle("chosen", at, 6.0, &format!("centre of {}", segment.name));
        let near_end = at.0 > f64::midpoint(left, right);
        let (shift, anchor) = if near_end { (-10.0, "end") } else { (10.0, "start") };
        let wide = LETTER * segment.name.chars().count() as f64;
        let from = if near_end { at.0 + shift - wide } else { at.0 + shift };
        // A label goes below those that are there already.
        let mut line = at.1 + 4.0;
        while labels.iter().any(|(first, last, other)| {
            from < *last && *first < from + wide && (line - other).abs() < LABEL_LINE
        }) {
            line += LABEL_LINE / 2.0;
        }
        labels.push((from, from + wide, line));
        drawing.text("halo", (at.0 + shift, line), anchor, &segment.name);
    }
    let share = |axis: usize| {
        format!("component {} ({:.1} % of the variance)", axis + 1, map.explained[axis] * 100.0)
    };
    drawing.text("strong", (f64::midpoint(left, right), height - 8.0), "middle", &format!("→ {}", share(0)));
    drawing.text("halo", (left + 6.0, top + 14.0), "start", &format!("↑ {}", share(1)));
    drawing.finish("Rows on the plane in which they differ most")
}

/// The top of a tree of merges.
pub(super) fn dendrogram(tree: &Dendrogram, model: &Model) -> String {
    let (width, height) = (720.0, 330.0);
    let (left, right, top, bottom) = (58.0, width - 14.0, 12.0, height - 92.0);
    let leaves = tree.leaves.len();
    let most = tree.merges.iter().map(|merge| merge.height).fold(0.0, f64::max);
    let y = Axis::rounded(0.0, most.max(f64::MIN_POSITIVE), bottom, top);
    let step = (right - left) / leaves.max(1) as f64;
    let mut drawing = Drawing::new(width, height);
    drawing.left_axis(&y, left, right);
    let mut nodes: Vec<(f64, f64)> = (0..leaves).map(|n| (left + step * (n as f64 + 0.5), bottom)).collect();
    for merge in &tree.merges {
        let (Some(&a), Some(&b)) = (nodes.get(merge.left), nodes.get(merge.right)) else { continue };
        let level = y.at(merge.height);
        drawing.through("tree", &[a, (a.0, level), (b.0, level), b]);
        nodes.push((f64::midpoint(a.0, b.0), level));
    }
    for (place, leaf) in tree.leaves.iter().enumerate() {
        let at = left + step * (place as f64 + 0.5);
        let name = leaf.segment.and_then(|segment| model.segments.get(segment)).map(|s| s.name.as_str());
        let told = format!("{} rows", count(leaf.n as u64));
        let size = (step * 0.55).clamp(3.0, 12.0);
        let fill = leaf.segment.map_or("var(--quiet)".to_owned(), colour);
        drawing.bar(&fill, (at - size / 2.0, bottom + 4.0), (size, 8.0), name.unwrap_or(&told));
        let letters = ((step / 6.6) as usize).max(3);
        let words = name.map_or(Vec::new(), |name| lines(name, letters));
        let words = &words[..words.len().min(NAME_LINES)];
        let below = |line: usize| bottom + 28.0 + 14.0 * line as f64;
        for (line, word) in words.iter().enumerate() {
            drawing.text("strong", (at, below(line)), "middle", word);
        }
        // Numbers beside each other only where they fit.
        if letters >= count(leaf.n as u64).len() {
            drawing.text("", (at, below(words.len())), "middle", &count(leaf.n as u64));
        }
    }
    drawing.finish("Tree of merges, by height")
}

/// A text of at most `letters`.
fn clipped(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// A text in lines of at most `letters`, broken between words.
fn lines(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter().map(|line| clipped(&line, letters)).collect()
}
