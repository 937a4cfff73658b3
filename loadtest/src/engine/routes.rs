//! Which path is answered by what.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::connection::{Connection, End, Gone, Request};
use super::errors::ErrorAnswer;
use super::http::{Head, now};
use super::request::{Api, Ask};
use super::responder::Responder;
use super::script::{Fault, Flavour, Health, Script};
use super::shared::{InFlight, Shared};
use super::{faults, stream, tokenizer};

/// A path of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Chat,
    Completions,
    Tokenize,
    Detokenize,
    Models,
    Health,
    Version,
    Load,
    Metrics,
    Loads,
}

/// Path, methods it knows (as the `allow` field has them), and whose it is (`None`: both).
const ROUTES: &[(&str, &str, Option<Flavour>, Route)] = &[
    ("/v1/chat/completions", "POST", None, Route::Chat),
    ("/v1/completions", "POST", None, Route::Completions),
    ("/tokenize", "POST", None, Route::Tokenize),
    ("/detokenize", "POST", None, Route::Detokenize),
    ("/v1/models", "GET", None, Route::Models),
    ("/health", "GET", None, Route::Health),
    (
        "/health_generate",
        "GET",
        Some(Flavour::Sglang),
        Route::Health,
    ),
    ("/ping", "GET, POST", None, Route::Health),
    ("/version", "GET", Some(Flavour::Vllm), Route::Version),
    ("/load", "GET", Some(Flavour::Vllm), Route::Load),
    ("/metrics", "GET", None, Route::Metrics),
    ("/v1/loads", "GET", Some(Flavour::Sglang), Route::Loads),
];

fn find(path: &str, flavour: Flavour) -> Option<(&'static str, Route)> {
    ROUTES
        .iter()
        .find(|(known, _, of, _)| *known == path && of.is_none_or(|of| of == flavour))
        .map(|(_, methods, _, route)| (*methods, *route))
}

pub(super) fn is_known(path: &str, flavour: Flavour) -> bool {
    find(path, flavour).is_some()
}

pub(super) fn is_inference(path: &str) -> bool {
    matches!(path, "/v1/chat/completions" | "/v1/completions")
}

/// The answer of `fixed`, 480 bytes of JSON.
fn fixed_body() -> &'static [u8] {
    static BODY: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let head = r#"{"id":"chatcmpl-0000000000000000","object":"chat.completion","created":1795529293,"model":"DeepSeek-R1","choices":[{"index":0,"message":{"role":"assistant","content":""#;
        let tail = r#""},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"total_tokens":28,"completion_tokens":16}}"#;
        format!("{head}{}{tail}", "x".repeat(480 - head.len() - tail.len())).into_bytes()
    });
    &BODY
}

/// Answers one request.
pub(super) async fn answer(
    connection: &mut Connection,
    request: Request,
    script: &Arc<Script>,
    fault: Option<Fault>,
) -> Result<End, Gone> {
    let responder = Responder::new(&connection.shared, script, &request.head);
    let end = responder.end();
    let mut out = Vec::new();
    if script.fixed && request.head.method == "POST" {
        connection.shared.completed.fetch_add(1, Relaxed);
        responder.body(&mut out, 200, "application/json", fixed_body());
        connection.write(&out).await?;
        return Ok(end);
    }
    let Some((methods, route)) = find(request.head.path(), script.flavour) else {
        responder.error(&mut out, &ErrorAnswer::not_found());
        connection.write(&out).await?;
        return Ok(end);
    };
    if let Some(error) = refused(&request.head, script, methods) {
        responder.error(&mut out, &error);
        connection.write(&out).await?;
        return Ok(end);
    }
    match route {
        Route::Chat => inference(connection, responder, Api::Chat, request, script, fault).await,
        Route::Completions => {
            inference(
                connection,
                responder,
                Api::Completions,
                request,
                script,
                fault,
            )
            .await
        }
        Route::Health => {
            match script.health {
                Health::Ok => responder.empty(&mut out, 200),
                Health::Status(status) => responder.empty(&mut out, status),
                Health::Silent => return Err(connection.gone().await),
            }
            connection.write(&out).await?;
            Ok(end)
        }
        _ => {
            local(
                &connection.shared,
                &responder,
                route,
                &request,
                script,
                &mut out,
            );
            connection.write(&out).await?;
            Ok(end)
        }
    }
}

