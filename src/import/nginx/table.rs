//! What becomes of each directive, as data.
/// A directive that more is known of than its name.
pub(super) struct Entry {
    pub name: &'static str,
    /// Where nginx takes it: m(ain), e(vents), h(ttp), s(erver), l(ocation), u(pstream); empty is
    /// not looked at.
    pub places: &'static str,
    pub fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is code for it, which says itself what is different.
    Carried,
    /// With one of these values it asks for what the gateway does anyway; why not with others.
    Same(&'static [&'static str], &'static str),
    /// Why not.
    Not(&'static str),
}

use Fate::{Carried, Not, Same};

const fn carried(name: &'static str, places: &'static str) -> Entry {
    Entry {
        name,
        places,
        fate: Carried,
    }
}

const fn same(
    name: &'static str,
    values: &'static [&'static str],
    else_why: &'static str,
) -> Entry {
    Entry {
        name,
        places: "",
        fate: Same(values, else_why),
    }
}

const fn not(name: &'static str, why: &'static str) -> Entry {
    Entry {
        name,
        places: "",
        fate: Not(why),
    }
}

const FILES: &str = "the gateway sends no files";
const BUFFERS: &str = "an answer goes to the client as it comes; what is held of it is bounded by limits.answer and limits.event";
const UNKNOWN: &str = "the gateway does not ask clients who they are: everyone who reaches the port may send requests";
/// Of X-Forwarded-For.
pub(super) const RECURSIVE: &str = "the client is the last address of X-Forwarded-For that is not in trusted_proxies, and nginx takes the last of all: who sends from within them may name any client; write there what the proxies have, and nothing wider";
const PREFIXES: [(&str, &str); 16] = [
    ("add_", "header fields of one's own are not added"),
    ("auth_", UNKNOWN),
    (
        "client_",
        "bodies and heads are held in memory, within limits.body_memory",
    ),
    ("fastcgi_", "engines are spoken to in HTTP"),
    ("grpc_", "engines are spoken to in HTTP/1.1"),
    ("gzip", "answers are not compressed"),
    ("http2_", "HTTP/2 has limits of its own, which are not set"),
    ("http3", "HTTP/3 is not supported"),
    (
        "limit_",
        "clients are not limited in how much they ask; limits.connections_per_client bounds their connections",
    ),
    ("open_", FILES),
    ("proxy_cache", "answers are not cached"),
    (
        "proxy_ssl_",
        "TLS towards engines has pools.default.tls alone: ca, verify, server_name",
    ),
    ("quic_", "HTTP/3 is not supported"),
    ("scgi_", "engines are spoken to in HTTP"),
    (
        "ssl_",
        "TLS is 1.2 and 1.3 with the ciphers of its library, and nothing of it is set",
    ),
    ("uwsgi_", "engines are spoken to in HTTP"),
];

/// Why a directive is not carried that has no entry.
pub(super) fn why_not(name: &str) -> &'static str {
    if !super::names::is_known(name) {
        return "it belongs to a module that is not nginx' own";
    }
    PREFIXES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or("the gateway has nothing like it", |(_, why)| why)
}

pub(super) fn find(name: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.name == name)
}

