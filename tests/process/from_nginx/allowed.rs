//! What may differ, and where the page says so.

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Nginx,
    Sluicegate,
}

/// A place in docs/from-nginx.md, and what is different by it.
#[derive(Debug)]
pub struct Allowed {
    /// The anchor.
    pub id: &'static str,
    /// None is any.
    pub cases: &'static [&'static str],
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    /// Lines of this side that begin so, the number of the answer or request left out.
    Lines(Side, &'static [&'static str]),
    /// The whole of the case. These two lines tell the difference, and are there.
    Whole {
        nginx: &'static str,
        sluicegate: &'static str,
    },
}

impl Allowed {
    pub fn is_for(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.contains(&case)
    }

    /// The part of it, by number, that has this line; `None` where it is not covered.
    pub fn covers(&self, case: &str, side: Side, line: &str) -> Option<usize> {
        if !self.is_for(case) {
            return None;
        }
        match &self.what {
            What::Lines(of, beginnings) if *of == side => {
                let line = unnumbered(line);
                beginnings
                    .iter()
                    .position(|beginning| line.starts_with(beginning))
            }
            What::Lines(..) => None,
            What::Whole { nginx, sluicegate } => Some(match side {
                Side::Nginx if line == *nginx => 0,
                Side::Sluicegate if line == *sluicegate => 1,
                // Covered, but not what tells the difference.
                _ => usize::MAX,
            }),
        }
    }

    /// How many parts must be seen, in each of its cases or in any.
    pub fn parts(&self) -> usize {
        match &self.what {
            What::Lines(_, beginnings) => beginnings.len(),
            What::Whole { .. } => 2,
        }
    }
}

/// `client 0 status 200` without the number.
fn unnumbered(line: &str) -> String {
    let mut words: Vec<&str> = line.splitn(3, ' ').collect();
    if words.len() == 3 && words[1].parse::<usize>().is_ok() {
        words.remove(1);
    }
    words.join(" ")
}

const fn lines(
    id: &'static str,
    cases: &'static [&'static str],
    side: Side,
    beginnings: &'static [&'static str],
) -> Allowed {
    Allowed {
        id,
        cases,
        what: What::Lines(side, beginnings),
    }
}

const fn whole(
    id: &'static str,
    case: &'static [&'static str; 1],
    nginx: &'static str,
    sluicegate: &'static str,
) -> Allowed {
    Allowed {
        id,
        cases: case,
        what: What::Whole { nginx, sluicegate },
    }
}

use Side::{Nginx, Sluicegate};

const REFUSED: &[&str] = &[
    "no host",
    "host that is none",
    "bad chunk",
    "trace",
    "engine closes",
    "engine closes another call",
];
const REFUSED_AND_OPEN: &[&str] = &["no host", "host that is none", "trace"];

