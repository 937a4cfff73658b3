#!/usr/bin/env python3
"""Starts two vLLM engines and the gateway, asks through it, and kills an engine under way. Run by real_vllm.sh."""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import openai

MODEL = "DeepSeek-R1"
QUESTION = [{"role": "user", "content": "Tell me about sluice gates."}]
# Every answer is as long as asked and the same each time.
FIXED = {"temperature": 0, "extra_body": {"ignore_eos": True}}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    """Status and body, also of errors."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(what, seconds, holds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if holds():
                return
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


class Process:
    """A program in a session of its own, ended with all that it started."""

    def __init__(self, name, command, directory, **environment):
        self.log = directory / f"{name}.log"
        with self.log.open("w") as log:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def is_alive(self):
        return self.child.poll() is None


class Engine(Process):
    def __init__(self, directory):
        self.port = free_port()
        command = [
            str(directory / "venv/bin/vllm"), "serve", str(directory / "model"),
            "--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", MODEL,
            "--max-model-len", "8192", "--dtype", "float32", "--enforce-eager", "--enable-request-id-headers",
        ]  # fmt: skip
        super().__init__(
            f"engine-{self.port}",
            command,
            directory,
            VLLM_CPU_KVCACHE_SPACE="1",
            VLLM_CPU_OMP_THREADS_BIND="nobind",
            OMP_NUM_THREADS="1",
            VLLM_CACHE_ROOT=str(directory / "cache"),
        )

    def url(self, path=""):
        return f"http://127.0.0.1:{self.port}{path}"

    def is_healthy(self):
        assert self.is_alive(), self.log.read_text()[-3000:]
        return get(self.url("/health"))[0] == 200

    def running(self):
        """Requests it works at, by its own count."""
        _, text = get(self.url("/metrics"))
        lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Gateway(Process):
    def __init__(self, program, engines, directory):
        self.port, self.admin_port = free_port(), free_port()
        file = directory / "sluicegate.yaml"
        file.write_text(
            f"listen: 127.0.0.1:{self.port}\nadmin: 127.0.0.1:{self.admin_port}\n"
            f"pid_file: null\naccess_log: {{ path: {directory / 'access.log'} }}\n"
            f"endpoints: [{', '.join(f'127.0.0.1:{engine.port}' for engine in engines)}]\n"
        )
        (directory / "access.log").unlink(missing_ok=True)
        super().__init__("sluicegate", [program, "-c", str(file)], directory)

    def url(self, path=""):
        return f"http://127.0.0.1:{self.port}{path}"

    def endpoints(self):
        return json.loads(get(f"http://127.0.0.1:{self.admin_port}/endpoints")[1])

    def in_flight(self):
        return sum(endpoint["in_flight"] for endpoint in self.endpoints())


def client(server):
    return openai.OpenAI(base_url=server.url("/v1"), api_key="sk-1234", max_retries=0, timeout=120)


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
    _, times = chat_stream(gateway, tokens=100)
    assert len(times) > 20, len(times)
    # In one batch they would all have come within a moment.
    assert times[-1] - times[0] > 0.05, times[-1] - times[0]


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
    streams = [
        client(gateway).chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=4000, stream=True, **FIXED
        )
        for _ in engines
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


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sluicegate", required=True)
    arguments.add_argument("--directory", type=pathlib.Path, required=True)
    given = arguments.parse_args()
    checks = [
        answers_are_the_engines_own,
        events_come_one_by_one,
        errors_are_the_engines_own,
        both_engines_work,
        a_killed_engine_loses_no_request,
    ]
    with contextlib.ExitStack() as started:
        engines = [Engine(given.directory) for _ in range(2)]
        for engine in engines:
            started.callback(engine.kill)
        for engine in engines:
            until(f"{engine.log} says why it is not up", 400, engine.is_healthy)
        gateway = Gateway(given.sluicegate, engines, given.directory)
        started.callback(gateway.kill)
        until("the gateway is ready", 20, lambda: get(gateway.url("/ready"))[0] == 200)
        for check in checks:
            print(check.__name__.replace("_", " "), flush=True)
            check(gateway, engines)
    print(f"real vLLM: {len(checks)} passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
