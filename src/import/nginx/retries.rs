//! `proxy_next_upstream`: when a request is tried again.

use super::notes::Notes;
use super::settings::Settings;
use super::tree::{Directive, quoted};
use super::value;

impl Settings<'_> {
    /// How often a request may be tried again; `None` is the default.
    pub fn retries(&self, notes: &mut Notes) -> Option<u64> {
        const OURS: [&str; 8] = [
            "error",
            "timeout",
            "invalid_header",
            "http_500",
            "http_502",
            "http_503",
            "http_504",
            "non_idempotent",
        ];
        let default = u64::from(self.defaults.pools[0].retries);
        let written = self.in_force("proxy_next_upstream");
        let is_off = |d: &&&Directive| d.args.iter().any(|arg| arg == "off");
        if written.iter().any(|d| is_off(&d)) {
            for other in written.iter().filter(|d| !is_off(d)) {
                notes.differs(
                    other,
                    "it is off elsewhere, and there is one for all: no request is tried again (retries: 0)",
                );
            }
            return Some(0);
        }
        for directive in written {
            let has = |name: &&str| directive.args.iter().any(|arg| arg == *name);
            if !OURS.iter().all(has) {
                notes.differs(directive, "a request is tried elsewhere after an error, a timeout, a bad answer, 500, 502, 503 and 504, POST too, until its first content has come (retries)");
            }
            for other in directive
                .args
                .iter()
                .filter(|arg| !OURS.contains(&arg.as_str()))
            {
                notes.not_carried(
                    directive,
                    format!("{}: an engine's 4xx are passed as they are", quoted(other)),
                );
            }
        }
        let tries = |d: &Directive| value::count(d.arg(0));
        let (at, tries) = self.largest(
            "proxy_next_upstream_tries",
            "proxy_next_upstream_tries 3",
            tries,
            |n| n.to_string(),
            notes,
        )?;
        // 0 is as many as there are servers.
        if tries == 0 {
            let how = format!(
                "nginx tries every server, and the gateway again {default} times (retries)"
            );
            notes.differs(at, how);
            return None;
        }
        let retries = (tries - 1).min(10);
        if retries != tries - 1 {
            notes.differs(at, "a request is tried again 10 times at most (retries)");
        }
        (retries != default).then_some(retries)
    }
}
