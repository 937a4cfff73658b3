"""Through the gateway as it replaces nginx: what it passes on, and an engine that dies."""

import json
import threading
import time

import openai
from processes import MODEL, get, until

QUESTION = [{"role": "user", "content": "Tell me about sluice gates."}]
# Every answer is as long as asked and the same each time.
FIXED = {"temperature": 0, "extra_body": {"ignore_eos": True}}


def client(server, key="sk-1234"):
    return openai.OpenAI(base_url=server.url("/v1"), api_key=key, max_retries=0, timeout=120)


def chat(server, tokens=24):
    answer = client(server).chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=tokens, **FIXED)
    return answer.choices[0].message.content, answer.usage.completion_tokens


def chat_stream(server, tokens=24):
    """The text, and when each piece of it came."""
    text, times = [], []
    stream = client(server).chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=tokens, stream=True, **FIXED
    )
    for event in stream:
        if event.choices and event.choices[0].delta.content:
            text.append(event.choices[0].delta.content)
            times.append(time.monotonic())
    return "".join(text), times


def answers_are_the_engines_own(gateway, engines):
    expected = chat(engines[0])
    assert expected[1] == 24, expected
    assert chat(gateway) == expected
    assert chat_stream(gateway)[0] == chat_stream(engines[0])[0] == expected[0]
    completion = {"model": MODEL, "prompt": "Once", "max_tokens": 8, "temperature": 0}
    texts = {client(server).completions.create(**completion).choices[0].text for server in (gateway, *engines)}
    assert len(texts) == 1, texts
    names = [model.id for model in client(gateway).models.list()]
    assert names == [MODEL], names


def events_come_one_by_one(gateway, _engines):
    _, times = chat_stream(gateway, tokens=2000)
    assert len(times) > 400, len(times)
    # In one batch they would all have come within a moment.
    assert times[-1] - times[0] > 0.1, times[-1] - times[0]


def errors_are_the_engines_own(gateway, engines):
    def refusal(server):
        try:
            client(server).chat.completions.create(model="nobody", messages=QUESTION)
        except openai.NotFoundError as error:
            return error.body
        raise AssertionError("a model that does not exist was served")

    assert refusal(gateway) == refusal(engines[0])
    status, body = get(gateway.url("/version"))
    assert (status, json.loads(body)["error"]["code"]) == (404, "path_not_exposed"), body


def both_engines_work(gateway, engines):
    """One long stream on each: the second goes where the first is not."""
    # Before the first asks: a client takes long to make where processors are busy.
    clients = [client(gateway) for _ in engines]
    streams = [
        one.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=8000, stream=True, **FIXED)
        for one in clients
    ]
    for stream in streams:
        next(iter(stream))
    assert [endpoint["in_flight"] for endpoint in gateway.endpoints()] == [1, 1], gateway.endpoints()
    # And clients that leave free their engines.
    for stream in streams:
        stream.close()
    until("the gateway's count is zero", 5, lambda: gateway.in_flight() == 0)
    until("the engines have stopped", 10, lambda: sum(engine.running() for engine in engines) == 0)


def a_killed_engine_loses_no_request(gateway, engines):
    expected, failures, answered = chat(engines[0]), [], []
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            try:
                assert chat(gateway) == expected
                answered.append(time.monotonic())
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a lost request
                failures.append(error)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    time.sleep(2)
    engines[1].kill()
    killed = time.monotonic()
    time.sleep(4)
    stop.set()
    for asker in askers:
        asker.join()
    assert not failures, failures[:3]
    after = sum(at > killed for at in answered)
    assert after > 5, f"{after} answers after the kill"
    states = [endpoint["state"] for endpoint in gateway.endpoints()]
    assert states == ["up", "down"], states
    print(f"  {len(answered)} answers, {after} of them after the kill, none lost")
