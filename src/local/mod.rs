//! The paths the gateway answers itself. Pure: states in, bytes out; who asks and how it is sent
//! is for the proxy.

pub mod access;
pub mod admin;
pub mod endpoints;
pub mod health;
pub mod models;
pub mod stub_status;

/// A path of the gateway's own, asked for with a method it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalPath {
    /// The guide's liveness check; with `Accept: application/json` LiteLLM's list of endpoints.
    Health,
    /// 200 while every pool has an endpoint up.
    Ready,
    /// 200 while the process answers at all.
    Live,
    /// nginx's text.
    StubStatus,
    /// Prometheus' text.
    Metrics,
    /// The endpoints as JSON; only on the admin listeners.
    Endpoints,
}

/// What the gateway itself does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Answer(LocalPath),
    /// The path is ours, the method is not; holds the value of `Allow`.
    MethodNotAllowed(&'static str),
}

const READ: &str = "GET, HEAD";

/// Routes by the raw path, up to `?`, exactly as it is written; `None` is not ours.
pub fn route(raw_path: &[u8], method: &str, on_admin: bool) -> Option<Route> {
    let path = match raw_path {
        b"/health" => LocalPath::Health,
        b"/ready" | b"/health/readiness" => LocalPath::Ready,
        // LiteLLM has both spellings.
        b"/health/liveliness" | b"/health/liveness" => LocalPath::Live,
        b"/stub_status" => LocalPath::StubStatus,
        b"/metrics" => LocalPath::Metrics,
        b"/endpoints" if on_admin => LocalPath::Endpoints,
        _ => return None,
    };
    Some(match method {
        "GET" | "HEAD" => Route::Answer(path),
        _ => Route::MethodNotAllowed(READ),
    })
}

impl LocalPath {
    /// On a public listener only for those in `status_allow`.
    pub fn is_guarded(self) -> bool {
        matches!(self, Self::StubStatus | Self::Metrics | Self::Endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_gateways_own() {
        for (path, expected) in [
            ("/health", Some(LocalPath::Health)),
            ("/ready", Some(LocalPath::Ready)),
            ("/health/readiness", Some(LocalPath::Ready)),
            ("/health/liveliness", Some(LocalPath::Live)),
            ("/health/liveness", Some(LocalPath::Live)),
            ("/stub_status", Some(LocalPath::StubStatus)),
            ("/metrics", Some(LocalPath::Metrics)),
            ("/endpoints", None),
            ("/healthz", None),
            ("/health/", None),
            ("/%68ealth", None),
            ("/v1/models", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(
                route(path.as_bytes(), "GET", false),
                expected.map(Route::Answer),
                "{path}"
            );
        }
        assert_eq!(
            route(b"/endpoints", "HEAD", true),
            Some(Route::Answer(LocalPath::Endpoints))
        );
    }

    #[test]
    fn they_are_only_read() {
        assert_eq!(
            route(b"/stub_status", "POST", false),
            Some(Route::MethodNotAllowed("GET, HEAD"))
        );
        assert_eq!(route(b"/nothing", "POST", true), None);
    }

    #[test]
    fn what_is_guarded() {
        assert!(LocalPath::Metrics.is_guarded() && LocalPath::StubStatus.is_guarded());
        assert!(!LocalPath::Health.is_guarded() && !LocalPath::Ready.is_guarded());
    }
}
