//! Results as one HTML file: plots in SVG, no script, nothing fetched. Well-formed XML, so that any tool can
//! read it.
//!
//! Each plot has a description and, beneath it, its numbers as a table, for those who do not see it. Lines
//! differ in dashes as well as in colour.

mod bars;
mod chart;
mod comparison;
mod run;

use std::fmt::Display;

pub use comparison::comparison;
pub use run::run;

const STYLE: &str = include_str!("style.css");

/// A whole document around `body`, which is markup.
fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// Text as markup. What XML has no way to write is replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A table; the first column names the rows, the others hold numbers.
fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!(
        "<table>\n<caption>{}</caption>\n<thead><tr>",
        escape(caption)
    );
    for name in head {
        text.push_str(&format!("<th scope=\"col\">{}</th>", escape(name)));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            if column == 0 {
                text.push_str(&format!("<th scope=\"row\">{cell}</th>"));
            } else {
                text.push_str(&format!("<td>{cell}</td>"));
            }
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table>\n");
    text
}

fn details(summary: &str, content: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n{}</details>\n",
        escape(summary),
        wide(summary, content)
    )
}

/// What may be wider than the screen: it scrolls by itself, also by keyboard.
fn wide(label: &str, content: &str) -> String {
    format!(
        "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">\n{content}</div>\n",
        escape(label)
    )
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: String = items
        .into_iter()
        .map(|item| format!("<li>{}</li>\n", escape(&item.to_string())))
        .collect();
    format!("<ul>\n{items}</ul>\n")
}

/// A number that a person reads: three significant digits, or all of a whole number.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// Marks of an axis that spans `low` to `high`: about `count`, at 1, 2 or 5 times a power of ten.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = (high - low).max(f64::MIN_POSITIVE);
    let rough = span / count.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `page` is well-formed; returns all of its text.
    pub(super) fn text_of(page: &str) -> String {
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..roxmltree::ParsingOptions::default()
        };
        let document = roxmltree::Document::parse_with_options(page, options)
            .unwrap_or_else(|error| panic!("{error}\n{page}"));
        for node in document.descendants() {
            assert_ne!(node.tag_name().name(), "script");
            for attribute in node.attributes() {
                let loads = ["src", "href", "xlink:href", "data", "onload"];
                assert!(!loads.contains(&attribute.name()), "{attribute:?}");
            }
            if node.tag_name().name() == "svg" && node.attribute("aria-hidden") != Some("true") {
                let named = node.attribute("aria-labelledby").expect("a description");
                for id in named.split(' ') {
                    let mut all = node.descendants();
                    assert!(all.any(|child| child.attribute("id") == Some(id)), "{id}");
                }
            }
        }
        assert!(!page.contains("url(") && !page.contains("@import"));
        for broken in ["NaN", "inf"] {
            assert!(!page.contains(&format!("\"{broken}")), "{broken}");
        }
        let texts = document.descendants().filter(roxmltree::Node::is_text);
        let texts: Vec<&str> = texts.filter_map(|node| node.text()).collect();
        texts.join(" ")
    }

    #[test]
    fn what_others_wrote_stays_text() {
        let title = "a <b> & \"c\" \u{1}\u{ffff}";
        let page = page(title, &table(title, &[title], &[vec![title.to_owned()]]));
        assert_eq!(
            text_of(&page)
                .matches("a <b> & \"c\" \u{fffd}\u{fffd}")
                .count(),
            5
        );
    }

    #[test]
    fn an_axis_has_round_marks() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.0, 0.7, 4), [0.0, 0.2, 0.4, 0.6000000000000001]);
        assert_eq!(ticks(-3.0, 4.0, 4), [-2.0, 0.0, 2.0, 4.0]);
        assert_eq!(ticks(0.0, 0.0, 4), [0.0]);
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 3.0, 0.1234, 1.236, 12.34, 1234.5].map(number);
        assert_eq!(shown, ["0", "3", "0.123", "1.24", "12.3", "1234"]);
    }
}
