//! Lines over an axis.

use std::fmt::Write as _;

use super::{details, escape, number, table, ticks};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// So few points are marked one by one.
const MARKED: usize = 3;

/// What the horizontal axis is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Axis {
    /// From 0 to this.
    Seconds(f64),
    /// Quantiles, with as much room for each further nine.
    Nines,
}

pub(super) struct Line {
    pub name: &'static str,
    /// Where it breaks off and begins again, another run of points.
    pub runs: Vec<Vec<(f64, f64)>>,
    /// The area beneath it is filled.
    pub filled: bool,
    /// It shows what should not be.
    pub bad: bool,
}

/// A plot of one or more lines that share an axis from 0 up.
pub(super) struct Chart {
    /// Unique in the document, a word.
    pub id: &'static str,
    /// What a reader who does not see it is told.
    pub describe: String,
    pub x: Axis,
    pub x_label: &'static str,
    pub y_label: &'static str,
    pub lines: Vec<Line>,
}

impl Chart {
    /// The plot, its legend, and its numbers behind a fold.
    pub(super) fn html(&self) -> String {
        let mut text = String::from("<figure>\n");
        if self.lines.len() > 1 {
            text.push_str(&self.legend());
        }
        text.push_str(&self.svg());
        text.push_str("</figure>\n");
        text.push_str(&details("The numbers", &self.numbers()));
        text
    }

    fn svg(&self) -> String {
        let id = self.id;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-desc\">\n<title id=\"{id}-title\">{}, by {}</title>\n\
             <desc id=\"{id}-desc\">{}</desc>\n",
            escape(self.y_label),
            escape(self.x_label),
            escape(&self.describe)
        );
        self.axes(&mut svg);
        for (place, line) in self.lines.iter().enumerate() {
            self.line(&mut svg, place, line);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in ticks(0.0, self.highest(), 5) {
            let y = self.y(tick);
            _ = writeln!(
                svg,
                "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"faint\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                number(tick)
            );
        }
        for (at, label) in self.marks() {
            let x = self.x(at);
            _ = writeln!(
                svg,
                "<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
                 <text class=\"faint\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                bottom + 5.0,
                bottom + 18.0
            );
        }
        _ = writeln!(
            svg,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text class=\"faint\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 6.0,
            escape(self.x_label),
            f64::midpoint(TOP, bottom),
            escape(self.y_label)
        );
    }

    fn line(&self, svg: &mut String, place: usize, line: &Line) {
        let class = class(place, line);
        for run in &line.runs {
            let mut path = String::new();
            for (i, (x, y)) in run.iter().enumerate() {
                let letter = if i == 0 { 'M' } else { 'L' };
                _ = write!(path, "{letter}{:.1} {:.1}", self.x(*x), self.y(*y));
            }
            if let (true, Some(first), Some(last)) = (line.filled, run.first(), run.last()) {
                let ground = self.y(0.0);
                let (first, last) = (self.x(first.0), self.x(last.0));
                _ = writeln!(
                    svg,
                    "<path class=\"area fill-{class}\" d=\"{path}L{last:.1} {ground:.1}L{first:.1} {ground:.1}Z\"/>"
                );
            }
            if run.len() < MARKED && !line.filled {
                for (x, y) in run {
                    let (x, y) = (self.x(*x), self.y(*y));
                    _ = writeln!(
                        svg,
                        "<circle class=\"fill-{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"
                    );
                }
            }
            _ = writeln!(
                svg,
                "<path class=\"line {class} dash-{class}\" d=\"{path}\"/>"
            );
        }
    }

    fn legend(&self) -> String {
        let mut text = String::from("<ul class=\"legend\">\n");
        for (place, line) in self.lines.iter().enumerate() {
            let class = class(place, line);
            let name = escape(line.name);
            _ = writeln!(
                text,
                "<li><svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 28 12\" aria-hidden=\"true\">\
                 <path class=\"line {class} dash-{class}\" d=\"M0 6H28\"/></svg>{name}</li>"
            );
        }
        text.push_str("</ul>\n");
        text
    }

    /// One row for each place of the axis that any line has.
    fn numbers(&self) -> String {
        let mut places: Vec<f64> = (self.lines.iter())
            .flat_map(|line| line.runs.iter().flatten().map(|(x, _)| *x))
            .collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let head: Vec<&str> = [self.x_label]
            .into_iter()
            .chain(self.lines.iter().map(|line| line.name))
            .collect();
        let rows: Vec<Vec<String>> = (places.iter())
            .map(|place| {
                let values = self.lines.iter().map(|line| {
                    // A step has two values at one place; the later counts.
                    let mut points = line.runs.iter().flatten().rev();
                    let found = points.find(|(x, _)| x == place);
                    found.map_or_else(|| "-".to_owned(), |(_, y)| number(*y))
                });
                [self.show(*place)].into_iter().chain(values).collect()
            })
            .collect();
        table(self.y_label, &head, &rows)
    }

    fn show(&self, x: f64) -> String {
        match self.x {
            Axis::Seconds(_) => format!("{x:.1}"),
            Axis::Nines => format!("{:.4}", x * 100.0)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned(),
        }
    }

    fn marks(&self) -> Vec<(f64, String)> {
        match self.x {
            Axis::Seconds(last) => (ticks(0.0, last, 8).into_iter())
                .map(|tick| (tick, number(tick)))
                .collect(),
            Axis::Nines => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]
                .into_iter()
                .filter(|quantile| *quantile <= self.farthest())
                .map(|quantile| (quantile, self.show(quantile)))
                .collect(),
        }
    }

    fn x(&self, x: f64) -> f64 {
        let share = match self.x {
            Axis::Seconds(last) => x / last.max(1e-9),
            Axis::Nines => nines(x) / nines(self.farthest()).max(1e-9),
        };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - y / self.highest() * (HEIGHT - BOTTOM - TOP)
    }

    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.lines
            .iter()
            .flat_map(|line| line.runs.iter().flatten())
    }

    fn highest(&self) -> f64 {
        let highest = self.points().map(|(_, y)| *y).fold(0.0, f64::max);
        if highest > 0.0 { highest * 1.05 } else { 1.0 }
    }

    fn farthest(&self) -> f64 {
        self.points().map(|(x, _)| *x).fold(0.9, f64::max)
    }
}

fn class(place: usize, line: &Line) -> &'static str {
    if line.bad {
        return "bad-line";
    }
    ["a", "b", "c", "d"][place % 4]
}

fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-9).log10()
}
