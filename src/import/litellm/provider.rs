//! Which deployments are servers that speak OpenAI's HTTP API, and where they are.

use crate::config;

use super::notes::Notes;
use super::tree::{Field, Word};

/// Whose servers are asked for OpenAI's paths, at whatever address is written.
const COMPATIBLE: &[&str] = &[
    "aiohttp_openai",
    "cerebras",
    "custom_openai",
    "deepinfra",
    "deepseek",
    "docker_model_runner",
    "empower",
    "fireworks_ai",
    "friendliai",
    "galadriel",
    "groq",
    "hosted_vllm",
    "hyperbolic",
    "lambda_ai",
    "lemonade",
    "litellm_proxy",
    "llamafile",
    "lm_studio",
    "meta_llama",
    "moonshot",
    "nebius",
    "novita",
    "nscale",
    "nvidia_nim",
    "openai",
    "openai_like",
    "openrouter",
    "perplexity",
    "sambanova",
    "text-completion-openai",
    "together_ai",
    "volcengine",
    "xai",
    "xinference",
];

/// Those that speak otherwise, and what to do about some of them.
const OTHERS: &[(&str, &str)] = &[
    ("ollama", OLLAMA),
    ("ollama_chat", OLLAMA),
    (
        "huggingface",
        "if it is Text Generation Inference, which has OpenAI's API too, write openai/ and its address with /v1",
    ),
    (
        "vllm",
        "that is vLLM within LiteLLM's process; start it as a server, and write hosted_vllm/ and its address with /v1",
    ),
    ("triton", TRITON),
    ("ai21", ""),
    ("ai21_chat", ""),
    ("aiml", ""),
    ("amazon_nova", ""),
    ("anthropic", ""),
    ("anthropic_text", ""),
    ("auto_router", ""),
    ("azure", ""),
    ("azure_ai", ""),
    ("azure_text", ""),
    ("baseten", ""),
    ("bedrock", ""),
    ("bedrock_converse", ""),
    ("bedrock_mantle", ""),
    ("bytez", ""),
    ("chatgpt", ""),
    ("clarifai", ""),
    ("cloudflare", ""),
    ("codestral", ""),
    ("cohere", ""),
    ("cohere_chat", ""),
    ("custom", ""),
    ("dashscope", ""),
    ("databricks", ""),
    ("datarobot", ""),
    ("deepgram", ""),
    ("elevenlabs", ""),
    ("featherless_ai", ""),
    ("gemini", ""),
    ("gigachat", ""),
    ("github", ""),
    ("github_copilot", ""),
    ("heroku", ""),
    ("infinity", ""),
    ("jina_ai", ""),
    ("maritalk", ""),
    ("mistral", ""),
    ("nlp_cloud", ""),
    ("nvidia_riva", ""),
    ("oci", ""),
    ("oobabooga", ""),
    ("petals", ""),
    ("predibase", ""),
    ("replicate", ""),
    ("sagemaker", ""),
    ("sagemaker_chat", ""),
    ("sap", ""),
    ("snowflake", ""),
    ("text-completion-codestral", ""),
    ("vertex_ai", ""),
    ("vertex_ai_beta", ""),
    ("voyage", ""),
    ("watsonx", ""),
    ("watsonx_text", ""),
];

const OLLAMA: &str = "Ollama has OpenAI's API too: write openai/ and http://HOST:11434/v1";
const TRITON: &str =
    "Triton has an OpenAI-compatible front end: write openai/ and its address with /v1";

/// A server, and what it calls the model.
pub(super) struct Server {
    /// As an endpoint's url.
    pub url: Word,
    /// Empty where every name is passed on.
    pub model: Word,
    /// Whether TLS is spoken to it; of a variable that is not known.
    pub is_https: bool,
}

/// What a deployment is; `None` where it is no server of ours, which has been said.
pub(super) fn server(params: &Field<'_>, notes: &mut Notes) -> Option<Server> {
    let model = params.get("model")?;
    let (provider, name) = split(params, &model, notes)?;
    let base = params.get("api_base").or_else(|| params.get("base_url"));
    let Some(base) = base else {
        notes.not_carried(
            &model,
            match provider.as_deref() {
                Some(known) => format!("without api_base it is the service of {known}, not a server of yours; write its address as api_base to keep it"),
                None => "it has no api_base: write the server's address".to_owned(),
            },
        );
        return None;
    };
    let (url, is_https) = address(&base, notes)?;
    match provider.as_deref() {
        None => notes.differs(&model, "it names no provider, and LiteLLM guesses one; it is taken for openai/"),
        Some("text-completion-openai") => notes.differs(
            &model,
            "LiteLLM turns chats into prompts for /v1/completions; here the engine gets what the client sent",
        ),
        Some(_) => {}
    }
    let model = match name {
        Word::Text(text) if text == "*" => Word::Text(String::new()),
        name => name,
    };
    Some(Server {
        url,
        model,
        is_https,
    })
}

