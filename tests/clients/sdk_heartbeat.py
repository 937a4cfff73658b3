"""An SDK whose read timeout is shorter than the prefill: MODULE BASE_URL as arguments, `openai` or `anthropic`.

The models are set up by the test that runs this: `silent` and `beating` give nothing until `silent` was given up, and
`beating` has a heartbeat; `late` has one as well, and gives nothing at all until the gateway gives it up. Prints `ok`
when the timeout cuts the silent one alone, and the late one ends with the error that it should; any other end is a failure.
"""

import importlib
import sys

MODULE, BASE_URL = sys.argv[1:]
sdk = importlib.import_module(MODULE)
HI = [{"role": "user", "content": "Hi"}]
IS_OPENAI = MODULE == "openai"
# Seconds without a byte.
PATIENCE = 1.5


def client(patience=PATIENCE):
    if IS_OPENAI:
        return sdk.OpenAI(base_url=BASE_URL + "/v1", api_key="none", timeout=patience, max_retries=0)
    return sdk.Anthropic(base_url=BASE_URL, api_key="none", timeout=patience, max_retries=0)


def begin(model):
    """Ends with the head of the answer."""
    if IS_OPENAI:
        return client().chat.completions.create(model=model, messages=HI, max_tokens=8, stream=True)
    return client().messages.create(model=model, messages=HI, max_tokens=8, stream=True)


def text(stream):
    parts = []
    for event in stream:
        if IS_OPENAI:
            parts += [choice.delta.content or "" for choice in event.choices]
        elif event.type == "content_block_delta":
            parts.append(event.delta.text)
    return "".join(parts)


def expect(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind} is expected")


def main():
    beating = begin("beating")
    # For as long as this takes nothing but comments comes for the other.
    error = expect(sdk.APITimeoutError, lambda: text(begin("silent")))
    assert isinstance(error, sdk.APIConnectionError), error
    assert text(beating)
    error = expect(sdk.APIError, lambda: text(begin("late")))
    if IS_OPENAI:
        assert error.body["code"] == "upstream_timeout", error.body
    else:
        assert error.body["error"]["type"] == "api_error", error.body
    assert "sent nothing for" in str(error), error
    if IS_OPENAI:
        stream = client().responses.create(model="late", input="Hi", stream=True)
        error = expect(sdk.APIError, lambda: list(stream))
        assert error.body["code"] == "upstream_timeout", error.body
    print("ok")


main()
