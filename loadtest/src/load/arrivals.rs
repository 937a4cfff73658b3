//! When requests begin.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// The rule by which requests begin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// So many clients, each sends its next request when the last one is answered.
    Closed { clients: usize },
    /// So many requests a second whatever the answers do. Latency counts from when a request should have begun.
    Open { per_second: f64, spacing: Spacing },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Exponential gaps, as independent users make them.
    Poisson,
    /// Equal gaps.
    Uniform,
}

/// `closed:CLIENTS`, `open:RATE/s`, `open:RATE/s:uniform`.
impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is neither closed:CLIENTS nor open:RATE/s[:poisson|:uniform]");
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        match kind {
            "closed" => match rest.parse() {
                Ok(clients @ 1..=20_000) => Ok(Self::Closed { clients }),
                _ => Err(format!("{rest:?} is no number of clients from 1 to 20000")),
            },
            "open" => {
                let (rate, spacing) = match rest.split_once(':') {
                    None | Some((_, "poisson")) => {
                        (rest.trim_end_matches(":poisson"), Spacing::Poisson)
                    }
                    Some((rate, "uniform")) => (rate, Spacing::Uniform),
                    Some(_) => return Err(wrong()),
                };
                match rate.trim_end_matches("/s").parse() {
                    Ok(per_second) if per_second > 0.0 && per_second <= 100_000.0 => {
                        Ok(Self::Open {
                            per_second,
                            spacing,
                        })
                    }
                    _ => Err(format!(
                        "{rate:?} is no rate above 0 and up to 100000 a second"
                    )),
                }
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { clients } => write!(f, "closed:{clients}"),
            Self::Open {
                per_second,
                spacing: Spacing::Poisson,
            } => write!(f, "open:{per_second}/s"),
            Self::Open {
                per_second,
                spacing: Spacing::Uniform,
            } => write!(f, "open:{per_second}/s:uniform"),
        }
    }
}

/// The times at which the requests of an open plan should begin, counted from the plan's start.
#[derive(Debug)]
pub struct Schedule {
    per_second: f64,
    spacing: Spacing,
    random: fastrand::Rng,
    /// Seconds.
    at: f64,
}

impl Schedule {
    /// The same seed gives the same times.
    pub fn new(per_second: f64, spacing: Spacing, seed: u64) -> Self {
        Self {
            per_second,
            spacing,
            random: fastrand::Rng::with_seed(seed),
            at: 0.0,
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let gaps = match self.spacing {
            Spacing::Uniform => 1.0,
            Spacing::Poisson => -(1.0 - self.random.f64()).ln(),
        };
        self.at += gaps / self.per_second;
        Duration::try_from_secs_f64(self.at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_keeps_its_rate_and_repeats_with_its_seed() {
        let times = |spacing, seed| {
            Schedule::new(200.0, spacing, seed)
                .take(20_000)
                .collect::<Vec<_>>()
        };
        let poisson = times(Spacing::Poisson, 1);
        assert_eq!(poisson, times(Spacing::Poisson, 1));
        assert_ne!(poisson, times(Spacing::Poisson, 2));
        assert!((97.0..103.0).contains(&poisson[19_999].as_secs_f64()));
        assert_eq!(times(Spacing::Uniform, 1)[199], Duration::from_secs(1));
        // The deviation of exponential gaps is their mean.
        let gaps: Vec<_> = poisson
            .windows(2)
            .map(|w| (w[1] - w[0]).as_secs_f64() * 200.0)
            .collect();
        let variance = gaps.iter().map(|gap| (gap - 1.0).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.9..1.1).contains(&variance), "{variance}");
    }

    #[test]
    fn arrivals_are_written_as_they_are_read() {
        for text in ["closed:64", "open:200/s", "open:0.5/s:uniform"] {
            assert_eq!(text.parse::<Arrivals>().unwrap().to_string(), text);
        }
        assert_eq!(
            "open:10:poisson".parse::<Arrivals>().unwrap().to_string(),
            "open:10/s"
        );
        for wrong in [
            "",
            "closed",
            "closed:0",
            "closed:x",
            "open:0/s",
            "open:-1",
            "open:1/s:random",
            "half:3",
        ] {
            assert!(wrong.parse::<Arrivals>().is_err(), "{wrong}");
        }
    }
}