/// The provider, `None` where none is named, and what stands after it.
fn split(
    params: &Field<'_>,
    model: &Field<'_>,
    notes: &mut Notes,
) -> Option<(Option<String>, Word)> {
    let custom = params.get("custom_llm_provider");
    let custom_name = custom.as_ref().and_then(Field::scalar);
    let Some(word) = model.word() else {
        notes.mistake(
            model,
            "is no name; write PROVIDER/NAME, as in hosted_vllm/llama",
        );
        return None;
    };
    let (provider, name) = match word {
        Word::Text(text) => match text.split_once('/') {
            // LiteLLM takes the provider off the name even where one is written beside it.
            Some((first, rest)) if is_provider(first) => (
                Some(custom_name.unwrap_or(first).to_owned()),
                Word::Text(rest.to_owned()),
            ),
            _ => (custom_name.map(str::to_owned), Word::Text(text)),
        },
        Word::Variable(_) if custom_name.is_none() => {
            notes.not_carried(
                model,
                "its provider stands in a variable; write PROVIDER/NAME, as in hosted_vllm/llama",
            );
            return None;
        }
        Word::Variable(name) => (custom_name.map(str::to_owned), Word::Variable(name)),
    };
    match provider.as_deref() {
        Some(provider) if !COMPATIBLE.contains(&provider) => {
            let help = OTHERS.iter().find(|(name, _)| *name == provider);
            let shown = config::shown(provider);
            let mut why = format!(
                "{shown} is no OpenAI-compatible HTTP server, and the gateway translates nothing"
            );
            if let Some((_, help)) = help.filter(|(_, help)| !help.is_empty()) {
                why = format!("{why}; {help}");
            }
            notes.not_carried(custom.as_ref().unwrap_or(model), why);
            None
        }
        _ => Some((provider, name)),
    }
}

fn is_provider(name: &str) -> bool {
    COMPATIBLE.contains(&name) || OTHERS.iter().any(|(other, _)| *other == name)
}

/// An `api_base` as an endpoint's url, and whether it is https.
fn address(base: &Field<'_>, notes: &mut Notes) -> Option<(Word, bool)> {
    const FORM: &str = "write http://HOST:PORT/v1";
    let text = match base.word() {
        Some(Word::Text(text)) => text,
        Some(Word::Variable(name)) => {
            notes.differs(
                base,
                format!(
                    "{name} must hold the address without /v1: each request brings its own path"
                ),
            );
            return Some((Word::Variable(name), false));
        }
        None => {
            notes.mistake(base, format!("is no address; {FORM}"));
            return None;
        }
    };
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http://", rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https://", rest),
        _ => {
            notes.not_carried(
                base,
                format!("it is no http:// or https:// address; {FORM}"),
            );
            return None;
        }
    };
    if rest.contains('@') {
        notes.not_carried(
            base,
            "it holds a user name or a password, which an endpoint cannot; engines take an api_key",
        );
        return None;
    }
    let trimmed = rest.trim_end_matches('/');
    let authority = trimmed
        .strip_suffix("/v1")
        .map(|rest| rest.trim_end_matches('/'));
    if authority.is_none() && !trimmed.contains(['/', '?', '#']) {
        notes.differs(
            base,
            "without /v1 LiteLLM asks for /chat/completions; here the engine gets the client's path, /v1/chat/completions",
        );
    }
    let authority = authority.unwrap_or(trimmed);
    if authority.contains(['/', '?', '#']) {
        notes.not_carried(
            base,
            "it has a path of its own, and an endpoint has none: each request brings its own path",
        );
        return None;
    }
    // One form for each address: two of one pool are told apart by it.
    let authority = authority.to_ascii_lowercase();
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    let url = match (scheme, has_port) {
        ("http://", true) => authority,
        ("http://", false) => format!("{authority}:80"),
        _ => format!(
            "{scheme}{}",
            authority.strip_suffix(":443").unwrap_or(&authority)
        ),
    };
    if !config::is_endpoint(&url) {
        notes.not_carried(
            base,
            format!("it is no address that an endpoint can have; {FORM}"),
        );
        return None;
    }
    Some((Word::Text(url), scheme == "https://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_is_listed_once_and_in_order() {
        assert!(COMPATIBLE.is_sorted());
        let mut names: Vec<_> = OTHERS.iter().map(|(name, _)| *name).collect();
        names.extend(COMPATIBLE);
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
