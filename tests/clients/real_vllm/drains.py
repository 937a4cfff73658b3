"""An engine is taken out and in again by command, under twenty streams."""

import subprocess
import time

from crowd import PATIENCE, Crowd, all_are_idle, all_are_up, begun, continuations, expected_of, row, since, state
from processes import until

# Over before a stream is.
POOL = "    drain_timeout: 500ms\n"


def order(gateway, *arguments):
    """A command of the gateway's own program, to this gateway."""
    began = time.monotonic()
    done = subprocess.run(
        [gateway.program, *arguments, "-c", gateway.file], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, (arguments, done)
    return time.monotonic() - began


def drain_and_undrain(gateway, engines, engine):
    expected = expected_of(*engines)
    node = f"127.0.0.1:{engine.port}"
    all_are_up(gateway)
    before = continuations(gateway)
    crowd, held = begun(gateway, engine, expected)
    at = time.monotonic()
    drained = order(gateway, "drain", node, "--wait")
    assert (state(gateway, engine), row(gateway, engine)["in_flight"]) == ("draining", 0)
    until("the drained engine has nothing to do", 5, lambda: engine.running() == 0)
    streams = crowd.judge()
    silence = max(stream.silence(at) for stream in streams)
    cut = since(before, gateway)
    assert row(gateway, engine)["in_flight"] == 0, "a draining engine got a request"
    crowd = Crowd(gateway, expected, rounds=1)
    undrained = order(gateway, "undrain", node, "--wait")
    crowd.judge()
    all_are_up(gateway)
    begun(gateway, engine, expected)[0].judge()
    print(
        f"  drain {node} with {held} requests: drained after {drained:.1f} s, {cut or 'none'} moved, longest silence "
        f"{silence:.1f} s; back {undrained:.1f} s after undrain; 0 lost, 0 cut, 0 wrong",
        flush=True,
    )
    all_are_idle(gateway, engines)
    return cut


def streams_leave_a_draining_engine(gateway, engines):
    for engine in engines:
        cut = drain_and_undrain(gateway, engines, engine)
        assert cut and not set(cut) - {"ids", "end"}, cut
