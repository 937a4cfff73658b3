//! Servers that send no requests to the pool: which Host a client asks for chooses none of them here.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::choice::Choice;
use super::guards;
use super::listen::sockets;
use super::notes::Notes;
use super::site::{Pattern, Server};
use super::tree::{Directive, quoted};

/// Where the gateway listens.
pub(super) struct Taken {
    sockets: HashSet<SocketAddr>,
    /// Ports at which anything listens, and those at which everything does; by the family (IPv4 or not).
    ports: HashSet<(u16, bool)>,
    wide: HashSet<(u16, bool)>,
    unix: HashSet<String>,
}

impl Taken {
    pub fn by(choice: &Choice<'_>) -> Self {
        let mut taken = Self {
            sockets: HashSet::new(),
            ports: HashSet::new(),
            wide: HashSet::new(),
            unix: HashSet::new(),
        };
        for (shown, socket) in choice.servers.iter().flat_map(|s| sockets(s.directive)) {
            let Some(socket) = socket else {
                taken.unix.insert(shown);
                continue;
            };
            let at = (socket.port(), socket.is_ipv4());
            taken.sockets.insert(socket);
            taken.ports.insert(at);
            if socket.ip().is_unspecified() {
                taken.wide.insert(at);
            }
        }
        taken
    }

    /// The first address of the server at which the gateway gets its requests.
    fn of(&self, server: &Directive) -> Option<String> {
        let is_taken = |shown: &str, socket: Option<SocketAddr>| match socket {
            None => self.unix.contains(shown),
            Some(socket) => {
                let at = (socket.port(), socket.is_ipv4());
                self.sockets.contains(&socket)
                    || self.wide.contains(&at)
                    || (socket.ip().is_unspecified() && self.ports.contains(&at))
            }
        };
        (sockets(server).into_iter())
            .find(|(shown, socket)| is_taken(shown, *socket))
            .map(|(shown, _)| shown)
    }
}

/// Says what becomes of the requests of a server that is not carried.
pub(super) fn not_carried(
    server: &Server<'_>,
    taken: &Taken,
    choice: &Choice<'_>,
    notes: &mut Notes,
) {
    let of = server.directive;
    let Some(address) = taken.of(of) else {
        let authority = quoted(&choice.target.authority);
        notes.not_carried(of, format!(
            "it sends no requests to {authority}, so nothing listens on its addresses; its directives are not looked at"
        ));
        return;
    };
    let hosts = hosts(of);
    match refusal(server) {
        Some(how) => notes.opens(of, format!(
            "the gateway does not choose by Host: requests on {address} for {hosts}, which nginx refuses here ({how}), are served"
        )),
        None => notes.differs(of, format!(
            "the gateway does not choose by Host: requests on {address} for {hosts} are served as all others; its directives are not looked at"
        )),
    }
}

/// Whom the server is for.
fn hosts(server: &Directive) -> String {
    let is_default = (server.named("listen"))
        .any(|listen| (listen.args.iter()).any(|arg| arg == "default_server" || arg == "default"));
    let mut names = (server.named("server_name").flat_map(|d| &d.args)).filter(|n| is_name(n));
    match (names.next(), names.next()) {
        _ if is_default => "hosts that no server names".to_owned(),
        (None, _) => "its hosts".to_owned(),
        (Some(only), None) => quoted(only),
        (Some(first), Some(_)) => format!("{} and its other names", quoted(first)),
    }
}

/// `_`, and "", stand for no name.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text != "_"
}

/// How it keeps everyone out, where it does.
fn refusal(server: &Server<'_>) -> Option<String> {
    let own = server.directive;
    if let Some(refusing) = own.children().iter().find(|d| refuses(d)) {
        return Some(shown(refusing));
    }
    let roots = (server.locations.iter()).filter(|l| matches!(l.pattern, Pattern::Prefix("/")));
    let mut inside = roots.flat_map(|l| l.directive.children());
    inside.find(|d| refuses(d)).map(shown)
}

fn shown(refusing: &Directive) -> String {
    format!("{} {}", refusing.name, refusing.arg(0))
}

fn refuses(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "return" => guards::is_refusal(directive),
        "deny" => directive.arg(0) == "all",
        "ssl_reject_handshake" => directive.arg(0) == "on",
        _ => false,
    }
}
