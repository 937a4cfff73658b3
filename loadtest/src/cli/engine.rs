//! `loadtest engine`.

use std::io::Result;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use loadtest::engine::{
    Cut, Death, Engine, EngineError, Fault, Flavour, Health, Listen, QueueFull, Script,
};
use tokio::signal::unix::{SignalKind, signal};

use super::units::duration;

/// The answers are those of vLLM 0.32. SIGTERM and SIGINT end it as `--on-term` says.
#[derive(Debug, Args)]
pub struct Flags {
    /// Where to listen: ADDR:PORT, PORT (on 127.0.0.1; 0 = a free one) or unix:/path
    #[arg(long, default_value = "8000", value_parser = listen)]
    listen: Listen,
    /// vllm or sglang
    #[arg(long, value_enum, default_value = "vllm")]
    flavour: FlavourName,
    #[arg(long, default_value = "DeepSeek-R1")]
    model: String,
    /// Time to the first token
    #[arg(long, default_value = "50ms", value_parser = duration)]
    ttft: Duration,
    /// Time between tokens
    #[arg(long, default_value = "20ms", value_parser = duration)]
    itl: Duration,
    /// Tokens of an answer that the request does not limit
    #[arg(long, default_value_t = 100)]
    tokens: usize,
    #[arg(long, default_value_t = 1 << 20)]
    max_model_len: usize,
    /// Requests that run at once
    #[arg(long)]
    max_num_seqs: Option<usize>,
    /// Requests that may wait for a place; the others are refused
    #[arg(long)]
    max_num_queued_reqs: Option<usize>,
    /// Refuse streams by an error event inside a 200
    #[arg(long)]
    queue_full_event: bool,
    #[arg(long)]
    api_key: Option<String>,
    /// How long an idle connection is kept
    #[arg(long, default_value = "5s", value_parser = duration)]
    keep_alive: Duration,
    /// Comments in silent streams
    #[arg(long, value_parser = duration)]
    sse_keep_alive_interval: Option<Duration>,
    #[arg(long)]
    enable_request_id_headers: bool,
    #[arg(long)]
    enable_prompt_tokens_details: bool,
    /// Remember responses: they can go on from another and be made in the background
    #[arg(long)]
    responses_store: bool,
    /// Serve an embedding model, with vectors of this length, in place of one that makes text
    #[arg(long, value_name = "LENGTH")]
    embeddings: Option<usize>,
    /// Misbehave on every request: reset-on-body, close-on-body, silence, status:N, reset-after:EVENTS,
    /// close-after:EVENTS, cut-in-event:EVENTS, clean-end-after:EVENTS, silence-after:EVENTS, error-after:EVENTS,
    /// abort-after:EVENTS, bad-chunk-after:EVENTS, garbage, endless-head, length-too-long, length-too-short,
    /// bytes-after-end, two-lengths, length-and-chunked, close-delimited, close-on-reuse, 101, 103
    #[arg(long, value_parser = fault)]
    fault: Option<Fault>,
    /// What /health answers: a status, or `silent`
    #[arg(long, default_value = "200", value_parser = health)]
    health: Health,
    /// How SIGTERM ends open streams: close, reset, freeze, abort or error (stock vLLM: one of the last three, by race)
    #[arg(long, default_value = "close", value_parser = death)]
    on_term: Death,
    /// Answer every POST at once with the same 480 bytes
    #[arg(long)]
    fixed: bool,
    /// Only tokens of whole characters: every token has an event
    #[arg(long)]
    whole_characters: bool,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FlavourName {
    Vllm,
    Sglang,
}

impl Flags {
    pub(super) fn run(self) -> Result<ExitCode> {
        let runtime = if self.threads <= 1 {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
        } else {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(self.threads)
                .enable_all()
                .build()?
        };
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> Result<ExitCode> {
        let on_term = self.on_term;
        let engine = Engine::start(self.script()).await?;
        // Whoever started this process reads the address from the first line.
        println!("listening on {}", engine.authority());
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        engine.kill(on_term).await;
        if on_term == Death::Freeze {
            // Frozen streams stay until the second signal, as those of a vLLM that waits for a dead core.
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn script(self) -> Script {
        Script {
            listen: self.listen,
            flavour: match self.flavour {
                FlavourName::Vllm => Flavour::Vllm,
                FlavourName::Sglang => Flavour::Sglang,
            },
            model: self.model,
            ttft: self.ttft,
            itl: self.itl,
            tokens: self.tokens,
            max_model_len: self.max_model_len,
            max_running: self.max_num_seqs,
            max_queued: self.max_num_queued_reqs,
            queue_full: if self.queue_full_event {
                QueueFull::Event
            } else {
                QueueFull::Status
            },
            api_key: self.api_key,
            keep_alive: self.keep_alive,
            comments: self.sse_keep_alive_interval,
            request_id_headers: self.enable_request_id_headers,
            prompt_tokens_details: self.enable_prompt_tokens_details,
            responses_store: self.responses_store,
            embeddings: self.embeddings,
            health: self.health,
            fault: self.fault,
            fixed: self.fixed,
            whole_characters: self.whole_characters,
            record: 0,
            ..Script::default()
        }
    }
}

fn listen(text: &str) -> std::result::Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Listen::Unix(PathBuf::from(path)));
    }
    if let Ok(port) = text.trim_start_matches(':').parse() {
        return Ok(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
    }
    text.parse()
        .map(Listen::Tcp)
        .map_err(|_| format!("{text:?} is none of ADDR:PORT, PORT, unix:/path"))
}

fn health(text: &str) -> std::result::Result<Health, String> {
    match text {
        "200" => Ok(Health::Ok),
        "silent" => Ok(Health::Silent),
        _ => text
            .parse()
            .map(Health::Status)
            .map_err(|_| format!("{text:?} is neither a status nor silent")),
    }
}

fn death(text: &str) -> std::result::Result<Death, String> {
    match text {
        "close" => Ok(Death::Close),
        "reset" => Ok(Death::Reset),
        "freeze" => Ok(Death::Freeze),
        "abort" => Ok(Death::Abort),
        "error" => Ok(Death::Error),
        _ => Err(format!(
            "{text:?} is none of close, reset, freeze, abort, error"
        )),
    }
}

fn fault(text: &str) -> std::result::Result<Fault, String> {
    let (name, number) = text.split_once(':').unwrap_or((text, "0"));
    let after = number
        .parse()
        .map_err(|_| format!("{number:?} is no number"))?;
    let cut = |how| Fault::Cut { after, how };
    Ok(match name {
        "reset-on-body" => Fault::ResetOnBody,
        "close-on-body" => Fault::CloseOnBody,
        "silence" => Fault::Silence,
        "status" => {
            Fault::Status(u16::try_from(after).map_err(|_| format!("{number:?} is no status"))?)
        }
        "reset-after" => cut(Cut::Reset),
        "close-after" => cut(Cut::Close),
        "cut-in-event" => cut(Cut::InEvent),
        "clean-end-after" => cut(Cut::Clean),
        "silence-after" => cut(Cut::Silence),
        "error-after" => Fault::Error {
            after,
            error: EngineError::CoreDead,
        },
        "abort-after" => Fault::Abort { after },
        "bad-chunk-after" => Fault::BadChunk { after },
        "garbage" => Fault::GarbageHead,
        "endless-head" => Fault::EndlessHead,
        "length-too-long" => Fault::LengthTooLong,
        "length-too-short" => Fault::LengthTooShort,
        "bytes-after-end" => Fault::BytesAfterEnd,
        "two-lengths" => Fault::TwoLengths,
        "length-and-chunked" => Fault::LengthAndChunked,
        "close-delimited" => Fault::CloseDelimited,
        "close-on-reuse" => Fault::CloseOnReuse,
        "101" => Fault::SwitchingProtocols,
        "103" => Fault::Informational { times: 1 },
        _ => return Err(format!("{name:?} is no fault")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_addresses_and_faults() {
        assert_eq!(
            listen("8000"),
            Ok(Listen::Tcp("127.0.0.1:8000".parse().unwrap()))
        );
        assert_eq!(listen("unix:/run/x"), Ok(Listen::Unix("/run/x".into())));
        assert!(listen("nowhere").is_err());
        assert_eq!(
            fault("reset-after:30"),
            Ok(Fault::Cut {
                after: 30,
                how: Cut::Reset
            })
        );
        assert_eq!(fault("status:503"), Ok(Fault::Status(503)));
        assert!(fault("luck").is_err() && fault("reset-after:x").is_err());
    }
}
