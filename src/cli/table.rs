//! Tables for people: no lines but one under the head, so that they can be copied.

use comfy_table::{ContentArrangement, Table, presets};

/// A table with this head; add rows, then print it.
pub(super) fn with_head(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|h| h.to_uppercase()));
    table
}

/// Its text, without blanks at the ends of lines.
pub(super) fn text(table: &Table) -> String {
    table.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A span for people: `850 ms`, `12.3 s`, `4 min 10 s`.
pub(super) fn span(micros: i64) -> String {
    let ms = micros / 1000;
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}
