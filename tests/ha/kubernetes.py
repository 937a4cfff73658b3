#!/usr/bin/env python3
"""Checks conf/ha/kubernetes.yml: every object by Kubernetes' own schema, and the gateway's configuration by the gateway.

    tests/ha/kubernetes.py SLUICEGATE
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

FILE = Path(__file__).resolve().parent.parent.parent / "conf/ha/kubernetes.yml"


def main() -> int:
    objects = list(yaml.safe_load_all(FILE.read_text(encoding="utf-8")))
    for item in objects:
        try:
            # Strictly: a key that Kubernetes would drop in silence is an error.
            kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            sys.exit(f"{FILE}: {item.get('kind')}: {'.'.join(map(str, error.path))}: {error.message}")
    kinds = {item["kind"]: item for item in objects}
    pod = kinds["Deployment"]["spec"]["template"]
    for kind, selector in [
        ("Service", kinds["Service"]["spec"]["selector"]),
        ("Deployment", kinds["Deployment"]["spec"]["selector"]["matchLabels"]),
        ("PodDisruptionBudget", kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]),
    ]:
        if not selector.items() <= pod["metadata"]["labels"].items():
            sys.exit(f"{FILE}: {kind} does not select the gateway's pods")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as configuration:
        configuration.write(kinds["ConfigMap"]["data"]["sluicegate.yaml"])
        configuration.flush()
        return subprocess.run([sys.argv[1], "-t", "-c", configuration.name], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
