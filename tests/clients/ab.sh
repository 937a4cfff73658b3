#!/bin/bash
# ab as the guide runs it (20 000 POSTs, 2 000 at once), with and without keep-alive, through a gateway to
# two simulated engines. DIRECTORY holds the two programs. Not one request may fail.
#
#   tests/clients/ab.sh [DIRECTORY [REQUESTS [CLIENTS]]]      default: target/release 20000 2000
set -euo pipefail
cd "$(dirname "$0")/../.."
programs=${1:-target/release} requests=${2:-20000} clients=${3:-2000}
ulimit -n "$(ulimit -Hn)"
scratch=$(mktemp -d)
started=()
finish() {
    kill "${started[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$scratch"
}
trap finish EXIT

for engine in 1 2; do
    "$programs/loadtest" engine --listen "unix:$scratch/engine-$engine" --ttft 5ms --itl 1ms --tokens 8 \
        >"$scratch/engine-$engine.log" 2>&1 &
    started+=($!)
done
for engine in 1 2; do
    until [ -S "$scratch/engine-$engine" ]; do sleep 0.05; done
done
"$programs/sluicegate" --listen 127.0.0.1:0 --admin off "unix:$scratch/engine-1" "unix:$scratch/engine-2" \
    2>"$scratch/gateway.log" >/dev/null &
started+=($!)
until gateway=$(grep -o 'listening on .*' "$scratch/gateway.log"); do sleep 0.05; done
gateway=${gateway#listening on }

for keepalive in "" -k; do
    # shellcheck disable=SC2086 # no word where there is no flag
    ab -q $keepalive -n "$requests" -c "$clients" -p loadtest/apache/postdata -T application/json \
        "http://$gateway/v1/completions" >"$scratch/ab.txt"
    grep -E '^(Complete|Failed|Keep-Alive|Requests per|Non-2xx)' "$scratch/ab.txt"
    grep -qx "Complete requests: *$requests" "$scratch/ab.txt"
    grep -qx 'Failed requests: *0' "$scratch/ab.txt"
    if grep '^Non-2xx' "$scratch/ab.txt"; then exit 1; fi
done
