#!/bin/bash
# tests/cuda.sh [short|long]: CUDA's back end without a GPU.  Where there is a
# toolkit its files are compiled for it (spills and local memory are errors),
# and for the host, where the ops run on the emulator beside plain C.  What
# cannot be done here is said, and counted.

set -u
cd "$(dirname "$0")/.."
build=${BUILD:-build}
mode=${1:-short}
home=${CUDA_HOME:-$(ls -d /usr/local/cuda /usr/local/cuda-* 2>/dev/null | head -n 1)}
skipped=0

skip() {
    echo "skipped: $1"
    skipped=$((skipped + 1))
}

if [ -x "$home/bin/nvcc" ]; then
    make -s -j2 BUILD="$build" cuda || exit 1
    echo "ok compiled for GPUs: no spills, no local memory"
else
    skip "no nvcc, so nothing is compiled for a GPU"
fi

if [ ! -r "$home/include/cuda_bf16.h" ]; then
    skip "no CUDA headers, so no op is run on the emulator"
    echo "0 passed, 0 failed, $skipped skipped"
    exit 0
fi

make -s -j2 BUILD="$build" "$build/llm_cuda_simt.so" "$build/kernels/ops" \
    "$build/kernels/replay" || exit 1

# the others take minutes
ops="embed add gather comm_gather copy sample rope_angles"
[ "$mode" = long ] && ops=
export CUDA_HOME=$home
LLM_BRIEF=1 "$build/kernels/ops" "$build/llm_cuda_simt.so" $ops || exit 1
models=mixtral
[ "$mode" = long ] && models="mixtral qwen3 gemma3 deepseek2-lite gpt-oss"
"$build/kernels/replay" "$build/llm_cuda_simt.so" $models || exit 1
[ "$mode" != long ] || tests/simt/attn.sh plain 0 1 || exit 1
[ "$mode" != long ] || SIMT=1 OUT=$build/gpu-simt tests/gpu/run.sh || exit 1
[ "$mode" = long ] ||
    skip "rmsnorm, matmul, gated, headmul, rope_store, attn, router, moe_ffn"
echo "$skipped parts, $skipped skipped"
