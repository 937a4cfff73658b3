//! What has changed between two comparisons, and whether for the worse.

use std::fmt::Write as _;

use super::record::Record;
use super::table::{Better, Cell, Figure, Spread, number};

/// Two comparisons held against each other.
///
/// The machine moves absolute figures, and moves those of the base with them: so it is the ratios to the base
/// that are compared, and the values only of figures that have no ratio, and of a base that is alone.
///
/// A figure is worse when its median is by more than the threshold and three of four pairs of rounds, one of
/// each comparison, are worse at all: neither a small step nor a noisy round alone is called a regression.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// As a fraction: 0.1 is 10 %.
    threshold: f64,
    list: Vec<Change>,
}

/// One figure of one gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub figure: Figure,
    pub gateway: String,
    pub then: Spread,
    pub now: Spread,
    /// Over all pairs of rounds: now divided by then, or, where ratios say nothing, less then.
    pub by: Spread,
    /// `then` and `now` are ratios to the base.
    of_ratios: bool,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Better,
    Worse,
    /// Shown alone: what the others are measured by.
    Yardstick,
}

impl Changes {
    /// Names of the columns of [`Changes::rows`].
    pub const HEAD: [&str; 6] = ["", "gateway", "verdict", "then", "now", "change"];

    /// `threshold` is a fraction.
    ///
    /// # Errors
    /// Where [`Record::comparable`] says that they cannot be compared.
    pub fn between(then: &Record, now: &Record, threshold: f64) -> Result<Self, String> {
        now.comparable(then)?;
        let is_alone = now.gateways.len() == 1;
        let list = (now.figures.iter())
            .filter_map(|cell| {
                let mut all = then.figures.iter();
                let was =
                    all.find(|was| was.figure == cell.figure && was.gateway == cell.gateway)?;
                let mut change = Change::of(was, cell, threshold)?;
                let judged = is_alone || cell.gateway != now.base;
                if !judged
                    || !now
                        .gateways
                        .iter()
                        .any(|gateway| gateway.name == cell.gateway)
                {
                    change.verdict = Verdict::Yardstick;
                }
                Some(change)
            })
            .collect();
        Ok(Self { threshold, list })
    }

    /// How many figures are worse.
    pub fn worse(&self) -> usize {
        self.count(Verdict::Worse)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.list
            .iter()
            .filter(|change| change.verdict == verdict)
            .count()
    }

    /// One sentence.
    pub fn summary(&self) -> String {
        let judged = self.list.len() - self.count(Verdict::Yardstick);
        // Without the digits that 0.07 × 100 has.
        let percent = (self.threshold * 1e4).round() / 1e2;
        let worse = match self.worse() {
            0 => "No figure is worse".to_owned(),
            1 => "1 figure is worse".to_owned(),
            count => format!("{count} figures are worse"),
        };
        format!(
            "{worse} by more than {percent} %, {} better, of {judged}.",
            self.count(Verdict::Better)
        )
    }

    /// Cells of a table with [`Changes::HEAD`].
    pub fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.list.iter().map(Change::row)
    }

    /// A table and the summary, in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|", Self::HEAD.join(" | "));
        text.push_str(&"---|".repeat(Self::HEAD.len()));
        for row in self.rows() {
            _ = write!(text, "\n| {} |", row.join(" | "));
        }
        _ = write!(text, "\n\n{}\n", self.summary());
        text
    }
}

impl Change {
    /// `None` where the rounds have nothing that can be compared.
    fn of(then: &Cell, now: &Cell, threshold: f64) -> Option<Self> {
        let of_ratios = !then.ratios.is_empty() && !now.ratios.is_empty();
        let (was, is) = match of_ratios {
            true => (&then.ratios, &now.ratios),
            false => (&then.rounds, &now.rounds),
        };
        let spread = Spread::of(was.clone())?;
        let (by, verdict) = judge(now.figure.better(), was, is, threshold)?;
        Some(Self {
            figure: now.figure,
            gateway: now.gateway.clone(),
            then: spread,
            now: Spread::of(is.clone())?,
            by,
            of_ratios,
            verdict,
        })
    }

