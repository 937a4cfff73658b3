//! Which path is answered by what.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::connection::{Connection, End, Gone, Request};
use super::errors::ErrorAnswer;
use super::http::{Head, now};
use super::request::{Api, Ask, Extra};
use super::responder::Responder;
use super::script::{Fault, Flavour, Health, Script};
use super::shared::{InFlight, Shared, lock};
use super::{background, faults, stream, tokenizer, websocket};

/// A path of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Inference(Api),
    CountTokens,
    Response,
    CancelResponse,
    Tokenize,
    Detokenize,
    Models,
    Health,
    Version,
    Load,
    Metrics,
    Loads,
    Realtime,
}

/// Which engines have a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    Vllm,
    Sglang,
    /// Those whose model makes text.
    Text,
    /// vLLM whose model makes text.
    VllmText,
    /// vLLM whose model makes vectors.
    VllmVectors,
}

impl Of {
    fn has(self, script: &Script) -> bool {
        let vllm = script.flavour == Flavour::Vllm;
        let text = script.embeddings.is_none();
        match self {
            Self::All => true,
            Self::Vllm => vllm,
            Self::Sglang => !vllm,
            Self::Text => text,
            Self::VllmText => vllm && text,
            Self::VllmVectors => vllm && !text,
        }
    }
}

/// Path, methods it knows (as the `allow` field has them), whose it is, and what it is.
const ROUTES: &[(&str, &str, Of, Route)] = &[
    (
        "/v1/chat/completions",
        "POST",
        Of::Text,
        Route::Inference(Api::Chat),
    ),
    (
        "/v1/completions",
        "POST",
        Of::Text,
        Route::Inference(Api::Completions),
    ),
    (
        "/v1/messages",
        "POST",
        Of::VllmText,
        Route::Inference(Api::Messages),
    ),
    (
        "/v1/messages/count_tokens",
        "POST",
        Of::VllmText,
        Route::CountTokens,
    ),
    (
        "/v1/responses",
        "POST",
        Of::VllmText,
        Route::Inference(Api::Responses),
    ),
    (
        "/v1/embeddings",
        "POST",
        Of::VllmVectors,
        Route::Inference(Api::Embeddings),
    ),
    (
        "/v1/score",
        "POST",
        Of::VllmVectors,
        Route::Inference(Api::Score),
    ),
    (
        "/score",
        "POST",
        Of::VllmVectors,
        Route::Inference(Api::Score),
    ),
    (
        "/v2/rerank",
        "POST",
        Of::VllmVectors,
        Route::Inference(Api::Rerank),
    ),
    (
        "/v1/rerank",
        "POST",
        Of::VllmVectors,
        Route::Inference(Api::Rerank),
    ),
    (
        "/rerank",
        "POST",
        Of::VllmVectors,
        Route::Inference(Api::Rerank),
    ),
    ("/tokenize", "POST", Of::All, Route::Tokenize),
    ("/detokenize", "POST", Of::All, Route::Detokenize),
    ("/v1/models", "GET", Of::All, Route::Models),
    ("/health", "GET", Of::All, Route::Health),
    ("/health_generate", "GET", Of::Sglang, Route::Health),
    ("/ping", "GET, POST", Of::All, Route::Health),
    ("/version", "GET", Of::Vllm, Route::Version),
    ("/load", "GET", Of::Vllm, Route::Load),
    ("/metrics", "GET", Of::All, Route::Metrics),
    ("/v1/loads", "GET", Of::Sglang, Route::Loads),
    ("/v1/realtime", "GET", Of::VllmText, Route::Realtime),
];

const RESPONSES: &str = "/v1/responses/";

fn find(path: &str, script: &Script) -> Option<(&'static str, Route)> {
    if let Some(rest) = path.strip_prefix(RESPONSES)
        && Of::VllmText.has(script)
    {
        return match rest.split_once('/') {
            None if !rest.is_empty() => Some(("GET", Route::Response)),
            Some((id, "cancel")) if !id.is_empty() => Some(("POST", Route::CancelResponse)),
            _ => None,
        };
    }
    ROUTES
        .iter()
        .find(|(known, _, of, _)| *known == path && of.has(script))
        .map(|(_, methods, _, route)| (*methods, *route))
}

