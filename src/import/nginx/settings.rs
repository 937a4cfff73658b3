//! What a directive sets: times, sizes, logs, proxies in front.

use std::time::Duration;

use ipnet::IpNet;

use crate::config::{Config, show_duration, show_size};
use crate::import::yaml::Yaml;

use super::choice::Choice;
use super::notes::Notes;
use super::table;
use super::tree::{Directive, quoted};
use super::value;

pub(super) const LONGEST_HOUR: Duration = Duration::from_secs(3600);
pub(super) const LONGEST_DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) type Keys = Vec<(&'static str, Yaml)>;

pub(super) fn show_time(time: Duration) -> String {
    show_duration(&time)
}

/// The settings in force where requests go to the pool.
pub(super) struct Settings<'a> {
    pub choice: &'a Choice<'a>,
    pub defaults: &'a Config,
    /// The `http` block, which stands for what is not written.
    pub http: &'a Directive,
}

impl<'a> Settings<'a> {
    /// What is in force in any location, each directive once.
    pub fn in_force(&self, name: &str) -> Vec<&'a Directive> {
        let mut found: Vec<&Directive> = Vec::new();
        for directive in self
            .choice
            .locations
            .iter()
            .filter_map(|l| l.scope.setting(name))
        {
            if !found.iter().any(|d| d.number == directive.number) {
                found.push(directive);
            }
        }
        found
    }

    /// The largest value in force: no request is cut shorter than nginx would. The others are noted.
    pub fn largest<T: Ord + Copy>(
        &self,
        name: &str,
        form: &str,
        parse: impl Fn(&Directive) -> Option<T>,
        show: impl Fn(T) -> String,
        notes: &mut Notes,
    ) -> Option<(&'a Directive, T)> {
        let mut all = Vec::new();
        for directive in self.in_force(name) {
            match parse(directive) {
                Some(value) => all.push((directive, value)),
                None => notes.mistake(
                    directive,
                    format!(
                        "{} cannot be read; write {form}",
                        quoted(&directive.args.join(" "))
                    ),
                ),
            }
        }
        let (at, largest) = *all.iter().max_by_key(|(_, value)| *value)?;
        for (other, value) in &all {
            if *value != largest {
                notes.differs(
                    other,
                    format!(
                        "{} here, {} elsewhere: there is one for all, the largest",
                        show(*value),
                        show(largest)
                    ),
                );
            }
        }
        Some((at, largest))
    }

    fn time(&self, name: &str, notes: &mut Notes) -> Option<(&'a Directive, Duration)> {
        let form = format!("{name} 60s");
        let time = |d: &Directive| value::time(d.arg(0));
        self.largest(name, &form, time, show_time, notes)
    }

    /// A time that may be as long as it is written.
    fn any_time(
        &self,
        name: &str,
        (key, default, longest): (&'static str, Duration, Duration),
        keys: &mut Keys,
        notes: &mut Notes,
    ) {
        let Some((at, time)) = self.time(name, notes) else {
            return;
        };
        if let Some(time) = possible(at, time, default, longest, notes)
            && time != default
        {
            keys.push((key, Yaml::plain(&show_time(time))));
        }
    }

    /// Times of the engine's side. Only shorter ones than ours are carried for connecting and sending:
    /// an engine that is silent then has not begun, and the next one is asked.
    pub fn timeouts(&self, notes: &mut Notes) -> Keys {
        let defaults = &self.defaults.pools[0].timeouts;
        let mut keys = Keys::new();
        let shorter =
            |name, key, default: Duration, why: &str, keys: &mut Keys, notes: &mut Notes| {
                let Some((at, time)) = self.time(name, notes) else {
                    return;
                };
                let Some(time) = possible(at, time, default, LONGEST_DAY, notes) else {
                    return;
                };
                if time > default {
                    notes.differs(
                        at,
                        format!(
                            "{} and not {} (timeouts.{key}): {why}",
                            show_time(default),
                            show_time(time)
                        ),
                    );
                } else if time < default {
                    keys.push((key, Yaml::plain(&show_time(time))));
                }
            };
        shorter(
            "proxy_connect_timeout",
            "connect",
            defaults.connect,
            "an engine that has not accepted a connection by then will not, and the next one is asked",
            &mut keys,
            notes,
        );
        match self.time("proxy_read_timeout", notes) {
            Some((at, time)) => {
                if let Some(time) = possible(at, time, defaults.read, LONGEST_DAY, notes)
                    && time != defaults.read
                {
                    keys.push(("first_byte", Yaml::plain(&show_time(time))));
                    keys.push(("read", Yaml::plain(&show_time(time))));
                }
            }
            None => notes.unwritten(self.http, "proxy_read_timeout", format!(
                "nginx waits 60s for an answer, and the gateway {} (timeouts.first_byte, timeouts.read)",
                show_time(defaults.read)
            )),
        }
        shorter(
            "proxy_send_timeout",
            "send",
            defaults.send,
            "an engine that takes no byte of a request for so long will not, and the next one is asked",
            &mut keys,
            notes,
        );
        keys
    }

    /// Times of the client's side.
    pub fn client(&self, notes: &mut Notes) -> Keys {
        let defaults = &self.defaults.client;
        let mut keys = Keys::new();
        for (name, key, default) in [
            (
                "client_header_timeout",
                "header_timeout",
                defaults.header_timeout,
            ),
            ("client_body_timeout", "body_timeout", defaults.body_timeout),
            ("send_timeout", "send_timeout", defaults.send_timeout),
        ] {
            self.any_time(name, (key, default, LONGEST_HOUR), &mut keys, notes);
        }
        self.any_time(
            "keepalive_timeout",
            ("idle_timeout", defaults.idle_timeout, LONGEST_DAY),
            &mut keys,
            notes,
        );
        let idle = self.in_force("keepalive_timeout");
        for header in idle.iter().filter(|d| d.args.len() > 1) {
            notes.not_carried(header, "the field Keep-Alive is not sent");
        }
        if idle.is_empty() {
            notes.unwritten(self.http, "keepalive_timeout", format!(
                "nginx closes a client's idle connection after 75s, and the gateway after {} (client.idle_timeout)",
                show_time(defaults.idle_timeout)
            ));
        }
        keys
    }

    pub fn limits(&self, notes: &mut Notes) -> Keys {
        let defaults = &self.defaults.limits;
        let mut keys = Keys::new();
        let buffers = |d: &Directive| value::count(d.arg(0))?.checked_mul(value::size(d.arg(1))?);
        let header = self.largest(
            "large_client_header_buffers",
            "large_client_header_buffers 4 8k",
            buffers,
            show_size,
            notes,
        );
        if let Some((at, bytes)) = header {
            let bytes = size_within(at, bytes, 1 << 10, 1 << 20, "limits.header", notes);
            if bytes != defaults.header as u64 {
                keys.push(("header", Yaml::plain(&show_size(bytes))));
            }
        }
        self.body(&mut keys, notes);
        keys
    }

    fn body(&self, keys: &mut Keys, notes: &mut Notes) {
        let defaults = &self.defaults.limits;
        // 0 is no limit.
        let size = |d: &Directive| value::size(d.arg(0)).map(|n| if n == 0 { u64::MAX } else { n });
        let show = |n| match n {
            u64::MAX => "no limit".to_owned(),
            n => show_size(n),
        };
        let Some((at, bytes)) = self.largest(
            "client_max_body_size",
            "client_max_body_size 64m",
            size,
            show,
            notes,
        ) else {
            notes.unwritten(
                self.http,
                "client_max_body_size",
                format!(
                    "nginx refuses bodies over 1MiB, and the gateway over {} (limits.body)",
                    show_size(defaults.body as u64)
                ),
            );
            return;
        };
        let share = defaults.body_memory as u64 / 2;
        let bytes = if bytes == u64::MAX {
            notes.differs(
                at,
                format!(
                    "bodies are held in memory, and need a limit: {} (limits.body)",
                    show_size(share)
                ),
            );
            share
        } else {
            size_within(at, bytes, 1 << 10, 64 << 30, "limits.body", notes)
        };
        if bytes != defaults.body as u64 {
            keys.push(("body", Yaml::plain(&show_size(bytes))));
        }
        if bytes > share {
            notes.differs(
                at,
                format!(
                    "bodies are held in memory, not in files: limits.body_memory is {} for it",
                    show_size(bytes * 2)
                ),
            );
            keys.push(("body_memory", Yaml::plain(&show_size(bytes * 2))));
        }
    }

    /// The proxies in front that are believed.
    pub fn trusted_proxies(&self, notes: &mut Notes) -> Option<Yaml> {
        let written = self.choice.effective("set_real_ip_from", notes);
        let header = self.choice.setting("real_ip_header", notes);
        let name = header.map_or("X-Real-IP", |d| d.arg(0));
        if !name.eq_ignore_ascii_case("X-Forwarded-For") {
            if let Some(at) = header {
                notes.not_carried(
                    at,
                    format!(
                        "the client's address is read from X-Forwarded-For alone, not from {}",
                        quoted(name)
                    ),
                );
            }
            for at in written {
                notes.not_carried(at, "real_ip_header is not X-Forwarded-For, and the client's address is read from that alone (trusted_proxies)");
            }
            return None;
        }
        let mut networks = Vec::new();
        let first = written.first().copied();
        for from in written {
            match network(from.arg(0)) {
                Some(net) => networks.push(Yaml::text(&net)),
                None => notes.not_carried(from, "trusted_proxies are addresses and networks"),
            }
        }
        if let Some(first) = first
            && !networks.is_empty()
            && self.choice.setting("real_ip_recursive", notes).is_none()
        {
            notes.opens(
                first,
                format!("real_ip_recursive is not written: {}", table::RECURSIVE),
            );
        }
        (!networks.is_empty()).then_some(Yaml::List(networks))
    }
}

