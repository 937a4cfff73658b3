"""A WebSocket client of its own, and OpenAI's SDK that speaks through it, in the gateway's tunnel to an engine.

BASE_URL KEY CERTIFICATE as arguments: http://…/v1, or https://…/v1 and what to trust; the key is for `public` and its
alias `p`. Prints `ok` when everything is as a client expects it; any other end is a failure.
"""

import asyncio
import json
import ssl
import sys

import openai
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

BASE_URL, KEY, *CERTIFICATE = sys.argv[1:]
TRUST = {"ssl": ssl.create_default_context(cafile=CERTIFICATE[0])} if CERTIFICATE else {}
if CERTIFICATE:
    # One that was made for the occasion lacks what this asks for.
    TRUST["ssl"].verify_flags &= ~ssl.VERIFY_X509_STRICT
# As long as the engine reads.
LONGEST = 16 << 20
# Seconds; a machine that runs tests is a busy one.
PATIENCE = 60


def tunnel(model="public", key=None, **more):
    if key:
        more["additional_headers"] = {"Authorization": f"Bearer {key}"}
    url = BASE_URL.replace("http", "ws", 1) + f"/realtime?model={model}"
    return connect(url, max_size=LONGEST, open_timeout=PATIENCE, **TRUST, **more)


def greeted(event):
    assert json.loads(event)["type"] == "session.created", event


async def messages_come_back_as_they_went():
    async with tunnel(key=KEY) as socket:
        greeted(await socket.recv())
        for length in (0, 1, 125, 126, 65535, 65536, 1 << 20):
            for message in ("ü" * (length // 2), bytes(range(256)) * (length // 256)):
                await socket.send(message)
                back = await socket.recv()
                assert back == message, (length, type(message), len(back))
        await asyncio.wait_for(await socket.ping(), PATIENCE)
        await socket.send("last")
        assert await socket.recv() == "last"
        await socket.close(1000, "done")
        assert (socket.close_code, socket.close_reason) == (1000, "done"), socket.close_code
        try:
            await socket.recv()
        except ConnectionClosedOK as closed:
            assert closed.rcvd and closed.rcvd.code == 1000, closed
        else:
            raise AssertionError("a closed socket has a message")


async def keys_and_models():
    # As a browser gives its key.
    offered = ["realtime", f"openai-insecure-api-key.{KEY}"]
    async with tunnel("p", subprotocols=offered) as socket:
        assert socket.subprotocol == "realtime", socket.subprotocol
        greeted(await socket.recv())
    for model, key, status, code in (
        ("public", "sk-wrong", 401, "invalid_api_key"),
        ("public", None, 401, "invalid_api_key"),
        ("publik", KEY, 404, "model_not_found"),
        ("private", KEY, 403, "model_not_allowed"),
    ):
        try:
            await tunnel(model, key)
        except InvalidStatus as refused:
            answer = refused.response
            told = json.loads(answer.body)["error"]["code"]
            assert (answer.status_code, told) == (status, code), answer
            assert answer.headers["x-request-id"], answer
        else:
            raise AssertionError(f"{model} is open")


async def many_at_once():
    """Each writes without waiting for what comes back."""

    async def talk(number):
        async with tunnel(key=KEY) as socket:
            greeted(await socket.recv())
            sent = [f"{number} {turn} " + "x" * (turn * 37 % 3000) for turn in range(100)]

            async def write():
                for message in sent:
                    await socket.send(message)

            writing = asyncio.ensure_future(write())
            for message in sent:
                assert await socket.recv() == message, (number, message)
            await writing

    await asyncio.gather(*(talk(number) for number in range(20)))


async def the_sdk():
    client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
    options = {"open_timeout": PATIENCE, **TRUST}
    async with client.realtime.connect(model="public", websocket_connection_options=options) as connection:
        assert (await connection.recv()).type == "session.created"
        await connection.input_audio_buffer.append(audio="AAAA" * 1000)
        await connection.input_audio_buffer.commit()
        # An event that vLLM has and OpenAI has not.
        done = json.loads(await connection.recv_bytes())
        assert done["type"] == "transcription.done" and done["text"].endswith(" bytes"), done
        assert int(done["text"].split()[0]) > 4000, done


async def main():
    # The library's other client, with threads, loses data over TLS before Python 3.13: both of its threads use OpenSSL.
    await messages_come_back_as_they_went()
    await keys_and_models()
    await many_at_once()
    await the_sdk()
    print("ok")


asyncio.run(main())
