//! `sluicegate drain` and `sluicegate undrain`: an endpoint out of use and in again, while the gateway serves.
//!
//! Exit status: 0 done, 1 not done, 3 the time to wait is over. Whatever ends the waiting, the order stands.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;

use crate::ask::{Answer, Door};
use crate::config::{self, Config, ListenAddress};
use crate::local::admin::{Action, is_meant, path};

/// Holds the admin key for orders over TCP. No option does: every user of the machine can see those.
const KEY_VARIABLE: &str = "SLUICEGATE_ADMIN_KEY";
const POLL: Duration = Duration::from_millis(200);
/// How long a gateway may leave everything unanswered: one that serves on a machine that is busy may be late.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often waiting is told of.
const TOLD_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct Drain {
    /// The endpoint as /endpoints names it; a name that several addresses have in common stands for all of them
    #[arg(value_name = "NODE")]
    node: String,
    /// Wait until it has no requests in flight (undrain: until it is up); Ctrl-C ends the waiting alone
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this, as 10m; exit status 3 when it was not enough
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = config::duration)]
    timeout: Option<Duration>,
    /// The configuration that says where the admin listener is
    #[arg(short, long = "config", value_name = "FILE", default_value = crate::cli::DEFAULT_FILE)]
    config: PathBuf,
    /// The admin listener, unix:/path or http://HOST:PORT (with a key in SLUICEGATE_ADMIN_KEY) [default: the
    /// configuration's, its unix socket if it has one]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    admin: Option<String>,
}

/// An endpoint, as `/endpoints` shows it.
#[derive(Debug, Deserialize)]
struct Row {
    endpoint: String,
    state: String,
    reason: Option<String>,
    in_flight: u64,
}

impl Row {
    fn drains(&self) -> bool {
        self.state == "draining"
    }
}

/// What to say, and the exit status.
struct Failure(String, u8);

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self(problem, 1)
    }
}

impl Drain {
    /// Gives the order, and waits if that is asked for.
    pub fn run(&self, action: Action) -> ExitCode {
        match self.try_run(action) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure(problem, status)) => {
                eprintln!("{problem}");
                ExitCode::from(status)
            }
        }
    }

    fn try_run(&self, action: Action) -> Result<(), Failure> {
        let door = match &self.admin {
            Some(url) => Door::parse(url)?,
            None => door_of(&self.config)?,
        };
        let (path, credentials) = (path(action, &self.node), credentials()?);
        let order = || door.ask("POST", &path, &credentials);
        let rows = rows(&door, patiently(PATIENCE, order))?;
        let rows = by_name(rows);
        if let Some(names) = several(&rows) {
            println!("{} stands for {names}", self.node);
        }
        for row in rows.values() {
            println!("{}", told(action, row));
        }
        if self.wait {
            self.wait(action, &door)?;
        }
        Ok(())
    }

    fn wait(&self, action: Action, door: &Door) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut told_at = begun;
        loop {
            let left =
                (self.timeout).map_or(PATIENCE, |timeout| timeout.saturating_sub(begun.elapsed()));
            let answer = patiently(PATIENCE.min(left), || door.ask("GET", "/endpoints", &[]));
            let all = rows(door, answer)?;
            let meant = all
                .into_iter()
                .filter(|row| is_meant(&self.node, &row.endpoint));
            let rows = by_name(meant);
            if rows.is_empty() {
                return Err(format!("{} is not in the configuration any more", self.node).into());
            }
            if let Some(row) = rows
                .values()
                .find(|row| row.drains() != (action == Action::Drain))
            {
                let now = if row.drains() {
                    "drains again"
                } else {
                    "does not drain any more"
                };
                return Err(format!("{} {now}: somebody else has ordered it", row.endpoint).into());
            }
            if rows.values().all(|row| is_done(action, row)) {
                let after = begun.elapsed().as_secs_f32();
                let what = match action {
                    Action::Drain => "has no requests any more",
                    Action::Undrain => "is up",
                };
                println!("{} {what}, after {after:.1} s", self.node);
                return Ok(());
            }
            if self
                .timeout
                .is_some_and(|timeout| begun.elapsed() >= timeout)
            {
                let waiting: Vec<_> = rows.values().map(|row| told(action, row)).collect();
                return Err(Failure(format!("not yet: {}", waiting.join(", ")), 3));
            }
            if told_at.elapsed() >= TOLD_EVERY {
                told_at = Instant::now();
                rows.values()
                    .for_each(|row| println!("{}", told(action, row)));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Asks again for as long as no answer comes in time: an order may be given twice.
fn patiently(
    patience: Duration,
    mut ask: impl FnMut() -> io::Result<Answer>,
) -> io::Result<Answer> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(late) if late.kind() == io::ErrorKind::TimedOut && begun.elapsed() < patience => {}
            answer => return answer,
        }
    }
}

