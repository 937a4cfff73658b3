//! Durations with units, and percentages.

use std::time::Duration;

/// `250us`, `20ms`, `1.5s`, `5m`, `1h`; 0 needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" if number == "0" => 1.0,
        _ => return Err(format!("{text:?} has no unit: us, ms, s, m, h")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no duration"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("{text:?} is no duration"))
}

/// `10%` or `10`, as a fraction.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("{text:?} is no percentage from 0% to 1000%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_fractions() {
        for (text, fraction) in [("10%", 0.1), ("10", 0.1), ("2.5 %", 0.025), ("0", 0.0)] {
            assert_eq!(percent(text), Ok(fraction));
        }
        for wrong in ["", "%", "-1%", "nan", "inf", "10%%", "ten", "5000"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_carry_units() {
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "-1s", "1d", "1e9h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
