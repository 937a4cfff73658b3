//! `proxy_set_header`: header fields of the requests that engines get.

use super::choice::Choice;
use super::notes::Notes;
use super::tree::{Directive, quoted};

/// Notes where the gateway sends engines other fields than nginx would. The key that all of them are
/// sent, where there is one.
pub(super) fn request_fields(choice: &Choice<'_>, notes: &mut Notes) -> Option<String> {
    let mut seen: Vec<usize> = Vec::new();
    let mut api_key = None;
    let mut has_host = false;
    for location in &choice.locations {
        for field in location.scope.effective("proxy_set_header") {
            has_host |= field.arg(0).eq_ignore_ascii_case("host");
            if seen.contains(&field.number) {
                continue;
            }
            seen.push(field.number);
            if let Some(key) = bearer(field) {
                if key.contains('$') {
                    notes.not_carried(
                        field,
                        "the key is in a variable; write api_key of the endpoints",
                    );
                } else {
                    notes.differs(field, "it is api_key of every endpoint; better is \"${ENGINE_KEY}\", which reads the environment");
                    api_key.get_or_insert_with(|| key.to_owned());
                }
            } else if let Some(how) = field_differs(field) {
                notes.differs(field, how);
            }
        }
    }
    if !has_host {
        let at = choice.target.proxy_pass;
        notes.differs(
            at,
            format!(
                "Host is not set, so nginx sends {}; the gateway sends the client's",
                quoted(&choice.target.authority)
            ),
        );
    }
    api_key
}

fn bearer(field: &Directive) -> Option<&str> {
    if !field.arg(0).eq_ignore_ascii_case("authorization") {
        return None;
    }
    let key = field.arg(1).strip_prefix("Bearer ")?.trim();
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
    // The client's own is what is sent anyway.
    is_key.then_some(key)
}

/// `None` where the gateway sends the same.
fn field_differs(field: &Directive) -> Option<&'static str> {
    let name = field.arg(0).to_ascii_lowercase();
    match (name.as_str(), field.arg(1)) {
        ("connection", "") | ("host", "$host") | ("x-real-ip", "$remote_addr") => None,
        ("x-forwarded-for", "$proxy_add_x_forwarded_for") => None,
        ("x-forwarded-proto", "$scheme") => None,
        ("authorization", "$http_authorization") => None,
        ("x-request-id", "$request_id") => Some("a client's own id is kept, if it is a fit one"),
        ("x-request-id", _) => Some("a client's own id is sent, or a new one"),
        ("host", "$http_host") => Some("Host is sent without its port, in lower case"),
        ("host", _) => Some("Host is the client's"),
        ("x-real-ip", _) => Some("X-Real-IP is the address of the connection's other side"),
        ("x-forwarded-for", _) => Some(
            "the address of the connection's other side is put behind the client's X-Forwarded-For",
        ),
        ("x-forwarded-proto", _) => Some(
            "X-Forwarded-Proto is http or https, as the client came; a trusted proxy's own is kept",
        ),
        ("upgrade" | "connection", _) => {
            Some("connections towards engines are kept, and WebSocket is not supported yet")
        }
        (_, "") => Some("fields of the client's are passed, but for those of one connection"),
        _ => Some("fields of one's own are not added"),
    }
}
