//! W3C Trace Context: what a request says of the trace it is part of. Pure.
//!
//! By the second level of the specification (<https://www.w3.org/TR/trace-context-2/>), which is strict:
//! a `traceparent` that breaks a rule is as good as none.

/// The trace's caller asked for it to be recorded.
pub const SAMPLED: u8 = 0x01;
/// The trace's id is random in its last seven bytes.
pub const RANDOM: u8 = 0x02;

/// The bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Members of a `tracestate`.
const MEMBERS: usize = 32;
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 256;

/// The span that a request was sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Not 0.
    pub trace_id: u128,
    /// Not 0.
    pub span_id: u64,
    /// [`SAMPLED`] and [`RANDOM`]; others are not known.
    pub flags: u8,
}

impl Parent {
    /// Reads the values of every `traceparent` field: one alone, of version 00 or one to come.
    pub fn parse<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let (value, None) = (values.next()?, values.next()) else {
            return None;
        };
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let version = byte(known.get(..2)?)?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|b| *b == b'-'),
        };
        let has_dashes = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
        if !is_whole || !has_dashes {
            return None;
        }
        let parent = Self {
            trace_id: number(known.get(3..35)?)?,
            span_id: u64::try_from(number(known.get(36..52)?)?).ok()?,
            flags: byte(known.get(53..)?)? & (SAMPLED | RANDOM),
        };
        (parent.trace_id != 0 && parent.span_id != 0).then_some(parent)
    }

    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Lower case alone.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn byte(digits: &[u8]) -> Option<u8> {
    u8::try_from(number(digits)?).ok()
}

/// The `traceparent` that tells an engine which span its own are beneath.
pub fn traceparent(trace_id: u128, span_id: u64, flags: u8) -> String {
    format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
}

/// The values of every `tracestate` field as one list; `None` where a rule is broken, which makes all of it
/// void. Empty where there is none.
pub fn tracestate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut keys: Vec<&[u8]> = Vec::new();
    let mut joined = String::new();
    for member in values.flat_map(|value| value.split(|b| *b == b',')) {
        let member = member.trim_ascii();
        // Allowed, so that lists can be joined without looking at them.
        if member.is_empty() {
            continue;
        }
        let at = memchr::memchr(b'=', member)?;
        let (key, value) = (&member[..at], &member[at + 1..]);
        if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MEMBERS {
            return None;
        }
        if !keys.is_empty() {
            joined.push(',');
        }
        keys.push(key);
        joined.push_str(std::str::from_utf8(member).ok()?);
    }
    Some(joined)
}

fn is_key(key: &[u8]) -> bool {
    let is_start = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_rest = |b: &u8| is_start(b) || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= KEY_BYTES && key.first().is_some_and(is_start) && key.iter().all(is_rest)
}

/// Spaces at its end went with those around the member.
fn is_value(value: &[u8]) -> bool {
    let is_fit = |b: &u8| (b' '..=b'~').contains(b) && !matches!(b, b',' | b'=');
    (1..=VALUE_BYTES).contains(&value.len()) && value.iter().all(is_fit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(values: &[&str]) -> Option<Parent> {
        Parent::parse(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn the_specifications_example_is_read() {
        let parent = Parent {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 0xb7ad_6b71_6920_3331,
            flags: SAMPLED,
        };
        assert_eq!(parse(&[GOOD]), Some(parent));
        assert_eq!(traceparent(parent.trace_id, parent.span_id, 1), GOOD);
    }

    /// After the W3C's own test suite.
    #[test]
    fn what_breaks_a_rule_is_as_good_as_none() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}0"),
            &format!("{GOOD}-x"),
            &format!("ff{}", &GOOD[2..]),
            &format!("0{}", &GOOD[1..].to_uppercase()),
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0X",
            "00-0af7651916cd43dd8448eb211c80319.-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-010",
            "+0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x",
        ] {
            assert_eq!(parse(&[bad]), None, "{bad}");
        }
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[GOOD, GOOD]), None, "two of them");
    }

    #[test]
    fn a_version_to_come_is_read_as_far_as_it_is_known() {
        for good in [
            &format!("cc{}", &GOOD[2..]),
            &format!("cc{}-what-the-future-brings", &GOOD[2..]),
        ] {
            assert_eq!(parse(&[good]), parse(&[GOOD]), "{good}");
        }
    }

    #[test]
    fn unknown_flags_are_not_passed_on() {
        let with = |flags: &str| parse(&[&format!("{}{flags}", &GOOD[..53])]);
        assert_eq!(with("ff").map(|p| p.flags), Some(SAMPLED | RANDOM));
        assert_eq!(with("fc").map(|p| p.is_sampled()), Some(false));
    }

    #[test]
    fn a_state_is_whole_or_void() {
        let state = |values: &[&str]| tracestate(values.iter().map(|value| value.as_bytes()));
        for (values, expected) in [
            (&[][..], Some("")),
            (&["foo=1"], Some("foo=1")),
            (&["foo=1 , bar=2", "", ",baz=3,"], Some("foo=1,bar=2,baz=3")),
            (&["t61rcwkgMzE@x=1"], None),
            (
                &["0a/b*c-d_e@sys=x y!", "z=1"],
                Some("0a/b*c-d_e@sys=x y!,z=1"),
            ),
            (&["foo"], None),
            (&["foo="], None),
            (&["=1"], None),
            (&["foo =1"], None),
            (&["foo=1=2"], None),
            (&["foo=1", "foo=2"], None),
            (&["@foo=1"], None),
            (&["foo=b\u{e4}r"], None),
        ] {
            assert_eq!(state(values).as_deref(), expected, "{values:?}");
        }
        let members = |count: usize| (0..count).map(|i| format!("k{i}=1")).collect::<Vec<_>>();
        assert!(state(&[&members(32).join(",")]).is_some());
        assert!(state(&[&members(33).join(",")]).is_none());
        assert!(state(&[&format!("{}=1", "k".repeat(256))]).is_some());
        assert!(state(&[&format!("{}=1", "k".repeat(257))]).is_none());
        assert!(state(&[&format!("k={}", "v".repeat(257))]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_again(trace_id in 1_u128.., span_id in 1_u64.., flags in 0_u8..4) {
            let written = traceparent(trace_id, span_id, flags);
            let parent = Parent::parse([written.as_bytes()].into_iter());
            prop_assert_eq!(parent, Some(Parent { trace_id, span_id, flags }));
        }

        #[test]
        fn no_bytes_are_too_odd(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Parent::parse([&value[..]].into_iter());
            let _ = tracestate([&value[..]].into_iter());
        }
    }
}
