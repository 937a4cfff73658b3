"""The retries and timeouts of an SDK itself: MODULE BASE_URL as arguments, `openai` or `anthropic`.

The models are set up by the test that runs this: `public` answers, `down` is refused until it was asked once, `held`
gives nothing until it was asked twice. Prints `ok` when the SDK's own rules lead to an answer, each time as soon as the
gateway said; any other end is a failure.
"""

import importlib
import sys
import time

MODULE, BASE_URL = sys.argv[1:]
sdk = importlib.import_module(MODULE)
HI = [{"role": "user", "content": "Hi"}]
KEY, LIMITED = "sk-a-0123456789abcdef", "sk-limited-0123456789abcdef"


def client(key=KEY, **more):
    if MODULE == "openai":
        return sdk.OpenAI(base_url=BASE_URL + "/v1", api_key=key, **more)
    return sdk.Anthropic(base_url=BASE_URL, api_key=key, **more)


def raw(with_client, model, **more):
    """The answer with its head."""
    if MODULE == "openai":
        create = with_client.chat.completions.with_raw_response.create
    else:
        create = with_client.messages.with_raw_response.create
    return create(model=model, messages=HI, max_tokens=8, **more)


def ask(with_client, model):
    """How often the SDK asked again, and for how long; the answer must be a good one."""
    began = time.monotonic()
    answer = raw(with_client, model)
    took = time.monotonic() - began
    message = answer.parse()
    assert message.choices if MODULE == "openai" else message.content, message
    return answer.retries_taken, took


def expect(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind} is expected")


def limits():
    """Sixty requests a minute, refilled evenly: the next one is told to wait for a second."""
    impatient, patient = client(LIMITED, max_retries=0), client(LIMITED, max_retries=2)
    asked = 0
    while True:
        try:
            raw(impatient, "public")
            asked += 1
        except sdk.RateLimitError as error:
            wait = int(error.response.headers["retry-after"])
            break
    assert asked >= 60 and wait == 1, (asked, wait)
    retries, took = ask(patient, "public")
    assert (retries, took < 3) == (1, True), (retries, took)


def unavailable():
    """A 503 is repeated after its Retry-After, and by then somebody is there."""
    expect(sdk.InternalServerError, lambda: raw(client(max_retries=0), "nobody"))
    retries, took = ask(client(max_retries=4), "down")
    assert retries >= 1 and took >= 0.9, (retries, took)


def timeouts():
    """Whoever gives up is forgotten at once, and the next try is a request like any other."""
    retries, took = ask(client(timeout=1, max_retries=2), "held")
    assert retries == 1 and 1 <= took < 4, (retries, took)
    error = expect(sdk.APITimeoutError, lambda: raw(client(timeout=0.3, max_retries=0), "mute"))
    assert isinstance(error, sdk.APIConnectionError), error
    # The next try is a stream, which has its own way through the SDK.
    began = time.monotonic()
    expect(
        sdk.APITimeoutError,
        lambda: raw(client(timeout=0.3, max_retries=1), "mute", stream=True),
    )
    assert time.monotonic() - began < 4


def main():
    limits()
    unavailable()
    timeouts()
    print("ok")


main()
