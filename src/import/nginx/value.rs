//! nginx' ways of writing a time, a size, a number.

use std::time::Duration;

/// A time: `300`, `300s`, `1h30m`, `500ms`; without a unit, seconds. `None` is none.
pub(super) fn time(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 8] = [
        ("ms", 1),
        ("y", 365 * 86_400_000),
        ("M", 30 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ];
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        let (number, after) = rest.split_at(digits.unwrap_or(rest.len()));
        let number: u64 = number.parse().ok()?;
        let unit = UNITS.iter().find(|(unit, _)| after.starts_with(unit));
        let (length, factor) = match unit {
            Some((unit, factor)) => (unit.len(), *factor),
            None if after.is_empty() => (0, 1000),
            None => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = after[length..].trim_start_matches(' ');
    }
    Some(Duration::from_millis(total))
}

/// A size in bytes: `8192`, `8k`, `1m`, `2G`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    count(number)?.checked_mul(factor)
}

/// A whole number.
pub(super) fn count(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_nginx_times() {
        for (text, seconds) in [
            ("300s", 300),
            ("300", 300),
            ("5m", 300),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("1d", 86_400),
            ("1M", 2_592_000),
            ("0", 0),
        ] {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(time("1s500ms"), Some(Duration::from_millis(1500)));
        for text in [
            "",
            "s",
            "-1",
            "1x",
            "1.5s",
            "5 minutes",
            "99999999999999999999",
            "9999999999999y",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_nginx_sizes() {
        for (text, bytes) in [
            ("1m", 1 << 20),
            ("8k", 8192),
            ("0", 0),
            ("2G", 2 << 30),
            ("12", 12),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1.5m",
            "1t",
            "99999999999999999999",
            "99999999999999g",
            "ä",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in ".*") {
            let _ = (time(&text), size(&text), count(&text));
        }
    }
}
