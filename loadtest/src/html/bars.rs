//! One figure of several gateways: rounds, quartiles and median on a common axis.

use std::fmt::Write as _;

use super::{escape, number, ticks};
use crate::compare::Cell;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 190.0;
const ROW: f64 = 30.0;
const BOTTOM: f64 = 24.0;

/// A row for each cell. `id` is unique in the document, `base` what ratios are to.
pub(super) fn bars(id: &str, label: &str, cells: &[&Cell], base: &str) -> String {
    let height = ROW * cells.len() as f64 + BOTTOM;
    let (low, high) = range(cells);
    let x = |value: f64| LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-title {id}-desc\">\n<title id=\"{id}-title\">{}</title>\n\
         <desc id=\"{id}-desc\">{}</desc>\n",
        escape(label),
        escape(&describe(cells, base))
    );
    let ground = height - BOTTOM;
    for tick in ticks(low, high, 5) {
        let x = x(tick);
        _ = writeln!(
            svg,
            "<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{ground:.1}\"/>\
             <text class=\"faint\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            ground + 16.0,
            number(tick)
        );
    }
    for (place, cell) in cells.iter().enumerate() {
        let middle = ROW * (place as f64 + 0.5);
        let class = ["a", "b", "c", "d"][place % 4];
        let (lower, upper) = (x(cell.value.lower), x(cell.value.upper));
        _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"area fill-{class}\" x=\"{lower:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\"/>",
            LEFT - 10.0,
            middle + 4.0,
            escape(&cell.gateway),
            middle - 8.0,
            (upper - lower).max(1.0)
        );
        for round in &cell.rounds {
            let x = x(*round);
            _ = write!(
                svg,
                "<circle class=\"fill-{class}\" cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"2.5\"/>"
            );
        }
        let median = x(cell.value.median);
        _ = writeln!(
            svg,
            "<line class=\"line {class}\" x1=\"{median:.1}\" x2=\"{median:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            middle - 10.0,
            middle + 10.0,
            WIDTH - RIGHT + 12.0,
            middle + 4.0,
            escape(&shown(cell))
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// From 0, or from below it where a figure is.
fn range(cells: &[&Cell]) -> (f64, f64) {
    let rounds = || cells.iter().flat_map(|cell| cell.rounds.iter().copied());
    let low = rounds().fold(0.0, f64::min);
    let high = rounds().fold(low, f64::max);
    let room = (high - low) * 0.04;
    match room > 0.0 {
        true => (if low < 0.0 { low - room } else { low }, high + room),
        false => (low, low + 1.0),
    }
}

fn describe(cells: &[&Cell], base: &str) -> String {
    let medians: Vec<String> = (cells.iter())
        .map(|cell| format!("{} {}", cell.gateway, shown(cell)))
        .collect();
    format!("Medians, and ratios to {base}: {}.", medians.join("; "))
}

/// The median, and the ratio with its quartiles.
pub(super) fn shown(cell: &Cell) -> String {
    let median = number(cell.value.median);
    match cell.ratio {
        Some(ratio) => format!("{median} ({ratio})"),
        None => median,
    }
}
