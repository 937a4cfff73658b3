//! What can be seen of a case: what clients read, and what engines were asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;

use super::requests::Case;
use crate::recorder::{End, Received, Recorder};
use crate::wire::{Answer, Wire};

/// Everything that matters of a case, a line each.
pub async fn observe(case: &Case, gateway: SocketAddr, engines: &[Recorder]) -> Vec<String> {
    let mut before = Vec::new();
    for engine in engines {
        for (target, bytes) in &case.replies {
            engine.reply(target, bytes.clone(), End::Keep);
        }
        before.push(engine.received().len());
    }
    let mut wire = Wire::to(gateway).await;
    wire.send(&case.bytes).await;
    let answer = wire.answer_to(case.method).await.expect("an answer");
    let mut lines = told(&answer);
    let received = engines.iter().zip(before).flat_map(|(engine, before)| {
        let all = engine.received();
        all[before..].to_vec()
    });
    // Both ask the engines now and then which models they have.
    let received: Vec<_> = received.filter(|r| r.method != "GET").collect();
    for (index, request) in received.iter().enumerate() {
        lines.extend(asked(index, request));
    }
    lines
}

/// What an engine was asked, a line for each field of the body.
fn asked(index: usize, request: &Received) -> Vec<String> {
    let mut lines = vec![
        format!("engine {index} asked {} {}", request.method, request.target),
        format!(
            "engine {index} authorization {}",
            request.field("authorization").unwrap_or("none")
        ),
    ];
    if let Some(own) = request.field("x-own") {
        lines.push(format!("engine {index} x-own {own}"));
    }
    match serde_json::from_slice::<Value>(&request.body) {
        Ok(Value::Object(fields)) => lines.extend(
            fields
                .iter()
                .map(|(name, value)| format!("engine {index} body {name}: {value}")),
        ),
        _ => lines.push(format!(
            "engine {index} body {}",
            String::from_utf8_lossy(&request.body)
        )),
    }
    lines
}

/// What the client was told: of JSON what clients read, of a stream its text and how it ended.
fn told(answer: &Answer) -> Vec<String> {
    let mut lines = vec![format!("client status {}", answer.status)];
    let field = |name: &str| {
        let lines = answer.head.lines().filter_map(|line| line.split_once(':'));
        let mut own = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        own.next().map(|(_, value)| value.trim().to_owned())
    };
    let kind = field("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    lines.push(format!("client type {kind}"));
    let text = String::from_utf8_lossy(&answer.body);
    if kind == "text/event-stream" {
        let events: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        let mut content = String::new();
        let mut rest = BTreeSet::new();
        for event in &events {
            let Ok(event) = serde_json::from_str::<Value>(event) else {
                rest.insert(format!("client ends with {event}"));
                continue;
            };
            rest.insert(format!("client model {}", event["model"]));
            let choice = &event["choices"][0];
            content += choice["delta"]["content"].as_str().unwrap_or_default();
            if let Some(finish) = choice["finish_reason"].as_str() {
                rest.insert(format!("client finish {finish}"));
            }
            if event["usage"].is_object() {
                rest.insert(format!("client usage {}", event["usage"]["total_tokens"]));
            }
        }
        lines.push(format!("client content {content}"));
        lines.extend(rest);
        return lines;
    }
    let Ok(json) = serde_json::from_slice::<Value>(&answer.body) else {
        lines.push(format!("client text {}", text.escape_debug()));
        return lines;
    };
    for (name, at) in [
        ("model", "/model"),
        ("object", "/object"),
        ("role", "/choices/0/message/role"),
        ("content", "/choices/0/message/content"),
        ("call", "/choices/0/message/tool_calls/0/function/arguments"),
        ("text", "/choices/0/text"),
        ("finish", "/choices/0/finish_reason"),
        ("answer", "/content/0/text"),
        ("stop reason", "/stop_reason"),
        ("output", "/output/0/content/0/text"),
        ("input tokens", "/usage/input_tokens"),
        ("output tokens", "/usage/output_tokens"),
        ("embedding", "/data/0/embedding"),
        ("prompt tokens", "/usage/prompt_tokens"),
        ("completion tokens", "/usage/completion_tokens"),
        ("error type", "/error/type"),
        ("error code", "/error/code"),
        ("error message", "/error/message"),
        ("healthy", "/healthy_count"),
        ("unhealthy", "/unhealthy_count"),
    ] {
        if let Some(value) = json.pointer(at).filter(|value| !value.is_null()) {
            lines.push(format!("client {name} {value}"));
        }
    }
    let mut ids: Vec<&str> = (json["data"].as_array().into_iter().flatten())
        .filter_map(|item| item["id"].as_str())
        .collect();
    ids.sort_unstable();
    lines.extend(ids.into_iter().map(|id| format!("client has {id}")));
    lines
}