    fn row(&self) -> Vec<String> {
        let shown = |spread: &Spread| match self.of_ratios {
            true => spread.to_string(),
            false => number(spread.median),
        };
        let by = match self.figure.better() {
            Better::Lower | Better::Higher => self.by.to_string(),
            Better::Less { .. } | Better::None => {
                let Spread {
                    median,
                    lower,
                    upper,
                    ..
                } = self.by;
                format!("{median:+.2}, {lower:+.2} to {upper:+.2}")
            }
        };
        let verdict = match self.verdict {
            Verdict::Same => "same",
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Yardstick => "-",
        };
        [
            self.figure.label().to_owned(),
            self.gateway.clone(),
            verdict.to_owned(),
            shown(&self.then),
            shown(&self.now),
            by,
        ]
        .into()
    }
}

/// What the rounds of `now` are to those of `then`, and what to call it.
fn judge(better: Better, then: &[f64], now: &[f64], threshold: f64) -> Option<(Spread, Verdict)> {
    let pairs = |of: fn(f64, f64) -> f64| {
        let all = then
            .iter()
            .flat_map(|then| now.iter().map(move |now| of(*then, *now)));
        Spread::of(all.collect())
    };
    let (ratio, difference) = (|then, now| now / then, |then, now| now - then);
    // Whether three of four pairs go one way, and the median far enough.
    let verdict = |worse: bool, better: bool| match (worse, better) {
        (true, _) => Verdict::Worse,
        (_, true) => Verdict::Better,
        _ => Verdict::Same,
    };
    let (up, down) = (1.0 + threshold, 1.0 / (1.0 + threshold));
    let by = match better {
        Better::Lower | Better::Higher => pairs(ratio)?,
        Better::Less { .. } | Better::None => pairs(difference)?,
    };
    let (risen, fallen) = match better {
        Better::Lower | Better::Higher => (
            by.median > up && by.lower > 1.0,
            by.median < down && by.upper < 1.0,
        ),
        Better::Less { least } => {
            let least = Spread::of(then.to_vec())?
                .median
                .abs()
                .mul_add(threshold, least);
            (
                by.median > least && by.lower > 0.0,
                by.median < -least && by.upper < 0.0,
            )
        }
        // One round with more of them than any had is enough.
        Better::None => {
            let most = |rounds: &[f64]| rounds.iter().copied().fold(0.0, f64::max);
            (most(now) > most(then), most(now) < most(then))
        }
    };
    Some(match better {
        Better::Higher => (by, verdict(fallen, risen)),
        _ => (by, verdict(risen, fallen)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    fn verdict(better: Better, then: &[f64], now: &[f64]) -> Verdict {
        judge(better, then, now, 0.1).unwrap().1
    }

    #[test]
    fn a_figure_is_worse_when_it_is_far_off_and_most_rounds_agree() {
        let then = [1.20, 1.21, 1.19, 1.22, 1.20];
        for (now, wanted) in [
            ([1.20, 1.21, 1.19, 1.22, 1.20], Verdict::Same),
            // All are worse, by 5 %.
            ([1.26, 1.27, 1.25, 1.28, 1.26], Verdict::Same),
            ([1.36, 1.37, 1.35, 1.38, 1.36], Verdict::Worse),
            ([1.05, 1.06, 1.04, 1.07, 1.05], Verdict::Better),
            // One round alone.
            ([1.20, 1.21, 9.00, 1.22, 1.20], Verdict::Same),
            // The median is far off, and nearly as many rounds are better than before.
            ([1.00, 1.10, 1.40, 1.45, 1.50], Verdict::Same),
        ] {
            assert_eq!(verdict(Better::Lower, &then, &now), wanted, "{now:?}");
        }
    }

    #[test]
    fn of_rates_more_is_better() {
        let then = [1000.0, 1010.0, 990.0];
        assert_eq!(
            verdict(Better::Higher, &then, &[800.0, 810.0, 790.0]),
            Verdict::Worse
        );
        assert_eq!(
            verdict(Better::Higher, &then, &[1200.0, 1210.0, 1190.0]),
            Verdict::Better
        );
        assert_eq!(
            verdict(Better::Higher, &then, &[950.0, 960.0, 940.0]),
            Verdict::Same
        );
    }

    #[test]
    fn differences_are_judged_by_what_can_be_told_apart() {
        let better = Better::Less { least: 0.5 };
        assert_eq!(
            verdict(better, &[0.01, 0.02, 0.03], &[0.2, 0.3, 0.4]),
            Verdict::Same
        );
        assert_eq!(
            verdict(better, &[0.01, 0.02, 0.03], &[0.7, 0.8, 0.9]),
            Verdict::Worse
        );
        assert_eq!(
            verdict(better, &[-0.2, 0.9, 1.5], &[-0.8, -0.9, -0.5]),
            Verdict::Better
        );
        // 10 % of 20 and more.
        assert_eq!(verdict(better, &[20.0; 3], &[22.0; 3]), Verdict::Same);
        assert_eq!(verdict(better, &[20.0; 3], &[23.0; 3]), Verdict::Worse);
    }

    #[test]
    fn a_failed_request_more_is_worse() {
        assert_eq!(
            verdict(Better::None, &[0.0; 5], &[0.0, 0.0, 1.0, 0.0, 0.0]),
            Verdict::Worse
        );
        assert_eq!(verdict(Better::None, &[0.0; 5], &[0.0; 5]), Verdict::Same);
        assert_eq!(
            verdict(Better::None, &[2.0, 0.0], &[0.0; 2]),
            Verdict::Better
        );
    }

    #[test]
    fn the_machine_may_have_become_slower_but_not_the_gateway_alone() {
        let then = record(&[(10.0, 12.0), (11.0, 13.0), (10.0, 12.0)]);
        let slower = record(&[(30.0, 36.0), (33.0, 39.0), (30.0, 36.0)]);
        let changes = Changes::between(&then, &slower, 0.1).unwrap();
        assert_eq!(changes.worse(), 0, "{}", changes.markdown());

        let ours = record(&[(10.0, 15.0), (11.0, 16.0), (10.0, 15.0)]);
        let changes = Changes::between(&then, &ours, 0.1).unwrap();
        assert_eq!(changes.worse(), 1);
        let text = changes.markdown();
        for line in [
            "| CPU µs a short request | nginx | - | 10.00 | 10.00 | 1.00×, 1.00-1.00 |",
            "| CPU µs a short request | sluicegate | worse | 1.20×, 1.19-1.20 | 1.50×, 1.48-1.50 | 1.25×, 1.23-1.25 |",
            "| failed requests | sluicegate | same | 0 | 0 | +0.00, +0.00 to +0.00 |",
            "1 figure is worse by more than 10 %, 0 better, of 2.",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(Changes::between(&then, &ours, 0.3).unwrap().worse(), 0);
    }

    #[test]
    fn a_gateway_that_is_its_own_yardstick_is_judged_by_its_values() {
        let alone = |rounds: &[(f64, f64)]| {
            let mut record = record(rounds);
            record.gateways.truncate(1);
            record.figures.retain(|cell| cell.gateway == "nginx");
            record
        };
        let then = alone(&[(10.0, 0.0), (11.0, 0.0)]);
        let now = alone(&[(15.0, 0.0), (16.0, 0.0)]);
        assert_eq!(Changes::between(&then, &now, 0.1).unwrap().worse(), 1);
    }

    #[test]
    fn what_cannot_be_compared_is_not() {
        let then = record(&[(10.0, 12.0)]);
        let mut now = then.clone();
        now.setup.logs = true;
        let error = Changes::between(&then, &now, 0.1).unwrap_err();
        assert!(error.contains("logs: false then, true now"), "{error}");
    }
}
