use serde_json::json;

/// A request as it will be on the wire.
#[derive(Debug, Clone)]
pub struct Request {
    line: String,
    version: &'static str,
    host: bool,
    fields: Vec<String>,
    body: Option<Vec<u8>>,
    chunk: Option<usize>,
}

pub fn get(target: &str) -> Request {
    Request {
        line: format!("GET {target}"),
        version: "HTTP/1.1",
        host: true,
        fields: Vec::new(),
        body: None,
        chunk: None,
    }
}

/// JSON, unless another `Content-Type` is given.
pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Request {
    Request {
        line: format!("POST {target}"),
        body: Some(body.into()),
        ..get(target)
    }
}

/// A chat of one message. A stream asks for its count of tokens, so that it passes unchanged.
pub fn chat(stream: bool) -> Request {
    post("/v1/chat/completions", chat_body(stream))
}

pub fn chat_body(stream: bool) -> String {
    let message = json!({ "role": "user", "content": "Say something." });
    let mut body = json!({ "model": "DeepSeek-R1", "messages": [message], "stream": stream });
    if stream {
        body["stream_options"] = json!({ "include_usage": true });
    }
    body.to_string()
}

impl Request {
    pub fn method(mut self, method: &str) -> Self {
        let target = self.line.split_once(' ').map_or("", |(_, target)| target);
        self.line = format!("{method} {target}");
        self
    }

    pub fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    /// A whole line, `Name: value`. A `Host` replaces the usual one.
    pub fn field(mut self, line: &str) -> Self {
        self.host &= !starts_with(line, "host:");
        self.fields.push(line.to_owned());
        self
    }

    pub fn without_host(mut self) -> Self {
        self.host = false;
        self
    }

    /// With a body, as only some methods mean it.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The body goes out in chunks of so many bytes.
    pub fn chunked(mut self, size: usize) -> Self {
        self.chunk = Some(size);
        self
    }

    /// The head, blank line included.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {}\r\n", self.line, self.version);
        if self.host {
            head.push_str("Host: gateway.example\r\n");
        }
        for field in &self.fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        if let Some(body) = &self.body {
            if !self
                .fields
                .iter()
                .any(|field| starts_with(field, "content-type:"))
            {
                head.push_str("Content-Type: application/json\r\n");
            }
            if self.chunk.is_some() {
                head.push_str("Transfer-Encoding: chunked\r\n");
            } else if !self
                .fields
                .iter()
                .any(|field| starts_with(field, "content-length:"))
            {
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The body with its framing.
    pub fn framed_body(&self) -> Vec<u8> {
        let body = self.body.as_deref().unwrap_or_default();
        let Some(size) = self.chunk else {
            return body.to_vec();
        };
        let mut out = Vec::with_capacity(body.len() + body.len() / size * 8 + 16);
        for chunk in body.chunks(size) {
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.framed_body()].concat()
    }

    pub fn is_head_method(&self) -> bool {
        self.line.starts_with("HEAD ")
    }
}

fn starts_with(line: &str, prefix: &str) -> bool {
    line.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
