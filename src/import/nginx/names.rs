//! Which directives there are.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Blocks. A `server` is one in `http`, and none in `upstream`.
const BLOCKS: [&str; 20] = [
    "acme_issuer",
    "charset_map",
    "events",
    "geo",
    "http",
    "if",
    "limit_except",
    "location",
    "mail",
    "map",
    "match",
    "mgmt",
    "num_map",
    "oidc_provider",
    "otel_exporter",
    "server",
    "split_clients",
    "stream",
    "types",
    "upstream",
];

/// Blocks that hold something other than the directives of HTTP.
const OPAQUE: [&str; 13] = [
    "acme_issuer",
    "charset_map",
    "geo",
    "mail",
    "map",
    "match",
    "mgmt",
    "num_map",
    "oidc_provider",
    "otel_exporter",
    "split_clients",
    "stream",
    "types",
];

/// Prefixes of the modules that others have added to nginx.
const OTHERS: [&str; 18] = [
    "brotli",
    "check",
    "dav_ext_",
    "fancyindex",
    "geoip2",
    "headers_more",
    "jaeger_",
    "lua_",
    "modsecurity",
    "more_",
    "opentelemetry",
    "opentracing",
    "passenger_",
    "pagespeed",
    "rtmp",
    "vhost_traffic_status",
    "zipkin_",
    "zstd",
];

static NAMES: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let lines = include_str!("names.txt").lines();
    (lines.filter(|line| !line.starts_with('#')))
        .flat_map(str::split_whitespace)
        .collect()
});

/// Whether nginx has the directive by itself.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(name)
}

/// Whether it is likely to be of a module that others have made.
pub(super) fn is_of_others(name: &str) -> bool {
    OTHERS.iter().any(|prefix| name.starts_with(prefix)) || name.contains("_by_lua")
}

pub(super) fn is_block(name: &str) -> bool {
    BLOCKS.contains(&name)
}

pub(super) fn is_opaque(name: &str) -> bool {
    OPAQUE.contains(&name)
}

/// The directive that was probably meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // The comparison takes time by the square of the length.
    if name.len() > 64 {
        return None;
    }
    (NAMES.iter())
        .map(|known| (strsim::damerau_levenshtein(name, known), *known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// All of them, for tests.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_directives_and_what_was_meant_by_others() {
        assert!(NAMES.len() > 600, "{}", NAMES.len());
        assert!(is_known("proxy_pass") && is_known("least_conn") && is_known("http2"));
        assert!(!is_known("proxy_pas") && !is_known(""));
        assert_eq!(nearest("proxy_pas"), Some("proxy_pass"));
        assert_eq!(nearest("worker_process"), Some("worker_processes"));
        assert_eq!(nearest("endpoints_of_a_pool"), None);
        assert!(is_of_others("brotli_types") && is_of_others("content_by_lua_block"));
        for block in OPAQUE {
            assert!(is_block(block), "{block}");
        }
    }
}
