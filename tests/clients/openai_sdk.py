"""OpenAI's own SDK against a gateway: BASE_URL as the only argument, `http://HOST:PORT/v1`.

Prints `ok` when everything is as the SDK expects it; any other end is a failure.
"""

import asyncio
import sys

import openai

BASE_URL = sys.argv[1]
HI = [{"role": "user", "content": "Hi"}]
MODEL = "DeepSeek-R1"


def plain(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HI)
    assert answer.choices[0].message.content, answer
    assert answer.choices[0].finish_reason == "stop", answer
    assert answer.usage.completion_tokens > 0, answer
    text = client.completions.create(model=MODEL, prompt="Hi", max_tokens=4)
    assert text.choices[0].text, text
    assert text.choices[0].finish_reason == "length", text


def streaming(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True}
    )
    parts, finish, usage = [], None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            parts.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    assert finish == "stop" and usage.completion_tokens > 0, (finish, usage)
    whole = client.chat.completions.create(model=MODEL, messages=HI)
    assert "".join(parts), parts
    assert len([part for part in parts if part]) > 1, "a stream comes in pieces"
    assert whole.choices[0].message.content
    text = "".join(
        chunk.choices[0].text
        for chunk in client.completions.create(model=MODEL, prompt="Hi", stream=True)
        if chunk.choices
    )
    assert text
    # The helper puts the message together itself, and is strict about the order of events.
    with client.chat.completions.stream(model=MODEL, messages=HI) as helper:
        for _ in helper:
            pass
        assert helper.get_final_completion().choices[0].message.content


def leaving(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=HI, stream=True)
    for _ in stream:
        break
    stream.close()


def errors(client: openai.OpenAI) -> None:
    try:
        client.chat.completions.create(model=MODEL, messages="not a list")
        raise AssertionError("the engine refuses that")
    except openai.BadRequestError as error:
        assert error.status_code == 400
    try:
        client.post("/not-a-path", body={}, cast_to=object)
        raise AssertionError("that path is not exposed")
    except openai.NotFoundError as error:
        assert error.code == "path_not_exposed", error
        assert error.type == "invalid_request_error", error
        assert error.request_id, error


async def at_once() -> None:
    async with openai.AsyncOpenAI(base_url=BASE_URL, api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model=MODEL, messages=HI) for _ in range(50))
        )
        assert all(answer.choices[0].message.content for answer in answers)

        async def one() -> str:
            stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

        assert all(await asyncio.gather(*(one() for _ in range(50))))


with openai.OpenAI(base_url=BASE_URL, api_key="none", max_retries=0) as client:
    plain(client)
    streaming(client)
    leaving(client)
    errors(client)
asyncio.run(at_once())
print("ok")
