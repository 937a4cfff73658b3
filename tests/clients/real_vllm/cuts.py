"""Streams that lose their engine: the client's text is that of an engine that lived."""

import asyncio
import threading
import time

from plain import FIXED, QUESTION, client
from processes import MODEL, until

# Each of many streams is cut here, which no budget allows for.
POOL = "    retry_budget: { ratio: 1, min_per_second: 1000 }\n"
TOKENS = 200


class Cutter:
    """Stands before an engine, and cuts one streamed answer when all of them are told to cut one."""

    # How many events, and bytes of the next, the first stream that comes to any of them may still show.
    armed = None
    cuts = 0

    def __init__(self, engine):
        self.engine = engine.port
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    @staticmethod
    async def read(side):
        try:
            return await side.read(65536)
        except OSError:
            return b""

    async def serve(self, reader, writer):
        try:
            from_engine, to_engine = await asyncio.open_connection("127.0.0.1", self.engine)
        except OSError:
            writer.transport.abort()
            return

        async def forward():
            while piece := await self.read(reader):
                to_engine.write(piece)
                await to_engine.drain()

        forwarding = asyncio.ensure_future(forward())
        left = None
        while piece := await self.read(from_engine):
            if Cutter.armed and b"text/event-stream" in piece:
                left, Cutter.armed = Cutter.armed, None
            if left:
                events, rest = left
                at = -1
                while events and (at := piece.find(b"\n\n", at + 1)) >= 0:
                    events -= 1
                if not events:
                    Cutter.cuts += 1
                    writer.write(piece[: at + 2 + rest])
                    await writer.drain()
                    break
                left = (events, rest)
            writer.write(piece)
            await writer.drain()
        forwarding.cancel()
        for side in (writer, to_engine):
            side.transport.abort()


def streamed(gateway, **more):
    """The text, the reason of its end, and its tokens as the client is told."""
    text, finish, usage = [], None, None
    options = {"max_tokens": TOKENS, "stream_options": {"include_usage": True}, **more}
    for event in client(gateway).chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, **FIXED, **options
    ):
        usage = event.usage or usage
        for choice in event.choices:
            text.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    return "".join(text), finish, (usage.prompt_tokens, usage.completion_tokens)


def cut_everywhere(gateway, places, answer):
    """`answer` gives what a client has of a stream, which must be the same wherever it is cut."""
    expected = answer()
    wrong = []
    for events in places:
        before = Cutter.cuts
        # Somewhere within the event as well as at its end.
        Cutter.armed = (events, events * 7 % 60)
        got = answer()
        Cutter.armed = None
        if got != expected:
            wrong.append((events, got, expected))
        assert Cutter.cuts == before + 1, f"nothing was cut at {events}"
    assert not wrong, f"{len(wrong)} of {len(places)} differ, first: {wrong[0]}"
    until("the gateway's count is zero", 5, lambda: gateway.in_flight() == 0)


def every_cut_is_continued(gateway, _cutters):
    began = time.monotonic()
    cut_everywhere(gateway, range(1, TOKENS), lambda: streamed(gateway))
    print(f"  {TOKENS - 1} cuts, {time.monotonic() - began:.0f} s")


def cuts_before_a_stop_string(gateway, _cutters):
    text, _, _ = streamed(gateway)
    # From the second half, where it stands for the first time.
    at = next(at for at in range(len(text) // 2, len(text) - 8) if text.find(text[at : at + 6]) == at)
    stop = [text[at : at + 6]]
    cut_everywhere(gateway, range(1, 60, 2), lambda: streamed(gateway, stop=stop))


def completions_are_continued(gateway, _cutters):
    def completed():
        stream = client(gateway).completions.create(
            model=MODEL, prompt="Once upon a time", max_tokens=60, stream=True, **FIXED
        )
        return "".join(event.choices[0].text for event in stream if event.choices)

    cut_everywhere(gateway, range(1, 60, 3), completed)
