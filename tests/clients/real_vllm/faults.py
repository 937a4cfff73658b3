"""Twenty streams while each engine in turn is told to end, is killed, and hangs: every answer is whole and the right one."""

import os
import signal
import subprocess
import time

from crowd import STREAMS, Crowd, all_are_idle, all_are_up, begun, continuations, expected_of, row, since, state
from drains import drain_and_undrain
from processes import until


def uncut_answers_are_the_same_in_any_batch(gateway, engines):
    """Else a text that differs would say nothing of the gateway."""
    expected = expected_of(*engines)
    assert len({text for text, _ in expected}) == STREAMS, "questions have one answer"
    crowd = Crowd(gateway, expected, rounds=2)
    streams = crowd.judge()
    silence = max(stream.silence(0) for stream in streams)
    print(f"  {len(streams)} streams and {crowd.answers} whole answers, 0 differ; longest silence {silence:.1f} s")


def ended(engine):
    os.kill(engine.child.pid, signal.SIGTERM)


def server_killed(engine):
    os.kill(engine.child.pid, signal.SIGKILL)


def core_killed(engine):
    os.kill(engine.part("VLLM::EngineCore"), signal.SIGKILL)


def worker_killed(engine):
    os.kill(engine.part("VLLM::Worker"), signal.SIGKILL)


def core_stopped(engine):
    os.kill(engine.part("VLLM::EngineCore"), signal.SIGSTOP)


def worker_stopped(engine):
    """What a hung GPU looks like."""
    os.kill(engine.part("VLLM::Worker"), signal.SIGSTOP)


def all_stopped(engine):
    os.killpg(engine.child.pid, signal.SIGSTOP)


def suffer(gateway, engines, engine, fault):
    all_are_up(gateway)
    before = continuations(gateway)
    crowd, held = begun(gateway, engine, expected_of(*engines))
    fault(engine)
    at = time.monotonic()
    until("it is out", 100, lambda: state(gateway, engine) not in ("up", "ramping"))
    out = time.monotonic() - at
    reason = row(gateway, engine)["reason"]
    streams = crowd.judge()
    cut = since(before, gateway)
    assert cut and not set(cut) - {"ids", "end"}, f"{cut} of {held}: {reason}"
    open_then = [stream for stream in streams if stream.times[0] < at < stream.times[-1]]
    silences = [max(stream.silence(at) for stream in some) for some in (open_then, streams)]
    print(
        f"  {fault.__name__} {engine.port} with {held} requests: {len(streams)} streams and {crowd.answers} whole answers, "
        f"0 lost, 0 cut, 0 wrong; {cut} went on; out after {out:.1f} s ({reason}); longest silence of those open "
        f"{silences[0]:.1f} s, of all {silences[1]:.1f} s",
        flush=True,
    )
    come_back(gateway, engines, engine, fault)


def come_back(gateway, engines, engine, fault):
    """While a few go on asking, which must not notice either; not so many that it is long in starting."""
    began = time.monotonic()
    crowd = Crowd(gateway, expected_of(*engines), streams=1, pause=0.5)
    if fault in (core_stopped, worker_stopped, all_stopped):
        os.killpg(engine.child.pid, signal.SIGCONT)
    else:
        try:
            engine.child.wait(30)
        except subprocess.TimeoutExpired:
            print(f"  {engine.port} has not ended by itself within 30 s")
        engine.restart()
        until(f"{engine.log} says why it is not up", 900, engine.is_healthy)
    healthy = time.monotonic() - began
    until("it gets requests again", 60, lambda: state(gateway, engine) in ("up", "ramping"))
    took = time.monotonic() - began
    all_are_up(gateway)
    streams = crowd.judge()
    print(f"  healthy after {healthy:.1f} s, used after {took:.1f} s; {len(streams)} streams meanwhile, 0 lost, 0 wrong", flush=True)
    all_are_idle(gateway, engines)


def streams_end_on_a_draining_engine(gateway, engines):
    for engine in engines:
        cut = drain_and_undrain(gateway, engines, engine)
        assert not cut, cut


def streams_outlive_every_fault(gateway, engines):
    for engine in engines:
        for fault in (core_stopped, worker_stopped, all_stopped, ended, server_killed, core_killed, worker_killed):
            suffer(gateway, engines, engine, fault)
