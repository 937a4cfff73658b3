//! Response heads, in uvicorn's order and with the fields that FastAPI and vLLM's middleware add.

use std::sync::Arc;

use super::connection::End;
use super::errors::ErrorAnswer;
use super::http::{self, Head};
use super::script::Script;
use super::shared::Shared;

/// Writes response heads as uvicorn, FastAPI and vLLM's middleware do for this request.
pub(super) struct Responder {
    shared: Arc<Shared>,
    /// Sent back with `--enable-request-id-headers`.
    request_id: Option<String>,
    /// The client's, or a new one: part of the answer's id.
    pub answer_id: String,
    keep_alive: bool,
    is_head: bool,
    has_origin: bool,
}

impl Responder {
    pub(super) fn new(shared: &Arc<Shared>, script: &Script, head: &Head) -> Self {
        let given = head.header("x-request-id").map(str::to_owned);
        let answer_id = given.clone().unwrap_or_else(|| shared.new_id());
        let request_id = script
            .request_id_headers
            .then(|| given.unwrap_or_else(|| format!("{0}{0}", shared.new_id())));
        Self {
            shared: Arc::clone(shared),
            request_id,
            answer_id,
            keep_alive: head.keep_alive,
            is_head: head.method == "HEAD",
            has_origin: head.header("origin").is_some(),
        }
    }

    pub(super) fn end(&self) -> End {
        if self.keep_alive {
            End::Keep
        } else {
            End::Close
        }
    }

    /// From now on the connection closes after the answer.
    pub(super) fn close(&mut self) {
        self.keep_alive = false;
    }

    /// A head: `fields` are the application's, in order; chunked when told so.
    pub(super) fn head(
        &self,
        out: &mut Vec<u8>,
        status: u16,
        fields: &[(&str, &str)],
        chunked: bool,
    ) {
        out.extend_from_slice(
            format!("HTTP/1.1 {status} {}\r\ndate: ", http::phrase(status)).as_bytes(),
        );
        self.shared.date.push(out);
        out.extend_from_slice(b"\r\nserver: uvicorn\r\n");
        let mut field = |name: &str, value: &str| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        };
        for (name, value) in fields {
            field(name, value);
        }
        // The key is checked outside of CORS.
        if status != 401 {
            if self.has_origin {
                field("access-control-allow-origin", "*");
            }
            field("vary", "Origin");
        }
        if let Some(id) = &self.request_id {
            field("x-request-id", id);
        }
        if !self.keep_alive {
            field("connection", "close");
        }
        if chunked {
            field("transfer-encoding", "chunked");
        }
        out.extend_from_slice(b"\r\n");
    }

    pub(super) fn body(&self, out: &mut Vec<u8>, status: u16, kind: &str, body: &[u8]) {
        let length = body.len().to_string();
        self.head(
            out,
            status,
            &[("content-length", &length), ("content-type", kind)],
            false,
        );
        self.content(out, body);
    }

    /// JSON with the load report the client asked for.
    pub(super) fn json(&self, out: &mut Vec<u8>, body: &[u8], load: Option<&str>) {
        let length = body.len().to_string();
        let fields = [
            ("endpoint-load-metrics", load.unwrap_or_default()),
            ("content-length", length.as_str()),
            ("content-type", "application/json"),
        ];
        self.head(
            out,
            200,
            if load.is_some() {
                &fields
            } else {
                &fields[1..]
            },
            false,
        );
        self.content(out, body);
    }

    pub(super) fn error(&self, out: &mut Vec<u8>, error: &ErrorAnswer) {
        let length = error.body.len().to_string();
        let fields = [
            ("allow", error.allow.unwrap_or_default()),
            ("content-length", length.as_str()),
            ("content-type", "application/json"),
        ];
        self.head(
            out,
            error.status,
            if error.allow.is_some() {
                &fields
            } else {
                &fields[1..]
            },
            false,
        );
        self.content(out, error.body.as_bytes());
    }

    pub(super) fn empty(&self, out: &mut Vec<u8>, status: u16) {
        self.head(out, status, &[("content-length", "0")], false);
    }

    fn content(&self, out: &mut Vec<u8>, body: &[u8]) {
        if !self.is_head {
            out.extend_from_slice(body);
        }
    }
}

/// uvicorn's answer to bytes that are no request; no middleware touches it.
pub(super) fn invalid_request(shared: &Shared, out: &mut Vec<u8>) {
    const MESSAGE: &str = "Invalid HTTP request received.";
    out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\ndate: ");
    shared.date.push(out);
    out.extend_from_slice(
        format!(
            "\r\nserver: uvicorn\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{MESSAGE}",
            MESSAGE.len()
        )
        .as_bytes(),
    );
}
