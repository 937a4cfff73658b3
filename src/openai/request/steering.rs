//! Fields by which a client would reach past its own request into the engine.

/// Top-level fields, and members of `vllm_xargs`, that steer an engine's insides, each with what it would let a client do. They
/// belong to routers and operators; SGLang's schema has all of them in every client's reach, vLLM
/// and TensorRT-LLM some. `null` and `false` are as good as absent.
pub const STEERING: &[(&str, &str)] = &[
    (
        "kv_transfer_params",
        "names the host and the blocks from which the engine fetches a cache",
    ),
    (
        "kv_router_hint",
        "names the peer whose cache the engine reads",
    ),
    (
        "disaggregated_params",
        "continues a prefill that somebody else's request did",
    ),
    (
        "bootstrap_host",
        "makes the engine connect to a host of the client's choice",
    ),
    (
        "bootstrap_port",
        "makes the engine connect to a port of the client's choice",
    ),
    (
        "bootstrap_room",
        "joins the cache transfer of another request",
    ),
    (
        "bootstrap_pair_key",
        "joins the cache transfer of another request",
    ),
    (
        "decode_tp_size",
        "misstates the layout of the transferred cache",
    ),
    (
        "disagg_prefill_dp_rank",
        "reads the cache of a worker of the client's choice",
    ),
    (
        "encoder_urls",
        "makes the engine fetch from hosts of the client's choice",
    ),
    (
        "num_items_assigned",
        "makes the engine wait for parts that nobody sends",
    ),
    (
        "need_wait_for_mm_inputs",
        "makes the engine wait for parts that nobody sends",
    ),
    (
        "data_parallel_rank",
        "puts every request on one worker, past the balancing",
    ),
    (
        "routed_dp_rank",
        "puts every request on one worker, past the balancing",
    ),
    (
        "routing_key",
        "puts every request on one worker, past the balancing",
    ),
    (
        "http_worker_ipc",
        "sends the answer to another of the engine's processes",
    ),
    ("rid", "takes the id of another request, or breaks it"),
    (
        "request_id",
        "takes the id of another request, or breaks it",
    ),
    (
        "session_params",
        "reads and changes another client's session",
    ),
    (
        "mm_hashes",
        "names the cache entry of an image, and so what others see in theirs",
    ),
    (
        "mm_content_hashes",
        "names the cache entry of an image, and so what others see in theirs",
    ),
    (
        "lora_path",
        "loads an adapter past the model that was allowed",
    ),
    ("lora_id", "uses an adapter past the model that was allowed"),
    (
        "lora_request",
        "loads an adapter from a path on the engine's disk",
    ),
    (
        "custom_logit_processor",
        "runs code that came in the request (a serialized Python object)",
    ),
    ("custom_params", "is the input of such code"),
    (
        "logits_processors",
        "imports and calls a Python name of the client's choice",
    ),
    (
        "positional_embed_overrides",
        "replaces the model's own embeddings",
    ),
    (
        "return_hidden_states",
        "takes out the model's inner states, megabytes a token",
    ),
    (
        "return_routed_experts",
        "takes out the model's inner states, kilobytes a token",
    ),
    (
        "return_indexer_topk",
        "takes out the model's inner states, kilobytes a token",
    ),
    (
        "custom_labels",
        "makes metric series of the client's choice, without end",
    ),
    ("log_metrics", "hides the request from the engine's metrics"),
    ("no_logs", "hides the request from the engine's log"),
    (
        "external_trace_header",
        "writes into traces that are not the client's",
    ),
    ("received_time", "falsifies the engine's latencies"),
];
