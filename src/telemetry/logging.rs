//! The gateway's own log, to standard error.

use std::io::Write;
use std::sync::OnceLock;
use std::time::SystemTime;

use env_logger::Builder;
use log::{Level, LevelFilter, Record};

use super::{escape, timestamp};
use crate::config::LogFormat;

/// `RUST_LOG` set the levels, and they stay.
static LEVELS_FROM_ENVIRONMENT: OnceLock<bool> = OnceLock::new();

/// The libraries below report as news or as errors what is ours to report: clients that leave,
/// listeners that start, tries that fail. Pingora has only the clients' side here, and takes each of their
/// mistakes for an error: a preface that is none, a TLS connection that is gone when it is shut down.
const QUIET_TARGETS: [(&str, LevelFilter); 5] = [
    ("pingora", LevelFilter::Off),
    ("h2", LevelFilter::Warn),
    ("hyper", LevelFilter::Warn),
    ("rustls", LevelFilter::Warn),
    ("tokio", LevelFilter::Warn),
];

/// Starts the log. `RUST_LOG`, where it is set, decides the levels in place of `level`. Does
/// nothing where a log was started before.
pub fn start(level: LevelFilter, format: LogFormat) {
    let directives = std::env::var("RUST_LOG")
        .ok()
        .filter(|value| !value.trim().is_empty());
    let mut builder = Builder::new();
    // The level of our own is log's maximum, which a reload may change; the filter passes it all.
    match &directives {
        Some(directives) => builder.parse_filters(directives),
        None => builder.filter_level(LevelFilter::Trace),
    };
    if directives.is_none() {
        for (target, quiet) in QUIET_TARGETS {
            builder.filter_module(target, quiet);
        }
    }
    builder.format(move |out, record| out.write_all(&line(format, SystemTime::now(), record)));
    let started = builder.try_init().is_ok();
    if started && LEVELS_FROM_ENVIRONMENT.set(directives.is_some()).is_ok() {
        set_level(level);
    }
}

/// Changes the level while running; `RUST_LOG`, where it was set, stays the stronger.
pub fn set_level(level: LevelFilter) {
    if LEVELS_FROM_ENVIRONMENT.get() != Some(&true) {
        log::set_max_level(level);
    }
}

fn line(format: LogFormat, now: SystemTime, record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    let message = record.args().to_string();
    match format {
        LogFormat::Text => {
            timestamp::write_rfc3339(&mut out, now);
            out.push(b' ');
            out.extend_from_slice(record.level().as_str().as_bytes());
            out.push(b' ');
            escape::message(&mut out, &message);
        }
        LogFormat::Json => {
            out.extend_from_slice(b"{\"time\":\"");
            timestamp::write_rfc3339(&mut out, now);
            out.extend_from_slice(b"\",\"level\":\"");
            out.extend_from_slice(level_name(record.level()).as_bytes());
            out.extend_from_slice(b"\",\"target\":\"");
            escape::json(&mut out, record.target().as_bytes());
            out.extend_from_slice(b"\",\"message\":\"");
            escape::json(&mut out, message.as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
    out.push(b'\n');
    out
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn format(kind: LogFormat, text: &str) -> String {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_509_909_123);
        let mut builder = Record::builder();
        let line = line(
            kind,
            now,
            &builder
                .level(Level::Info)
                .target("sluicegate")
                .args(format_args!("{text}"))
                .build(),
        );
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_text_line_is_time_level_and_message() {
        assert_eq!(
            format(LogFormat::Text, "listening on 0.0.0.0:80"),
            "2026-11-24T08:45:09.123Z INFO listening on 0.0.0.0:80\n"
        );
    }

    #[test]
    fn a_forged_line_stays_inside_its_own() {
        let text = format(LogFormat::Text, "path /x\n2026 ERROR \u{1b}[2J");
        assert_eq!(
            text,
            "2026-11-24T08:45:09.123Z INFO path /x\\n2026 ERROR \\u{1b}[2J\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&format(LogFormat::Json, "a\"\n\u{1}")).unwrap();
        assert_eq!(json["message"], "a\"\n\u{1}");
        assert_eq!(json["level"], "info");
    }
}
