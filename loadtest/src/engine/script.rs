//! What an engine is told to do.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Port 0 takes a free one.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Default for Listen {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

/// Whose answers are imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavour {
    /// vLLM 0.32 with its Python front end (uvicorn, FastAPI).
    #[default]
    Vllm,
    /// SGLang: its metrics, `/v1/loads`, its event and error shapes.
    Sglang,
}

/// How an engine behaves. The default answers at once with 16 tokens.
#[derive(Debug, Clone)]
pub struct Script {
    pub listen: Listen,
    pub flavour: Flavour,
    /// The name it serves its model under.
    pub model: String,
    /// From the request's arrival to the first token.
    pub ttft: Duration,
    /// Between two tokens.
    pub itl: Duration,
    /// Length of an answer that nothing cuts short: so many tokens of text, then the end-of-sequence token.
    pub tokens: usize,
    /// The answer, token by token, in place of generated text; it ends the answer whatever `tokens` says.
    pub answer: Option<Arc<[String]>>,
    /// Only tokens of whole characters, so that every token has an event: for measuring gaps. The text is then not
    /// the one that [`super::text::answer`] gives.
    pub whole_characters: bool,
    /// Prompt and answer together; longer prompts are refused, longer answers clipped (`--max-model-len`).
    pub max_model_len: usize,
    /// Requests that run at once; the others wait (`--max-num-seqs`).
    pub max_running: Option<usize>,
    /// Requests that may wait; the others are refused (`--max-num-queued-reqs`).
    pub max_queued: Option<usize>,
    /// How a stream is refused when the queue is full: vLLM does either, by race.
    pub queue_full: QueueFull,
    /// Asked for on `/v1/*` (`--api-key`).
    pub api_key: Option<String>,
    /// How long a connection may idle between requests; a connection that never sent one may stay.
    pub keep_alive: Duration,
    /// `: keep-alive` comments in silent streams (`--sse-keep-alive-interval`).
    pub comments: Option<Duration>,
    /// `--enable-request-id-headers`.
    pub request_id_headers: bool,
    /// `--enable-prompt-tokens-details`.
    pub prompt_tokens_details: bool,
    /// Responses are remembered, can go on from another, and can be made in the background
    /// (`VLLM_ENABLE_RESPONSES_API_STORE`).
    pub responses_store: bool,
    /// The model makes vectors of this length and no text: `/v1/embeddings`, `/score` and `/rerank` are there in
    /// place of the generating paths.
    pub embeddings: Option<usize>,
    /// What `GET /health` does.
    pub health: Health,
    /// Misbehaviour of every request, after those of [`super::Engine::fail_next`].
    pub fault: Option<Fault>,
    /// Answers every POST at once with the same 480 bytes and looks at nothing: for measuring gateways.
    pub fixed: bool,
    /// How many of the last requests are kept for [`super::Engine::requests`].
    pub record: usize,
    /// Bodies up to this size are kept with them.
    pub record_body: usize,
    /// Note when clients leave, for [`super::Engine::take_departures`].
    pub departures: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            listen: Listen::default(),
            flavour: Flavour::Vllm,
            model: "DeepSeek-R1".to_owned(),
            ttft: Duration::ZERO,
            itl: Duration::ZERO,
            tokens: 16,
            answer: None,
            whole_characters: false,
            max_model_len: 1 << 20,
            max_running: None,
            max_queued: None,
            queue_full: QueueFull::Status,
            api_key: None,
            keep_alive: Duration::from_secs(5),
            comments: None,
            request_id_headers: false,
            prompt_tokens_details: false,
            responses_store: false,
            embeddings: None,
            health: Health::Ok,
            fault: None,
            fixed: false,
            record: 4096,
            record_body: 1 << 20,
            departures: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueFull {
    /// 503 and JSON.
    Status,
    /// 200 and an error event.
    Event,
}

/// What `GET /health` answers. A hung engine answers 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Ok,
    Status(u16),
    /// Never.
    Silent,
}