/// vLLM's guards, in its order: the key, then the method.
fn refused(head: &Head, script: &Script, methods: &'static str) -> Option<ErrorAnswer> {
    if let Some(key) = &script.api_key
        && head.path().starts_with("/v1")
    {
        let given = head
            .header("authorization")
            .and_then(|value| value.split_once(' '));
        if !given
            .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && token == key)
        {
            return Some(ErrorAnswer::unauthorized());
        }
    }
    let known = methods.split(", ").any(|method| method == head.method);
    (!known).then(|| ErrorAnswer::method_not_allowed(methods))
}

async fn inference(
    connection: &mut Connection,
    responder: Responder,
    api: Api,
    request: Request,
    script: &Arc<Script>,
    fault: Option<Fault>,
) -> Result<End, Gone> {
    let shared = Arc::clone(&connection.shared);
    let _in_flight = InFlight::enter(&shared);
    let ask = match Ask::parse(
        api,
        script,
        request.head.header("content-type"),
        &request.body,
    ) {
        Ok(ask) => ask,
        Err(error) => {
            let mut out = Vec::new();
            responder.error(&mut out, &error);
            connection.write(&out).await?;
            return Ok(responder.end());
        }
    };
    let arrival = request.arrival;
    let orca = request
        .head
        .header("endpoint-load-metrics-format")
        .map(str::to_owned);
    drop(request);
    if let Some(fault) = &fault
        && let Some(end) =
            faults::misbehave_before(connection, &responder, &ask, script, fault).await?
    {
        return Ok(end);
    }
    let end = stream::generate(connection, responder, ask, script, fault, arrival, orca).await;
    connection.split_writes(None);
    match &end {
        Ok(_) => shared.completed.fetch_add(1, Relaxed),
        Err(Gone) => shared.left.fetch_add(1, Relaxed),
    };
    end
}

/// The paths that need no waiting.
fn local(
    shared: &Shared,
    responder: &Responder,
    route: Route,
    request: &Request,
    script: &Script,
    out: &mut Vec<u8>,
) {
    const JSON: &str = "application/json";
    let metrics = &shared.metrics;
    let result = match route {
        Route::Tokenize => tokenizer::tokenize(script, &request.body),
        Route::Detokenize => tokenizer::detokenize(script, &request.body),
        Route::Models => Ok(models(script, &shared.new_id())),
        Route::Version => Ok(r#"{"version":"0.32.0"}"#.to_owned()),
        Route::Load => Ok(format!(
            r#"{{"server_load":{}}}"#,
            shared.in_flight.load(Relaxed)
        )),
        Route::Loads => Ok(metrics.loads()),
        Route::Metrics => {
            let (kind, page) = match script.flavour {
                Flavour::Vllm => (
                    "text/plain; version=1.0.0; charset=utf-8",
                    metrics.vllm(&script.model),
                ),
                Flavour::Sglang => (
                    "text/plain; version=0.0.4; charset=utf-8",
                    metrics.sglang(&script.model),
                ),
            };
            return responder.body(out, 200, kind, page.as_bytes());
        }
        Route::Chat | Route::Completions | Route::Health => Err(ErrorAnswer::not_found()),
    };
    match result {
        Ok(body) => responder.body(out, 200, JSON, body.as_bytes()),
        Err(error) => responder.error(out, &error),
    }
}

fn models(script: &Script, id: &str) -> String {
    let (model, now) = (serde_json::Value::from(script.model.as_str()), now());
    match script.flavour {
        Flavour::Vllm => format!(
            r#"{{"object":"list","data":[{{"id":{model},"object":"model","created":{now},"owned_by":"vllm","root":"/models/{}","parent":null,"max_model_len":{},"permission":[{{"id":"modelperm-{id}","object":"model_permission","created":{now},"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*","group":null,"is_blocking":false}}]}}]}}"#,
            script.model, script.max_model_len
        ),
        Flavour::Sglang => format!(
            r#"{{"object":"list","data":[{{"id":{model},"object":"model","created":{now},"owned_by":"sglang","root":{model},"parent":null,"max_model_len":{}}}]}}"#,
            script.max_model_len
        ),
    }
}
