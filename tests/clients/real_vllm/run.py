#!/usr/bin/env python3
"""Starts two vLLM engines and gateways, asks through them, cuts streams and kills an engine. Run by real_vllm.sh."""

import argparse
import contextlib
import pathlib
import sys

import cuts
import keyed
import plain
from processes import Engine, Gateway, until


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sluicegate", required=True)
    arguments.add_argument("--directory", type=pathlib.Path, required=True)
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
        # The last: an engine is gone then.
        plain.a_killed_engine_loses_no_request,
    ]
    with contextlib.ExitStack() as started:
        engines = [Engine(given.directory) for _ in range(2)]
        for engine in engines:
            started.callback(engine.kill)
        for engine in engines:
            until(f"{engine.log} says why it is not up", 400, engine.is_healthy)
        behind = {plain: engines, keyed: engines, cuts: [cuts.Cutter(engine) for engine in engines]}
        gateways = {
            plain: Gateway(given.sluicegate, engines, given.directory),
            keyed: Gateway(given.sluicegate, engines, given.directory, "keyed", rest=keyed.CONFIGURATION),
            cuts: Gateway(given.sluicegate, behind[cuts], given.directory, "cuts", pool=cuts.POOL),
        }
        for gateway in gateways.values():
            started.callback(gateway.kill)
            until("the gateway is ready", 20, gateway.is_ready)
        for check in checks:
            print(check.__name__.replace("_", " "), flush=True)
            module = sys.modules[check.__module__]
            check(gateways[module], behind[module])
    print(f"real vLLM: {len(checks)} passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