/// One misbehaviour. Those of the connection strike at accept, all others an inference request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is accepted and closed.
    CloseOnAccept,
    /// The connection is accepted and reset.
    ResetOnAccept,
    /// Reset as soon as the request's head was read.
    ResetOnHead,
    /// Reset when the whole request was read.
    ResetOnBody,
    /// Closed when the whole request was read.
    CloseOnBody,
    /// Reads the request and never answers.
    Silence,
    /// This status at once, with vLLM's body for it.
    Status(u16),
    /// The answer ends early: a stream after so many content events, another after so many bytes of its body.
    Cut { after: usize, how: Cut },
    /// Error event and clean end after so many content events (0: it is the first event), a cut for a stream of
    /// `/v1/responses`, which has no such event; 500 or 503 for an answer that is not streamed.
    Error { after: usize, error: EngineError },
    /// Clean end with `finish_reason: "abort"` after so many content events; for `/v1/messages` without a reason,
    /// and `/v1/responses` says `completed`.
    Abort { after: usize },
    /// Bytes that are no HTTP.
    GarbageHead,
    /// A status line and header fields without end.
    EndlessHead,
    /// The head byte by byte, with this pause after each.
    SlowHead { gap: Duration },
    /// The whole answer in pieces of so many bytes.
    Split { size: usize },
    /// Content-Length says more than the body has; then closed.
    LengthTooLong,
    /// Content-Length says less than the body has.
    LengthTooShort,
    /// A well-formed answer, then more bytes.
    BytesAfterEnd,
    /// Two different Content-Length fields.
    TwoLengths,
    /// Content-Length and Transfer-Encoding: chunked.
    LengthAndChunked,
    /// A chunk size that is no number, after so many content events.
    BadChunk { after: usize },
    /// `103 Early Hints` so many times before the answer.
    Informational { times: usize },
    /// `101 Switching Protocols`.
    SwitchingProtocols,
    /// Neither length nor chunks: the body ends with the connection.
    CloseDelimited,
    /// A good answer, but the connection's next request finds it closed.
    CloseOnReuse,
}

impl Fault {
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(self, Self::CloseOnAccept | Self::ResetOnAccept)
    }
}

/// How an answer ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// RST.
    Reset,
    /// FIN, no last chunk.
    Close,
    /// FIN or the last chunk where it belongs, but no `[DONE]` and no finish_reason.
    Clean,
    /// FIN in the middle of the next event.
    InEvent,
    /// Nothing more, and no close.
    Silence,
}

/// An engine's own failure, with vLLM's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineError {
    /// The engine core died: 500.
    CoreDead,
    /// The queue is full: 503.
    Busy,
    /// Draining after SIGTERM with `--shutdown-timeout`: 500.
    ShuttingDown,
}

/// How an engine dies. The listener closes at once in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// SIGKILL: FIN on every connection, between two events.
    Close,
    /// The host's kernel resets every connection.
    Reset,
    /// SIGTERM of stock vLLM, one outcome: open streams stay open and silent, and connections between two requests close.
    Freeze,
    /// SIGTERM, another: they end with `finish_reason: "abort"` and `[DONE]`.
    Abort,
    /// SIGTERM or a dead engine core: an error event and `[DONE]`.
    Error,
}

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub method: String,
    pub target: String,
    /// `HTTP/1.1`.
    pub version: String,
    /// In the order and spelling received.
    pub headers: Vec<(String, String)>,
    /// The head to the byte, blank line included.
    pub head: Bytes,
    pub body_len: usize,
    /// [`super::text::hash`] of the body.
    pub body_hash: u64,
    /// `None` when it was longer than [`Script::record_body`].
    pub body: Option<Bytes>,
    /// Numbers the connections of this engine in the order they were accepted, from 1.
    pub connection: u64,
    /// False when the connection ended inside the body.
    pub complete: bool,
}

impl Recorded {
    /// The first field of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// All fields of this name, in any case.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }
}

/// The last requests, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    requests: VecDeque<Recorded>,
}

impl Recorder {
    pub(super) fn push(&mut self, request: Recorded, limit: usize) {
        while self.requests.len() >= limit.max(1) {
            self.requests.pop_front();
        }
        if limit > 0 {
            self.requests.push_back(request);
        }
    }

    pub(super) fn all(&self) -> Vec<Recorded> {
        self.requests.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
    }
}
