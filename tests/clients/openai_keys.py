"""OpenAI's SDK with keys and models: BASE_URL KEY as arguments; the key is for `public` and its alias `p`.

Prints `ok` when everything is as the SDK expects it; any other end is a failure.
"""

import sys

import openai

BASE_URL, KEY = sys.argv[1:]
HI = [{"role": "user", "content": "Hi"}]


def client(key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=BASE_URL, api_key=key, max_retries=0)


def expect(kind, code: str, call) -> openai.APIStatusError:
    try:
        call()
    except kind as error:
        assert error.code == code, error
        assert error.request_id, error
        return error
    raise AssertionError(f"{kind} is expected")


def chat(with_client: openai.OpenAI, model: str = "public", **more):
    return with_client.chat.completions.create(model=model, messages=HI, **more)


def main() -> None:
    good = client()
    for model in ("public", "p"):
        assert chat(good, model).choices[0].message.content
        chunks = list(chat(good, model, stream=True))
        assert chunks[-1].choices, "the count of tokens that nobody asked for is not shown"
        assert all(chunk.model for chunk in chunks)
    expect(openai.AuthenticationError, "invalid_api_key", lambda: chat(client("sk-wrong")))
    error = expect(openai.NotFoundError, "model_not_found", lambda: chat(good, "publik"))
    assert "public" in error.message, error
    expect(openai.PermissionDeniedError, "model_not_allowed", lambda: chat(good, "private"))
    expect(
        openai.BadRequestError, "invalid_value", lambda: chat(good, extra_body={"n": 1000})
    )
    names = [model.id for model in good.models.list()]
    assert names == ["public", "p"], names
    assert good.models.retrieve("p").id == "p"
    expect(openai.NotFoundError, "model_not_found", lambda: good.models.retrieve("private"))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert chat(good, tools=tools).choices[0].finish_reason
    raw = good.chat.completions.with_raw_response.create(model="public", messages=HI)
    assert int(raw.headers["x-ratelimit-limit-requests"]) == 100, raw.headers
    # Two requests of this key pass at once, and the third is told how long to wait.
    limited = client("sk-limited-0123456789abcdef")
    for _ in range(2):
        chat(limited)
    error = expect(openai.RateLimitError, "rate_limit_exceeded", lambda: chat(limited))
    assert error.type == "rate_limit_error", error
    assert 1 <= int(error.response.headers["retry-after"]) <= 30, error.response.headers
    embeddings = lambda: good.embeddings.create(model="private", input="Hi")
    expect(openai.PermissionDeniedError, "model_not_allowed", embeddings)
    print("ok")


main()
