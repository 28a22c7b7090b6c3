//! The few shapes that charts are made of. Coordinates are rounded to tenths of a pixel.

use std::fmt::Write;

/// Text as HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A count with its thousands apart.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A figure in four digits that say something.
pub(super) fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e15).contains(&size) {
        return format!("{value:.2e}");
    }
    if size >= 9_999.5 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(size.round() as u64));
    }
    let decimals = if size >= 1_000.0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else if size >= 0.1 || size == 0.0 {
        3
    } else {
        4
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Values on a line of pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From `low` at pixel `from` to `high` at pixel `to`; equal ends are moved apart.
    pub(super) fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        if high > low {
            Self { low, high, from, to }
        } else {
            Self { low: low - 0.5, high: low + 0.5, from, to }
        }
    }

    /// As [`new`](Self::new), with ends widened to round numbers.
    pub(super) fn rounded(low: f64, high: f64, from: f64, to: f64) -> Self {
        let axis = Self::new(low, high, from, to);
        let step = step(axis.low, axis.high);
        Self { low: (axis.low / step).floor() * step, high: (axis.high / step).ceil() * step, ..axis }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round values, about five.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let step = step(self.low, self.high);
        let (first, last) = ((self.low / step - 1e-9).ceil(), (self.high / step + 1e-9).floor());
        (0..=(last - first) as usize).map(|n| (first + n as f64) * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, of which about five fit.
fn step(low: f64, high: f64) -> f64 {
    let rough = (high - low) / 5.0;
    let power = 10.0_f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0];
    nice.iter().map(|n| n * power).find(|step| *step >= rough * 0.999).unwrap_or(power * 10.0)
}

/// A drawing in the making.
pub(super) struct Drawing {
    width: f64,
    height: f64,
    inside: String,
}

impl Drawing {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, inside: String::new() }
    }

    fn add(&mut self, shape: std::fmt::Arguments<'_>) {
        self.inside.write_fmt(shape).expect("a string takes all");
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// `anchor` is `start`, `middle` or `end`.
    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: &str, text: &str) {
        let ((x, y), text) = (at, escaped(text));
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// A circle with what is told when it is pointed at.
    pub(super) fn circle(&mut self, class: &str, at: (f64, f64), radius: f64, told: &str) {
        let ((x, y), told) = (at, escaped(told));
        self.add(format_args!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{told}</title></circle>"
        ));
    }

    /// A filled bar in a segment's colour.
    pub(super) fn bar(&mut self, colour: &str, at: (f64, f64), size: (f64, f64), told: &str) {
        let ((x, y), (w, h), told) = (at, size, escaped(told));
        self.add(format_args!(
            "<rect style=\"fill:{colour}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"2\"><title>{told}</title></rect>"
        ));
    }

    /// A line through points.
    pub(super) fn through(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!("<polyline class=\"{class}\" points=\"{}\"/>", points.join(" ")));
    }

    /// A filled shape in a segment's colour.
    pub(super) fn shape(&mut self, colour: &str, points: &[(f64, f64)], told: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let told = escaped(told);
        self.add(format_args!(
            "<polygon style=\"fill:{colour}\" points=\"{}\"><title>{told}</title></polygon>",
            points.join(" ")
        ));
    }

    /// Many dots of one colour, as one path.
    pub(super) fn dots(&mut self, colour: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            write!(path, "M{x:.1} {y:.1}h0").expect("a string takes all");
        }
        self.add(format_args!("<path class=\"points\" style=\"stroke:{colour}\" d=\"{path}\"/>"));
    }

    /// Grid lines and numbers of a vertical axis, between two x.
    pub(super) fn left_axis(&mut self, axis: &Axis, from: f64, to: f64) {
        for tick in axis.ticks() {
            let y = axis.at(tick);
            self.line("grid", (from, y), (to, y));
            self.text("", (from - 8.0, y + 4.0), "end", &short(tick));
        }
    }

    /// Grid lines and numbers of a horizontal axis, between two y.
    pub(super) fn bottom_axis(&mut self, axis: &Axis, top: f64, bottom: f64) {
        for tick in axis.ticks() {
            let x = axis.at(tick);
            self.line("grid", (x, top), (x, bottom));
            self.text("", (x, bottom + 17.0), "middle", &short(tick));
        }
    }

    /// The drawing, with what it shows for those who cannot see it.
    pub(super) fn finish(self, label: &str) -> String {
        let Self { width, height, inside } = self;
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\" style=\"max-width:{width}px\">{inside}</svg>",
            escaped(label)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_keep_what_they_say() {
        let shown: Vec<String> =
            [0.0, 0.52911, -0.0312, 12.3456, 386.687, 1234.5, 69_659.0, 2e-9, f64::NAN].map(short).to_vec();
        assert_eq!(shown, ["0", "0.529", "-0.0312", "12.35", "386.7", "1234", "69,659", "2.00e-9", "–"]);
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn ticks_are_round_and_within() {
        let axis = Axis::new(0.0, 1.0, 0.0, 100.0);
        assert_eq!(axis.ticks().len(), 6);
        let wide = Axis::rounded(103.0, 987.0, 0.0, 100.0);
        assert_eq!((wide.ticks().first(), wide.ticks().last()), (Some(&0.0), Some(&1_000.0)));
        assert!(Axis::new(3.0, 3.0, 0.0, 10.0).at(3.0) == 5.0);
    }

    #[test]
    fn nothing_written_by_an_author_becomes_markup() {
        assert_eq!(escaped("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
    }
}