/// `None` where it is said that it cannot be.
fn possible(
    at: &Directive,
    time: Duration,
    default: Duration,
    longest: Duration,
    notes: &mut Notes,
) -> Option<Duration> {
    if time.is_zero() {
        notes.not_carried(
            at,
            format!("0 is not possible; it is {}", show_time(default)),
        );
        return None;
    }
    if time > longest {
        notes.differs(
            at,
            format!("{} is the longest there is", show_time(longest)),
        );
    }
    Some(time.min(longest))
}

fn size_within(
    at: &Directive,
    bytes: u64,
    least: u64,
    most: u64,
    key: &str,
    notes: &mut Notes,
) -> u64 {
    let within = bytes.clamp(least, most);
    if within != bytes {
        notes.differs(
            at,
            format!("{key} is from {} to {}", show_size(least), show_size(most)),
        );
    }
    within
}

/// An address or a network, as `trusted_proxies` and `status_allow` take it.
pub(super) fn network(text: &str) -> Option<String> {
    let parsed = text
        .parse::<IpNet>()
        .map(|net| net.trunc().to_string())
        .or_else(|_| text.parse::<std::net::IpAddr>().map(|ip| ip.to_string()))
        .ok()?;
    // An IPv4 address in IPv6's dress is not taken.
    (!parsed.contains("::ffff:")).then_some(parsed)
}
