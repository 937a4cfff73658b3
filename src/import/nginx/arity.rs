//! How many values a directive takes, where nginx takes a number that is fixed: one more or less is nearly
//! always a semicolon that is missing, and what comes after it would be lost.

use super::names;
use super::tree::{Directive, quoted};

const NONE: [&str; 3] = ["internal", "ip_hash", "least_conn"];
const ONE: [&str; 47] = [
    "accept_mutex",
    "chunked_transfer_encoding",
    "client_body_timeout",
    "client_header_buffer_size",
    "client_header_timeout",
    "client_max_body_size",
    "daemon",
    "default_type",
    "http2",
    "keepalive_requests",
    "multi_accept",
    "pid",
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_connect_timeout",
    "proxy_http_version",
    "proxy_intercept_errors",
    "proxy_next_upstream_timeout",
    "proxy_next_upstream_tries",
    "proxy_pass",
    "proxy_read_timeout",
    "proxy_request_buffering",
    "proxy_send_timeout",
    "proxy_socket_keepalive",
    "proxy_ssl_name",
    "proxy_ssl_server_name",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_verify",
    "real_ip_header",
    "real_ip_recursive",
    "reset_timedout_connection",
    "root",
    "send_timeout",
    "sendfile",
    "server_tokens",
    "set_real_ip_from",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_prefer_server_ciphers",
    "ssl_session_timeout",
    "tcp_nodelay",
    "tcp_nopush",
    "types_hash_max_size",
    "worker_connections",
    "worker_processes",
    "worker_rlimit_nofile",
    "worker_shutdown_timeout",
];
const TWO: [&str; 3] = [
    "large_client_header_buffers",
    "proxy_buffers",
    "proxy_set_header",
];

/// What is wrong with the number of its values, if anything.
pub(super) fn fault(directive: &Directive) -> Option<String> {
    let name = &*directive.name;
    let (taken, number) = if NONE.contains(&name) {
        (0, "no value")
    } else if ONE.contains(&name) {
        (1, "one value")
    } else if TWO.contains(&name) {
        (2, "two values")
    } else {
        // `access_log off proxy_buffering on;`: a parameter that is a directive's name, and has a `_`.
        let swallowed = (name == "access_log" || name == "error_log")
            .then(|| directive.args.iter().find(|arg| is_directive(arg)))
            .flatten()?;
        return Some(missing(swallowed));
    };
    if directive.args.len() < taken {
        return Some(format!("takes {number}"));
    }
    let extra = directive.args.get(taken)?;
    let swallowed = directive.args[taken..].iter().find(|arg| is_directive(arg));
    let hint = missing(swallowed.unwrap_or(extra));
    Some(format!("takes {number}: {hint}"))
}

fn is_directive(text: &str) -> bool {
    names::is_known(text) && (text.contains('_') || text == "server")
}

fn missing(before: &str) -> String {
    format!("is a \";\" missing before {}?", quoted(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_of_directives_and_in_order() {
        for list in [&NONE[..], &ONE, &TWO] {
            assert!(list.is_sorted(), "{list:?}");
            assert!(list.iter().all(|name| names::is_known(name)), "{list:?}");
        }
    }
}
