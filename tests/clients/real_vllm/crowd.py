"""Clients that ask all at once, and judge what they got: whether all of it came, and whether it is what an engine says alone."""

import concurrent.futures
import functools
import http.client
import itertools
import json
import math
import threading
import time
import urllib.request

from processes import MODEL, get, until

STREAMS = 20
TOKENS = 400
# Characters that each stream has shown before anything happens: then it is in the middle of its answer.
BEGUN = 100
# Whole answers that are asked for beside the streams.
WHOLE = 2
# Longer than any engine takes to be found hung, by far.
PATIENCE = 240
NAMES = ("lock", "weir", "dam", "canal", "mill", "pump", "lake", "river", "dyke", "ford")


def question(number, tokens):
    """Half of them are chats. Where it goes, and what is asked."""
    common = {"model": MODEL, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    text = f"{NAMES[number % len(NAMES)]} {number} of {number * number + 7}: how is it built?"
    if number % 2:
        return "/v1/completions", {**common, "prompt": text}
    return "/v1/chat/completions", {**common, "messages": [{"role": "user", "content": text}]}


def post(server, path, body):
    request = urllib.request.Request(server.url(path), json.dumps(body).encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=PATIENCE)


def whole(server, number, tokens=TOKENS):
    path, body = question(number, tokens)
    with post(server, path, body) as answer:
        choice = json.load(answer)["choices"][0]
    assert choice["finish_reason"] == "length", choice
    return choice["text"] if number % 2 else choice["message"]["content"]


class Stream:
    """One streamed answer: when the client was shown something, and what."""

    def __init__(self, number):
        self.number = number
        # The first is when it was asked for.
        self.times = []
        self.text = ""
        self.problem = None

    def read(self, server):
        self.times.append(time.monotonic())
        try:
            self.follow(server)
        except (AssertionError, OSError, http.client.HTTPException, ValueError) as error:
            self.problem = f"{type(error).__name__}: {error} after {len(self.text)} characters"

    def follow(self, server):
        path, body = question(self.number, TOKENS)
        ids, roles, finishes, usages, done = set(), 0, [], [], False
        with post(server, path, {**body, "stream": True, "stream_options": {"include_usage": True}}) as answer:
            for line in answer:
                if not line.startswith(b"data: "):
                    continue
                assert not done, f"{line} after [DONE]"
                self.times.append(time.monotonic())
                if line.strip() == b"data: [DONE]":
                    done = True
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, event
                ids.add(event["id"])
                if event.get("usage"):
                    usages.append(event["usage"]["completion_tokens"])
                for choice in event["choices"]:
                    delta = choice.get("delta", {})
                    roles += "role" in delta
                    self.text += choice.get("text") or delta.get("content") or ""
                    if choice["finish_reason"]:
                        finishes.append(choice["finish_reason"])
        assert done, "no [DONE]"
        shape = (len(ids), roles, finishes, usages)
        assert shape == (1, 1 - self.number % 2, ["length"], [TOKENS]), shape

    def is_begun(self):
        return len(self.text) > BEGUN

    def silence(self, since):
        """The longest time without an event from then on."""
        times = [max(at, since) for at in self.times]
        return max((after - before for before, after in itertools.pairwise(times)), default=0)


class Crowd:
    """Clients that ask all at once; each stream is followed by another until they are told, and whole answers go on all
    the while."""

    def __init__(self, gateway, expected, streams=STREAMS, rounds=math.inf, pause=0):
        self.gateway, self.expected = gateway, expected
        # One list a client: the last is what it is reading. None begins another when these are `rounds`.
        self.streams = [[] for _ in range(streams)]
        self.rounds = rounds
        # In seconds, after each answer.
        self.pause = pause
        self.over = False
        self.answers, self.lost = 0, []
        self.readers = [threading.Thread(target=self.stream, args=(client,), daemon=True) for client in range(streams)]
        self.askers = [threading.Thread(target=self.ask, args=(number,), daemon=True) for number in range(WHOLE)]
        for thread in self.readers + self.askers:
            thread.start()

    def stream(self, client):
        mine = self.streams[client]
        while len(mine) < self.rounds:
            mine.append(Stream((client + len(mine) * 7) % STREAMS))
            mine[-1].read(self.gateway)
            time.sleep(self.pause)

    def ask(self, number):
        expected = self.expected[number][1]
        while not self.over:
            try:
                answer = whole(self.gateway, number, 24)
                assert answer == expected, f"{answer!r} is not {expected!r}"
                self.answers += 1
                time.sleep(self.pause)
            except (AssertionError, OSError, http.client.HTTPException, ValueError) as error:
                self.lost.append(f"{type(error).__name__}: {error}")
                return

    def are_begun(self):
        return all(client and client[0].is_begun() for client in self.streams)

    def finish(self):
        """All that was streamed, when those that are open have ended."""
        if self.rounds == math.inf:
            self.rounds = 0
        for reader in self.readers:
            reader.join()
        self.over = True
        for asker in self.askers:
            asker.join()
        return [stream for client in self.streams for stream in client]

    def judge(self):
        """Nothing is lost, cut or wrong."""
        streams = self.finish()
        broken = [stream.problem for stream in streams if stream.problem]
        wrong = [
            (stream.number, stream.text, self.expected[stream.number][0])
            for stream in streams
            if not stream.problem and stream.text != self.expected[stream.number][0]
        ]
        assert not broken and not self.lost and not wrong, (
            f"of {len(streams)} streams {len(broken)} lost or cut, {len(wrong)} wrong; of {self.answers} whole answers "
            f"{len(self.lost)} lost; first: {(broken + self.lost + wrong)[0]}"
        )
        return streams


@functools.cache
def expected_of(*engines):
    """What each question is answered where nothing else is asked: streams, and short whole answers."""

    def answer(turn):
        engine, numbers = engines[turn], range(turn, STREAMS, len(engines))
        return [(number, whole(engine, number), whole(engine, number, 24)) for number in numbers]

    with concurrent.futures.ThreadPoolExecutor() as each:
        answers = [answer for some in each.map(answer, range(len(engines))) for answer in some]
    return [texts for _, *texts in sorted(answers)]


def continuations(gateway):
    """The gateway's count of cuts, by what came of them."""
    _, text = get(f"http://127.0.0.1:{gateway.admin_port}/metrics")
    counts = {}
    for line in text.splitlines():
        if line.startswith("sluicegate_continuations_total{"):
            result = line.split('result="')[1].split('"')[0]
            counts[result] = counts.get(result, 0) + int(float(line.rsplit(" ", 1)[1]))
    return counts


def since(before, gateway):
    return {result: count - before.get(result, 0) for result, count in continuations(gateway).items()
            if count != before.get(result, 0)}


def row(gateway, engine):
    return next(one for one in gateway.endpoints() if one["endpoint"] == f"127.0.0.1:{engine.port}")


def state(gateway, engine):
    return row(gateway, engine)["state"]


def all_are_up(gateway):
    """With their whole share again."""
    until("all endpoints are up", 120, lambda: all(one["state"] == "up" for one in gateway.endpoints()))


def all_are_idle(gateway, engines):
    until("the gateway's count is zero", 10, lambda: gateway.in_flight() == 0)
    until("the engines have stopped", 20, lambda: sum(engine.running() for engine in engines) == 0)


def begun(gateway, engine, expected):
    """A crowd in the middle of its streams, and how many requests the engine holds: a quarter or more."""
    crowd = Crowd(gateway, expected)
    until("all clients have a stream that has begun", PATIENCE, crowd.are_begun)
    until(f"{engine.port} has its share", PATIENCE, lambda: row(gateway, engine)["in_flight"] >= STREAMS // 4)
    return crowd, row(gateway, engine)["in_flight"]
