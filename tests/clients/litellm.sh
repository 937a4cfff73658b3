#!/usr/bin/env bash
# The real LiteLLM beside the gateway, with the same configuration and the same requests: tests/process/from_litellm.rs.
#
#   tests/clients/litellm.sh
#
# Needs Python 3.10 or later, PyPI and 1.2 GB of disk. Installing takes a minute or two, once.
#   LITELLM_DIR   where it goes (default: target/litellm)
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${LITELLM_DIR:-$root/target/litellm}
version=1.106.2

if [ ! -e "$dir/installed-$version" ]; then
    echo "installing LiteLLM $version"
    python3 -m venv --clear "$dir"
    "$dir/bin/pip" install -q --disable-pip-version-check "litellm[proxy]==$version"
    touch "$dir/installed-$version"
fi
cd "$root"
LITELLM=$dir/bin/litellm exec cargo test --test process -- --nocapture from_litellm
