//! What concerns the gateway as a whole: threads, its files, who may read its counts.

use crate::config::Config;
use crate::import::yaml::Yaml;

use super::choice::Choice;
use super::notes::Notes;
use super::settings::{Keys, LONGEST_DAY, network, show_time};
use super::site::Location;
use super::tree::{Directive, quoted};
use super::value;

pub(super) struct Process {
    pub keys: Keys,
    pub limits: Keys,
    /// nginx has more than one worker, or may have.
    pub many_workers: bool,
}

/// Reads what stands outside of `http`.
pub(super) fn process(directives: &[Directive], defaults: &Config, notes: &mut Notes) -> Process {
    let last = |name: &str| directives.iter().rfind(|d| d.name == name);
    let mut keys = Keys::new();
    let mut workers = None;
    let mut many_workers = false;
    if let Some(processes) = last("worker_processes") {
        match processes.arg(0) {
            "auto" => {
                many_workers = true;
                notes.differs(
                    processes,
                    "one process with a thread for each CPU, as `threads: auto` is the default",
                );
            }
            number => match value::count(number).filter(|n| *n > 0) {
                Some(number) => {
                    many_workers = number > 1;
                    workers = Some(number);
                    let threads = number.min(1024);
                    notes.differs(processes, format!("one process, with threads: {threads}"));
                    keys.push(("threads", Yaml::plain(&threads)));
                }
                None => notes.mistake(
                    processes,
                    format!(
                        "{} is neither auto nor a number of processes",
                        quoted(number)
                    ),
                ),
            },
        }
    }
    let mut limits = Keys::new();
    let events = directives.iter().filter(|d| d.name == "events");
    if let Some(connections) = events.flat_map(|e| e.named("worker_connections")).last() {
        match value::count(connections.arg(0)) {
            None => notes.mistake(
                connections,
                format!("{} is no number", quoted(connections.arg(0))),
            ),
            Some(number) => {
                let all = number.saturating_mul(workers.unwrap_or(1)).min(10_000_000);
                let kept = all.max(defaults.limits.connections as u64);
                notes.differs(connections, format!(
                    "limits.connections is {kept}, of clients, for the gateway as a whole; nginx counts both sides in each worker"
                ));
                if kept != defaults.limits.connections as u64 {
                    limits.push(("connections", Yaml::plain(&kept)));
                }
            }
        }
    }
    if let Some(pid) = last("pid") {
        let path = pid.arg(0);
        // Two programs that signal each other by mistake are worse than a new path.
        if path.starts_with('/') && !path.contains("nginx") {
            keys.push(("pid_file", Yaml::text(path)));
        } else {
            let own = defaults
                .pid_file
                .as_deref()
                .unwrap_or(std::path::Path::new("null"));
            notes.not_carried(
                pid,
                format!("the file is nginx' own; pid_file is {}", own.display()),
            );
        }
    }
    if let Some(grace) = last("worker_shutdown_timeout") {
        match value::time(grace.arg(0)) {
            None => notes.mistake(
                grace,
                format!("{} is no time; write 300s", quoted(grace.arg(0))),
            ),
            Some(time) => {
                let kept = time.min(LONGEST_DAY);
                if kept != time {
                    notes.differs(
                        grace,
                        format!("{} is the longest there is", show_time(kept)),
                    );
                }
                if kept != defaults.shutdown_grace {
                    keys.push(("shutdown_grace", Yaml::plain(&show_time(kept))));
                }
            }
        }
    }
    Process {
        keys,
        limits,
        many_workers,
    }
}

/// How often names are looked up again.
pub(super) fn resolve(
    choice: &Choice<'_>,
    defaults: &Config,
    notes: &mut Notes,
) -> Option<(&'static str, Yaml)> {
    let resolver = choice.setting("resolver", notes)?;
    notes.differs(resolver, "names are looked up by the system's resolver");
    let valid = resolver
        .args
        .iter()
        .find_map(|arg| arg.strip_prefix("valid="))?;
    match value::time(valid) {
        Some(time) if !time.is_zero() => {
            let time = time.min(super::settings::LONGEST_HOUR);
            (time != defaults.resolve).then(|| ("resolve", Yaml::plain(&show_time(time))))
        }
        _ => {
            notes.mistake(
                resolver,
                format!("{} is no time; write valid=30s", quoted(valid)),
            );
            None
        }
    }
}

/// Who may read nginx' counts, and so ours. `None` where that is nobody but this machine, or cannot
/// be told.
pub(super) fn status_allow(locations: &[&Location<'_>], notes: &mut Notes) -> Option<Yaml> {
    let mut networks: Vec<String> = Vec::new();
    let mut everyone = false;
    for location in locations {
        let rules = location.scope.effective_of(&["allow", "deny"]);
        if asks_for_more_than_an_address(location) {
            let why = "who may read it is not a matter of addresses alone; status_allow stays as it is without this";
            notes.not_carried(location.directive, why);
            for rule in rules {
                notes.not_carried(rule, why);
            }
            continue;
        }
        let Some(allowed) = allowed(&rules, notes) else {
            continue;
        };
        if allowed.contains(&"all") {
            everyone = true;
        }
        for from in allowed {
            if let Some(net) = network(from)
                && !networks.contains(&net)
            {
                networks.push(net);
            }
        }
    }
    if everyone {
        for location in locations {
            notes.differs(
                location.directive,
                "everyone may read it, and with it /metrics and the JSON of /health (status_allow)",
            );
        }
        return Some(Yaml::List(vec![
            Yaml::text("0.0.0.0/0"),
            Yaml::text("::/0"),
        ]));
    }
    let is_here = |net: &String| net.starts_with("127.") || net == "::1";
    (!networks.iter().all(is_here)).then(|| Yaml::List(networks.iter().map(Yaml::text).collect()))
}

/// Whether nginx looks at more than where a client comes from: then networks would let in more than it does.
fn asks_for_more_than_an_address(location: &Location<'_>) -> bool {
    [
        "auth_basic",
        "auth_request",
        "auth_jwt",
        "internal",
        "if",
        "ssl_verify_client",
    ]
    .into_iter()
    .any(|name| (location.scope.setting(name)).is_some_and(|d| d.arg(0) != "off"))
}

/// Whom the rules let in, where that is a list of networks and nobody else, or all.
fn allowed<'a>(rules: &[&'a Directive], notes: &mut Notes) -> Option<Vec<&'a str>> {
    let mut from = Vec::new();
    for rule in rules {
        match (rule.name.as_str(), rule.arg(0)) {
            ("deny", "all") => return Some(from),
            ("allow", net) if net == "all" || network(net).is_some() => {
                let is_here = net.starts_with("127.") || net == "::1";
                notes.differs(rule, if is_here {
                    "status_allow, which lets in 127.0.0.0/8 and ::1 unless it is written, is for /metrics and the JSON of /health as well"
                } else {
                    "it is in status_allow, which is for /metrics and the JSON of /health as well"
                });
                from.push(net);
                if net == "all" {
                    return Some(from);
                }
            }
            _ => {
                notes.not_carried(
                    rule,
                    "status_allow is a list of who may read; it stays at 127.0.0.0/8 and ::1",
                );
                return None;
            }
        }
    }
    // Whom no rule names is let in.
    from.push("all");
    Some(from)
}
