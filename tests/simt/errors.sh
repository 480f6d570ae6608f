#!/bin/bash
# tests/simt/errors.sh: the engine on a GPU that will not do, has too little
# memory, or fails, all emulated: one line that says so, and exit 1.
set -u
cd "$(dirname "$0")/../.."

build=${BUILD:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0

printf 'The engine computes this before it serves, which takes a step.' \
    >"$tmp/prefix"

# SAYS NAME=VALUE ...
check() {
    says=$1
    shift
    timeout 20 env "$@" "$build/llm-engine" --device cuda --model conf/demo/ngx-llm-demo.gguf \
        --cuda_library "${library:-$build/llm_cuda_simt.so}" --listen "$tmp/sock" \
        --prefix_pin "$tmp/prefix" --context 64 --batch_rows 4 \
        --batch_tokens 16 ${more:-} >"$tmp/out" 2>&1
    rc=$?
    grep '^llm-engine: ' "$tmp/out" >"$tmp/lines"
    if [ $rc != 1 ] || [ "$(wc -l <"$tmp/lines")" != 1 ] ||
        ! grep -q -- "$says" "$tmp/lines"; then
        echo "not ok: $* should end with 1 and \"$says\", ended with $rc and"
        cat "$tmp/out"
        exit 1
    fi
    passed=$((passed + 1))
}

check 'no NVIDIA driver' LLM_SIMT_DRIVER=0
check 'driver is for CUDA 12.4, and one for 13.0' LLM_SIMT_DRIVER=12040
check 'this machine has no GPU' LLM_SIMT_DEVICES=0
check 'expected compute capability 8.0 or more, found 7.0' LLM_SIMT_MAJOR=7

# weights as F16 take some 7 MB, steps 4 and blocks 1
check 'weights take 7.[0-9], .* so that no KV block fits' LLM_SIMT_MEMORY=7500000
check 'so that about [1-9][0-9]* KV blocks fit, a kv_memory of [1-9]' \
    LLM_SIMT_MEMORY=11500000

check 'computing: an illegal memory access' LLM_SIMT_FAIL=1

more='--cuda_gemm library' check 'cuda_gemm library: there is none' \
    LLM_SIMT_NO_LIBRARY=1
more='--cuda_gemm theirs' check 'must be own or library, found "theirs"' LANG=C

# the library itself, where there is one and no GPU
if [ -r "$build/llm_cuda.so" ] && [ ! -e /dev/nvidia0 ]; then
    library=$build/llm_cuda.so check 'no NVIDIA driver\|no GPU' LANG=C
fi

echo "ok the engine says what is wrong with a GPU: $passed"