pub(super) fn is_known(path: &str, script: &Script) -> bool {
    find(path, script).is_some()
}

/// Whether a POST to this path is work for the model; with a script, whether it is for this one's.
pub(super) fn is_inference(path: &str, script: Option<&Script>) -> bool {
    ROUTES.iter().any(|(known, _, of, route)| {
        *known == path
            && matches!(route, Route::Inference(_))
            && script.is_none_or(|script| of.has(script))
    })
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
    let is_websocket = websocket::is_asked(&request.head);
    // Starlette knows the path of a WebSocket by that protocol alone.
    let found = find(request.head.path(), script)
        .filter(|(_, route)| (*route == Route::Realtime) == is_websocket);
    let Some((methods, route)) = found else {
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
        Route::Inference(api) => {
            inference(connection, responder, api, request, script, fault).await
        }
        Route::Realtime => websocket::serve(connection, &responder, &request.head).await,
        Route::Health => {
            match script.health {
                Health::Ok => responder.empty(&mut out, 200),
                Health::Status(status) => responder.empty(&mut out, status),
                Health::Silent => return Err(connection.gone().await),
            }
            connection.write(&out).await?;
            Ok(end)
        }
        Route::Loads if lock(&connection.shared.frozen_page).is_some() => {
            Err(connection.gone().await)
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

/// What `--api-key` guards.
const GUARDED: &[&str] = &["/v1", "/v2", "/inference", "/cohere"];

/// vLLM's guards, in its order: the key, then the method. It reads no `x-api-key`, not even for messages.
fn refused(head: &Head, script: &Script, methods: &'static str) -> Option<ErrorAnswer> {
    if let Some(key) = &script.api_key
        && GUARDED.iter().any(|prefix| head.path().starts_with(prefix))
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
    let in_flight = InFlight::enter(&shared);
    let ask = match Ask::parse(
        api,
        script,
        &shared.responses,
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
        .filter(|_| api.reports_load())
        .map(str::to_owned);
    let id = request.head.header("x-request-id");
    let id = id.filter(|_| script.departures).map(str::to_owned);
    drop(request);
    if let Some(fault) = &fault
        && let Some(end) =
            faults::misbehave_before(connection, &responder, &ask, script, fault).await?
    {
        return Ok(end);
    }
    if let Extra::Response(response) = &ask.extra
        && response.background
    {
        let mut out = Vec::new();
        match background::begin(in_flight, &shared, &ask, response, script) {
            Ok(queued) => responder.json(&mut out, queued.as_bytes(), None),
            Err(error) => responder.error(&mut out, &error),
        }
        connection.write(&out).await?;
        return Ok(responder.end());
    }
    let end = stream::generate(connection, responder, ask, script, fault, arrival, orca).await;
    connection.split_writes(None);
    match &end {
        Ok(_) => shared.completed.fetch_add(1, Relaxed),
        Err(Gone) => {
            if let Some(id) = id {
                lock(&shared.departures).push((id, Instant::now()));
            }
            shared.left.fetch_add(1, Relaxed)
        }
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
        Route::CountTokens => {
            let kind = request.head.header("content-type");
            tokenizer::count_tokens(script, kind, &request.body)
        }
        Route::Response => shared
            .responses
            .get(script.flavour, response_id(request.head.path())),
        Route::CancelResponse => shared
            .responses
            .cancel(script.flavour, response_id(request.head.path())),
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
            let kind = match script.flavour {
                Flavour::Vllm => "text/plain; version=1.0.0; charset=utf-8",
                Flavour::Sglang => "text/plain; version=0.0.4; charset=utf-8",
            };
            let frozen = lock(&shared.frozen_page).clone();
            let page = frozen.unwrap_or_else(|| shared.metrics_page(script));
            return responder.body(out, 200, kind, page.as_bytes());
        }
        Route::Inference(_) | Route::Health | Route::Realtime => Err(ErrorAnswer::not_found()),
    };
    match result {
        Ok(body) => responder.body(out, 200, JSON, body.as_bytes()),
        Err(error) => responder.error(out, &error),
    }
}

fn response_id(path: &str) -> &str {
    let id = path.strip_prefix(RESPONSES).unwrap_or(path);
    id.strip_suffix("/cancel").unwrap_or(id)
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
