//! Durations (`500ms`, `5s`, `2m`, `1h`), sizes (`512B`, `64KiB`, `1MiB`, `1GiB`) and numbers.

use std::time::Duration;

use super::diagnostic::Fault;

/// How a duration is written, for a message.
pub(super) const DURATION_FORM: &str = "write a whole number and one of ms, s, m, h, as in 30s";
/// How a size is written, for a message.
pub(super) const SIZE_FORM: &str =
    "write a whole number and one of B, KiB, MiB, GiB, TiB, as in 64KiB";

const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A duration in whole milliseconds. Nothing needs no unit: `0`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let (number, unit) = split(text)?;
    let Some(count) = number else {
        return Err(fraction("1500ms for 1.5s"));
    };
    match (count, unit) {
        (0, "") => Ok(Duration::ZERO),
        (_, "") => Err(Fault::new("has no unit").fix(format!("write {count}s or {count}ms"))),
        _ => {
            let known = DURATION_UNITS.iter().find(|(name, _)| *name == unit);
            let Some((_, milliseconds)) = known else {
                return Err(Fault::new("has an unknown unit of time"));
            };
            count
                .checked_mul(*milliseconds)
                .map(Duration::from_millis)
                .ok_or_else(|| Fault::new("is too long"))
        }
    }
}

/// A size in bytes. Nothing needs no unit: `0`.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let (number, unit) = split(text)?;
    let Some(count) = number else {
        return Err(fraction("1536KiB for 1.5MiB"));
    };
    if let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        return count
            .checked_mul(*bytes)
            .ok_or_else(|| Fault::new("is too large"));
    }
    if unit.is_empty() {
        return if count == 0 {
            Ok(0)
        } else {
            Err(Fault::new("has no unit").fix(format!("write {count}B or {count}KiB")))
        };
    }
    // nginx's `64k` and `64m` mean powers of 1024; `64MB` is what it is taken for.
    let meant = match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        "t" | "tb" | "tib" => "TiB",
        "b" => "B",
        _ => return Err(Fault::new("has an unknown unit of size")),
    };
    Err(Fault::new("has an unknown unit of size").fix(format!("write {count}{meant}")))
}

/// A whole number.
pub(super) fn count(text: &str) -> Result<u64, Fault> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::new("is not a whole number"));
    }
    text.parse().map_err(|_| Fault::new("is too large"))
}

/// A number of at least 0.
pub(super) fn ratio(text: &str) -> Result<f64, Fault> {
    if let Some(percent) = text.strip_suffix('%') {
        let fault = Fault::new("is a percentage");
        return Err(match percent.trim().parse::<f64>() {
            Ok(p) if p.is_finite() => fault.fix(format!("write {}", p / 100.0)),
            _ => fault.fix("write 0.2 for 20%"),
        });
    }
    // `inf`, `nan` and `1e9` are numbers to Rust, and typing errors here.
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match text.parse::<f64>() {
        Ok(n) if plain && n.is_finite() => Ok(n),
        _ => Err(Fault::new("is not a number").fix("write a number such as 0.2")),
    }
}

/// `value` if it lies within both bounds, which are included.
pub(super) fn within<T: PartialOrd + Copy>(
    value: T,
    min: T,
    max: T,
    show: impl Fn(&T) -> String,
) -> Result<T, Fault> {
    let fix = |word: &str, bound: &T| format!("write {} or {word}", show(bound));
    if value < min {
        Err(Fault::new("is too small").fix(fix("more", &min)))
    } else if value > max {
        Err(Fault::new("is too large").fix(fix("less", &max)))
    } else {
        Ok(value)
    }
}

/// In the largest unit that shows it exactly.
pub(crate) fn show_duration(duration: &Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".into();
    }
    exact(milliseconds, &DURATION_UNITS)
}

/// In the largest unit that shows it exactly.
pub(crate) fn show_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".into();
    }
    exact(bytes, &SIZE_UNITS)
}

fn exact(value: u64, units: &[(&str, u64)]) -> String {
    for (name, factor) in units {
        if value.is_multiple_of(*factor) {
            return format!("{}{name}", value / factor);
        }
    }
    value.to_string()
}

/// The number (`None` for one with a fraction) and what follows it.
fn split(text: &str) -> Result<(Option<u64>, &str), Fault> {
    if text.starts_with('-') {
        return Err(Fault::new("is negative"));
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(Fault::new("does not begin with a number"));
    }
    if unit.starts_with(['.', ',']) {
        return Ok((None, unit));
    }
    match digits.parse() {
        Ok(n) => Ok((Some(n), unit.trim_start())),
        Err(_) => Err(Fault::new("is too large")),
    }
}

fn fraction(example: &str) -> Fault {
    Fault::new("has a fraction").fix(format!("write it in a smaller unit, as in {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("5s", 5000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0", 0),
            ("0ms", 0),
            ("7 s", 7000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("512B", 512),
            ("64KiB", 65536),
            ("1MiB", 1 << 20),
            ("1GiB", 1 << 30),
            ("0", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration_or_size() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "5x",
            "5S",
            "1m30s",
            "99999999999999999999s",
            "9999999999999999999h",
            "５s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in [
            "",
            "5",
            "64k",
            "64KB",
            "64kib",
            "1.5MiB",
            "-1B",
            "99999999999999TiB",
            "KiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn says_what_an_nginx_size_is_here() {
        assert_eq!(size("64m").unwrap_err().fix.as_deref(), Some("write 64MiB"));
    }

    #[test]
    fn reads_ratios_without_surprises() {
        assert_eq!(ratio("0.2"), Ok(0.2));
        assert_eq!(ratio("1"), Ok(1.0));
        for text in ["", "-1", "inf", "NaN", "1e3", ".", "0.2.1", "1_0"] {
            assert!(ratio(text).is_err(), "{text}");
        }
        assert_eq!(ratio("20%").unwrap_err().fix.as_deref(), Some("write 0.2"));
    }

    proptest::proptest! {
        #[test]
        fn a_duration_that_is_shown_reads_back(milliseconds in 0_u64..1 << 50) {
            let whole = Duration::from_millis(milliseconds);
            assert_eq!(duration(&show_duration(&whole)), Ok(whole));
        }

        #[test]
        fn a_size_that_is_shown_reads_back(bytes in 0_u64..) {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_breaks_the_readers(text in ".*") {
            let _ = (duration(&text), size(&text), count(&text), ratio(&text));
        }
    }
}
