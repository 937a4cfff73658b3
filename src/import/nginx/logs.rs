//! `access_log` and `error_log`.

use crate::import::yaml::Yaml;

use super::choice::Choice;
use super::notes::Notes;
use super::tree::{Directive, quoted};

/// The access log: `None` where the default stays.
pub(super) fn access_log(choice: &Choice<'_>, notes: &mut Notes) -> Option<Yaml> {
    let written = choice.effective("access_log", notes);
    let (log, further) = written.split_first()?;
    for further in further {
        notes.not_carried(further, "there is one access log");
    }
    let path = log.arg(0);
    if path == "off" {
        return Some(Yaml::plain("null"));
    }
    if path.starts_with("syslog:") || path.contains('$') {
        notes.not_carried(log, "the access log is one file, or standard output");
        return None;
    }
    for option in log.args.iter().skip(2) {
        let name = option.split('=').next().unwrap_or_default();
        notes.not_carried(
            log,
            format!(
                "{}: every request has a line, written in the background",
                quoted(name)
            ),
        );
    }
    match log.arg(1) {
        "" | "combined" => {}
        format => notes.differs(log, format!("the format {} is combined here; formats of one's own are not carried, json has the most fields", quoted(format))),
    }
    let path = match path {
        "/dev/stdout" => Yaml::text("-"),
        path if path.starts_with('/') => {
            if !path.starts_with("/var/log/sluicegate/") {
                notes.differs(log, "the gateway's user must be able to write it: systemd/sluicegate.service has /var/log/sluicegate alone (ReadWritePaths)");
            }
            Yaml::text(path)
        }
        _ => {
            notes.not_carried(
                log,
                "where a relative path begins is known to nginx alone; write access_log.path",
            );
            return None;
        }
    };
    Some(Yaml::Map(vec![
        ("path", path),
        ("format", Yaml::plain("combined")),
    ]))
}

/// The gateway's own log: its level, where that is written.
pub(super) fn log(
    directives: &[Directive],
    choice: &Choice<'_>,
    notes: &mut Notes,
) -> Option<Yaml> {
    let all = directives.iter().rfind(|d| d.name == "error_log");
    let log = choice.setting("error_log", notes).or(all)?;
    notes.differs(log, "the gateway's own log goes to standard error");
    let level = match log.args.get(1)?.as_str() {
        "debug" => "debug",
        "info" | "notice" => "info",
        "warn" => "warn",
        "error" | "crit" | "alert" | "emerg" => "error",
        other => {
            notes.mistake(log, format!("{} is no level of a log", quoted(other)));
            return None;
        }
    };
    (level != "info").then(|| Yaml::Map(vec![("level", Yaml::plain(level))]))
}
