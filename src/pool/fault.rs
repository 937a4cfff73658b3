//! What speaks against an endpoint: faults that requests meet, and probes that fail.

use std::fmt;

/// What a request found wrong with an endpoint. Each counts against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing listens there: takes the endpoint out at once.
    ConnectRefused,
    ConnectTimedOut,
    /// No way leads there.
    Unreachable,
    /// No connection for another reason: TLS, or what this machine forbids.
    ConnectFailed,
    /// Reset or closed before the answer was complete, on a connection that was not stale.
    ConnectionLost,
    FirstByteTimedOut,
    ReadTimedOut,
    SendTimedOut,
    /// A 5xx. It is a fault only if another endpoint then answered the same request well; the
    /// relay, which alone knows, reports it then.
    Status(u16),
    /// An error event of the engine's own failure inside a 200.
    ErrorEvent,
    /// Not HTTP as we insist on it.
    BadResponse,
    /// It accepts requests and makes no progress with any.
    Hung,
    /// Being drained, and its time is over. Does not speak against it.
    Drained,
}

impl Fault {
    /// No connection was made, so nothing was sent.
    pub fn is_connect(self) -> bool {
        matches!(
            self,
            Fault::ConnectRefused
                | Fault::ConnectTimedOut
                | Fault::Unreachable
                | Fault::ConnectFailed
        )
    }

    /// For logs and the `reason` label of metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Fault::ConnectRefused => "connect_refused",
            Fault::ConnectTimedOut => "connect_timeout",
            Fault::Unreachable => "connect_unreachable",
            Fault::ConnectFailed => "connect_failed",
            Fault::ConnectionLost => "connection_lost",
            Fault::FirstByteTimedOut => "first_byte_timeout",
            Fault::ReadTimedOut => "read_timeout",
            Fault::SendTimedOut => "send_timeout",
            Fault::Status(500) => "status_500",
            Fault::Status(502) => "status_502",
            Fault::Status(503) => "status_503",
            Fault::Status(504) => "status_504",
            Fault::Status(_) => "status_other",
            Fault::ErrorEvent => "error_event",
            Fault::BadResponse => "bad_response",
            Fault::Hung => "hung",
            Fault::Drained => "drained",
        }
    }
}

/// Why a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeFailure {
    /// Nothing listens there: takes the endpoint out at once.
    Refused,
    ConnectTimedOut,
    /// No way leads there.
    Unreachable,
    /// No connection for another reason: TLS, or what this machine forbids.
    ConnectFailed,
    /// This machine is out of files, ports or memory, or a unix socket's backlog is full: says nothing of the engine.
    Busy,
    /// Connected, but no whole answer within `health.timeout`.
    TimedOut,
    /// An answer other than 2xx.
    Status(u16),
    /// Closed early, or not HTTP.
    BadResponse,
    /// `health.path` or the endpoint's `api_key` cannot stand in a request.
    Unsendable,
    /// It is well, but does not say what it serves.
    NoModels,
    /// It is well, but did not answer the smallest of requests.
    NoCanary,
}

impl ProbeFailure {
    /// It is well, and does not prove that it serves.
    pub fn is_of_proof(self) -> bool {
        matches!(self, Self::NoModels | Self::NoCanary)
    }
}

/// Why an endpoint is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    Fault(Fault),
    Probe(ProbeFailure),
    /// Its name has never resolved.
    Unresolved,
    /// It drained, and has not been probed since.
    Drained,
}

impl Reason {
    /// For logs and the `reason` label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Fault(fault) => fault.reason(),
            Reason::Probe(ProbeFailure::Refused) => "probe_refused",
            Reason::Probe(ProbeFailure::ConnectTimedOut) => "probe_connect_timeout",
            Reason::Probe(ProbeFailure::Unreachable) => "probe_unreachable",
            Reason::Probe(ProbeFailure::ConnectFailed) => "probe_connect_failed",
            Reason::Probe(ProbeFailure::Busy) => "probe_busy",
            Reason::Probe(ProbeFailure::TimedOut) => "probe_timeout",
            Reason::Probe(ProbeFailure::Status(_)) => "probe_status",
            Reason::Probe(ProbeFailure::BadResponse) => "probe_bad_response",
            Reason::Probe(ProbeFailure::Unsendable) => "probe_unsendable",
            Reason::Probe(ProbeFailure::NoModels) => "probe_models",
            Reason::Probe(ProbeFailure::NoCanary) => "probe_canary",
            Reason::Unresolved => "unresolved",
            Reason::Drained => "drained",
        }
    }
}

/// For a person.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Fault(Fault::ConnectRefused) => f.write_str("connect refused"),
            Reason::Fault(Fault::ConnectTimedOut) => f.write_str("connect timed out"),
            Reason::Fault(Fault::Unreachable) => f.write_str("unreachable"),
            Reason::Fault(Fault::ConnectFailed) => f.write_str("cannot connect"),
            Reason::Fault(Fault::ConnectionLost) => f.write_str("connection lost"),
            Reason::Fault(Fault::FirstByteTimedOut) => f.write_str("no first byte in time"),
            Reason::Fault(Fault::ReadTimedOut) => f.write_str("no further byte in time"),
            Reason::Fault(Fault::SendTimedOut) => f.write_str("request not taken in time"),
            Reason::Fault(Fault::Status(code)) => write!(f, "answered {code}"),
            Reason::Fault(Fault::ErrorEvent) => f.write_str("error event in place of an answer"),
            Reason::Fault(Fault::BadResponse) => f.write_str("malformed answer"),
            Reason::Fault(Fault::Hung) => f.write_str("hung"),
            Reason::Fault(Fault::Drained) => f.write_str("drained"),
            Reason::Probe(ProbeFailure::Refused) => f.write_str("probe: connect refused"),
            Reason::Probe(ProbeFailure::ConnectTimedOut) => f.write_str("probe: connect timed out"),
            Reason::Probe(ProbeFailure::Unreachable) => f.write_str("probe: unreachable"),
            Reason::Probe(ProbeFailure::ConnectFailed) => f.write_str("probe: cannot connect"),
            Reason::Probe(ProbeFailure::Busy) => f.write_str("probe: could not be sent from here"),
            Reason::Probe(ProbeFailure::TimedOut) => f.write_str("probe: no answer in time"),
            Reason::Probe(ProbeFailure::Status(code)) => write!(f, "probe: answered {code}"),
            Reason::Probe(ProbeFailure::BadResponse) => f.write_str("probe: malformed answer"),
            Reason::Probe(ProbeFailure::Unsendable) => {
                f.write_str("probe: health.path or api_key cannot stand in a request")
            }
            Reason::Probe(ProbeFailure::NoModels) => {
                f.write_str("probe: does not say what it serves")
            }
            Reason::Probe(ProbeFailure::NoCanary) => {
                f.write_str("probe: does not answer a request for one token")
            }
            Reason::Unresolved => f.write_str("does not resolve"),
            Reason::Drained => f.write_str("drained until now, and not probed since"),
        }
    }
}
