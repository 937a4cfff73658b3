#!/usr/bin/env python3
"""Starts two vLLM engines and gateways, asks through them, cuts streams, and ends, kills, stops and drains engines under
streams. Run by real_vllm.sh."""

import argparse
import contextlib
import pathlib
import signal
import sys

import cuts
import drains
import faults
import keyed
import plain
from processes import Engine, Gateway, until


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sluicegate", required=True)
    arguments.add_argument("--directory", type=pathlib.Path, required=True)
    arguments.add_argument("parts", nargs="*", metavar="PART", help="plain, keyed, cuts, drains, faults; default: all")
    given = arguments.parse_args()
    checks = [
        plain.answers_are_the_engines_own,
        plain.events_come_one_by_one,
        plain.errors_are_the_engines_own,
        plain.both_engines_work,
        keyed.names_and_keys,
        keyed.streams_are_counted,
        keyed.messages_are_counted,
        keyed.responses_are_kept_for_their_key,
        cuts.every_cut_is_continued,
        cuts.cuts_before_a_stop_string,
        cuts.completions_are_continued,
        faults.uncut_answers_are_the_same_in_any_batch,
        faults.streams_outlive_every_fault,
        faults.streams_end_on_a_draining_engine,
        drains.streams_leave_a_draining_engine,
        # The last: an engine is gone then.
        plain.a_killed_engine_loses_no_request,
    ]
    modules = {"plain": plain, "keyed": keyed, "cuts": cuts, "drains": drains, "faults": faults}
    parts = [modules[part] for part in given.parts] or list(modules.values())
    # Told to stop, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as started:
        engines = [Engine(given.directory) for _ in range(2)]
        for engine in engines:
            started.callback(engine.kill)
        for engine in engines:
            until(f"{engine.log} says why it is not up", 900, engine.is_healthy)
        behind = dict.fromkeys(parts, engines)
        if cuts in parts:
            behind[cuts] = [cuts.Cutter(engine) for engine in engines]
        more = {
            plain: {},
            keyed: {"rest": keyed.CONFIGURATION},
            cuts: {"pool": cuts.POOL},
            drains: {"pool": drains.POOL},
            faults: {},
        }
        gateways = {
            part: Gateway(given.sluicegate, behind[part], given.directory, part.__name__, **more[part]) for part in parts
        }
        for gateway in gateways.values():
            started.callback(gateway.kill)
            until("the gateway is ready", 20, gateway.is_ready)
        checks = [check for check in checks if sys.modules[check.__module__] in parts]
        for check in checks:
            print(check.__name__.replace("_", " "), flush=True)
            part = sys.modules[check.__module__]
            check(gateways[part], behind[part])
    print(f"real vLLM: {len(checks)} passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