fn is_done(action: Action, row: &Row) -> bool {
    match action {
        Action::Drain => row.in_flight == 0,
        Action::Undrain => matches!(row.state.as_str(), "up" | "ramping"),
    }
}

fn told(action: Action, row: &Row) -> String {
    let name = &row.endpoint;
    match (action, &row.reason) {
        (Action::Drain, _) => format!("{name} drains: {} in flight", row.in_flight),
        (Action::Undrain, Some(reason)) => format!("{name} is {}: {reason}", row.state),
        (Action::Undrain, None) => format!("{name} is {}", row.state),
    }
}

/// Every endpoint once, in however many pools it is.
fn by_name(rows: impl IntoIterator<Item = Row>) -> BTreeMap<String, Row> {
    let rows = rows.into_iter();
    rows.map(|row| (row.endpoint.clone(), row)).collect()
}

fn several(rows: &BTreeMap<String, Row>) -> Option<String> {
    let names: Vec<_> = rows.keys().map(String::as_str).collect();
    (names.len() > 1).then(|| names.join(", "))
}

/// The admin listener of a configuration.
fn door_of(file: &Path) -> Result<Door, String> {
    // The secrets are in the environment of the service, not in this one, and each is another.
    let known = |name: &str| {
        std::env::var(name)
            .ok()
            .or_else(|| Some(format!("unset-{name}")))
    };
    let config = config::load(file, &known).map_err(|mistakes| mistakes.to_string())?;
    nearest(&config).ok_or_else(|| {
        let file = file.display();
        format!("{file} has no admin listener: `admin: null`. Name one with --admin, or use `drain: true`")
    })
}

/// A unix socket first: it needs no key.
fn nearest(config: &Config) -> Option<Door> {
    let unix = config
        .admin
        .iter()
        .find_map(|listen| match &listen.address {
            ListenAddress::Unix(path) => Some(Door::Unix(path.clone())),
            ListenAddress::Tcp(_) => None,
        });
    let tcp = || {
        config
            .admin
            .iter()
            .find_map(|listen| match &listen.address {
                ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
                    let here = match address.ip() {
                        IpAddr::V4(_) => "127.0.0.1",
                        IpAddr::V6(_) => "[::1]",
                    };
                    Some(Door::Tcp(format!("{here}:{}", address.port())))
                }
                ListenAddress::Tcp(address) => Some(Door::Tcp(address.to_string())),
                ListenAddress::Unix(_) => None,
            })
    };
    unix.or_else(tcp)
}

/// The fields of an order, as it may have to go over TCP.
fn credentials() -> Result<Vec<String>, String> {
    let mut fields = vec!["X-Sluicegate-Admin: 1".to_owned()];
    if let Ok(key) = std::env::var(KEY_VARIABLE) {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{KEY_VARIABLE} holds no key"));
        }
        fields.push(format!("Authorization: Bearer {key}"));
    }
    Ok(fields)
}

/// The endpoints of an answer.
fn rows(door: &Door, answer: io::Result<Answer>) -> Result<Vec<Row>, String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let answer = answer.map_err(|problem| format!("{door}: {problem}; is it running?"))?;
    let unreadable = || {
        format!(
            "{door} answered {} in a way that cannot be read",
            answer.status
        )
    };
    if answer.status == 200 {
        return serde_json::from_slice(&answer.body).map_err(|_| unreadable());
    }
    let refusal = serde_json::from_slice::<Refusal>(&answer.body);
    Err(refusal.map_or_else(|_| unreadable(), |refusal| refusal.error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_late_is_asked_again() {
        let asked = |patience, kinds: &[io::ErrorKind]| {
            let mut kinds = kinds.iter();
            let answer = patiently(patience, || match kinds.next() {
                Some(kind) => Err((*kind).into()),
                None => Ok(Answer {
                    status: 200,
                    body: Vec::new(),
                }),
            });
            answer.map(|answer| answer.status).map_err(|e| e.kind())
        };
        let (late, nobody) = (io::ErrorKind::TimedOut, io::ErrorKind::ConnectionRefused);
        assert_eq!(asked(PATIENCE, &[late, late]), Ok(200));
        assert_eq!(asked(PATIENCE, &[late, nobody]), Err(nobody));
        assert_eq!(asked(Duration::ZERO, &[late, late]), Err(late));
    }
}
