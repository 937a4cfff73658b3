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
                    if api_key.get_or_insert_with(|| key.to_owned()) == key {
                        notes.differs(field, "it is api_key of every endpoint, and so goes with every client's request; better is \"${ENGINE_KEY}\", which reads the environment");
                    } else {
                        notes.not_carried(field, "endpoints of a pool have one api_key here, and there was another before");
                    }
                }
                continue;
            }
            match sent(field) {
                Sent::AsWritten => {}
                Sent::Otherwise(how) => notes.differs(field, how),
                Sent::Not(why) => notes.not_carried(field, why),
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
    is_key.then_some(key)
}

enum Sent {
    AsWritten,
    Otherwise(&'static str),
    Not(&'static str),
}

/// What the gateway does about a field that nginx sets.
fn sent(field: &Directive) -> Sent {
    use Sent::{AsWritten, Not, Otherwise};
    let name = field.arg(0).to_ascii_lowercase();
    match (name.as_str(), field.arg(1)) {
        ("connection", "")
        | ("host", "$host")
        | ("x-real-ip", "$remote_addr")
        | ("x-forwarded-for", "$proxy_add_x_forwarded_for")
        | ("x-forwarded-proto", "$scheme")
        | ("authorization", "$http_authorization") => AsWritten,
        ("x-request-id", "$request_id") => {
            Otherwise("a client's own id is kept, if it is a fit one")
        }
        ("x-request-id", _) => Otherwise("a client's own id is sent, or a new one"),
        ("host", "$http_host") => Otherwise("Host is sent without its port, in lower case"),
        ("host", _) => Otherwise("Host is the client's"),
        ("x-real-ip", _) => Otherwise("X-Real-IP is the address of the connection's other side"),
        ("x-forwarded-for", _) => Otherwise(
            "the address of the connection's other side is put behind the client's X-Forwarded-For",
        ),
        ("x-forwarded-proto", _) => Otherwise(
            "X-Forwarded-Proto is http or https, as the client came; a trusted proxy's own is kept",
        ),
        ("upgrade" | "connection", _) => {
            Not("connections towards engines are kept, and WebSocket passes on /v1/realtime alone")
        }
        (_, "") => Not("fields of the client's are passed, but for those of one connection"),
        _ => Not("fields of one's own are not added"),
    }
}
