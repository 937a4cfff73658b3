//! Times as logs write them, in UTC.

use std::cell::Cell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// The date and time of one second in both of the forms logs use.
#[derive(Clone, Copy)]
struct Second {
    unix: i64,
    /// `2026-11-24T08:45:09`
    rfc3339: [u8; 19],
    /// `24/Nov/2026:08:45:09 +0000`
    nginx: [u8; 26],
}

thread_local! {
    static LAST: Cell<Option<Second>> = const { Cell::new(None) };
}

/// Appends `2026-11-24T08:45:09.123Z`.
pub fn write_rfc3339(out: &mut Vec<u8>, at: SystemTime) {
    let (unix, milliseconds) = since_epoch(at);
    out.extend_from_slice(&second(unix).rfc3339);
    out.push(b'.');
    out.extend([100, 10, 1].map(|place| b'0' + (milliseconds / place % 10) as u8));
    out.push(b'Z');
}

/// Appends `24/Nov/2026:08:45:09 +0000`, nginx's `$time_local` on a machine that keeps UTC.
pub fn write_nginx(out: &mut Vec<u8>, at: SystemTime) {
    out.extend_from_slice(&second(since_epoch(at).0).nginx);
}

/// `2026-11-24T08:45:09.123Z`.
pub fn rfc3339(at: SystemTime) -> String {
    let mut out = Vec::with_capacity(24);
    write_rfc3339(&mut out, at);
    String::from_utf8(out).unwrap_or_default()
}

/// Whole seconds and milliseconds.
fn since_epoch(at: SystemTime) -> (i64, u32) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    (
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        since.subsec_millis(),
    )
}

/// Formats a second once in a thread, however many lines fall into it.
fn second(unix: i64) -> Second {
    match LAST.get() {
        Some(last) if last.unix == unix => last,
        _ => {
            let fresh = format(unix);
            LAST.set(Some(fresh));
            fresh
        }
    }
}

fn format(unix: i64) -> Second {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let date = OffsetDateTime::from_unix_timestamp(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = date.to_hms();
    let mut formatted = Second {
        unix,
        rfc3339: [b'-'; 19],
        nginx: [b'-'; 26],
    };
    // Both fit exactly: the crate's years end with 9999.
    let _ = write!(
        &mut formatted.rfc3339[..],
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    );
    let month = MONTHS[usize::from(month) - 1];
    let _ = write!(
        &mut formatted.nginx[..],
        "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000"
    );
    formatted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_forms_of_known_times() {
        for (unix, millis, iso, nginx) in [
            (
                0,
                0,
                "1970-01-01T00:00:00.000Z",
                "01/Jan/1970:00:00:00 +0000",
            ),
            (
                1_795_509_909,
                123,
                "2026-11-24T08:45:09.123Z",
                "24/Nov/2026:08:45:09 +0000",
            ),
            (
                1_709_210_096,
                7,
                "2024-02-29T12:34:56.007Z",
                "29/Feb/2024:12:34:56 +0000",
            ),
            (
                253_402_300_799,
                999,
                "9999-12-31T23:59:59.999Z",
                "31/Dec/9999:23:59:59 +0000",
            ),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(unix) + Duration::from_millis(millis);
            let mut out = Vec::new();
            write_nginx(&mut out, at);
            assert_eq!(
                (
                    rfc3339(at).as_str(),
                    String::from_utf8(out).unwrap().as_str()
                ),
                (iso, nginx)
            );
        }
    }

    #[test]
    fn times_off_the_calendar_do_not_panic() {
        rfc3339(UNIX_EPOCH - Duration::from_secs(1));
        rfc3339(UNIX_EPOCH + Duration::from_secs(1 << 42));
    }
}
