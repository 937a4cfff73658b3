"""Anthropic's own SDK against a gateway: BASE_URL KEY as arguments, `http://HOST:PORT`.

Prints `ok` when everything is as the SDK expects it; any other end is a failure.
"""

import sys

import anthropic

BASE_URL, KEY = sys.argv[1:]
ASK = {"model": "public", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]}


def client(key: str = KEY) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=BASE_URL, api_key=key, max_retries=0)


def expect(kind, name: str, call) -> None:
    try:
        call()
    except kind as error:
        assert error.body["type"] == "error", error.body
        assert error.body["error"]["type"] == name, error.body
        assert error.body["error"]["message"], error.body
        return
    raise AssertionError(f"{kind} is expected")


def main() -> None:
    good = client()
    message = good.messages.create(**ASK)
    assert message.content[0].text and message.usage.output_tokens > 0, message
    with good.messages.stream(**ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text and final.stop_reason, final
    expect(
        anthropic.AuthenticationError,
        "authentication_error",
        lambda: client("sk-wrong").messages.create(**ASK),
    )
    expect(
        anthropic.NotFoundError,
        "not_found_error",
        lambda: good.messages.create(**{**ASK, "model": "publik"}),
    )
    expect(
        anthropic.PermissionDeniedError,
        "permission_error",
        lambda: good.messages.create(**{**ASK, "model": "private"}),
    )
    print("ok")


main()
