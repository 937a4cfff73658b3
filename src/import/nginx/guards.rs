//! What keeps clients out, or holds them back: where it is not carried, clients can do more than before.

use super::tree::Directive;

/// What keeps clients out, or holds them back. Prefixes, as modules have several directives each.
const GUARDS: [&str; 16] = [
    "access_by_lua",
    "allow",
    "auth_",
    "deny",
    "internal",
    "limit_conn",
    "limit_except",
    "limit_req",
    "modsecurity",
    "real_ip_recursive",
    "satisfy",
    "secure_link",
    "ssl_client_certificate",
    "ssl_reject_handshake",
    "ssl_verify_client",
    "valid_referers",
];

/// Whether clients can do more than before where the directive is not carried.
pub(super) fn is_guard(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "ssl_protocols" => directive.args.iter().all(|arg| arg == "TLSv1.3"),
        "if" => directive.named("return").any(is_refusal),
        name => GUARDS.iter().any(|guard| name.starts_with(guard)),
    }
}

/// Whether a `return` answers with an error.
pub(super) fn is_refusal(answer: &Directive) -> bool {
    matches!(answer.arg(0).as_bytes(), [b'4' | b'5', _, _])
}
