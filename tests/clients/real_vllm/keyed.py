"""Through the gateway as it replaces LiteLLM: names, keys, and tokens that are counted."""

import json
import urllib.request

import openai
from plain import FIXED, QUESTION, chat, client
from processes import MODEL, get

KEYS = {"team": "sk-Rt5mXq8vKz2wLd7pHc4n", "other": "sk-Vb9kWf3sJx6yTg1rMq8e", "small": "sk-Nc7hPd2zGv5uYk9wBt4a"}
CONFIGURATION = f"""
models:
  DeepSeek-R1: {{ pool: default }}
  r1: DeepSeek-R1
  house-model: {{ pool: default, upstream_model: {MODEL}, rename_response: true }}
keys:
  - {{ name: team, key: {KEYS["team"]}, models: ["*"], tokens_per_minute: 1000000 }}
  - {{ name: other, key: {KEYS["other"]}, models: [house-model] }}
  - {{ name: small, key: {KEYS["small"]}, models: ["*"], tokens_per_minute: 60 }}
"""


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def ask(gateway, model, key, **more):
    return client(gateway, KEYS.get(key, key)).chat.completions.create(
        model=model, messages=QUESTION, max_tokens=24, **FIXED, **more
    )


def names_and_keys(gateway, engines):
    text, _ = chat(engines[0])
    answers = [ask(gateway, model, "team") for model in (MODEL, "r1", "house-model")]
    assert [answer.choices[0].message.content for answer in answers] == [text] * 3, answers
    # Only where it is asked for does an answer bear the client's name for the model.
    assert [answer.model for answer in answers] == [MODEL, MODEL, "house-model"], answers
    for key, names in (("team", {MODEL, "r1", "house-model"}), ("other", {"house-model"})):
        listed = {model.id for model in client(gateway, KEYS[key]).models.list()}
        assert listed == names, (key, listed)
    refused(openai.AuthenticationError, lambda: ask(gateway, MODEL, "sk-wrong"))
    refused(openai.PermissionDeniedError, lambda: ask(gateway, MODEL, "other"))
    error = refused(openai.NotFoundError, lambda: ask(gateway, "house-modell", "team"))
    assert "house-model" in error.message, error.message
    ask(gateway, MODEL, "small")
    error = refused(openai.RateLimitError, lambda: ask(gateway, MODEL, "small"))
    assert float(error.response.headers["retry-after"]) > 0, error.response.headers


def streams_are_counted(gateway, _engines):
    whole = ask(gateway, MODEL, "team")
    tokens = (whole.usage.prompt_tokens, whole.usage.completion_tokens, False)
    # The client has not asked for its tokens, so it is not shown them.
    stream = ask(gateway, "house-model", "team", stream=True, extra_headers={"X-Request-Id": "not-asked"})
    shown = [event.usage for event in stream]
    assert shown and not any(shown), shown
    options = {"include_usage": True}
    stream = ask(gateway, "r1", "team", stream=True, stream_options=options, extra_headers={"X-Request-Id": "asked"})
    shown = [event.usage for event in stream if event.usage]
    assert shown == [whole.usage], (shown, whole.usage)
    for name, model in (("not-asked", "house-model"), ("asked", MODEL)):
        line = gateway.logged(name)
        counted = (line["prompt_tokens"], line["completion_tokens"], line["tokens_estimated"])
        assert (line["key"], line["model"], counted) == ("team", model, tokens), line
    # A client that leaves: what it got is counted.
    stream = client(gateway, KEYS["team"]).chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=8000, stream=True, extra_headers={"X-Request-Id": "left"}, **FIXED
    )
    got = [next(iter(stream)) for _ in range(20)]
    stream.close()
    line = gateway.logged("left")
    assert line["end"] == "client_left" and line["completion_tokens"] >= len(got) - 1, line


def send(url, body, headers):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def messages_are_counted(gateway, _engines):
    body = {"model": "house-model", "max_tokens": 16, "messages": QUESTION}
    headers = {"x-api-key": KEYS["other"], "anthropic-version": "2023-06-01", "X-Request-Id": "message"}
    answer = send(gateway.url("/v1/messages"), body, headers)
    assert (answer["type"], answer["model"]) == ("message", "house-model"), answer
    line = gateway.logged("message")
    usage = answer["usage"]
    counted = (line["prompt_tokens"], line["completion_tokens"])
    assert counted == (usage["input_tokens"], usage["output_tokens"]), (line, usage)


def responses_are_kept_for_their_key(gateway, _engines):
    """Each engine keeps its own responses, so that asking another for one is a 404."""
    owner = client(gateway, KEYS["team"])
    made = [owner.responses.create(model=MODEL, input="Once", max_output_tokens=16).id for _ in range(4)]
    for name in made * 2:
        assert owner.responses.retrieve(name).id == name
    next_one = owner.responses.create(model=MODEL, input="And then?", max_output_tokens=16, previous_response_id=made[0])
    assert next_one.previous_response_id == made[0], next_one
    refused(openai.NotFoundError, lambda: client(gateway, KEYS["small"]).responses.retrieve(made[0]))
    status, _ = get(gateway.url("/v1/responses/" + made[0]))
    assert status == 401, status