pub(super) static TABLE: &[Entry] = &[
    // The process.
    carried("worker_processes", "m"),
    carried("worker_connections", "e"),
    carried("worker_shutdown_timeout", "m"),
    carried("pid", "m"),
    carried("error_log", "mhsl"),
    carried("events", "m"),
    carried("http", "m"),
    same(
        "daemon",
        &["off"],
        "the gateway stays in the foreground; systemd/sluicegate.service runs it as a service",
    ),
    not(
        "env",
        "the environment is the gateway's own; ${NAME} in a value reads it",
    ),
    not("load_module", "the gateway has no modules"),
    not("multi_accept", "how connections are accepted is not set"),
    same("accept_mutex", &["off"], "each thread accepts for itself"),
    same("use", &["epoll"], "the gateway waits with epoll"),
    not(
        "user",
        "the gateway runs as the user it is started as; systemd/sluicegate.service names one",
    ),
    not(
        "worker_rlimit_nofile",
        "the gateway raises its limit of open files to what it may have; systemd/sluicegate.service has LimitNOFILE",
    ),
    not("worker_cpu_affinity", "threads are not bound to processors"),
    // The site.
    carried("upstream", "h"),
    carried("server", "hu"),
    carried("location", "sl"),
    carried("listen", "s"),
    carried("server_name", "s"),
    carried("ssl", "hs"),
    carried("ssl_certificate", "hs"),
    carried("ssl_certificate_key", "hs"),
    carried("http2", "hs"),
    same(
        "ssl_protocols",
        &["TLSv1.2 TLSv1.3", "TLSv1.3 TLSv1.2"],
        "TLS is 1.2 and 1.3",
    ),
    not(
        "ssl_client_certificate",
        "clients are not asked for a certificate: everyone who reaches the port may send requests",
    ),
    same(
        "ssl_verify_client",
        &["off"],
        "clients are not asked for a certificate: everyone who reaches the port may send requests",
    ),
    // Where requests go.
    carried("proxy_pass", "li"),
    carried("set", "sli"),
    carried("proxy_set_header", "hsl"),
    carried("proxy_connect_timeout", "hsl"),
    carried("proxy_send_timeout", "hsl"),
    carried("proxy_read_timeout", "hsl"),
    carried("proxy_next_upstream", "hsl"),
    carried("proxy_next_upstream_tries", "hsl"),
    carried("proxy_ssl_verify", "hsl"),
    carried("proxy_ssl_trusted_certificate", "hsl"),
    carried("proxy_ssl_name", "hsl"),
    same(
        "proxy_http_version",
        &["1.1"],
        "engines are spoken to in HTTP/1.1",
    ),
    same(
        "proxy_ssl_server_name",
        &["on"],
        "the name is always sent to https endpoints",
    ),
    same(
        "proxy_ssl_session_reuse",
        &["on"],
        "sessions are always reused",
    ),
    same("proxy_buffering", &["off"], BUFFERS),
    not(
        "proxy_buffer_size",
        "an engine's head may have limits.response_header, 64KiB, and the rest of an answer goes to the client as it comes",
    ),
    not("proxy_buffers", BUFFERS),
    not("proxy_busy_buffers_size", BUFFERS),
    not("proxy_max_temp_file_size", BUFFERS),
    not("proxy_temp_path", BUFFERS),
    not("proxy_temp_file_write_size", BUFFERS),
    same(
        "proxy_request_buffering",
        &["on"],
        "a request's body is read whole before it is sent, so that it can be sent again",
    ),
    same("proxy_cache", &["off"], "answers are not cached"),
    same(
        "proxy_redirect",
        &["off"],
        "Location of an answer is passed as it is",
    ),
    same(
        "proxy_ignore_client_abort",
        &["off"],
        "an engine is left as soon as the client has left, so that it stops",
    ),
    same(
        "proxy_intercept_errors",
        &["off"],
        "an engine's own errors are passed as they are",
    ),
    same(
        "proxy_pass_request_body",
        &["on"],
        "bodies are always passed",
    ),
    same(
        "proxy_pass_request_headers",
        &["on"],
        "header fields are always passed",
    ),
    same("proxy_limit_rate", &["0"], "answers are not slowed down"),
    same("limit_rate", &["0"], "answers are not slowed down"),
    same(
        "proxy_next_upstream_timeout",
        &["0"],
        "a request is tried again within retries and retry_budget, not within a time",
    ),
    not(
        "proxy_hide_header",
        "an engine's header fields are passed, but for Server, Date and those of one connection",
    ),
    not(
        "proxy_pass_header",
        "an engine's header fields are passed, but for Server, Date and those of one connection",
    ),
    not(
        "proxy_socket_keepalive",
        "sockets towards engines are not set",
    ),
    not("rewrite", "paths are passed as they come"),
    not("if", "conditions, and what is in this one"),
    not(
        "limit_except",
        "methods are limited in expose alone, as in \"GET /version\"",
    ),
    not("mirror", "requests are sent to one engine"),
    // Clients.
    carried("client_max_body_size", "hsl"),
    carried("client_body_timeout", "hsl"),
    carried("client_header_timeout", "hs"),
    carried("send_timeout", "hsl"),
    carried("keepalive_timeout", "hslu"),
    carried("large_client_header_buffers", "hs"),
    carried("set_real_ip_from", "hsl"),
    carried("real_ip_header", "hsl"),
    same("real_ip_recursive", &["on"], RECURSIVE),
    not(
        "keepalive_requests",
        "a client's connection takes any number of requests, an engine's too",
    ),
    not("keepalive_time", "connections have no greatest age"),
    same(
        "keepalive_disable",
        &["none", "msie6"],
        "keep-alive is the same for every browser",
    ),
    same(
        "tcp_nodelay",
        &["on"],
        "every piece of an answer is sent at once",
    ),
    same(
        "chunked_transfer_encoding",
        &["on"],
        "answers without a length have chunks",
    ),
    same(
        "underscores_in_headers",
        &["off"],
        "fields with an underscore in their name are dropped",
    ),
    same(
        "ignore_invalid_headers",
        &["on"],
        "fields whose name is invalid are refused",
    ),
    same(
        "server_tokens",
        &["off"],
        "Server is \"sluicegate\", without a version",
    ),
    same("gzip", &["off"], "answers are not compressed"),
    same("etag", &["off"], FILES),
    not("merge_slashes", "paths are matched and passed as they come"),
    not(
        "reset_timedout_connection",
        "a client that is too slow is answered 408 or closed",
    ),
    same(
        "allow",
        &["all"],
        "addresses are not looked at but for status_allow: everyone who reaches the port may send requests",
    ),
    not(
        "deny",
        "addresses are not looked at but for status_allow: everyone who reaches the port may send requests",
    ),
    same(
        "satisfy",
        &["all"],
        "the gateway does not ask clients who they are",
    ),
    same("auth_request", &["off"], UNKNOWN),
    same("auth_jwt", &["off"], UNKNOWN),
    same("auth_basic", &["off"], UNKNOWN),
    not(
        "resolver_timeout",
        "names are looked up by the system's resolver",
    ),
    carried("resolver", "hslu"),
    // Logs.
    carried("access_log", "hsl"),
    carried("log_format", "h"),
    not("log_subrequest", "there are no subrequests"),
    not(
        "open_log_file_cache",
        "the access log is one file, which stays open",
    ),
    // Files and answers of nginx' own.
    not("sendfile", FILES),
    not("sendfile_max_chunk", FILES),
    not("tcp_nopush", FILES),
    not("aio", FILES),
    not("directio", FILES),
    not("default_type", FILES),
    not("types", FILES),
    not("types_hash_max_size", FILES),
    not("types_hash_bucket_size", FILES),
    not("root", FILES),
    not("alias", FILES),
    not("index", FILES),
    not("try_files", FILES),
    not("autoindex", FILES),
    not("expires", FILES),
    not("log_not_found", FILES),
    not("charset", FILES),
    not(
        "error_page",
        "errors are the engine's own, or OpenAI's JSON",
    ),
    not("return", "the gateway answers its own paths alone"),
    not(
        "stub_status",
        "nginx' text is at /stub_status, on every listener, for status_allow; /metrics has Prometheus' text",
    ),
    not("internal", "there are no redirects within the gateway"),
    not("map", "there are no variables"),
    not("geo", "there are no variables"),
    not("split_clients", "there are no variables"),
    not(
        "stream",
        "the gateway speaks HTTP alone; the block is not looked at",
    ),
    not(
        "mail",
        "the gateway speaks HTTP alone; the block is not looked at",
    ),
    // The inside of an upstream.
    carried("keepalive", "u"),
    carried("least_conn", "u"),
    carried("ip_hash", "u"),
    carried("hash", "u"),
    carried("random", "u"),
    carried("least_time", "u"),
    carried("sticky", "u"),
    // One process has one count of each endpoint.
    carried("zone", "u"),
    carried("queue", "u"),
    not(
        "health_check",
        "every endpoint is probed; health of the pool says how",
    ),
    not("ntlm", "an engine's connection is any client's"),
    not("state", "the endpoints are in the configuration file"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::nginx::names;

    #[test]
    fn every_entry_is_a_directive_and_has_one() {
        let mut seen = std::collections::HashSet::new();
        for entry in TABLE {
            assert!(seen.insert(entry.name), "{} is there twice", entry.name);
            assert!(names::is_known(entry.name), "{} is not known", entry.name);
            assert!(entry.places.chars().all(|c| "mehsliu".contains(c)));
        }
    }

    #[test]
    fn every_directive_has_a_reason() {
        for name in names::all() {
            assert!(!why_not(name).is_empty());
        }
        assert!(why_not("brotli").contains("module"));
        assert!(why_not("fastcgi_pass").contains("HTTP"));
    }
}