pub static ALLOWED: &[Allowed] = &[
    lines("server-field", &[], Nginx, &["client field server: nginx"]),
    lines(
        "server-field",
        &[],
        Sluicegate,
        &["client field server: sluicegate"],
    ),
    lines(
        "request-id",
        &[],
        Sluicegate,
        &["client field x-request-id: ", "engine field x-request-id: "],
    ),
    lines(
        "forwarded-proto",
        &[],
        Sluicegate,
        &["engine field x-forwarded-proto: http"],
    ),
    lines(
        "forwarded-proto",
        &["forwarded"],
        Nginx,
        &["engine field x-forwarded-proto: https"],
    ),
    lines(
        "one-hop",
        &["one hop's fields"],
        Nginx,
        &[
            "engine field x-nominated: ",
            "engine field proxy-connection: ",
            "engine field proxy-authorization: ",
            "engine field trailer: ",
        ],
    ),
    lines(
        "one-hop",
        &["answer's fields"],
        Nginx,
        &["client field x-gone: "],
    ),
    whole(
        "one-hop",
        &["nominated host"],
        "client 0 status 200",
        "client 0 status 400",
    ),
    lines(
        "no-host",
        &["http/1.0 without host"],
        Sluicegate,
        &["engine field host: 127.0.0.1:"],
    ),
    lines(
        "host-by-default",
        &["behind a proxy"],
        Nginx,
        &["engine field host: engines"],
    ),
    lines(
        "host-by-default",
        &["behind a proxy"],
        Sluicegate,
        &["engine field host: gateway"],
    ),
    lines(
        "real-ip",
        &["behind a proxy"],
        Nginx,
        &[
            "engine field x-real-ip: 192.0.2.1",
            "engine field x-forwarded-for: 192.0.2.1, 192.0.2.1",
        ],
    ),
    lines(
        "real-ip",
        &["behind a proxy"],
        Sluicegate,
        &[
            "engine field x-real-ip: 127.0.0.1",
            "engine field x-forwarded-for: 192.0.2.1, 127.0.0.1",
        ],
    ),
    whole(
        "absolute-form",
        &["absolute form of another host"],
        "client 0 status 200",
        "client 0 status 400",
    ),
    whole(
        "body-limit",
        &["body over 1 MiB"],
        "client 0 status 413",
        "client 0 status 200",
    ),
    whole(
        "head-limit",
        &["head of 20 KB"],
        "client 0 status 400",
        "client 0 status 200",
    ),
    whole(
        "head-limit",
        &["head of 100 KB"],
        "client 0 status 400",
        "client 0 status 431",
    ),
    whole(
        "lengths",
        &["length and chunks"],
        "client 0 status 400",
        "engine 0 field content-length: 0",
    ),
    whole(
        "lengths",
        &["two lengths"],
        "client 0 status 400",
        "engine 0 body {}",
    ),
    lines(
        "json-errors",
        REFUSED,
        Nginx,
        &[
            "client field content-type: text/html",
            "client field content-length: ",
            "client body <html>",
        ],
    ),
    lines(
        "json-errors",
        REFUSED,
        Sluicegate,
        &[
            "client field content-type: application/json",
            "client field content-length: ",
            "client body {\\\"error\\\":",
        ],
    ),
    lines(
        "json-errors",
        &["trace"],
        Sluicegate,
        &["client field allow: GET, HEAD, POST"],
    ),
    lines(
        "open-after-errors",
        REFUSED_AND_OPEN,
        Nginx,
        &["client field connection: close", "client connection closes"],
    ),
    lines(
        "open-after-errors",
        REFUSED_AND_OPEN,
        Sluicegate,
        &[
            "client field connection: keep-alive",
            "client connection stays",
        ],
    ),
    lines(
        "bare-errors",
        &["two hosts"],
        Nginx,
        &[
            "client field content-type: text/html",
            "client field content-length: ",
            "client body <html>",
        ],
    ),
    lines(
        "bare-errors",
        &["two hosts"],
        Sluicegate,
        &[
            "client field server: Pingora",
            "client field content-length: 0",
            "client field cache-control: private, no-store",
            "client body ",
        ],
    ),
    lines(
        "one-content-type",
        &["health", "health by HEAD"],
        Nginx,
        &["client field content-type: application/octet-stream"],
    ),
    whole(
        "own-paths",
        &["health by POST"],
        "client 0 status 200",
        "client 0 status 405",
    ),
    whole(
        "own-paths",
        &["beneath health"],
        "client 0 body healthy\\n",
        "engine 0 target GET /health/x",
    ),
    whole(
        "raw-paths",
        &["health in disguise"],
        "client 0 body healthy\\n",
        "engine 0 target GET /x/..//%68ealth",
    ),
    whole(
        "own-paths",
        &["the gateway's paths"],
        "engine 2 target GET /stub_status",
        "client 0 body ready\\n",
    ),
    whole(
        "own-paths",
        &["metrics of nginx"],
        "client 0 field content-type: text/plain",
        "client 0 field content-type: text/plain; version=0.0.4; charset=utf-8",
    ),
    lines(
        "retries",
        &["500", "503", "engine closes"],
        Sluicegate,
        &["engine target POST ", "engine field ", "engine body "],
    ),
    whole(
        "bad-answers",
        &["engine has two lengths"],
        "client 0 status 200",
        "client 0 status 502",
    ),
    lines(
        "broken-stream",
        &["stream is cut"],
        Nginx,
        &["client body data: "],
    ),
    lines(
        "broken-stream",
        &["stream is cut"],
        Sluicegate,
        &["client body data: "],
    ),
    whole(
        "no-endpoint",
        &["no engine"],
        "client 0 status 502",
        "client 0 status 503",
    ),
];
