//! A report as a picture: what is lost against what a failure repeats, both on logarithmic scales.

use std::fmt::Write as _;

use super::{Report, Row};
use crate::human::rounded;

/// In pixels, of the whole and of the plotted part within it.
const SIZE: (f64, f64) = (760.0, 480.0);
const LEFT: f64 = 90.0;
const RIGHT: f64 = 730.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 400.0;

const TITLE: &str = "What saving costs, and what it saves";

const STYLE: &str = "\
svg{background:#fff;color:#222;font:13px sans-serif}\
text{fill:currentColor}.small{font-size:11px}.title{font-size:16px;font-weight:bold}\
.grid{stroke:currentColor;stroke-opacity:.15}.line{fill:none;stroke-width:2}\
.saving{stroke:#0072b2;fill:#0072b2}.repeating{stroke:#d55e00;fill:#d55e00}\
.both{stroke:currentColor;fill:currentColor}\
.line.saving,.line.repeating,.line.both{fill:none}text.saving,text.repeating,text.both{stroke:none}\
.best{fill:none;stroke:currentColor;stroke-width:2}\
@media(prefers-color-scheme:dark){svg{background:#181818;color:#eee}\
.saving{stroke:#56b4e9;fill:#56b4e9}.repeating{stroke:#f0a35e;fill:#f0a35e}}";

/// A logarithmic axis: from which power of ten to which, and where on the picture.
struct Axis {
    powers: (i32, i32),
    places: (f64, f64),
}

impl Axis {
    /// One that has room for `values`, which are greater than 0.
    #[expect(clippy::cast_possible_truncation, reason = "powers of ten are small")]
    fn around(values: impl Iterator<Item = f64> + Clone, places: (f64, f64)) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::MIN_POSITIVE, f64::max);
        let lower = least.log10().floor() as i32;
        let upper = most.log10().ceil() as i32;
        Self {
            powers: (lower, upper.max(lower + 1)),
            places,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let (lower, upper) = (f64::from(self.powers.0), f64::from(self.powers.1));
        let part = ((value.log10() - lower) / (upper - lower)).clamp(0.0, 1.0);
        self.places.0 + part * (self.places.1 - self.places.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.powers.0..=self.powers.1).map(|power| 10_f64.powi(power))
    }
}

/// Less than this is drawn as this, in percent: a logarithm has no zero.
const LEAST: f64 = 1e-5;

/// A class, which is also its name in the legend, and what its line shows of a row, in percent.
type Curve = (&'static str, fn(&Row) -> f64);

const CURVES: [Curve; 3] = [
    ("saving", |row| row.overhead_percent),
    ("repeating", |row| row.repeating_percent),
    ("both", |row| row.overhead_percent + row.repeating_percent),
];

/// The report as SVG, readable on light and dark ground.
pub(super) fn svg(report: &Report) -> String {
    let rows = &report.rows;
    let percents = rows
        .iter()
        .flat_map(|row| [row.overhead_percent, row.repeating_percent])
        .map(|percent| percent.max(LEAST));
    let down = Axis::around(percents, (BOTTOM, TOP));
    let repeats = rows.iter().map(|row| row.repeats_per_failure);
    let across = Axis::around(repeats, (LEFT, RIGHT));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\">\n\
         <title>{TITLE}</title>\n<style>{STYLE}</style>\n",
        SIZE.0, SIZE.1
    );
    titles(&mut svg, report);
    axes(&mut svg, &across, &down);
    legend(&mut svg);
    grid(&mut svg, &across, &down);
    for (class, percent) in CURVES {
        let point = |row: &Row| {
            let (x, y) = (row.repeats_per_failure, percent(row).max(LEAST));
            format!("{:.1},{:.1}", across.place(x), down.place(y))
        };
        let points: Vec<_> = rows.iter().map(point).collect();
        let points = points.join(" ");
        let _ = writeln!(
            svg,
            "<polyline class=\"line {class}\" points=\"{points}\"/>"
        );
    }
    intervals(&mut svg, report, &across, &down);
    svg + "</svg>\n"
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn titles(svg: &mut String, report: &Report) {
    let machine = &report.machine;
    let subtitle = format!(
        "{} records/s into {}, {} a day",
        rounded(machine.records_per_second),
        report.broker,
        super::failures(machine.failures_per_day)
    );
    text(svg, "title", (LEFT, 24.0), "start", TITLE);
    text(svg, "", (LEFT, 44.0), "start", &subtitle);
}

/// The ticks of both axes, and what they are of.
fn axes(svg: &mut String, across: &Axis, down: &Axis) {
    let name = "records that a failure repeats, in the mean";
    text(svg, "", ((LEFT + RIGHT) / 2.0, 450.0), "middle", name);
    for tick in across.ticks() {
        let place = (across.place(tick), BOTTOM + 18.0);
        text(svg, "small", place, "middle", &rounded(tick));
    }
    for tick in down.ticks() {
        let place = (LEFT - 8.0, down.place(tick) + 4.0);
        text(svg, "small", place, "end", &format!("{tick} %"));
    }
    let _ = writeln!(
        svg,
        "<text transform=\"translate(24 {:.1}) rotate(-90)\" text-anchor=\"middle\">part of the time that is lost</text>",
        (TOP + BOTTOM) / 2.0
    );
}

fn legend(svg: &mut String) {
    for (index, (class, _)) in CURVES.into_iter().enumerate() {
        let x = LEFT + 10.0 + 90.0 * index as f64;
        text(
            svg,
            class,
            (x, 472.0),
            "start",
            &format!("\u{2501} {class}"),
        );
    }
    let points = "points: records between saves; ring: recommended";
    text(svg, "small", (RIGHT, 472.0), "end", points);
}

fn grid(svg: &mut String, across: &Axis, down: &Axis) {
    let mut line = |x1: f64, y1: f64, x2: f64, y2: f64| {
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    };
    for x in across.ticks().map(|tick| across.place(tick)) {
        line(x, TOP, x, BOTTOM);
    }
    for y in down.ticks().map(|tick| down.place(tick)) {
        line(LEFT, y, RIGHT, y);
    }
}

/// The intervals on the line of both; the recommended one has a ring.
fn intervals(svg: &mut String, report: &Report, across: &Axis, down: &Axis) {
    let mut labelled = f64::NEG_INFINITY;
    for row in &report.rows {
        let x = across.place(row.repeats_per_failure);
        let both = row.overhead_percent + row.repeating_percent;
        let y = down.place(both.max(LEAST));
        let is_best = row.interval == report.recommended;
        let _ = writeln!(
            svg,
            "<circle class=\"both\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
        );
        if is_best {
            let _ = writeln!(
                svg,
                "<circle class=\"best\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\"/>"
            );
        }
        // Small intervals repeat nearly the same, so their names would lie over each other.
        if is_best || x - labelled > 48.0 {
            labelled = x;
            let x = x + 6.0;
            let label = rounded(row.interval as f64);
            let (y, weight) = match is_best {
                true => (y - 12.0, " font-weight=\"bold\""),
                false => (y - 6.0, ""),
            };
            let _ = writeln!(
                svg,
                "<text class=\"small\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"start\"{weight}>{label}</text>"
            );
        }
    }
}
