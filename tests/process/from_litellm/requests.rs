//! The requests that go through both, and what the engines answer.

use super::KEY;

pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    pub bytes: Vec<u8>,
    /// What engines answer to a target, from this case on.
    pub replies: Vec<(&'static str, Vec<u8>)>,
}

const CHAT: &str = "/v1/chat/completions";
const MODEL: &str = "deepseek-ai/DeepSeek-R1";

/// A POST with this key; its path is LiteLLM's or OpenAI's.
fn post(name: &'static str, path: &str, authorization: &str, body: &str) -> Case {
    let bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n{authorization}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Case {
        name,
        method: "POST",
        bytes: bytes.into(),
        replies: Vec::new(),
    }
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn call(name: &'static str, path: &str, body: &str) -> Case {
    post(name, path, &bearer(KEY), body)
}

fn get(name: &'static str, path: &str, fields: &str) -> Case {
    Case {
        name,
        method: "GET",
        bytes: format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n").into(),
        replies: Vec::new(),
    }
}

impl Case {
    fn reply(mut self, target: &'static str, status: &str, kind: &str, body: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.replies.push((target, answer.into()));
        self
    }

    fn json(self, target: &'static str, body: &str) -> Self {
        self.reply(target, "200 OK", "application/json", body)
    }
}

fn completion(model: &str, message: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"{model}","choices":[{{"index":0,"message":{message},"finish_reason":"{finish}"}}],"usage":{{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}}}"#
    )
}

fn stream(usage: bool) -> String {
    let mut text = String::new();
    let head = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"{MODEL}","choices":["#
    );
    for choice in [
        r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}"#,
        r#"{"index":0,"delta":{"content":"Hel"},"finish_reason":null}"#,
        r#"{"index":0,"delta":{"content":"lo"},"finish_reason":null}"#,
        r#"{"index":0,"delta":{},"finish_reason":"stop"}"#,
    ] {
        text += &format!("data: {head}{choice}]}}\n\n");
    }
    if usage {
        text += &format!(
            "data: {head}],\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}}}\n\n"
        );
    }
    text + "data: [DONE]\n\n"
}

/// Every case, those that hurt an engine last.
pub fn cases() -> Vec<Case> {
    let hi = r#""messages":[{"role":"user","content":"Hi"}]"#;
    let hello = completion(MODEL, r#"{"role":"assistant","content":"Hello"}"#, "stop");
    let tool = completion(
        MODEL,
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}"#,
        "tool_calls",
    );
    let embedding = r#"{"object":"list","model":"bge-m3","data":[{"object":"embedding","index":0,"embedding":[0.25,0.5]}],"usage":{"prompt_tokens":2,"total_tokens":2,"completion_tokens":0}}"#;
    let text = format!(
        r#"{{"id":"cmpl-1","object":"text_completion","created":1,"model":"{MODEL}","choices":[{{"index":0,"text":" there","finish_reason":"length","logprobs":null}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
    );
    let message = format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"{MODEL}","content":[{{"type":"text","text":"Hello"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":7,"output_tokens":3}}}}"#
    );
    let response = format!(
        r#"{{"id":"resp_1","object":"response","created_at":1,"status":"completed","model":"{MODEL}","output":[{{"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[{{"type":"output_text","text":"Hello","annotations":[]}}]}}],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"usage":{{"input_tokens":7,"output_tokens":3,"total_tokens":10,"input_tokens_details":{{"cached_tokens":0}},"output_tokens_details":{{"reasoning_tokens":0}}}}}}"#
    );
    let models = format!(r#"{{"object":"list","data":[{{"id":"{MODEL}","object":"model"}}]}}"#);
    let r1 = |rest: &str| format!(r#"{{"model":"DeepSeek-R1",{hi}{rest}}}"#);
    vec![
        get("models", "/v1/models", &bearer(KEY)).json("/v1/models", &models),
        get("models without v1", "/models", &bearer(KEY)),
        call("chat", CHAT, &r1("")).json(CHAT, &hello),
        call(
            "chat with everything",
            CHAT,
            &r1(r#","max_tokens":5,"temperature":0.5,"top_p":0.9,"n":1,"seed":7,"stop":["x"],"presence_penalty":0.1,"top_k":3,"chat_template_kwargs":{"thinking":false},"logit_bias":{"1":2},"response_format":{"type":"json_object"},"user":"u1""#),
        ),
        call("chat without v1", "/chat/completions", &r1("")),
        call(
            "model first",
            CHAT,
            &format!(r#"{{{hi},"model":"DeepSeek-R1"}}"#),
        ),
        call(
            "alias",
            CHAT,
            &format!(r#"{{"model":"r1",{hi}}}"#),
        ),
        post(
            "fields",
            CHAT,
            &format!("{}X-Own: 1\r\n", bearer(KEY)),
            &r1(""),
        ),
        post("x-api-key", CHAT, &format!("x-api-key: {KEY}\r\n"), &r1("")),
        call(
            "tools",
            CHAT,
            &r1(r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}}],"tool_choice":"auto""#),
        )
        .json(CHAT, &tool),
        call("stream", CHAT, &r1(r#","stream":true"#)).reply(
            CHAT,
            "200 OK",
            "text/event-stream",
            &stream(true),
        ),
        call(
            "stream with usage",
            CHAT,
            &r1(r#","stream":true,"stream_options":{"include_usage":true}"#),
        ),
        call(
            "completions",
            "/v1/completions",
            r#"{"model":"DeepSeek-R1","prompt":"Hi","max_tokens":1}"#,
        )
        .json("/v1/completions", &text),
        call(
            "embeddings",
            "/v1/embeddings",
            r#"{"model":"embed","input":["Hi","Ho"]}"#,
        )
        .json("/v1/embeddings", embedding),
        post("wrong key", CHAT, &bearer("sk-wrong"), &r1("")),
        post("no key", CHAT, "", &r1("")),
        call(
            "wrong model",
            CHAT,
            &format!(r#"{{"model":"DeepSeek-R2",{hi}}}"#),
        ),
        call("no model", CHAT, &format!("{{{hi}}}")),
        call(
            "the engine's own name",
            CHAT,
            &format!(r#"{{"model":"openai/{MODEL}",{hi}}}"#),
        )
        .json(CHAT, &hello),
        call(
            "responses",
            "/v1/responses",
            r#"{"model":"DeepSeek-R1","input":"Hi"}"#,
        )
        .json("/v1/responses", &response),
        call(
            "messages of Anthropic",
            "/v1/messages",
            r#"{"model":"DeepSeek-R1","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}"#,
        )
        .json("/v1/messages", &message),
        call("no json", CHAT, "{\"model\": DeepSeek-R1}"),
        get("liveliness", "/health/liveliness", ""),
        get(
            "health",
            "/health",
            &format!("Accept: application/json\r\n{}", bearer(KEY)),
        )
        .json(CHAT, &hello),
        call("400", CHAT, &r1("")).reply(
            CHAT,
            "400 Bad Request",
            "application/json",
            r#"{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}"#,
        ),
        call("500", CHAT, &r1("")).reply(
            CHAT,
            "500 Internal Server Error",
            "application/json",
            r#"{"error":{"message":"broken","type":"InternalServerError","param":null,"code":500}}"#,
        ),
    ]
}
